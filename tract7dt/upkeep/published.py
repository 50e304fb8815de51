"""What goes after a while of published runs, with manifests that say so.

The order keeps every manifest true: first the one that no longer lists the objects as there goes up, then they
go. Cut off in between, the next time removes what is left. What ``latest.json`` names, and the run that it would
step back to, is never touched: that is what observers read, and no reader ever meets a digest that has changed.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tract7dt.errors import StoreError, StoreUnreachableError
from tract7dt.publish.manifest import (
    LATEST,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    DroppedObject,
    Latest,
    Manifest,
    parse,
    text_of,
)
from tract7dt.publish.prepare import now
from tract7dt.store.objects import ObjectStore
from tract7dt.store.urls import name_problem
from tract7dt.upkeep.retention import FileClass, Removal, due

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["tidy_published"]

log = logging.getLogger(__name__)

_JOBS = 6


def tidy_published(settings: Settings, today: str, dry_run: bool = False) -> list[Removal]:
    """Remove what ``retention`` says of the runs of a field below ``publish.url``.

    Parameters
    ----------
    settings : Settings
    today : str
        YYYY-MM-DD, the night that it is now.
    dry_run : bool
        Only say what would go.

    Raises
    ------
    StoreError
        The store refuses.
    StoreUnreachableError
        It does not answer.
    """
    url, field = settings.publish.url, settings.inputs.tile_name
    if url is None:
        return []
    store = ObjectStore(url, settings.publish.endpoint_url)
    nights = {night: kinds for night in _names(store, field) if (kinds := _kinds(settings, night, today))}
    if not nights:
        return []
    kept = _named_by_latest(store, field)
    removals = []
    for night, classes in sorted(nights.items()):
        for run_id in _names(store, f"{field}/{night}"):
            if (night, run_id) in kept:
                continue
            if removal := _tidy_run(store, f"{field}/{night}/{run_id}", night, classes, dry_run):
                removals.append(removal)
    return removals


def _kinds(settings: Settings, night: str, today: str) -> tuple[FileClass, ...]:
    return tuple(kind for kind in due(settings, night, today) if kind.kinds)


def _names(store: ObjectStore, prefix: str) -> list[str]:
    return [name for name in store.folders(prefix) if name_problem(name) is None and not name.startswith(".")]


def _named_by_latest(store: ObjectStore, field: str) -> set[tuple[str, str]]:
    """Night and run of what ``latest.json`` names, and of what it named before.

    Raises
    ------
    StoreError
        It cannot be read: what must stay is not known then.
    """
    key = f"{field}/{LATEST}"
    if store.info(key) is None:
        return set()
    latest = parse(Latest, store.read(key, MAX_MANIFEST_BYTES), store.address(key))
    pointers = [latest, latest.previous] if latest.previous else [latest]
    return {(pointer.night, pointer.run_id) for pointer in pointers}


def _tidy_run(
    store: ObjectStore, folder: str, night: str, classes: tuple[FileClass, ...], dry_run: bool
) -> Removal | None:
    key = f"{folder}/{MANIFEST}"
    if store.info(key) is None:
        return None  # its publication is under way, or was cut off
    try:
        manifest = parse(Manifest, store.read(key, MAX_MANIFEST_BYTES), store.address(key))
    except StoreUnreachableError:
        raise
    except StoreError as error:
        log.warning("%s; nothing is removed there", error)
        return None
    gone = {kind for found in classes for kind in found.kinds}
    entries = manifest.of_kind(*gone)
    before = {entry.key: entry for entry in manifest.dropped}
    left = [before[name] for name in _there(store, folder) if name in before] if before else []
    going = [*left, *entries]
    if not going:
        return None
    if not dry_run:
        if entries:
            _rewrite(store, key, manifest, gone)
        with ThreadPoolExecutor(_JOBS) as pool:
            for _ in pool.map(lambda entry: store.delete(f"{folder}/{entry.key}"), going):
                pass
    kinds = {entry.kind for entry in going}
    what = tuple(found.name for found in classes if kinds & set(found.kinds))
    return Removal(night, store.address(folder), what, len(going), sum(entry.size for entry in going))


def _there(store: ObjectStore, folder: str) -> list[str]:
    return [name[len(folder) + 1 :] for name in store.find(folder)]


def _rewrite(store: ObjectStore, key: str, manifest: Manifest, gone: set[str]) -> None:
    """Put up the manifest in which the objects of the kinds ``gone`` are dropped ones."""
    when = now()
    moved = [
        DroppedObject(**entry.model_dump(), dropped=when) for entry in manifest.objects if entry.kind in gone
    ]
    changed = manifest.model_copy(
        update={
            "objects": tuple(entry for entry in manifest.objects if entry.kind not in gone),
            "dropped": (*manifest.dropped, *moved),
        }
    )
    data = text_of(changed)
    store.write(data, key, "application/json")
    if store.read(key, MAX_MANIFEST_BYTES) != data:
        raise StoreError(f"{store.address(key)}: is not what was written")
