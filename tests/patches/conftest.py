"""A small field in memory, and settings without files."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from astropy.wcs import WCS

from tract7dt.types import Box, Epsf, EpsfGrid, Field, Frame, Sources


@pytest.fixture
def settings() -> SimpleNamespace:
    """The sections that patches read, at their defaults but for a coarse division."""
    return SimpleNamespace(
        epsf=SimpleNamespace(epsf_ngrid=2, ngrid=2, final_psf_size=25, skip_empty_epsf_patches=True),
        patches=SimpleNamespace(halo_pix_min=10),
        patch_inputs=SimpleNamespace(skip_empty_patch=True, gzip_compresslevel=1),
        patch_run=SimpleNamespace(
            gal_model="exp",
            r_ap=5.0,
            eps_flux=1e-4,
            sersic_n_init=3.0,
            re_fallback_pix=3.0,
            fallback_default_fwhm_pix=4.0,
        ),
        moffat_psf=SimpleNamespace(beta=3.5),
    )


@pytest.fixture
def make_field() -> Callable[..., Field]:
    def make(
        shape: tuple[int, int] = (200, 240), bands: tuple[str, ...] = ("g", "r"), sigma: float = 2.0
    ) -> Field:
        rng = np.random.default_rng(3)
        frames = {}
        for number, band in enumerate(bands):
            data = rng.normal(0, sigma, shape).astype(np.float32)
            data.flags.writeable = False  # as the memory maps of a run
            frames[band] = Frame(band, data, sigma, 1.5, 1.1, 24.9, 5e4, 3.0 + number, f"/images/{band}.fits")
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crval, wcs.wcs.crpix = [150.0, 2.0], [shape[1] / 2, shape[0] / 2]
        wcs.wcs.cdelt = [-0.5 / 3600, 0.5 / 3600]
        white = np.zeros(shape, np.float32)
        return Field(frames, white, white + 1, wcs, Box(0, shape[1], 0, shape[0]), 0.5, 2021.0, 25.0)

    return make


@pytest.fixture
def make_sources() -> Callable[..., Sources]:
    """Base catalogue from lists of positions; further columns as given."""

    def make(x: Any, y: Any, **columns: Any) -> Sources:
        n = len(x)
        table = pd.DataFrame(
            {"ID": [f"{k:05d}" for k in range(n)], "RA": np.full(n, 150.0), "DEC": np.full(n, 2.0)}
        )
        flags = {
            name: columns.pop(name, np.zeros(n, bool)) for name in ("excluded_crop", "excluded_saturation")
        }
        table = table.assign(**columns, x_pix_white=np.asarray(x, float), y_pix_white=np.asarray(y, float))
        table = table.assign(**{name: np.asarray(flag, bool) for name, flag in flags.items()})
        table["excluded_any"] = table["excluded_crop"] | table["excluded_saturation"]
        return Sources(table.assign(gaia_source_id="", affected_by_bright_mask=False), True)

    return make


@pytest.fixture
def masks() -> Callable[[Field], dict[str, np.ndarray]]:
    return lambda field: {band: np.zeros(field.shape, np.uint8) for band in field.bands}


@pytest.fixture
def grids() -> dict[str, EpsfGrid]:
    stamp = np.zeros((25, 25), np.float32)
    stamp[12, 12] = 1
    cells = {
        f"r{r:02d}_c{c:02d}": Epsf(stamp, 7, "epsf", {"fwhm_pix": 3.1}) for r in range(2) for c in range(2)
    }
    return {"g": EpsfGrid("g", cells), "r": EpsfGrid("r", {"r00_c00": cells["r00_c00"]})}
