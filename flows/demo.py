"""The demonstration: the bundled real field through the flow, then how well it was measured."""

from __future__ import annotations

import csv
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from rich.console import Console
from rich.table import Table

__all__ = ["DemoBand", "demo_table", "prepare_demo", "print_demo"]

FIELD = "sdss_s82_small"

#: Stars count in the comparison when their relative flux error is below this.
MAX_FLUX_ERROR = 0.05


@dataclass(frozen=True, slots=True)
class DemoBand:
    """One row of the demo's table.

    Attributes
    ----------
    band : str
    n_stars : int
        Stars behind the zero point.
    zero_point, zero_point_err : float
        mag AB, and the error of the median.
    n_compared : int
        Published stars with a flux error below 5 %.
    scatter : float
        Median absolute deviation of (fitted - published) magnitude of those stars, mag.
    """

    band: str
    n_stars: int
    zero_point: float
    zero_point_err: float
    n_compared: int
    scatter: float


def prepare_demo(directory: Path) -> Path:
    """Copy the bundled field into ``directory`` and return the path of its configuration.

    Input files are refreshed, results of an earlier demo stay until the run replaces them.
    """
    with as_file(files("tract7dt") / "data" / FIELD) as source:
        shutil.copytree(source, directory, dirs_exist_ok=True)
    return directory / "config.yaml"


def demo_table(directory: Path) -> list[DemoBand]:
    """Zero points of the demo run and the scatter of its star magnitudes about the published ones.

    Band ``gA`` is SDSS g of epoch A, so its published magnitude is the column ``g``.
    """
    run = directory / "run"
    published = {row["sdssid"]: row for row in _rows(directory / "reference_sdss_stars.csv")}
    stars = [row for row in _rows(run / "output_catalog.csv") if row["gaia_source_id"] in published]
    table = []
    for zp in _rows(run / "ZP" / "zp_summary.csv"):
        band = zp["band"]
        differences = [
            float(star[f"MAG_{band}_fit"]) - float(published[star["gaia_source_id"]][band[0]])
            for star in stars
            if star["fit_is_reliable"] == "True" and _relative_error(star, band) < MAX_FLUX_ERROR
        ]
        table.append(
            DemoBand(
                band,
                int(zp["n_kept"]),
                float(zp["zp_median"] or "nan"),
                float(zp["zp_err_median"] or "nan"),
                len(differences),
                _mad(differences),
            )
        )
    return table


def print_demo(directory: Path) -> None:
    """Print the demo's table: one line a band."""
    table = Table(title="SDSS Stripe 82: fitted magnitudes of stars against the published ones")
    for name in ("band", "stars used", "zero point", "its error", "stars compared", "scatter (MAD)"):
        table.add_column(name, justify="left" if name == "band" else "right")
    for row in demo_table(directory):
        table.add_row(
            row.band,
            str(row.n_stars),
            f"{row.zero_point:.4f} mag",
            f"{row.zero_point_err:.4f}",
            str(row.n_compared),
            f"{row.scatter:.4f} mag",
        )
    Console().print(table)


def _relative_error(star: dict[str, str], band: str) -> float:
    flux, error = (float(star[f"{name}_{band}_fit"] or "nan") for name in ("FLUX", "FLUXERR"))
    return error / flux if flux > 0 else float("inf")


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)


def _mad(values: list[float]) -> float:
    if not values:
        return float("nan")
    centre = statistics.median(values)
    return statistics.median(abs(v - centre) for v in values)
