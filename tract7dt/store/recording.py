"""Which files a piece of work wrote: :func:`tract7dt.store.atomic_path` tells whoever asks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import ParamSpec, TypeVar

__all__ = ["note_written", "recorded_writes", "with_recording"]

P = ParamSpec("P")
R = TypeVar("R")

#: Files written in this context, with the digest of those whose writer knows it.
_written: ContextVar[dict[Path, str | None] | None] = ContextVar("tract7dt_written", default=None)


@contextlib.contextmanager
def recorded_writes() -> Iterator[dict[Path, str | None]]:
    """Collect the absolute paths of the files that are written within the block.

    Yields
    ------
    dict of Path to str or None
        Filled while the block runs, in the order of writing; the value is the digest of the file where
        its writer worked it out on the way. A thread that the block starts takes part if what it runs
        went through :func:`with_recording`.
    """
    written: dict[Path, str | None] = {}
    token = _written.set(written)
    try:
        yield written
    finally:
        _written.reset(token)


def note_written(path: Path, digest: str | None = None) -> None:
    """Say that ``path`` has been written whole, and what its digest is if that is known."""
    written = _written.get()
    if written is not None:
        path = path.absolute()
        written.pop(path, None)
        written[path] = digest


def with_recording(work: Callable[P, R]) -> Callable[P, R]:
    """``work`` for the threads of a pool: what it writes counts as written by the caller of this function."""
    context = copy_context()

    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.copy().run(work, *args, **kwargs)

    return run
