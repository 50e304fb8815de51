"""Stages that a worker of the pool is given in tests: each meets a trouble of its own."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tract7dt.errors import InputError
from tract7dt.progress import ProgressWriter
from tract7dt.store import WorkDir, atomic_path, ref_to, write_json
from tract7dt.types import Ref

log = logging.getLogger("tract7dt.pool_stages")

_times = 0


class ForeignError(Exception):
    """Not of this project, with a constructor of its own."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class EndpointConnectionError(Exception):
    """Stands for botocore's."""


EndpointConnectionError.__module__ = "botocore.exceptions"


def echo(settings: Any, *values: Any) -> list[Any]:
    print("printed, which must not disturb")
    os.write(1, b"written to the descriptor, which must not either\n")
    sys.stdin.read()
    return [*values, settings.inputs.tile_name, os.getpid()]


def count(settings: Any) -> list[int]:
    global _times
    _times += 1
    return [os.getpid(), _times]


def is_loaded(settings: Any, module: str) -> bool:
    """Whether a module has been imported."""
    return module in sys.modules


def environment(settings: Any) -> list[Any]:
    import threading

    return [os.environ["OMP_NUM_THREADS"], "prefect" in sys.modules, threading.active_count()]


def settings_text(settings: Any) -> str:
    return settings.model_dump_json() + str(settings.base_dir)


def says(settings: Any, text: str) -> None:
    log.info("said %s", text)
    try:
        raise KeyError("inner")
    except KeyError:
        log.warning("with a traceback", exc_info=True)
    log.debug("nobody wants to know")


def fail(kind: str) -> None:
    if kind == "input":
        raise InputError("a bad header")
    if kind == "mount":
        raise InputError("image 3 cannot be read") from OSError(5, "input/output error")
    if kind == "disk":
        raise OSError(28, "No space left on device", "/somewhere")
    if kind == "reset":
        raise ConnectionResetError("by peer")
    if kind == "store":
        raise EndpointConnectionError("could not reach it")
    if kind == "foreign":
        raise ForeignError("this", "that")
    if kind == "exit":
        sys.exit(3)


def trouble(settings: Any, kind: str) -> None:
    root = Path(settings.outputs.work_dir)
    with (root / "tries").open("a") as stream:
        stream.write("x")
    fail(kind)
    if kind == "os._exit":
        os._exit(7)
    if kind == "segfault":
        ctypes.string_at(0)
    if kind == "kill":
        with atomic_path(root / "half.txt") as path:
            path.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    if kind == "kill once" and len((root / "tries").read_text()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "memory":
        kept = []
        while True:
            kept.append(np.ones(2**23))
    if kind == "hang":
        time.sleep(600)
    if kind == "hang in C":
        ctypes.PyDLL(None).sleep(600)  # holds the interpreter


def fit(settings: Any, payloads: Sequence[Ref], on_patch: Callable[[str], None]) -> list[Ref]:
    """Payloads hold what becomes of them: a kind of trouble, or anything else."""
    work = WorkDir.of(settings)
    fits = []
    tag = Path(payloads[0].path).stem
    with ProgressWriter.of(work.root, "patches", tag) as progress:
        for done, ref in enumerate(payloads, 1):
            tag = Path(ref.path).stem
            on_patch(tag)
            with (work.root / "fitted").open("a") as stream:
                stream.write(f"{tag} {os.getpid()}\n")
            kind = Path(ref.path).read_text()
            if kind == "memory":
                try:
                    trouble(settings, kind)
                except MemoryError:
                    kind = "MemoryError"
            else:
                trouble(settings, kind)
            write_json(work.patch_meta(tag), {"patch_tag": tag, "status": kind})
            fits.append(ref_to(work.patch_meta(tag), "patch_fit"))
            progress.update(done, len(payloads))
    return fits
