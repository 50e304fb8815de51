from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import psf_scenes as scenes
import pytest

from tract7dt.psf import active_cells, build_band, build_cell
from tract7dt.psf import build as build_module
from tract7dt.psf import detection as detection_module
from tract7dt.psf.quality import growth_curve
from tract7dt.settings import EpsfSettings
from tract7dt.types import Box

RADII = np.array([3.0, 4.0, 6.0, 10.0, 20.0])


def reasons(meta):
    return [c.reason for c in meta.candidates]


def near(meta, x, y):
    return min(meta.candidates, key=lambda c: np.hypot(c.x - x, c.y - y))


def test_flux_bias_and_growth_against_truth(star_result):
    epsf = star_result.grid.cells["r00_c00"]
    truth = scenes.true_stamp(55)
    assert epsf.stamp.dtype == np.float32
    assert epsf.stamp.shape == (55, 55)
    assert float(epsf.stamp.sum(dtype=float)) == pytest.approx(1, abs=1e-6)
    bias = [
        scenes.psf_flux(scenes.true_stamp(55, dx, dy), epsf.stamp.astype(float)) - 1
        for dx, dy in ((0, 0), (0.5, 0.5), (-0.3, 0.2), (0.1, -0.45))
    ]
    assert np.abs(bias).max() < 0.003
    growth = growth_curve(epsf.stamp.astype(float), RADII) / growth_curve(truth, RADII) - 1
    assert np.abs(growth).max() < 0.005
    assert abs(epsf.stamp.max() / truth.max() - 1) < 0.015


def test_quality_is_honest(star_result, star_field):
    epsf, meta = star_result.grid.cells["r00_c00"], star_result.meta["r00_c00"]
    _, x, y, _ = star_field
    assert epsf.n_stars == meta.n_used == sum(c.used for c in meta.candidates)
    assert epsf.n_stars > 25
    quality = epsf.quality
    assert quality["fwhm_pix"] == pytest.approx(3.3, abs=0.05)
    assert quality["ellipticity"] == pytest.approx(2 * np.hypot(0.02, 0.01), abs=0.015)
    assert quality["chi_median"] == pytest.approx(1, abs=0.1)
    assert quality["relative_error"] < 0.005
    assert abs(quality["aperture_bias"]) < 0.005
    assert quality["converged"]
    for c in meta.candidates:
        assert c.used == (c.reason == "")
        assert np.hypot(x - c.x, y - c.y).min() < 1


@pytest.mark.parametrize(("fwhm", "beta"), [(2.5, 3.0), (4.5, 3.8)])
def test_flux_bias_over_widths(fwhm, beta):
    shape = (480, 480)
    x, y = scenes.grid_positions(shape, seed=7)
    flux = 10 ** np.random.default_rng(8).uniform(3.5, 5.0, len(x))
    image = scenes.draw_stars(shape, x, y, flux, fwhm=fwhm, beta=beta)
    result = build_band(
        scenes.make_field(image, fwhm=None), "m500", [(0, 0)], None, EpsfSettings(epsf_ngrid=1)
    )
    epsf = result.grid.cells["r00_c00"]
    bias = (
        scenes.psf_flux(scenes.true_stamp(55, 0.2, -0.4, fwhm=fwhm, beta=beta), epsf.stamp.astype(float)) - 1
    )
    assert abs(bias) < 0.005
    growth = growth_curve(epsf.stamp.astype(float), RADII)
    np.testing.assert_allclose(
        growth, growth_curve(scenes.true_stamp(55, fwhm=fwhm, beta=beta), RADII), rtol=0.005
    )


def test_galaxies_neighbours_and_bad_pixels_are_refused():
    shape = (700, 700)
    x, y = scenes.grid_positions(shape, step=95, seed=3)
    flux = np.full(len(x), 2e4)
    image = scenes.draw_stars(shape, x, y, flux)
    image += scenes.draw_galaxies(shape, x[:3] + 47, y[:3] + 47, [6e4] * 3, [2.0, 3.0, 4.0])
    image += scenes.draw_stars(shape, [x[20] + 7], [y[20] - 4], [4e3])
    field = scenes.make_field(image)
    data = field.frames["m500"].data
    data[round(y[21]) - 3, round(x[21]) + 2] = np.nan
    data[round(y[22]), round(x[22])] = 1e6
    field = scenes.make_field(data, saturation=5e5, noise=False)
    meta = build_band(field, "m500", [(0, 0)], None, EpsfSettings(epsf_ngrid=1)).meta["r00_c00"]
    for i in range(3):
        assert near(meta, x[i] + 47, y[i] + 47).reason == "size"
    assert near(meta, x[20], y[20]).reason in ("neighbour", "size", "roundness")
    assert near(meta, x[21], y[21]).reason == "nonfinite"
    assert near(meta, x[22], y[22]).reason == "saturated"
    assert meta.n_used >= 15


