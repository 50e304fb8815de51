"""The work_dirs of a field's nights: which there are, and what goes of them after a while."""

from __future__ import annotations

import datetime
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tract7dt.errors import RunLocked
from tract7dt.nights import evening_before
from tract7dt.reuse import locked
from tract7dt.settings import fill_placeholders
from tract7dt.store import WorkDir, write_json
from tract7dt.upkeep.retention import FileClass, Removal, due

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["night_of_record", "nights_here", "stored_record", "tidy_work_dirs"]

log = logging.getLogger(__name__)

_NIGHT = r"(\d{4}-\d{2}-\d{2})"


def nights_here(template: Settings) -> list[tuple[str, Settings]]:
    """Nights of which a run has left its record on this machine, the latest first, each with its settings.

    Parameters
    ----------
    template : Settings
        With ``{night}`` as yet in its paths. Where ``outputs.work_dir`` does not name the night, there is only
        the one that was run last.
    """
    named = str(template.outputs.work_dir).replace("{tile_name}", template.inputs.tile_name)
    if "{night}" not in named:
        filled = fill_placeholders(template, "0001-01-01")
        night = night_of_record(stored_record(WorkDir.of(filled)), template)
        return [] if night is None else [(night, fill_placeholders(template, night))]
    found = []
    for night in _dates_in(Path(named)):
        settings = fill_placeholders(template, night)
        if WorkDir.of(settings).run_summary.is_file():
            found.append((night, settings))
    return found


def _dates_in(named: Path) -> list[str]:
    """Dates that stand in the place of ``{night}`` in the names of folders, the latest first."""
    parts = named.parts
    at = next(i for i, part in enumerate(parts) if "{night}" in part)
    night = re.escape("{night}")
    pattern = re.compile(re.escape(parts[at]).replace(night, _NIGHT, 1).replace(night, r"\1"))
    try:
        names = [path.name for path in Path(*parts[:at]).iterdir() if path.is_dir()]
    except OSError:
        return []
    dates = {match[1] for name in names if (match := pattern.fullmatch(name)) and _is_date(match[1])}
    return sorted(dates, reverse=True)


def _is_date(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True


def stored_record(work: WorkDir) -> dict[str, Any]:
    """``run_summary.json``; empty if there is none that can be read."""
    try:
        found = json.loads(work.run_summary.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def night_of_record(record: dict[str, Any], settings: Settings) -> str | None:
    """Night of a run: the one it was given, else that of the evening before it began."""
    given = (record.get("parameters") or {}).get("night")
    if given:
        return str(given)
    try:
        began = datetime.datetime.fromisoformat(str(record["started"]))
        return evening_before(began, settings.night.timezone)
    except (KeyError, ValueError):
        return None


# --- what goes ---------------------------------------------------------------------------------------------
def tidy_work_dirs(template: Settings, today: str, dry_run: bool = False) -> list[Removal]:
    """Remove what ``retention`` says of the nights on this machine; ``retention.json`` there keeps account.

    A work_dir in which a run works is left to the next time. What is removed is made anew if a later run of
    the night needs it.

    Parameters
    ----------
    template : Settings
        With ``{night}`` as yet in its paths.
    today : str
        YYYY-MM-DD, the night that it is now.
    dry_run : bool
        Only say what would go.
    """
    removals = []
    for night, settings in nights_here(template):
        classes = due(settings, night, today)
        if not classes or not any(True for kind in classes for _ in _files(kind, WorkDir.of(settings))):
            continue
        if dry_run:
            removals.append(_removal(night, settings, classes, remove=False))
            continue
        try:
            with locked(settings, "retention"):
                removals.append(_removal(night, settings, classes, remove=True))
        except RunLocked as error:
            log.warning("%s: nothing is removed: %s", night, error)
    return removals


def _removal(night: str, settings: Settings, classes: tuple[FileClass, ...], remove: bool) -> Removal:
    work = WorkDir.of(settings)
    what, n_files, n_bytes = [], 0, 0
    for kind in classes:
        paths = list(_files(kind, work))
        size = sum(path.lstat().st_size for path in paths)
        if not paths:
            continue
        what.append(kind.name)
        n_files, n_bytes = n_files + len(paths), n_bytes + size
        if remove:
            _remove(paths)
            _note(work, kind.name, len(paths), size)
    return Removal(night, str(work.root), tuple(what), n_files, n_bytes)


def _files(kind: FileClass, work: WorkDir) -> Iterator[Path]:
    """Files of a class that truly lie in the work_dir: a folder outside may be that of other nights, too."""
    root = work.root.resolve()
    for folder_of, patterns in kind.places:
        folder = folder_of(work)
        if not folder.resolve().is_relative_to(root) or folder.resolve() == root:
            continue
        for pattern in patterns:
            for path in sorted(folder.glob(pattern)):
                if path.parent.resolve().is_relative_to(root) and (path.is_symlink() or path.is_file()):
                    yield path


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in paths}:
        if folder.name == "cutouts" and not any(folder.iterdir()):
            folder.rmdir()


def _note(work: WorkDir, name: str, n_files: int, n_bytes: int) -> None:
    """Add a line to the account of what was removed."""
    try:
        lines = json.loads(work.retention.read_text(encoding="utf-8"))["dropped"]
    except (OSError, ValueError, KeyError, TypeError):
        lines = []
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    line = {"what": name, "files": n_files, "bytes": n_bytes, "dropped": when}
    write_json(work.retention, {"dropped": [*lines, line]})
