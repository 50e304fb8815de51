"""A night that has lost its files can be run again, and comes out as it was. Real runs of a small field."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tract7dt.sample import SampleOptions, make_sample

pytestmark = pytest.mark.slow

CONFIG = """\
inputs: {tile_name: UDS, input_catalog: input_catalog.csv, image_list_file: image_list.txt,
         gaiaxp_synphot_csv: gaiaxp_synphot.csv}
outputs: {work_dir: "runs/{night}"}
crop: {margin: 6, plot_pre_crop: false}
overlay: {zoom_enabled: false}
plotting: {dpi: 40}
epsf: {epsf_ngrid: 1, ngrid: 2}
patch_run: {n_opt_iters: 8}
retention: {payloads_days: 1, cutouts_days: 1, frames_days: 1, plots_days: 1}
"""


def test_a_night_is_run_again_after_its_files_have_gone(tmp_path: Path) -> None:
    from flows.execute import run_direct
    from flows.parameters import Given, read_given, read_template
    from flows.retention import tidy
    from tract7dt import stages
    from tract7dt.patch_pictures import draw_missing
    from tract7dt.store import WorkDir

    make_sample(
        tmp_path, SampleOptions(width=200, height=200, bands=2, seed=6, stars=14, galaxies=4), force=True
    )
    (tmp_path / "config.yaml").write_text(CONFIG)
    given = Given(str(tmp_path / "config.yaml"), night="2026-01-02")
    settings = read_given(given).settings
    work = settings.outputs.work_dir

    def catalogue() -> str:
        return hashlib.sha256((work / "output_catalog.csv").read_bytes()).hexdigest()

    def pictures() -> set[str]:
        return {str(path.relative_to(work)) for path in work.rglob("*.png")}

    run_direct(given, "run", debug=False)
    first, drawn = catalogue(), pictures()
    (removal,) = tidy(read_template(given), dry_run=False)
    assert removal.what == ("payloads", "cutouts", "frames", "plots")
    assert not list(work.rglob("cutouts"))
    assert not list((work / "frames").glob("*.npy"))
    run_direct(given, "run", debug=False)
    assert catalogue() == first
    assert list((work / "patch_payloads").glob("*.fits*"))
    draw_missing(settings, WorkDir.of(settings), stages.payload_refs(settings))  # as `tract7dt report` does
    assert pictures() == drawn
    assert json.loads((work / "run_summary.json").read_text())["status"] == "done"
