"""The second engine: how its absence is told, and, where The Tractor is installed, what it fits."""

from __future__ import annotations

import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import scenes
from fit_settings import PatchRun
from scenes import DEV, EXP, SERSIC, STAR

from tract7dt import stages
from tract7dt.errors import ConfigError, PatchError
from tract7dt.fit import EngineOptions, check_engine, fit_native, fit_patch, render_model, tractor_backend
from tract7dt.fit.parameters import build_layout, build_parameters
from tract7dt.fit.scene import Scene
from tract7dt.fit.tractor import api, climb
from tract7dt.fit.tractor.drawing import Artist
from tract7dt.settings import settings_from_dict

RUN = PatchRun(engine="tractor")
#: The Tractor shifts stamps with a Lanczos kernel of order 3, whose centroid is up to this far off (pix), as a
#: function of the phase; the slope of that is up to 0.2, and goes into the errors of positions.
OFF = 0.022
ROWS = [
    (STAR, 20.0, 22.0, 1, 0, 0, 1, 900.0),
    (EXP, 45.3, 40.2, 2.0, 0.3, 20, 1, 1500.0),
    (EXP, 22.0, 50.0, 2.0, 0.1, 0, 1, 900.0),
]


def _why_absent() -> str:
    try:
        tractor_backend.check_available()
    except ConfigError as error:
        return str(error)
    return ""


REASON = _why_absent()
needs_the_tractor = pytest.mark.skipif(bool(REASON), reason=REASON or "installed")


# --- where it is not --------------------------------------------------------------------------------------


