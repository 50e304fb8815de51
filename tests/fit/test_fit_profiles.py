"""Radial tables against direct integration and against GalSim."""

from __future__ import annotations

import galsim
import numpy as np
import pytest
from scipy.special import gammainc, gammaincinv, j0

from tract7dt.fit import profiles


def direct_transform(n: float, k: np.ndarray) -> np.ndarray:
    """F(k) by brute force: Gauss-Legendre pieces of r I(r) J0(k r) out to 11 half-light radii."""
    edges = np.concatenate([np.geomspace(1e-12, 1e-2, 60), np.linspace(1e-2, 11, 3000)[1:]])
    node, weight = np.polynomial.legendre.leggauss(8)
    r = (edges[:-1, None] + edges[1:, None]) / 2 + np.diff(edges)[:, None] / 2 * node
    w = np.diff(edges)[:, None] / 2 * weight * r * profiles.sersic_profile(r, n)
    return np.array([np.sum(w * j0(value * r)) for value in k]) / np.sum(w)


@pytest.mark.parametrize("n", [0.3, 0.5, 1.0, 2.0, 4.0, 6.2])
def test_transform_is_that_of_the_profile(n):
    f, fs = profiles.sersic_transform(n)
    pick = np.arange(0, profiles.N_CELLS + 1, 9)
    pick = pick[profiles.S_EDGES[pick] < 400]
    np.testing.assert_allclose(f[pick], direct_transform(n, np.sqrt(profiles.S_EDGES[pick])), atol=2e-6)
    s = profiles.S_EDGES[pick[20:]]
    h = 1e-4
    numeric = (direct_transform(n, np.sqrt(s * (1 + h))) - direct_transform(n, np.sqrt(s * (1 - h)))) / (
        2 * h
    )
    np.testing.assert_allclose(fs[pick[20:]] * s, numeric, atol=2e-5)


@pytest.mark.parametrize("n", [1.0, 2.5, 4.0])
def test_transform_agrees_with_galsim(n):
    profile = galsim.Sersic(n=n, half_light_radius=1.0, trunc=8.0, flux_untruncated=True).withFlux(1.0)
    k = np.geomspace(0.01, 10, 30)
    f, _ = profiles.sersic_transform(n)
    found = np.interp(np.log(k**2), np.log(profiles.S_EDGES), f)
    expected = [profile.kValue(value, 0).real for value in k]
    np.testing.assert_allclose(
        found, expected, atol=1e-3
    )  # the width of the cut, and the linear interpolation here


def test_cut_at_eight_half_light_radii():
    r = np.array([7.0, 8.0, 9.0])
    n = 4.0
    uncut = np.exp(-gammaincinv(2 * n, 0.5) * r ** (1 / n))
    ratio = profiles.sersic_profile(r, n) / uncut
    assert ratio[0] > 0.99
    assert ratio[1] == pytest.approx(0.5)
    assert ratio[2] < 0.01
    # an exponential has next to nothing out there
    assert 1 - gammainc(2, gammaincinv(2, 0.5) * 8) < 1e-4


def test_mixtures_have_unit_flux_and_half_of_that_within_re():
    exp, dev = profiles.fixed_tables("mixture")
    for table in (exp, dev):
        assert table[0, 0] == pytest.approx(1, abs=1e-4)
        slope = np.gradient(table[:, 0], profiles.S_EDGES)
        middle = slice(200, 600)
        np.testing.assert_allclose(
            table[middle, 1] * profiles.S_EDGES[middle], slope[middle] * profiles.S_EDGES[middle], atol=1e-3
        )
    # flux within R = 1 is int_0^inf J1(k) F(k) dk
    from scipy.special import j1

    k = np.linspace(1e-4, 400, 800_001)
    b = gammaincinv(8, 0.5)
    cut_dev = 0.5 / gammainc(8, b * 8**0.25)  # the mixture stands for a profile that ends at 8 re
    for table, expected in ((exp, 0.5), (dev, cut_dev)):
        f = np.interp(np.log(k**2), np.log(profiles.S_EDGES), table[:, 0])
        assert np.sum(j1(k) * f) * (k[1] - k[0]) == pytest.approx(expected, abs=0.01)


def test_tables_are_shared_and_cannot_be_changed():
    assert profiles.fixed_tables("sersic") is profiles.fixed_tables("sersic")
    with pytest.raises(ValueError, match="read-only"):
        profiles.fixed_tables("sersic")[0, 0, 0] = 2
    with pytest.raises(ValueError, match="read-only"):
        profiles.sersic_tables()[1][0, 0, 0] = 2
