"""Defects 1 to 9 of the pipeline before, in its fit: each a test here, by its number.

1 one ill-conditioned galaxy freezes its patch; 2 a stall counts as converged; 3 with FLUX columns the output is
nearly the input; 4 one NaN pixel fails its patch; 5 a galaxy within 1 pix of the frame's edge fails its patch;
6 failed patches leave exit code 0 (tested in test_regression_steps, on a run of its own); 7 errors without photon
noise and covariance; 8 sources across a patch border and excluded saturated stars are not modelled; 9 galaxy
positions are frozen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import galsim
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from regression_runs import PICTURES, Run, execute, merged, write_config

from tract7dt.fit import fit_patch
from tract7dt.types import ModelKind, ModelSources, PatchProblem

STAR, EXP, DEV, SERSIC = ModelKind
FWHM, SIGMA = 3.4, 1.0
PSF = galsim.Convolve(galsim.Moffat(beta=3.5, fwhm=FWHM), galsim.Pixel(1.0))


@dataclass(frozen=True)
class PatchRun:
    engine: str = "native"
    n_opt_iters: int = 20
    dlnp_stop: float = 1e-12
    pos_max_shift_pix: float | None = 5.0
    enable_staged_fit: bool = True
    enable_multi_band_simultaneous_fitting: bool = True
    flag_maxiter_margin: int = 0
    eps_flux: float = 1e-4


Row = tuple[int, float, float, float, float, float, float]  # kind, x, y, re, ell, theta, flux


def unit_image(row: Row, size: int) -> np.ndarray:
    """Unit-flux image of a source; an EXP galaxy for every galaxy."""
    kind, x, y, re, ell, theta, _ = row
    drawn = PSF
    if kind != STAR:
        galaxy = galsim.Exponential(half_light_radius=re * np.sqrt(1 - ell), flux=1.0)
        drawn = galsim.Convolve(galaxy.shear(q=1 - ell, beta=theta * galsim.degrees), PSF)
    image = galsim.ImageD(size, size, xmin=0, ymin=0)
    drawn.drawImage(image, scale=1.0, method="no_pixel", center=galsim.PositionD(x, y))
    return np.asarray(image.array)


def scene(*rows: Row, size: int = 80, seed: int = 1, gain: float = 1e9, **start: Any) -> PatchProblem:
    """One band with noise, started at the truth or at what ``start`` says."""
    rng = np.random.default_rng(seed)
    light = np.sum([row[6] * unit_image(row, size) for row in rows], axis=0)
    noise = rng.normal(size=light.shape) * np.sqrt(SIGMA**2 + light / gain)
    stamp = PSF.drawImage(nx=45, ny=45, scale=1.0, method="no_pixel", dtype=np.float64).array
    n = len(rows)
    kind, x, y, re, ell, theta, flux = (np.array(column, float) for column in zip(*rows, strict=True))
    free = np.full(n, np.inf)
    values = {"x": x, "y": y, "re": re, "ell": ell, "theta": theta, "flux": flux[None]} | start
    sources = ModelSources(
        kind=kind.astype(np.int64),
        **values,
        sersic_n=np.full(n, 1.0),
        pos_err=free,
        re_err=free,
        ell_err=free,
        theta_err=free,
        flux_err=np.full((1, n), np.inf),
        owned=np.ones(n, bool),
    )
    data = (light + noise)[None].astype(np.float32)
    one = np.ones(1)
    return PatchProblem(
        "peers",
        ("b",),
        data,
        np.ones_like(data) / SIGMA**2,
        SIGMA * one,
        gain * one,
        (stamp / stamp.sum(),),
        None,
        sources,
    )


# --- 1 to 5, 7, 9: the fit itself ------------------------------------------------------------------------

ORDINARY: tuple[Row, ...] = (
    (STAR, 20.3, 22.4, 1, 0, 0, 3000.0),
    (EXP, 55.2, 24.6, 2.5, 0.4, 30, 9000.0),
    (EXP, 24.7, 58.1, 3.0, 0.3, -60, 9000.0),
)
# a needle that is a star, one that is the sky, one of next to no flux: what makes normal matrices singular
ILL: dict[str, dict[str, float]] = {
    "needle": {"kind": EXP, "re": 8.0, "ell": 0.95, "flux": 60.0},
    "point": {"kind": SERSIC, "re": 0.1, "ell": 0.0, "flux": 800.0},
    "sky": {"kind": SERSIC, "re": 30.0, "ell": 0.1, "flux": 300.0},
    "nothing": {"kind": DEV, "re": 3.0, "ell": 0.3, "flux": 1e-4},
}


@pytest.mark.parametrize("name", list(ILL))
def test_1_one_ill_conditioned_galaxy_does_not_hold_the_others(name: str) -> None:
    ill = ILL[name]
    rows = (*ORDINARY, (STAR, 60.0, 60.0, 1, 0, 0, 800.0 if name == "point" else 0.0))
    problem = scene(*rows)
    bad = np.arange(4) == 3
    start = {
        "kind": np.where(bad, ill["kind"], problem.sources.kind).astype(np.int64),
        "re": np.where(bad, ill["re"], 1.4 * problem.sources.re),
        "ell": np.where(bad, ill["ell"], 0.1),
        "flux": np.where(bad, ill["flux"], 0.7 * problem.sources.flux),
        "x": problem.sources.x + np.where(bad, 0.0, 0.6),
        "y": problem.sources.y - np.where(bad, 0.0, 0.5),
    }
    fit = fit_patch(replace(problem, sources=replace(problem.sources, **start)), PatchRun())
    assert fit.converged[0, :3].all()
    assert not fit.hit_max_iters[0, :3].any()
    assert fit.bound[0][:3] == ("", "", "")
    truth = problem.sources
    assert np.all(np.abs(fit.flux - truth.flux)[0, :3] < 4 * fit.flux_err[0, :3])
    assert np.all(np.hypot(fit.x - truth.x, fit.y - truth.y)[0, :3] < 0.12)
    assert np.all(np.abs(fit.re[0, 1:3] - truth.re[1:3]) < 4 * fit.re_err[0, 1:3])


@pytest.mark.parametrize("iterations", [1, 2, 3, 20])
@pytest.mark.parametrize("staged", [True, False])
def test_2_converged_means_that_nothing_is_left_to_gain(iterations: int, staged: bool) -> None:
    """However few the iterations: sources that say converged are at the maximum, the others say why not."""
    problem = scene(*ORDINARY)
    off = replace(problem.sources, x=problem.sources.x + 1.5, re=0.5 * problem.sources.re, ell=np.zeros(3))
    problem = replace(problem, sources=off)
    best = fit_patch(problem, PatchRun(n_opt_iters=60))
    assert best.converged.all()
    fit = fit_patch(problem, PatchRun(n_opt_iters=iterations, enable_staged_fit=staged))
    done = fit.converged[0]
    for name in ("x", "y"):
        off = np.abs(getattr(fit, name) - getattr(best, name))[0] / getattr(best, f"{name}_err")[0]
        assert np.all(off[done] < 0.2)
    # the sky, and so the flux of a settled star, still has to follow its unsettled neighbours
    off = np.abs(fit.flux - best.flux)[0] / best.flux_err[0]
    assert np.all(off[done] < (0.1 if done.all() else 0.5))
    assert np.all(fit.converged[0] | fit.hit_max_iters[0] | fit.stalled[0])
    assert not np.any(fit.converged & (fit.hit_max_iters | fit.stalled))
    assert fit.lnp[0] <= best.lnp[0] + 0.01
    if fit.converged.all():
        assert fit.lnp[0] > best.lnp[0] - 0.1
        assert fit.status == "converged"
    if iterations == 1:
        assert not fit.converged[0, 1:].any()
        assert fit.status == "max_iters"
    if iterations == 20:
        assert fit.converged.all()


@pytest.mark.parametrize("factor", [0.3, 0.7, 1.5, 3.0])
def test_3_a_flux_of_the_catalogue_is_a_start_and_not_the_answer(factor: float) -> None:
    problem = scene(*ORDINARY)
    truth = problem.sources.flux
    right = fit_patch(problem, PatchRun())
    fit = fit_patch(replace(problem, sources=replace(problem.sources, flux=factor * truth)), PatchRun())
    assert np.all(np.abs(fit.flux - truth) < 4 * fit.flux_err)
    np.testing.assert_allclose((fit.flux - right.flux) / right.flux_err, 0, atol=0.05)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_4_one_pixel_that_is_no_number_costs_one_pixel(value: float) -> None:
    problem = scene(*ORDINARY)
    whole = fit_patch(problem, PatchRun())
    data = problem.data.copy()
    data[0, 24, 55] = value  # the heart of a galaxy
    fit = fit_patch(replace(problem, data=data), PatchRun())
    assert fit.converged.all()
    assert np.isfinite(fit.flux).all()
    assert np.isfinite(fit.flux_err).all()
    np.testing.assert_allclose((fit.flux - whole.flux) / whole.flux_err, 0, atol=1.0)
    np.testing.assert_allclose(((fit.flux - whole.flux) / whole.flux_err)[0, [0, 2]], 0, atol=0.05)
    assert fit.frac_masked[0, 1] > fit.frac_masked[0, 2]


@pytest.mark.parametrize("offset", [-0.9, -0.49, 0.0, 0.3, 0.9])
@pytest.mark.parametrize("side", ["left", "right", "bottom", "top"])
def test_5_a_galaxy_at_the_edge_is_fitted(offset: float, side: str) -> None:
    """Within 1 pix of the edge, on either side of it: half of its light is there, and is enough."""
    place = offset if side in ("left", "bottom") else 79 - offset
    x, y = (place, 40.3) if side in ("left", "right") else (40.3, place)
    problem = scene((EXP, x, y, 2.5, 0.4, 30, 9000.0), (STAR, 50.3, 49.6, 1, 0, 0, 3000.0))
    fit = fit_patch(problem, PatchRun())
    assert fit.status == "converged"
    assert fit.issues == (("", ""),)
    assert np.isfinite(fit.x_err).all()
    assert np.all(np.abs(fit.flux - problem.sources.flux) < 4 * fit.flux_err)
    assert np.hypot(fit.x[0, 0] - x, fit.y[0, 0] - y) < 5 * np.hypot(fit.x_err[0, 0], fit.y_err[0, 0])
    assert fit.frac_masked[0, 0] > 0.25


def test_7_errors_hold_photon_noise() -> None:
    """A bright star: sky noise and its own photons, under weights of the sky, from plain sums over its profile."""
    row = (STAR, 40.3, 39.6, 1, 0, 0, 2e5)
    fit = fit_patch(scene(row, gain=2.0), PatchRun())
    profile = unit_image(row, 80)
    power = np.sum(profile**2)
    photons = np.sum(profile**3) * row[6] / 2.0
    expected = np.sqrt(SIGMA**2 / power + photons / power**2)
    assert fit.flux_err[0, 0] == pytest.approx(expected, rel=0.02)
    assert fit.flux_err[0, 0] > 20 * SIGMA / np.sqrt(power)  # what sky noise alone would say


@pytest.mark.parametrize("distance", [2.0, 3.0, 5.0])
def test_7_errors_of_a_blend_hold_the_covariance(distance: float) -> None:
    """Two stars: the error from the normal matrix of fluxes, places and sky, by differences of GalSim images."""
    rows: list[Row] = [
        (STAR, 40.0, 40.0, 1, 0, 0, 3000.0),
        (STAR, 40.0 + distance, 40.0, 1, 0, 0, 3000.0),
    ]
    fit = fit_patch(scene(*rows), PatchRun())
    columns = [np.ones((80, 80))]
    for row in rows:
        columns.append(unit_image(row, 80))
        for dx, dy in ((0.02, 0), (0, 0.02)):
            ahead, behind = (
                unit_image((row[0], row[1] + s * dx, row[2] + s * dy, *row[3:]), 80) for s in (1, -1)
            )
            columns.append(row[6] * (ahead - behind) / 0.04)
    design = np.array([column.ravel() for column in columns]).T / SIGMA
    sigma = np.sqrt(np.diagonal(np.linalg.inv(design.T @ design)))
    np.testing.assert_allclose(fit.flux_err[0], sigma[[1, 4]], rtol=0.06)
    np.testing.assert_allclose(fit.x_err[0], sigma[[2, 5]], rtol=0.06)
    conditional = SIGMA / np.sqrt(np.sum(unit_image(rows[0], 80) ** 2))
    assert fit.flux_err[0, 0] / conditional > {2.0: 2.5, 3.0: 1.4, 5.0: 1.03}[distance]


@pytest.mark.parametrize(("kind", "start"), [(EXP, EXP), (EXP, SERSIC), (EXP, DEV), (STAR, STAR)])
@pytest.mark.parametrize(("dx", "dy"), [(0.5, 0.0), (0.0, -0.5), (-1.5, 1.5)])
def test_9_positions_of_galaxies_move(kind: int, start: int, dx: float, dy: float) -> None:
    """Back to the truth from half a pixel and from two, with errors as GalSim's derivatives say."""
    row: Row = (kind, 40.3, 39.6, 2.5, 0.3, 30, 12000.0)
    problem = scene(row)
    sources = replace(
        problem.sources, kind=np.array([start], np.int64), x=np.array([40.3 + dx]), y=np.array([39.6 + dy])
    )
    fit = fit_patch(replace(problem, sources=sources), PatchRun())
    assert fit.converged.all()
    assert np.hypot(fit.x[0, 0] - 40.3, fit.y[0, 0] - 39.6) < 0.05
    slope = (
        row[6]
        * (unit_image((row[0], 40.32, *row[2:]), 80) - unit_image((row[0], 40.28, *row[2:]), 80))
        / 0.04
    )
    assert fit.x_err[0, 0] == pytest.approx(SIGMA / np.sqrt(np.sum(slope**2)), rel=0.15)


