"""Which runs are published below a URL."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tract7dt.errors import ConfigError, StoreError, StoreUnreachableError
from tract7dt.publish.manifest import (
    LATEST,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    Latest,
    Manifest,
    PublishedObject,
    parse,
)
from tract7dt.store import sha256_bytes
from tract7dt.store.objects import ObjectStore
from tract7dt.store.urls import name_problem

__all__ = ["FoundRun", "RunInfo", "find_run", "list_runs", "read_manifest"]

log = logging.getLogger(__name__)

_JOBS = 8
_MAX_NAMED = 10


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run of a listing.

    Attributes
    ----------
    field, night, run_id : str
    status : str
        ``done``, ``partial``, ``incomplete`` (its publication is under way, or was cut off) or ``unreadable``.
    finished : str
        When the run ended, ISO 8601; "" if not known.
    n_objects, n_bytes : int
    is_latest : bool
    """

    field: str
    night: str
    run_id: str
    status: str
    finished: str
    n_objects: int
    n_bytes: int
    is_latest: bool


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A published run that can be read.

    Attributes
    ----------
    store : ObjectStore
        Its keys are those of the manifest.
    manifest : Manifest
    manifest_bytes : bytes
        As stored.
    """

    store: ObjectStore
    manifest: Manifest
    manifest_bytes: bytes

    @property
    def name(self) -> str:
        """Field, night and run for messages."""
        return f"{self.manifest.field} {self.manifest.night} {self.manifest.run_id}"

    def chosen(self, kinds: tuple[str, ...]) -> list[PublishedObject]:
        """Objects of ``kinds``; all of them if none is named.

        Raises
        ------
        ConfigError
            The run has nothing of a kind.
        """
        there = sorted({entry.kind for entry in self.manifest.objects})
        if unknown := [kind for kind in kinds if kind not in there]:
            gone = {entry.kind: entry.dropped[:10] for entry in self.manifest.dropped}
            if when := [f"{kind} (on {gone[kind]})" for kind in unknown if kind in gone]:
                raise ConfigError(f"{self.name}: dropped by the field's retention: {', '.join(when)}")
            raise ConfigError(f"{self.name}: nothing of kind {', '.join(unknown)}; it has {', '.join(there)}")
        return self.manifest.of_kind(*kinds) if kinds else list(self.manifest.objects)


def list_runs(
    url: str, field: str | None = None, night: str | None = None, endpoint_url: str | None = None
) -> list[RunInfo]:
    """Runs below ``url`` by field, night and end of the run.

    Parameters
    ----------
    url : str
        ``publish.url`` of the runs.
    field, night : str, optional
        Only of these.
    endpoint_url : str, optional
        S3-compatible service; default AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL.

    Raises
    ------
    StoreError
        The store refuses or does not answer.
    """
    _check_names(field=field, night=night)
    store = ObjectStore(url, endpoint_url)
    places = []
    latest: dict[str, Latest | None] = {}
    for name in [field] if field else _names(store, ""):
        nights = [night] if night else _names(store, name)
        found = [(name, n, run) for n in nights for run in _names(store, f"{name}/{n}")]
        latest[name] = _latest(store, name) if found else None
        places += found
    with ThreadPoolExecutor(_JOBS) as pool:
        runs = list(pool.map(lambda place: _info(store, place, latest[place[0]]), places))
    return sorted(runs, key=lambda r: (r.field, r.night, r.finished, r.run_id))


def find_run(
    url: str,
    field: str | None = None,
    night: str | None = None,
    run: str = "latest",
    endpoint_url: str | None = None,
) -> FoundRun:
    """The run that is asked for.

    Parameters
    ----------
    url : str
        ``publish.url`` of the runs.
    field : str, optional
        May be left out where there is only one.
    night : str, optional
        ``YYYY-MM-DD``.
    run : str
        An id, or its beginning; ``latest``: what ``latest.json`` names or, with ``night``, the run of that
        night that ended last.
    endpoint_url : str, optional
        S3-compatible service; default AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL.

    Raises
    ------
    StoreError
        There is no such run, or its manifest is not sound.
    """
    _check_names(field=field, night=night, run=run)
    store = ObjectStore(url, endpoint_url)
    field = field or _only_field(store)
    if run == "latest" and night is None:
        latest = parse(
            Latest, _read(store, f"{field}/{LATEST}", f"no run of {field} is published"), _at(store, field)
        )
        found = read_manifest(url, field, latest.night, latest.run_id, endpoint_url)
        if sha256_bytes(found.manifest_bytes) != latest.manifest_sha256:
            raise StoreError(f"{found.store.address()}: is being published anew; try again in a minute")
        return found
    if run == "latest":
        runs = [r for r in list_runs(url, field, night, endpoint_url) if r.status in ("done", "partial")]
        if not runs:
            raise StoreError(f"{store.address(f'{field}/{night}')}: no published run")
        return read_manifest(url, field, runs[-1].night, runs[-1].run_id, endpoint_url)
    return read_manifest(url, field, *_matching(store, field, night, run), endpoint_url)


def read_manifest(url: str, field: str, night: str, run_id: str, endpoint_url: str | None = None) -> FoundRun:
    """The run at a known place.

    Raises
    ------
    StoreError
        There is no manifest, it is not sound, or it is another run's.
    """
    store = ObjectStore(f"{url.rstrip('/')}/{field}/{night}/{run_id}", endpoint_url)
    data = _read(store, MANIFEST, "no published run (or one that is not complete)")
    manifest = parse(Manifest, data, store.address(MANIFEST))
    if (manifest.field, manifest.night, manifest.run_id) != (field, night, run_id):
        raise StoreError(
            f"{store.address(MANIFEST)}: expected the manifest of {field} {night} {run_id}, "
            f"found that of {manifest.field} {manifest.night} {manifest.run_id}"
        )
    return FoundRun(store, manifest, data)


def _check_names(**names: str | None) -> None:
    for what, name in names.items():
        if name is not None and (problem := name_problem(name)):
            raise ConfigError(f"{what}: {name!r} {problem}")


def _at(store: ObjectStore, field: str) -> str:
    return store.address(f"{field}/{LATEST}")


def _read(store: ObjectStore, key: str, missing: str) -> bytes:
    if store.info(key) is None:
        raise StoreError(f"{store.address(key)}: {missing}")
    return store.read(key, MAX_MANIFEST_BYTES)


def _names(store: ObjectStore, prefix: str) -> list[str]:
    return [name for name in store.folders(prefix) if name_problem(name) is None and not name.startswith(".")]


def _only_field(store: ObjectStore) -> str:
    fields = _names(store, "")
    if len(fields) == 1:
        return fields[0]
    if not fields:
        raise StoreError(f"{store.address()}: nothing is published here")
    more = ", ..." if len(fields) > _MAX_NAMED else ""
    raise ConfigError(f"field: expected one of {', '.join(fields[:_MAX_NAMED])}{more}")


def _latest(store: ObjectStore, field: str) -> Latest | None:
    key = f"{field}/{LATEST}"
    if store.info(key) is None:
        return None
    try:
        return parse(Latest, store.read(key, MAX_MANIFEST_BYTES), store.address(key))
    except StoreUnreachableError:
        raise
    except StoreError as error:
        log.warning("%s", error)
        return None


def _info(store: ObjectStore, place: tuple[str, str, str], latest: Latest | None) -> RunInfo:
    field, night, run_id = place
    named = latest is not None and (latest.night, latest.run_id) == (night, run_id)
    key = "/".join((*place, MANIFEST))
    if store.info(key) is None:
        return RunInfo(field, night, run_id, "incomplete", "", 0, 0, named)
    try:
        manifest = parse(Manifest, store.read(key, MAX_MANIFEST_BYTES), store.address(key))
    except StoreUnreachableError:
        raise
    except StoreError as error:
        log.warning("%s", error)
        return RunInfo(field, night, run_id, "unreadable", "", 0, 0, named)
    n_objects, n_bytes = len(manifest.objects), manifest.n_bytes
    return RunInfo(field, night, run_id, manifest.status, manifest.finished, n_objects, n_bytes, named)


def _matching(store: ObjectStore, field: str, night: str | None, run: str) -> tuple[str, str]:
    """Night and id of the one run whose id is, or starts with, ``run``."""
    if night is not None and store.info(f"{field}/{night}/{run}/{MANIFEST}") is not None:
        return night, run  # the only way where a store shows no listing
    nights = [night] if night else _names(store, field)
    there = [(n, name) for n in nights for name in _names(store, f"{field}/{n}")]
    found = [place for place in there if place[1] == run] or [p for p in there if p[1].startswith(run)]
    if len(found) == 1:
        return found[0]
    where = store.address(f"{field}/{night}" if night else field)
    if not found:
        raise StoreError(f"{where}: no run {run!r}")
    named = ", ".join(f"{n}/{name}" for n, name in found[:_MAX_NAMED])
    raise ConfigError(f"run: {run!r} fits {len(found)} runs at {where}: {named}; expected more of its id")
