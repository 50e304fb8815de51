"""Derivatives against differences, maxima from several starts, convergence source by source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scenes
from fit_settings import PatchRun
from scenes import EXP, STAR

from tract7dt.fit import EngineOptions, fit_native, fit_patch
from tract7dt.fit.draw import draw_sources
from tract7dt.fit.evaluate import Evaluator
from tract7dt.fit.linear import solve
from tract7dt.fit.optimise import Optimiser
from tract7dt.fit.parameters import (
    LOG_N,
    add_weak_priors,
    build_layout,
    build_parameters,
    from_steps,
    to_steps,
)
from tract7dt.fit.scene import Scene

NO_PRIORS = EngineOptions(weak_priors=False)


def evaluator_of(problem, flux_prior=False):
    scene = Scene(problem.data, problem.weight, problem.psf, None)
    sources = problem.sources
    if flux_prior:
        sources = replace(
            sources, flux_err=np.full_like(sources.flux_err, 20.0), pos_err=np.full(len(sources), 0.5)
        )
    parameters = build_parameters(sources, scene.ny, scene.nx, 5.0, NO_PRIORS)
    evaluator = Evaluator(scene, parameters, EngineOptions(stamp_threshold=1e-4), sources.flux)
    layout = build_layout(parameters, True, True)
    return evaluator, layout, evaluator.start_stage(layout, parameters.start)


@pytest.mark.parametrize("flux_prior", [False, True])
def test_gradient_and_hessian_of_a_blend(flux_prior):
    rng = np.random.default_rng(2)
    bands = scenes.make_bands(2, rng, stamp=35)
    rows = [
        (1, 30.2, 31.1, 2.5, 0.3, 20, 1, 900.0),
        (3, 35.1, 33.4, 3, 0.4, -50, 1.7, 700.0),
        (0, 27.3, 28.2, 1, 0, 0, 1, 500.0),
    ]
    truth = scenes.few_sources(2, *rows)
    problem = scenes.make_problem(truth, bands, 64, 64, rng, scenes.scattered_start(truth, 2, rng, 0.5))
    evaluator, layout, point = evaluator_of(problem, flux_prior)
    exact = np.ones(3, bool)
    gradient, hessian = evaluator.derivatives(point, exact)
    _, gauss_newton = evaluator.derivatives(point, ~exact)
    assert np.all(np.linalg.eigvalsh(gauss_newton) > 0)
    h = 3e-3
    for t, (s, k) in enumerate(zip(layout.owner, layout.column)):
        sides = []
        for sign in (1, -1):
            coordinates = to_steps(point.theta)
            coordinates[s, k] += sign * h
            theta = from_steps(coordinates)
            changed = np.arange(3) == s
            trial = evaluator.evaluate(theta, changed)
            sides.append((trial.lnp, evaluator.derivatives(trial, exact)[0]))
        slope = (sides[0][0] - sides[1][0]) / (2 * h)
        assert gradient[t] == pytest.approx(slope, abs=0.02 * np.sqrt(hessian.max()) + 0.3)
        column = -(sides[0][1] - sides[1][1]) / (2 * h)
        scale = np.sqrt(np.abs(gauss_newton[t, t] * np.diagonal(gauss_newton)))
        np.testing.assert_allclose(hessian[t] / scale, column / scale, atol=0.03)


def test_solve_goes_uphill_whatever_the_matrix():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a = rng.normal(size=(6, 6))
        gradient = rng.normal(size=6)
        free = rng.uniform(size=6) < 0.8
        step = solve(a + a.T, gradient, free, np.full(6, 1e-6))
        assert step[~free].tolist() == [0] * int((~free).sum())
        assert step @ gradient >= 0
    a = rng.normal(size=(6, 9))
    positive = a @ a.T
    np.testing.assert_allclose(
        solve(positive, gradient, np.ones(6, bool), np.zeros(6)), np.linalg.solve(positive, gradient)
    )


@pytest.mark.parametrize(
    "name",
    [
        "two_galaxies_1pix",
        "two_stars_1pix",
        "star_as_galaxy",
        "masked",
        "edge",
        "large",
        "two_pix_off",
        "bright",
    ],
)
def test_hard_cases_reach_the_best_known_maximum(name):
    problem, truth = scenes.hard_cases()[name]
    n_bands = len(problem.bands)
    near = scenes.no_priors(truth, n_bands)
    if name == "star_as_galaxy":
        near = replace(near, kind=problem.sources.kind, re=np.full(2, 0.5))
    starts = [problem.sources, near, replace(problem.sources, flux=2 * problem.sources.flux)]
    lnp = [
        fit_native(
            replace(problem, sources=start), PatchRun(enable_staged_fit=staged, n_opt_iters=60), NO_PRIORS
        ).lnp[0]
        for start in starts
        for staged in (True, False)
    ]
    assert max(lnp) - min(lnp) < 1


def test_a_search_that_begins_elsewhere_keeps_priors_and_bounds():
    """It comes to the same maximum; what it is given outside of the position box counts as the box's edge."""
    problem, truth = scenes.random_problem(6, 3, 90, 4, snr=40.0, blended=0.0)
    near = replace(scenes.no_priors(truth, 3), kind=problem.sources.kind)
    given = fit_native(problem, PatchRun())
    other = fit_native(problem, PatchRun(), begin=near)
    assert other.lnp[0] == pytest.approx(given.lnp[0], abs=0.1)
    assert other.stages[0]["lnp"] != given.stages[0]["lnp"]
    far = replace(problem.sources, x=problem.sources.x + 30.0)
    boxed = fit_native(problem, PatchRun(pos_max_shift_pix=1.5, n_opt_iters=1), begin=far)
    assert (np.abs(boxed.x[0] - problem.sources.x) <= 1.5 + 1e-9).all()


