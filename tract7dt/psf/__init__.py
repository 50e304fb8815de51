"""Point-spread functions: star selection, ePSFs per band and cell, analytic fallbacks, quality.

A worker that fits patches chooses among PSFs that are there; names load when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tract7dt.on_demand import names_on_demand

if TYPE_CHECKING:
    from tract7dt.psf.build import active_cells, build_band, build_cell
    from tract7dt.psf.diagnosis import diagnose
    from tract7dt.psf.fallback import ChosenPsf, choose_psf, choose_psfs
    from tract7dt.psf.products import BandEpsf, CellMeta, read_band, write_band
    from tract7dt.psf.selection import Candidate
    from tract7dt.psf.spatial import psf_at
    from tract7dt.psf.tail import wing_stamp

__all__ = [
    "BandEpsf",
    "Candidate",
    "CellMeta",
    "ChosenPsf",
    "active_cells",
    "build_band",
    "build_cell",
    "choose_psf",
    "choose_psfs",
    "diagnose",
    "psf_at",
    "read_band",
    "wing_stamp",
    "write_band",
]

__getattr__ = names_on_demand(
    __name__,
    {
        "build": ["active_cells", "build_band", "build_cell"],
        "diagnosis": ["diagnose"],
        "fallback": ["ChosenPsf", "choose_psf", "choose_psfs"],
        "products": ["BandEpsf", "CellMeta", "read_band", "write_band"],
        "selection": ["Candidate"],
        "spatial": ["psf_at"],
        "tail": ["wing_stamp"],
    },
)
