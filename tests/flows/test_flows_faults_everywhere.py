"""Runs of the flow that die, find no room or lose their clock in every stage; what the run after them does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from stricken_stages import STAGES

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "badinput"))

from badinput_field import TinyField, make_field  # noqa: E402

CONFIG: dict[str, dict[str, Any]] = {
    "epsf": {"epsf_ngrid": 1, "ngrid": 2},
    "patches": {"halo_pix_min": 4},
    "inputs": {"gaiaxp_synphot_csv": "gaia.csv"},
    "zp": {"enabled": True},
    "report": {"enabled": True},
    "runtime": {"max_workers": 1, "patches_per_task": 4},
}
#: Stages by the names of the record.
RECORDED = {"build_epsf_band": "build_epsf", "fit_patch_batch": "run_patches"}

pytestmark = pytest.mark.slow


@dataclass
class Night:
    """A small field and runs of the flow over it."""

    tiny: TinyField
    environment: dict[str, str]
    url: str

    def run(self, strike: str | None = None, *options: str) -> tuple[int, str]:
        """Exit code (negative: signal) and what it said."""
        command = [sys.executable, str(HERE / "stricken_cli.py"), "run", "--config", "config.yaml", *options]
        struck = {"STRIKE": strike} if strike else {}
        environment = self.environment | struck
        done = subprocess.run(
            command, env=environment, cwd=self.tiny.folder, capture_output=True, text=True, timeout=600
        )
        return done.returncode, done.stdout + done.stderr

    @property
    def summary(self) -> dict[str, Any]:
        return dict(json.loads((self.tiny.work / "run_summary.json").read_text()))

    @property
    def catalogue(self) -> str:
        return (self.tiny.work / "output_catalog.csv").read_text()

    def status(self) -> dict[str, str]:
        return {entry["name"]: entry["status"] for entry in self.summary["stages"]}

    def state(self, run_id: str) -> str:
        """Of the run, as the UI shows it."""
        with urllib.request.urlopen(f"{self.url}/flow_runs/{run_id}", timeout=20) as answer:
            return str(json.load(answer)["state"]["type"])

    def fits(self) -> dict[str, tuple[int, int]]:
        """Identity of each finished fit: it changes when a patch is fitted again."""
        found = [(path.parent.name, path.stat()) for path in self.tiny.work.glob("outputs/*/meta.json")]
        return {tag: (stat.st_ino, stat.st_mtime_ns) for tag, stat in found}

    def temporaries(self) -> list[Path]:
        return list(self.tiny.work.rglob(".*.tmp*"))


def night(folder: Path, environment: dict[str, str], url: str) -> Night:
    tiny = make_field(folder / "field")
    tiny.config(CONFIG)
    kept = {k: v for k, v in environment.items() if k != "STRIKE"}
    return Night(tiny, kept | {"PREFECT_API_URL": url}, url)


@pytest.fixture
def stricken(tmp_path: Path, served: Any, server_url: str) -> Night:
    return night(tmp_path / "stricken", served.environment, server_url)


@pytest.fixture
def healthy(tmp_path: Path, served: Any, server_url: str) -> str:
    """The catalogue of a run without a fault."""
    made = night(tmp_path / "healthy", served.environment, server_url)
    code, said = made.run(None, "--direct")
    assert code == 0, said
    return made.catalogue


def test_killed_in_every_stage_each_run_goes_on_where_the_last_one_was(stricken: Night, healthy: str) -> None:
    """One work_dir, ten runs that die, each a stage further, and one that ends: the flow is killed each time."""
    finished: dict[str, tuple[int, int]] = {}
    dead: str | None = None
    for number, stage in enumerate(STAGES):
        # A fit has five files: with the twelfth two patches are finished, and one is half.
        code, said = stricken.run(f"{stage} kill {12 if stage == 'fit_patch_batch' else 1}")
        assert code == -signal.SIGKILL, (stage, said)
        if dead:
            assert stricken.state(dead) == "CRASHED"  # the run after it has told the server
        dead = stricken.summary["run_id"]
        assert stricken.state(dead) == "RUNNING"  # nobody has told yet
        status = stricken.status()
        before = [RECORDED.get(name, name) for name in STAGES[:number]]
        assert status[RECORDED.get(stage, stage)] == "running", (stage, status)
        # Made again is only what was under way when the last run died.
        assert [status[name] for name in before[:-1]] == ["cached"] * len(before[:-1]), (stage, status)
        fits = stricken.fits()
        assert {tag: fits[tag] for tag in finished} == finished
        finished = fits
        if stage == "fit_patch_batch":
            assert len(finished) == 2
    assert len(finished) == 4
    code, said = stricken.run()
    assert code == 0, said
    assert stricken.state(str(dead)) == "CRASHED"
    assert stricken.state(stricken.summary["run_id"]) == "COMPLETED"
    assert stricken.fits() == finished
    assert stricken.catalogue == healthy
    assert stricken.temporaries() == []
    assert (stricken.tiny.work / "report.html").is_file()


@pytest.mark.parametrize("stage", ["load_inputs", "build_patch_inputs", "merge"])
def test_clock_that_goes_back_a_day(stricken: Night, healthy: str, stage: str) -> None:
    code, said = stricken.run(f"{stage} clock 1")
    assert code == 0, said
    assert stricken.catalogue == healthy
    assert stricken.state(stricken.summary["run_id"]) == "COMPLETED"
    assert all(entry["wall_s"] >= 0 for entry in stricken.summary["stages"])
    fits = stricken.fits()
    code, said = stricken.run()  # its files are from a time that has not come yet, or from before
    assert code == 0, said
    assert set(stricken.status().values()) == {"cached"}
    assert stricken.fits() == fits
    assert stricken.catalogue == healthy
    assert stricken.temporaries() == []


MOUNT = 'mount -t tmpfs -o size=16m none "$1" && shift && exec "$@"'


def test_disk_that_is_full_in_the_middle_of_a_write(tmp_path: Path, served: Any, server_url: str) -> None:
    """A file system of 16 MB in a namespace of our own, filled but for a little; then the room comes back."""
    place = tmp_path / "small"
    place.mkdir()
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNT, "sh", str(place)]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no mount namespaces here: {error}")
    script = [sys.executable, str(HERE / "full_disk_runs.py"), str(place), server_url]
    done = subprocess.run(
        [*prefix, *script], env=served.environment, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    healthy, *tried = [json.loads(line) for line in done.stdout.splitlines()]
    assert healthy["code"] == 0, healthy["said"]
    assert healthy["state"] == "COMPLETED"
    assert len(tried) >= 3
    for case in tried:
        assert case["code"] == 1, case
        assert re.search("No space left on device|Not enough space on disk", case["said"])
        assert "what to do:" in case["said"]
        assert case["state"] in ("FAILED", None)  # None: there was not even room to begin
        assert case["again"] == 0, case
        assert case["state_again"] == "COMPLETED"
        assert case["catalogue"] == healthy["catalogue"]
        assert case["refitted"] == []
        assert case["temporaries"] == []
    assert {case["state"] for case in tried} != {None}


def environment_of_now() -> dict[str, str]:
    return dict(os.environ)
