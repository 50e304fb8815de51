"""A product that is missing or damaged is made again, and the log says so."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from reuse_runs import Rerun

from tract7dt import reuse, stages
from tract7dt.types import Ref


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    """One bit, and the old time of modification: only the inode's own time tells."""
    stat, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_size == stat.st_size


PRODUCTS = {
    "frames/m400.npy": "load_inputs",
    "frames/white.npy": "load_inputs",
    "sources/sources_loaded.parquet": "load_inputs",
    "wcs.fits": "load_inputs",
    "cropped_images/white_after_crop.png": "load_inputs",
    "ZP/TINY_with_Gaia.csv": "augment_gaia",
    "bright_mask/white_bright_mask.fits": "bright_mask",
    "EPSFs/m400/r00_c00/epsf.npy": "build_epsf",
    "EPSFs/m875/cells.json": "build_epsf",
    "patches/patches.csv": "build_patches",
    "frames/m875_bad.npy": "compose_final_masks",
    "patch_payloads/r00_c00_pr01_pc00.fits.gz": "build_patch_inputs",
    "patch_payloads/payloads.json": "build_patch_inputs",
    "outputs/r00_c00_pr01_pc00/r00_c00_pr01_pc00_cat_fit.csv": "run_patches",
    "outputs/r00_c00_pr01_pc00/meta.json": "run_patches",
    "outputs/r00_c00_pr01_pc00/r00_c00_pr01_pc00.log": "run_patches",
    "sources/merged.parquet": "merge",
    "output_catalog.fits": "compute_zp",
    "output_catalog.csv": "compute_zp",
    "ZP/zp_summary.csv": "compute_zp",
    "ZP/zp_vs_mag__m400.png": "compute_zp",
}


@pytest.mark.parametrize("product", PRODUCTS)
def test_product_is_made_again(
    field: Rerun, product: str, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    """Each product is harmed in one of three ways, in turn."""
    field.run()  # after the move: the stamps of the record are those of these files
    number = list(PRODUCTS).index(product)
    harm: Callable[[Path], None] = (delete, truncate, flip)[number % 3]
    path, before = field.work.root / product, field.catalogue()
    whole = path.read_bytes()
    harm(path)
    with caplog.at_level(logging.INFO, "tract7dt"):
        made = field.run()
    stage = PRODUCTS[product]
    follows = {"compute_zp"} if stage == "merge" else set()  # it wrote over the final catalogue
    assert set(made) == {stage} | follows
    if stage != "run_patches":
        assert f"product {product} is " in caplog.text
        assert path.read_bytes() == whole, "the same came out"
    else:
        assert "fits: 1 of 4 made: its " in caplog.text
    assert field.catalogue() == before
    assert field.run() == {}


@pytest.mark.parametrize("harm", [delete, truncate, flip])
def test_every_kind_of_harm_is_seen(field: Rerun, harm: Callable[[Path], None]) -> None:
    field.run()
    harm(field.work.epsf_summary)
    assert "build_epsf" not in field.run(), "the summary is no band's"
    json.loads(field.work.epsf_summary.read_text())
    harm(field.work.bright_mask)
    assert set(field.run()) == {"bright_mask"}


def test_damaged_record_is_no_record(field: Rerun) -> None:
    record = field.work.reuse_record("bright_mask", None)
    for text in ("{", "[]", '{"format": 1}', json.dumps(json.loads(record.read_text()) | {"format": 0})):
        record.write_text(text)
        assert field.run()["bright_mask"]["why"] == "never made here"


def test_damaged_memory_of_digests_is_begun_anew(field: Rerun) -> None:
    for text in ("{", "[1]", '{"a": 1}'):
        field.work.digests.write_text(text)
        assert field.run() == {}


def test_kill_between_product_and_record_leaves_a_rebuild(
    field: Rerun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record goes first, and comes back last."""
    field.run()
    field.set("zp.clip_sigma", 2.0)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tract7dt.reuse.planning.write_record", killed)
    with pytest.raises(KeyboardInterrupt):
        field.run()
    monkeypatch.undo()
    field.set("zp.clip_sigma", 3.0)  # of which there was a record before
    assert field.run()["compute_zp"]["why"] == "never made here"


def test_stage_that_fails_leaves_no_record(field: Rerun, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, work = field.settings, field.work
    refs = Ref(str(work.field_manifest), "", "field"), Ref(str(work.merged), "", "catalog")

    def compute_zp(settings: object, field: Ref, catalog: Ref) -> Ref:
        raise OSError(5, "I/O error")

    assert reuse.plan(stages.compute_zp, settings, *refs).hit
    with pytest.raises(OSError):
        reuse.through(compute_zp, settings, *refs, refresh=True)
    assert reuse.plan(stages.compute_zp, settings, *refs).why == "never made here"


def test_touched_product_is_whole(field: Rerun) -> None:
    """Digested once, trusted again from then on."""
    field.run()
    os.utime(field.work.bright_mask)
    record = field.work.reuse_record("bright_mask", None)
    before = record.read_text()
    assert field.run() == {}
    assert record.read_text() != before