def test_separation_number_and_edge():
    shape = (500, 500)
    x, y = scenes.grid_positions(shape, seed=4)
    flux = 10 ** np.random.default_rng(1).uniform(3.5, 5, len(x))
    image = scenes.draw_stars(shape, np.append(x, 20.0), np.append(y, 250.0), np.append(flux, 1e5))
    epsf = EpsfSettings(epsf_ngrid=1, max_stars=5)
    meta = build_band(scenes.make_field(image), "m500", [(0, 0)], None, epsf).meta["r00_c00"]
    used = [c for c in meta.candidates if c.used]
    assert len(used) == 5
    assert near(meta, 20, 250).reason == "edge"
    spare = [c.snr for c in meta.candidates if c.reason == "max_stars"]
    assert spare
    assert min(c.snr for c in used) >= max(spare)
    far = EpsfSettings(epsf_ngrid=1, min_sep=150.0)
    meta = build_band(scenes.make_field(image), "m500", [(0, 0)], None, far).meta["r00_c00"]
    places = np.array([(c.x, c.y) for c in meta.candidates if c.used])
    gaps = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    assert gaps[~np.eye(len(gaps), dtype=bool)].min() >= 150


def test_gaia_candidates_follow_the_same_checks(star_field):
    field, x, y, _ = star_field
    mag = np.full(len(x), 15.0)
    mag[0] = 31.0
    table = scenes.gaia_table(np.append(x + 1.5, 300.0), np.append(y - 1.0, 290.0), np.append(mag, 16.0))
    epsf = EpsfSettings(epsf_ngrid=1, psfstar_mode="gaia", max_stars=40)
    meta = build_band(field, "m500", [(0, 0)], table, epsf).meta["r00_c00"]
    assert {c.origin for c in meta.candidates} == {"gaia"}
    assert len(meta.candidates) == len(x)
    assert near(meta, 300, 290).reason in ("snr", "neighbour", "size", "roundness")
    used = np.array([(c.x, c.y) for c in meta.candidates if c.used])
    assert len(used) > 25
    snapped = [np.hypot(x - u[0], y - u[1]).min() for u in used]
    assert max(snapped) < 0.5
    both = build_band(field, "m500", [(0, 0)], table, EpsfSettings(epsf_ngrid=1)).meta["r00_c00"]
    assert {c.origin for c in both.candidates} == {"gaia", "sep"}
    assert len(both.candidates) == len(x) + 1  # star 0 is too faint for Gaia and comes from SEP, none twice
    none = build_band(field, "m500", [(0, 0)], None, epsf)
    assert none.meta["r00_c00"].status == "absent"
    assert none.meta["r00_c00"].reason == "no candidate"


def test_stars_near_a_cell_border_use_pixels_beyond_it(star_field):
    field, x, *_ = star_field
    epsf = EpsfSettings(epsf_ngrid=2, max_stars=40)
    result = build_band(field, "m500", [(0, 0), (0, 1), (1, 0), (1, 1)], None, epsf)
    seen = [(round(c.x), round(c.y)) for m in result.meta.values() for c in m.candidates]
    assert len(seen) == len(set(seen)) == len(x)
    for meta in result.meta.values():
        assert all(meta.box.contains(np.array([c.x]), np.array([c.y]))[0] for c in meta.candidates)
    inner = [
        c for m in result.meta.values() for c in m.candidates if abs(c.x - 280) < 30 or abs(c.y - 280) < 30
    ]
    assert any(c.used for c in inner)


def test_hostile_cells_never_crash():
    shape = (420, 420)
    x, y = scenes.grid_positions(shape, seed=6)
    rng = np.random.default_rng(0)
    settings = EpsfSettings(epsf_ngrid=1)

    def meta_of(field, **other):
        result = build_band(field, "m500", [(0, 0)], None, settings.model_copy(update=other))
        return result.meta["r00_c00"], result.grid.cells.get("r00_c00")

    empty, epsf = meta_of(scenes.make_field(np.zeros(shape)))
    assert (empty.status, epsf) == ("absent", None)
    image = scenes.draw_stars(shape, x, y, np.full(len(x), 3e4))
    saturated, epsf = meta_of(scenes.make_field(image, saturation=500.0))
    assert epsf is None
    assert "saturated" in saturated.reason
    dark = scenes.make_field(np.full(shape, np.nan), noise=False)
    assert meta_of(dark)[1] is None
    _, epsf = meta_of(scenes.make_field(image[:50, :50]))
    assert epsf is None
    three, epsf = meta_of(
        scenes.make_field(scenes.draw_stars(shape, x[:3] + 20, y[:3] + 20, [1e4, 2e4, 3e4]))
    )
    assert epsf is not None
    assert three.n_used == epsf.n_stars == 3
    assert abs(scenes.psf_flux(scenes.true_stamp(55), epsf.stamp.astype(float)) - 1) < 0.03
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    trail = image + 12 * np.exp(-0.5 * ((xx - 0.7 * yy - 60) / 2.2) ** 2)
    struck, epsf = meta_of(scenes.make_field(trail))
    assert epsf is not None
    on_trail = [c for c in struck.candidates if c.used and abs(c.x - 0.7 * c.y - 60) < 5]
    assert not on_trail
    assert abs(scenes.psf_flux(scenes.true_stamp(55), epsf.stamp.astype(float)) - 1) < 0.01
    holed = image.copy()
    holed[:, 200:203] = np.nan
    holed[rng.integers(0, 420, 200), rng.integers(0, 420, 200)] = np.nan
    assert meta_of(scenes.make_field(np.nan_to_num(holed, nan=0.0)))[1] is not None
    noisy = scenes.make_field(image).frames["m500"].data
    noisy[~np.isfinite(holed)] = np.nan
    punched, epsf = meta_of(scenes.make_field(noisy, noise=False))
    assert epsf is not None
    assert "nonfinite" in reasons(punched)


