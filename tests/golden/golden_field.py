"""What every stage makes of one small field, in numbers that survive another machine's last bits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tract7dt import catalog, frames, psf, stages
from tract7dt import sources as src
from tract7dt.patches import read_payload
from tract7dt.reuse import STAGE_VERSIONS
from tract7dt.sample import SampleOptions, make_sample
from tract7dt.settings import settings_from_dict
from tract7dt.store import WorkDir

__all__ = ["FOLDER", "UPSTREAM", "differences", "golden", "stored", "summaries"]

FOLDER = Path(__file__).resolve().parent

#: Stages whose result each stage sees: where one of them has changed, its own numbers may change, too.
UPSTREAM: Mapping[str, tuple[str, ...]] = {}
_before: tuple[str, ...] = ()
_upstream: dict[str, tuple[str, ...]] = {}
for _name in STAGE_VERSIONS:
    _upstream[_name] = _before
    _before = (*_before, _name)
UPSTREAM = _upstream

#: Relative to the value, and to the spread of its column: about what sums in another order come to after a fit.
TOLERANCE = 2e-3

#: Columns that count steps of the optimiser: one step more or less is no other result.
_STEPS = re.compile(r"niter|dlnp|stall|hit_max|bound|converged|time|cpu")

OPTIONS = SampleOptions(
    width=280,
    height=260,
    bands=2,
    seed=11,
    stars=24,
    galaxies=10,
    saturated=1,
    uncatalogued=1,
    mag_limit=19.5,
)

VALUES: dict[str, dict[str, Any]] = {
    "crop": {"margin": 6, "plot_pre_crop": False, "plot_post_crop": False},
    "overlay": {"enabled": False},
    "plotting": {"dpi": 20},
    "epsf": {"epsf_ngrid": 1, "ngrid": 2, "max_workers": 1},
    "patch_inputs": {"max_workers": 1, "gzip_compresslevel": 0},
    "patch_run": {"no_patch_overview": True, "no_cutouts": True},
}


def column(values: Any) -> dict[str, Any]:
    """Finite values of an array: how many, the mean, and five quantiles."""
    numbers = np.asarray(values, float).ravel()
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return {"n": 0}
    quantiles = np.quantile(finite, [0, 0.1, 0.5, 0.9, 1])
    return {"n": len(finite), "mean": _short(finite.mean()), "quantiles": [_short(q) for q in quantiles]}


def _short(value: float) -> float:
    return float(f"{value:.7g}")


def table(rows: pd.DataFrame) -> dict[str, Any]:
    """Numbers of each column; of text, how often each of a few values comes."""
    found: dict[str, Any] = {"rows": len(rows), "columns": list(map(str, rows.columns))}
    for name in rows.columns:
        values = rows[name]
        if _STEPS.search(str(name)):
            continue
        if pd.api.types.is_bool_dtype(values.dtype) or pd.api.types.is_numeric_dtype(values.dtype):
            found[str(name)] = column(values)
        elif values.nunique() <= 6:
            found[str(name)] = {str(k): int(v) for k, v in sorted(values.astype(str).value_counts().items())}
    return found


def summaries(folder: Path) -> dict[str, dict[str, Any]]:
    """Run the stages in ``folder``; a summary of each one's result, by its name."""
    sample = make_sample(folder / "sample", OPTIONS)
    inputs = {
        "tile_name": "GOLDEN",
        "input_catalog": str(sample.catalog),
        "image_list_file": str(sample.image_list),
        "gaiaxp_synphot_csv": str(sample.gaia),
    }
    settings = settings_from_dict(
        {"inputs": inputs, "outputs": {"work_dir": str(folder / "work")}} | VALUES, folder
    ).settings
    work = WorkDir.of(settings)
    found: dict[str, dict[str, Any]] = {}

    field, sources = stages.load_inputs(settings)
    opened = frames.open_field(field.path)
    found["load_inputs"] = {
        "frames": {band: column(frame.data) | _numbers(frame) for band, frame in opened.frames.items()},
        "white": column(opened.white),
        "white_sigma": column(opened.white_sigma),
        "crop": [opened.crop.x0, opened.crop.x1, opened.crop.y0, opened.crop.y1],
        "crval": [float(value) for value in opened.wcs.wcs.crval],
        "sources": table(src.read_sources(sources.path).table),
    }
    sources = stages.augment_gaia(settings, field, sources)
    found["augment_gaia"] = {"sources": table(src.read_sources(sources.path).table)}
    mask, sources = stages.bright_mask(settings, field, sources)
    bits = np.asarray(_bright_bits(mask.path))
    found["bright_mask"] = {
        "bright": int((bits & 1).sum()),
        "saturated": int(((bits & 2) != 0).sum()),
        "affected": int(src.read_sources(sources.path).table["affected_by_bright_mask"].sum()),
    }
    bands = stages.epsf_bands(settings, field)
    epsf = [stages.build_epsf_band(settings, field, sources, band) for band in bands]
    found["build_epsf_band"] = {band: _epsf(ref.path) for band, ref in zip(bands, epsf)}
    summary = json.loads(Path(stages.summarise_epsf(settings, epsf).path).read_text())
    found["summarise_epsf"] = {"bands": [band["band"] for band in summary["bands"]], "keys": sorted(summary)}
    patches = stages.build_patches(settings, field, sources)
    found["build_patches"] = {"patches": json.loads(Path(patches.path).read_text())}
    masks = stages.compose_final_masks(settings, field, mask)
    counts = json.loads(Path(masks.path).read_text())["bands"]
    found["compose_final_masks"] = {
        band: {name: n for name, n in entry.items() if name.startswith("n_")}
        for band, entry in counts.items()
    }
    payloads = stages.build_patch_inputs(settings, field, sources, masks, patches, epsf)
    found["build_patch_inputs"] = {stages.payload_tag(ref): _payload(ref.path) for ref in payloads}
    fits = stages.fit_patch_batch(settings, payloads)
    tags = [stages.payload_tag(ref) for ref in payloads]
    fitted = pd.concat([catalog.read_patch_catalog(work.patch_catalog(tag)) for tag in tags])
    found["fit_patch_batch"] = {"fitted": table(fitted), "statuses": len(fits)}
    merged = stages.merge(settings, field, sources, fits)
    found["merge"] = {"merged": table(catalog.read_merged(Path(merged.path)))}
    final = stages.compute_zp(settings, field, merged)
    wanted = [name for name in catalog.read_catalog(final.path).columns if name.startswith("MAG")]
    found["compute_zp"] = {
        "magnitudes": table(catalog.read_catalog(final.path)[wanted]),
        "summary": table(pd.read_csv(work.zp_summary)),
    }
    return found


