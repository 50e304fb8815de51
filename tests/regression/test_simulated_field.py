"""Acceptance: a field of the GalSim simulator, default settings, against its truth.

The simulator and the checker are not part of this repository (nor do they share code with it); without them
the tests are skipped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from regression_runs import PICTURES, Run, execute, merged, simulate, write_config

SEEDS = [11, pytest.param(12, marks=pytest.mark.slow), pytest.param(22, marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=SEEDS, ids=lambda seed: f"seed{seed}")
def field(request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1000 x 1000 pixels, 6 bands, 375 sources."""
    folder = tmp_path_factory.mktemp("simulated") / f"seed{request.param}"
    return simulate(shared, folder, request.param, "--size", "1000", "1000", "--bands", "6")


@pytest.fixture(scope="module")
def run(field: Path) -> Run:
    """The field's own configuration but for the pictures."""
    values = yaml.safe_load((field / "config.yaml").read_text(encoding="utf-8"))
    return execute(write_config(field / "config_cheap.yaml", merged(values, PICTURES)), pictures=True)


@pytest.fixture(scope="module")
def figures(run: Run, field: Path, shared: Path) -> dict[str, Any]:
    command = [sys.executable, shared / "tools" / "check_run.py", field, run.catalogue("csv"), "--json"]
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def test_every_row_is_there_in_order(figures: dict[str, Any]) -> None:
    assert figures["rows_ok"]


def test_sources_are_reliable(figures: dict[str, Any]) -> None:
    assert figures["reliable"] >= 0.93


def test_zero_points_are_those_of_the_truth(run: Run, field: Path, figures: dict[str, Any]) -> None:
    """To 10 mmag, or to their own error where few stars tell less; 6 mmag in the mean square of the bands."""
    assert figures["zp_bands"] == 6
    found = pd.read_csv(run.catalogue("csv").parent / "ZP" / "zp_summary.csv").set_index("band")
    truth = pd.read_csv(field / "truth_bands.csv").set_index("band")["zp_expect"]
    off = (found["zp_median"] - truth.reindex(found.index)).abs()
    assert (off <= found["zp_err_median"].clip(lower=0.01)).all()
    assert float((off**2).mean()) ** 0.5 <= 0.006


def test_errors_describe_the_scatter_of_the_fluxes(figures: dict[str, Any]) -> None:
    assert figures["pull_n"] > 1500
    assert abs(figures["pull_median"]) <= 0.15
    assert 0.9 <= figures["pull_width"] <= 1.25


def test_no_patch_fails_on_a_hard_sky(run: Run, field: Path) -> None:
    truth = pd.read_csv(field / "truth.csv", keep_default_na=False)
    bands = pd.read_csv(field / "truth_bands.csv")
    assert truth["saturated"].any()
    assert ((truth["ID"] == "") & ~truth["gaia"]).any(), "a star that nobody knows"
    assert bands["nan_column"].any()
    assert bands["nan_box"].any()
    assert bands["trail"].any()
    assert run.summary["counts"]["failed_patches"] == {}
    active = run.table[~run.table["excluded_any"]]
    assert active["x_pix_white_fit"].notna().all()