def test_stages_reach_the_maximum_of_the_joint_fit():
    problem, _ = scenes.random_problem(10, 3, 110, 4, snr=25.0, blended=0.2)
    staged = fit_native(problem, PatchRun(), NO_PRIORS)
    joint = fit_native(problem, PatchRun(enable_staged_fit=False), NO_PRIORS)
    assert [stage["name"] for stage in staged.stages] == ["positions_held", "positions_only", "all"]
    assert [stage["name"] for stage in joint.stages] == ["all"]
    assert staged.lnp[0] == pytest.approx(joint.lnp[0], abs=0.1)
    assert all(stage["niter"] <= 20 for stage in staged.stages)
    np.testing.assert_allclose((staged.flux - joint.flux) / joint.flux_err, 0, atol=0.1)


def test_stages_do_what_they_say(monkeypatch):
    from tract7dt.fit import early, stages

    seen = []

    class Watched(stages.Optimiser):
        def maximise(self, *args, **how):
            before = self.point.theta.copy()
            out = super().maximise(*args, **how)
            seen.append(np.any(out.point.theta != before, axis=0))
            return out

    monkeypatch.setattr(stages, "Optimiser", Watched)
    monkeypatch.setattr(early, "Optimiser", Watched)
    problem, _ = scenes.random_problem(8, 2, 90, 4)
    fit_patch(problem, PatchRun())
    held, alone, everything = seen
    assert not held[:2].any()
    assert held[2:].all()
    assert alone[:2].all()
    assert not alone[2:].any()
    assert everything.all()


def test_iterations_are_limited_and_outcomes_belong_to_sources():
    rows = [(STAR, 20.0, 22.0, 1, 0, 0, 1, 900.0), (EXP, 70.3, 70.2, 6.0, 0.5, 20, 1, 6000.0)]
    rng = np.random.default_rng(5)
    bands = scenes.make_bands(2, rng, stamp=35)
    truth = scenes.few_sources(2, *rows)
    start = scenes.no_priors(truth, 2, re=np.array([1.0, 1.0]), ell=np.zeros(2), x=truth.x + [0.0, 3.0])
    problem = scenes.make_problem(truth, bands, 96, 96, rng, start)
    fit = fit_patch(problem, PatchRun(enable_staged_fit=False, n_opt_iters=2))
    assert fit.status == "max_iters"
    assert fit.converged.tolist() == [[True, False]]
    assert fit.hit_max_iters.tolist() == [[False, True]]
    assert fit.niter.max() == 2
    enough = fit_patch(problem, PatchRun(enable_staged_fit=False))
    assert enough.status == "converged"
    assert enough.converged.all()
    assert not enough.hit_max_iters.any()
    assert enough.niter[0, 0] < enough.niter[0, 1]
    assert np.all(enough.last_dlnp >= -1e-2)


