from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import galsim
import numpy as np
import psf_scenes as scenes
import pytest

from tract7dt.errors import ProductError
from tract7dt.psf import build_band, psf_at, read_band, write_band
from tract7dt.psf.deform import Deformable, deformed_profile
from tract7dt.psf.surface import basis, fit_surface
from tract7dt.psf.wings import MoffatProfile
from tract7dt.settings import EpsfSettings
from tract7dt.store import WorkDir
from tract7dt.types import EpsfGrid

SHAPE = (640, 640)
PLACES = [(60, 60), (320, 320), (580, 60), (60, 580), (580, 580), (200, 450)]


def width(x, y):
    """FWHM that grows by 5 % along x and by 3 % from the centre to the corners."""
    u, v = 2 * x / SHAPE[1] - 1, 2 * y / SHAPE[0] - 1
    return 3.3 * (1 + 0.025 * u + 0.015 * (u * u + v * v))


def varying_shape(x, y):
    return {"fwhm": width(x, y), "g1": 0.02 * (2 * y / SHAPE[0] - 1)}


def star_scene(shape_at, n=None, low=3.6, seed=11):
    x, y = scenes.grid_positions(SHAPE, step=80, margin=45, seed=seed)
    flux = 10 ** np.random.default_rng(seed).uniform(low, 5.0, len(x))
    if n is not None:
        which = np.random.default_rng(seed).permutation(len(x))[:n]
        x, y, flux = x[which], y[which], flux[which]
    image = np.zeros(SHAPE)
    for xs, ys, f in zip(x, y, flux, strict=True):
        image += scenes.draw_stars(SHAPE, [xs], [ys], [f], **shape_at(xs, ys))
    return scenes.make_field(image)


def band_of(field, ngrid=1, **other):
    settings = EpsfSettings(epsf_ngrid=ngrid, max_stars=60).model_copy(update=other)
    cells = [(row, col) for row in range(ngrid) for col in range(ngrid)]
    return build_band(field, "m500", cells, None, settings)


def biases(grid, shape_at, stamp_at):
    return np.array(
        [
            scenes.psf_flux(scenes.true_stamp(55, **shape_at(x, y)), stamp_at(grid, x, y).astype(float)) - 1
            for x, y in PLACES
        ]
    )


def own_stamp(grid, x, y):
    return grid.cells["r00_c00"].stamp


def model_stamp(grid, x, y):
    return psf_at(grid, "r00_c00", x, y).stamp


@pytest.fixture(scope="module")
def varying():
    return band_of(star_scene(varying_shape))


def test_a_gradient_within_a_cell_is_followed(varying):
    cell = biases(varying.grid, varying_shape, own_stamp)
    model = biases(varying.grid, varying_shape, model_stamp)
    assert np.abs(cell).max() > 0.02
    assert np.abs(model).max() < 0.005
    quality = varying.grid.spatial.quality
    assert quality["n_measured"] > varying.grid.cells["r00_c00"].n_stars  # stars near the edge count too
    assert max(quality["error"]) < 0.004


def test_elongation_is_followed(varying):
    bottom, top = (psf_at(varying.grid, "r00_c00", 320, y).stamp.astype(float) for y in (20, 620))
    for stamp, y in ((bottom, 20), (top, 620)):
        shape = galsim.hsm.FindAdaptiveMom(galsim.ImageD(np.ascontiguousarray(stamp)))
        truth = galsim.hsm.FindAdaptiveMom(galsim.ImageD(scenes.true_stamp(55, **varying_shape(320, y))))
        assert shape.observed_shape.g1 == pytest.approx(truth.observed_shape.g1, abs=0.004)
        assert shape.observed_shape.g2 == pytest.approx(truth.observed_shape.g2, abs=0.004)


def test_a_constant_psf_stays_constant():
    grid = band_of(star_scene(lambda x, y: {}), ngrid=2).grid
    stamps = [psf_at(grid, "r00_c00", x, y).stamp.astype(float) for x, y in PLACES]
    assert max(np.abs(s - stamps[0]).max() for s in stamps) < 0.006 * stamps[0].max()
    assert np.abs(biases(grid, lambda x, y: {}, model_stamp)).max() < 0.003