@pytest.fixture
def no_tractor():
    """Nothing of The Tractor imported yet, and nothing left behind."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "tractor"}
    for name in before:
        del sys.modules[name]
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "tractor"]:
        del sys.modules[name]
    sys.modules.update(before)


def package(folder, **modules):
    """A package ``tractor`` of the given modules."""
    root = folder / "tractor"
    root.mkdir()
    for name, text in ({"__init__": ""} | modules).items():
        (root / f"{name}.py").write_text(text)
    return root


def test_absence_is_told_with_the_cure(no_tractor, monkeypatch):
    monkeypatch.setitem(sys.modules, "tractor", None)
    problem, _ = scene()
    with pytest.raises(ConfigError) as caught:
        fit_patch(problem, RUN)
    for word in ("patch_run.engine", "not installed", "github.com/dstndstn/tractor", "unrelated", "native"):
        assert word in str(caught.value)


def test_absence_is_told_before_any_input_is_read(no_tractor, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tractor", None)
    inputs = {"input_catalog": "none.csv", "image_list_file": "none.txt", "gaiaxp_synphot_csv": "none.csv"}
    values = {"inputs": inputs, "outputs": {"work_dir": "work"}, "patch_run": {"engine": "tractor"}}
    settings = settings_from_dict(values, tmp_path).settings
    for stage in (stages.check_inputs, stages.load_inputs):
        with pytest.raises(ConfigError, match="not installed"):
            stage(settings)


def test_another_package_of_that_name_is_told_apart(no_tractor, monkeypatch, tmp_path):
    root = package(tmp_path, _spawn="def run(): ...")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        check_engine("tractor")
    assert str(root) in str(caught.value)
    assert "it is another one" in str(caught.value)


def test_a_package_that_lacks_a_class_is_told_apart(no_tractor, monkeypatch, tmp_path):
    package(tmp_path, brightness="class Fluxes: ...")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"tractor\.brightness\.FluxesPhotoCal"):
        check_engine("tractor")


def test_what_it_lacks_itself_is_named(no_tractor, monkeypatch, tmp_path):
    package(tmp_path, __init__="import no_such_module_of_anybody")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="no_such_module_of_anybody"):
        check_engine("tractor")


def test_the_native_engine_needs_nothing(no_tractor, monkeypatch):
    monkeypatch.setitem(sys.modules, "tractor", None)
    check_engine("native")


# --- where it is ------------------------------------------------------------------------------------------


def scene(rows=ROWS, n_bands=2, size=64, noise=True, gain=1e9, **start):
    rng = np.random.default_rng(5)
    bands = scenes.make_bands(n_bands, rng, stamp=35, gain=gain, spread=0.0)
    truth = scenes.few_sources(n_bands, *rows)
    sources = scenes.no_priors(truth, n_bands, **start)
    return scenes.make_problem(
        truth, bands, size, size, rng if noise else None, sources, exact_psf=noise
    ), truth


@needs_the_tractor
@pytest.mark.parametrize("staged", [True, False])
@pytest.mark.parametrize("row", [(EXP, 1.0), (DEV, 4.0), (SERSIC, 2.0), (STAR, 1.0)])
def test_a_source_started_half_a_pixel_off_comes_back(row, staged):
    kind, index = row
    problem, truth = scene([(kind, 31.3, 33.8, 3.0, 0.4, 30, index, 4000.0)], noise=False)
    start = replace(problem.sources, x=truth.x + 0.5, y=truth.y - 0.5)
    fit = fit_patch(replace(problem, sources=start), replace(RUN, enable_staged_fit=staged))
    assert fit.converged.all()
    np.testing.assert_allclose(fit.x[0], truth.x, atol=OFF)
    np.testing.assert_allclose(fit.y[0], truth.y, atol=OFF)


@needs_the_tractor
@pytest.mark.parametrize("theta", [-70.0, 25.0, 80.0])
def test_conventions_are_those_of_the_catalogue(theta):
    problem, truth = scene([(EXP, 31.3, 33.8, 4.0, 0.5, theta, 1, 9000.0)], noise=False)
    start = replace(problem.sources, theta=truth.theta + 15, ell=truth.ell - 0.2, re=truth.re * 1.3)
    fit = fit_patch(replace(problem, sources=start), RUN)
    assert abs((fit.theta[0, 0] - theta + 90) % 180 - 90) < 0.5
    np.testing.assert_allclose(fit.ell[0], truth.ell, atol=0.01)
    np.testing.assert_allclose(fit.re[0], truth.re, rtol=0.02)
    np.testing.assert_allclose(
        fit.flux, truth.flux, rtol=0.015
    )  # its mixture lacks 1 % of the profile's wings


@needs_the_tractor
def test_derivatives_are_per_pixel():
    """The Tractor's own derivatives against central differences of its models, stars and galaxies alike."""
    rows = [
        (STAR, 20.2, 22.4, 1, 0, 0, 1, 900.0),
        *((k, 40.2, 41.4, 3.0, 0.3, 20, n, 1500.0) for k, n in ((EXP, 1), (DEV, 4), (SERSIC, 1.3))),
    ]
    problem, _ = scene(rows)
    world = Scene(problem.data, problem.weight, problem.psf, None)
    parameters = build_parameters(problem.sources, 64, 64, None, EngineOptions())
    layout = build_layout(parameters, True, True)
    artist = Artist(api.load(), problem, world, parameters.kind, parameters.start)
    artist.start_stage(layout)
    for s in range(len(rows)):
        theirs = artist.derivatives(s, 1, parameters.start[s], layout, fine=False)
        central = artist.derivatives(s, 1, parameters.start[s], layout, fine=True)
        for a, b in zip(theirs.images, central.images, strict=True):
            slope = np.sum(a * b) / np.sum(b * b)
            assert 0.7 < slope < 1.1  # differences over two pixels flatten what is sharp
            assert np.sum(a * b) > 0.97 * np.sqrt(np.sum(a * a) * np.sum(b * b))


