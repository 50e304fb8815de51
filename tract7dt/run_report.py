"""The report of a run: its products, its record and its configuration, put into report.html."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tract7dt.errors import UNIT_FAILURES, ProductError
from tract7dt.settings import differences_from_default
from tract7dt.store import WorkDir

if TYPE_CHECKING:
    from tract7dt.run_record import RunRecord
    from tract7dt.settings import Settings

__all__ = ["make_report", "report_of_run", "stored_record"]

log = logging.getLogger(__name__)


def report_of_run(settings: Settings, record: RunRecord) -> Path | None:
    """Write the report at the end of a run, if ``report.enabled``.

    A report that cannot be made costs itself, with a warning: never the run.
    """
    if not settings.report.enabled:
        return None
    try:
        return make_report(settings, record.as_finished())
    except UNIT_FAILURES as error:
        log.warning("the report could not be written: %s: %s", type(error).__name__, error)
        return None


def make_report(settings: Settings, record: Mapping[str, Any], *, cutouts_inside: bool = False) -> Path:
    """Write report.html from what lies in ``work_dir``.

    Parameters
    ----------
    settings : Settings
    record : mapping
        As in ``run_summary.json``.
    cutouts_inside : bool
        Put the cutouts into the file.

    Raises
    ------
    ProductError
        The frames or the final catalogue are missing or damaged.
    """
    from tract7dt.qa.report import RunProducts, write_report

    work = WorkDir.of(settings)
    run = RunProducts.read(settings, work, record, differences_from_default(settings))
    path = write_report(run, work, cutouts_inside=cutouts_inside)
    log.info("report: %s, %.1f MB", path, path.stat().st_size / 1e6)
    return path


def stored_record(work: WorkDir) -> dict[str, Any]:
    """``run_summary.json`` of the last run.

    Raises
    ------
    ProductError
        It is missing or damaged.
    """
    try:
        record = json.loads(work.run_summary.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ProductError(f"{work.run_summary} is not there: run `tract7dt run` first") from None
    except (OSError, ValueError) as error:
        raise ProductError(f"{work.run_summary}: damaged ({error}); run `tract7dt run` again") from error
    if not isinstance(record, dict) or not {"stages", "command", "field", "started"} <= set(record):
        raise ProductError(f"{work.run_summary}: not the record of a run")
    return record
