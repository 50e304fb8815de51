"""From a finished run on disk to what is to lie in the store: texts without secrets, digests, the manifest."""

from __future__ import annotations

import datetime
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tract7dt.errors import ConfigError, ProductError
from tract7dt.publish.contents import Candidate, collect, content_type
from tract7dt.publish.manifest import InputRecord, Manifest, PublishedObject
from tract7dt.run_counts import product_counts
from tract7dt.store import WorkDir, sha256_file
from tract7dt.store.atomic import plain
from tract7dt.store.urls import Redactor, name_problem, redacted

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["Prepared", "now", "prepare"]

_COMPLETE = ("done", "partial")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to go.

    Attributes
    ----------
    manifest : Manifest
        What will be said of it; ``published`` is the time of this preparation.
    files : dict
        Key -> local file with exactly the bytes that the manifest describes.
    stats : dict
        Key -> (size, mtime_ns) of the file when its digest was taken.
    """

    manifest: Manifest
    files: dict[str, Path]
    stats: dict[str, tuple[int, int]]

    def changed(self, key: str) -> bool:
        """Whether the file of ``key`` is another one since its digest was taken."""
        return _stat(self.files[key]) != self.stats[key]


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def prepare(settings: Settings, run_id: str, night: str, scratch: Path) -> Prepared:
    """Gather what is published of the run in ``outputs.work_dir``.

    Texts (configuration, log, record, report) are copied to ``scratch`` without what looks like a secret.

    Parameters
    ----------
    settings : Settings
    run_id, night : str
        Names of the run's folders in the store.
    scratch : Path
        Empty folder that lives as long as the result is used.

    Raises
    ------
    ConfigError
        A name cannot be a folder of the store.
    ProductError
        The run failed, or is not complete.
    """
    work = WorkDir.of(settings)
    for what, name in (("inputs.tile_name", work.name), ("the night", night), ("the run id", run_id)):
        if problem := name_problem(name):
            raise ConfigError(f"{what}: {name!r} {problem}; it names a folder of the store")
    summary = _finished(_read_summary(work), work)
    redactor = Redactor()
    files: dict[str, Path] = {}
    objects: list[PublishedObject] = []
    stats: dict[str, tuple[int, int]] = {}
    for found in collect(work, summary, cutouts=settings.publish.cutouts):
        path = _without_secrets(found, summary, redactor, scratch) if found.rule.text else found.path
        stat = _stat(path)
        files[found.key], stats[found.key] = path, stat
        kind, media = found.rule.kind, content_type(found.key)
        objects.append(
            PublishedObject(
                key=found.key, size=stat[0], sha256=sha256_file(path), content_type=media, kind=kind,
                stage=found.stage,
            )
        )  # fmt: skip
    return Prepared(_manifest(work, summary, run_id, night, objects, redactor), files, stats)


def _stat(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _read_summary(work: WorkDir) -> dict[str, Any]:
    try:
        summary: dict[str, Any] = json.loads(work.run_summary.read_text(encoding="utf-8"))
        if not isinstance(summary["stages"], list) or not isinstance(summary["status"], str):
            raise TypeError("expected a status and a list of stages")
    except FileNotFoundError:
        raise ProductError(f"{work.run_summary}: missing; there is no run to publish") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProductError(f"{work.run_summary}: damaged ({error!r}); run again") from error
    return summary


def _finished(summary: dict[str, Any], work: WorkDir) -> dict[str, Any]:
    """The record of a complete run; one that only waits for its publication is closed here.

    Raises
    ------
    ProductError
        The run failed, or a stage of it did.
    """
    failed = [e["name"] for e in summary["stages"] if e["status"] not in ("done", "cached", "skipped")]
    status = summary["status"]
    if status not in (*_COMPLETE, "running") or failed:
        reason = (summary.get("error") or {}).get("message") or f"status {status}"
        where = f", stage {', '.join(failed)}" if failed else ""
        raise ProductError(f"{work.root}: the run did not end well{where} ({reason}); it is not published")
    if status == "running":
        done = {e["name"] for e in summary["stages"] if e["status"] in ("done", "cached")}
        counts = product_counts(work, done)
        status = "partial" if counts.get("failed_patches") else "done"
        summary = {**summary, "status": status, "finished": now(), "counts": counts}
    return summary


def _without_secrets(found: Candidate, summary: dict[str, Any], redactor: Redactor, scratch: Path) -> Path:
    """Copy of a text in which no secret is left that we know of or that looks like one."""
    copy = scratch / found.key.replace("/", "__")
    if found.rule.kind == "run_summary":
        copy.write_text(json.dumps(_clean(plain(summary), redactor), indent=1) + "\n", encoding="utf-8")
        return copy
    clean = redactor.text if found.rule.kind == "report" else redactor.assignments
    with (
        found.path.open(encoding="utf-8", errors="surrogateescape", newline="") as source,
        copy.open("w", encoding="utf-8", errors="surrogateescape", newline="") as target,
    ):
        for line in source:
            target.write(clean(line))
    os.utime(copy, ns=(found.path.stat().st_mtime_ns,) * 2)
    return copy


def _clean(value: Any, redactor: Redactor) -> Any:
    if isinstance(value, dict):
        return {redactor.text(k): _clean(v, redactor) for k, v in value.items()}
    if isinstance(value, list):
        return [_clean(v, redactor) for v in value]
    return redactor.assignments(value) if isinstance(value, str) else value


def _manifest(
    work: WorkDir,
    summary: dict[str, Any],
    run_id: str,
    night: str,
    objects: list[PublishedObject],
    redactor: Redactor,
) -> Manifest:
    return Manifest(
        field=work.name,
        night=night,
        run_id=run_id,
        status=summary["status"],
        started=str(summary.get("started")),
        finished=str(summary.get("finished")),
        published=now(),
        versions={str(k): str(v) for k, v in summary.get("versions", {}).items()},
        configuration_sha256=str(summary.get("configuration_sha256", "")),
        inputs=tuple(
            InputRecord(path=redacted(str(entry["path"])), sha256=str(entry["sha256"]))
            for entry in summary.get("inputs", [])
        ),
        counts=_clean(plain(summary.get("counts", {})), redactor),
        objects=tuple(objects),
    )
