from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from psf_scenes import true_stamp

from tract7dt.psf import choose_psf, choose_psfs
from tract7dt.psf.quality import stamp_shape
from tract7dt.settings import MoffatPsfSettings, PatchRunSettings
from tract7dt.types import Epsf

MOFFAT = MoffatPsfSettings()


def epsf(n_stars=10, kind="epsf"):
    stamp = true_stamp(55)
    return Epsf((stamp / stamp.sum()).astype(np.float32), n_stars, kind, {})


def test_the_epsf_is_used_as_it_is():
    chosen = choose_psf(epsf(), np.nan, PatchRunSettings(), MOFFAT)
    assert (chosen.kind, chosen.reason, chosen.stamp_extended) == ("epsf", None, None)
    assert chosen.stamp.dtype == np.float64
    assert chosen.stamp.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(chosen.stamp, epsf().stamp, rtol=1e-5)
    assert choose_psf(epsf(kind="borrowed"), 3.0, PatchRunSettings(), MOFFAT).kind == "borrowed"


@pytest.mark.parametrize("model", ["moffat", "gaussian_mixture", "ncircular_gaussian"])
def test_fallback_models(model):
    run = PatchRunSettings(psf_fallback_model=model, ncircular_gaussian_n=1)
    chosen = choose_psf(None, 3.7, run, MOFFAT)
    assert chosen.kind == model
    assert "no ePSF" in chosen.reason
    assert chosen.stamp.shape == (51, 51)
    assert chosen.stamp.sum() == pytest.approx(1, abs=1e-12)
    assert stamp_shape(chosen.stamp)["fwhm_pix"] == pytest.approx(3.7, rel=0.03)


def test_gate_and_default_width():
    run = PatchRunSettings(min_epsf_nstars_for_use=5)
    chosen = choose_psf(epsf(n_stars=4), 3.0, run, MOFFAT)
    assert chosen.kind == "moffat"
    assert "4 stars, fewer than 5" in chosen.reason
    assert choose_psf(epsf(n_stars=5), 3.0, run, MOFFAT).kind == "epsf"
    unknown = choose_psf(None, np.nan, PatchRunSettings(fallback_default_fwhm_pix=4.4), MOFFAT)
    assert "default 4.4 pix" in unknown.reason
    assert stamp_shape(unknown.stamp)["fwhm_pix"] == pytest.approx(4.4, rel=0.03)


def test_hybrid_and_mixture():
    hybrid = choose_psf(epsf(), 3.0, PatchRunSettings(psf_model="hybrid"), MOFFAT)
    assert hybrid.stamp_extended is not None
    np.testing.assert_allclose(hybrid.stamp, epsf().stamp, rtol=1e-5)
    assert np.abs(hybrid.stamp_extended - hybrid.stamp).max() < 0.03 * hybrid.stamp.max()
    mixture = choose_psf(epsf(), 3.0, PatchRunSettings(psf_model="gaussian_mixture_from_stamp"), MOFFAT)
    assert mixture.stamp_extended is None
    assert 0 < np.abs(mixture.stamp - hybrid.stamp).max() < 0.03 * hybrid.stamp.max()


def test_audit_of_a_patch():
    payload = SimpleNamespace(
        bands=("a", "b", "c"), psfs=(epsf(20), epsf(1), None), fwhm_pix=np.array([3.0, 3.1, np.nan])
    )
    run = PatchRunSettings(psf_model="hybrid")
    psf, extended, audit = choose_psfs(payload, SimpleNamespace(patch_run=run, moffat_psf=MOFFAT))
    assert len(psf) == len(extended) == 3
    assert audit.kinds == ("epsf", "moffat", "moffat")
    assert audit.n_stars == (20, 1, 0)
    assert audit.low_star_bands == ("b",)
    assert set(audit.reasons) == {"b", "c"}
    assert audit.min_nstars == 2
    _, none, _ = choose_psfs(payload, SimpleNamespace(patch_run=PatchRunSettings(), moffat_psf=MOFFAT))
    assert none is None
