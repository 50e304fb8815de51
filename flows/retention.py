"""Removing what has served its time of one field, here and where it is published; needs no Prefect."""

from __future__ import annotations

import datetime
import logging
from typing import TYPE_CHECKING

from flows.publication import store_address
from tract7dt.nights import evening_before
from tract7dt.upkeep import Removal, tidy_published, tidy_work_dirs

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["tidy"]

log = logging.getLogger(__name__)


def tidy(template: Settings, dry_run: bool) -> list[Removal]:
    """Remove what ``retention`` says, or only say what would go.

    Parameters
    ----------
    template : Settings
        With ``{night}`` as yet in its paths.
    dry_run : bool

    Raises
    ------
    StoreError
        The store that the field is published to refuses, or does not answer.
    """
    today = evening_before(datetime.datetime.now(datetime.UTC), template.night.timezone)
    with store_address(template):
        removals = [*tidy_work_dirs(template, today, dry_run), *tidy_published(template, today, dry_run)]
    for removal in removals:
        log.info(
            "%s %s: %s %s, %d files, %d bytes",
            template.inputs.tile_name, removal.night, "would remove" if dry_run else "removed",
            " and ".join(removal.what), removal.n_files, removal.n_bytes,
        )  # fmt: skip
    return removals
