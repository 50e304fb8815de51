"""Digests of files by content, each file read once as long as it stays as it is."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tract7dt.errors import InputError
from tract7dt.store import sha256_bytes, sha256_file, write_json
from tract7dt.store.urls import is_url

__all__ = ["MISSING", "FileDigests", "Unread", "digest_of", "file_stamp"]

#: Digest of a file that is not there: the stage that needs it says so in its own words.
MISSING = "missing"

#: Files hashed at once; SHA-256 runs without the interpreter's lock.
_THREADS = 4
#: A file that was written this shortly before it was hashed may be written again within one tick of its clock.
_RACY_NS = 20_000_000
#: What stands for the digest of a file that has not been read begins with it.
_UNREAD = "unread:"


def digest_of(value: Any) -> str:
    """SHA-256 of plain data (mappings, lists, text, numbers), whatever the order of its keys."""
    return sha256_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def file_stamp(path: Path) -> list[int]:
    """What changes when a file is written: its size and the times of its content and of its inode, ns."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that was there but was not read.

    Attributes
    ----------
    given : str
        Path or URL.
    file : str
        The file, or the local copy of the URL.
    mark : list of int
        What changes when the file does.
    """

    given: str
    file: str
    mark: list[int]


class FileDigests:
    """SHA-256 of files, remembered in a JSON file by path and stamp.

    A file whose stamp (size, times of content and inode) is as remembered is not read again. A URL stands
    for its local copy, which is of the version that its server has now.

    Parameters
    ----------
    memory : Path
        ``.reuse/digests.json``; a missing or damaged one is begun anew. Several processes may share it:
        what one of them forgets to the advantage of another is worked out again.

    Attributes
    ----------
    unread : dict of str to Unread
        Files that :meth:`known` did not read, by what it gave for them.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self.unread: dict[str, Unread] = {}
        self._known: dict[str, list[Any]] = {}
        with contextlib.suppress(OSError, ValueError):
            stored = json.loads(memory.read_text(encoding="utf-8"))
            if isinstance(stored, dict):
                self._known = {k: v for k, v in stored.items() if isinstance(v, list) and len(v) == 2}

    def of(self, path: str | Path) -> str:
        """Digest of one file or URL, :data:`MISSING` if it is not there."""
        return self.of_all([path])[0]

    def of_all(self, paths: Sequence[str | Path]) -> list[str]:
        """Digests of several files or URLs, those that must be read in parallel.

        Raises
        ------
        StoreUnreachableError
            The store of a URL does not answer.
        """
        files = _in_parallel(_local, [str(path) for path in paths])
        marks = {file: _mark(file) for file in files}
        unknown = [file for file in dict.fromkeys(files) if self._recall(file, marks[file]) is None]
        found = dict(zip(unknown, _in_parallel(_read, unknown)))
        if found:
            self._remember(found, marks)
        return [found[file] if file in found else str(self._recall(file, marks[file])) for file in files]

    def known(self, paths: Sequence[str | Path]) -> list[str]:
        """Digests as :meth:`of_all` gives them, but a file that must be read is left to the stage that reads it.

        For such a file stands a text that no digest is, and that changes when the file does.

        Raises
        ------
        StoreUnreachableError
            The store of a URL does not answer.
        """
        given = [str(path) for path in paths]
        return [self._known_or_not(*names) for names in zip(given, _in_parallel(_local, given))]

    def _known_or_not(self, given: str, file: str) -> str:
        now, mark = time.time_ns(), _mark(file)
        if (digest := self._recall(file, mark)) is not None:
            return digest
        # the mark of what is not there, or may still change, is none
        if now - max(mark[1:], default=now) < _RACY_NS:
            return self.of(given)
        stands = _UNREAD + digest_of([file, mark])
        self.unread[stands] = Unread(given, file, mark)
        return stands

    def learn(self, unread: Mapping[str, Unread], digests: Mapping[str, str]) -> dict[str, str]:
        """Remember digests that a stage took of files while it read them.

        Parameters
        ----------
        unread : mapping of str to Unread
            What :meth:`known` left to the stage before it began.
        digests : mapping of str to str
            SHA-256 by path or URL.

        Returns
        -------
        dict of str to str
            Digests by what stood for them, of the files that stayed as they were all the while. One that was
            written meanwhile may have been read in part before and in part after.
        """
        stayed = {
            stands: entry
            for stands, entry in unread.items()
            if entry.given in digests
            and _local(entry.given) == entry.file
            and _mark(entry.file) == entry.mark
        }
        found = {entry.file: digests[entry.given] for entry in stayed.values()}
        self._remember(found, {entry.file: entry.mark for entry in stayed.values()})
        return {stands: digests[entry.given] for stands, entry in stayed.items()}

    def _recall(self, file: str, mark: list[int]) -> str | None:
        entry = self._known.get(file)
        return str(entry[1]) if entry is not None and entry[0] == mark else None

    def _remember(self, found: Mapping[str, str], marks: Mapping[str, list[int]]) -> None:
        now = time.time_ns()
        kept = {
            file: [marks[file], digest]
            for file, digest in found.items()
            if digest != MISSING and now - max(marks[file][1:], default=now) >= _RACY_NS
        }
        if kept:
            self._known |= kept
            write_json(self._memory, self._known)


def _in_parallel(function: Callable[[str], str], names: Sequence[str]) -> list[str]:
    """``function`` of every name, by a few threads."""
    if not names:
        return []
    with ThreadPoolExecutor(min(_THREADS, len(names))) as pool:
        return list(pool.map(function, names))


def _local(given: str) -> str:
    """Path of a file, or of the copy of a URL; the URL where there is none."""
    try:
        if not is_url(given):
            return given
        from tract7dt.store.remote import local_copy  # fsspec comes with it

        return str(local_copy(given))
    except InputError:  # the stage that needs it says why
        return given


def _mark(file: str) -> list[int]:
    """What changes when the file does; nothing where there is none."""
    from tract7dt.store.remote import cache_folder

    try:
        stamp = file_stamp(Path(file))
    except OSError:
        return []
    # The folder of a copy is that of its version, and the time of its inode that of its last use.
    return stamp[:2] if Path(file).is_relative_to(cache_folder()) else stamp


def _read(file: str) -> str:
    try:
        return sha256_file(file)
    except OSError:
        return MISSING
