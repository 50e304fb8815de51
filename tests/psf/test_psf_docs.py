"""docs/psf.md names every reason and every quality number, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from test_psf_selection import REASONS

DOC = Path(__file__).resolve().parents[2] / "docs" / "psf.md"


def names_of(heading: str) -> set[str]:
    """What stands in code marks in the first column of the table below a heading."""
    section = DOC.read_text(encoding="utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    first = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for cell in first for name in re.findall(r"`(\w+)`", cell)}


def test_reasons_are_described():
    assert names_of("Stars") == set(REASONS)


def test_quality_numbers_are_described(star_result):
    told = names_of("Quality numbers") | {"n_candidates", "ee80_pix", "ee90_pix"}  # "ee50 ... ee95"
    assert told == set(star_result.grid.cells["r00_c00"].quality)
