"""The list of input images."""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Callable, Mapping
from pathlib import Path

from tract7dt.errors import InputError, StoreUnreachableError
from tract7dt.store.remote import local_copy
from tract7dt.store.urls import is_url

__all__ = ["is_url", "read_image_list"]

log = logging.getLogger(__name__)


def read_image_list(path: str, base_dir: str | Path, names: Mapping[str, str] | None = None) -> list[str]:
    """Paths and URLs of the input images, in the order of the list.

    Blank lines and lines that start with ``#`` are skipped, as is anything after `` #``. A relative entry
    belongs to ``base_dir``; where it is not found there, to the folder of the list itself.

    Parameters
    ----------
    path : str
        Text file, local or URL.
    base_dir : path
        Folder of the configuration.
    names : mapping, optional
        What ``{tile_name}`` and ``{night}`` in the entries stand for.

    Returns
    -------
    list of str
        Absolute paths or URLs. Whether the images exist is for :func:`inspect_images` to say.

    Raises
    ------
    InputError
        The list is missing, not text, a folder, or empty; an entry is a folder or comes twice.
    StoreUnreachableError
        The store of a URL does not answer.
    """
    found = [(number, _filled(entry, names or {})) for number, entry in _entries(_text(path))]
    entries = [(number, _resolve(entry, Path(base_dir), path)) for number, entry in found]
    if not entries:
        raise InputError(f"image list {path}: expected one FITS path or URL per line, found none")
    problems = []
    first: dict[str, int] = {}
    for number, entry in entries:
        if names and "{night}" in entry:
            problems.append(f"line {number}: {entry}: which night? Give it (--night, or the parameter night)")
        if entry in first:
            problems.append(f"line {number}: {entry} is already in line {first[entry]}")
        elif not is_url(entry) and _is(Path.is_dir, Path(entry)):
            problems.append(f"line {number}: {entry} is a folder; expected a FITS file")
        first.setdefault(entry, number)
    if problems:
        raise InputError("\n  ".join([f"image list {path}:", *problems]))
    return [entry for _, entry in entries]


def _text(path: str) -> str:
    if not is_url(path) and _is(Path.is_dir, Path(path)):
        raise InputError(f"image list {path}: expected a text file, found a folder")
    try:
        data = local_copy(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"image list {path}: no such file") from None
    except InputError as error:
        raise InputError(f"image list {error}") from None
    except StoreUnreachableError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"image list {path}: cannot be read ({error})") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InputError(
            f"image list {path}: expected a text file with one FITS path or URL per line, found binary data"
        )
    return text


def _entries(text: str) -> list[tuple[int, str]]:
    lines = ((i, line.split(" #")[0].strip()) for i, line in enumerate(text.splitlines(), 1))
    return [(i, line) for i, line in lines if line and not line.startswith("#")]


def _filled(entry: str, names: Mapping[str, str]) -> str:
    for name, value in names.items():
        entry = entry.replace(f"{{{name}}}", value)
    return entry


def _resolve(entry: str, base_dir: Path, list_path: str) -> str:
    if is_url(entry):
        return entry
    path = _expanded(Path(entry))
    if path.is_absolute():
        return str(path)
    by_config = (base_dir / path).absolute()
    if _is(Path.exists, by_config):
        return str(by_config)
    if is_url(list_path):
        return posixpath.join(posixpath.dirname(list_path), entry)
    by_list = (Path(list_path).parent / path).absolute()
    return str(by_list if _is(Path.exists, by_list) else by_config)


def _is(what: Callable[[Path], bool], path: Path) -> bool:
    """``what(path)``, False for a name that no file can have (too long)."""
    try:
        return what(path)
    except OSError:
        return False


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # no such user, no home: a name that starts with "~"
        return path
