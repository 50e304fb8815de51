"""What is changed, and which stages that costs."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from reuse_runs import Rerun

from tract7dt import fit_patch
from tract7dt.reuse import versions

FITS = {"run_patches", "merge", "compute_zp"}
PAYLOADS = {"compose_final_masks", "build_patch_inputs", *FITS}


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("a patch was fitted")


def brighten(path: Path) -> None:
    """One pixel of an image, far from everything."""
    with fits.open(path, mode="update") as hdus:
        hdus[0].data[12, 12] += 1.0


def test_an_unchanged_field_is_not_computed_again(
    first: Rerun, field: Rerun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is one whose folder has moved and whose files have new dates."""
    monkeypatch.setattr(fit_patch, "fit_payload", refuse)
    assert field.run() == {}
    assert field.catalogue() == first.catalogue()
    summary = json.loads(field.work.run_summary.read_text())
    assert {entry["status"] for entry in summary["stages"]} == {"cached"}
    assert summary["counts"]["patches"] > 0
    assert summary["counts"]["sources"] > 0


@pytest.mark.parametrize(
    ("key", "value", "stages"),
    [
        ("zp.clip_sigma", 2.5, {"compute_zp"}),
        ("zp.plot_mag_lo", 11.0, {"compute_zp"}),
        ("patch_run.n_opt_iters", 7, FITS),
        ("bright_mask.dilate_pix", 4, {"bright_mask", *PAYLOADS}),
        ("crop.plot_pre_crop", True, {"load_inputs"}),
        ("overlay.downsample_full", 2, {"load_inputs", "augment_gaia", "bright_mask"}),
        ("plotting.dpi", 41, {"load_inputs", "augment_gaia", "bright_mask", "build_epsf", "compute_zp"}),
        ("checks.require_same_shape", False, {"load_inputs"}),
        ("patch_run.no_patch_overview", False, set()),
        ("patch_inputs.max_workers", 1, set()),
        ("runtime.max_workers", 3, set()),
        ("performance.frame_prep_workers", 1, set()),
        ("logging.level", "DEBUG", set()),
        ("patch_run.resume", True, set()),
        ("publish.link_expiry_seconds", 5, set()),
    ],
)
def test_setting(field: Rerun, key: str, value: Any, stages: set[str]) -> None:
    before = field.catalogue()
    field.set(key, value)
    made = field.run()
    assert set(made) == stages
    for name in stages - {"build_epsf", "run_patches", "merge", "compute_zp", *PAYLOADS}:
        assert key in str(made[name]["why"])
    assert field.run() == {}, "the second run finds all up to date"
    if key not in ("patch_run.n_opt_iters", "bright_mask.dilate_pix", "zp.clip_sigma"):
        assert field.catalogue() == before


def test_pictures_alone_are_drawn(field: Rerun, caplog: pytest.LogCaptureFixture) -> None:
    """The products keep their times: only pictures were written."""
    root = field.work.root
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    field.set("plotting.dpi", 50)
    with caplog.at_level(logging.INFO, "tract7dt"):
        field.run()
    written = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert {"white_overlay.png", "psfstars.png", "white_bright_mask_overlay.png"} <= written
    assert not {name for name in written if Path(name).suffix in (".npy", ".fits", ".parquet", ".csv", ".gz")}
    assert "load_inputs: only its pictures are drawn: pictures: plotting.dpi changed: 40 -> 50" in caplog.text


def test_one_changed_image_rebuilds_its_own_epsf(field: Rerun, caplog: pytest.LogCaptureFixture) -> None:
    bands = json.loads(field.work.field_manifest.read_text())["bands"]
    brighten(field.images[0])
    band = str(fits.getheader(field.images[0])["FILTER"])
    with caplog.at_level(logging.INFO, "tract7dt"):
        made = field.run()
    assert {"load_inputs", "build_epsf", "build_patch_inputs", "run_patches"} <= set(made)
    assert set(made["build_epsf"]["why"]) == {band}
    for other in set(bands) - {band}:
        assert f"build_epsf_band {other}: reused" in caplog.text
    assert made["load_inputs"]["why"] == "image 1 is not the same"


def test_header_comment_of_an_image_costs_its_loading_alone(field: Rerun) -> None:
    """The pixels and the keywords that count are as before."""
    with fits.open(field.images[0], mode="update") as hdus:
        hdus[0].header["OBSERVER"] = "someone else"
    assert set(field.run()) == {"load_inputs"}


def test_touched_files_cost_nothing(field: Rerun) -> None:
    for path in [*field.images, *(field.folder / "field").glob("*.csv")]:
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert field.run() == {}


def test_inputs_may_lie_elsewhere(field: Rerun) -> None:
    shutil.move(field.folder / "field", field.folder / "archive")
    for name, path in field.values["inputs"].items():
        field.values["inputs"][name] = str(path).replace("field/", "archive/")
    assert field.run() == {}


def test_outputs_elsewhere_are_made_there(field: Rerun) -> None:
    field.set("outputs.patches_dir", "divisions")
    assert set(field.run()) == {"build_patches"}
    assert (field.work.root / "divisions" / "patches.json").is_file()


def test_catalogue_row_costs_what_depends_on_it(field: Rerun) -> None:
    """A changed column that no fit reads: neither ePSFs nor patches."""
    path = field.folder / field.values["inputs"]["input_catalog"]
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0] + ",note", *(f"{line},x" for line in lines[1:])]) + "\n")
    made = set(field.run())
    assert not made & {"build_epsf", "build_patches"}
    assert {"load_inputs", "merge", "compute_zp"} <= made


