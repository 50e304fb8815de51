"""Sources: the input catalogue and its checks, Gaia stars, start values of the fit.

Names load when they are first used: a worker that fits patches needs the start values only, and starts
without astropy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tract7dt.sources.catalogue import check_bands, place, read_catalogue, with_saturation
    from tract7dt.sources.gaia import (
        augment,
        gaia_magnitudes,
        match_one_to_one,
        place_gaia,
        read_gaia,
        selection_box,
        write_augmented_csv,
    )
    from tract7dt.sources.start import model_sources
    from tract7dt.sources.stored import read_sources, write_sources

__all__ = [
    "augment",
    "check_bands",
    "gaia_magnitudes",
    "match_one_to_one",
    "model_sources",
    "place",
    "place_gaia",
    "read_catalogue",
    "read_gaia",
    "read_sources",
    "selection_box",
    "with_saturation",
    "write_augmented_csv",
    "write_sources",
]

_HOME = {
    "check_bands": "catalogue",
    "place": "catalogue",
    "read_catalogue": "catalogue",
    "with_saturation": "catalogue",
    "augment": "gaia",
    "gaia_magnitudes": "gaia",
    "match_one_to_one": "gaia",
    "selection_box": "gaia",
    "place_gaia": "gaia",
    "read_gaia": "gaia",
    "write_augmented_csv": "gaia",
    "model_sources": "start",
    "read_sources": "stored",
    "write_sources": "stored",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