def test_galaxies_alone_are_not_stars():
    rng = np.random.default_rng(1)
    x, y = scenes.grid_positions((560, 560), seed=9)
    image = scenes.draw_galaxies((560, 560), x, y, np.full(len(x), 5e4), rng.uniform(1.0, 6.0, len(x)))
    result = build_band(scenes.make_field(image), "m500", [(0, 0)], None, EpsfSettings(epsf_ngrid=1))
    assert result.grid.cells == {}
    assert "not stars" in result.meta["r00_c00"].reason


def test_a_cell_without_stars_borrows(star_field):
    shape = (420, 840)
    x, y = scenes.grid_positions((420, 420), seed=6)
    field = scenes.make_field(scenes.draw_stars(shape, x, y, np.full(len(x), 2e4)))
    # two cells an axis on a 420 x 840 frame: the right column is empty
    cells = [(0, 0), (0, 1), (1, 0), (1, 1)]
    calls = []
    result = build_band(
        field,
        "m500",
        cells,
        None,
        EpsfSettings(epsf_ngrid=2),
        on_cell=lambda done, n: calls.append((done, n)),
    )
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    lent = result.grid.cells["r00_c01"]
    assert lent.kind == "borrowed"
    assert lent.quality["borrowed_from"] == "r00_c00"
    assert result.meta["r00_c01"].status == "borrowed"
    assert "r00_c00" in result.meta["r00_c01"].reason
    np.testing.assert_array_equal(lent.stamp, result.grid.cells["r00_c00"].stamp)


def test_active_cells(star_field):
    field, *_ = star_field
    x, y = np.array([10.0, np.nan, 500.0]), np.array([500.0, 3.0, 520.0])
    assert active_cells(field, x, y, EpsfSettings(epsf_ngrid=2)) == [(1, 0), (1, 1)]
    every = EpsfSettings(epsf_ngrid=2, skip_empty_epsf_patches=False)
    assert active_cells(field, x, y, every) == [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.mark.parametrize(
    "options",
    [
        {"oversamp": 2},
        {"do_clip": False},
        {"star_local_bkg_subtract": False},
        {"background_subtract_patch": False},
        {"final_psf_size": 71},
    ],
)
def test_options_still_give_the_psf(star_field, options):
    field, *_ = star_field
    settings = EpsfSettings(epsf_ngrid=1, max_stars=8, maxiters=6).model_copy(update=options)
    epsf = build_band(field, "m500", [(0, 0)], None, settings).grid.cells["r00_c00"]
    assert epsf.stamp.shape == (settings.final_psf_size,) * 2
    truth = scenes.true_stamp(settings.final_psf_size)
    assert abs(scenes.psf_flux(truth, epsf.stamp.astype(float)) - 1) < 0.01


def test_one_detection_a_cell(star_field, monkeypatch):
    """Background and detection are of the cell, not of each star; cells are visited once."""
    field, *_ = star_field
    boxes, calls = [], []
    found, extracted = build_module.detect_cell, detection_module.sep.extract

    def detect(frame, cell, epsf):
        boxes.append(cell)
        return found(frame, cell, epsf)

    def extract(*args, **kwargs):
        calls.append(1)
        return extracted(*args, **kwargs)

    monkeypatch.setattr(build_module, "detect_cell", detect)
    monkeypatch.setattr(detection_module.sep, "extract", extract)
    cells = [(0, 0), (0, 1), (1, 0), (1, 1)]
    build_band(field, "m500", cells, None, EpsfSettings(epsf_ngrid=2))
    assert len(calls) == len(boxes) == len(set(boxes)) == 4


def test_a_cell_reads_its_window_alone(tmp_path):
    """Memory for a cell of 300 pix in a mapped frame of 4000 (61 MB): a third of the frame's at most."""
    side, part = 4000, 400
    x, y = scenes.grid_positions((part, part), step=70, margin=40)
    made = scenes.make_field(scenes.draw_stars((part, part), x, y, np.full(len(x), 3e4)))
    mapped = np.lib.format.open_memmap(tmp_path / "f.npy", "w+", np.float32, (side, side))
    mapped[:part, :part] = made.frames["m500"].data
    mapped.flush()
    frame = replace(made.frames["m500"], data=np.load(tmp_path / "f.npy", mmap_mode="r"))
    tracemalloc.start()
    stamp, meta = build_cell(frame, (0, 0), Box(0, 300, 0, 300), None, EpsfSettings())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stamp is not None
    assert meta.n_used >= 9
    assert peak < side * side * 4 / 3
