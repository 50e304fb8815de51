"""Block means, stretch and display size, against obvious slow versions."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tract7dt.qa import stretch
from tract7dt.qa.color import to_rgb
from tract7dt.qa.stretch import block_any, block_mean, display_factor, grey, measure_stretch
from tract7dt.qa.style import NO_DATA
from tract7dt.types import Box


def naive_mean(image: np.ndarray, factor: int, box: Box) -> np.ndarray:
    out = np.full((-(-box.ny // factor), -(-box.nx // factor)), np.nan)
    for r, c in np.ndindex(out.shape):
        found = []
        for y in range(box.y0 + r * factor, min(box.y0 + (r + 1) * factor, box.y1)):
            for x in range(box.x0 + c * factor, min(box.x0 + (c + 1) * factor, box.x1)):
                if 0 <= y < image.shape[0] and 0 <= x < image.shape[1] and np.isfinite(image[y, x]):
                    found.append(float(image[y, x]))
        if found:
            out[r, c] = np.mean(found)
    return out


images = arrays(
    np.float32,
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    elements=st.one_of(st.floats(-1e3, 1e3, width=32), st.sampled_from([np.nan, np.inf])),
)
boxes = st.tuples(st.integers(-6, 10), st.integers(1, 16), st.integers(-6, 10), st.integers(1, 16))


@given(image=images, factor=st.integers(1, 5), place=boxes)
@settings(max_examples=80, deadline=None)
def test_block_mean_of_a_box(image, factor, place):
    box = Box(place[0], place[0] + place[1], place[2], place[2] + place[3])
    np.testing.assert_allclose(
        block_mean(image, factor, box), naive_mean(image, factor, box), rtol=1e-5, atol=1e-3, equal_nan=True
    )


@pytest.mark.parametrize("factor", [1, 2, 3, 7])
def test_block_mean_does_not_depend_on_strips(monkeypatch, factor):
    image = np.random.default_rng(1).normal(size=(50, 33)).astype(np.float32)
    image[10:20, 5:9] = np.nan
    whole = block_mean(image, factor)
    monkeypatch.setattr(stretch, "_STRIP_PIXELS", 100)
    np.testing.assert_array_equal(block_mean(image, factor), whole)


def test_block_mean_reads_other_dtypes():
    image = np.arange(24.0).reshape(4, 6)
    expected = block_mean(image.astype(np.float32), 2)
    for dtype in (">f4", ">f8", "f8"):
        got = block_mean(image.astype(dtype), 2)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, expected)


def test_block_mean_of_a_large_memory_map_is_bounded(tmp_path):
    path = tmp_path / "white.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(6000, 8000)).flush()
    white = np.load(path, mmap_mode="r")
    tracemalloc.start()
    out = block_mean(white, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert out.shape == (1200, 1600)
    assert peak < 80e6, "the image is 192 MB"


@given(mask=arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3)))
@settings(max_examples=40, deadline=None)
def test_block_any(mask):
    for bit in (1, 2):
        got = block_any(mask, bit, 3)
        for r, c in np.ndindex(got.shape):
            block = mask[3 * r : 3 * r + 3, 3 * c : 3 * c + 3]
            assert got[r, c] == bool((block & bit).any())


@pytest.mark.parametrize(
    ("shape", "wanted", "most", "factor"),
    [
        ((6388, 9576), 4, 1916, 5),
        ((6388, 9576), 1, 1916, 5),
        ((6388, 9576), 8, 1916, 8),
        ((6388, 9576), 4, 4000, 4),
        ((600, 600), 4, 1916, 1),
        ((3000, 100), 4, 1916, 4),
        ((1, 1), 4, 1916, 1),
    ],
)
def test_display_factor(shape, wanted, most, factor):
    assert display_factor(shape, wanted, most) == factor


def test_stretch_finds_sky_and_noise_among_sources(white):
    found = measure_stretch(white)
    assert found.sky == pytest.approx(0.0, abs=0.15)
    assert found.sigma == pytest.approx(1.0, rel=0.15)


@pytest.mark.parametrize(
    "image",
    [
        np.full((5, 5), np.nan), np.zeros((5, 5)), np.full((5, 5), 7.0), np.full((5, 5), np.inf),
        np.zeros((0, 0)), np.array([[1.0]]), np.array([[-1e30, 1e30]]), np.array([[0.0, 0.0, 0.0, 1000.0]]),
    ],
    ids=["nan", "zero", "constant", "inf", "empty", "one", "huge", "model"],
)  # fmt: skip
def test_stretch_survives(image):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measure_stretch(image)
        level = found.grey(image)
        rgba = grey(image, found)
    assert found.sigma > 0
    assert found.peak > found.sky
    assert np.isfinite(level[np.isfinite(image)]).all()
    assert rgba.shape == (*image.shape, 4)


def test_grey_rises_with_the_value_and_shows_missing_pixels_in_a_hue_of_their_own():
    image = np.array([[-5.0, 0.0, 1.0, 3.0, 10.0, 100.0, 1e4, np.nan]])
    rgba = grey(image, stretch.Stretch(0.0, 1.0, 1e4))
    shade = rgba[0, :-1, 0].astype(int)
    assert (rgba[0, :-1, 0] == rgba[0, :-1, 1]).all()
    assert (rgba[0, :-1, 0] == rgba[0, :-1, 2]).all()
    assert (np.diff(shade) > 0).all()
    assert shade[-1] == 255
    np.testing.assert_array_equal(rgba[0, -1, :3], np.round(np.array(to_rgb(NO_DATA)) * 255))