def test_a_patch_is_converged_when_all_its_sources_are():
    """Even if the iterations ran out before the sum over all of them fell below the tolerance of one."""
    problem, _ = scenes.random_problem(40, 1, 160, 3, snr=30.0, shares=(0.3, 0.4, 0.3, 0.0))
    ran_out = []
    for limit in range(3, 9):
        fit = fit_patch(problem, PatchRun(enable_staged_fit=False, n_opt_iters=limit))
        assert (fit.status == "converged") == fit.converged.all()
        assert fit.stages[-1]["converged"] == fit.converged.all()
        ran_out.append(fit.stages[-1]["niter"] == limit)
    assert fit.status == "converged"
    assert sum(ran_out) >= 4


def test_an_unsettled_neighbour_does_not_mark_a_settled_source():
    rows = [(STAR, 22.0, 48.0, 1, 0, 0, 1, 900.0), (EXP, 48.0, 50.0, 4.0, 0.5, 20, 1, 6000.0)]
    rng = np.random.default_rng(5)
    bands = scenes.make_bands(3, rng, stamp=35)
    truth = scenes.few_sources(3, *rows)
    start = scenes.no_priors(truth, 3, re=np.array([1.0, 2.0]))
    start = replace(start, pos_err=np.array([0.01, np.inf]))  # the star knows where it is
    problem = scenes.make_problem(truth, bands, 96, 96, rng, start)
    fit = fit_patch(problem, PatchRun(enable_staged_fit=False, n_opt_iters=2))
    assert fit.hit_max_iters.tolist() == [[False, True]]


def test_looser_tolerance_stops_earlier():
    problem, _ = scenes.random_problem(8, 3, 90, 9)
    tight = fit_patch(problem, PatchRun(enable_staged_fit=False))
    loose = fit_patch(problem, PatchRun(enable_staged_fit=False, dlnp_stop=1.0))
    assert loose.stages[0]["niter"] < tight.stages[0]["niter"]
    assert tight.lnp[0] - 10 < loose.lnp[0] <= tight.lnp[0] + 0.02
    assert loose.converged.all()


def test_weak_priors_only_for_faint_sources():
    problem, _ = scenes.random_problem(6, 2, 90, 1)
    parameters = build_parameters(problem.sources, 90, 90, 5.0, EngineOptions())
    assert not parameters.prior_precision.any()
    assert not parameters.weak_precision.any()
    widest = parameters.upper[:, 2].copy()
    snr = np.array([5.0, 50.0, 5.0, 50.0, 5.0, 50.0])
    faint = add_weak_priors(parameters, snr, EngineOptions())
    galaxy = parameters.kind != STAR
    precision = parameters.weak_precision
    assert faint.tolist() == (snr < 40).tolist()
    np.testing.assert_array_equal(precision[:, 0], np.where(faint, 1.0, 0.0))
    np.testing.assert_array_equal(precision[:, 1], precision[:, 0])
    assert (precision[:, 2] > 0).tolist() == (faint & galaxy).tolist()
    assert (precision[:, LOG_N] > 0).tolist() == (faint & (parameters.kind == 3)).tolist()
    assert np.all(parameters.upper[faint & galaxy, 2] < widest[faint & galaxy])
    assert np.all(parameters.upper[~faint | ~galaxy, 2] == widest[~faint | ~galaxy])
    assert not add_weak_priors(parameters, snr, NO_PRIORS).any()