# --- 8: a whole run on a frame of two by two patches -------------------------------------------------------

SIZE, BORDER, BRIGHT = 240, 120, 3.0
BANDS = ("m400", "m450")
#: Pairs across the patch border at x = 120 (and one across y = 120): distance, flux of the far one.
PAIRS = [(60.0, 4.0, 1.0), (100.0, 6.0, BRIGHT), (150.0, 6.0, BRIGHT), (190.0, 4.0, 1.0)]
FLUX = 8000.0
SATURATED = (60.0, 180.0, 3e6)


def stars() -> pd.DataFrame:
    """The near star of each pair is in the left patch and the far one in the right; then single ones."""
    rows = []
    for i, (y, distance, ratio) in enumerate(PAIRS):
        rows.append((f"near{i}", BORDER - 0.5 - distance / 2, y, FLUX))
        rows.append((f"far{i}", BORDER - 0.5 + distance / 2, y, ratio * FLUX))
    rows += [("above", 60.0, BORDER - 0.5 + 2, FLUX), ("below", 60.0, BORDER - 0.5 - 2, FLUX)]
    rows += [("satellite", SATURATED[0] + 14, SATURATED[1] + 3, FLUX), ("saturated", *SATURATED)]
    rows += [("alone", 180.0, 40.0, FLUX), ("alone too", 40.0, 40.0, FLUX)]
    return pd.DataFrame(rows, columns=["ID", "x", "y", "flux"])


