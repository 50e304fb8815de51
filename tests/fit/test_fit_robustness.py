"""What must not break a fit: nothing to fit, nothing to see, nonsense in the data, sources off the patch."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import scenes
from fit_settings import PatchRun
from scenes import EXP, SERSIC, STAR

from tract7dt.errors import ConfigError, PatchError
from tract7dt.fit import EngineOptions, fit_native, fit_patch, render_model
from tract7dt.fit.draw import draw_sources
from tract7dt.fit.normal import solve_bands
from tract7dt.fit.warm import warm_up

ROWS = [
    (STAR, 20.0, 22.0, 1, 0, 0, 1, 900.0),
    (EXP, 45.3, 40.2, 2.0, 0.3, 20, 1, 1500.0),
    (EXP, 22.0, 50.0, 2.0, 0.1, 0, 1, 900.0),
]


def scene(rows=ROWS, n_bands=2, size=64, seed=5, gain=1e9, exact_psf=True, **start):
    rng = np.random.default_rng(seed)
    bands = scenes.make_bands(n_bands, rng, stamp=35, gain=gain, spread=0.0)
    truth = scenes.few_sources(n_bands, *rows)
    sources = scenes.no_priors(truth, n_bands, **start)
    return scenes.make_problem(truth, bands, size, size, rng, sources), truth


def assert_same(one, other):
    for f in fields(one):
        a, b = getattr(one, f.name), getattr(other, f.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b, err_msg=f.name)
        else:
            assert repr(a) == repr(b), f.name


def test_no_sources():
    problem, _ = scene([(STAR, 20.0, 22.0, 1, 0, 0, 1, 0.0)])
    none = replace(
        problem,
        sources=type(problem.sources)(
            **{f.name: getattr(problem.sources, f.name)[..., :0] for f in fields(problem.sources)}
        ),
    )
    fit = fit_patch(none, PatchRun())
    assert fit.status == "empty"
    assert len(fit) == 0
    assert fit.flux.shape == (2, 0)
    good = np.where(problem.weight > 0, problem.data, np.nan)
    np.testing.assert_allclose(fit.sky, np.nanmean(good, axis=(1, 2)), atol=1e-4)
    np.testing.assert_allclose(fit.sky_err, problem.sky_sigma / 64, rtol=1e-3)
    np.testing.assert_allclose(render_model(none, fit)[0], fit.sky[0], rtol=1e-5)


@pytest.mark.parametrize("staged", [True, False])
@pytest.mark.parametrize("multi", [True, False])
def test_all_masked(staged, multi):
    problem, _ = scene()
    problem.weight[:] = 0
    problem.data[:] = np.nan
    fit = fit_patch(problem, PatchRun(enable_staged_fit=staged, enable_multi_band_simultaneous_fitting=multi))
    assert fit.status == "empty"
    assert np.isnan(fit.flux).all()
    assert np.isnan(fit.x).all()
    assert np.isnan(fit.sky).all()
    assert not fit.converged.any()
    assert not fit.hit_max_iters.any()
    assert {issue for row in fit.issues for issue in row} == {"no_good_pixel"}
    assert not render_model(problem, fit).any()


def test_one_masked_band_leaves_the_others_alone():
    problem, _ = scene()
    alone = fit_patch(scenes_of_bands(problem, [1]), PatchRun())
    problem.weight[0] = 0
    fit = fit_patch(problem, PatchRun())
    assert np.isnan(fit.flux[0]).all()
    assert np.isnan(fit.sky[0])
    np.testing.assert_allclose(fit.flux[1], alone.flux[0], rtol=1e-4)
    np.testing.assert_allclose(fit.x, alone.x, atol=1e-4)
    np.testing.assert_allclose(fit.flux_err[1], alone.flux_err[0], rtol=1e-3)
    assert all(issue.startswith("no_good_pixel:b0") for issue in fit.issues[0])


def scenes_of_bands(problem, bands):
    return replace(
        problem,
        bands=tuple(problem.bands[b] for b in bands),
        data=problem.data[bands],
        weight=problem.weight[bands],
        sky_sigma=problem.sky_sigma[bands],
        gain=problem.gain[bands],
        psf=tuple(problem.psf[b] for b in bands),
        sources=replace(
            problem.sources, flux=problem.sources.flux[bands], flux_err=problem.sources.flux_err[bands]
        ),
    )


def test_a_source_without_good_pixels_does_not_touch_the_others():
    problem, truth = scene([ROWS[0], ROWS[1]])
    problem.weight[:, 25:, 28:] = 0
    problem.data[:, 25:, 28:] = np.inf
    fit = fit_patch(problem, PatchRun())
    assert fit.issues[0][1] == "no_good_pixel"
    assert np.isnan(fit.x[0, 1])
    assert np.isnan(fit.flux[:, 1]).all()
    assert fit.converged[0].tolist() == [True, False]
    only = fit_patch(replace(problem, sources=scenes_one(problem.sources, 0)), PatchRun())
    np.testing.assert_allclose(fit.flux[:, 0], only.flux[:, 0], rtol=1e-5)
    np.testing.assert_allclose(fit.x_err[0, 0], only.x_err[0, 0], rtol=1e-4)
    np.testing.assert_allclose(fit.flux[:, 0], truth.flux[:, 0], rtol=0.05)


def scenes_one(sources, s):
    return replace(sources, **{f.name: getattr(sources, f.name)[..., s : s + 1] for f in fields(sources)})


def test_no_good_pixel_in_one_band():
    problem, _ = scene([ROWS[0], ROWS[1]])
    problem.weight[0, 25:, 28:] = 0
    fit = fit_patch(problem, PatchRun())
    assert fit.issues[0] == ("", "no_good_pixel:b0")
    assert np.isnan(fit.flux[0, 1])
    assert np.isfinite(fit.flux[1, 1])
    assert np.isfinite(fit.x[0, 1])
    assert fit.frac_masked[1, 1] < 0.01


def test_half_masked_source():
    problem, truth = scene()
    problem.weight[:, :, 46:] = 0
    problem.data[:, :, 46:] = np.nan
    fit = fit_patch(problem, PatchRun())
    np.testing.assert_allclose(fit.frac_masked[:, 1], 0.4, atol=0.12)
    np.testing.assert_allclose(fit.flux[:, 1], truth.flux[:, 1], atol=5 * fit.flux_err[:, 1].max())


def test_neighbour_outside_the_patch():
    rows = [(STAR, 10.0, 30.0, 1, 0, 0, 1, 900.0), (STAR, -8.0, 30.0, 1, 0, 0, 1, 3e5)]
    problem, truth = scene(rows)
    fit = fit_patch(problem, PatchRun())
    assert fit.bound == (("", ""),)
    assert fit.converged.all()
    assert fit.issues[0] == ("", "outside_patch")
    assert fit.x[0, 1] == -8
    assert np.isnan(fit.x_err[0, 1])
    assert np.all(np.abs(fit.flux[:, 0] - truth.flux[:, 0]) < 5 * fit.flux_err[:, 0])
    without = fit_patch(replace(problem, sources=scenes_one(problem.sources, 0)), PatchRun())
    assert fit.lnp[0] > without.lnp[0] + 10  # its light was there


def test_sources_far_outside_and_without_a_start():
    rows = [ROWS[0], (EXP, 500.0, -300.0, 3, 0.2, 10, 1, 900.0), (EXP, 30.0, 30.0, 2, 0.2, 10, 1, 0.0)]
    problem, _ = scene(rows)
    problem.sources.re[2] = np.nan
    fit = fit_patch(problem, PatchRun())
    assert fit.issues[0] == ("", "no_good_pixel", "no_start_values")
    assert np.isnan(fit.flux[:, 1:]).all()
    assert fit.converged[0, 0]


def test_source_at_the_edge():
    rows = [(EXP, 0.2, 30.0, 2.0, 0.3, 20, 1, 3000.0), (STAR, 63.4, 63.4, 1, 0, 0, 1, 3000.0)]
    problem, truth = scene(rows)
    fit = fit_patch(problem, PatchRun())
    assert fit.bound == (("", ""),)
    assert np.all(np.abs(fit.flux - truth.flux) < 5 * fit.flux_err)
    assert np.all(fit.frac_masked > 0.3)


def test_duplicates_do_not_crash():
    problem, truth = scene(
        [
            ROWS[0],
            ROWS[0],
            (EXP, 45.3, 40.2, 2.0, 0.3, 20, 1, 750.0),
            (EXP, 45.3, 40.2, 2.0, 0.3, 20, 1, 750.0),
        ]
    )
    fit = fit_patch(problem, PatchRun())
    total = fit.flux.reshape(2, 2, 2).sum(axis=2)
    np.testing.assert_allclose(total, truth.flux.reshape(2, 2, 2).sum(axis=2), rtol=0.1)
    assert np.isfinite(fit.flux_err).all()


def test_negative_flux_is_a_measurement():
    problem, truth = scene([ROWS[0], (STAR, 45.3, 40.2, 1, 0, 0, 1, -600.0)])
    fit = fit_patch(problem, PatchRun())
    np.testing.assert_allclose(fit.flux[:, 1], truth.flux[:, 1], rtol=0.1)


def test_one_band_much_noisier():
    problem, truth = scene(n_bands=3)
    noise = np.random.default_rng(0).normal(0, 10, problem.data[1].shape)
    problem.data[1] += noise.astype(np.float32)
    problem.weight[1] /= 101
    problem.sky_sigma[1] *= np.sqrt(101)
    fit = fit_patch(problem, PatchRun())
    assert fit.converged.all()
    pulls = (fit.flux - truth.flux) / fit.flux_err
    assert np.all(np.abs(pulls) < 4)
    np.testing.assert_allclose(fit.flux_err[1] / fit.flux_err[0], 10, rtol=0.3)


def test_bounds_are_flagged_only_where_they_hold():
    problem, _ = scene()
    problem.sources.x[:] += [-1.0, 0.0, 0.0]
    fit = fit_patch(problem, PatchRun(pos_max_shift_pix=0.5))
    assert fit.bound[0][0] == "pos.x@upper"
    assert fit.bound[0][1:] == ("", "")
    assert np.isnan(fit.x_err[0, 0])
    assert np.isfinite(fit.y_err[0, 0])
    assert fit.x[0, 0] == pytest.approx(19.5)
    free = fit_patch(problem, PatchRun(pos_max_shift_pix=None))
    assert free.bound == (("", "", ""),)
    assert free.x[0, 0] == pytest.approx(20.0, abs=0.1)


def test_a_star_fitted_as_a_galaxy_ends_at_the_smallest_radius():
    problem, truth = scene([(STAR, 31.3, 30.2, 1, 0, 0, 1, 30000.0)], re=np.array([2.0]))
    problem.sources.kind[:] = EXP
    fit = fit_patch(problem, PatchRun())
    assert fit.bound[0][0] in ("shape.logre@lower", "")
    assert fit.re[0, 0] < 0.3
    np.testing.assert_allclose(fit.flux, truth.flux, rtol=0.01)


def test_priors_hold_a_source():
    problem, _ = scene()
    wrong = replace(
        problem,
        sources=replace(
            problem.sources,
            x=problem.sources.x + 0.5,
            re=problem.sources.re * 1.5,
            ell=np.array([0, 0.5, 0.5]),
            theta=np.full(3, 60.0),
            pos_err=np.array([1e-4, 1e-4, np.inf]),
            re_err=np.array([np.inf, 1e-3, np.inf]),
            ell_err=np.array([np.inf, 1e-3, 1e-3]),
            theta_err=np.array([np.inf, 0.1, np.inf]),
            flux_err=np.array([[np.inf, np.inf, 1e-2], [np.inf, np.inf, np.inf]]),
        ),
    )
    fit = fit_patch(wrong, PatchRun())
    start = wrong.sources
    np.testing.assert_allclose(fit.x[0, :2], start.x[:2], atol=0.01)
    assert abs(fit.x[0, 2] - start.x[2]) > 0.2
    assert fit.re[0, 1] == pytest.approx(3.0, abs=0.02)
    assert fit.ell[0, 1] == pytest.approx(0.5, abs=0.01)
    assert fit.theta[0, 1] == pytest.approx(60, abs=1)
    assert abs(fit.ell[0, 2] - 0.5) > 0.1  # one of the two errors alone is no prior
    assert fit.flux[0, 2] == pytest.approx(start.flux[0, 2], abs=1)
    assert fit.x_err[0, 0] < 2e-4
    assert fit.ell_err[0, 1] < 2e-3
    assert fit.theta_err[0, 1] < 0.2
    assert fit.flux_err[0, 2] < 0.02


def test_the_same_input_gives_the_same_bits():
    problem, _ = scene(n_bands=3)
    other, _ = scenes.random_problem(8, 2, 80, 3)
    first = fit_patch(problem, PatchRun())
    fit_patch(other, PatchRun())
    assert_same(first, fit_patch(problem, PatchRun()))


def test_the_problem_is_not_changed():
    problem, _ = scene()
    before = {f.name: np.copy(getattr(problem.sources, f.name)) for f in fields(problem.sources)}
    data, weight = problem.data.copy(), problem.weight.copy()
    fit_patch(problem, PatchRun())
    np.testing.assert_array_equal(problem.data, data)
    np.testing.assert_array_equal(problem.weight, weight)
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(problem.sources, name), value)


def test_single_bands():
    problem, truth = scene(n_bands=3)
    fit = fit_patch(problem, PatchRun(enable_multi_band_simultaneous_fitting=False))
    assert fit.single_band
    assert fit.x.shape == fit.re.shape == fit.converged.shape == (3, 3)
    assert len(fit.lnp) == len(fit.bound) == len(fit.issues) == 3
    assert [stage["band"] for stage in fit.stages] == ["b0"] * 3 + ["b1"] * 3 + ["b2"] * 3
    for b in range(3):
        alone = fit_patch(scenes_of_bands(problem, [b]), PatchRun())
        np.testing.assert_array_equal(fit.x[b], alone.x[0])
        np.testing.assert_array_equal(fit.flux[b], alone.flux[0])
    np.testing.assert_allclose(fit.flux, truth.flux, rtol=0.2)
    residual = (problem.data - render_model(problem, fit)) * np.sqrt(problem.weight)
    assert np.std(residual) == pytest.approx(1, abs=0.05)


def test_rendered_model_is_the_fitted_one():
    problem, _ = scenes.random_problem(10, 3, 100, 8)
    fit = fit_native(problem, PatchRun(), EngineOptions(weak_priors=False))
    model = render_model(problem, fit)
    assert model.dtype == np.float32
    good = problem.weight > 0
    chi2 = np.sum((problem.data[good] - model[good]).astype(float) ** 2 * problem.weight[good])
    assert -0.5 * chi2 == pytest.approx(fit.lnp[0], abs=0.3)


@pytest.mark.parametrize(
    ("psf", "message"),
    [
        (np.full((34, 34), 1 / 34**2), "odd side"),
        (np.full((35, 33), 1 / 35 / 33), "square"),
        (np.full((35, 35), np.nan), "not finite"),
        (np.full((35, 35), 1.0), "unit sum"),
    ],
)
def test_unusable_psf_is_refused(psf, message):
    problem, _ = scene()
    for name in ("psf", "psf_extended"):
        with pytest.raises(PatchError, match=message) as caught:
            fit_patch(replace(problem, **{name: (problem.psf[0], psf)}), PatchRun())
        assert f"{name} of band b1" in str(caught.value)


def test_all_faults_are_told_at_once():
    problem, _ = scene()
    wrong = replace(problem, psf=problem.psf[:1], gain=np.zeros(2), weight=problem.weight[:1])
    with pytest.raises(PatchError) as caught:
        fit_patch(wrong, PatchRun())
    for word in ("psf: expected 2", "gain", "weight"):
        assert word in str(caught.value)


def test_engines():
    problem, _ = scene()
    with pytest.raises(ConfigError, match="'native' or 'tractor', found 'galfit'"):
        fit_patch(problem, PatchRun(engine="galfit"))
    from tract7dt.fit import fit as module

    assert module.find_engine("native") is module.fit_native


def test_the_tractor_is_refused_where_it_is_not(monkeypatch):
    from tract7dt.fit import fit as module

    monkeypatch.setattr(module, "_TRACTOR_MODULE", "tract7dt.fit.no_such_backend")
    problem, _ = scene()
    with pytest.raises(ConfigError, match="not available here"):
        fit_patch(problem, PatchRun(engine="tractor"))


def test_another_engine_can_be_slotted_in(monkeypatch):
    import sys
    import types

    from tract7dt.fit import fit as module

    backend = types.ModuleType("some_backend")
    backend.__spec__ = types.SimpleNamespace(name="some_backend")
    backend.fit_patch = lambda problem, patch_run: (problem.tag, patch_run.engine)
    monkeypatch.setitem(sys.modules, "some_backend", backend)
    monkeypatch.setattr(module, "_TRACTOR_MODULE", "some_backend")
    problem, _ = scene()
    assert fit_patch(problem, PatchRun(engine="tractor")) == ("scene", "tractor")


def test_faint_galaxies_keep_their_shape():
    rows = [ROWS[0], (SERSIC, 45.0, 40.0, 2.0, 0.3, 20, 2, 10.0)]
    problem, _ = scene(rows)
    fit = fit_patch(problem, PatchRun())
    assert fit.issues[0] == ("", "weak_prior")
    assert fit.converged.all()
    assert 0.3 < fit.re[0, 1] < 15
    assert "sersicindex" not in fit.bound[0][1]


def test_the_warm_up_leaves_nothing_to_compile_for_a_patch_from_a_file():
    """Fluxes of a file come in Fortran order, for which kernels would be compiled once more in a worker."""
    warm_up()
    before = {kernel: set(kernel.signatures) for kernel in (draw_sources, solve_bands)}
    problem = scene(n_bands=3)[0]
    sources = replace(
        problem.sources,
        flux=np.asfortranarray(problem.sources.flux),
        flux_err=np.asfortranarray(problem.sources.flux_err),
    )
    assert not sources.flux.flags.c_contiguous
    fit_patch(replace(problem, sources=sources), PatchRun())
    assert {kernel: set(kernel.signatures) for kernel in before} == before