def test_priors_and_their_derivatives_in_the_coordinates_of_steps():
    problem, _ = scenes.random_problem(8, 2, 90, 1)
    parameters = build_parameters(problem.sources, 90, 90, 5.0, EngineOptions())
    rng = np.random.default_rng(4)
    root = rng.normal(size=(8, 6, 6))
    parameters.prior_precision = np.einsum("sij,skj->sik", root, root)
    parameters.weak_precision = rng.uniform(0, 3, (8, 6))
    theta = parameters.start + rng.normal(size=(8, 6)) * 0.3
    np.testing.assert_allclose(from_steps(to_steps(theta)), theta, atol=1e-12)
    gradient, precision = parameters.prior_derivatives(theta)
    assert np.all(np.linalg.eigvalsh(precision) > 0)
    h = 1e-6
    for k in range(6):
        sides = []
        for sign in (1, -1):
            moved = to_steps(theta)
            moved[:, k] += sign * h
            sides.append(parameters.log_prior(from_steps(moved)))
        np.testing.assert_allclose(gradient[:, k], (sides[0] - sides[1]) / (2 * h), rtol=1e-6, atol=1e-6)


def test_a_round_galaxy_does_not_creep():
    """At fixed re the models have a cone at zero ellipticity, around which a fit goes to and fro."""
    rng = np.random.default_rng(11)
    rows = [(kind, 48.0, 48.0, 3.0, 0.02, 30.0, 1.5, 1500.0) for kind in (1, 2, 3)]
    for row in rows:
        truth = scenes.few_sources(3, row)
        start = scenes.scattered_start(truth, 3, rng, 0.3)
        problem = scenes.make_problem(truth, scenes.make_bands(3, rng, stamp=35), 96, 96, rng, start)
        for options in (EngineOptions(), NO_PRIORS):
            fit = fit_native(problem, PatchRun(enable_staged_fit=False), options)
            assert fit.converged.all()
            assert fit.stages[0]["niter"] <= 10


def test_a_source_that_has_still_to_move_marks_only_itself():
    rows = [(STAR, 22.0, 48.0, 1, 0, 0, 1, 900.0), (STAR, 48.0, 50.0, 1, 0, 0, 1, 900.0)]
    rng = np.random.default_rng(5)
    truth = scenes.few_sources(2, *rows)
    problem = scenes.make_problem(
        truth, scenes.make_bands(2, rng, stamp=35), 96, 96, rng, scenes.no_priors(truth, 2)
    )
    evaluator, layout, point = evaluator_of(problem)
    optimiser = Optimiser(evaluator, layout, point.theta)
    assert layout.owner.tolist() == [0, 0, 1, 1]
    hessian = np.eye(4) * 100.0
    hessian[0, 2] = hessian[2, 0] = 60.0
    gradient = np.array([0.0, 0.0, 20.0, 0.0])  # the second is far from its maximum, the first is at its own
    joint = solve(hessian, gradient, np.ones(4, bool), np.zeros(4))
    assert abs(joint[0]) > 0.1  # and would be pushed about by the second
    own, expected = optimiser._prospects(gradient, hessian, np.ones(4, bool), 1e-3)
    assert own[0] == expected[0] == 0
    assert own[1] == expected[1] == pytest.approx(2.0, rel=1e-3)
    # two sources that together have a long way to go down a valley are not done, though each alone is
    valley = np.eye(4) * 100.0
    valley[0, 2] = valley[2, 0] = 99.99
    push = np.array([0.4, 0.0, -0.4, 0.0])
    own, expected = optimiser._prospects(push, valley, np.ones(4, bool), 1e-3)
    assert np.all(own < 1e-3)
    assert np.all(expected > 0.05)


def test_growing_sources_keep_their_neighbours_images():
    problem, _ = scenes.random_problem(10, 2, 110, 4)
    parameters = build_parameters(problem.sources, 110, 110, 5.0, NO_PRIORS)
    scene = Scene(problem.data, problem.weight, problem.psf, None)
    evaluator = Evaluator(scene, parameters, EngineOptions(), problem.sources.flux)
    layout = build_layout(parameters, True, True)
    point = evaluator.start_stage(layout, parameters.start)
    before = [evaluator.images(point, b, s).copy() for b in range(2) for s in range(10)]
    wide = int(np.flatnonzero(parameters.kind != STAR)[0])
    theta = parameters.start.copy()
    theta[wide, 2] += 1.0
    trial = evaluator.evaluate(theta, np.arange(10) == wide)
    assert trial.stamps.size[wide] > point.stamps.size[wide]
    assert evaluator.outdated_stamps().tolist() == (np.arange(10) == wide).tolist()
    after = [evaluator.images(point, b, s) for b in range(2) for s in range(10)]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    fresh = Evaluator(scene, parameters, EngineOptions(), problem.sources.flux)
    fresh.places.prepare(theta, parameters.start, np.arange(10) == wide)
    fresh.places.size[:], fresh.places.radius[:] = trial.stamps.size, evaluator.places.radius
    assert fresh.start_stage(layout, theta).lnp == pytest.approx(trial.lnp, abs=1e-2)


