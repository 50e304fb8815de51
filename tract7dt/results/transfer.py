"""Bringing a published run here and checking it: nothing is believed of it but what its digests confirm."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tract7dt.errors import ConfigError, StoreError
from tract7dt.publish.links import Link, link
from tract7dt.publish.manifest import MANIFEST, MAX_MANIFEST_BYTES, UPLOAD, Manifest, PublishedObject, parse
from tract7dt.results.runs import FoundRun
from tract7dt.store import atomic_path, sha256_file
from tract7dt.store.objects import ObjectInfo, ObjectStore
from tract7dt.store.remote import CHUNK, fetch, locked

__all__ = ["Check", "download", "fetch_object", "open_address", "verify", "verify_folder"]

_JOBS = 4
#: Called with an object and the number of bytes of it that came (negative: that have to come again).
OnBytes = Callable[[PublishedObject, int], None]


@dataclass(frozen=True, slots=True)
class Check:
    """What a check of a run found.

    Attributes
    ----------
    where : str
    manifest : Manifest
    n_sound : int
        Objects that are there with the right size and digest.
    problems : tuple of str
        One line for each of the others.
    unlisted : tuple of str
        Files that lie there and are not in the manifest.

    What the manifest says was dropped is neither missing nor a problem: ``manifest.dropped`` names it.
    """

    where: str
    manifest: Manifest
    n_sound: int
    problems: tuple[str, ...]
    unlisted: tuple[str, ...]


def _told(entry: PublishedObject, n: int) -> None:
    """Nobody wants to know."""


def download(
    run: FoundRun, folder: str | Path, kinds: Sequence[str] = (), on_bytes: OnBytes = _told, jobs: int = _JOBS
) -> list[Path]:
    """Fetch a run, or some kinds of its files, to ``{folder}/{field}/{night}/{run_id}/``.

    A file that is there and sound is not fetched again, a beginning of one is gone on with; each appears under
    its name only when its SHA-256 is right. ``manifest.json`` comes last.

    Parameters
    ----------
    run : FoundRun
    folder : path
    kinds : sequence of str, optional
        E.g. ``catalogue``, ``plot``; default all.
    on_bytes : callable, optional
        Told of the progress, from several threads.
    jobs : int
        Files at a time.

    Returns
    -------
    list of Path
        In the order of the manifest, without ``manifest.json``.

    Raises
    ------
    StoreError
        An object is missing, or not what the manifest says.
    ConfigError
        The run has nothing of a kind, or a link in the folder leads out of it.
    """
    target = Path(folder) / run.manifest.field / run.manifest.night / run.manifest.run_id
    entries = run.chosen(tuple(kinds))
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="get")
    try:
        futures = [
            pool.submit(fetch_object, run.store, entry, _below(target, entry.key), on_bytes)
            for entry in entries
        ]
        paths = [future.result() for future in futures]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    with atomic_path(target / MANIFEST) as temporary:
        temporary.write_bytes(run.manifest_bytes)
    return paths


def _below(folder: Path, key: str) -> Path:
    """Path of a checked key, which no link on the disk may lead elsewhere."""
    path = folder / key
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"{path}: a link leads out of {folder}; expected a plain folder")
    return path


def fetch_object(store: ObjectStore, entry: PublishedObject, target: Path, on_bytes: OnBytes = _told) -> Path:
    """Fetch one object to ``target``, whole and with the right digest or not at all.

    Raises
    ------
    StoreError
        It is missing, or not what the manifest says.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.parent / f".{entry.sha256[:24]}.part"
    while True:
        if target.is_file() and not target.is_symlink() and _is_sound(target, entry):
            on_bytes(entry, entry.size)
            return target
        about = _described(store, entry)
        with locked(part) as mine:
            if not mine:
                continue  # somebody else brought it, or failed to
            fetch(store, entry.key, part, about, lambda n: on_bytes(entry, n))
            if not _is_sound(part, entry):
                part.unlink()
                raise StoreError(
                    f"{store.address(entry.key)}: its SHA-256 is not the manifest's; it is damaged or replaced"
                )
            part.replace(target)
            return target


def _described(store: ObjectStore, entry: PublishedObject) -> ObjectInfo:
    """What the store says of an object, which must agree with the manifest."""
    about = store.info(entry.key)
    if about is None:
        raise StoreError(f"{store.address(entry.key)}: missing, though the manifest lists it")
    if about.size not in (None, entry.size):
        raise StoreError(
            f"{store.address(entry.key)}: the manifest says {entry.size} bytes, the store {about.size}"
        )
    return ObjectInfo(entry.size, about.version, about.by_range)


def _is_sound(path: Path, entry: PublishedObject) -> bool:
    return path.stat().st_size == entry.size and sha256_file(path) == entry.sha256


def verify(run: FoundRun, on_bytes: OnBytes = _told, jobs: int = _JOBS) -> Check:
    """Read every object of a run where it lies and compare size and SHA-256 with its manifest.

    Parameters
    ----------
    run : FoundRun
    on_bytes : callable, optional
        Told of the progress, from several threads.
    jobs : int
        Objects at a time.
    """
    store = run.store

    def problem(entry: PublishedObject) -> str | None:
        try:
            _described(store, entry)
            digest = hashlib.sha256()
            for data in _pieces(store, entry):
                digest.update(data)
                on_bytes(entry, len(data))
        except StoreError as error:
            if isinstance(error, ConnectionError):
                raise
            return str(error)
        same = digest.hexdigest() == entry.sha256
        return None if same else f"{store.address(entry.key)}: its SHA-256 is not the manifest's"

    with ThreadPoolExecutor(jobs) as pool:
        told = list(pool.map(problem, run.manifest.objects))
    problems = tuple(line for line in told if line is not None)
    listed = {entry.key for entry in run.manifest.objects} | {MANIFEST, UPLOAD}
    unlisted = () if store.is_web else tuple(sorted(set(store.find()) - listed))
    return Check(store.address(), run.manifest, len(told) - len(problems), problems, unlisted)


def _pieces(store: ObjectStore, entry: PublishedObject) -> Iterator[bytes]:
    """The object's bytes, no more than the manifest says and one."""
    if not store.is_web:
        for start in range(0, entry.size, CHUNK):
            yield store.read_range(start, min(start + CHUNK, entry.size), entry.key)
        return
    with store.stream(entry.key) as stream:  # a web server may not know ranges
        left = entry.size + 1
        while data := store.once(entry.key, partial(stream.read, min(left, 1 << 20))):
            left -= len(data)
            yield data


def verify_folder(folder: str | Path, on_bytes: OnBytes = _told) -> Check:
    """Check a run that :func:`download` brought; what was not fetched of it counts as missing.

    Raises
    ------
    StoreError
        The folder holds no manifest, or one that is not sound.
    """
    store = ObjectStore(str(Path(folder).absolute()))
    data = store.read(MANIFEST, MAX_MANIFEST_BYTES)
    return verify(FoundRun(store, parse(Manifest, data, store.address(MANIFEST)), data), on_bytes, jobs=1)


def open_address(
    run: FoundRun, kind: str = "report", expiry_seconds: int = 3600, endpoint_url: str | None = None
) -> Link:
    """Link to the first object of a kind, presigned where the store is private.

    Raises
    ------
    ConfigError
        The run has nothing of that kind.
    """
    entry = run.chosen((kind,))[0]
    return link(f"{run.store.url}/{entry.key}", expiry_seconds, endpoint_url or run.store.endpoint)
