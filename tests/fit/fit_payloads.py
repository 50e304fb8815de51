"""Payloads from GalSim scenes: what the fit gets from disk, with the columns of a user's catalogue."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd

from tract7dt.settings import MoffatPsfSettings, PatchRunSettings
from tract7dt.types import BAD_NONFINITE, Box, Epsf, ModelKind, Patch, PatchPayload, PatchProblem

#: Corner of the patch in the working frame.
X0, Y0 = 200, 300


def settings_of(**patch_run):
    """The sections of the settings that a fit reads."""
    return SimpleNamespace(patch_run=PatchRunSettings(**patch_run), moffat_psf=MoffatPsfSettings())


def payload_of(
    problem: PatchProblem, n_stars: int = 20, fwhm=3.5, halo=(), psfs=None, **columns
) -> PatchPayload:
    """The pixels of a problem with a catalogue that knows names and places, and what ``columns`` adds."""
    n, n_bands = len(problem.sources), len(problem.bands)
    source = problem.sources
    base = ~np.isin(np.arange(n), halo)
    table = pd.DataFrame(
        {
            "ID": [f"{i:04d}" for i in range(n)],
            "RA": 150 + 1e-4 * np.arange(n),
            "DEC": 20.0,
            "TYPE": [ModelKind(k).name for k in source.kind],
            "x_pix_white": source.x + X0,
            "y_pix_white": source.y + Y0,
            "source_index": np.arange(n, dtype=np.int64),
            "x_pix_patch": source.x,
            "y_pix_patch": source.y,
            "halo_kind": np.where(base, "", "halo").astype(object),
            "_is_halo_source": ~base,
        }
    ).assign(**columns)
    ny, nx = problem.data.shape[1:]
    if psfs is None:
        psfs = tuple(Epsf(np.asarray(psf, np.float32), n_stars, "epsf") for psf in problem.psf)
    box = Box(X0, X0 + nx, Y0, Y0 + ny)
    return PatchPayload(
        patch=Patch(0, 0, 0, 0, base=box, roi=box, halo_pix=0),
        bands=problem.bands,
        data=problem.data,
        bad=np.where(problem.weight > 0, 0, BAD_NONFINITE).astype(np.uint8),
        sky_sigma=problem.sky_sigma,
        gain=problem.gain,
        scale=np.ones(n_bands),
        fwhm_pix=np.full(n_bands, fwhm),
        psfs=psfs,
        table=table,
    )


def catalogue_of(truth, bands, shapes=True, fluxes=True):
    """Columns of a catalogue that knows the truth."""
    columns = {}
    if shapes:
        columns |= {"ELL": truth.ell, "THETA": truth.theta, "Re": truth.re, "SERSIC_n": truth.sersic_n}
    if fluxes:
        columns |= {f"FLUX_{band}": truth.flux[b] for b, band in enumerate(bands)}
    return columns
