"""A small simulated field with every difficulty in it, and whole runs on it in this process."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
import yaml

from tract7dt import qa
from tract7dt.pipeline import run_steps
from tract7dt.run_record import RunRecord
from tract7dt.sample import SampleField
from tract7dt.settings import Settings, load_settings
from tract7dt.store import WorkDir

REPOSITORY = Path(__file__).resolve().parents[2]

#: Flags that are plain booleans in every row of every format.
FLAGS = ("excluded_crop", "excluded_saturation", "excluded_any", "affected_by_bright_mask", "fit_is_reliable")

#: Few and small pictures: they cost more than the fit, and say nothing here.
PICTURES: dict[str, Any] = {
    "crop": {"plot_pre_crop": False, "plot_post_crop": False},
    "overlay": {"enabled": False},
    "plotting": {"dpi": 40},
    "epsf": {
        "save_star_montage_max": 0,
        "save_patch_background_diagnostics": False,
        "save_star_local_background_diagnostics": False,
        "save_growth_curve": False,
        "save_residual_diagnostics": False,
    },
    "patch_run": {"no_cutouts": True, "no_patch_overview": True},
    "report": {"enabled": False},
}

#: Two by two patches in one ePSF cell.
DIVISION: dict[str, Any] = {"crop": {"margin": 8}, "epsf": {"epsf_ngrid": 1, "ngrid": 2}}


class _Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(f"{record.levelname} {record.getMessage()}")


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """Messages that the library logs within the block, each after its level."""
    handler, logger = _Messages(), logging.getLogger("tract7dt")
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield handler.texts
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@dataclass
class Run:
    """A run that has ended well."""

    settings: Settings
    config: Path
    log: list[str] = field(default_factory=list)

    @property
    def work(self) -> WorkDir:
        return WorkDir.of(self.settings)

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads(self.work.run_summary.read_text(encoding="utf-8")))

    def stage(self, name: str) -> dict[str, Any]:
        return next(entry for entry in self.summary["stages"] if entry["name"] == name)

    def catalogue(self, kind: str) -> Path:
        return self.work.final_catalog.with_suffix(f".{kind}")

    @property
    def text(self) -> pd.DataFrame:
        """The CSV with every cell as the file has it."""
        return pd.read_csv(self.catalogue("csv"), dtype=str, keep_default_na=False)

    @property
    def table(self) -> pd.DataFrame:
        return pd.read_parquet(self.catalogue("parquet"))

    def bytes(self, *kinds: str) -> list[bytes]:
        return [self.catalogue(kind).read_bytes() for kind in kinds or ("csv", "parquet", "fits")]

    def again(self, command: str, **changes: Mapping[str, Any]) -> Run:
        """Another command on the same work_dir; changes count for it and for what follows on its result."""
        given = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        path = self.config.with_name(f"{self.config.stem}_.yaml")
        return execute(write_config(path, merged(given, changes)), command)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the sections of ``changes`` laid over it, key by key."""
    result = deepcopy(dict(base))
    for section, values in changes.items():
        result[section] = result.get(section, {}) | dict(values)
    return result


def configuration(sample: SampleField, work_dir: Path, **changes: Mapping[str, Any]) -> dict[str, Any]:
    given = {
        "inputs": {
            "tile_name": "SMALL",
            "input_catalog": str(sample.catalog),
            "image_list_file": str(sample.image_list),
            "gaiaxp_synphot_csv": str(sample.gaia),
        },
        "outputs": {"work_dir": str(work_dir)},
    }
    return merged(merged(merged(given, PICTURES), DIVISION), changes)


def write_config(path: Path, values: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False), encoding="utf-8")
    return path


def execute(config: Path, command: str = "run", pictures: bool = False) -> Run:
    """Run ``command`` here, as ``tract7dt COMMAND --direct`` does, with or without its pictures."""
    loaded = load_settings(config)
    settings = loaded.settings
    drawing = [name for name in qa.__all__ if name.startswith("draw_")]
    undrawn = nullcontext() if pictures else mock.patch.multiple(qa, **dict.fromkeys(drawing, mock.DEFAULT))
    with undrawn, logged() as messages, RunRecord(settings, command) as record:
        run_steps(settings, command, record)
    return Run(settings, config, [f"WARNING {text}" for text in loaded.warnings] + messages)


@dataclass
class Ended:
    """A command that has ended."""

    code: int
    err: str
    cpu_s: float


def start(*arguments: str) -> Ended:
    """Run this Python with ``arguments``."""
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Ended(done.returncode, done.stderr, spent)


def read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV, every cell as it stands."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    return rows[0], rows[1:]


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


def simulate(shared: Path, folder: Path, seed: int, *options: str) -> Path:
    """A field of the GalSim simulator."""
    pytest.importorskip("galsim")
    command = [sys.executable, shared / "tools" / "make_field.py", folder, "--seed", str(seed), *options]
    subprocess.run([str(part) for part in command], check=True)
    return folder
