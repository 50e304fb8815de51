"""Sources: the input catalogue and its checks, Gaia stars, start values of the fit.

Names load when they are first used: a worker that fits patches needs the start values only, and starts
without astropy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tract7dt.on_demand import names_on_demand

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

__getattr__ = names_on_demand(
    __name__,
    {
        "catalogue": ["check_bands", "place", "read_catalogue", "with_saturation"],
        "gaia": [
            "augment",
            "gaia_magnitudes",
            "match_one_to_one",
            "place_gaia",
            "read_gaia",
            "selection_box",
            "write_augmented_csv",
        ],
        "start": ["model_sources"],
        "stored": ["read_sources", "write_sources"],
    },
)
