"""Rows cost no Python: a catalogue of a million rows is merged and written column by column."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_catalog import BANDS, make_audit, make_fit, make_payload, make_sources, make_wcs

from tract7dt.catalog import csv_text, merge, patch_table, read_merged, write_merged
from tract7dt.catalog.csvfile import read_csv, write_csv
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
    """Base catalogue to disk and back, merge with a patch of nine sources, the three formats (CSV but floats)."""
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
    write_csv(again.drop(columns=[c for c in again if again[c].dtype.kind == "f"]), folder / "catalogue.csv")


@pytest.mark.parametrize("n", [1000])
def test_rows_cost_no_calls(tmp_path: Path, n: int) -> None:
    through_all(n, tmp_path)  # what is imported and remembered once
    few = calls_of(lambda: through_all(n, tmp_path)) - calls_of(lambda: make_sources(n))
    many = calls_of(lambda: through_all(8 * n, tmp_path)) - calls_of(lambda: make_sources(8 * n))
    assert many - few < MORE_CALLS


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=6) | st.sampled_from(
    ["", '"', ",", "\n", ' a "b", c ', "-1", "é", "''", "\t", " "]
)
_COLUMNS = st.one_of(
    st.lists(st.floats(), min_size=4, max_size=4).map(lambda v: pd.Series(v, dtype="float64")),
    st.lists(_TEXT, min_size=4, max_size=4).map(lambda v: pd.Series(v, dtype="str")),
    st.lists(st.none() | _TEXT, min_size=4, max_size=4).map(lambda v: pd.Series(v, dtype="object")),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=4, max_size=4).map(
        lambda v: pd.Series(v, dtype="Int64")
    ),
    st.lists(st.booleans(), min_size=4, max_size=4).map(lambda v: pd.Series(v, dtype="bool")),
)


@settings(max_examples=80, deadline=None)
@given(columns=st.dictionaries(_TEXT, _COLUMNS, min_size=1, max_size=5), n=st.integers(0, 4))
def test_csv_is_that_of_pandas(columns: dict[str, pd.Series], n: int) -> None:
    """Its naive twin, byte by byte: as a short table, and as a long one in pieces of two rows."""
    table = pd.DataFrame(columns).iloc[:n]
    twin = io.StringIO(newline="")
    table.to_csv(twin, index=False, lineterminator="\n")
    for short in (n, -1):
        ours = io.StringIO(newline="")
        with mock.patch.object(csv_text, "_ROWS", 2), mock.patch.object(csv_text, "_SHORT", short):
            csv_text.write_lines(table, ours)
        assert ours.getvalue() == twin.getvalue()


def test_a_carriage_return_reads_back(tmp_path: Path) -> None:
    """Python quotes it since 3.13 only; without quotes it would end the line."""
    table = pd.DataFrame(
        {"ID": pd.Series(["a\rb", "c"], dtype="str"), "note": pd.Series(["\r", "d"], dtype="str")}
    )
    write_csv(table, tmp_path / "table.csv")
    assert read_csv(tmp_path / "table.csv").to_dict("list") == table.to_dict("list")
