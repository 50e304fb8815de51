from __future__ import annotations

import numpy as np

from tract7dt.patches.saturation import saturated_cores
from tract7dt.types import BAD_NONFINITE, BAD_SATURATED


def masks() -> list[np.ndarray]:
    """A core of radius 5 at (60, 50), saturated in one band of two, and a bad column."""
    yy, xx = np.mgrid[0:100, 0:120]
    first = np.where(np.hypot(xx - 60, yy - 50) < 5, BAD_SATURATED, 0).astype(np.uint8)
    second = np.zeros_like(first)
    second[:, 20] = BAD_NONFINITE
    return [first, second]


def test_of_the_rows_around_a_core_only_the_star_has_it():
    x, y = np.array([60.6, 66.5, 45.0, 60.0, 20.0]), np.array([50.2, 50.0, 50.0, 57.0, 30.0])
    assert saturated_cores(masks(), x, y).tolist() == [True, False, False, False, False]


def test_a_neighbour_alone_near_a_core_of_nobody():
    assert saturated_cores(masks(), np.array([45.0]), np.array([50.0])).tolist() == [False]
    assert saturated_cores(masks(), np.array([]), np.array([])).tolist() == []


def test_two_cores_two_stars():
    both = masks()
    both[1][80:84, 90:94] = BAD_SATURATED
    assert saturated_cores(both, np.array([91.0, 60.0]), np.array([82.0, 50.0])).tolist() == [True, True]


def test_at_the_edge_of_the_frame():
    edge = [np.zeros((50, 50), np.uint8)]
    edge[0][0:3, 47:50] = BAD_SATURATED
    assert saturated_cores(edge, np.array([49.4]), np.array([-0.4])).tolist() == [True]
