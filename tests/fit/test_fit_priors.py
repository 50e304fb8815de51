"""Priors from the error columns of a catalogue: the posterior is prior times likelihood.

The likelihood alone gives a value with its covariance; near its maximum it is Gaussian, and so the fit with a
prior must end at the precision-weighted mean, with the joint precision.
"""

from __future__ import annotations

import numpy as np
import pytest
import scenes
from fit_payloads import catalogue_of, payload_of, settings_of
from scenes import EXP, SERSIC, STAR

from tract7dt.fit import fit_patch
from tract7dt.fit.options import EngineOptions
from tract7dt.fit.parameters import build_parameters
from tract7dt.fit_patch import patch_problem

ROWS = [
    (EXP, 30.3, 31.2, 3.0, 0.4, 25, 1, 6000.0),
    (STAR, 62.2, 60.6, 1, 0, 0, 1, 2500.0),
    (SERSIC, 63.3, 25.8, 3.0, 0.35, -65, 1.8, 9000.0),
]
GALAXY, STAR_ROW = 0, 1
TIGHT, LOOSE = 0.02, 50.0


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(12)
    bands = scenes.make_bands(2, rng, stamp=45, spread=0.0)
    truth = scenes.few_sources(2, *ROWS)
    return scenes.make_problem(truth, bands, 92, 92, rng), truth


def fitted(scene, **columns):
    """Fit from a catalogue whose values and errors are given by ``columns``; the truth where they say nothing."""
    problem, truth = scene
    payload = payload_of(problem, **(catalogue_of(truth, problem.bands) | columns))
    settings = settings_of()
    posed, _ = patch_problem(settings, payload)
    return fit_patch(posed, settings.patch_run)


@pytest.fixture(scope="module")
def likelihood(scene):
    return fitted(scene)


def only(value, row, n=3):
    """A column with a value in one row, NaN in the others."""
    column = np.full(n, np.nan)
    column[row] = value
    return column


def shifted(values, row, by):
    values = np.array(values, float)
    values[row] += by
    return values


def product(mean, error, prior, width):
    """Mean and error of the product of two Gaussians."""
    a, b = error**-2.0, width**-2.0
    return (a * mean + b * prior) / (a + b), (a + b) ** -0.5


@pytest.mark.parametrize("relative", [TIGHT, 0.5, 1.0, 2.0, LOOSE])
def test_flux_error(scene, likelihood, relative):
    _, truth = scene
    error = likelihood.flux_err[1, GALAXY]
    wrong = truth.flux[1] + np.array([3 * error, 0, 0])
    fit = fitted(scene, FLUX_b1=wrong, FLUX_b1_ERR=only(relative * error, GALAXY))
    mean, width = product(likelihood.flux[1, GALAXY], error, wrong[GALAXY], relative * error)
    assert fit.flux[1, GALAXY] == pytest.approx(mean, abs=0.1 * width)
    assert fit.flux_err[1, GALAXY] == pytest.approx(width, rel=0.03)
    # the other band, the other sources: no prior of their own
    assert fit.flux[1, STAR_ROW] == pytest.approx(likelihood.flux[1, STAR_ROW], abs=0.1 * error)
    if relative == TIGHT:
        assert abs(fit.flux[1, GALAXY] - wrong[GALAXY]) < 0.01 * error
    if relative == LOOSE:
        assert abs(fit.flux[1, GALAXY] - likelihood.flux[1, GALAXY]) < 0.02 * error


