"""Inputs from object storage: a local copy in a cache that all runs share.

A copy is kept under the version that the store gave for it (ETag, else time of the last change), so that an
object that changed is another entry and one that did not is never fetched twice. What was fetched of a copy
before a run was killed is where the next one goes on.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from tract7dt.errors import ConfigError, InputError, StoreError, StoreUnreachableError
from tract7dt.store.objects import ObjectInfo, ObjectStore
from tract7dt.store.urls import is_url, name_problem, redacted

__all__ = ["cache_folder", "fetch", "local_copy", "locked", "prune_cache"]

log = logging.getLogger(__name__)

#: Bytes that one request asks for.
CHUNK = 16 << 20
#: How long a copy counts as current where the store gives neither ETag nor time.
UNVERSIONED_S = 3600.0
_PART = ".part"
_LOCK = ".lock"


def cache_folder() -> Path:
    """Where copies are kept: TRACT7DT_CACHE_DIR, else ``tract7dt`` in the user's cache folder."""
    if given := os.environ.get("TRACT7DT_CACHE_DIR"):
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tract7dt"


def local_copy(url: str, cache_dir: str | Path | None = None, endpoint_url: str | None = None) -> Path:
    """Local file with the content of ``url``; a local path and ``file://`` are what they are.

    Safe to call from many threads, processes and runs at once: one of them fetches, the others wait.

    Parameters
    ----------
    url : str
        Local path or fsspec URL (``s3://``, ``https://``, ``memory://``, ...).
    cache_dir : path, optional
        Default :func:`cache_folder`.
    endpoint_url : str, optional
        S3-compatible service; default AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL.

    Returns
    -------
    Path
        Of a file that is whole. Do not write to it.

    Raises
    ------
    InputError
        There is no such object, access is refused, the URL carries a secret, the object changes while it is
        read, or is not as long as the store says; a local path is a pipe or a device, which might never end.
    StoreUnreachableError
        The store does not answer; worth another try later.
    StoreError
        The cache cannot be written to.
    """
    if not is_url(url):
        return _plain_file(Path(url), url)
    try:
        store = ObjectStore(url, endpoint_url)
        if store.is_local:
            return _plain_file(Path(store.path()), url)
        about = store.info()
        if about is None:
            raise InputError(f"{redacted(url)}: no such file")
        return _cached(store, about, Path(cache_dir) if cache_dir is not None else cache_folder())
    except ConfigError as error:
        raise InputError(str(error)) from None
    except StoreUnreachableError:
        raise
    except _CacheError as error:
        raise StoreError(str(error)) from None
    except StoreError as error:
        raise InputError(str(error)) from None


def _plain_file(path: Path, name: str) -> Path:
    """``path``, unless it is there and is neither a file nor a folder."""
    try:
        known = not path.exists() or path.is_file() or path.is_dir()
    except OSError:  # a name that is too long: whoever opens it says so
        known = True
    if not known:
        raise InputError(f"{name}: expected a file, found a pipe, a socket or a device")
    return path


def prune_cache(days: float, cache_dir: str | Path | None = None) -> int:
    """Remove copies that no run has used for ``days``; those being fetched stay.

    Returns
    -------
    int
        Bytes given back.
    """
    root = Path(cache_dir) if cache_dir is not None else cache_folder()
    oldest = time.time() - days * 86400.0
    freed = 0
    for folder in (root / "inputs").glob("*/"):
        files = [path for path in folder.iterdir() if path.is_file() and path.name != _LOCK]
        if any(path.stat().st_atime > oldest or path.stat().st_mtime > oldest for path in files):
            continue
        with locked(folder / _LOCK, wait=False) as mine:
            if mine:
                freed += sum(path.stat().st_size for path in files)
                shutil.rmtree(folder)
    return freed


class _CacheError(StoreError):
    """The cache is at fault, not the object."""


