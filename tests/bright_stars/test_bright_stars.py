from __future__ import annotations

import numpy as np
import pytest

from tract7dt.bright_stars import flux_from_wings, overlap, without_bright_stars

SIZE, FLUX, SIGMA = 161, 3e6, 2.0


def moffat(half: int, alpha: float = 3.5, beta: float = 3.0) -> np.ndarray:
    """Round Moffat profile whose central 51 pixels have unit sum."""
    axis = np.arange(-half, half + 1)
    profile = (1 + (axis[:, None] ** 2 + axis[None, :] ** 2) / alpha**2) ** -beta
    return profile / profile[half - 25 : half + 26, half - 25 : half + 26].sum()


@pytest.fixture
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Data and weight of a star that saturates, in the corner of its patch, and the true model."""
    rng = np.random.default_rng(4)
    wide = moffat(120)
    place, part = overlap(241, (SIZE, SIZE), 40.0, 30.0)
    model = np.zeros((SIZE, SIZE))
    model[place] = FLUX * wide[part]
    data = np.minimum(model + rng.normal(0, SIGMA, model.shape), 30000)
    weight = np.where(data < 25000, SIGMA**-2, 0)
    return data[None].astype(np.float32), weight[None].astype(np.float32), model


def run(data, weight, flux, **options):
    return without_bright_stars(
        data, weight, np.array([SIGMA]), [51], [moffat(120)], np.array([40.0]), np.array([30.0]),
        np.array([[flux]]), **options,
    )  # fmt: skip


def test_the_light_beyond_the_stamp_is_gone_and_the_stamp_untouched(scene):
    data, weight, _ = scene
    clean, _ = run(data, weight, np.nan)
    yy, xx = np.mgrid[0:SIZE, 0:SIZE]
    beyond = (abs(xx - 40) > 25) | (abs(yy - 30) > 25)
    near = beyond & (np.hypot(xx - 40, yy - 30) < 40)
    assert data[0][near].mean() > 0.2
    assert abs(clean[0][near].mean()) < 0.1
    np.testing.assert_array_equal(clean[0][~beyond], data[0][~beyond])


def test_the_weight_falls_only_where_the_star_shines(scene):
    data, weight, model = scene
    _, lowered = run(data, weight, np.nan, share=0.1)
    faint, bright = (model < 0.1) & (weight[0] > 0), (model > 200) & (weight[0] > 0)
    np.testing.assert_allclose(lowered[0][faint], weight[0][faint], rtol=0.02)
    assert (1 / lowered[0][bright] >= 0.9 * (0.1 * model[bright]) ** 2).all()
    assert (lowered[weight == 0] == 0).all()


def test_the_flux_comes_from_the_wings_when_the_core_is_clipped(scene):
    data, weight, _ = scene
    place, part = overlap(51, (SIZE, SIZE), 40.0, 30.0)
    used = weight[0][place] > 0
    assert flux_from_wings(data[0][place], used, moffat(25), part, SIGMA) == pytest.approx(FLUX, rel=0.02)
    assert flux_from_wings(data[0][place], np.zeros_like(used), moffat(25), part, SIGMA) == 0


def test_another_star_in_the_wings_of_a_masked_one_says_nothing_of_it(scene):
    data, weight, _ = scene
    yy, xx = np.mgrid[0:SIZE, 0:SIZE]
    data, weight = data.copy(), weight.copy()
    weight[0][np.hypot(xx - 40, yy - 30) < 20] = 0  # a trail over the core
    data[0] += 3000 * np.exp(-0.5 * ((xx - 80) ** 2 + (yy - 40) ** 2) / 1.7**2)
    clean, _ = run(data, weight, FLUX)
    assert abs(clean - data).max() < 3


def test_a_brighter_known_flux_wins_and_nan_is_no_star(scene):
    data, weight, _ = scene
    empty = np.zeros_like(data)
    known, _ = run(empty, weight, FLUX)
    assert known.min() < -0.3
    nothing, same = run(empty, weight, np.nan)
    np.testing.assert_array_equal(nothing, empty)
    np.testing.assert_array_equal(same, weight)


@pytest.mark.parametrize(("x", "y"), [(-200.0, 30.0), (40.0, 400.0), (1e6, 1e6)])
def test_a_star_too_far_away_does_nothing(scene, x, y):
    assert overlap(241, (SIZE, SIZE), x, y) is None


def test_overlap_at_a_corner():
    assert overlap(5, (10, 10), 0.0, 9.0) == ((slice(7, 10), slice(0, 3)), (slice(0, 3), slice(2, 5)))
