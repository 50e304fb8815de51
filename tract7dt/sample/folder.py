"""Making a folder whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tract7dt.errors import SampleError

__all__ = ["new_folder"]

#: A folder with this file in it is a sample field, which may be replaced on request.
_MARK = "image_list.txt"


@contextmanager
def new_folder(target: Path, force: bool) -> Iterator[Path]:
    """Give an empty folder beside ``target`` that takes its place when the block ends well.

    Until then, and whenever the block fails, whatever was at ``target`` stays as it was, and nothing else is
    left behind.

    Parameters
    ----------
    target : Path
        Final folder; missing or empty, or with ``force`` a sample field, which is replaced.
    force : bool
        Whether a sample field that is there may be replaced.

    Raises
    ------
    SampleError
        If something is there that may not be replaced, or the folder cannot be written.
    """
    target = target.expanduser().absolute()
    occupied = _check_target(target, force)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise SampleError(f"cannot write to {target.parent}: {error.strerror}") from None
    try:
        fresh = staging / "new"
        fresh.mkdir()
        yield fresh
        _put_in_place(fresh, target, staging / "old" if occupied else None)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _check_target(target: Path, force: bool) -> bool:
    """Whether something is at ``target`` that will be replaced."""
    if not os.path.lexists(target):
        return False
    if not target.is_dir() or target.is_symlink():
        raise SampleError(f"{target} is there and is not a folder")
    if not any(target.iterdir()):
        return False
    if not force:
        raise SampleError(f"{target} is there and not empty; --force replaces it")
    if not (target / _MARK).is_file():
        raise SampleError(f"{target} does not look like a sample field (no {_MARK}): not replaced")
    return True


def _put_in_place(fresh: Path, target: Path, old: Path | None) -> None:
    if old is None and target.is_dir():
        # Filled, not replaced: it may be the working folder of somebody's shell.
        for child in sorted(fresh.iterdir()):
            child.rename(target / child.name)
        return
    if old is not None:
        target.rename(old)
    try:
        fresh.rename(target)
    except OSError as error:
        if old is not None:
            old.rename(target)
        raise SampleError(f"cannot write {target}: {error.strerror}") from None
