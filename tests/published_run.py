"""A finished run on disk, small and whole, with everything that is published and some that is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from tract7dt.catalog.writers import write_catalog
from tract7dt.settings import Settings
from tract7dt.settings.paths import resolve_paths
from tract7dt.store import WorkDir

STAGES = (
    "load_inputs",
    "augment_gaia",
    "bright_mask",
    "build_epsf",
    "build_patches",
    "compose_final_masks",
) + (
    "build_patch_inputs",
    "run_patches",
    "merge",
    "compute_zp",
)


def make_run(folder: Path, url: str | None, tile: str = "UDS", n_rows: int = 3, **more: Any) -> Settings:
    """Write the products of a run to ``folder / "run"``."""
    settings = resolve_paths(
        Settings.model_validate(
            {
                "inputs": {"tile_name": tile, "input_catalog": "cat.csv", "image_list_file": "list.txt"},
                "outputs": {"work_dir": str(folder / "run")},
                "publish": {"url": url, **more},
            }
        ),
        folder,
    )
    work = WorkDir.of(settings)
    work.root.mkdir(parents=True)
    table = pd.DataFrame(
        {
            "ID": [f"{i:05d}" for i in range(n_rows)],
            "RA": [34.5 + 0.001 * i for i in range(n_rows)],
            "DEC": [-5.1] * n_rows,
            "FLUX_m400_fit": [10.0, float("nan"), *[3.0] * (n_rows - 2)],
            "MAG_m400_fit": [22.5, float("nan"), *[23.8] * (n_rows - 2)],
            "opt_niters": pd.array([5, None, *[7] * (n_rows - 2)], dtype="Int64"),
            "fit_is_reliable": [True, False, *[True] * (n_rows - 2)],
        }
    )
    write_catalog(table, work.final_catalog, ["m400"], {"field": tile})
    for name, text in {
        "ZP/zp_summary.csv": "band,zp_median\nm400,25.01\n",
        "ZP/zp_vs_mag__m400.png": "png",
        "ZP/zp_all_bands__per_object.csv": "band\nm400\n",
        f"ZP/{tile}_with_Gaia.csv": "ID\n1\n",
        "overlay/white_overlay.png": "png",
        "EPSFs/m400/r00_c00/epsf.png": "png",
        "EPSFs/m400/r00_c00/epsf.npy": "not published",
        "EPSFs/epsf_summary.json": "{}",
        "outputs/r00_c00_pr00_pc00/patch_overview.png": "png",
        "outputs/r00_c00_pr00_pc00/cutouts/src_a%2Fb.png": "png",
        "outputs/r00_c00_pr00_pc00/cutouts/src_halo_7.png": "png",
        "outputs/r00_c00_pr00_pc00/meta.json": json.dumps({"status": "done"}),
        "patch_payloads/r00_c00_pr00_pc00.fits.gz": "not published",
        "patches/patches.csv": "patch_tag\nr00_c00_pr00_pc00\n",
        "frames/m400.npy": "not published",
        "wcs.fits": "fits",
        "report.html": "<h1>UDS</h1>",
        "config_used_20260101_000000.yaml": "an: older one\n",
        "config_used_20260102_000000.yaml": "inputs: {tile_name: UDS}\n",
        "run.log": "2026-01-02 | tract7dt | INFO | loaded\n",
    }.items():
        path = work.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    write_summary(settings)
    return settings


def write_summary(settings: Settings, status: str = "done", **changes: Any) -> None:
    """Write ``run_summary.json`` as a run leaves it."""
    entry = {"command": "run", "started": "", "wall_s": 1.0, "cpu_s": 1.0, "peak_rss_mb": 1.0, "detail": {}}
    summary = {
        "status": status,
        "command": "run",
        "field": settings.inputs.tile_name,
        "started": "2026-01-02T00:00:00+00:00",
        "finished": "2026-01-02T01:00:00+00:00",
        "error": None,
        "stages": [{"name": name, "status": "done", **entry} for name in STAGES],
        "counts": {"sources": 3, "failed_patches": {}},
        "inputs": [{"path": "s3://raw/UDS.fits", "sha256": "0" * 64}],
        "versions": {"python": "3.11.9", "numpy": "2.4.6"},
        "configuration_sha256": "1" * 64,
    } | changes
    WorkDir.of(settings).run_summary.write_text(json.dumps(summary))
