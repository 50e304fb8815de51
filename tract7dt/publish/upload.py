"""Bringing a run to the store: everything first, then its manifest, then the pointer to it.

The order is what makes a run whole or invisible: ``manifest.json`` is there only when every object is up and
verified, ``latest.json`` names only runs that have a manifest. What is up already is known from the store
itself, its listing and the digests in the manifest (or, before there is one, in ``upload.json``), so that any
machine can go on where another was killed.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tract7dt.errors import ConfigError, ProductError, StoreError
from tract7dt.publish.manifest import (
    LATEST,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    UPLOAD,
    Latest,
    Manifest,
    PublishedObject,
    RunPointer,
    parse,
    text_of,
)
from tract7dt.publish.prepare import Prepared, now, prepare
from tract7dt.store import sha256_bytes, sha256_file
from tract7dt.store.objects import ObjectInfo, ObjectStore

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["Published", "publish"]

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

#: Objects that are on their way at the same time; a large one takes further connections for its parts.
JOBS = 6
_JSON = "application/json"
_NIGHT = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class Published:
    """A published run.

    Attributes
    ----------
    url : str
        Folder of the run.
    manifest_url : str
    manifest_sha256 : str
    status : str
        ``done`` or ``partial``.
    n_objects, n_bytes : int
        Of the run, without the manifest.
    n_uploaded, bytes_uploaded : int
        What was missing in the store or different there.
    is_latest : bool
        Whether ``latest.json`` names this run; not so if the store holds a later night.
    """

    url: str
    manifest_url: str
    manifest_sha256: str
    status: str
    n_objects: int
    n_bytes: int
    n_uploaded: int
    bytes_uploaded: int
    is_latest: bool


def publish(
    settings: Settings,
    run_id: str,
    night: str,
    jobs: int = JOBS,
    on_object: Callable[[PublishedObject], None] | None = None,
) -> Published:
    """Publish the run in ``outputs.work_dir`` to ``publish.url``.

    It lies at ``{url}/{tile_name}/{night}/{run_id}/``. A second call brings up just what is missing or differs.

    Parameters
    ----------
    settings : Settings
    run_id : str
        One folder a run; a rerun has an id of its own.
    night : str
        ``YYYY-MM-DD``, by which runs are ordered; anything else counts as latest when it is published.
    jobs : int
        Objects at a time.
    on_object : callable, optional
        Called in this thread after each object that went up.

    Raises
    ------
    ConfigError
        ``publish.url`` is not set, carries a secret or cannot be written to, or a name cannot be a folder.
    ProductError
        The run failed, is not complete, or changes while it is published.
    StoreError
        The store refuses, or holds something else than what was sent.
    StoreUnreachableError
        The store does not answer, after several tries.
    """
    store = _store(settings)
    with _scratch(Path(settings.outputs.work_dir)) as scratch:
        prepared = prepare(settings, run_id, night, scratch)
        run = _Run(store, prepared)
        sent = run.bring_up(max(1, jobs), on_object or (lambda entry: None))
        manifest, digest = run.close(changed=bool(sent))
        is_latest = _switch_latest(store, manifest, digest)
    result = Published(
        url=store.address(manifest.prefix),
        manifest_url=store.address(f"{manifest.prefix}/{MANIFEST}"),
        manifest_sha256=digest,
        status=manifest.status,
        n_objects=len(manifest.objects),
        n_bytes=manifest.n_bytes,
        n_uploaded=len(sent),
        bytes_uploaded=sum(entry.size for entry in sent),
        is_latest=is_latest,
    )
    log.info(
        "published %s: %d objects, %d bytes, %d of them new or changed",
        result.url, result.n_objects, result.n_bytes, result.n_uploaded,
    )  # fmt: skip
    return result


@contextmanager
def _scratch(work_dir: Path) -> Iterator[Path]:
    """A folder in the run's own for copies of texts; what a killed publication left there goes first."""
    folder = work_dir / ".publish"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _store(settings: Settings) -> ObjectStore:
    if settings.publish.url is None:
        raise ConfigError("publish.url: expected where to publish to, found null")
    store = ObjectStore(settings.publish.url, settings.publish.endpoint_url)
    if store.is_web:
        raise ConfigError(f"publish.url: {store.address()} is a web server, which cannot be written to")
    return store


