"""What stages leave on disk and in memory."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from regression_runs import Run, configuration, write_config

from tract7dt import frames, stages
from tract7dt.sample import SampleField
from tract7dt.settings import load_settings
from tract7dt.types import Ref

MARGIN = 8
FRAME_BYTES = 4 * (320 - 2 * MARGIN) ** 2


def inside(image: np.ndarray) -> np.ndarray:
    return image[MARGIN:-MARGIN, MARGIN:-MARGIN]


def test_21_stages_hold_memory_maps(whole: Run) -> None:
    field = frames.open_field(whole.work.field_manifest)
    arrays = [field.white, field.white_sigma, *(frame.data for frame in field.frames.values())]
    arrays += [frames.open_mask(whole.work.masks_manifest, band) for band in field.bands]
    for array in arrays:
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
        assert array.shape == (304, 304), "the cropped frame, not the whole image"


def test_21_no_frame_stays_in_memory_between_stages(sample: SampleField, tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.yaml", configuration(sample, tmp_path / "work"))
    settings = load_settings(config).settings

    def run(measured: Callable[..., Any]) -> None:
        loaded = measured(stages.load_inputs)
        augmented = measured(stages.augment_gaia, *loaded)
        mask, sources = measured(stages.bright_mask, loaded.field, augmented)
        measured(stages.build_epsf_band, loaded.field, sources, "m650")
        measured(stages.build_patches, loaded.field, sources)
        measured(stages.compose_final_masks, loaded.field, mask)

    def measured(stage: Callable[..., Any], *refs: Ref) -> Any:
        before = tracemalloc.get_traced_memory()[0]
        result = stage(settings, *refs)
        gc.collect()
        grown[stage.__name__] = tracemalloc.get_traced_memory()[0] - before
        return result

    run(lambda stage, *refs: stage(settings, *refs))  # imports and caches
    grown: dict[str, int] = {}
    tracemalloc.start()
    try:
        run(measured)
    finally:
        tracemalloc.stop()
    assert len(grown) == 6
    assert {name: size for name, size in grown.items() if size > FRAME_BYTES / 2} == {}


def test_21_nan_in_one_band_does_not_blank_the_white_stack(whole: Run, sample: SampleField) -> None:
    """The stack is the mean of the scaled bands, each by the inverse square of its sky noise, where finite."""
    total, weight = np.zeros((304, 304)), np.zeros((304, 304))
    blank = np.zeros((304, 304), dtype=int)
    for path in sample.images:
        data, header = fits.getdata(path, header=True)
        scale = 10 ** (-0.4 * (header["ZP_AUTO"] - 25.0))
        pixels = inside(np.asarray(data, float)) * scale
        good = np.isfinite(pixels)
        blank += ~good
        total[good] += pixels[good] / (header["SKYSIG"] * scale) ** 2
        weight[good] += 1 / (header["SKYSIG"] * scale) ** 2
    assert np.count_nonzero(blank == 1) > 0
    assert blank.max() < 3, "no pixel of this field is blank in all bands"
    field = frames.open_field(whole.work.field_manifest)
    assert np.isfinite(field.white).all()
    # float32 frames: one part in 10^7 of each term, and terms of both signs
    np.testing.assert_allclose(
        field.white, total / weight, rtol=1e-5, atol=1e-6 * np.abs(total / weight).max()
    )
    np.testing.assert_allclose(field.white_sigma, weight**-0.5, rtol=1e-6)


def test_working_frame_wcs_is_the_images_shifted_by_the_crop(whole: Run, sample: SampleField) -> None:
    image, frame = WCS(fits.getheader(sample.images[0])), WCS(fits.getheader(whole.work.wcs))
    x, y = np.array([10.0, 300.0, 150.5]), np.array([12.0, 40.25, 290.0])
    ra, dec = image.all_pix2world(x, y, 0)
    np.testing.assert_allclose(frame.all_world2pix(ra, dec, 0), [x - MARGIN, y - MARGIN], rtol=0, atol=1e-6)
    row = whole.table.dropna(subset=["x_pix_white_fit"]).iloc[3]
    back = frame.all_pix2world(row["x_pix_white_fit"], row["y_pix_white_fit"], 0)
    np.testing.assert_allclose([row["RA_fit"], row["DEC_fit"]], np.ravel(back), rtol=0, atol=1e-9)


def test_record_of_a_run(whole: Run) -> None:
    summary = whole.summary
    assert summary["status"] == "done"
    assert [entry["name"] for entry in summary["stages"]] == [
        "load_inputs", "augment_gaia", "bright_mask", "build_epsf", "build_patches", "compose_final_masks",
        "build_patch_inputs", "run_patches", "merge", "compute_zp",
    ]  # fmt: skip
    assert {entry["status"] for entry in summary["stages"]} == {"done"}
    table, counts = whole.table, summary["counts"]
    assert counts["sources"] == len(table)
    assert counts["active"] == (~table["excluded_any"]).sum()
    assert counts["fitted"] == (table["stype_fit"] != "").sum()
    assert counts["reliable"] == table["fit_is_reliable"].sum()
    assert len(summary["inputs"]) == 6
    assert all(len(entry["sha256"]) == 64 for entry in summary["inputs"])


@pytest.mark.parametrize("left", ["tmp", "part"])
def test_no_half_file_is_left(whole: Run, left: str) -> None:
    hidden = [path for path in whole.work.root.rglob(".*") if left in path.name]
    assert hidden == []


def test_products_lie_where_scripts_look(whole: Run) -> None:
    root = whole.work.root
    for name in (
        "wcs.fits",
        "bright_mask/white_bright_mask.fits",
        "bright_mask/white_bright_mask_overlay.png",
        "EPSFs/epsf_summary.json",
        "EPSFs/m400/r00_c00/epsf.npy",
        "EPSFs/m400/r00_c00/meta.json",
        "patches/patches.csv",
        "patches/patches.json",
        "patch_payloads/r00_c00_pr01_pc00.fits.gz",
        "outputs/r00_c00_pr01_pc00/r00_c00_pr01_pc00_cat_fit.csv",
        "outputs/r00_c00_pr01_pc00/meta.json",
        "outputs/r00_c00_pr01_pc00/r00_c00_pr01_pc00.log",
        "ZP/SMALL_with_Gaia.csv",
        "ZP/zp_summary.csv",
        "ZP/zp_all_bands__per_object.csv",
        "ZP/zp_vs_mag__m650.png",
        "output_catalog.csv",
        "output_catalog.parquet",
        "output_catalog.fits",
        "run_summary.json",
    ):
        assert (root / name).is_file(), name
    meta = json.loads((root / "outputs/r00_c00_pr01_pc00/meta.json").read_text())
    assert meta["patch_tag"] == "r00_c00_pr01_pc00"
    assert meta["bands"] == ["m400", "m650", "m875"]
