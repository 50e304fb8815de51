"""The images of a night: none yet, still being written, there, or those of the last run once more."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tract7dt.errors import InputError
from tract7dt.frames import read_image_list
from tract7dt.frames.whole import what_is_missing
from tract7dt.reuse.digests import FileDigests
from tract7dt.store import WorkDir, sha256_bytes
from tract7dt.store.objects import ObjectStore
from tract7dt.store.urls import is_url

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["Arrival", "look", "same_as_last_run"]

log = logging.getLogger(__name__)

#: Size and time of the last change, ns; of an object, its size alone.
Sizes = dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class Arrival:
    """What was seen of a night's images.

    Attributes
    ----------
    state : str
        ``none``: the night has no images; ``arriving``: some are missing or still being written; ``there``:
        a run can begin (and says what is wrong with them, if something is).
    why : tuple of str
        One line for each thing that is missing.
    sizes : dict
        For the next look.
    """

    state: Literal["none", "arriving", "there"]
    why: tuple[str, ...]
    sizes: Sizes


def look(
    settings: Settings,
    of_night: bool,
    before: Mapping[str, Sequence[int]] | None = None,
    now: float | None = None,
) -> Arrival:
    """Look at the images of a run without reading their pixels.

    Parameters
    ----------
    settings : Settings
        With the night in its paths.
    of_night : bool
        Whether the paths of the images name the night: only then can missing ones be on their way, else the
        list is wrong, which is for the run to say.
    before : mapping, optional
        ``sizes`` of an earlier look; an image that has another size now is still being written.
    now : float, optional
        Unix time.
    """
    now = time.time() if now is None else now
    listed = settings.inputs.image_list_file
    if of_night and not _exists(listed):
        return Arrival("none", (f"there is no {listed}",), {})
    try:
        paths = read_image_list(listed, settings.base_dir, settings.names)
    except InputError as error:
        return Arrival("none" if of_night and _is_empty(listed) else "there", (str(error),), {})
    sizes = {path: size for path in paths if (size := _size(path)) is not None}
    if of_night and not sizes:
        return Arrival("none", (f"none of the {len(paths)} images of {listed} is there",), {})
    why = [f"{path}: not there yet" for path in paths if path not in sizes] if of_night else []
    for path, size in sizes.items():
        if trouble := _unfinished(path, size, (before or {}).get(path), settings, now):
            why.append(f"{path}: {trouble}")
    return Arrival("arriving" if why else "there", tuple(why), sizes)


def _unfinished(
    path: str, size: Sequence[int], before: Sequence[int] | None, settings: Settings, now: float
) -> str | None:
    """Why an image counts as still being written."""
    if before is not None and list(before) != list(size):
        return f"it has changed, {before[0]} bytes then and {size[0]} now"
    if is_url(path):  # objects are there when they are whole
        return None
    age = now - size[1] / 1e9
    if 0 <= age < settings.night.quiet_seconds:
        return f"written to {age:.0f} s ago"
    if age < settings.night.wait_minutes * 60.0:
        try:
            return what_is_missing(Path(path))
        except OSError:
            return None  # the run says so
    return None  # an old file that is cut off stays so


def _exists(path: str) -> bool:
    return ObjectStore(path).info() is not None if is_url(path) else Path(path).exists()


def _is_empty(path: str) -> bool:
    return not is_url(path) and Path(path).is_file() and not Path(path).read_bytes().strip()


def _size(path: str) -> list[int] | None:
    if is_url(path):
        about = ObjectStore(path).info()
        return None if about is None else [about.size or 0]
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def same_as_last_run(settings: Settings) -> str | None:
    """What to say where the last run in ``work_dir`` ended well with just these inputs and settings, else None.

    A run whose results were to be published and are not is not such a one.
    """
    work = WorkDir.of(settings)
    record = _json(work.run_summary)
    if record.get("status") not in ("done", "partial") or (record.get("parameters") or {}).get("only"):
        return None
    if record.get("configuration_sha256") != sha256_bytes(settings.model_dump_json().encode()):
        return None
    if not work.final_catalog.is_file():
        return None
    run_id = str(record.get("run_id"))
    if settings.publish.url is not None:
        note = _json(work.publication)
        if (note.get("run_id"), note.get("status")) != (run_id, "published"):
            return None
    given = settings.inputs
    try:
        images = read_image_list(given.image_list_file, settings.base_dir, settings.names)
    except InputError:
        return None
    tables = [path for path in (given.input_catalog, given.image_list_file, given.gaiaxp_synphot_csv) if path]
    paths = [*tables, *images]
    now = sorted(zip(paths, FileDigests(work.digests).of_all(paths)))
    if now != sorted((entry["path"], entry["sha256"]) for entry in record.get("inputs", ())):
        return None
    return f"no new images since run {run_id[:8]} of {record.get('finished')}"


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