class _Run:
    """The folder of one run in the store, while it is being filled."""

    def __init__(self, store: ObjectStore, prepared: Prepared) -> None:
        self._store, self._prepared = store, prepared
        self._folder = prepared.manifest.prefix
        found = store.find(self._folder)
        skip = len(self._folder) + 1
        self._there: dict[str, ObjectInfo] = {key[skip:]: about for key, about in found.items()}
        self._published = self._stored(MANIFEST)
        self._known = self._published or self._stored(UPLOAD)

    def _stored(self, name: str) -> Manifest | None:
        """Manifest or plan that is in the store; a damaged one is as good as none."""
        if name not in self._there:
            return None
        key = f"{self._folder}/{name}"
        try:
            return parse(Manifest, self._store.read(key, MAX_MANIFEST_BYTES), self._store.address(key))
        except StoreError as error:
            if isinstance(error, ConnectionError):
                raise
            log.warning("%s; everything is brought up anew", error)
            return None

    # --- objects -----------------------------------------------------------------------------------
    def bring_up(self, jobs: int, told: Callable[[PublishedObject], None]) -> list[PublishedObject]:
        """Upload and verify what is missing or differs; returns that."""
        objects = self._prepared.manifest.objects
        missing = [entry for entry in objects if not self._is_there(entry)]
        keys = {entry.key for entry in objects}
        leftover = [key for key in self._there if key not in keys | {MANIFEST, UPLOAD}]
        if self._published is not None and (missing or leftover):
            self._withdraw()
        if missing or leftover or self._published is None:
            # What lies there under the name of something else must not be taken for it by the next attempt.
            stale = [entry.key for entry in missing if entry.key in self._there]
            for _ in _in_parallel(jobs, [*leftover, *stale], lambda key: self._store.delete(self._key(key))):
                pass
            self._store.write(text_of(self._prepared.manifest), self._key(UPLOAD), _JSON)
        missing.sort(key=lambda entry: -entry.size)  # the largest first: it takes longest
        for entry in _in_parallel(jobs, missing, self._send):
            told(entry)
        if missing:
            # What went up first may have gone since: a store can undo a request that broke off, and with it the
            # one that took its place (rclone 1.75, its issue 9718).
            for entry in _in_parallel(jobs, self._not_held(), self._send):
                log.warning("%s: was gone from the store; sent again", self._key(entry.key))
        return missing

    def _not_held(self) -> list[PublishedObject]:
        """Objects that the store's list lacks, and the store itself when it is asked for them one by one."""
        found = self._store.find(self._folder)
        return [
            entry
            for entry in self._prepared.manifest.objects
            if ((about := found.get(self._key(entry.key))) is None or about.size != entry.size)
            and self._store.arrived(self._key(entry.key), entry.size) != entry.size
        ]

    def _key(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def _is_there(self, entry: PublishedObject) -> bool:
        about = self._there.get(entry.key)
        if about is None or about.size != entry.size:
            return False
        if self._store.is_local:
            return sha256_file(self._store.path(self._key(entry.key))) == entry.sha256
        known = {} if self._known is None else {o.key: o.sha256 for o in self._known.objects}
        return known.get(entry.key) == entry.sha256

    def _send(self, entry: PublishedObject) -> PublishedObject:
        key, source = self._key(entry.key), self._prepared.files[entry.key]
        for last in (False, True):
            self._store.upload(source, key, entry.content_type)
            if self._prepared.changed(entry.key):
                self._store.delete(key)
                raise ProductError(f"{source}: changed while it was published; try again")
            size = self._store.arrived(key, entry.size)
            if size == entry.size:
                break
            if last:
                raise StoreError(
                    f"{self._store.address(key)}: sent {entry.size} bytes, the store holds {size}"
                )
            log.warning("%s: the store holds %s bytes of %d; sent again", key, size, entry.size)
        if self._store.is_local and sha256_file(self._store.path(key)) != entry.sha256:
            raise StoreError(f"{self._store.address(key)}: the file is not what was written")
        return entry

    # --- manifest ----------------------------------------------------------------------------------
    def _withdraw(self) -> None:
        """Take the run out of sight before it is changed."""
        manifest = self._prepared.manifest
        key = f"{manifest.field}/{LATEST}"
        latest = _read_latest(self._store, manifest.field)
        if latest is not None and (latest.night, latest.run_id) == (manifest.night, manifest.run_id):
            before = latest.previous
            if before is not None and _has_manifest(self._store, manifest.field, before):
                log.info("%s steps back to %s %s", self._store.address(key), before.night, before.run_id)
                self._store.write(text_of(_pointer(manifest.field, before, None)), key, _JSON)
            else:
                self._store.delete(key)
        self._store.delete(self._key(MANIFEST))
        self._published = None

    def close(self, changed: bool) -> tuple[Manifest, str]:
        """Write the manifest, which makes the run one that is published; returns it and its digest."""
        if self._published is not None and not changed:
            data = self._store.read(self._key(MANIFEST), MAX_MANIFEST_BYTES)
            return self._published, sha256_bytes(data)
        data = text_of(self._prepared.manifest)
        self._store.write(data, self._key(MANIFEST), _JSON)
        self._store.arrived(self._key(MANIFEST), len(data))
        if self._store.read(self._key(MANIFEST), MAX_MANIFEST_BYTES) != data:
            raise StoreError(f"{self._store.address(self._key(MANIFEST))}: is not what was written")
        self._store.delete(self._key(UPLOAD))
        return self._prepared.manifest, sha256_bytes(data)


def _in_parallel(jobs: int, items: Sequence[T], action: Callable[[T], R]) -> Iterator[R]:
    """Results of ``action`` on each item as they come; the first error ends it, and what has not begun."""
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="publish")
    try:
        for future in as_completed([pool.submit(action, item) for item in items]):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read_latest(store: ObjectStore, field: str) -> Latest | None:
    """``latest.json`` of a field; None if there is none, or none of ours."""
    key = f"{field}/{LATEST}"
    if store.info(key) is None:
        return None
    try:
        return parse(Latest, store.read(key, MAX_MANIFEST_BYTES), store.address(key))
    except StoreError as error:
        if isinstance(error, ConnectionError):
            raise
        log.warning("%s; it is replaced", error)
        return None


