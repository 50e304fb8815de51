"""Writing a file whole or not at all."""

from __future__ import annotations

import itertools
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tract7dt.store.recording import note_written

__all__ = ["atomic_path", "remove_temporaries", "write_bytes", "write_json", "write_text"]

#: Temporary names of a process differ; those of two processes do by their number.
_NUMBERS = itertools.count()


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside ``target`` that is renamed to it when the block ends well.

    The temporary name keeps the target's suffixes (writers choose a format by them) and starts with a
    dot, so that a killed run leaves nothing that a later run could take for a result. A file that was
    written is reported to :func:`tract7dt.store.recorded_writes`.

    Parameters
    ----------
    target : path
        Final path; its folder is made where it does not exist.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    suffix = "".join(target.suffixes[-2:])
    prefix = f".{target.name}.{os.getpid()}-"
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=f".tmp{suffix}", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes it private; a result is as readable as any file
        temporary.replace(target)
        note_written(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(target: str | os.PathLike[str], content: bytes) -> None:
    """Write ``content`` to ``target``, whole or not at all; for files that come by the thousand.

    The same promise as :func:`atomic_path`, in a quarter of its time.
    """
    path = os.fspath(target)
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}-{next(_NUMBERS)}.tmp{os.path.splitext(name)[1]}")  # noqa: PTH118, PTH122
    done = False
    try:
        try:
            stream = open(temporary, "xb")  # noqa: PTH123, SIM115 - closed below, before the rename
        except FileNotFoundError:
            Path(folder).mkdir(parents=True, exist_ok=True)
            stream = open(temporary, "xb")  # noqa: PTH123, SIM115
        with stream:
            stream.write(content)
        os.replace(temporary, path)  # noqa: PTH105
        done = True
    finally:
        if not done:
            Path(temporary).unlink(missing_ok=True)
    note_written(Path(path))


def remove_temporaries(folder: str | os.PathLike[str], pid: int | None = None) -> None:
    """Remove what a process that was killed had half written anywhere below ``folder``.

    Parameters
    ----------
    folder : path
    pid : int, optional
        The process; None for any, which is safe only where nobody writes.
    """
    for path in Path(folder).rglob(".*.tmp*" if pid is None else f".*.{pid}-*.tmp*"):
        path.unlink(missing_ok=True)


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` (UTF-8) to ``target``, whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as JSON, whole or not at all; NumPy numbers become plain ones, NaN and inf null."""
    write_text(target, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """``value`` with dataclasses, NumPy scalars and arrays, paths and non-finite floats made JSON-safe."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    return value
