"""What goes after a while, and how long after the night: one table for the work_dirs and the published runs.

What is not in the table never goes: catalogues, zero points, configuration, record, log, report.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tract7dt.store import WorkDir

if TYPE_CHECKING:
    from collections.abc import Callable

    from tract7dt.settings import Settings

__all__ = ["CLASSES", "FileClass", "Removal", "due"]


@dataclass(frozen=True, slots=True)
class FileClass:
    """Files that go together.

    Attributes
    ----------
    name : str
        ``retention.{name}_days`` says when.
    places : tuple
        Folder in a work_dir and patterns of files below it.
    kinds : tuple of str
        Kinds of published objects.
    """

    name: str
    places: tuple[tuple[Callable[[WorkDir], Path], tuple[str, ...]], ...]
    kinds: tuple[str, ...] = ()


CLASSES = (
    FileClass("payloads", ((lambda work: work.payloads, ("*.fits", "*.fits.gz")),)),
    FileClass("cutouts", ((lambda work: work.fits, ("*/cutouts/src_*.png",)),), ("cutout",)),
    FileClass("frames", ((lambda work: work.frames, ("*.npy", "field.json", "masks.json")),)),
    FileClass(
        "plots",
        ((lambda work: work.fits, ("*/patch_overview.png",)), (lambda work: work.epsf, ("*/*/*.png",))),
        ("patch_plot", "epsf_plot"),
    ),
)


@dataclass(frozen=True, slots=True)
class Removal:
    """What was removed of one night's run, or would be.

    Attributes
    ----------
    night : str
    where : str
        Folder or URL of the run.
    what : tuple of str
        Names of the classes.
    n_files, n_bytes : int
    """

    night: str
    where: str
    what: tuple[str, ...]
    n_files: int
    n_bytes: int


def due(settings: Settings, night: str, today: str) -> tuple[FileClass, ...]:
    """Classes whose time is over for a night.

    Parameters
    ----------
    settings : Settings
    night, today : str
        YYYY-MM-DD; a night that is none is of no age, and loses nothing.
    """
    try:
        age = (datetime.date.fromisoformat(today) - datetime.date.fromisoformat(night)).days
    except ValueError:
        return ()
    days = {kind.name: getattr(settings.retention, f"{kind.name}_days") for kind in CLASSES}
    return tuple(kind for kind in CLASSES if (limit := days[kind.name]) is not None and age >= limit)
