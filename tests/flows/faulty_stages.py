"""The library's own fits, with troubles: FAULTS is a JSON mapping of patch to a kind of trouble.

Workers are told to call :func:`fit_patch_batch` of this module, since it stands in the place of the library's.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tract7dt import fit, stages
from tract7dt.types import Ref

_fit_patch_batch = stages.fit_patch_batch
_fit_patch = fit.fit_patch


def _kind(tag: str) -> str | None:
    return json.loads(os.environ.get("FAULTS", "{}")).get(tag)


def fit_patch_batch(
    settings: Any, payloads: Sequence[Ref], on_patch: Callable[[str], None] | None = None
) -> list[Ref]:
    root = Path(settings.outputs.work_dir)
    fit.fit_patch = _fit_or_fill_memory

    def begun(tag: str) -> None:
        if on_patch:
            on_patch(tag)
        with (root / "begun.txt").open("a") as stream:
            stream.write(f"{tag} {os.getpid()}\n")
        kind = _kind(tag)
        if kind == "os._exit":
            os._exit(7)
        if kind == "kill once" and not (mark := root / f"killed-{tag}").exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hang":
            time.sleep(600)

    return _fit_patch_batch(settings, payloads, on_patch=begun)


@functools.wraps(_fit_patch)
def _fit_or_fill_memory(problem: Any, run: Any) -> Any:
    if _kind(problem.tag) == "memory":
        taken = []
        while True:
            taken.append(np.ones((1024, 8192)))
    return _fit_patch(problem, run)


def install() -> None:
    stages.fit_patch_batch = fit_patch_batch  # type: ignore[assignment]