def _has_manifest(store: ObjectStore, field: str, run: RunPointer) -> bool:
    return store.info(f"{field}/{run.night}/{run.run_id}/{MANIFEST}") is not None


def _as_pointer(latest: Latest) -> RunPointer:
    return RunPointer(
        night=latest.night,
        run_id=latest.run_id,
        status=latest.status,
        manifest_sha256=latest.manifest_sha256,
    )


def _pointer(field: str, run: RunPointer, previous: RunPointer | None) -> Latest:
    return Latest(
        field=field,
        night=run.night,
        run_id=run.run_id,
        status=run.status,
        manifest_sha256=run.manifest_sha256,
        manifest=f"{run.night}/{run.run_id}/{MANIFEST}",
        switched=now(),
        previous=previous,
    )


def _switch_latest(store: ObjectStore, manifest: Manifest, digest: str) -> bool:
    """Let ``latest.json`` name the run, unless it names one of a later night; whether it names it now."""
    mine = RunPointer(
        night=manifest.night, run_id=manifest.run_id, status=manifest.status, manifest_sha256=digest
    )
    current = _read_latest(store, manifest.field)
    previous: RunPointer | None = None
    if current is not None:
        if (current.night, current.run_id, current.manifest_sha256) == (mine.night, mine.run_id, digest):
            return True
        dated = _NIGHT.fullmatch(current.night) and _NIGHT.fullmatch(mine.night)
        if dated and current.night > mine.night:
            log.info("latest of %s stays %s, a later night", manifest.field, current.night)
            return False
        same = (current.night, current.run_id) == (mine.night, mine.run_id)
        previous = current.previous if same else _as_pointer(current)
    key = f"{manifest.field}/{LATEST}"
    store.write(text_of(_pointer(manifest.field, mine, previous)), key, _JSON)
    return True
