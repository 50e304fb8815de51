"""The sources of a simulated field: where they are, what they are, how bright in every band."""

from __future__ import annotations

import numpy as np
import pandas as pd
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tract7dt.sample.bands import BandTruth, limiting_magnitude
from tract7dt.sample.options import PIXEL_SCALE_ARCSEC, SampleOptions, random_stream
from tract7dt.sample.spectra import REFERENCE_NM, Spectra, draw_spectra

__all__ = ["add_band", "draw_sources", "field_wcs"]

F8 = NDArray[np.float64]
Bool = NDArray[np.bool_]

_BRIGHTEST_STAR, _BRIGHTEST_GALAXY = 13.0, 16.0
_SATURATED_MAG, _UNCATALOGUED_MAG = (8.5, 9.7), (13.0, 15.0)
_STAR_COUNT_SLOPE, _GALAXY_COUNT_SLOPE = 0.20, 0.35  # of log10 N per magnitude
_MIN_SEPARATION_PIX = 2.0
_CENTRE_DEG = (34.5, -5.2)


def field_wcs(options: SampleOptions) -> WCS:
    """Tangential WCS of the field, north up, east left."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = _CENTRE_DEG
    wcs.wcs.crpix = [(options.width + 1) / 2, (options.height + 1) / 2]
    wcs.wcs.cdelt = [-PIXEL_SCALE_ARCSEC / 3600, PIXEL_SCALE_ARCSEC / 3600]
    wcs.wcs.radesys = "ICRS"
    return wcs


def draw_sources(options: SampleOptions, wcs: WCS) -> tuple[pd.DataFrame, Spectra]:
    """Draw all sources, without magnitudes in bands yet.

    Returns
    -------
    truth : pandas.DataFrame
        One row a source, stars first: sim_id, ID ("" where not catalogued), x, y (0-based pix), ref_mag,
        type, n, Re (semi-major, pix), ELL, THETA (degrees from +x towards +y), ra, dec, gaia, catalogued,
        source_id, saturated (not known yet: False).
    spectra : Spectra
    """
    rng = random_stream(options.seed, "sources")
    n = options.n_stars + options.n_galaxies
    star = np.arange(n) < options.n_stars
    x, y = _positions(n, options, rng)
    mag = _magnitudes(star, options, rng)
    truth = pd.DataFrame({"sim_id": np.arange(n), "ID": "", "x": x, "y": y, "ref_mag": mag})
    _add_shapes(truth, star, rng)
    truth["ra"], truth["dec"] = wcs.all_pix2world(x, y, 0) if n else (x, y)
    _add_membership(truth, star, options, rng)
    return truth, draw_spectra(star, rng)


def add_band(truth: pd.DataFrame, spectra: Spectra, band: BandTruth) -> None:
    """Add mag_{band} (AB) and flux_{band} (counts at zp_ref as ZP_AUTO has it) to the truth table."""
    mag = truth["ref_mag"].to_numpy() + spectra.colour(band.wave)
    truth[f"mag_{band.band}"] = mag
    truth[f"flux_{band.band}"] = 10 ** (-0.4 * (mag - band.zp_expect))


def _positions(n: int, options: SampleOptions, rng: np.random.Generator) -> tuple[F8, F8]:
    """Uniform positions; whatever lands too near to another source, which no catalogue splits, is redrawn."""
    low, high = [2.0, 2.0], [options.width - 3.0, options.height - 3.0]
    xy = rng.uniform(low, high, (n, 2))
    for _ in range(50):
        pairs = cKDTree(xy).query_pairs(_MIN_SEPARATION_PIX, output_type="ndarray") if n else np.empty((0, 2))
        near = np.unique(pairs[:, 1]).astype(int)
        if not len(near):
            break
        xy[near] = rng.uniform(low, high, (len(near), 2))
    return xy[:, 0], xy[:, 1]


def _magnitudes(star: Bool, options: SampleOptions, rng: np.random.Generator) -> F8:
    faintest = options.mag_limit
    if faintest is None:
        faintest = limiting_magnitude(REFERENCE_NM, options.exposures)
    n = len(star)
    mag = np.where(
        star,
        _power_law(rng.random(n), _BRIGHTEST_STAR, faintest, _STAR_COUNT_SLOPE),
        _power_law(rng.random(n), _BRIGHTEST_GALAXY, faintest, _GALAXY_COUNT_SLOPE),
    )
    first, second = options.n_saturated, options.n_saturated + options.n_uncatalogued
    mag[:first] = rng.uniform(*_SATURATED_MAG, first)
    mag[first:second] = rng.uniform(*_UNCATALOGUED_MAG, second - first)
    return mag


def _power_law(u: F8, low: float, high: float, slope: float) -> F8:
    """Magnitudes whose numbers grow as 10**(slope mag), from uniform ``u``."""
    a, b = 10 ** (slope * low), 10 ** (slope * high)
    return np.asarray(np.log10(a + u * (b - a)) / slope)


def _add_shapes(truth: pd.DataFrame, star: Bool, rng: np.random.Generator) -> None:
    n = len(truth)
    kind = rng.choice(["EXP", "DEV", "SERSIC"], n, p=[0.5, 0.2, 0.3])
    index = np.select([kind == "EXP", kind == "DEV"], [1.0, 4.0], 0.25 * rng.integers(2, 21, n))
    mag = truth["ref_mag"].to_numpy()
    radius_arcsec = 10 ** (0.42 - 0.10 * (mag - 18.0) + rng.normal(0, 0.2, n))
    shapes = {
        "n": index,
        "Re": np.clip(radius_arcsec / PIXEL_SCALE_ARCSEC, 0.6, 25.0),
        "ELL": np.clip(rng.beta(1.8, 3.0, n), 0.02, 0.85),
        "THETA": rng.uniform(-90, 90, n),
    }
    truth["type"] = np.where(star, "STAR", kind)
    for name, values in shapes.items():
        truth[name] = np.where(star, np.nan, values)


def _add_membership(
    truth: pd.DataFrame, star: Bool, options: SampleOptions, rng: np.random.Generator
) -> None:
    """Who is in which input file."""
    n = len(truth)
    place = np.arange(n)
    hidden = (place >= options.n_saturated) & (place < options.n_saturated + options.n_uncatalogued)
    mag = truth["ref_mag"].to_numpy()
    gaia = star & (mag < options.gaia_limit) & ~hidden
    only_gaia = gaia & (place >= options.n_saturated) & (rng.random(n) < options.gaia_only)
    truth["gaia"] = gaia
    truth["catalogued"] = ~hidden & ~only_gaia
    numbers = 2_500_000_000_000_000_000 + rng.permutation(n) * 10**6 + rng.integers(0, 10**6, n)
    truth["source_id"] = np.where(gaia, numbers.astype(str), "")
    truth["saturated"] = False
    rows = rng.permutation(np.flatnonzero(truth["catalogued"]))
    identifiers = np.full(n, "", dtype=object)
    identifiers[rows] = [f"{i:06d}" for i in range(1, len(rows) + 1)]
    truth["ID"] = identifiers
