from __future__ import annotations

from types import SimpleNamespace

import galsim
import numpy as np
import pandas as pd
import pytest
import sep
from hypothesis import given
from hypothesis import strategies as st

from tract7dt.sources.start import model_sources
from tract7dt.types import Box, ModelKind, Patch, PatchPayload

ROI = Box(100, 180, 200, 260)


def run_of(**changes) -> SimpleNamespace:
    default = {
        "gal_model": "exp",
        "r_ap": 5.0,
        "eps_flux": 1e-4,
        "re_fallback_pix": 3.0,
        "sersic_n_init": 3.0,
    }
    return SimpleNamespace(**default | changes)


def payload_of(n=1, data=None, bad=None, bands=("g", "r"), **columns) -> PatchPayload:
    shape = (len(bands), *ROI.shape)
    data = np.zeros(shape, np.float32) if data is None else data
    table = pd.DataFrame({"ID": [str(k) for k in range(n)]})
    defaults = {"x_pix_patch": np.linspace(20, 60, n), "y_pix_patch": 30.0, "_is_halo_source": False}
    table = table.assign(**(defaults | columns))
    one = np.ones(len(bands))
    return PatchPayload(
        patch=Patch(0, 0, 0, 0, Box(110, 170, 210, 250), ROI, 10),
        bands=bands,
        data=data,
        bad=np.zeros(shape, np.uint8) if bad is None else bad,
        sky_sigma=2.0 * one,
        gain=one,
        scale=one,
        fwhm_pix=3 * one,
        psfs=(None,) * len(bands),
        table=table,
    )


def test_types_in_any_case_and_the_model_of_unknown_ones():
    text = ["STAR", "exp", "Dev", "sErSiC", "GAL", "", " star ", "QSO", "nan"]
    got = model_sources(payload_of(9, TYPE=text), run_of(gal_model="dev")).kind
    names = [ModelKind(k).name for k in got]
    assert names == ["STAR", "EXP", "DEV", "SERSIC", "DEV", "DEV", "STAR", "DEV", "DEV"]
    assert got.dtype == np.int64
    for model in ("exp", "sersic", "star"):
        assert ModelKind(model_sources(payload_of(), run_of(gal_model=model)).kind[0]).name.lower() == model


def test_shapes_where_the_catalogue_has_none():
    got = model_sources(payload_of(), run_of(re_fallback_pix=4.5, sersic_n_init=2.5))
    assert (got.ell[0], got.theta[0], got.re[0], got.sersic_n[0]) == (pytest.approx(0.2), 0.0, 4.5, 2.5)
    blank = model_sources(payload_of(ELL=np.nan, THETA=np.nan, Re=np.nan, SERSIC_n=np.nan), run_of())
    assert (blank.ell[0], blank.theta[0], blank.re[0], blank.sersic_n[0]) == (
        pytest.approx(0.2),
        0.0,
        3.0,
        3.0,
    )
    for name in ("pos_err", "re_err", "ell_err", "theta_err", "flux_err"):
        assert np.isinf(getattr(got, name)).all()


