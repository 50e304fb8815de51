"""From fits to the catalogue: per-patch tables, merge, reliability, zero point, output files.

A worker that fits patches needs their tables only; the other names load when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tract7dt.catalog.patch_table import patch_table, read_patch_catalog, write_patch_catalog
from tract7dt.on_demand import names_on_demand

if TYPE_CHECKING:
    from tract7dt.catalog.merging import merge
    from tract7dt.catalog.reliability import flag_reliability
    from tract7dt.catalog.writers import (
        catalog_paths,
        read_catalog,
        read_merged,
        write_catalog,
        write_merged,
    )
    from tract7dt.catalog.zeropoint import apply_zero_points, measure_zero_points, write_zp

__all__ = [
    "apply_zero_points",
    "catalog_paths",
    "flag_reliability",
    "measure_zero_points",
    "merge",
    "patch_table",
    "read_catalog",
    "read_merged",
    "read_patch_catalog",
    "write_catalog",
    "write_merged",
    "write_patch_catalog",
    "write_zp",
]

__getattr__ = names_on_demand(
    __name__,
    {
        "merging": ["merge"],
        "reliability": ["flag_reliability"],
        "writers": ["catalog_paths", "read_catalog", "read_merged", "write_catalog", "write_merged"],
        "zeropoint": ["apply_zero_points", "measure_zero_points", "write_zp"],
    },
)
