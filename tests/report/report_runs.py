"""Runs for the tests of the report: a small real one, and a large one of invented numbers."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from tract7dt.pipeline import run_steps
from tract7dt.qa.compass import SkyGeometry
from tract7dt.qa.report import RunProducts
from tract7dt.run_record import RunRecord
from tract7dt.sample import SampleOptions, make_sample
from tract7dt.settings import Settings, load_settings
from tract7dt.store import WorkDir
from tract7dt.types import Box

BANDS = ("m425", "m500", "r", "m700", "m850")


@dataclass(frozen=True)
class SmallRun:
    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def settings(self) -> Settings:
        return load_settings(str(self.config)).settings

    @property
    def work(self) -> WorkDir:
        return WorkDir.of(self.settings)

    @property
    def record(self) -> dict[str, Any]:
        return dict(json.loads(self.work.run_summary.read_text()))

    @property
    def catalog(self) -> pd.DataFrame:
        return pd.read_parquet(self.work.final_catalog.with_suffix(".parquet"))

    def copied(self, folder: Path) -> SmallRun:
        shutil.copytree(self.folder, folder)
        return SmallRun(folder)


def small_run(folder: Path) -> SmallRun:
    make_sample(folder, SampleOptions(width=300, height=260, bands=3, seed=4, stars=24, galaxies=8))
    values = {
        "inputs": {
            "tile_name": "REP",
            "input_catalog": "input_catalog.csv",
            "image_list_file": "image_list.txt",
            "gaiaxp_synphot_csv": "gaiaxp_synphot.csv",
        },
        "outputs": {"work_dir": "run"},
        "crop": {"margin": 6},
        "overlay": {"zoom_enabled": False},
        "plotting": {"dpi": 40},
        "epsf": {"epsf_ngrid": 1, "ngrid": 2},
        "patch_run": {"n_opt_iters": 8, "cutout_size": 40},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    run = SmallRun(folder)
    with RunRecord(run.settings, "run", "the-run") as record:
        run_steps(run.settings, "run", record)
    return run


def large_run(n: int, bands: tuple[str, ...], shape: tuple[int, int] = (1597, 2394)) -> RunProducts:
    """What a full tile would give: ``n`` sources, 49 cells a band, noise everywhere (nothing compresses)."""
    rng = np.random.default_rng(7)
    white = rng.normal(size=shape).astype(np.float32)
    table = pd.DataFrame(
        {
            "ID": [f"s{i:06d}" for i in range(n)],
            "RA": rng.uniform(10, 11, n),
            "DEC": rng.uniform(-1, 0, n),
            "TYPE": rng.choice(["STAR", "EXP", "SERSIC"], n),
            "stype_fit": rng.choice(["star", "exp", "sersic"], n),
            "x_pix_white": rng.uniform(0, shape[1] - 1, n),
            "y_pix_white": rng.uniform(0, shape[0] - 1, n),
            "gaia_source_id": "",
            "patch_tag": rng.choice([f"r00_c00_pr{i:02d}_pc00" for i in range(36)], n),
            "fit_is_reliable": rng.random(n) > 0.2,
            "fit_quality_issues": rng.choice(["", "bound_stalled", "bright_mask,not_converged"], n),
            "re_pix_fit": rng.uniform(0.5, 9, n),
            "ab_fit": rng.uniform(0.2, 1, n),
            "phi_deg_fit": rng.uniform(0, 180, n),
            "sersic_n_fit": rng.uniform(0.5, 6, n),
        }
    )
    for name, low in (("x_pix_white_fit", "x_pix_white"), ("y_pix_white_fit", "y_pix_white")):
        table[name] = table[low] + rng.normal(0, 0.1, n)
    fluxes = {}
    for band in bands:
        fluxes[f"FLUX_{band}_fit"] = 10 ** rng.uniform(0, 4, n)
        fluxes[f"FLUXERR_{band}_fit"] = 10 ** rng.uniform(0, 1, n)
        fluxes[f"CHI2_{band}_fit"] = rng.uniform(0.8, 1.3, n)
    table = pd.concat([table, pd.DataFrame(fluxes)], axis=1)
    stamp = rng.normal(0, 1e-4, (55, 55)).astype(np.float32)
    stamp[24:31, 24:31] += 0.02
    quality = {"fwhm_pix": 3.0, "ellipticity": 0.05, "theta_deg": 30.0}
    cells = {
        band: {
            f"r{r:02d}_c{c:02d}": {
                "row": r, "col": c, "kind": "epsf", "status": "built", "reason": "", "nstars_used": 20,
                "quality": quality, "stamp": stamp,
            }
            for r in range(7)
            for c in range(7)
        }
        for band in bands
    }  # fmt: skip
    record = {
        "field": "BIG", "status": "done", "command": "run", "run_id": "x", "started": "2026-01-01T00:00:00",
        "finished": "2026-01-01T01:00:00", "wall_s": 3600.0, "parameters": {}, "stages": [],
        "counts": {"sources": n}, "inputs": [], "versions": {}, "configuration_sha256": "0" * 64,
    }  # fmt: skip
    return RunProducts(
        record, {}, bands, shape, 25.0, white, table, None, None, cells, {},
        SkyGeometry(0.5, (0.0, 1.0), (-1.0, 0.0), ("N", "E"), ""), (),
    )  # fmt: skip


def residuals_of(work: WorkDir, shape: tuple[int, int], n_bands: int) -> dict[str, Box]:
    """One patch that covers the frame, of noise."""
    blocks = np.random.default_rng(1).normal(0, 16, (n_bands, -(-shape[0] // 8), -(-shape[1] // 8)))
    path = work.patch_residual("r00_c00_pr00_pc00")
    path.parent.mkdir(parents=True)
    np.save(path, np.clip(blocks, -127, 127).astype(np.int8))
    return {"r00_c00_pr00_pc00": Box(0, shape[1], 0, shape[0])}


def opened(browser: Any, path: Path) -> None:
    """Open a report and wait until it is there; what was logged before is forgotten."""
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(path.as_uri())
    end = time.monotonic() + 60
    while not browser.execute_script("return document.body && document.body.dataset.ready"):
        assert time.monotonic() < end, browser.get_log("browser")
        time.sleep(0.05)


def until(browser: Any, script: str) -> Any:
    """Value of a script once it is true."""
    end = time.monotonic() + 30
    while not (value := browser.execute_script(f"return {script}")):
        assert time.monotonic() < end, f"{script} did not come true; {browser.get_log('browser')}"
        time.sleep(0.05)
    return value


def console_errors(browser: Any) -> list[str]:
    return [
        entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
    ]


def requests(browser: Any) -> set[str]:
    """Addresses that were asked for since the report was opened, without what lies in the file itself."""
    found = set()
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.add(message["params"]["request"]["url"].split("#")[0])
    # the browser's first page, a tab that is being closed, may still ask for parts of itself
    return {url for url in found if not url.startswith(("data:", "blob:", "chrome"))}