@pytest.mark.parametrize("relative", [TIGHT, 0.5, 1.0, 2.0, LOOSE])
@pytest.mark.parametrize("row", [GALAXY, STAR_ROW])
def test_position_error(scene, likelihood, row, relative):
    """One width for x and y, whose errors are correlated: a product in two dimensions."""
    problem, truth = scene
    place = np.array([likelihood.x[0, row], likelihood.y[0, row]])
    covariance = np.array(
        [
            [likelihood.x_err[0, row] ** 2, likelihood.xy_cov[0, row]],
            [likelihood.xy_cov[0, row], likelihood.y_err[0, row] ** 2],
        ]
    )
    sigma = likelihood.x_err[0, row]
    prior, precision = place + [2.5 * sigma, -2 * sigma], np.eye(2) / (relative * sigma) ** 2
    joint = np.linalg.inv(np.linalg.inv(covariance) + precision)
    mean = joint @ (np.linalg.solve(covariance, place) + precision @ prior)
    payload = payload_of(problem, **catalogue_of(truth, problem.bands))
    payload.table["POS_ERR"] = only(relative * sigma, row)
    payload.table.loc[row, ["x_pix_patch", "y_pix_patch"]] = prior
    settings = settings_of()
    fit = fit_patch(patch_problem(settings, payload)[0], settings.patch_run)
    width = np.sqrt(np.diagonal(joint))
    np.testing.assert_allclose([fit.x[0, row], fit.y[0, row]], mean, atol=0.1 * width.min())
    np.testing.assert_allclose([fit.x_err[0, row], fit.y_err[0, row]], width, rtol=0.05)


@pytest.mark.parametrize("relative", [TIGHT, 0.5, 1.0, 2.0, LOOSE])
def test_radius_error(scene, likelihood, relative):
    """The prior is Gaussian in log re, of width Re_ERR / Re."""
    _, truth = scene
    log_re, error = np.log(likelihood.re[0, GALAXY]), (likelihood.re_err / likelihood.re)[0, GALAXY]
    catalogue = np.exp(log_re + 2 * error)
    width = relative * error
    fit = fitted(
        scene, Re=shifted(truth.re, GALAXY, catalogue - truth.re[0]), Re_ERR=only(width * catalogue, GALAXY)
    )
    mean, joint = product(log_re, error, np.log(catalogue), width)
    assert np.log(fit.re[0, GALAXY]) == pytest.approx(mean, abs=0.1 * joint)
    assert (fit.re_err / fit.re)[0, GALAXY] == pytest.approx(joint, rel=0.05)


def soft(ell, theta):
    """Softened ellipticity as inputs-outputs defines it: e = (1-q)/(1+q), ee = -ln(1-e), at twice the angle."""
    q = 1 - ell
    ee = -np.log(1 - (1 - q) / (1 + q))
    return np.array([ee * np.cos(2 * np.radians(theta)), ee * np.sin(2 * np.radians(theta))])


def soft_jacobian(ell, theta):
    """By differences, not by formula."""
    h = 1e-5
    return np.stack(
        [
            (soft(ell + h, theta) - soft(ell - h, theta)) / (2 * h),
            (soft(ell, theta + h) - soft(ell, theta - h)) / (2 * h),
        ],
        axis=1,
    )


@pytest.mark.parametrize(
    ("ell_width", "theta_width"), [(TIGHT, TIGHT), (1.0, 1.0), (0.5, 3.0), (3.0, 0.5), (LOOSE, LOOSE)]
)
def test_ellipticity_and_angle_error(scene, likelihood, ell_width, theta_width):
    """Independent errors of ELL and THETA become a covariance of the softened ellipticity, by the Jacobian."""
    _, truth = scene
    ell, theta = likelihood.ell[0, GALAXY], likelihood.theta[0, GALAXY]
    errors = np.array([likelihood.ell_err[0, GALAXY], likelihood.theta_err[0, GALAXY]])
    widths = errors * [ell_width, theta_width]
    given = np.array([ell, theta]) + errors * [2.0, -1.5]
    fit = fitted(
        scene,
        ELL=shifted(truth.ell, GALAXY, given[0] - truth.ell[0]),
        THETA=shifted(truth.theta, GALAXY, given[1] - truth.theta[0]),
        ELL_ERR=only(widths[0], GALAXY),
        THETA_ERR=only(widths[1], GALAXY),
    )
    # the likelihood in the softened shape; ELL and THETA of a single galaxy are nearly uncorrelated
    jacobian = soft_jacobian(ell, theta)
    data = jacobian @ np.diag(errors**2) @ jacobian.T
    at_prior = soft_jacobian(*given)
    prior = at_prior @ np.diag(widths**2) @ at_prior.T
    joint = np.linalg.inv(np.linalg.inv(data) + np.linalg.inv(prior))
    mean = joint @ (np.linalg.solve(data, soft(ell, theta)) + np.linalg.solve(prior, soft(*given)))
    back = np.linalg.inv(jacobian)
    found = soft(fit.ell[0, GALAXY], fit.theta[0, GALAXY])
    width = np.sqrt(np.diagonal(back @ joint @ back.T))
    assert np.all(np.abs(back @ (found - mean)) < 0.25 * width)
    np.testing.assert_allclose([fit.ell_err[0, GALAXY], fit.theta_err[0, GALAXY]], width, rtol=0.1)


