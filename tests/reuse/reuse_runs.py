"""A small field of one's own, and runs on it of which one can ask what they did."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tract7dt.pipeline import run_steps
from tract7dt.run_record import RunRecord
from tract7dt.sample import SampleField, SampleOptions, make_sample
from tract7dt.settings import Settings, load_settings
from tract7dt.store import WorkDir

OPTIONS = SampleOptions(
    width=260, height=260, bands=2, seed=6, stars=22, galaxies=6, saturated=1, uncatalogued=1, mag_limit=19.0
)

#: Small pictures, and not all of them.
BASE: dict[str, dict[str, Any]] = {
    "crop": {"margin": 6, "plot_pre_crop": False},
    "overlay": {"zoom_enabled": False},
    "plotting": {"dpi": 40},
    "epsf": {"epsf_ngrid": 1, "ngrid": 2, "max_workers": 1},
    "patch_inputs": {"max_workers": 2},
    "patch_run": {"no_patch_overview": True, "no_cutouts": True, "n_opt_iters": 6},
    "report": {"enabled": False},
}


@dataclass
class Rerun:
    """A field with its own copy of the inputs and its own work_dir; ``changes`` add up from run to run."""

    folder: Path
    values: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, sample: SampleField, folder: Path) -> Rerun:
        shutil.copytree(sample.directory, folder / "field")
        inputs = {
            "tile_name": "TINY",
            "input_catalog": f"field/{sample.catalog.name}",
            "image_list_file": f"field/{sample.image_list.name}",
            "gaiaxp_synphot_csv": f"field/{sample.gaia.name}",
        }
        values = {"inputs": inputs, "outputs": {"work_dir": "work"}}
        return cls(folder, values | {name: dict(section) for name, section in BASE.items()})

    @property
    def settings(self) -> Settings:
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(self.values), encoding="utf-8")
        return load_settings(path).settings

    @property
    def work(self) -> WorkDir:
        return WorkDir.of(self.settings)

    @property
    def images(self) -> list[Path]:
        return sorted((self.folder / "field").rglob("*.fits"))

    def set(self, dotted: str, value: Any) -> None:
        section, name = dotted.split(".")
        self.values.setdefault(section, {})[name] = value

    def run(self, *refresh: str, command: str = "run") -> dict[str, dict[str, Any]]:
        """Run; what the record says of each stage that was not reused, by name."""
        settings = self.settings
        with RunRecord(settings, command) as record:
            run_steps(settings, command, record, refresh)
        summary = json.loads(self.work.run_summary.read_text(encoding="utf-8"))
        return {entry["name"]: entry["detail"] for entry in summary["stages"] if entry["status"] == "done"}

    def catalogue(self) -> bytes:
        return self.work.final_catalog.read_bytes()


def small_sample(folder: Path) -> SampleField:
    return make_sample(folder / "sample", OPTIONS)


def copied(field: Rerun, folder: Path) -> Rerun:
    """A copy of a field at another place, with other times of its files."""
    shutil.copytree(field.folder, folder)
    return Rerun(folder, {name: dict(section) for name, section in field.values.items()})