def test_no_step_at_a_border_of_cells():
    grid = band_of(star_scene(varying_shape), ngrid=2).grid
    left, right = psf_at(grid, "r00_c00", 319.4, 200.0), psf_at(grid, "r00_c01", 319.6, 200.0)
    assert np.abs(left.stamp - right.stamp).max() < 1e-4 * left.stamp.max()
    assert left.n_stars == right.n_stars == sum(e.n_stars for e in grid.cells.values())
    assert left.quality["n_own_stars"] == grid.cells["r00_c00"].n_stars
    assert float(left.stamp.sum(dtype=float)) == pytest.approx(1, abs=1e-6)
    jump = grid.cells["r00_c00"].stamp - grid.cells["r00_c01"].stamp
    assert np.abs(jump).max() > 1e-2 * left.stamp.max()


def test_no_extrapolation_beyond_the_stars(varying):
    model = varying.grid.spatial
    steep = replace(model, coefficients=model.coefficients + 0.2 * (np.arange(15) == 1))
    shown = psf_at(replace(varying.grid, spatial=steep), "r00_c00", 630, 320).quality["fwhm_pix"]
    assert shown == pytest.approx(model.quality["fwhm_pix"] * np.exp(model.limits[0, 1]), rel=1e-9)
    own = psf_at(varying.grid, "r00_c00", 320, 320).quality["fwhm_pix"]
    assert own == pytest.approx(width(320, 320), rel=0.01)


def test_few_stars_or_none():
    none = band_of(scenes.make_field(np.zeros(SHAPE)))
    assert none.grid.spatial is None
    assert psf_at(none.grid, "r00_c00", 1, 1) is None
    three = band_of(star_scene(lambda x, y: {}, n=3, low=4.3)).grid
    assert three.spatial is not None
    stamps = [psf_at(three, "r00_c00", x, y).stamp.astype(float) for x, y in PLACES]
    assert max(np.abs(s - stamps[0]).max() for s in stamps) < 0.01 * stamps[0].max()
    assert np.abs(biases(three, lambda x, y: {}, model_stamp)).max() < 0.02


def test_the_cells_alone_when_asked():
    grid = band_of(star_scene(varying_shape), spatial="cell").grid
    assert grid.spatial is None
    assert psf_at(grid, "r00_c00", 10, 10) is grid.cells["r00_c00"]
    assert psf_at(grid, "r09_c09", 10, 10) is None


def test_a_borrowed_cell_gets_the_model(varying):
    lent = replace(varying.grid.cells["r00_c00"], kind="borrowed")
    grid = EpsfGrid("m500", {"r00_c00": lent}, varying.grid.spatial)
    there = psf_at(grid, "r00_c00", 60, 60)
    assert there.kind == "borrowed"
    np.testing.assert_array_equal(there.stamp, psf_at(varying.grid, "r00_c00", 60, 60).stamp)


def test_deformation_against_galsim():
    profile = MoffatProfile.of_width(3.1, 3.4)
    k = 61
    shape = np.array([0.03, 0.02, -0.015])
    # exp of a traceless matrix (e1, e2; e2, -e1) is galsim's shear of eta = 2 |e|
    eta = 2 * np.hypot(shape[1], shape[2])
    angle = 0.5 * np.arctan2(shape[2], shape[1]) * galsim.radians
    truth = galsim.Moffat(beta=3.4, fwhm=3.1).shear(eta=eta, beta=angle).dilate(np.exp(shape[0]))
    drawn = truth.drawImage(nx=k, ny=k, scale=1, method="no_pixel", dtype=float).array
    found = deformed_profile(profile, shape)
    assert np.abs(found.stamp(k) - drawn).max() < 1e-4 * drawn.max()
    assert found.total == pytest.approx(profile.total, rel=1e-9)
    # as a rest on another profile it must come out the same: interpolation instead of the formula
    other = Deformable(profile.stamp(k), MoffatProfile.of_width(3.4, 3.0)).deformed(shape[None])[0]
    assert np.abs(other - drawn).max() < 1e-3 * drawn.max()


def test_surface_takes_no_more_than_the_stars_show():
    rng = np.random.default_rng(3)
    u, v = rng.uniform(-1, 1, (2, 200))
    error = np.full(200, 0.004)
    grid = basis(*(g.ravel() for g in np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9))))
    flat = fit_surface(u, v, rng.normal(0, error), error)
    assert np.ptp(grid @ flat.coefficients) < 0.002
    value = 0.02 * u - 0.01 * v + 0.012 * u * u
    noisy = value + rng.normal(0, error)
    noisy[:8] += 0.3
    curved = fit_surface(u, v, noisy, error)
    assert not curved.used[:8].any()
    assert curved.used[8:].mean() > 0.97
    assert np.abs(basis(u, v) @ curved.coefficients - value).max() < 0.004
    sigma = np.sqrt(np.einsum("ni,ij,nj->n", basis(u, v), curved.covariance, basis(u, v)))
    pull = (basis(u, v) @ curved.coefficients - value) / sigma
    assert np.sqrt(np.mean(pull**2)) < 2
    few = fit_surface(u[8:13], v[8:13], rng.normal(0, 0.02, 5), np.full(5, 0.02))
    assert np.ptp(grid @ few.coefficients) < 0.02


