"""A field so small that a run on it takes a second, in files that a test may spoil."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from astropy.io import fits
from astropy.wcs import WCS

__all__ = ["BANDS", "SIDE", "TinyField", "image_header", "make_field"]

BANDS = ("m450", "m650")
SIDE = 96
SKY_SIGMA = 2.0
_SIGMA_PIX = 1.4
#: x, y and flux in ADU of the field's stars, the last one not in Gaia.
STARS = ((20.2, 22.1, 9e3), (70.7, 18.4, 7e3), (45.5, 47.8, 1.2e4), (24.9, 74.3, 5e3), (72.3, 70.6, 3e3))

#: Everything off that costs time and says nothing here.
QUIET: dict[str, Any] = {
    "epsf": {"epsf_ngrid": 1, "ngrid": 1, "cutout_size": 21, "final_psf_size": 21, "min_sep": 12.0,
             "parallel_bands": False, "save_star_montage_max": 0, "save_patch_background_diagnostics": False,
             "save_star_local_background_diagnostics": False, "save_growth_curve": False,
             "save_residual_diagnostics": False, "star_local_bkg_annulus_rin_pix": 6.0,
             "star_local_bkg_annulus_rout_pix": 10.0},
    "crop": {"enabled": False, "plot_pre_crop": False, "plot_post_crop": False},
    "overlay": {"enabled": False},
    "patch_run": {"no_cutouts": True, "no_patch_overview": True, "gal_model": "star", "n_opt_iters": 15},
    "report": {"enabled": False},
    "plotting": {"dpi": 30},
    "zp": {"enabled": False},
}  # fmt: skip


def image_header(band: str) -> fits.Header:
    """Header of an image of the field."""
    header = fits.Header()
    header["FILTER"] = band
    header["ZP_AUTO"] = 25.0
    header["SKYSIG"] = SKY_SIGMA
    header["EGAIN"] = 2.0
    header["SATURATE"] = 50000.0
    header["PEEING"] = 2.355 * _SIGMA_PIX
    header.update(
        CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=150.0, CRVAL2=2.0, CRPIX1=48.5, CRPIX2=48.5,
        CD1_1=-0.505 / 3600, CD1_2=0.0, CD2_1=0.0, CD2_2=0.505 / 3600, CUNIT1="deg", CUNIT2="deg",
    )  # fmt: skip
    return header


def pixels(seed: int) -> np.ndarray:
    """Stars and noise, float32 (96, 96), ADU."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    image = rng.normal(0.0, SKY_SIGMA, (SIDE, SIDE))
    for x0, y0, flux in STARS:
        light = np.exp(-0.5 * ((x - x0) ** 2 + (y - y0) ** 2) / _SIGMA_PIX**2)
        light *= flux / (2 * np.pi * _SIGMA_PIX**2)
        image += light + rng.normal(0.0, 1.0, image.shape) * np.sqrt(light / 2.0)
    return image.astype(np.float32)


@dataclass
class TinyField:
    """The files of the field, and what a test does to them."""

    folder: Path
    held: ExitStack | None = None

    @property
    def catalogue(self) -> Path:
        return self.folder / "catalogue.csv"

    @property
    def gaia(self) -> Path:
        return self.folder / "gaia.csv"

    @property
    def image_list(self) -> Path:
        return self.folder / "images.txt"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def image(self, number: int = 0) -> Path:
        return self.folder / f"{BANDS[number]}.fits"

    def rows(self, path: Path | None = None) -> list[list[str]]:
        """Header and rows of a CSV of the field, the catalogue by default."""
        with (path or self.catalogue).open(newline="", encoding="utf-8") as stream:
            return list(csv.reader(stream))

    def write_rows(self, rows: list[list[str]], path: Path | None = None) -> None:
        with (path or self.catalogue).open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator="\n").writerows(rows)

    def config(self, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
        """Write the configuration, with ``changes`` laid over it section by section."""
        values: dict[str, Any] = {
            "inputs": {
                "tile_name": "TINY",
                "input_catalog": "catalogue.csv",
                "image_list_file": "images.txt",
            },
            "outputs": {"work_dir": "work"},
        }
        values |= {section: dict(keys) for section, keys in QUIET.items()}
        for section, keys in (changes or {}).items():
            values[section] = values.get(section, {}) | dict(keys)
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path


def make_field(folder: Path) -> TinyField:
    """Write the images, the list, the catalogue, the Gaia table and the configuration."""
    folder.mkdir(parents=True)
    field = TinyField(folder)
    for number, band in enumerate(BANDS):
        fits.PrimaryHDU(pixels(number), image_header(band)).writeto(field.image(number))
    field.image_list.write_text("".join(f"{band}.fits\n" for band in BANDS))
    wcs = WCS(image_header(BANDS[0]))
    sky = [tuple(float(v) for v in wcs.all_pix2world(x, y, 0)) for x, y, _ in STARS]
    rows = [[f"{i:03d}", f"{ra:.8f}", f"{dec:.8f}", "STAR"] for i, (ra, dec) in enumerate(sky, 1)]
    field.write_rows([["ID", "RA", "DEC", "TYPE"], *rows])
    gaia = [["source_id", "ra", "dec", "phot_g_mean_mag", *(f"mag_{band}" for band in BANDS)]]
    for number, ((ra, dec), (_, _, flux)) in enumerate(zip(sky[:-1], STARS)):
        magnitude = f"{25.0 - 2.5 * np.log10(flux):.4f}"
        gaia.append([f"43180000000000{number:02d}", f"{ra:.8f}", f"{dec:.8f}", *[magnitude] * 3])
    field.write_rows(gaia, field.gaia)
    field.config()
    return field
