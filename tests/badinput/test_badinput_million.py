"""A catalogue of a million rows, most of them of another part of the sky: the run ends, and every row is there."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from badinput_field import make_field

REPOSITORY = Path(__file__).resolve().parents[2]
N_OUTSIDE = 1_000_000
#: Sources on the frame beside its stars.
N_INSIDE = 200
#: What the run may take at its largest, MB.
MOST_MB = 2000


@pytest.mark.slow
def test_a_million_rows(tmp_path: Path) -> None:
    tiny = make_field(tmp_path / "field")
    rng = np.random.default_rng(9)
    half = 40 * 0.505 / 3600
    places = [
        ("out", rng.uniform(100.0, 140.0, N_OUTSIDE), rng.uniform(-20.0, 20.0, N_OUTSIDE)),
        (
            "in",
            rng.uniform(150.0 - half, 150.0 + half, N_INSIDE),
            rng.uniform(2.0 - half, 2.0 + half, N_INSIDE),
        ),
    ]
    with tiny.catalogue.open("a") as stream:
        for name, ra, dec in places:
            stream.writelines(f"{name}{i},{a:.8f},{d:.8f},STAR\n" for i, (a, d) in enumerate(zip(ra, dec)))
    on = {"enabled": True}
    tiny.config(
        {"report": on, "zp": on, "overlay": on, "epsf": {"ngrid": 2}, "crop": {"plot_pre_crop": True}}
        | {"inputs": {"gaiaxp_synphot_csv": "gaia.csv"}}
    )
    command = [
        sys.executable,
        "-m",
        "flows.cli",
        "run",
        "--direct",
        "--config",
        str(tiny.folder / "config.yaml"),
    ]
    done = subprocess.run(
        command,
        env=dict(os.environ) | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 < MOST_MB
    given = [row[0] for row in tiny.rows()[1:]]
    assert len(given) == N_OUTSIDE + N_INSIDE + 5
    table = pq.read_table(tiny.work / "output_catalog.parquet", columns=["ID", "excluded_crop", "stype_fit"])
    assert table["ID"].to_pylist()[: len(given)] == given
    outside = np.char.startswith(np.array(given), "out")
    assert (table["excluded_crop"].to_numpy()[: len(given)] == outside).all()
    assert (np.array(table["stype_fit"].to_pylist()[: len(given)]) != "").sum() >= N_INSIDE
    with (tiny.work / "output_catalog.csv").open() as stream:
        assert sum(1 for _ in stream) == len(table) + 1
    with fits.open(tiny.work / "output_catalog.fits", memmap=True) as hdus:
        assert hdus[1].header["NAXIS2"] == len(table)
        assert hdus[1].data["ID"][len(given) - 1] == given[-1]
    assert (tiny.work / "report.html").stat().st_size < 100e6
