"""Cutouts, the raster sheet, residual maps, the Gaia overlay: what they show, where, and that they survive."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from qa_inputs import make_wcs, read_png
from test_qa_draw import make_settings, payload

from tract7dt import qa
from tract7dt.qa.cutouts import CutoutSheet
from tract7dt.qa.gaia import gaia_page
from tract7dt.qa.palette import NO_DATA_INDEX, grey_index, signed_index
from tract7dt.qa.raster import Sheet
from tract7dt.qa.raster_sky import nice_ticks
from tract7dt.qa.residual_map import BLOCK, NO_RESIDUAL, STEPS_PER_SIGMA, mosaic, residual_blocks
from tract7dt.qa.style import SYMBOLS
from tract7dt.store import WorkDir
from tract7dt.types import Box, Patch


def fitted(p) -> pd.DataFrame:
    """Fits of the sources of ``payload(p)``; the third has none."""
    table = pd.DataFrame({"source_index": [7, 3, 11, 5], "stype_fit": ["star", "exp", "sersic", "star"]})
    table["x_pix_patch_fit"], table["y_pix_patch_fit"] = (
        p.table["x_pix_patch_fit"],
        p.table["y_pix_patch_fit"],
    )
    table.loc[2, ["x_pix_patch_fit", "y_pix_patch_fit"]] = np.nan
    for i, band in enumerate(p.bands):
        table[f"FLUX_{band}_fit"] = [1234.5 + i, 2.0, np.nan, 4.0]
        table[f"FLUXERR_{band}_fit"] = [12.0, 2.0, np.nan, 4.0]
    return table


def named(p, ids=("a", "b/../c", "", "d")):
    made = payload(p)
    table = made.table.assign(ID=list(ids), x_pix_white=1.0, y_pix_white=2.0, RA=10.0, DEC=-3.0)
    return dataclasses.replace(made, table=table)


def draw(tmp_path, p, **run):
    settings = make_settings(tmp_path, patch_run={"cutout_size": 24} | run)
    work = WorkDir.of(settings)
    qa.draw_cutouts(settings, work, named(p), p.weight, p.model, fitted(p))
    folder = work.cutouts(p.patch.tag)
    return {path.name for path in folder.rglob("*")}, folder


def test_cutouts_are_named_by_source_and_a_name_stays_in_its_folder(tmp_path, patch_input):
    names, folder = draw(tmp_path, patch_input)
    # base sources by ID, one without an ID by its row; the halo source apart; no "/" of an ID is a folder
    assert names == {"src_a.png", "src_b%2F..%2Fc.png", "src_11.png", "src_halo_d.png"}
    png = read_png(folder / "src_a.png")
    assert png.pixels.std() > 20
    assert png.bytes < 200_000


def test_cutouts_that_are_not_wanted_any_more_go(tmp_path, patch_input):
    draw(tmp_path, patch_input)
    names, _ = draw(tmp_path, patch_input, cutout_start=1, cutout_max_sources=2)
    assert names == {"src_b%2F..%2Fc.png", "src_11.png"}


def shared_sheet(p, size: int = 24, **changes) -> CutoutSheet:
    settings = make_settings_run(size)
    table = p.table.assign(stype=["star", "exp", "sersic", "star"], **changes)
    return CutoutSheet(p.data, p.model, p.weight, np.array([1.0, 3.0, 2.0]), p.bands, table, settings, None)


def make_settings_run(size: int):
    from tract7dt.settings import PatchRunSettings

    return PatchRunSettings(cutout_size=size)


def test_columns_are_bands_by_wavelength_and_rows_data_model_residual(patch_input):
    sheet = shared_sheet(patch_input).draw(0, "a", "b")
    places = [sheet.texts.index(band) for band in ("m400", "m500", "m625")]
    assert places == sorted(places)
    assert [t for t in sheet.texts if t in ("data", "model", "data−model")] == ["data", "model", "data−model"]


def test_a_source_is_marked_where_it_started_and_where_it_ended(patch_input):
    p = patch_input
    sheet = shared_sheet(p, size=40).draw(0, "a", "b")
    assert sheet.marks["start"] == [(16.0, 19.0)]
    assert (15.0, 20.0) in sheet.marks["star"]
    halo = shared_sheet(p, size=40).draw(3, "a", "b")
    assert (3.0, 55.0) in halo.marks["halo"]
    assert "halo source" in halo.texts


def test_the_brightest_pixel_is_at_the_source(patch_input):
    """Tiles: 24 pixels, enlarged 3 times; the model's peak lies at the pixel of the source."""
    p = patch_input
    sheet = shared_sheet(p).draw(2, "a", "b")  # fitted at (52, 12), start at (53, 11)
    side, left, top = 72, 74, 52 + 75
    tile = sheet.rgb()[top : top + side, left : left + side].astype(int).sum(axis=2)
    rows, cols = np.nonzero(tile == tile.max())
    x, y = cols.mean() / 3 + (53 - 12), (side - 1 - rows.mean()) / 3 + (11 - 12)
    assert abs(x - 52.3) < 0.8
    assert abs(y - 12.3) < 0.8


