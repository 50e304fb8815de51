"""Synthetic payloads, fits and catalogues."""

from __future__ import annotations

import numpy as np
import pandas as pd
from astropy.wcs import WCS

from tract7dt.types import Box, ModelKind, Patch, PatchFit, PatchPayload, PsfAudit, Sources

BANDS = ("g", "r")
ROI = Box(10, 400, 15, 400)


def make_wcs(ra=150.0, dec=20.0, rotation=30.0, scale=0.505 / 3600, nx=400):
    """TAN WCS, rotated, with the left-handed sense of the sky."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [nx / 2, nx / 2]
    c, s = np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))
    wcs.wcs.cd = scale * np.array([[-c, s], [s, c]])
    return wcs


def make_sources(n=12, has_id=True, wcs=None):
    """Base catalogue: row 0 off the frame (NaN), row 1 near saturation, row 2 under the bright mask."""
    rng = np.random.default_rng(5)
    wcs = wcs or make_wcs()
    x, y = rng.uniform(20, 380, n), rng.uniform(20, 380, n)
    ra, dec = wcs.all_pix2world(x, y, 0)
    ra[0] = x[0] = y[0] = np.nan
    columns = {"ID": [f"{i:05d}" for i in range(n)]} if has_id else {}
    table = pd.DataFrame(
        {
            **columns,
            "RA": ra,
            "DEC": dec,
            "TYPE": ["STAR", "EXP", "DEV", "SERSIC"] * (n // 4),
            "note": ["é, ü", "00012", ' "q" ', "", *["x"] * (n - 4)],
            "other_mag": ["1.50", "", "-3", "2e1", *["7.0"] * (n - 4)],
            "x_pix_white": x,
            "y_pix_white": y,
            "excluded_crop": np.arange(n) == 0,
            "excluded_saturation": np.arange(n) == 1,
            "excluded_any": np.arange(n) < 2,
            "gaia_source_id": [
                "",
                "",
                *[f"41234567890123456{i:02d}" if i % 4 == 0 else "" for i in range(2, n)],
            ],
            "affected_by_bright_mask": np.arange(n) == 2,
        }
    )
    return Sources(table, has_id)


def make_payload(sources, rows, halo=(), tag=(0, 0, 0, 0), roi=ROI, bands=BANDS):
    """Payload with base rows and halo rows of the catalogue (pixels are of no interest here)."""
    members = [*rows, *halo]
    table = sources.table.iloc[members].reset_index(drop=True)
    table["source_index"] = np.array(members, dtype=np.int64)
    table["x_pix_patch"] = table["x_pix_white"] - roi.x0
    table["y_pix_patch"] = table["y_pix_white"] - roi.y0
    table["_is_halo_source"] = [False] * len(rows) + [True] * len(halo)
    nb = len(bands)
    return PatchPayload(
        patch=Patch(*tag, base=roi, roi=roi, halo_pix=20),
        bands=bands,
        data=np.zeros((nb, *roi.shape), np.float32),
        bad=np.zeros((nb, *roi.shape), np.uint8),
        sky_sigma=np.ones(nb),
        gain=np.ones(nb),
        scale=np.ones(nb),
        fwhm_pix=np.full(nb, 4.0),
        psfs=(None,) * nb,
        table=table,
    )


def make_fit(payload, single_band=False, **changes):
    """A fit that is random but valid, in the payload's order; ``changes`` replace fields."""
    n, nb = len(payload.table), len(payload.bands)
    nset = nb if single_band else 1
    rng = np.random.default_rng(n + nset)

    def sets(lo, hi):
        return rng.uniform(lo, hi, (nset, n))

    kind = np.array([ModelKind[t] for t in payload.table["TYPE"]], dtype=np.int64)
    err = sets(0.01, 0.2), sets(0.01, 0.2)
    values = {
        "tag": payload.patch.tag,
        "bands": payload.bands,
        "single_band": single_band,
        "kind": kind,
        "x": payload.table["x_pix_patch"].to_numpy() + sets(-0.3, 0.3),
        "y": payload.table["y_pix_patch"].to_numpy() + sets(-0.3, 0.3),
        "x_err": err[0],
        "y_err": err[1],
        "xy_cov": sets(-0.9, 0.9) * err[0] * err[1],
        "re": sets(1, 9),
        "re_err": sets(0.1, 1),
        "ell": sets(0, 0.9),
        "ell_err": sets(0, 0.1),
        "theta": sets(-90, 90),
        "theta_err": sets(1, 9),
        "sersic_n": sets(0.5, 6),
        "sersic_n_err": sets(0.1, 1),
        "flux": rng.uniform(-50, 5000, (nb, n)),
        "flux_err": rng.uniform(1, 9, (nb, n)),
        "chi2": rng.uniform(0.5, 2, (nb, n)),
        "frac_masked": rng.uniform(0, 1, (nb, n)),
        "frac_flux": rng.uniform(0, 1, (nb, n)),
        "sky": rng.normal(0, 1, nb),
        "sky_err": rng.uniform(0, 1, nb),
        "converged": np.ones((nset, n), bool),
        "hit_max_iters": np.zeros((nset, n), bool),
        "stalled": np.zeros((nset, n), bool),
        "niter": np.full((nset, n), 7),
        "last_dlnp": sets(0, 1e-3),
        "bound": (("",) * n,) * nset,
        "issues": (("",) * n,) * nset,
        "lnp": np.zeros(nset),
        "stages": (),
        "status": "converged",
    }
    return PatchFit(**(values | changes))


def make_audit(bands=BANDS, fallback=(), kinds=None, mixtures=()):
    """Audit with the bands of ``fallback`` on an analytic model, those of ``mixtures`` on Gaussians."""
    kinds = kinds or tuple("moffat" if b in fallback else "epsf" for b in bands)
    return PsfAudit(
        min_nstars=2,
        kinds=kinds,
        n_stars=tuple(0 if b in fallback else 9 for b in bands),
        reasons=dict.fromkeys(fallback, "no ePSF in this cell"),
        low_star_bands=(),
        mixture_bands=tuple(mixtures),
    )


def empty_row(fit, *fields, row=0):
    """Copies of fields of a fit with NaN in one source (all sets or bands)."""
    changed = {}
    for name in fields:
        values = getattr(fit, name).copy()
        values[..., row] = np.nan
        changed[name] = values
    return changed