@needs_the_tractor
@pytest.mark.parametrize("multi", [True, False])
def test_both_engines_agree(multi):
    rows = [*ROWS, (STAR, 50.0, 43.0, 1, 0, 0, 1, 400.0)]
    problem, truth = scene(rows, gain=40.0)
    problem.data[:, 10, :] = np.nan
    problem.weight[:, 10, :] = 0
    problem = replace(problem, sources=scenes.scattered_start(truth, 2, np.random.default_rng(1)))
    how = replace(RUN, enable_multi_band_simultaneous_fitting=multi)
    options = EngineOptions(profiles="mixture")
    one, other = fit_native(problem, how, options), fit_patch(problem, how)
    assert one.converged.all()
    assert other.converged.all()
    assert other.status == "converged"
    assert other.single_band is not multi
    for f in fields(one):  # same shapes, types and gaps
        a, b = getattr(one, f.name), getattr(other, f.name)
        if isinstance(a, np.ndarray):
            assert a.shape == b.shape, f.name
            assert a.dtype == b.dtype, f.name
            np.testing.assert_array_equal(np.isfinite(a), np.isfinite(b), err_msg=f.name)
    assert one.bound == other.bound
    assert one.issues == other.issues
    for name in ("re", "ell", "theta", "flux", "sky"):
        error = getattr(one, f"{name}_err")
        off = np.abs(getattr(one, name) - getattr(other, name)) / error
        assert np.nanmax(off) < 0.15, name
        ratio = getattr(other, f"{name}_err") / error
        assert np.nanmax(np.abs(ratio - 1)) < 0.06, name
    for name in ("x", "y"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), atol=OFF)
        np.testing.assert_allclose(getattr(other, f"{name}_err"), getattr(one, f"{name}_err"), rtol=0.2)
    np.testing.assert_allclose(other.chi2, one.chi2, rtol=0.02)
    np.testing.assert_allclose(other.frac_flux, one.frac_flux, atol=0.01)
    np.testing.assert_allclose(other.frac_masked, one.frac_masked, atol=0.02)
    np.testing.assert_allclose(other.lnp, one.lnp, atol=1.0)


@needs_the_tractor
def test_its_renderer_gives_our_solution_the_same_posterior():
    problem, _ = scenes.random_problem(8, 2, 90, 3, shares=(0.3, 0.5, 0.2, 0.0))
    options = EngineOptions(profiles="mixture")
    fit = fit_native(problem, PatchRun(), options)
    good = problem.weight > 0
    chi2 = [
        np.sum((problem.weight * (problem.data - model).astype(float) ** 2)[good])
        for model in (render_model(problem, fit, options), tractor_backend.render_model(problem, fit))
    ]
    assert abs(chi2[0] - chi2[1]) / 2 < 0.3


@needs_the_tractor
def test_nonsense_in_the_data_is_survived():
    """NaN pixels, a band without any pixel, a source on masked pixels, sources at and beyond the edge."""
    rows = [*ROWS, (EXP, 45.0, 12.0, 2, 0.2, 0, 1, 900.0), (EXP, 0.2, 30.0, 3, 0.3, 70, 1, 900.0)]
    rows += [(SERSIC, 63.4, 55.0, 2, 0.3, 70, 2, 900.0), (EXP, -9.0, 20.0, 5, 0.3, 0, 1, 3000.0)]
    problem, _ = scene(rows, n_bands=3)
    problem.weight[1] = 0
    problem.weight[:, :30, 30:60] = 0
    problem.data[problem.weight == 0] = np.nan
    problem.sources.x[2] = np.nan
    fit = fit_patch(problem, replace(RUN, pos_max_shift_pix=None))
    assert np.isnan(fit.flux[1]).all()
    assert np.isnan(fit.sky[1])
    assert fit.issues[0][2] == "no_start_values"
    assert fit.issues[0][3] == "no_good_pixel"
    assert "no_good_pixel:b1" in fit.issues[0][0]
    assert "outside_patch" in fit.issues[0][6]
    assert np.isnan(fit.x[0, [2, 3]]).all()
    assert fit.x[0, 6] == -9.0
    assert np.isnan(fit.x_err[0, 6])
    seen = [0, 1, 4, 5, 6]
    assert fit.converged[0, seen].all()
    assert not (fit.converged | fit.stalled | fit.hit_max_iters)[0, [2, 3]].any()
    native = fit_native(problem, replace(RUN, pos_max_shift_pix=None), EngineOptions(profiles="mixture"))
    assert native.issues == fit.issues
    off = np.abs(fit.flux - native.flux)[[0, 2]][:, seen] / native.flux_err[[0, 2]][:, seen]
    assert np.max(off) < 0.3