def test_each_band_of_a_single_band_fit_has_its_own_position(patch_input):
    p = patch_input
    table = p.table.drop(columns=["x_pix_patch_fit", "y_pix_patch_fit"])
    for i, band in enumerate(p.bands):
        table[f"x_pix_patch_{band}_fit"] = p.table["x_pix_patch_fit"] + i
        table[f"y_pix_patch_{band}_fit"] = p.table["y_pix_patch_fit"]
    sheet = shared_sheet(dataclasses.replace(p, table=table), size=20).draw(0, "a", "b")
    assert sheet.marks["star"] == [(16.0, 20.0), (17.0, 20.0), (15.0, 20.0)]  # m400, m500, m625


@pytest.mark.parametrize("size", [1, 2, 24, 100, 401])
def test_cutouts_survive(patch_input, size):
    p = patch_input
    hole = np.full_like(p.data, np.nan)
    cases = (p, dataclasses.replace(p, data=hole), dataclasses.replace(p, weight=np.zeros_like(p.weight)))
    for case in cases:
        for number in range(4):
            sheet = shared_sheet(case, size).draw(number, "a", "b")
            assert sheet.pixels.shape[0] < 800
    edge = p.table.assign(x_pix_patch=-300.0, y_pix_patch=9000.0)
    shared_sheet(dataclasses.replace(p, table=edge), size).draw(0, "a", "b")


def test_masked_pixels_have_no_residual(patch_input):
    p = patch_input
    p.weight[:, 10:30, 5:25] = 0
    sheet = shared_sheet(p, size=10).draw(0, "a", "b")
    residual = sheet.pixels[52 + 2 * 73 + 10 : 52 + 2 * 73 + 60, 84:130]
    assert (residual == NO_DATA_INDEX).all()


def test_raster_colours_come_back(tmp_path):
    sheet = Sheet.blank(120, 60)
    level = np.linspace(0, 1, 40)[None, :].repeat(10, axis=0)
    level[0, 0] = np.nan
    sheet.image(0, 0, grey_index(level))
    sheet.image(0, 20, signed_index(np.linspace(-7, 7, 40)[None, :].repeat(10, axis=0), 5.0))
    sheet.mark("star", SYMBOLS["star"], 100, 30, size=20, width=3, rim=False)
    sheet.text(5, 40, "Ag", size=14)
    sheet.save(tmp_path / "s.png", dpi=144)
    png = read_png(tmp_path / "s.png")
    assert png.dpi == pytest.approx(144, abs=0.1)
    np.testing.assert_array_equal(png.pixels, sheet.rgb())
    assert (np.diff(png.pixels[0, :40, 0].astype(int)) >= 0).all()
    assert png.pixels[9, 0, 2] > png.pixels[9, 0, 0] + 30, "the pixel without data is blue, and at the bottom"
    assert png.pixels[25, 0, 2] > 200 > png.pixels[25, 20].max(), "blue below, dark at zero"
    cyan = png.pixels[25:36, 108:113].reshape(-1, 3).astype(int)
    assert (cyan[:, 1] - cyan[:, 0]).max() > 120, "the star's colour"
    assert (png.pixels[40:58, 5:30] < 60).any(), "the text"


def test_enlarged_images_come_back_and_take_little(tmp_path):
    small = np.random.default_rng(4).integers(0, 64, (60, 80)).astype(np.uint8)
    sizes = {}
    for zoom in (1, 4):
        sheet = Sheet.blank(80 * zoom, 60 * zoom)
        sheet.image(0, 0, small, zoom)
        sheet.text(2, 2, "words", size=12)
        sheet.save(tmp_path / "z.png")
        png = read_png(tmp_path / "z.png")
        np.testing.assert_array_equal(png.pixels, sheet.rgb())
        sizes[zoom] = png.bytes
    assert sizes[4] < 5 * sizes[1], "16 times the pixels"


