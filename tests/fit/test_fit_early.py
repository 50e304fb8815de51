"""What a fit leaves out: halo sources that do not matter, and bands while it is on its way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scenes
from fit_settings import PatchRun
from scenes import EXP, SERSIC, STAR

from tract7dt.fit import EngineOptions, fit_native
from tract7dt.fit.early import telling_bands
from tract7dt.fit.evaluate import Evaluator
from tract7dt.fit.parameters import build_layout, build_parameters
from tract7dt.fit.scene import Scene

EVERYTHING = EngineOptions(hold_halo=False)
ROWS = [
    (STAR, 30.0, 30.0, 1, 0, 0, 1, 6000.0),
    (EXP, 34.5, 62.3, 2.5, 0.4, 30, 1, 12000.0),
    (EXP, 41.0, 64.0, 2.0, 0.3, 70, 1, 9000.0),  # of the halo, in the light of the one before
    (SERSIC, 47.0, 60.0, 3.0, 0.5, 75, 1.6, 9000.0),  # of the halo, in the light of the one before
    (STAR, 110.0, 40.0, 1, 0, 0, 1, 8000.0),  # of the halo, far off
    (EXP, 120.4, 85.2, 2.5, 0.4, 30, 1, 12000.0),  # of the halo, far off
]
FAR = [4, 5]


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(3)
    truth = scenes.few_sources(4, *ROWS)
    start = scenes.scattered_start(truth, 4, rng, 0.5)
    problem = scenes.make_problem(truth, scenes.make_bands(4, rng, gain=30.0), 110, 150, rng, start)
    owned = np.arange(len(ROWS)) < 2
    return replace(problem, sources=replace(problem.sources, owned=owned)), truth


def test_halo_sources_that_do_not_matter_are_held(scene):
    problem, truth = scene
    fit = fit_native(problem, PatchRun())
    assert ["halo_held" in issues for issues in fit.issues[0]] == [False] * 4 + [True] * 2
    assert np.isnan(fit.x_err[0, FAR]).all()
    assert np.isfinite(fit.x_err[0, :4]).all()
    # what is held has been near its maximum already, and its flux is fitted
    assert np.all(np.abs(fit.flux - truth.flux)[:, FAR] < 5 * fit.flux_err[:, FAR])
    np.testing.assert_allclose(fit.x[0, FAR], truth.x[FAR], atol=0.1)
    assert fit.status == "converged"


def test_the_patchs_own_sources_do_not_notice(scene):
    problem, _ = scene
    held, whole = fit_native(problem, PatchRun()), fit_native(problem, PatchRun(), EVERYTHING)
    assert not any("halo_held" in issues for issues in whole.issues[0])
    own = slice(0, 2)
    np.testing.assert_allclose(held.flux_err[:, own], whole.flux_err[:, own], rtol=5e-3)
    assert np.all(np.abs(held.flux - whole.flux)[:, own] < 0.03 * whole.flux_err[:, own])
    for name in ("x", "y"):
        off = np.abs(getattr(held, name) - getattr(whole, name))[0, own]
        assert np.all(off < 0.03 * getattr(whole, f"{name}_err")[0, own])


def test_nothing_is_held_in_a_patch_of_own_sources_or_without_stages(scene):
    problem, _ = scene
    for owned in (True, False):
        sources = replace(problem.sources, owned=np.full(len(ROWS), owned))
        fit = fit_native(replace(problem, sources=sources), PatchRun())
        assert not any(fit.issues[0])
    fit = fit_native(problem, PatchRun(enable_staged_fit=False))
    assert not any(fit.issues[0])


def test_a_halo_source_that_shows_in_the_other_bands_alone_is_not_held():
    """What the first stages do not look at counts as it was at the start, in all bands."""
    rng = np.random.default_rng(2)
    bands = scenes.make_bands(6, rng, gain=1e9)
    rows = [
        (STAR, 30.0, 40.0, 1, 0, 0, 1, 1.0),
        (STAR, 60.0, 60.0, 1, 0, 0, 1, 1.0),
        (STAR, 33.5, 40.0, 1, 0, 0, 1, 1.0),
    ]
    truth = scenes.few_sources(6, *rows)
    truth.flux[:] = 300.0 * bands.sky_sigma[:, None]
    truth.flux[4:, :2] *= 0.01  # bands 4 and 5 tell least of the patch's own two
    truth.flux[:4, 2] = 0.0  # and are all in which their neighbour, of the halo, shows
    problem = scenes.make_problem(truth, bands, 90, 90, None)  # no noise that would show it everywhere
    problem = replace(problem, sources=replace(problem.sources, owned=np.array([True, True, False])))
    evaluator, point = evaluator_of(problem, EngineOptions())
    assert not telling_bands(point, evaluator)[4:].any()
    fit = fit_native(problem, PatchRun())
    assert "halo_held" not in fit.issues[0][2]
    assert np.isfinite(fit.x_err[0, 2])


def evaluator_of(problem, options):
    ny, nx = problem.data.shape[1:]
    scene = Scene(problem.data, problem.weight, problem.psf, None)
    parameters = build_parameters(problem.sources, ny, nx, 5.0, options)
    evaluator = Evaluator(scene, parameters, options, problem.sources.flux)
    return evaluator, evaluator.start_stage(build_layout(parameters, False, False), parameters.start)


def test_the_bands_that_tell_most_are_chosen():
    rng = np.random.default_rng(5)
    bands = scenes.make_bands(12, rng, gain=1e9)
    truth = scenes.few_sources(
        12, (EXP, 30.0, 30.0, 2, 0, 0, 1, 500.0), (STAR, 50.0, 40.0, 1, 0, 0, 1, 500.0)
    )
    bright = [2, 3, 7, 8]
    truth.flux[:] = 60.0 * bands.sky_sigma[:, None]
    truth.flux[bright] *= 4
    truth.flux[11, 0] *= 1000  # one bright source does not make a band worth more than its own share
    evaluator, point = evaluator_of(scenes.make_problem(truth, bands, 80, 80, rng), EngineOptions())
    chosen = telling_bands(point, evaluator)
    assert chosen.sum() == 5  # 0.34 of 12
    assert chosen[bright].all()


def test_three_bands_are_few_enough(scene):
    problem, _ = scene
    evaluator, point = evaluator_of(problem, EngineOptions())
    assert telling_bands(point, evaluator).sum() == 3


@pytest.mark.parametrize("seed", [0, 1])
def test_a_source_that_shows_in_the_other_bands_alone_is_found(seed):
    """Not seen in any band of the first stages, it begins the third where the catalogue has it."""
    rng = np.random.default_rng(seed)
    bands = scenes.make_bands(6, rng, gain=1e9)
    truth = scenes.few_sources(
        6,
        (EXP, 25.0, 25.0, 2, 0.2, 0, 1, 1.0),
        (STAR, 45.0, 50.0, 1, 0, 0, 1, 1.0),
        (STAR, 60.0, 20.0, 1, 0, 0, 1, 1.0),
    )
    truth.flux[:] = 200.0 * bands.sky_sigma[:, None]
    truth.flux[4:, :2] *= 0.2  # bands 4 and 5 tell least
    truth.flux[:4, 2] = 0.0
    truth.flux[4:, 2] *= 3
    start = scenes.scattered_start(truth, 6, rng)
    fit = fit_native(scenes.make_problem(truth, bands, 80, 80, rng, start), PatchRun())
    assert fit.converged.all()
    assert np.hypot(fit.x - truth.x, fit.y - truth.y)[0, 2] < 0.1
    assert np.all(np.abs(fit.flux - truth.flux)[:, 2] < 4.5 * fit.flux_err[:, 2])