@needs_the_tractor
@pytest.mark.parametrize("multi", [True, False])
def test_nothing_to_fit(multi):
    how = replace(RUN, enable_multi_band_simultaneous_fitting=multi)
    problem, _ = scene()
    masked = replace(problem, weight=np.zeros_like(problem.weight), data=np.full_like(problem.data, np.nan))
    fit = fit_patch(masked, how)
    assert fit.status == "empty"
    assert {issue for row in fit.issues for issue in row} == {"no_good_pixel"}
    names = [f.name for f in fields(problem.sources)]
    none = type(problem.sources)(**{name: getattr(problem.sources, name)[..., :0] for name in names})
    fit = fit_patch(replace(problem, sources=none), how)
    assert fit.status == "empty"
    assert len(fit) == 0
    assert np.isfinite(fit.sky).all()


@needs_the_tractor
def test_faulty_problems_are_refused():
    problem, _ = scene()
    with pytest.raises(PatchError, match="psf: expected 2"):
        fit_patch(replace(problem, psf=problem.psf[:1]), RUN)


@needs_the_tractor
def test_a_bound_holds_one_source_and_nobody_else():
    problem, truth = scene()
    start = problem.sources.x.copy()
    start[1] -= 1.5
    fit = fit_patch(
        replace(problem, sources=replace(problem.sources, x=start)), replace(RUN, pos_max_shift_pix=0.7)
    )
    assert "pos.x@upper" in fit.bound[0][1]
    assert fit.x[0, 1] == pytest.approx(start[1] + 0.7)
    assert fit.bound[0][0] == fit.bound[0][2] == ""
    np.testing.assert_allclose(fit.x[0, [0, 2]], truth.x[[0, 2]], atol=0.1)
    assert fit.converged.all()


@needs_the_tractor
def test_priors_pull():
    problem, truth = scene()
    n = len(truth)
    tight = replace(
        problem.sources,
        x=truth.x + 0.4,
        pos_err=np.array([np.inf, 1e-4, np.inf]),
        re=truth.re * 1.2,
        re_err=np.array([np.inf, np.inf, 1e-4]),
        flux=truth.flux * [[1.5], [1.0]],
        flux_err=np.stack([np.where(np.arange(n) == 0, 1e-2, np.inf), np.full(n, np.inf)]),
    )
    fit = fit_patch(replace(problem, sources=tight), RUN)
    assert fit.x[0, 1] == pytest.approx(tight.x[1], abs=1e-3)
    assert fit.x[0, 0] == pytest.approx(truth.x[0], abs=0.1)
    assert fit.re[0, 2] == pytest.approx(tight.re[2], abs=1e-3)
    assert fit.flux[0, 0] == pytest.approx(tight.flux[0, 0], abs=0.05)
    assert fit.flux[1, 0] == pytest.approx(truth.flux[1, 0], rel=0.05)
    assert fit.flux_err[0, 0] == pytest.approx(1e-2, rel=0.05)


@needs_the_tractor
def test_a_stall_and_the_last_iteration_are_no_convergence(monkeypatch):
    problem, truth = scene()
    start = replace(problem.sources, x=truth.x + 0.5)
    direct = replace(RUN, enable_staged_fit=False)
    fit = fit_patch(replace(problem, sources=start), replace(direct, n_opt_iters=1))
    assert fit.status == "max_iters"
    assert fit.hit_max_iters.any()
    assert not (fit.hit_max_iters & fit.converged).any()
    monkeypatch.setattr(climb, "_uphill", lambda *args: None)
    fit = fit_patch(replace(problem, sources=start), direct)
    assert fit.status == "stalled"
    assert fit.stalled.any()
    assert not fit.converged.any()
    assert fit.stages[0]["converged"] is False
