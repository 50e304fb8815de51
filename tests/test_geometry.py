from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tract7dt.geometry import cell_boxes, cell_tag, grid_edges
from tract7dt.types import Box


@given(st.integers(0, 50), st.integers(1, 400), st.integers(1, 12))
def test_edges_tile_the_range_and_the_last_cell_takes_the_rest(lo, width, n):
    if width < n:
        with pytest.raises(ValueError, match="cannot divide"):
            grid_edges(lo, lo + width, n)
        return
    edges = grid_edges(lo, lo + width, n)
    steps = np.diff(edges)
    assert edges[0] == lo
    assert edges[-1] == lo + width
    assert (steps[:-1] == width // n).all()
    assert steps[-1] == width - (n - 1) * (width // n)


@given(st.integers(1, 5), st.integers(5, 60), st.integers(5, 60), st.floats(-0.5, 1), st.floats(-0.5, 1))
def test_every_position_on_the_frame_is_in_one_cell(n, nx, ny, fx, fy):
    x, y = -0.5 + (fx + 0.5) / 1.5 * nx, -0.5 + (fy + 0.5) / 1.5 * ny
    frame = Box(0, nx, 0, ny)
    hits = [box.contains(np.array([x]), np.array([y]))[0] for box in cell_boxes(frame, n).values()]
    assert sum(hits) == frame.contains(np.array([x]), np.array([y]))[0]


def test_rows_run_along_y():
    boxes = cell_boxes(Box(0, 30, 0, 60), 3)
    assert boxes[(2, 0)] == Box(0, 10, 40, 60)
    assert cell_tag(2, 0) == "r02_c00"


def test_nan_is_nowhere():
    assert not Box(0, 5, 0, 5).contains(np.array([np.nan]), np.array([1.0])).any()


def test_a_halo_is_clamped_to_the_frame():
    assert Box(0, 10, 5, 20).expanded(4, Box(0, 12, 0, 22)) == Box(0, 12, 1, 22)
