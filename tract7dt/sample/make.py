"""Making a simulated field."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits
from numpy.typing import NDArray

from tract7dt._version import __version__
from tract7dt.sample.bands import BandTruth, choose_bands, draw_band
from tract7dt.sample.folder import new_folder
from tract7dt.sample.options import PIXEL_SCALE_ARCSEC, SampleField, SampleOptions
from tract7dt.sample.render import observe, render_sources
from tract7dt.sample.tables import OBSERVED, gaia_table, input_catalogue, write_config, write_image_list
from tract7dt.sample.truth import add_band, draw_sources, field_wcs
from tract7dt.store import write_text

__all__ = ["make_sample"]

log = logging.getLogger(__name__)


def make_sample(
    directory: str | Path,
    options: SampleOptions | None = None,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SampleField:
    """Simulate a multi-band field of the telescope with known truth.

    Moffat stars with a PSF that varies over the frame, Sersic galaxies seen through it, photon and sky
    noise, saturation, NaN regions and a satellite trail. Written are ``images/*.fits``, ``image_list.txt``,
    ``input_catalog.csv``, ``gaiaxp_synphot.csv``, ``config.yaml``, ``truth.csv``, ``truth_bands.csv`` and
    ``sim.json`` (the options).

    Parameters
    ----------
    directory : str or Path
        Folder of the field; it appears when it is complete.
    options : SampleOptions, optional
    force : bool, optional
        Replace a sample field that is there.
    progress : callable, optional
        Called with (bands done, bands).

    Returns
    -------
    SampleField

    Raises
    ------
    SampleError
        If the options are wrong, or the folder is there already.

    Notes
    -----
    The fluxes of ``truth.csv`` are what a fit on the common scale should find: counts at ``zp_ref`` by the
    header's ``ZP_AUTO``, which is a little off. The zero point of a band is then its ``zp_expect``.
    """
    options = options or SampleOptions()
    target = Path(directory).expanduser().absolute()
    names = choose_bands(options.bands)
    with new_folder(target, force) as folder:
        images = _write_field(folder, names, options, progress)
    log.info("simulated field of %d bands in %s", len(names), target)
    return SampleField(
        directory=target,
        config=target / "config.yaml",
        image_list=target / "image_list.txt",
        catalog=target / "input_catalog.csv",
        gaia=target / "gaiaxp_synphot.csv",
        truth=target / "truth.csv",
        truth_bands=target / "truth_bands.csv",
        images=tuple(target / "images" / image.name for image in images),
    )


def _write_field(
    folder: Path, names: list[str], options: SampleOptions, progress: Callable[[int, int], None] | None
) -> list[Path]:
    wcs = field_wcs(options)
    header = wcs.to_header()
    truth, spectra = draw_sources(options, wcs)
    bands = [draw_band(name, i, len(names), options) for i, name in enumerate(names)]
    images = []
    (folder / "images").mkdir()
    for done, band in enumerate(bands, start=1):  # one at a time: memory does not grow with bands
        add_band(truth, spectra, band)
        data, clipped = observe(render_sources(truth, band, options), band, options)
        truth["saturated"] |= _at_sources(clipped, truth)
        images.append(folder / "images" / f"7DT_SIM_{band.band}.fits")
        fits.PrimaryHDU(data, _band_header(header, band, options)).writeto(images[-1])
        if progress is not None:
            progress(done, len(bands))
    write_image_list(folder / "image_list.txt", images)
    _write_csv(input_catalogue(truth, bands, options), folder / "input_catalog.csv")
    _write_csv(gaia_table(truth, bands, options), folder / "gaiaxp_synphot.csv")
    per_band = {f"{kind}_{name}": 6 for kind in ("mag", "flux") for name in names}
    _write_csv(_truth_columns(truth, names).round(per_band), folder / "truth.csv")
    _write_csv(pd.DataFrame([asdict(band) for band in bands]), folder / "truth_bands.csv")
    write_config(folder / "config.yaml", options)
    record = {"options": asdict(options), "versions": {"tract7dt": __version__, "numpy": np.__version__}}
    write_text(folder / "sim.json", json.dumps(record, indent=1) + "\n")
    return images


def _at_sources(pixels: NDArray[np.bool_], truth: pd.DataFrame) -> NDArray[np.bool_]:
    """The pixel that each source's centre lies on."""
    height, width = pixels.shape
    x = truth["x"].round().astype(int).clip(0, width - 1)
    y = truth["y"].round().astype(int).clip(0, height - 1)
    return pixels[y, x]


def _band_header(header: fits.Header, band: BandTruth, options: SampleOptions) -> fits.Header:
    full = header.copy()
    for keyword, value, comment in (
        ("OBJECT", f"SIM{options.seed}", "simulated field"),
        ("FILTER", band.band, ""),
        ("DATE-OBS", OBSERVED, "UTC"),
        ("NCOMBINE", options.exposures, "exposures of the stack"),
        ("ZP_AUTO", band.zp_auto, "AB zero point, a little wrong on purpose"),
        ("SKYSIG", band.skysig, "sky noise, ADU"),
        ("EGAIN", band.egain, "e-/ADU"),
        ("SATURATE", band.saturate, "ADU"),
        ("SEEING", round(band.fwhm_px * PIXEL_SCALE_ARCSEC, 4), "FWHM, arcsec"),
        ("PEEING", band.fwhm_px, "FWHM, pix"),
    ):
        full[keyword] = (value, comment)
    return full


def _truth_columns(truth: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    first = ["sim_id", "ID", "x", "y", "ref_mag", "type", "n", "Re", "ELL", "THETA"]
    last = ["ra", "dec", "gaia", "catalogued", "source_id", "saturated"]
    per_band = [f"mag_{name}" for name in names] + [f"flux_{name}" for name in names]
    return truth[[*first, *per_band, *last]]


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False, lineterminator="\n")
