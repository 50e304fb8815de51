"""What goes after a while, and what never does: work_dirs of nights, published runs, here and on S3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from published_run import make_run
from s3_server import S3Server
from typer.testing import CliRunner

from flows.results_cli import app
from tract7dt import results
from tract7dt.errors import ConfigError, StoreError
from tract7dt.publish import publish
from tract7dt.publish.manifest import Manifest, parse
from tract7dt.reuse import locked
from tract7dt.settings import Settings, apply_overrides, fill_placeholders
from tract7dt.store import objects
from tract7dt.upkeep import tidy_published, tidy_work_dirs

TODAY = "2026-02-01"
NIGHTS = ("2026-01-01", "2026-01-02", "2026-01-03", "2026-01-31")
ALL = {f"retention.{kind}_days": 10.0 for kind in ("payloads", "cutouts", "frames", "plots")}


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


# --- work_dirs ---------------------------------------------------------------------------------------------


@pytest.fixture
def template(tmp_path: Path) -> Settings:
    """A field with four nights here; ``retention`` says nothing yet."""
    for night in NIGHTS:
        made = make_run(tmp_path / night, None)
        cutouts = made.outputs.work_dir / "outputs/r00_c00_pr00_pc00/cutouts"
        for cutout in cutouts.iterdir():
            cutout.unlink()
        (cutouts / "src_1.png").write_text("png")
    return make_template(tmp_path)


def make_template(folder: Path, **outputs: str) -> Settings:
    from tract7dt.settings.paths import resolve_paths

    given = {"tile_name": "UDS", "input_catalog": "cat.csv", "image_list_file": "list.txt"}
    work_dir = str(folder / "{night}" / "run")
    settings = Settings.model_validate({"inputs": given, "outputs": {"work_dir": work_dir, **outputs}})
    return resolve_paths(settings, folder)


def told(settings: Settings, **overrides: Any) -> Settings:
    return apply_overrides(settings, overrides, settings.base_dir)


def test_nothing_goes_unless_it_is_asked_for(template: Settings, tmp_path: Path) -> None:
    before = files(tmp_path)
    assert tidy_work_dirs(template, TODAY) == []
    assert tidy_published(template, TODAY) == []
    assert files(tmp_path) == before


def test_what_is_asked_for_goes_of_old_nights_alone(template: Settings, tmp_path: Path) -> None:
    settings = told(template, **{"retention.payloads_days": 30.0, "retention.cutouts_days": 29.0})
    before = files(tmp_path)
    planned = tidy_work_dirs(settings, TODAY, dry_run=True)
    assert files(tmp_path) == before
    assert [(r.night, r.what, r.n_files) for r in planned] == [
        ("2026-01-03", ("cutouts",), 1),
        ("2026-01-02", ("payloads", "cutouts"), 2),
        ("2026-01-01", ("payloads", "cutouts"), 2),
    ]
    assert tidy_work_dirs(settings, TODAY) == planned
    payload, cutout = (
        "patch_payloads/r00_c00_pr00_pc00.fits.gz",
        "outputs/r00_c00_pr00_pc00/cutouts/src_1.png",
    )
    assert before - files(tmp_path) == {
        *(f"{night}/run/{payload}" for night in NIGHTS[:2]),
        *(f"{night}/run/{cutout}" for night in NIGHTS[:3]),
    }
    (account,) = json.loads((tmp_path / NIGHTS[2] / "run/retention.json").read_text())["dropped"]
    assert (account["what"], account["files"], account["bytes"]) == ("cutouts", 1, 3)
    assert tidy_work_dirs(settings, TODAY) == []


def test_frames_and_plots_go_and_what_was_measured_stays(template: Settings, tmp_path: Path) -> None:
    tidy_work_dirs(told(template, **ALL), TODAY)
    assert files(tmp_path / NIGHTS[0] / "run") == {
        "output_catalog.csv", "output_catalog.parquet", "output_catalog.fits", "ZP/zp_summary.csv",
        "ZP/zp_vs_mag__m400.png", "ZP/zp_all_bands__per_object.csv", "ZP/UDS_with_Gaia.csv",
        "overlay/white_overlay.png", "EPSFs/m400/r00_c00/epsf.npy", "EPSFs/epsf_summary.json",
        "outputs/r00_c00_pr00_pc00/meta.json", "patches/patches.csv", "wcs.fits", "report.html",
        "config_used_20260101_000000.yaml", "config_used_20260102_000000.yaml", "run.log",
        "run_summary.json", "retention.json", ".lock",
    }  # fmt: skip


def test_a_folder_in_use_or_elsewhere_is_left_alone(
    template: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = told(template, **{"retention.payloads_days": 10.0})
    with locked(fill_placeholders(settings, NIGHTS[0]), "a run"):
        assert [r.night for r in tidy_work_dirs(settings, TODAY)] == ["2026-01-03", "2026-01-02"]
    assert "nothing is removed" in caplog.text

    # A folder that all nights share, and one that only a link makes look as if it lay in the work_dir.
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "a.fits").write_text("of another night")
    (tmp_path / NIGHTS[1] / "run/patch_payloads").rmdir()
    (tmp_path / NIGHTS[1] / "run/patch_payloads").symlink_to(shared)
    for given in ({"patch_inputs_dir": str(shared)}, {}):
        tidy_work_dirs(told(make_template(tmp_path, **given), **{"retention.payloads_days": 1.0}), TODAY)
    assert (shared / "a.fits").exists()


def test_one_folder_for_all_nights_is_as_old_as_its_last_run(tmp_path: Path) -> None:
    settings = told(make_run(tmp_path, None), **{"retention.payloads_days": 10.0})
    assert tidy_work_dirs(settings, "2026-01-10") == []  # the run began on 2026-01-01, Chile
    assert [(r.night, r.what) for r in tidy_work_dirs(settings, "2026-01-11")] == [
        ("2026-01-01", ("payloads",))
    ]


# --- published runs ----------------------------------------------------------------------------------------


def published(folder: Path, url: str) -> Settings:
    settings = make_run(folder, url)
    for night, run_id in zip(NIGHTS, ("a-1", "b-2", "c-3", "d-4")):
        publish(settings, run_id, night)
    return told(settings, **ALL)


def manifest_of(folder: Path) -> Manifest:
    path = folder / "manifest.json"
    return parse(Manifest, path.read_bytes(), str(path))


def test_published_runs_lose_cutouts_and_plots_and_say_so(tmp_path: Path) -> None:
    settings = published(tmp_path, f"file://{tmp_path}/public")
    field = tmp_path / "public" / "UDS"
    before, latest = files(field), (field / "latest.json").read_bytes()
    planned = tidy_published(settings, TODAY, dry_run=True)
    assert files(field) == before
    assert [(r.night, r.what, r.n_files) for r in planned] == [
        ("2026-01-01", ("cutouts", "plots"), 4),
        ("2026-01-02", ("cutouts", "plots"), 4),
    ]  # 2026-01-03 is what latest.json would step back to
    assert tidy_published(settings, TODAY) == planned
    patch = "outputs/r00_c00_pr00_pc00"
    gone = {"EPSFs/m400/r00_c00/epsf.png", f"{patch}/patch_overview.png"}
    gone |= {f"{patch}/cutouts/src_{name}.png" for name in ("a%2Fb", "halo_7")}
    assert before - files(field) == {
        f"{run}/{key}" for run in ("2026-01-01/a-1", "2026-01-02/b-2") for key in gone
    }
    assert (field / "latest.json").read_bytes() == latest
    manifest = manifest_of(field / "2026-01-01/a-1")
    assert {entry.key for entry in manifest.dropped} == gone
    assert not gone & {entry.key for entry in manifest.objects}
    assert tidy_published(settings, TODAY) == []


def test_an_old_night_verifies_and_says_what_was_dropped(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/public"
    tidy_published(published(tmp_path, url), TODAY)
    ran = CliRunner().invoke(app, ["verify", "--url", url, "--night", NIGHTS[0]], env={"COLUMNS": "200"})
    assert ran.exit_code == 0, ran.output
    assert "dropped on " in ran.output
    assert ": 1 of kind patch_plot, 3 B" in ran.output
    found = results.find_run(url, night=NIGHTS[0])
    check = results.verify(found)
    assert (check.problems, check.unlisted) == ((), ())
    with pytest.raises(ConfigError, match="dropped by the field's retention: patch_plot"):
        found.chosen(("patch_plot",))
    assert len(results.load(url, night=NIGHTS[0], cache_dir=tmp_path / "cache")) == 3
    results.download(found, tmp_path / "here")
    assert results.verify_folder(tmp_path / "here/UDS" / NIGHTS[0] / "a-1").problems == ()
    # The check is as strict as it was about all else.
    (tmp_path / "public/UDS" / NIGHTS[0] / "a-1/wcs.fits").unlink()
    assert len(results.verify(results.find_run(url, night=NIGHTS[0])).problems) == 1


def test_cut_off_in_between_the_manifest_is_true_and_the_next_time_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = published(tmp_path, f"file://{tmp_path}/public")
    run = tmp_path / "public/UDS/2026-01-01/a-1"

    def broken(store: objects.ObjectStore, key: str) -> None:
        raise StoreError(f"{key}: cut off")

    with monkeypatch.context() as patched:
        patched.setattr(objects.ObjectStore, "delete", broken)
        with pytest.raises(StoreError, match="cut off"):
            tidy_published(settings, TODAY)
    assert (run / "EPSFs/m400/r00_c00/epsf.png").exists()
    assert results.verify(results.find_run(str(settings.publish.url), run="a-1")).problems == ()
    dropped = manifest_of(run).dropped
    assert [r.night for r in tidy_published(settings, TODAY)] == ["2026-01-01", "2026-01-02"]
    assert not (run / "EPSFs/m400/r00_c00/epsf.png").exists()
    assert manifest_of(run).dropped == dropped


def test_a_pointer_that_cannot_be_read_stops_it(tmp_path: Path) -> None:
    settings = published(tmp_path, f"file://{tmp_path}/public")
    (tmp_path / "public/UDS/latest.json").write_text("{")
    before = files(tmp_path)
    with pytest.raises(StoreError, match=r"latest\.json: not a latest"):
        tidy_published(settings, TODAY)
    assert files(tmp_path) == before


def test_runs_without_a_sound_manifest_are_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = published(tmp_path, f"file://{tmp_path}/public")
    field = tmp_path / "public" / "UDS"
    (field / "2026-01-01/a-1/manifest.json").unlink()
    (field / "2026-01-02/b-2/manifest.json").write_text("{")
    assert tidy_published(settings, TODAY) == []
    assert "nothing is removed there" in caplog.text


def test_on_s3(s3: S3Server, tmp_path: Path) -> None:
    bucket = s3.bucket("retention")
    settings = published(tmp_path, "s3://retention/site")
    assert [r.n_files for r in tidy_published(settings, TODAY)] == [4, 4]
    assert not list(bucket.glob("site/UDS/2026-01-0[12]/**/*patch_overview.png"))
    check = results.verify(results.find_run("s3://retention/site", night=NIGHTS[1]))
    assert (check.problems, check.unlisted, len(check.manifest.dropped)) == ((), (), 4)
    assert results.find_run("s3://retention/site").manifest.dropped == ()
    assert tidy_published(settings, TODAY) == []
