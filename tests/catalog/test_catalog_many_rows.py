"""Rows cost no Python: a catalogue of a million rows is merged and written column by column."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic_catalog import BANDS, make_audit, make_fit, make_payload, make_sources, make_wcs

from tract7dt.catalog import merge, patch_table, read_merged, write_merged
from tract7dt.catalog.fitsfile import write_fits
from tract7dt.sources import read_sources, write_sources
from tract7dt.types import Sources

#: Calls that a table eight times as long may take more than the short one: batches of rows, not rows.
MORE_CALLS = 500


def calls_of(work: Callable[[], Any]) -> int:
    """Python and C functions that are called."""
    count = 0

    def count_them(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count_them)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def through_all(n: int, folder: Path) -> None:
    """Base catalogue to disk and back, merge with a patch of nine sources, merged and FITS to disk, and back."""
    made = make_sources(n)
    sources = Sources(made.table.drop(columns=["note", "other_mag"]), True)
    write_sources(sources, folder / "sources.parquet")
    base = read_sources(folder / "sources.parquet")
    payload = make_payload(made, [2, 3, 4, *range(6, 12)])
    table = patch_table(payload, make_fit(payload, False), make_audit())
    merged = merge(base, [table], make_wcs(), BANDS, False)
    write_merged(merged, folder / "merged.parquet")
    again = read_merged(folder / "merged.parquet")
    assert len(again) == n
    write_fits(again, folder / "catalogue.fits", BANDS)


@pytest.mark.parametrize("n", [1000])
def test_rows_cost_no_calls(tmp_path: Path, n: int) -> None:
    through_all(n, tmp_path)  # what is imported and remembered once
    few = calls_of(lambda: through_all(n, tmp_path)) - calls_of(lambda: make_sources(n))
    many = calls_of(lambda: through_all(8 * n, tmp_path)) - calls_of(lambda: make_sources(8 * n))
    assert many - few < MORE_CALLS
