from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from photutils.aperture import CircularAperture

from tract7dt.errors import ProductError
from tract7dt.frames import build_field, compose_masks, inspect_images, near_saturation, open_mask
from tract7dt.store import quick_digest
from tract7dt.store.npy import RowWriter, open_array, read_rows
from tract7dt.types import BAD_BRIGHT, BAD_NONFINITE, BAD_SATURATED, Box, Field, Frame


def make_field(*data: np.ndarray, saturation: float | None = 100.0) -> Field:
    frames = {
        f"b{i}": Frame(f"b{i}", d, 1.0, 1.0, 1.0, 25.0, saturation, None, "x") for i, d in enumerate(data)
    }
    ny, nx = data[0].shape
    return Field(frames, data[0], np.ones_like(data[0]), WCS(naxis=2), Box(0, nx, 0, ny), 0.5, None, 25.0)


def by_window(data: np.ndarray, x: float, y: float, radius: float) -> bool:
    """Naive twin: every pixel of the frame, one by one distance."""
    py, px = np.indices(data.shape)
    with np.errstate(invalid="ignore"):
        return bool(((data >= 100.0) & ((px - x) ** 2 + (py - y) ** 2 <= radius**2)).any())


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), radius=st.floats(0, 40), all_bands=st.booleans())
def test_near_saturation_equals_its_naive_twin(seed: int, radius: float, all_bands: bool) -> None:
    rng = np.random.default_rng(seed)
    bands = []
    for _ in range(2):
        data = rng.normal(0, 1, (300, 37)).astype("f4")
        data[rng.integers(0, 300, 4), rng.integers(0, 37, 4)] = rng.choice([100.0, 1e4, np.inf], 4)
        data[rng.integers(0, 300, 20), rng.integers(0, 37, 20)] = np.nan
        bands.append(data)
    x, y = rng.uniform(-30, 67, 40), rng.uniform(-30, 330, 40)
    x[0], y[1] = np.nan, np.nan
    x[2], y[2] = 1e9, -1e9
    found = near_saturation(make_field(*bands), x, y, radius, all_bands)
    combine = all if all_bands else any
    expected = [combine(by_window(d, xi, yi, radius) for d in bands) for xi, yi in zip(x, y)]
    assert found.tolist() == expected


def test_against_photutils_apertures() -> None:
    """An aperture of whole pixels ("center" method) holds a saturated pixel exactly where we say so."""
    rng = np.random.default_rng(3)
    data = np.zeros((200, 200), "f4")
    data[rng.integers(0, 200, 30), rng.integers(0, 200, 30)] = 500.0
    x, y = rng.uniform(20, 180, (2, 200))
    found = near_saturation(make_field(data), x, y, 12.0, False)
    hits = (data >= 100).astype(float)
    total = [
        float((m.multiply(hits)).sum())
        for m in CircularAperture(list(zip(x, y)), 12.0).to_mask(method="center")
    ]
    assert found.tolist() == [t > 0 for t in total]
    assert 20 < found.sum() < 180


def test_without_saturate_nothing_is_near() -> None:
    data = np.full((20, 20), 1e9, "f4")
    field = make_field(data, saturation=None)
    x = np.array([5.0])
    assert not near_saturation(field, x, x, 5.0, False)[0]
    assert not near_saturation(field, x, x, 5.0, True)[0]
    assert near_saturation(field, x[:0], x[:0], 5.0, False).shape == (0,)


def test_final_masks(image, configure) -> None:
    data = np.zeros((40, 60), "f4")
    data[1, 2], data[3, 4] = np.nan, 49000.0
    settings, work = configure()
    paths = [str(image("g", data)), str(image("r", SATURATE=None))]
    field = build_field(inspect_images(paths, settings), settings, work)
    bright = np.zeros((40, 60), np.uint8)
    bright[3, 4], bright[5, 6], bright[7, 8] = 3, 1, 2  # bit 2 of the bright mask is another band's affair
    manifest = compose_masks(field, bright, work)
    assert manifest == work.masks_manifest
    expected = np.zeros((40, 60), np.uint8)
    expected[1, 2], expected[3, 4], expected[5, 6] = BAD_NONFINITE, BAD_SATURATED | BAD_BRIGHT, BAD_BRIGHT
    np.testing.assert_array_equal(open_mask(manifest, "g"), expected)
    red = open_mask(manifest, "r")
    assert red.dtype == np.uint8
    assert np.argwhere(red == BAD_BRIGHT).tolist() == [[3, 4], [5, 6]]
    content = json.loads(manifest.read_text())["bands"]["g"]
    assert content["digest"] == quick_digest(work.final_mask("g"))
    assert [content[k] for k in ("n_nonfinite", "n_saturated", "n_bright", "n_bad")] == [1, 1, 2, 3]
    compose_masks(field, None, work)
    assert np.argwhere(open_mask(manifest, "g")).tolist() == [[1, 2], [3, 4]]


def test_mask_products_that_do_not_fit(image, configure) -> None:
    settings, work = configure()
    field = build_field(inspect_images([str(image("g"))], settings), settings, work)
    with pytest.raises(ProductError, match=r"expected shape \(40, 60\), found \(40, 61\)"):
        compose_masks(field, np.zeros((40, 61), np.uint8), work)
    with pytest.raises(ProductError, match=r"masks\.json: missing"):
        open_mask(work.masks_manifest, "g")
    manifest = compose_masks(field, None, work)
    with pytest.raises(ProductError, match="no mask of band 'r', only of g"):
        open_mask(manifest, "r")
    manifest.write_text("[")
    with pytest.raises(ProductError, match=r"masks\.json: damaged"):
        open_mask(manifest, "g")


def test_rows_of_files_and_of_slices(tmp_path: Path) -> None:
    """A slice of a map keeps the map's offset attribute: it must not be read as if it were the file."""
    data = np.arange(35, dtype=np.float32).reshape(7, 5)
    with RowWriter(tmp_path / "a.npy", (7, 5), "<f4") as writer:
        writer.write(4, data[4:])
        writer.write(0, data[:4])
    array = open_array(tmp_path / "a.npy", (7, 5), np.float32)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), data)
    np.testing.assert_array_equal(read_rows(array, 2, 5), data[2:5])
    np.testing.assert_array_equal(read_rows(array[2:], 1, 3), data[3:5])
    np.testing.assert_array_equal(read_rows(array[:, 1:3], 1, 3), data[1:3, 1:3])
    np.testing.assert_array_equal(read_rows(data, 1, 3), data[1:3])
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]