@pytest.mark.parametrize("column", ["ELL_ERR", "THETA_ERR"])
def test_one_of_the_two_alone_is_no_prior(scene, likelihood, column):
    fit = fitted(scene, **{column: np.full(3, 1e-3)})
    np.testing.assert_allclose(fit.ell[0, [0, 2]], likelihood.ell[0, [0, 2]], atol=1e-4)
    np.testing.assert_allclose(fit.theta[0, [0, 2]], likelihood.theta[0, [0, 2]], atol=0.02)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_an_error_that_is_none_is_no_prior(scene, likelihood, value):
    columns = ("POS_ERR", "Re_ERR", "ELL_ERR", "THETA_ERR", "FLUX_b0_ERR", "FLUX_b1_ERR")
    fit = fitted(scene, **{name: np.full(3, value) for name in columns})
    np.testing.assert_array_equal(fit.flux, likelihood.flux)
    np.testing.assert_array_equal(fit.re, likelihood.re)


def test_errors_without_values_are_no_priors(scene):
    """What the catalogue did not give has no prior, whatever error stands beside it."""
    problem, _ = scene
    errors = {"Re_ERR": 1e-3, "ELL_ERR": 1e-3, "THETA_ERR": 1e-3, "FLUX_b0_ERR": 1e-3}
    payload = payload_of(problem, **{name: np.full(3, value) for name, value in errors.items()})
    sources = patch_problem(settings_of(), payload)[0].sources
    for name in ("re_err", "ell_err", "theta_err", "flux_err"):
        assert np.isinf(getattr(sources, name)).all()


@pytest.mark.parametrize(("ell", "theta"), [(0.02, 10.0), (0.3, -80.0), (0.6, 45.0), (0.85, 89.0)])
def test_prior_covariance_is_that_of_drawn_catalogues(scene, ell, theta):
    """Monte Carlo: catalogue values scattered by their errors have, softened, the covariance of the prior."""
    problem, truth = scene
    widths = (0.01, 2.0) if ell > 0.1 else (0.002, 2.0)
    columns = catalogue_of(truth, problem.bands) | {
        "ELL": np.full(3, ell),
        "THETA": np.full(3, theta),
        "ELL_ERR": np.full(3, widths[0]),
        "THETA_ERR": np.full(3, widths[1]),
    }
    sources = patch_problem(settings_of(), payload_of(problem, **columns))[0].sources
    parameters = build_parameters(sources, 92, 92, 5.0, EngineOptions())
    covariance = np.linalg.inv(parameters.prior_precision[0, 3:5, 3:5])
    rng = np.random.default_rng(0)
    draws = np.array(
        [soft(e, t) for e, t in zip(rng.normal(ell, widths[0], 4000), rng.normal(theta, widths[1], 4000))]
    )
    expected = np.cov(draws.T)
    # the engine counts its angle from +y, which turns the sign of one component
    expected[0, 1] = expected[1, 0] = -expected[0, 1]
    np.testing.assert_allclose(covariance, expected, atol=0.06 * np.trace(expected))
