"""CHI2, FRACMASKED, FRACFLUX, SKY and all errors against plain sums over GalSim's own images.

The twins draw every source anew with GalSim at the fitted parameters, and take derivatives by differences of such
drawings: nothing of the engine is in them but its answer.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scenes
from fit_settings import PatchRun
from scenes import EXP, SERSIC, STAR

from tract7dt.fit import EngineOptions, fit_native

SIZE = 72
ROWS = [
    (STAR, 20.3, 24.6, 1, 0, 0, 1, 4000.0),
    (EXP, 45.4, 40.2, 3.0, 0.4, 25, 1, 9000.0),
    (SERSIC, 51.8, 45.6, 2.5, 0.3, -50, 1.8, 7000.0),
    (EXP, 2.2, 60.0, 2.5, 0.3, 70, 1, 5000.0),
]
SHARED = {STAR: ("x", "y"), EXP: ("x", "y", "re", "ell", "theta")}
SHARED[SERSIC] = (*SHARED[EXP], "sersic_n")
STEP = {"x": 0.02, "y": 0.02, "re": 0.02, "ell": 0.005, "theta": 0.5, "sersic_n": 0.02}
# The weak priors of the engine would be part of the posterior, and are not part of the twin.
OPTIONS = EngineOptions(weak_priors=False)


@pytest.fixture(scope="module")
def bands():
    return scenes.make_bands(2, np.random.default_rng(4), stamp=51, gain=5.0)


def posed(bands, noise):
    """Blend, edge, masked columns and pixels with their weights varying over the patch by a factor of four."""
    rng = np.random.default_rng(9)
    truth = scenes.few_sources(2, *ROWS)
    problem = scenes.make_problem(truth, bands, SIZE, SIZE, rng)
    weight = problem.weight.copy()
    weight[:, :, 23:26] = 0  # through the star
    weight[1, 38:42, 36:60] = 0  # through the blend, in one band
    if noise == "uneven":
        weight *= np.linspace(0.5, 2.0, SIZE, dtype=np.float32)
    return replace(problem, weight=weight)


@pytest.fixture(scope="module", params=["sky", "uneven"])
def case(request, bands):
    problem = posed(bands, request.param)
    return problem, fit_native(problem, PatchRun(n_opt_iters=60), OPTIONS)


def drawn(bands, fit, s, **changes):
    """Unit-flux images of one source in all bands at the fitted parameters, (nband, ny, nx)."""
    row = {name: fit_value(fit, name, s) for name in ("x", "y", "re", "ell", "theta", "sersic_n")} | changes
    truth = scenes.few_sources(
        len(bands), (fit.kind[s], *(row[k] for k in ("x", "y", "re", "ell", "theta", "sersic_n")), 1.0)
    )
    truth.flux[:] = 1.0
    return np.array([scenes.draw(truth, bands, b, SIZE, SIZE) for b in range(len(bands))])


def fit_value(fit, name, s):
    value = float(getattr(fit, name)[0, s])
    return value if np.isfinite(value) else 1.0


@pytest.fixture(scope="module")
def twin(case, bands):
    """Profiles, residuals and true variance, all from GalSim."""
    problem, fit = case
    profiles = np.stack([drawn(bands, fit, s) for s in range(len(fit))])
    light = np.einsum("sbyx,bs->byx", profiles, fit.flux)
    residual = problem.data - light - fit.sky[:, None, None]
    variance = bands.sky_sigma[:, None, None] ** 2 + np.maximum(light, 0) / bands.gain[:, None, None]
    # where weights say that the noise is larger, it is
    variance = np.maximum(
        variance, 1 / np.maximum(problem.weight, 1e-30), where=problem.weight > 0, out=variance
    )
    return profiles, light, residual, variance


def test_the_fit_is_settled(case):
    assert case[1].status == "converged"


def test_chi_square(case, twin):
    problem, fit = case
    profiles, _, residual, variance = twin
    for s in range(len(fit)):
        for b in range(2):
            w = problem.weight[b].astype(float)
            t = np.where(w > 0, np.maximum(profiles[s, b], 0), 0)
            parameters = 1 + len(SHARED[fit.kind[s]]) / 2
            taken = parameters * w * t**2 / np.sum(w * t**2)
            expected = np.sum(t * residual[b] ** 2 / variance[b], where=w > 0) / np.sum(t * (1 - taken))
            assert fit.chi2[b, s] == pytest.approx(expected, rel=0.02)


def test_masked_share(case, twin):
    problem, fit = case
    profiles = twin[0]
    for s in range(len(fit)):
        for b in range(2):
            expected = 1 - np.sum(profiles[s, b], where=problem.weight[b] > 0)
            assert fit.frac_masked[b, s] == pytest.approx(expected, abs=0.005)
    assert fit.frac_masked[0, 0] > 0.1
    assert fit.frac_masked[0, 3] > 0.1  # off the patch
    assert fit.frac_masked[1, 1] > fit.frac_masked[0, 1] + 0.1


def test_neighbours_share(case, twin):
    problem, fit = case
    profiles, light, _, _ = twin
    for s in range(len(fit)):
        for b in range(2):
            used = problem.weight[b] > 0
            t = np.where(used, np.maximum(profiles[s, b], 0), 0)
            mine = fit.flux[b, s] * profiles[s, b]
            others = np.sum(t * np.maximum(light[b] - mine, 0))
            assert fit.frac_flux[b, s] == pytest.approx(others / (others + np.sum(t * mine)), abs=0.01)
    assert fit.frac_flux[0, 1:3].min() > 0.1
    assert fit.frac_flux[0, 0] < 0.02


def test_sky_is_the_weighted_mean_of_what_is_left(case, twin):
    problem, fit = case
    light = twin[1]
    for b in range(2):
        w = problem.weight[b].astype(float)
        left = np.where(w > 0, problem.data[b] - light[b], 0)
        assert fit.sky[b] == pytest.approx(np.sum(w * left) / np.sum(w), abs=0.2 * fit.sky_err[b])


@pytest.fixture(scope="module")
def covariance(case, twin, bands):
    """Sandwich over all parameters (fluxes, skies, positions, shapes, indices) of dense matrices."""
    problem, fit = case
    profiles, _, _, variance = twin
    used = problem.weight.ravel() > 0
    names, columns = [], []
    for s in range(len(fit)):
        for b in range(2):
            column = np.zeros_like(profiles[s])
            column[b] = profiles[s, b]
            names.append(("flux", b, s))
            columns.append(column.ravel()[used])
        for name in SHARED[fit.kind[s]]:
            value, h = fit_value(fit, name, s), STEP[name]
            ahead, behind = (drawn(bands, fit, s, **{name: value + d}) for d in (h, -h))
            slope = (ahead - behind) / (2 * h) * fit.flux[:, s, None, None]
            names.append((name, 0, s))
            columns.append(slope.ravel()[used])
    for b in range(2):
        column = np.zeros_like(problem.data, dtype=float)
        column[b] = 1
        names.append(("sky", b, 0))
        columns.append(column.ravel()[used])
    jacobian = np.array(columns).T
    weight = problem.weight.ravel()[used].astype(float)
    bread = np.linalg.inv(jacobian.T @ (weight[:, None] * jacobian))
    filling = jacobian.T @ ((weight**2 * variance.ravel()[used])[:, None] * jacobian)
    return names, bread @ filling @ bread


def test_every_error_is_the_marginal_one_of_the_sandwich(case, covariance):
    """Flux, position, shape, index and sky, blends included, with photon noise under weights that lack it."""
    _, fit = case
    names, matrix = covariance
    sigma = np.sqrt(np.diagonal(matrix))
    for (name, b, s), expected in zip(names, sigma, strict=True):
        found = fit.sky_err[b] if name == "sky" else getattr(fit, f"{name}_err")[b, s]
        assert found == pytest.approx(expected, rel=0.03), (name, b, s)
    for s in range(len(fit)):
        i, j = names.index(("x", 0, s)), names.index(("y", 0, s))
        assert fit.xy_cov[0, s] == pytest.approx(matrix[i, j], abs=0.03 * sigma[i] * sigma[j])


def test_conditional_errors_would_be_too_small(case, twin):
    """In the blend, 1 / sqrt(sum w T**2), what The Tractor reports, is well below the marginal error."""
    problem, fit = case
    profiles = twin[0]
    conditional = np.sum(problem.weight * profiles**2, axis=(2, 3)).T ** -0.5
    assert np.all(fit.flux_err[:, 1:3] > 1.3 * conditional[:, 1:3])
