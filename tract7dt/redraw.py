"""Pictures of a stage drawn again from its products, where nothing but the pictures has changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from astropy.io import fits
from astropy.table import Table

from tract7dt import brightmask, frames, psf, qa
from tract7dt.catalog import read_merged
from tract7dt.errors import ProductError
from tract7dt.sources import read_sources
from tract7dt.stages import LoadedField, Masked, draw_gaia, measured_zero_points
from tract7dt.store import WorkDir
from tract7dt.types import Box, EpsfGrid, PsfDiagnosis, Ref

if TYPE_CHECKING:
    import pandas as pd

    from tract7dt.settings import EpsfSettings, Settings
    from tract7dt.types import Frame

__all__ = ["REDRAW"]


def _loaded(settings: Settings, made: LoadedField) -> None:
    work, field = WorkDir.of(settings), frames.open_field(made.field.path)
    qa.draw_crop(settings, work, field)
    qa.draw_overlays(settings, work, field, _table(made.sources))


def _gaia(settings: Settings, made: Ref, field: Ref, sources: Ref) -> None:
    draw_gaia(settings, frames.open_field(field.path), _table(made), len(_table(sources)))


def _table(ref: Ref) -> pd.DataFrame:
    """Table of a base catalogue."""
    return read_sources(ref.path).table


def _bright(settings: Settings, made: Masked, field: Ref, **_: Ref) -> None:
    path, opened = Path(made.mask.path), frames.open_field(field.path)
    with fits.open(path, memmap=False) as hdus:
        detections = Table(hdus["DETECTIONS"].data).to_pandas()
    table = _table(made.sources)
    mask = brightmask.read_bright_mask(path)
    qa.draw_bright_mask(settings, WorkDir.of(settings), opened, mask, detections, table)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A candidate star as meta.json has it."""

    x: float
    y: float
    origin: str
    snr: float
    used: bool
    reason: str


@dataclass(frozen=True, slots=True)
class _Cell:
    """A cell as meta.json has it, and what is to be seen of it in the frame."""

    box: Box
    candidates: tuple[_Candidate, ...]
    diagnosis: PsfDiagnosis | None

    @classmethod
    def read(cls, path: Path, frame: Frame, epsf: EpsfSettings) -> _Cell:
        meta = json.loads(path.read_text(encoding="utf-8"))
        names = _Candidate.__slots__
        box = Box(**meta["box"])
        candidates = tuple(_Candidate(**{name: c[name] for name in names}) for c in meta["candidates"])
        diagnosis = psf.diagnose(frame, box, candidates, epsf) if epsf.wants_diagnoses else None
        return cls(box, candidates, diagnosis)


@dataclass(frozen=True, slots=True)
class _Band:
    """A band's ePSFs and what is drawn of their cells."""

    grid: EpsfGrid
    meta: Mapping[str, _Cell]


def _epsf(settings: Settings, made: Ref, field: Ref, band: str, **_: Ref) -> None:
    manifest, opened = Path(made.path), frames.open_field(field.path)
    frame = opened.frames[band]
    try:
        cells = json.loads(manifest.read_text(encoding="utf-8"))["cells"]
        meta = {
            tag: _Cell.read(manifest.parent / entry["meta"], frame, settings.epsf)
            for tag, entry in cells.items()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProductError(
            f"{manifest}: damaged ({error!r}); tract7dt run --refresh build_epsf makes it again"
        ) from error
    drawn = _Band(psf.read_band(manifest), meta)
    qa.draw_epsf_band(settings, WorkDir.of(settings), opened, drawn)


def _zero_points(settings: Settings, made: Ref, field: Ref, catalog: Ref) -> None:
    # Measured again, which takes no time: the files leave out the stars that are drawn as unreliable.
    opened = frames.open_field(field.path)
    measured = measured_zero_points(settings, opened, read_merged(Path(catalog.path)))
    qa.draw_zero_points(settings, WorkDir.of(settings), *measured)


#: By name of the stage function: ``(settings, its value, **its arguments)``. Stages that draw nothing are not
#: here, nor are the fits: their overviews need the model, and are drawn when a patch is fitted.
REDRAW: Mapping[str, Callable[..., None]] = MappingProxyType(
    {
        "load_inputs": _loaded,
        "augment_gaia": _gaia,
        "bright_mask": _bright,
        "build_epsf_band": _epsf,
        "compute_zp": _zero_points,
    }
)