def frame_wcs() -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = [150.0, 20.0], [120.5, 120.5]
    wcs.wcs.cd = np.array([[-0.5, 0], [0, 0.5]]) / 3600
    return wcs


@pytest.fixture(scope="module")
def bordered(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Stars whose PSF is the fallback Moffat profile, sampled as the pipeline samples it."""
    folder = tmp_path_factory.mktemp("peers")
    table, wcs = stars(), frame_wcs()
    moffat = galsim.Moffat(beta=3.5, fwhm=FWHM)
    names = []
    for number, band in enumerate(BANDS):
        rng = np.random.default_rng(number)
        image = galsim.ImageD(SIZE, SIZE, xmin=0, ymin=0)
        for row in table.itertuples():
            moffat.withFlux(row.flux).drawImage(
                image,
                scale=1.0,
                method="no_pixel",
                center=galsim.PositionD(row.x, row.y),
                add_to_image=True,
            )
        data = image.array + rng.normal(0, 3.0, image.array.shape)
        saturation = 20000.0
        header = wcs.to_header()
        header.update({"FILTER": band, "ZP_AUTO": 25.0, "SKYSIG": 3.0, "EGAIN": 1e6, "PEEING": FWHM})
        header["SATURATE"] = saturation
        path = folder / f"{band}.fits"
        fits.writeto(path, np.minimum(data, 1.5 * saturation).astype(np.float32), header)
        names.append(path.name)
    (folder / "images.txt").write_text("\n".join(names) + "\n")
    ra, dec = wcs.all_pix2world(table["x"], table["y"], 0)
    pd.DataFrame({"ID": table["ID"], "RA": ra, "DEC": dec, "TYPE": "STAR"}).to_csv(
        folder / "catalogue.csv", index=False
    )
    given = {
        "inputs": {
            "tile_name": "PEERS",
            "input_catalog": "catalogue.csv",
            "image_list_file": "images.txt",
            "gaiaxp_synphot_csv": None,
        },
        "outputs": {"work_dir": "work"},
        "zp": {"enabled": False},
        "crop": {"enabled": False},
        "bright_mask": {"enabled": False},
        "source_saturation_cut": {"radius_pix": 6.0},
        "epsf": {"epsf_ngrid": 1, "ngrid": 2},
        "moffat_psf": {"beta": 3.5},
        "patch_run": {"min_epsf_nstars_for_use": 1000},
        "image_scaling": {"zp_ref": 25.0},
    }
    return execute(write_config(folder / "config.yaml", merged(given, PICTURES)))


def test_8_stars_across_a_patch_border_are_modelled(bordered: Run) -> None:
    """An equal star 4 pix away, one three times as bright 6 pix away: both keep their flux and their place."""
    table, truth = bordered.table.set_index("ID"), stars().set_index("ID")
    border = [name for name in truth.index if name.startswith(("near", "far", "above", "below"))]
    patches = table.loc[border, "patch_tag"]
    for i in range(len(PAIRS)):
        assert patches[f"near{i}"] != patches[f"far{i}"]
    assert patches["above"] != patches["below"]
    for band in BANDS:
        flux = table.loc[border, f"FLUX_{band}_fit"] / truth.loc[border, "flux"]
        pull = (flux - 1) * truth.loc[border, "flux"] / table.loc[border, f"FLUXERR_{band}_fit"]
        assert np.all(np.abs(flux - 1) < 0.02)
        assert np.all(np.abs(pull) < 4.5)
    off = np.hypot(
        table.loc[border, "x_pix_white_fit"] - truth.loc[border, "x"],
        table.loc[border, "y_pix_white_fit"] - truth.loc[border, "y"],
    )
    assert np.all(off < 0.1)
    assert table.loc[border, "opt_converged"].all()


def test_8_an_excluded_saturated_star_is_modelled(bordered: Run) -> None:
    """Its wings shine on a star 14 pix away, whose flux comes out right."""
    table = bordered.table.set_index("ID")
    assert table.loc["saturated", "excluded_saturation"]
    assert not table.loc["satellite", "excluded_any"]
    for band in BANDS:
        found = table.loc["satellite", f"FLUX_{band}_fit"]
        assert found == pytest.approx(FLUX, rel=0.01)
        assert np.isnan(table.loc["saturated", f"FLUX_{band}_fit"])
    # what the wings would have added: their level there times the effective area of the PSF
    wing = galsim.Moffat(beta=3.5, fwhm=FWHM, flux=SATURATED[2]).xValue(14, 3)
    profile = galsim.Moffat(beta=3.5, fwhm=FWHM).drawImage(nx=45, ny=45, scale=1.0, method="no_pixel").array
    assert wing / np.sum(profile**2) > 0.04 * FLUX