def _numbers(frame: Any) -> dict[str, Any]:
    names = ("sky_sigma", "gain", "scale", "saturation", "fwhm_pix")
    return {name: None if getattr(frame, name) is None else _short(getattr(frame, name)) for name in names}


def _bright_bits(path: str) -> Any:
    from tract7dt.brightmask import read_bright_mask

    return read_bright_mask(path)


def _epsf(manifest: str) -> dict[str, Any]:
    grid = psf.read_band(manifest)
    cells = {
        tag: {"kind": epsf.kind, "n_stars": epsf.n_stars, "stamp": _stamp(epsf.stamp)}
        for tag, epsf in grid.cells.items()
    }
    return {"cells": cells, "spatial": None if grid.spatial is None else _stamp(grid.spatial.stamp)}


def _stamp(stamp: Any) -> dict[str, Any]:
    """Light within circles about the centre."""
    size = len(stamp)
    y, x = np.mgrid[:size, :size] - size // 2
    radius = np.hypot(x, y)
    return {"size": size, "within": [_short(stamp[radius <= r].sum()) for r in (0.5, 1.5, 3, 6, 12)]}


def _payload(path: str) -> dict[str, Any]:
    payload = read_payload(path)
    kinds = payload.table["halo_kind"].astype(str).value_counts()
    return {
        "shape": list(payload.data.shape),
        "bad": int((payload.bad != 0).sum()),
        "sources": {kind or "base": int(n) for kind, n in sorted(kinds.items())},
        "data": column(payload.data),
        "psf": [None if epsf is None else _stamp(epsf.stamp) for epsf in payload.psfs],
        "columns": list(map(str, payload.table.columns)),
    }


# --- against what is stored ----------------------------------------------------------------------------


def stored(stage: str) -> dict[str, Any]:
    """Golden file of a stage; empty where there is none."""
    path = FOLDER / f"{stage}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def golden(stage: str, summary: dict[str, Any]) -> dict[str, Any]:
    """Content of the golden file of a stage as things stand."""
    upstream = {name: STAGE_VERSIONS[name] for name in UPSTREAM[stage]}
    return {"stage": stage, "version": STAGE_VERSIONS[stage], "upstream": upstream, "summary": summary}


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """What differs by more than the tolerance, in words."""
    if isinstance(expected, dict) and isinstance(found, dict):
        if "quantiles" in expected and "quantiles" in found:
            return _column_differences(expected, found, where)
        lacking = [f"{where}/{name}: gone" for name in expected if name not in found]
        added = [f"{where}/{name}: new" for name in found if name not in expected]
        shared = (differences(expected[n], found[n], f"{where}/{n}") for n in expected if n in found)
        return lacking + added + [text for texts in shared for text in texts]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return [
            text
            for i, (a, b) in enumerate(zip(expected, found))
            for text in differences(a, b, f"{where}/{i}")
        ]
    if isinstance(expected, float) and isinstance(found, (int, float)):
        close = abs(expected - found) <= TOLERANCE * max(abs(expected), 1e-3)
        return [] if close else [f"{where}: {expected} -> {found}"]
    return [] if expected == found else [f"{where}: {expected!r:.60} -> {found!r:.60}"]


def _column_differences(expected: dict[str, Any], found: dict[str, Any], where: str) -> list[str]:
    """Quantiles are compared with the spread of the column in mind, its extremes not at all."""
    if expected["n"] != found["n"]:
        return [f"{where}: {expected['n']} finite values -> {found['n']}"]
    spread = abs(expected["quantiles"][3] - expected["quantiles"][1])
    pairs: Iterable[tuple[float, float]] = zip(expected["quantiles"][1:4], found["quantiles"][1:4])
    wrong = [f"{a} -> {b}" for a, b in pairs if abs(a - b) > TOLERANCE * (abs(a) + spread) + 1e-9]
    rest = {name: value for name, value in expected.items() if name not in ("n", "mean", "quantiles")}
    more = [text for name in rest for text in differences(rest[name], found.get(name), f"{where}/{name}")]
    return ([f"{where}: {', '.join(wrong)}"] if wrong else []) + more
