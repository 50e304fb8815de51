"""The report's file: template, style, script and data put into one."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from tract7dt.flags import QUALITY_ISSUES
from tract7dt.qa.passbands import passbands_in_order
from tract7dt.qa.report.images import epsf_arrays, residual_arrays, signed_colors, white_picture
from tract7dt.qa.report.pack import json_text, packed
from tract7dt.qa.report.products import RunProducts
from tract7dt.qa.report.sources import (
    DETECTION_SIGMA,
    ERROR_DECADES,
    ERROR_STEPS,
    LIMIT,
    MAG_STEP,
    MAG_ZERO,
    NOTHING,
    number_counts,
    pack_sources,
)
from tract7dt.qa.style import NO_DATA, SYMBOLS, band_colors
from tract7dt.store import write_text

if TYPE_CHECKING:
    import pandas as pd

    from tract7dt.store import WorkDir

__all__ = ["report_html", "write_report"]

_SCRIPTS = ("vendor/d3-zoom.min.js", "base.js", "chart.js", "sky.js", "source.js", "sections.js", "start.js")
#: Stars of a band in the zero-point plot; of more, every n-th is shown.
_MOST_STARS = 3000


def write_report(run: RunProducts, work: WorkDir, *, cutouts_inside: bool = False) -> Path:
    """Write report.html into ``work``; see :func:`report_html`."""
    write_text(work.report, report_html(run, work, cutouts_inside=cutouts_inside))
    return work.report


def report_html(run: RunProducts, work: WorkDir, *, cutouts_inside: bool = False) -> str:
    """The report as one HTML text that asks for nothing else than, when a source is looked at, its cutouts.

    Parameters
    ----------
    run : RunProducts
    work : WorkDir
        Where residual maps and cutouts lie.
    cutouts_inside : bool
        Put the cutouts of all sources into the file, instead of reading them from the folder beside it.
    """
    bands = passbands_in_order(run.bands)
    order = [band for band, _ in bands]
    sources, texts = pack_sources(run, order)
    stamps, cells, side = epsf_arrays(run, order)
    maps, about_maps = residual_arrays(run, work, order)
    colors = band_colors(order)
    data = {
        "bands": [
            {
                "name": band,
                "color": colors[band],
                "nm": None if place is None else place.pivot_nm,
                "low": None if place is None else place.low_nm,
                "high": None if place is None else place.high_nm,
            }
            for band, place in bands
        ],
        "run": _run(run),
        "white": white_picture(run),
        "shape": list(run.shape),
        "scale": None if run.sky is None else run.sky.pixel_scale_arcsec,
        "north": None
        if run.sky is None
        else {"names": run.sky.names, "north": run.sky.north, "east": run.sky.east},
        "cells": cells,
        "stamp_side": side,
        "maps": about_maps,
        "zero_points": _zero_points(run, order),
        "counts": number_counts(run, order),
        "reliability": _reliability(run.catalog),
        "calibrated": run.zero_points is not None,
        "zp_ref": run.zp_ref,
        "symbols": {name: symbol.color for name, symbol in SYMBOLS.items()},
        "symbols_on_paper": {name: symbol.color_on_paper for name, symbol in SYMBOLS.items()},
        "signed": signed_colors(),
        "no_data": NO_DATA,
        "code": {
            "mag_zero": MAG_ZERO, "mag_step": MAG_STEP, "nothing": NOTHING, "limit": LIMIT,
            "error_decades": ERROR_DECADES, "error_steps": ERROR_STEPS, "sigma": DETECTION_SIGMA,
        },
        "cutouts": {"folder": _folder(work), "inside": cutouts_inside},
    }  # fmt: skip
    blobs = {"sources": packed(sources, texts), "stamps": packed(stamps), "maps": packed(maps)}
    inside = _cutouts(work, texts, sources) if cutouts_inside else ""
    return _page(str(run.record["field"]), json_text(data), blobs, inside)


def _page(field: str, data: str, blobs: Mapping[str, str], cutouts: str) -> str:
    parts = resources.files("tract7dt").joinpath("data/report")
    read = {name: parts.joinpath(name).read_text(encoding="utf-8") for name in ("page.html", "style.css")}
    script = "\n".join(parts.joinpath(name).read_text(encoding="utf-8") for name in _SCRIPTS)
    held = "".join(
        f'<script type="text/plain" id="blob-{name}">{text}</script>\n' for name, text in blobs.items()
    )
    filled = {
        "title": html.escape(field),
        "style": read["style.css"],
        "data": f'<script type="application/json" id="data">{data}</script>\n{held}{cutouts}',
        "script": script,
    }
    # In one pass: what is filled in may itself hold something in braces.
    pieces = re.split(r"\{\{(title|style|data|script)\}\}", read["page.html"])
    return "".join(filled[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def _folder(work: WorkDir) -> str | None:
    """Address of the fits relative to the report; None where they are not below it."""
    if not work.fits.is_relative_to(work.root):
        return None
    return "/".join(quote(part) for part in work.fits.relative_to(work.root).parts)


def _cutouts(work: WorkDir, texts: Mapping[str, Any], sources: Mapping[str, Any]) -> str:
    """Cutouts of all sources, each in an element of its own that the browser does not decode until asked."""
    parts = []
    for number, (name, patch) in enumerate(zip(texts["id"], sources["patch"], strict=True)):
        tag = texts["patches"][patch]
        path = work.cutout(tag, name) if tag else None
        if path is not None and path.is_file():
            text = base64.b64encode(path.read_bytes()).decode("ascii")
            parts.append(f'<script type="text/plain" id="cutout-{number}">{text}</script>\n')
    return "".join(parts)


def _run(run: RunProducts) -> dict[str, Any]:
    kept = (
        "field", "status", "command", "run_id", "started", "finished", "wall_s", "parameters", "stages",
        "counts", "inputs", "versions", "configuration_sha256", "error",
    )  # fmt: skip
    about = {name: run.record.get(name) for name in kept}
    about["differences"] = [[key, value, default] for key, (value, default) in run.differences.items()]
    about["warnings"] = list(run.warnings)
    return about


def _zero_points(run: RunProducts, order: list[str]) -> list[dict[str, Any]]:
    if run.zero_points is None:
        return []
    found = []
    rows = run.zero_points.set_index("band")
    for band in order:
        if band not in rows.index:
            continue
        entry = {str(name): value for name, value in rows.loc[band].to_dict().items()}
        found.append({"band": band, **entry, "stars": _stars(run.stars, band)})
    return found


def _stars(stars: pd.DataFrame | None, band: str) -> list[list[Any]]:
    """``[magnitude, zero point, error, state, id]``; state 0 kept, 1 clipped, 2 unreliable."""
    if stars is None:
        return []
    mine = stars[stars["band"] == band]
    mine = mine[np.isfinite(mine["gaiaxp_mag"]) & np.isfinite(mine["zp"])]
    mine = mine.iloc[:: max(1, -(-len(mine) // _MOST_STARS))]
    kept, clipped = mine["is_kept"].to_numpy(bool), mine["is_clipped"].to_numpy(bool)
    state = np.where(kept, 0, np.where(clipped, 1, 2))
    columns = (
        mine["gaiaxp_mag"].round(4),
        mine["zp"].round(5),
        mine["zp_err"].round(5),
        mine["gaia_source_id"],
    )
    return [
        [float(mag), float(zp), float(err), int(s), str(name)]
        for mag, zp, err, name, s in zip(*columns, state, strict=True)
    ]


def _reliability(table: pd.DataFrame) -> dict[str, Any]:
    """How many sources have which issue; an issue comes with its sentence."""
    texts: list[str] = (
        table["fit_quality_issues"].fillna("").astype(str).tolist() if "fit_quality_issues" in table else []
    )
    lists = [set(text.split(",")) for text in texts]
    issues = [
        {
            "name": issue.name,
            "hard": issue.hard,
            "text": issue.text,
            "n": sum(issue.name in names for names in lists),
        }
        for issue in QUALITY_ISSUES
    ]
    reliable = int(table["fit_is_reliable"].sum()) if "fit_is_reliable" in table else 0
    return {"n": len(table), "reliable": reliable, "issues": issues}