def test_what_sticks_out_is_cut_off(words_cut_off):
    sheet = Sheet.blank(20, 20)
    before = sheet.pixels.copy()
    sheet.text(-200, 3, "away")
    sheet.mark("star", SYMBOLS["star"], 500, 500, size=9, width=1)
    sheet.outline(-9, -9, 5, 5, "#000000", dash=2)
    np.testing.assert_array_equal(sheet.pixels, before)
    sheet.text(15, 10, "over the edge")
    sheet.line(-5, 5, 40, 5, "#ff0000")
    assert (sheet.pixels != before).any()
    assert words_cut_off == ["away", "over the edge"]
    words_cut_off.clear()


def test_ticks_are_round_and_few():
    assert nice_ticks(196, 479, 5) == [200, 300, 400]
    assert nice_ticks(0, 0, 3) == [0]
    assert len(nice_ticks(0, 9576, 6)) <= 6


def test_residual_blocks_have_unit_width_and_sign():
    rng = np.random.default_rng(2)
    sigma = np.array([1.0, 5.0])[:, None, None]
    difference = (sigma * rng.standard_normal((2, 200, 220))).astype(np.float32)
    weight = np.broadcast_to(1 / sigma**2, difference.shape).astype(np.float32).copy()
    weight[1, 10:30, 10:30] = 0
    difference[0, 100:120, 100:120] += 3
    patch = Patch(0, 0, 0, 0, Box(1010, 1200, 510, 690), Box(1000, 1220, 500, 700), 10)
    blocks = residual_blocks(difference * np.sqrt(weight), weight, patch)
    assert blocks.shape == (2, 23, 24)
    sigmas = blocks.astype(float) / STEPS_PER_SIGMA
    assert blocks[1, 1, 1] == NO_RESIDUAL
    assert blocks[0, 12, 12] == 127, "an excess is positive and clipped"
    calm = sigmas[1][blocks[1] != NO_RESIDUAL]
    assert calm.std() == pytest.approx(1.0, abs=0.12)  # 548 blocks: 0.03 is one sigma


def test_mosaic_puts_patches_where_they_are(tmp_path):
    parts = []
    for i, box in enumerate((Box(0, 50, 0, 37), Box(50, 101, 0, 37), Box(0, 50, 37, 83))):
        blocks = np.full((2, -(-box.ny // BLOCK), -(-box.nx // BLOCK)), 10 * (i + 1), np.int8)
        np.save(tmp_path / f"{i}.npy", blocks)
        parts.append((box, tmp_path / f"{i}.npy"))
    parts.append((Box(50, 101, 37, 83), tmp_path / "missing.npy"))
    out = mosaic(parts, (83, 101), 2)
    assert out.shape == (2, 11, 13)
    assert out[0, 1, 1] == 10
    assert out[1, 1, 10] == 20
    assert out[0, 8, 1] == 30
    assert out[0, 8, 10] == NO_RESIDUAL
    assert (out[:, :4, :6] == 10).all()


def test_gaia_overlay_tells_matched_from_added(white, sources):
    table = sources.assign(gaia_source_id="")
    table.loc[[0, 3], "gaia_source_id"] = ["11", "12"]
    added = pd.DataFrame(
        {
            "ID": ["gaia_5"],
            "TYPE": ["STAR"],
            "x_pix_white": [60.0],
            "y_pix_white": [40.0],
            "gaia_source_id": ["5"],
        }
    )
    added[["excluded_crop", "excluded_saturation", "excluded_any", "affected_by_bright_mask"]] = False
    both = pd.concat([table, added], ignore_index=True)
    page = gaia_page(
        white, both, len(table), wcs=make_wcs(), box=Box(5, 100, 5, 70), downsample=1, title="t", dpi=60
    )
    texts = page.sheet.texts
    assert "Gaia star in the catalogue (N=2)" in texts
    assert "Gaia star added (N=1)" in texts
    assert "excluded: saturation (N=1)" in texts
    assert "excluded: crop (N=0, 2 outside)" in texts
    assert "catalogue source, not in Gaia (N=10)" in texts
    assert "Gaia stars used" in texts
    ((left, top),) = page.sheet.marks["box"]
    assert (left, top) == tuple(float(v) for v in page.at(4.5, 69.5))
    assert [len(page.sheet.marks[name]) for name in ("gaia", "injected", "unlabelled")] == [2, 1, 10]