def test_radius_is_bounded_by_the_patch():
    problem, _ = scenes.random_problem(6, 2, 90, 1)
    parameters = build_parameters(problem.sources, 90, 200, None, EngineOptions())
    galaxy = parameters.kind != STAR
    np.testing.assert_allclose(np.exp(parameters.upper[galaxy, 2]), 100)
    np.testing.assert_allclose(np.exp(parameters.lower[galaxy, 2]), 0.05)  # mean radius of a needle of 0.1
    assert np.isinf(parameters.upper[:, :2]).all()
    large = replace(problem.sources, re=np.full(6, 700.0))
    np.testing.assert_allclose(
        np.exp(build_parameters(large, 90, 200, None, EngineOptions()).upper[galaxy, 2]), 1000
    )


def test_images_that_a_refused_trial_has_overdrawn_are_drawn_again():
    """By the next trial, for sources that it leaves where they are; the maximum has those of its own point."""
    problem, _ = scenes.random_problem(10, 2, 110, 4)
    evaluator, layout, point = evaluator_of(problem)
    before = [evaluator.images(point, b, s).copy() for b in range(2) for s in range(evaluator.n)]
    moved = np.arange(evaluator.n) < 4
    theta = point.theta.copy()
    theta[moved, :2] += 0.3
    evaluator.evaluate(theta, moved)
    assert evaluator.overdrawn().tolist() == moved.tolist()
    theta = point.theta.copy()
    theta[0, :2] += 0.1
    trial = evaluator.evaluate(theta, np.arange(evaluator.n) == 0)
    after = [evaluator.images(point, b, s) for b in range(2) for s in range(1, evaluator.n)]
    kept = [image for i, image in enumerate(before) if i % evaluator.n]
    for one, other in zip(kept, after, strict=True):
        np.testing.assert_array_equal(one, other)
    fresh, _, _ = evaluator_of(problem)
    assert trial.lnp == fresh.evaluate(theta, np.arange(evaluator.n) == 0).lnp
    evaluator.accept(trial)
    assert evaluator.overdrawn() is None
    found = Optimiser(evaluator, layout, theta).maximise(50, 1e-3, 3e-4, settle=True)
    assert evaluator.overdrawn() is None
    assert found.status == "converged"


def test_a_stage_that_ends_with_a_refused_trial_has_the_images_of_its_maximum(monkeypatch):
    problem, _ = scenes.random_problem(10, 2, 110, 4)
    evaluator, layout, point = evaluator_of(problem)
    optimiser = Optimiser(evaluator, layout, point.theta)
    evaluate = evaluator.evaluate

    def refused(*arguments, compare=False, **options):
        trial = evaluate(*arguments, compare=compare, **options)
        if compare:
            trial.gain = -1e9
        return trial

    monkeypatch.setattr(evaluator, "evaluate", refused)
    found = optimiser.maximise(3, 1e-3, 3e-4)
    assert found.iterations == 0
    np.testing.assert_array_equal(found.point.theta, point.theta)
    stamps = found.point.stamps
    for b in range(2):
        for s in range(evaluator.n):
            fresh = np.zeros_like(evaluator.places.buffer[b : b + 1])
            draw_sources(
                found.point.theta, evaluator.parameters.kind, layout.pos, layout.shape, evaluator.parameters.held,
                np.arange(evaluator.n) == s, evaluator.live[b : b + 1], stamps._replace(psf=stamps.psf[b : b + 1]),
                evaluator.tables, evaluator.scene.sqrt_w[b : b + 1], fresh, np.zeros((1, evaluator.n)),
                np.zeros(evaluator.n, np.int64),
            )  # fmt: skip
            image = evaluator.images(found.point, b, s)
            start = int(stamps.offset[s])
            np.testing.assert_array_equal(image.ravel(), fresh[0, start : start + image.size])