def test_source_more_may_be_a_neighbour_of_psf_stars(field: Rerun) -> None:
    path = field.folder / field.values["inputs"]["input_catalog"]
    names, first, *rest = path.read_text().splitlines()
    moved = dict(zip(names.split(","), first.split(","), strict=True))
    moved["DEC"] = str(float(moved["DEC"]) + 3 / 3600)
    path.write_text("\n".join([names, ",".join(moved.values()), *rest]) + "\n")
    made = field.run()
    assert set(made["build_epsf"]["why"]) >= {"m400"}


def test_gaia_off_and_on(field: Rerun) -> None:
    before = field.catalogue()
    field.set("zp.enabled", False)
    field.set("epsf.use_gaiaxp", False)
    made = field.run()
    assert {"build_epsf", "merge"} <= set(made)
    assert field.catalogue() != before
    field.set("zp.enabled", True)
    field.set("epsf.use_gaiaxp", True)
    assert "compute_zp" in field.run()
    assert field.catalogue() == before


@pytest.mark.parametrize(
    ("stage", "made"),
    [
        ("compute_zp", {"compute_zp"}),
        ("merge", {"merge", "compute_zp"}),  # the merge writes over the final catalogue
        ("run_patches", {"run_patches"}),
        ("build_epsf", {"build_epsf"}),
        ("load_inputs", {"load_inputs"}),
        ("build_patch_inputs", {"build_patch_inputs"}),
    ],
)
def test_refresh_makes_one_stage_again(field: Rerun, stage: str, made: set[str]) -> None:
    """What follows sees the same content, and is reused."""
    before = field.catalogue()
    field.set("patch_run.resume", True)  # must not stand in the way
    found = field.run(stage)
    assert set(found) == made
    if stage not in ("run_patches", "build_epsf"):
        assert found[stage]["why"] == "a refresh was asked for"
    assert field.catalogue() == before
    assert field.run() == {}


def test_refresh_that_was_not_done_stays_asked_for(field: Rerun, monkeypatch: pytest.MonkeyPatch) -> None:
    from tract7dt import reuse, stages
    from tract7dt.types import Ref

    settings, manifest = field.settings, field.work.field_manifest
    refs = Ref(str(manifest), "", "field"), Ref(str(field.work.merged), "", "catalog")
    assert reuse.plan(stages.compute_zp, settings, *refs).hit
    assert reuse.plan(stages.compute_zp, settings, *refs, refresh=True).why == "a refresh was asked for"
    assert not reuse.plan(stages.compute_zp, settings, *refs).hit
    assert set(field.run()) == {"compute_zp"}


def test_raised_version_rebuilds(field: Rerun, monkeypatch: pytest.MonkeyPatch) -> None:
    raised = dict(versions.STAGE_VERSIONS) | {"bright_mask": 99, "fit_patch_batch": 99}
    for module in ("tract7dt.reuse.planning", "tract7dt.reuse.fits"):
        monkeypatch.setattr(f"{module}.STAGE_VERSIONS", raised)
    made = field.run()
    assert made["bright_mask"]["why"] == f"stage version {versions.STAGE_VERSIONS['bright_mask']} -> 99"
    assert set(made) == {"bright_mask", "run_patches"}, "the same came out: nothing follows"


def test_old_work_dir_without_records_is_computed(field: Rerun) -> None:
    before = field.catalogue()
    shutil.rmtree(field.work.reuse)
    for path in field.work.fits.glob("*/meta.json"):
        meta = json.loads(path.read_text())
        del meta["meta_sha256"]
        path.write_text(json.dumps(meta))
    made = field.run()
    assert len(made) == 10
    assert made["load_inputs"]["why"] == "never made here"
    assert field.catalogue() == before


def test_steps_always_do_their_own_stage(field: Rerun) -> None:
    for command, own in [
        ("compute-zp", {"compute_zp"}),
        ("build-patches", {"build_patches"}),
        ("run-patches", {"run_patches"}),
    ]:
        field.run(command=command)
        summary = json.loads(field.work.run_summary.read_text())
        assert {e["name"] for e in summary["stages"] if e["status"] == "done"} >= own
    assert field.run() == {}


def test_steps_with_other_settings_do_not_mislead_the_next_run(field: Rerun) -> None:
    before = field.catalogue()
    field.set("zp.clip_sigma", 1.5)
    field.run(command="compute-zp")
    field.set("zp.clip_sigma", 3.0)
    assert set(field.run()) == {"compute_zp"}
    field.run(command="merge")
    assert field.catalogue() != before, "the merge writes a catalogue without magnitudes"
    made = field.run()
    assert set(made) == {"compute_zp"}
    assert "output_catalog.csv is damaged or written over" in made["compute_zp"]["why"]
    assert field.catalogue() == before


def test_failed_patch_is_tried_again(field: Rerun, monkeypatch: pytest.MonkeyPatch) -> None:
    before = field.catalogue()
    meta = sorted(field.work.fits.glob("*/meta.json"))[0]
    content = json.loads(meta.read_text()) | {"status": "failed", "reason": "its worker was killed"}
    meta.write_text(json.dumps(content))
    tried: list[str] = []
    fitted = fit_patch.fit_payload
    monkeypatch.setattr(
        fit_patch, "fit_payload", lambda s, w, ref: (tried.append(Path(ref.path).name), fitted(s, w, ref))[1]
    )
    assert set(field.run()) == {"run_patches"}
    assert len(tried) == 1
    assert field.catalogue() == before


def test_two_fields_of_one_place_do_not_mix(copies: Callable[[str], Rerun]) -> None:
    """Records belong to the work_dir: a second field knows nothing of the first."""
    one, other = copies("one"), copies("other")
    image = one.images[0]
    data = np.array(fits.getdata(image))
    brighten(image)
    assert not np.array_equal(data, fits.getdata(image))
    assert "run_patches" in one.run()
    assert other.run() == {}
