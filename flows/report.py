"""What a run says when it is done: one table a band, counts, and where the results are."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from tract7dt.store import WorkDir

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["failed_patches", "print_report", "read_summary"]

_MAX_NAMED = 5


def read_summary(work: WorkDir) -> dict[str, Any]:
    """``run_summary.json``."""
    return dict(json.loads(work.run_summary.read_text(encoding="utf-8")))


def failed_patches(work: WorkDir) -> str | None:
    """What to say of patches that could not be fitted; None if there are none."""
    counts = read_summary(work)["counts"]
    failed = counts.get("failed_patches") or {}
    if not failed:
        return None
    named = "\n".join(f"  {tag}: {reason}" for tag, reason in list(failed.items())[:_MAX_NAMED])
    more = f"\n  and {len(failed) - _MAX_NAMED} more" if len(failed) > _MAX_NAMED else ""
    return (
        f"{len(failed)} of {counts.get('patches', '?')} patches could not be fitted (all else is done, their "
        f"sources have no fit in the catalogue):\n{named}{more}\n"
        f"what to do: read {work.fits}/<patch>/<patch>.log, then `tract7dt run-patches`, merge, compute-zp"
    )


def print_report(settings: Settings, console: Console) -> None:
    """Print what the run measured and where it lies."""
    work = WorkDir.of(settings)
    counts = read_summary(work)["counts"]
    if work.zp_summary.is_file() and settings.zp.enabled:
        console.print(_zero_points(work.zp_summary, settings.zp.zp_err_method))
    names = ("sources", "active", "fitted", "reliable", "patches")
    said = [f"{counts[name]} {name}" for name in names if name in counts]
    if said:
        console.print(", ".join(said), highlight=False)
    for label, path in _products(work):
        console.print(f"{label:<10} {path}", soft_wrap=True, highlight=False)


def _zero_points(path: Path, method: str) -> Table:
    """``zp_summary.csv`` as a table, with the error that the magnitudes carry."""
    error = "zp_err_std" if method == "bright_std" else "zp_err_mad"
    table = Table(title="Zero points")
    for name in ("band", "stars used", "clipped", "zero point", error, "error of the median"):
        table.add_column(name, justify="left" if name == "band" else "right")
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            numbers = [_mag(row.get(name)) for name in ("zp_median", error, "zp_err_median")]
            table.add_row(row["band"], row.get("n_kept"), row.get("n_clipped"), *numbers)
    return table


def _mag(text: str | None) -> str:
    try:
        return f"{float(text or 'nan'):.4f}"
    except ValueError:
        return str(text)


def _products(work: WorkDir) -> list[tuple[str, Path]]:
    """Catalogue and pictures that are there."""
    catalog = [work.final_catalog.with_suffix(kind) for kind in (".csv", ".parquet", ".fits")]
    named = [("catalogue", path) for path in catalog]
    pictures = [work.overlay / "white_overlay.png", work.bright_mask_overlay]
    pictures += sorted(work.zp.glob("zp_vs_mag__*.png")) if work.zp.is_dir() else []
    named += [("picture", path) for path in pictures if not path.name.endswith("_fullrange.png")]
    named += [("report", work.report), ("record", work.run_summary)]
    return [(label, path) for label, path in named if path.is_file()]
