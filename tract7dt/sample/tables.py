"""What a user would bring to a simulated field: catalogue, Gaia table, image list, configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tract7dt.sample.bands import BandTruth
from tract7dt.sample.options import ZP_REF, SampleOptions, random_stream
from tract7dt.store import write_text

__all__ = ["IMAGE_EPOCH", "OBSERVED", "gaia_table", "input_catalogue", "write_config", "write_image_list"]

#: DATE-OBS of all images, and the same as a Julian year.
OBSERVED, IMAGE_EPOCH = "2024-03-15T04:00:00.000", 2024.2016
_GAIA_EPOCH = 2016.0
_CELL_PIX, _PATCH_PIX = 900, 220


def input_catalogue(truth: pd.DataFrame, bands: Sequence[BandTruth], options: SampleOptions) -> pd.DataFrame:
    """Source catalogue with realistic errors: positions, shapes and, on request, fluxes are scattered."""
    rng = random_stream(options.seed, "catalogue")
    rows = truth[truth["catalogued"]].sort_values("ID")
    n = len(rows)
    scatter = rng.normal(0, options.position_scatter_arcsec / 3600, (2, n))
    galaxy = (rows["type"] != "STAR").to_numpy()
    table = pd.DataFrame(
        {
            "ID": rows["ID"].to_numpy(),
            "RA": (rows["ra"] + scatter[0] / np.cos(np.radians(rows["dec"]))).round(8).to_numpy(),
            "DEC": (rows["dec"] + scatter[1]).round(8).to_numpy(),
            "TYPE": np.where(rng.random(n) < options.blank_type, "", rows["type"]),
        }
    )
    if options.shape_columns:
        known = galaxy & (rng.random(n) > 0.05)  # a few galaxies come without a shape
        ell, theta, radius = (rows[name].to_numpy() for name in ("ELL", "THETA", "Re"))
        angle = theta + rng.normal(0, 1, n) * np.clip(2.5 / np.where(galaxy, ell, 1), 3, 40)
        table["ELL"] = np.where(known, np.clip(ell + rng.normal(0, 0.05, n), 0, 0.9), np.nan).round(4)
        table["THETA"] = np.where(known, (angle + 90) % 180 - 90, np.nan).round(2)
        table["Re"] = np.where(known, radius * 10 ** rng.normal(0, 0.07, n), np.nan).round(3)
    if options.flux_columns:
        for band in bands:
            flux = rows[f"flux_{band.band}"].to_numpy() * 10 ** rng.normal(0, 0.08, n)
            table[f"FLUX_{band.band}"] = np.where(rng.random(n) < 0.03, np.nan, flux).round(4)
    return table


def gaia_table(truth: pd.DataFrame, bands: Sequence[BandTruth], options: SampleOptions) -> pd.DataFrame:
    """Gaia XP synthetic photometry of the bright stars, AB; positions at the catalogue's own epoch."""
    rng = random_stream(options.seed, "gaia")
    rows = truth[truth["gaia"]]
    n = len(rows)
    mag = rows["ref_mag"].to_numpy()
    motion = rng.normal(0, 8.0, (2, n)) if options.proper_motions else np.zeros((2, n))  # mas/yr
    years = IMAGE_EPOCH - _GAIA_EPOCH
    degrees = motion.round(3) * years / 3.6e6
    dec = rows["dec"].to_numpy()
    table = pd.DataFrame(
        {
            "source_id": rows["source_id"].to_numpy(),
            "ra": (rows["ra"].to_numpy() - degrees[0] / np.cos(np.radians(dec))).round(9),
            "dec": (dec - degrees[1]).round(9),
            "phot_g_mean_mag": (mag + rng.normal(0, 0.01, n)).round(4),
        }
    )
    if options.proper_motions:
        table["pmra"], table["pmdec"] = motion.round(3)
        table["ref_epoch"] = _GAIA_EPOCH
    error = 0.004 + 0.012 * 10 ** (0.3 * (mag - 17.5))
    for band in bands:
        table[f"mag_{band.band}"] = (
            (rows[f"mag_{band.band}"] + rng.normal(0, 1, n) * error).round(4).to_numpy()
        )
    return table


def write_image_list(path: Path, images: Sequence[Path]) -> None:
    """Image list with paths relative to its own folder."""
    lines = [image.relative_to(path.parent).as_posix() for image in images]
    write_text(path, "# images of the sample field\n" + "".join(f"{line}\n" for line in lines))


def write_config(path: Path, options: SampleOptions) -> None:
    """Configuration of a run on the field; cells and patches of about 900 and 220 pixels."""
    margin = min(500, min(options.width, options.height) // 20)
    inner = min(options.width, options.height) - 2 * margin
    cells = max(1, round(inner / _CELL_PIX))
    patches = max(1, round(inner / cells / _PATCH_PIX))
    zoom = [inner // 4, inner // 2, inner // 4, inner // 2]
    write_text(
        path,
        f"""\
# Run on a simulated field (seed {options.seed}): tract7dt run --config {path.name}
# tract7dt dump-config writes every other key with its default.
inputs:
  tile_name: SIM{options.seed}
  input_catalog: input_catalog.csv
  image_list_file: image_list.txt
  gaiaxp_synphot_csv: gaiaxp_synphot.csv
outputs:
  work_dir: run
image_scaling:
  zp_ref: {ZP_REF}
crop:
  margin: {margin}
overlay:
  zoom_box: {zoom}
epsf:
  epsf_ngrid: {cells}
  ngrid: {patches}
""",
    )
