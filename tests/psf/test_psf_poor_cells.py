"""Cells with few stars, none, saturated ones or a trail: a usable PSF, its origin on record, a fit that works."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import psf_scenes as scenes
import pytest

from tract7dt.fit import fit_native
from tract7dt.psf import build_band, choose_psfs, psf_at
from tract7dt.psf.quality import stamp_shape
from tract7dt.settings import EpsfSettings, MoffatPsfSettings, PatchRunSettings
from tract7dt.types import ModelKind, ModelSources, PatchProblem

SHAPE = (420, 840)
CELLS = [(0, 0), (0, 1), (1, 0), (1, 1)]
FREE = np.array([np.inf])


def band_of(image, ngrid=2, **options):
    field = scenes.make_field(image, **options)
    cells = [(row, col) for row in range(ngrid) for col in range(ngrid)]
    return field, build_band(field, "m500", cells, None, EpsfSettings(epsf_ngrid=ngrid))


def chosen(epsf, fwhm):
    payload = SimpleNamespace(bands=("m500",), psfs=(epsf,), fwhm_pix=np.array([fwhm]))
    settings = SimpleNamespace(patch_run=PatchRunSettings(), moffat_psf=MoffatPsfSettings())
    return choose_psfs(payload, settings)


def fitted_flux(psf, flux=3e4):
    """Flux of one star, drawn with the true PSF, as the engine fits it with ``psf``."""
    rng = np.random.default_rng(3)
    image = scenes.draw_stars((81, 81), [40.3], [39.8], [flux])
    data = rng.poisson(image * 4) / 4 + rng.normal(0, 1, image.shape)
    one = np.array([0.0])
    sources = ModelSources(
        kind=np.array([ModelKind.STAR], np.int64),
        x=np.array([40.0]),
        y=np.array([40.0]),
        re=one + 1,
        ell=one,
        theta=one,
        sersic_n=one + 1,
        flux=np.array([[0.9 * flux]]),
        pos_err=FREE,
        re_err=FREE,
        ell_err=FREE,
        theta_err=FREE,
        flux_err=FREE[None],
        owned=np.array([True]),
    )
    problem = PatchProblem(
        "p",
        ("m500",),
        data[None].astype(np.float32),
        np.ones((1, 81, 81), np.float32),
        np.ones(1),
        np.array([4.0]),
        psf,
        None,
        sources,
    )
    fit = fit_native(problem, PatchRunSettings())
    assert fit.converged.all()
    return float(fit.flux[0, 0]) / flux


def test_three_stars():
    x, y = scenes.grid_positions((420, 420), seed=6)
    image = scenes.draw_stars((420, 420), x[[2, 5, 9]], y[[2, 5, 9]], [2e4, 3e4, 5e4])
    _, built = band_of(image, ngrid=1)
    epsf = built.grid.cells["r00_c00"]
    psf, _, audit = chosen(epsf, 3.0)
    assert (audit.kinds, audit.n_stars, audit.reasons) == (("epsf",), (3,), {})
    assert fitted_flux(psf) == pytest.approx(1, abs=0.01)


def test_three_stars_in_each_of_four_cells():
    """The stars of a cell are too few to tell how the PSF varies, those of the band tell that it does not."""
    places = [(90, 80), (120, 330), (330, 190)]
    x, y = np.array([(a + 420 * i, b + 420 * j) for i in (0, 1) for j in (0, 1) for a, b in places], float).T
    flux = np.tile([1e4, 2e4, 4e4], 4)
    _, built = band_of(scenes.draw_stars((840, 840), x + 0.3, y - 0.2, flux))
    for record in built.meta.values():
        assert (record.status, record.n_used) == ("built", 3)
    for tag, place in (("r00_c00", (60.0, 60.0)), ("r01_c01", (800.0, 430.0))):
        psf, _, audit = chosen(psf_at(built.grid, tag, *place), 3.0)
        assert audit.kinds == ("epsf",)
        assert fitted_flux(psf) == pytest.approx(1, abs=0.01)


def test_no_star_borrows_and_the_audit_says_so():
    x, y = scenes.grid_positions((420, 420), seed=6)
    _, built = band_of(scenes.draw_stars(SHAPE, x, y, np.full(len(x), 2e4)))
    psf, _, audit = chosen(built.grid.cells["r01_c01"], 3.0)
    assert audit.kinds == ("borrowed",)
    assert built.meta["r01_c01"].status == "borrowed"
    assert fitted_flux(psf) == pytest.approx(1, abs=0.01)


def test_one_star_borrows_too():
    x, y = scenes.grid_positions((420, 420), seed=6)
    x, y = np.append(x, 700.0), np.append(y, 100.0)
    _, built = band_of(scenes.draw_stars(SHAPE, x, y, np.full(len(x), 2e4)))
    lent = built.grid.cells["r00_c01"]
    assert lent.kind == "borrowed"
    assert lent.quality["n_own_stars"] == 1
    assert "1 own stars, fewer than 2" in built.meta["r00_c01"].reason


@pytest.mark.parametrize("header", [3.4, None], ids=["header", "no header"])
def test_only_saturated_stars(header):
    """The width of the analytic PSF is the header's, else that of the saturated stars' wings."""
    x, y = scenes.grid_positions((420, 420), seed=6)
    image = scenes.draw_stars((420, 420), x, y, np.full(len(x), 3e4))
    _, built = band_of(image, ngrid=1, saturation=500.0, fwhm=header)
    record = built.meta["r00_c00"]
    assert record.status == "absent"
    assert "saturated" in record.reason
    assert all(c.reason == "saturated" for c in record.candidates)
    psf, _, audit = chosen(built.grid.cells.get("r00_c00"), np.nan if header is None else header)
    assert audit.kinds == ("moffat",)
    assert audit.low_star_bands == ()
    reason = audit.reasons["m500"]
    assert reason.startswith("no ePSF in this cell")
    assert ("from the stars that there are" in reason) == (header is None)
    width = stamp_shape(psf[0])["fwhm_pix"]
    assert width == pytest.approx(3.4 if header else scenes.FWHM, rel=0.03 if header else 0.15)
    assert fitted_flux(psf) == pytest.approx(1, abs=0.25)


def test_an_empty_field_has_the_default_width():
    _, built = band_of(np.zeros((300, 300)), ngrid=1, fwhm=None)
    assert built.grid.cells == {}
    psf, _, audit = chosen(None, np.nan)
    assert audit.reasons["m500"] == "no ePSF in this cell; no FWHM in the header, default 4 pix"
    assert stamp_shape(psf[0])["fwhm_pix"] == pytest.approx(4.0, rel=0.03)


def test_a_lone_star_gives_its_width():
    image = scenes.draw_stars((300, 300), [150.2], [148.7], [5e4])
    _, built = band_of(image, ngrid=1, fwhm=None)
    epsf = built.grid.cells["r00_c00"]
    assert (epsf.kind, epsf.n_stars) == ("epsf", 1)
    psf, _, audit = chosen(epsf, np.nan)
    assert audit.kinds == ("moffat",)
    assert audit.low_star_bands == ("m500",)
    assert "from the stars that there are" in audit.reasons["m500"]
    assert stamp_shape(psf[0])["fwhm_pix"] == pytest.approx(scenes.FWHM, rel=0.04)


def test_a_trail_across():
    x, y = scenes.grid_positions((420, 420), seed=6)
    yy, xx = np.mgrid[:420, :420]
    image = scenes.draw_stars((420, 420), x, y, np.full(len(x), 3e4))
    image += 12 * np.exp(-0.5 * ((xx - 0.7 * yy - 60) / 2.2) ** 2)
    _, built = band_of(image, ngrid=1)
    record = built.meta["r00_c00"]
    assert record.status == "built"
    on_trail = [c for c in record.candidates if abs(c.x - 0.7 * c.y - 60) < 5]
    assert not any(c.used for c in on_trail)
    psf, _, audit = chosen(built.grid.cells["r00_c00"], 3.0)
    assert audit.kinds == ("epsf",)
    assert fitted_flux(psf) == pytest.approx(1, abs=0.01)
