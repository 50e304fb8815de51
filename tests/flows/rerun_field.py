"""A tiny field with a work_dir and the flow over it, on the server of the tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tract7dt.sample import SampleOptions, make_sample

OPTIONS = SampleOptions(
    width=220, height=220, bands=2, seed=6, stars=22, galaxies=6, saturated=1, uncatalogued=1, mag_limit=19.0
)
CONFIG = """\
inputs: {tile_name: TINY, input_catalog: field/input_catalog.csv, image_list_file: field/image_list.txt,
         gaiaxp_synphot_csv: field/gaiaxp_synphot.csv}
outputs: {work_dir: work}
crop: {margin: 6, plot_pre_crop: false}
overlay: {zoom_enabled: false}
plotting: {dpi: 40}
epsf: {epsf_ngrid: 2, ngrid: 2}
patch_run: {no_patch_overview: true, no_cutouts: true, n_opt_iters: 4}
runtime: {task_runner: thread, max_workers: 2}
"""


@dataclass
class Field:
    """A field with a work_dir, and the server that its runs report to."""

    folder: Path
    server_url: str

    def run(self, **given: Any) -> set[str]:
        """Run the flow; the stages that were not reused."""
        from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

        from flows.patience import no_heartbeat
        from flows.photometry import photometry

        there = {PREFECT_API_URL: self.server_url, PREFECT_LOGGING_TO_API_ENABLED: False}
        with temporary_settings(there), no_heartbeat():
            photometry(str(self.folder / "config.yaml"), **given)
        return {entry["name"] for entry in self.summary["stages"] if entry["status"] == "done"}

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "work" / "run_summary.json").read_text()))

    def detail(self, stage: str) -> dict[str, Any]:
        return next(dict(e["detail"]) for e in self.summary["stages"] if e["name"] == stage)

    @property
    def image(self) -> Path:
        return min((self.folder / "field").rglob("*.fits"))

    @property
    def catalogue(self) -> Path:
        return self.folder / "work" / "output_catalog.csv"

    @classmethod
    def made(cls, folder: Path, server_url: str) -> Field:
        """The field in ``folder``, and a first run of it."""
        make_sample(folder / "field", OPTIONS)
        (folder / "config.yaml").write_text(CONFIG)
        field = cls(folder, server_url)
        assert len(field.run()) == 10
        assert field.summary["status"] == "done"
        assert field.summary["counts"]["patches"] > 8
        return field