def _cached(store: ObjectStore, about: ObjectInfo, cache_dir: Path) -> Path:
    identity = "\n".join((store.endpoint or "", store.address(), about.version, str(about.size)))
    name = unquote(urlsplit(store.address()).path.rsplit("/", 1)[-1])
    folder = cache_dir / "inputs" / hashlib.sha256(identity.encode()).hexdigest()[:32]
    target = folder / ("object" if name_problem(name) or name in (_PART, _LOCK) else name)
    try:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / _LOCK) as mine:
                if not mine:
                    continue  # somebody cleared the folder away while we waited
                if not _is_current(target, about):
                    log.info("fetching %s (%s bytes)", store.address(), about.size)
                    _fetch_version(store, about, folder / _PART)
                    (folder / _PART).replace(target)
                stat = target.stat()
                os.utime(target, ns=(time.time_ns(), stat.st_mtime_ns))  # by this prune_cache knows its use
                return target
    except StoreUnreachableError:
        raise
    except OSError as error:
        raise _CacheError(
            f"{folder}: the copy of {store.address()} cannot be written ({error.strerror or error}); "
            "TRACT7DT_CACHE_DIR names another folder"
        ) from error


def _is_current(target: Path, about: ObjectInfo) -> bool:
    try:
        stat = target.stat()
    except FileNotFoundError:
        return False
    if about.size is not None and stat.st_size != about.size:
        return False
    return bool(about.version) or time.time() - stat.st_mtime < UNVERSIONED_S


def _fetch_version(store: ObjectStore, about: ObjectInfo, part: Path) -> None:
    """Fetch the object as ``about`` describes it to ``part``."""
    if not about.version:
        part.unlink(missing_ok=True)  # nothing says that it is the beginning of the same content
    fetch(store, "", part, about)
    now = store.info()
    if now is None or (now.version, now.size) != (about.version, about.size):
        part.unlink(missing_ok=True)
        raise StoreError(f"{store.address()}: changed while it was read; is it still being written?")


def fetch(
    store: ObjectStore,
    key: str,
    part: Path,
    about: ObjectInfo,
    on_bytes: Callable[[int], None] | None = None,
) -> None:
    """Bring an object to ``part``, going on after the bytes that are there.

    Parameters
    ----------
    store : ObjectStore
    key : str
    part : Path
        Holds a beginning of the object, or nothing.
    about : ObjectInfo
        Of the object.
    on_bytes : callable, optional
        Called with the number of bytes that came; negative where some have to come again.

    Raises
    ------
    StoreError
        The object is not as long as ``about`` says; ``part`` is removed.
    """
    told = on_bytes or (lambda n: None)
    size = about.size
    with part.open("ab") as out:
        if size is not None and out.tell() > size:
            out.truncate(0)
            out.seek(0)
        told(out.tell())
        if size is None or not about.by_range or not _by_ranges(store, key, size, out, told):
            told(-out.tell())
            out.truncate(0)
            out.seek(0)
            _in_one(store, key, out, told)
        found = out.tell()
    if size is not None and found != size:
        part.unlink()
        raise StoreError(f"{store.address(key)}: expected {size} bytes, found {found}")


def _by_ranges(store: ObjectStore, key: str, size: int, out: IO[bytes], told: Callable[[int], None]) -> bool:
    """Fetch what is missing in pieces; False where the store takes no ranges after all."""
    while (start := out.tell()) < size:
        end = min(start + CHUNK, size)
        data = store.read_range(start, end, key)
        if len(data) != end - start:
            return False
        out.write(data)
        told(len(data))
    return True


def _in_one(store: ObjectStore, key: str, out: IO[bytes], told: Callable[[int], None]) -> None:
    with store.stream(key) as stream:
        while data := store.once(key, lambda: stream.read(1 << 20)):
            out.write(data)
            told(len(data))


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock that is the file ``path``, made where it is not there; it ends with its process.

    Gives False where another holds it and ``wait`` is false, or where the file was renamed or removed by the
    one that held it: what was to be done may be done.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        try:
            same = os.fstat(handle).st_ino == path.stat().st_ino
        except FileNotFoundError:
            same = False
        yield same
    finally:
        os.close(handle)