def test_shapes_of_the_catalogue_are_clipped_and_folded():
    n = 7
    got = model_sources(
        payload_of(
            n,
            ELL=[0.3, 0.95, -0.4, 1.5, 0.0, 0.9, 0.5],
            THETA=[30.0, 90.0, -90.0, 135.0, 271.0, -450.0, 1e-12],
            Re=[0.1, 0.3, 5.0, 250.0, -1.0, 100.0, np.inf],
            SERSIC_n=[0.5, 4.0, 0.1, 9.0, -1.0, 0.0, np.inf],
        ),
        run_of(),
    )
    np.testing.assert_allclose(got.ell, [0.3, 0.9, 0.0, 0.9, 0.0, 0.9, 0.5])
    np.testing.assert_allclose(got.theta, [30.0, 90.0, 90.0, -45.0, -89.0, 90.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(got.re, [0.3, 0.3, 5.0, 100.0, 0.3, 100.0, 3.0])
    np.testing.assert_allclose(got.sersic_n, [0.5, 4.0, 0.3, 6.0, 3.0, 3.0, 3.0])


@given(st.floats(-1e4, 1e4))
def test_folding_keeps_the_direction_of_the_axis(theta):
    got = model_sources(payload_of(THETA=theta), run_of()).theta[0]
    assert -90 < got <= 90
    assert np.cos(2 * np.radians(got - theta)) == pytest.approx(1, abs=1e-9)


def test_the_angle_is_that_of_sextractor():
    """A galaxy rendered by GalSim at a known angle, measured by sep: its theta is our THETA."""
    for angle in (-60.0, 20.0, 75.0):
        galaxy = galsim.Gaussian(sigma=5, flux=1e5).shear(q=0.5, beta=angle * galsim.degrees)
        image = galaxy.drawImage(nx=81, ny=81, scale=1, method="no_pixel").array
        found = sep.extract(image.astype(np.float32), 1.0)[0]
        got = model_sources(
            payload_of(THETA=np.degrees(found["theta"]), ELL=1 - found["b"] / found["a"]), run_of()
        )
        assert got.theta[0] == pytest.approx(angle, abs=0.5)
        assert got.ell[0] == pytest.approx(0.5, abs=0.01)


def stars(flux=(1000.0, 250.0)):
    data = np.zeros((2, *ROI.shape), np.float32)
    for number, value in enumerate(flux):
        image = galsim.ImageF(data[number], xmin=0, ymin=0)
        for x in (20.0, 60.0):
            galsim.Gaussian(fwhm=2.5, flux=value).drawImage(image, center=(x, 30.0), add_to_image=True)
    return data


def test_flux_of_the_catalogue_goes_before_the_aperture():
    payload = payload_of(2, stars(), FLUX_g=[5.0, 0.0], FLUX_r=[np.nan, -3.0])
    got = model_sources(payload, run_of()).flux
    assert got.shape == (2, 2)
    np.testing.assert_allclose(got, [[5.0, 1000.0], [250.0, 250.0]], rtol=2e-3)


def test_the_start_flux_is_never_below_eps_nor_unreadable():
    data, bad = stars((-1000.0, 250.0)), np.zeros((2, *ROI.shape), np.uint8)
    data[1, 20:41, 10:31] = np.nan  # the first source lies on NaN, the mask does not say so
    bad[1, :, 40:] = 4  # the second is masked
    got = model_sources(payload_of(2, data, bad), run_of(eps_flux=0.25)).flux
    np.testing.assert_array_equal(got, 0.25)
    off = model_sources(payload_of(1, data, bad, x_pix_patch=-40.0), run_of(eps_flux=0.0)).flux
    np.testing.assert_array_equal(off, 0.0)


def test_big_endian_pixels_as_they_come_from_fits():
    got = model_sources(payload_of(2, stars().astype(">f4")), run_of()).flux
    np.testing.assert_allclose(got[0], 1000.0, rtol=2e-3)


def test_priors_only_for_values_of_the_catalogue_with_a_usable_error():
    n = 6
    got = model_sources(
        payload_of(
            n,
            POS_ERR=[0.1, 0.0, -1.0, np.nan, np.inf, 2.0],
            FLUX_g=[10.0, 10.0, np.nan, 0.0, 10.0, 10.0],
            FLUX_g_ERR=[1.0, 0.0, 1.0, 1.0, np.nan, 3.0],
            FLUX_r=10.0,
            Re=[2.0, np.nan, 2.0, 2.0, 200.0, -2.0],
            Re_ERR=[0.5, 0.5, 0.0, np.nan, 0.5, 0.5],
            ELL=[0.3, 0.3, np.nan, 0.3, 0.3, 0.3],
            ELL_ERR=[0.1, 0.1, 0.1, 0.1, np.nan, 0.1],
            THETA=[5.0, 5.0, 5.0, np.nan, 5.0, 5.0],
            THETA_ERR=[4.0, 0.0, 4.0, 4.0, 4.0, 4.0],
        ),
        run_of(),
    )
    inf = np.inf
    assert got.pos_err.tolist() == [0.1, inf, inf, inf, inf, 2.0]
    assert got.flux_err[0].tolist() == [1.0, inf, inf, inf, inf, 3.0]
    assert np.isinf(got.flux_err[1]).all()  # no column of errors
    assert got.re_err.tolist() == [0.5, inf, inf, inf, 0.5, inf]
    assert got.ell_err.tolist() == [0.1, inf, inf, inf, inf, 0.1]
    assert got.theta_err.tolist() == [4.0, inf, inf, inf, inf, 4.0]


def test_neighbours_that_are_not_fitted_here_are_held():
    """Base, halo, then outside and saturated: each with a flux of the catalogue, then of an aperture."""
    nan = np.nan
    payload = payload_of(
        6,
        stars(),
        halo_kind=["", "halo", "outside", "outside", "saturated", "saturated"],
        _is_halo_source=[False, True, True, True, True, True],
        TYPE=["", "EXP", "EXP", "STAR", "", "DEV"],
        POS_ERR=[nan, nan, 0.02, nan, 5.0, nan],
        Re=4.0,
        FLUX_g=[10.0, 10.0, 500.0, nan, 500.0, nan],
        _flux_start_g=[nan, nan, 500.0, 300.0, 500.0, 800.0],
        _flux_start_r=[nan, nan, 200.0, -20.0, nan, 900.0],
    )
    got = model_sources(payload, run_of())
    assert got.owned.tolist() == [True, False, False, False, False, False]
    assert [ModelKind(k).name for k in got.kind] == ["EXP", "EXP", "EXP", "STAR", "STAR", "DEV"]
    assert got.pos_err.tolist() == [np.inf, np.inf, 0.02, 0.1, 0.3, 0.3]
    np.testing.assert_allclose(got.flux[0, 2:], [500.0, 300.0, 500.0, 800.0])
    np.testing.assert_allclose(got.flux[1, [2, 3, 5]], [200.0, 1e-4, 900.0])
    noise = 2.0 * np.sqrt(np.pi) * 5.0
    np.testing.assert_allclose(got.flux_err[0], [np.inf, np.inf, 100.0, np.hypot(60, noise), 100.0, np.inf])
    # below zero: held at nothing within the noise; an aperture on a clipped star is a lower limit, no prior
    np.testing.assert_allclose(
        got.flux_err[1], [np.inf, np.inf, np.hypot(40, noise), np.hypot(4, noise), *[np.inf] * 2]
    )
    assert got.re_err.tolist() == [np.inf, np.inf, 0.8, 0.8, np.inf, np.inf]
    assert got.ell_err.tolist() == [np.inf, np.inf, 0.1, 0.1, np.inf, np.inf]
    assert got.theta_err.tolist() == [np.inf, np.inf, 15.0, 15.0, np.inf, np.inf]


def test_an_outside_source_without_any_flux_is_free():
    """Off the frame, known in one band only: nothing is known of the other."""
    payload = payload_of(
        1, halo_kind="outside", _is_halo_source=True, x_pix_patch=-9.0, FLUX_g=500.0, FLUX_r=np.nan,
        _flux_start_g=500.0, _flux_start_r=np.nan,
    )  # fmt: skip
    got = model_sources(payload, run_of())
    assert got.flux[:, 0].tolist() == [500.0, 1e-4]
    assert got.flux_err[:, 0].tolist() == [100.0, np.inf]


def test_no_source_at_all():
    got = model_sources(payload_of(0), run_of())
    assert len(got) == 0
    assert got.flux.shape == got.flux_err.shape == (2, 0)


def test_every_array_has_the_type_that_the_engine_is_promised():
    got = model_sources(payload_of(3, TYPE="DEV"), run_of())
    for name in ("x", "y", "re", "ell", "theta", "sersic_n", "pos_err", "re_err", "ell_err", "theta_err"):
        array = getattr(got, name)
        assert array.dtype == np.float64
        assert array.shape == (3,)
    assert got.flux.shape == got.flux_err.shape == (2, 3)
    assert got.owned.dtype == bool
