"""The library's own stages, one of which meets its end: STRIKE is ``STAGE KIND NUMBER``.

When the stage puts a file in its place for the NUMBER-th time (counted in its process), ``kill`` ends the flow's
process by SIGKILL, so that the file is half written and nothing says so, and ``clock`` sets the clock a day back.

Workers find the stages here by name, since these stand in the place of the library's.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tract7dt import stages

STAGES = (
    "load_inputs",
    "augment_gaia",
    "bright_mask",
    "build_epsf_band",
    "build_patches",
    "compose_final_masks",
    "build_patch_inputs",
    "fit_patch_batch",
    "merge",
    "compute_zp",
)

_count = 0


@contextlib.contextmanager
def struck(kind: str, number: int) -> Iterator[None]:
    """Do what ``kind`` says when the ``number``-th file is put in its place; this process's count."""
    real = Path.replace

    def replace(self: Path, target: Any) -> Path:
        global _count
        if ".progress" not in Path(target).parts:  # notes of progress come by the clock
            _count += 1
            if _count == number:
                ACTS[kind]()
        return real(self, target)

    Path.replace = replace  # type: ignore[method-assign]
    try:
        yield
    finally:
        Path.replace = real  # type: ignore[method-assign]


def kill() -> None:
    """End the flow, from whatever process of it, and wait for what the kernel does to this one."""
    os.kill(int(os.environ["FLOW_PID"]), signal.SIGKILL)
    time.sleep(60)


def clock() -> None:
    """A day back, for Python's clock and for Prefect's own."""
    global _back
    _back = 86400.0


ACTS = {"kill": kill, "clock": clock}
_back = 0.0


def turn_the_clock() -> None:
    """Let :func:`clock` turn it; before anything takes a clock by its name."""
    import datetime

    import prefect.types._datetime as prefects

    wall, now = time.time, prefects.now

    def turned(*args: Any) -> Any:
        return now(*args) - datetime.timedelta(seconds=_back)

    time.time = lambda: wall() - _back
    prefects.now = turned


def _stricken(name: str) -> Callable[..., Any]:
    stage = getattr(stages, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        which, kind, number = os.environ.get("STRIKE", "none none 0").split()
        with struck(kind, int(number)) if which == name else contextlib.nullcontext():
            return stage(*args, **kwargs)

    # Reuse and the pool know stages by these; no functools.wraps, which names the library's own.
    call.__name__ = call.__qualname__ = name
    call.__signature__ = inspect.signature(stage)  # type: ignore[attr-defined]
    return call


for _name in STAGES:
    globals()[_name] = _stricken(_name)


def install() -> None:
    """Put them in the place of the library's; before anything imports ``tasks.stages``."""
    os.environ["FLOW_PID"] = str(os.getpid())
    for name in STAGES:
        setattr(stages, name, globals()[name])