@pytest.fixture
def work(tmp_path) -> WorkDir:
    parts = {name: tmp_path / name for name in ("epsf", "patches", "payloads", "fits", "overlay", "cropped")}
    return WorkDir(root=tmp_path, final_catalog=tmp_path / "c.csv", name="t", **parts)


def test_round_trip(varying, work):
    grid = read_band(write_band(varying, work))
    assert grid.spatial is not None
    assert grid.spatial.profile == varying.grid.spatial.profile
    assert grid.spatial.box == varying.grid.spatial.box
    np.testing.assert_array_equal(grid.spatial.coefficients, varying.grid.spatial.coefficients)
    for x, y in PLACES:
        before, after = psf_at(varying.grid, "r00_c00", x, y), psf_at(grid, "r00_c00", x, y)
        np.testing.assert_array_equal(after.stamp, before.stamp)
        assert after.quality == before.quality


def test_a_stale_model_goes_away(varying, work):
    manifest = write_band(varying, work)
    assert (manifest.parent / "spatial.npy").is_file()
    write_band(replace(varying, grid=replace(varying.grid, spatial=None)), work)
    assert not (manifest.parent / "spatial.npy").exists()
    assert read_band(manifest).spatial is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("coefficients", [[1.0]]),
        ("coefficients", "x"),
        ("profile", [1.0, 2.0, 0.5, 0.0, 0.0]),
        ("limits", [[1.0, 0.0]] * 3),
        ("box", [0, 1, 2]),
        ("size", 54),
        ("n_stars", None),
        ("quality", {}),
        ("stamp", "gone.npy"),
        ("stamp_sha256", "0"),
    ],
)
def test_a_damaged_model_is_a_product_error(varying, work, name, value):
    manifest = write_band(varying, work)
    record = json.loads(manifest.read_text())
    record["spatial"][name] = value
    manifest.write_text(json.dumps(record))
    with pytest.raises(ProductError):
        read_band(manifest)


def test_payload_takes_the_psf_of_its_centre():
    from tract7dt.patches.payload import PayloadBuilder

    asked = []
    builder = object.__new__(PayloadBuilder)
    builder._epsf = {"g": "grid"}
    builder._psf_at = lambda *place: asked.append(place)
    patch = SimpleNamespace(base=SimpleNamespace(x0=10, x1=20, y0=30, y1=41), epsf_tag="r00_c00")
    builder._psf("g", patch)
    assert builder._psf("z", patch) is None
    assert asked == [("grid", "r00_c00", 14.5, 35.0)]


def surface_errors(shape_of, n, bowls, trials=40):
    """Root mean square errors of surfaces through ``n`` noisy stars, over the frame."""
    axis = np.linspace(-0.95, 0.95, 9)
    everywhere = [part.ravel() for part in np.meshgrid(axis, axis)]
    found = []
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        u, v = rng.uniform(-1, 1, (2, n))
        error = 10 ** rng.uniform(-2.7, -1.7, n)
        surface = fit_surface(u, v, shape_of(u, v) + error * rng.normal(size=n), error, bowls=bowls)
        found.append(basis(*everywhere) @ surface.coefficients - shape_of(*everywhere))
    return float(np.sqrt(np.mean(np.square(found))))


@pytest.mark.parametrize("n", [25, 60])
def test_a_bowl_needs_fewer_stars(n):
    def bowl(u, v):
        return 0.01 + 0.015 * u - 0.008 * v + 0.01 * (u * u + v * v)

    assert surface_errors(bowl, n, True) < 0.9 * surface_errors(bowl, n, False)


@pytest.mark.parametrize("n", [25, 60])
def test_what_is_no_bowl_is_followed_all_the_same(n):
    def saddle(u, v):
        return 0.01 * (u * u - v * v) + 0.01 * u * v

    assert surface_errors(saddle, n, True) < 1.1 * surface_errors(saddle, n, False)
