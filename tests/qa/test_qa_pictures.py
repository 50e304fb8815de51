"""Every picture: on a normal and on a degenerate input it is a sane PNG, and its legend counts right."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from astropy.wcs import WCS
from qa_inputs import make_wcs, read_png

from tract7dt import qa
from tract7dt.qa.bright import bright_mask_page
from tract7dt.qa.crop import after_crop_page, before_crop_page
from tract7dt.qa.overlay import overlay_page
from tract7dt.qa.patch import patch_sheet, weighted_stacks
from tract7dt.qa.plot_panel import PlotPanel
from tract7dt.qa.profile import growth_curve, half_width, radial_profile
from tract7dt.qa.raster import Sheet
from tract7dt.qa.zp import zp_sheet
from tract7dt.types import Box, Patch, ZeroPoint

DPI = 60
LIMITS = SimpleNamespace(plot_mag_lo=12.0, plot_mag_hi=18.0, plot_zp_offset=0.2)
NO_SOURCES = pd.DataFrame({"x_pix_white": [], "y_pix_white": [], "TYPE": []}).astype({"TYPE": object})
NO_DETECTIONS = pd.DataFrame(
    {"x": [], "y": [], "matched": np.zeros(0, bool), "source_index": np.zeros(0, int)}
)


def check(path, *, dpi: int = DPI, most: int = 1_500_000) -> None:
    png = read_png(path)
    assert png.dpi == pytest.approx(dpi, abs=0.1)
    assert 3.0 * dpi < png.width < 15 * dpi
    assert 1.2 * dpi < png.height < 15 * dpi
    assert png.bytes < most
    assert png.pixels.std() > 5, "nothing was drawn"
    assert [p.name for p in path.parent.iterdir()] == [path.name], "a temporary file was left"


def counts(sheet) -> dict[str, int]:
    """``text -> N`` of the legend entries that count."""
    out = {}
    for text in sheet.texts:
        if "(N=" in text:
            label, rest = text.split(" (N=", 1)
            out[label] = int(rest.split(")")[0])
    return out


def all_texts(sheet) -> str:
    return "\n".join(sheet.texts)


def drawn(page, name: str) -> np.ndarray:
    """Positions in the frame at which a symbol was drawn."""
    places = np.array(page.sheet.marks.get(name, []), float).reshape(-1, 2)
    x = (places[:, 0] + 0.5) / page.per_pixel - 0.5 + page.box.x0
    y = (page.height - places[:, 1] - 0.5) / page.per_pixel - 0.5 + page.box.y0
    return np.stack([x, y], axis=1)


# --- overlay -------------------------------------------------------------------------------------------


def overlay(white, table, box=None, wcs=None, **kwargs):
    box = box or Box(0, white.shape[1], 0, white.shape[0])
    options = {"gal_model": "exp", "downsample": 1, "title": "t", "dpi": DPI} | kwargs
    return overlay_page(white, table, wcs, box, **options)


def test_overlay_counts_by_type(white, sources):
    page = overlay(white, sources, wcs=make_wcs())
    assert counts(page.sheet) == {
        "STAR": 3,
        "GAL/EXP/DEV/SERSIC": 4,
        "UNKNOWN": 5,
        "excluded: saturation": 1,
        "not drawn: excluded by crop": 2,
        "not drawn: NaN or out of bounds": 2,
    }
    assert "UNKNOWN (N=5) (fallback=exp)" in page.sheet.texts
    for name, n in (("star", 3), ("galaxy", 4), ("unknown", 5), ("saturated", 1)):
        assert len(drawn(page, name)) == n, name
    np.testing.assert_allclose(drawn(page, "saturated")[0], sources.loc[12, ["x_pix_white", "y_pix_white"]])


def test_overlay_without_a_type_column_has_only_unknown(white, sources):
    sheet = overlay(white, sources.drop(columns="TYPE")).sheet
    assert counts(sheet)["UNKNOWN"] == 12
    assert counts(sheet)["STAR"] == 0


def test_overlay_takes_the_crop_count_that_it_is_given(white, sources):
    sheet = overlay(white, sources, n_crop_excluded=77).sheet
    assert counts(sheet)["not drawn: excluded by crop"] == 77


def test_overlay_tells_compass_and_scale(white, sources):
    texts = all_texts(overlay(white, sources, wcs=make_wcs(rotation=30)).sheet)
    assert "\nN\n" in texts
    assert "\nE\n" in texts
    assert "0.5″/pix" in texts
    assert "blue: no data" in texts
    assert "\nN\n" not in all_texts(overlay(white, sources).sheet)


@pytest.mark.parametrize("block", [1, 3])
def test_a_pixel_is_shown_where_it_is(tmp_path, block):
    """One bright pixel: the brightest spot of the picture is where the page places it, and the axes, too."""
    white = np.random.default_rng(0).normal(size=(900, 1500)).astype(np.float32)
    white[700:703, 300:303] = 1e6
    page = overlay(white, NO_SOURCES, downsample=block, dpi=240 if block == 1 else 80)
    page.sheet.save(tmp_path / "p.png")
    shade = read_png(tmp_path / "p.png").pixels[:, :, 0].astype(int)
    inside = shade[page.top : page.top + page.height, page.left : page.left + page.width]
    y, x = np.argwhere(inside == inside.max()).mean(axis=0)
    np.testing.assert_allclose((x, y), page.at(301, 701), atol=1.5)
    assert page.width == pytest.approx(1500 * page.per_pixel)
    # ticks stand where their numbers say: below the image and left of it
    row = page.sheet.rgb()[page.top + page.height + 1].sum(axis=1)
    ticks = np.flatnonzero(row < 600) - page.left
    ticks = ticks[ticks >= 0]
    assert len(ticks) >= 3
    values = [float(text) for text in page.sheet.texts if text.isdigit()]
    for tick in ticks:
        assert min(abs(page.at(value, 0)[0] - tick) for value in values) < 1.0


def test_zoom_counts_and_blanks(tmp_path, white, sources):
    page = overlay(white, sources, box=Box(60, 200, -40, 40))
    x, y = sources["x_pix_white"], sources["y_pix_white"]
    inside = (x >= 59.5) & (x < 119.5) & (y < 39.5) & ~sources["excluded_any"]
    found = counts(page.sheet)
    assert found["STAR"] + found["GAL/EXP/DEV/SERSIC"] + found["UNKNOWN"] == int(inside.sum())
    assert "not drawn: excluded by crop" not in found
    assert page.box == Box(60, 200, -40, 40)
    assert (page.width, page.height) == (140 * page.per_pixel, 80 * page.per_pixel)
    qa.plot_white_zoom(
        white, sources, make_wcs(), tmp_path / "z.png", zoom_box=[60, 200, -40, 40], gal_model="exp", dpi=DPI
    )
    check(tmp_path / "z.png")


@pytest.mark.parametrize(
    "box", [(4000, 5000, 4000, 5000), (-50, -10, 0, 10), (0, 10**7, 0, 10**7), (5, 5, 5, 5), (9, 3, 9, 3)]
)
def test_zoom_survives_any_box(tmp_path, white, sources, box):
    qa.plot_white_zoom(white, sources, None, tmp_path / "z.png", zoom_box=box, gal_model="exp", dpi=DPI)
    check(tmp_path / "z.png")


def test_zoom_outside_says_so(white, sources):
    page = overlay(white, sources, box=Box(4000, 5000, 4000, 5000))
    assert "outside of the working frame" in all_texts(page.sheet)


@pytest.mark.parametrize(
    ("shape", "fill", "wcs"),
    [
        ((1, 1), np.nan, None),
        ((3, 400), 0.0, make_wcs(swapped=True)),
        ((400, 3), np.inf, WCS(naxis=2)),
        ((50, 50), np.nan, make_wcs(crval=(10.0, 90.0))),
    ],
    ids=["one pixel", "flat", "tall", "empty"],
)
def test_sky_pictures_survive(tmp_path, shape, fill, wcs):
    image = np.full(shape, fill, np.float32)
    mask = np.full(shape, 3, np.uint8)
    path = {name: tmp_path / name / f"{name}.png" for name in "obca"}
    qa.plot_white_overlay(image, NO_SOURCES, wcs, path["o"], gal_model="dev", dpi=DPI)
    qa.plot_bright_mask(image, mask, NO_DETECTIONS, NO_SOURCES, path["b"], wcs=wcs, dpi=DPI)
    qa.plot_white_before_crop(image, Box(0, 1, 0, 1), path["c"], wcs=wcs, dpi=DPI)
    qa.plot_white_after_crop(image, path["a"], wcs=wcs, dpi=DPI)
    for written in path.values():
        check(written)


def test_many_sources_at_default_dpi(tmp_path):
    rng = np.random.default_rng(3)
    white = rng.normal(size=(1600, 2400)).astype(np.float32)
    n = 50_000
    table = pd.DataFrame(
        {
            "x_pix_white": rng.uniform(0, 2399, n), "y_pix_white": rng.uniform(0, 1599, n),
            "TYPE": rng.choice(["STAR", "EXP", ""], n),
        }
    )  # fmt: skip
    qa.plot_white_overlay(white, table, make_wcs(), tmp_path / "o.png", gal_model="exp")
    check(tmp_path / "o.png", dpi=300)


def check_legend_fits(page) -> None:
    """The legend ends left of the scale bar, and within the picture."""
    end, room = page.legend
    assert end <= room
    bar = page.sheet.marks.get("scale bar")
    assert bar is None or end < bar[0][0]
    assert max(y for _, y in page.sheet.marks["legend"]) < page.sheet.pixels.shape[0] - 5


@pytest.mark.parametrize("wcs", [None, make_wcs(rotation=45)], ids=["no WCS", "WCS"])
@pytest.mark.parametrize("shape", [(80, 120), (400, 10), (10, 400)])
def test_legends_fit(sources, patch_input, wcs, shape):
    white = np.zeros(shape, np.float32)
    many = pd.concat([sources] * 400, ignore_index=True)
    check_legend_fits(overlay(white, many, wcs=wcs, gal_model="sersic"))
    options = {"wcs": wcs, "downsample": 1, "title": "t", "dpi": DPI}
    check_legend_fits(bright_mask_page(white, np.zeros(shape, "u1"), NO_DETECTIONS, sources, **options))
    sheet = overview(patch_input, wcs=wcs)
    assert max(x for name, xy in sheet.marks.items() if name.startswith("legend") for x, _ in xy) < 560


# --- crop ----------------------------------------------------------------------------------------------


def test_crop_pictures(tmp_path, white):
    page = before_crop_page(
        white, Box(80, 400, 60, 260), downsample=4, preview_factor=4, wcs=make_wcs(), title="t", dpi=DPI
    )
    assert "kept: 320 × 200 pix (42 % of the frame)" in page.sheet.texts
    assert page.box == Box(0, 480, 0, 320)
    shade = page.panel.rgb().astype(int)
    x0, y0 = (round(float(v)) for v in page.at(79.5, 259.5))
    assert (shade[y0, x0 : x0 + 100] == 255).all(), "the upper edge of what is kept"
    assert (shade[y0 : y0 + 100, x0] == 255).all(), "the left edge"
    assert np.median(shade[: y0 - 2]) > np.median(shade[y0 + 5 : y0 + 60, x0 + 5 : x0 + 60]), (
        "the rest is pale"
    )
    after = after_crop_page(white, downsample=4, wcs=None, crop_box=Box(80, 200, 60, 140), title="t", dpi=DPI)
    assert "working frame: 120 × 80 pix, from (80, 60) of the input frame" in after.sheet.texts
    qa.plot_white_before_crop(white, Box(10, 100, 10, 70), tmp_path / "b" / "b.png", wcs=make_wcs(), dpi=DPI)
    qa.plot_white_after_crop(white, tmp_path / "a" / "a.png", dpi=DPI)
    check(tmp_path / "b" / "b.png")
    check(tmp_path / "a" / "a.png")


# --- bright mask ---------------------------------------------------------------------------------------


def test_bright_mask_counts(tmp_path, white, sources):
    detections = pd.DataFrame(
        {
            "x": [20.0, 70.0, 100.0, 71.0], "y": [30.0, 50.0, 10.0, 52.0],
            "matched": [True, True, False, True], "source_index": [0, 3, -1, 3],
        }
    )  # fmt: skip
    sources.loc[[3, 5, 15], "affected_by_bright_mask"] = True  # 3 is matched, 15 has no position
    mask = np.zeros(white.shape, np.uint8)
    mask[:8, :12] |= 1
    mask[40:44, :24] |= 2
    page = bright_mask_page(
        white, mask, detections, sources, wcs=make_wcs(), downsample=1, title="t", dpi=DPI
    )
    assert counts(page.sheet) == {
        "detection, in the catalogue": 3,
        "detection, not in the catalogue": 1,
        "catalogue source, detected": 2,
        "catalogue source under the mask": 1,
    }
    assert "masked as bright (1 % of the pixels)" in page.sheet.texts
    assert "saturated in any band (1 % of the pixels)" in page.sheet.texts
    np.testing.assert_array_equal(drawn(page, "unmatched"), [[100.0, 10.0]])
    bare = bright_mask_page(
        white, mask, NO_DETECTIONS, sources.iloc[:0], wcs=None, downsample=1, title="t", dpi=DPI
    )
    zoom = int(bare.per_pixel)
    shown = bare.panel.rgb()[::-1][::zoom, ::zoom].astype(int)
    plain = np.ptp(shown, axis=2) == 0
    np.testing.assert_array_equal(~plain & np.isfinite(white), (mask > 0) & np.isfinite(white))
    orange, violet = shown[2, 4], shown[42, 4]
    assert orange[0] > orange[2] + 30
    assert violet[2] > violet[1] + 30
    qa.plot_bright_mask(white, mask, detections, sources, tmp_path / "b.png", wcs=make_wcs(), dpi=DPI)
    check(tmp_path / "b.png")


# --- PSF -----------------------------------------------------------------------------------------------


def moffat(size: int = 51, alpha: float = 4.0, beta: float = 3.0) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    stamp = (1 + (x**2 + y**2) / alpha**2) ** -beta
    return (stamp / stamp.sum()).astype(np.float32)


def test_profile_and_growth_of_a_moffat():
    """Closed forms: FWHM = 2 alpha sqrt(2^(1/beta) - 1), share(r) = 1 - (1 + r^2/alpha^2)^(1-beta)."""
    stamp = moffat(201).astype(float)
    assert half_width(*radial_profile(stamp)) == pytest.approx(8 * np.sqrt(2 ** (1 / 3) - 1), rel=0.02)
    radius, share = growth_curve(stamp)
    for r in (2.0, 5.0, 12.0):
        expected = 1 - (1 + r**2 / 16) ** -2
        assert np.interp(r, radius, share) == pytest.approx(expected, abs=0.01)
    assert share[-1] == pytest.approx(1.0)


# --- patch ---------------------------------------------------------------------------------------------


def overview(p, dpi: int = DPI, wcs=None):
    return patch_sheet(p.data, p.model, p.weight, p.bands, p.table, p.patch, wcs=wcs, dpi=dpi)


def test_stacks_are_weighted_and_residuals_have_unit_width(patch_input):
    p = patch_input
    p.weight[:, :, 20:25] = 0
    p.weight[0, 5:9] = 0
    p.data[1, 40, 60] = np.nan
    data, model, residual = weighted_stacks(p.data, p.model, p.weight)
    w = np.where(np.isfinite(p.data), p.weight, 0).astype(float)
    with np.errstate(invalid="ignore"):
        expected = np.nansum(w * p.data, axis=0) / w.sum(axis=0)
    np.testing.assert_allclose(data, expected, rtol=2e-5, atol=1e-5)
    assert np.isnan(residual[:, 20:25]).all()
    good = np.isfinite(residual)
    assert good.sum() == residual.size - 5 * residual.shape[0]
    assert residual[good].std() == pytest.approx(1.0, abs=0.04)  # 3900 pixels: 0.011 is one sigma
    assert residual[good].mean() == pytest.approx(0.0, abs=0.06)
    assert np.isfinite(model[good]).all()


def sheet_counts(sheet) -> dict[str, int]:
    """``text -> N`` of the legend of a raster sheet."""
    found = [text.split(" (N=") for text in sheet.texts if " (N=" in text]
    return {label: int(rest.rstrip(")")) for label, rest in found}


def test_patch_overview(tmp_path, patch_input):
    p = patch_input
    sheet = overview(p, dpi=300, wcs=make_wcs())
    assert sheet_counts(sheet) == {"star, fitted": 1, "galaxy, fitted": 2, "halo source": 1}
    texts = "\n".join(sheet.texts)
    assert "Patch r00_c01_pr02_pc03" in texts
    assert "3 bands: m400 … m625" in texts, "in the order of wavelength"
    assert "3 sources, 1 in the halo" in texts
    assert "x [pix]" in texts
    assert "y [pix]" in texts
    zoom = 7  # 70 by 60 pixels of the roi on at most 500
    for name, (x, y) in {"star": (15.0, 20.0), "halo": (3.0, 55.0), "start": (16.0, 19.0)}.items():
        expected = ((x + 0.5) * zoom - 0.5, (60 - y - 0.5) * zoom - 0.5)
        np.testing.assert_allclose(sheet.marks[name][0], expected, err_msg=name)
    assert len(sheet.marks["base box"]) == 3
    np.testing.assert_allclose(sheet.marks["base box"][0], (10 * zoom - 0.5, 50 * zoom - 0.5))
    qa.plot_patch_overview(
        p.data, p.model, p.weight, p.bands, p.table, p.patch, tmp_path / "o.png", wcs=make_wcs()
    )
    check(tmp_path / "o.png", dpi=300, most=600_000)


def test_patch_residual_shows_its_sign(patch_input):
    p = patch_input
    p.data[:] = p.model
    p.data[:, 30:40, 50:60] += 20
    p.data[:, 5:15, 5:15] -= 20
    bare = dataclasses.replace(p, table=p.table.iloc[:0])
    sheet = overview(bare, dpi=300)
    (base_x, base_y), zoom = sheet.marks["base box"][0], 7
    left, top = 52 + 2 * (70 * zoom + 16), 66  # of the third panel
    assert (base_x, base_y) == (10 * zoom - 0.5, 50 * zoom - 0.5)

    def seen(x: int, y: int) -> np.ndarray:
        return sheet.rgb()[top + (59 - y) * zoom + 4, left + x * zoom + 4].astype(int)

    above, below, zero = seen(55, 35), seen(8, 7), seen(30, 30)
    assert above[0] > above[2] + 40, "orange"
    assert below[2] > below[0] + 40, "blue"
    assert zero.max() < 30, "dark"


def test_patch_overview_survives(tmp_path, patch_input):
    p = patch_input
    empty = p.table.iloc[:0]
    unfitted = p.table.drop(columns=["x_pix_patch_fit", "y_pix_patch_fit"]).assign(stype=None)
    tiny = Patch(0, 0, 0, 0, Box(0, 1, 0, 1), Box(0, 1, 0, 1), 0)
    cases = {
        "masked": dataclasses.replace(p, weight=np.zeros_like(p.weight)),
        "nan": dataclasses.replace(p, data=np.full_like(p.data, np.nan)),
        "nan model": dataclasses.replace(p, model=np.full_like(p.model, np.nan)),
        "no sources": dataclasses.replace(p, table=empty),
        "unfitted": dataclasses.replace(p, table=unfitted),
        "one pixel": dataclasses.replace(
            p, data=p.data[:, :1, :1], model=p.model[:, :1, :1], weight=p.weight[:, :1, :1], patch=tiny
        ),
        "no band": dataclasses.replace(p, data=p.data[:0], model=p.model[:0], weight=p.weight[:0], bands=()),
    }
    for name, case in cases.items():
        folder = tmp_path / name
        qa.plot_patch_overview(
            case.data, case.model, case.weight, case.bands, case.table, case.patch, folder / "o.png", dpi=DPI
        )
        check(folder / "o.png")
    assert "every pixel is masked" in overview(cases["masked"]).texts
    unknown = overview(cases["unfitted"], dpi=300).marks["unknown"]
    expected = [(7 * (x + 1.5) - 0.5, 7 * (60 - (y - 0.5)) - 0.5) for x, y in ((15, 20), (40, 35), (52, 12))]
    np.testing.assert_allclose(unknown, expected, err_msg="they stand where they started")


# --- zero point ----------------------------------------------------------------------------------------


def stars() -> pd.DataFrame:
    rows = [(13.0 + 0.1 * i, 25.0 + 0.01 * (i % 3), "kept") for i in range(20)]
    rows += [(15.0, 25.15, "clipped"), (16.0, 26.0, "clipped"), (14.0, 24.0, "clipped")]
    rows += [
        (14.5, 25.1, "unreliable"),
        (19.0, 25.0, "unreliable"),
        (11.0, 25.0, "kept"),
        (20.0, 27.0, "kept"),
    ]
    rows += [(np.nan, 25.0, "kept"), (15.0, np.nan, "unreliable")]
    table = pd.DataFrame(rows, columns=["gaiaxp_mag", "zp", "what"]).assign(band="m525", zp_err=0.01)
    table["is_kept"], table["is_clipped"] = table["what"] == "kept", table["what"] == "clipped"
    table.loc[0, "zp_err"] = np.nan
    return pd.concat([table, table.assign(band="m400", zp=30.0)], ignore_index=True)


def zero_point(**kwargs) -> ZeroPoint:
    values = {
        "band": "m525", "n_raw": 27, "n_kept": 22, "n_clipped": 3, "n_unreliable": 2, "clip_sigma": 3.0,
        "value": 25.01, "err_mad": 0.01, "err_std": 0.012, "err_median": 0.003, "n_err_src": 20,
        "err_snr_used": 100.0, "err": 0.01,
    }  # fmt: skip
    return ZeroPoint(**(values | kwargs))


def test_zp_in_the_restricted_range(tmp_path):
    sheet = zp_sheet(stars(), zero_point(), LIMITS, full_range=False, dpi=DPI)
    assert counts(sheet) == {"kept": 22, "clipped": 3, "unreliable": 2, "outside the range": 5}
    arrows = {m: len(sheet.marks.get(f"outside {m}", [])) for m in "^v<>"}
    assert arrows == {"^": 2, "v": 1, "<": 1, ">": 1}
    assert sum(len(sheet.marks[name]) for name in ("kept", "clipped", "unreliable")) == 22
    width, height = round(330 * 100 / 72), round(206 * 100 / 72)
    for name, places in sheet.marks.items():
        if name != "legend":
            assert all(0 <= x < width and 0 <= y < height for x, y in places), name
    ((x, y),) = [sheet.marks["clipped"][0]]
    assert x == pytest.approx((15.0 - 12.0) / 6.0 * (width - 1))
    assert y == pytest.approx((25.21 - 25.15) / 0.4 * (height - 1))
    texts = all_texts(sheet)
    assert "ZP 25.0100 ± 0.0100 mag" in texts
    assert "[mag AB]" in texts
    qa.plot_zp_vs_mag(stars(), zero_point(), LIMITS, tmp_path / "z.png", full_range=False, dpi=DPI)
    check(tmp_path / "z.png", most=60_000)


def test_zp_in_the_full_range_shows_every_star():
    sheet = zp_sheet(stars(), zero_point(), LIMITS, full_range=True, dpi=DPI)
    assert counts(sheet) == {"kept": 22, "clipped": 3, "unreliable": 2}, "the other band's stars are not here"
    assert not any(name.startswith("outside") for name in sheet.marks)
    assert sum(len(sheet.marks[name]) for name in ("kept", "clipped", "unreliable")) == 27


def test_zp_line_and_band_of_the_error():
    """In an empty column of the plot: the line at the zero point, a pale band one error to both sides."""
    nobody = stars().iloc[:0]
    sheet = zp_sheet(nobody, zero_point(), LIMITS, full_range=False, dpi=DPI)
    left, top, height = (round(v * 100 / 72) for v in (44, 52, 206))
    shade = sheet.rgb()[top : top + height, left + 40].astype(int).sum(axis=1)
    per_mag = (height - 1) / 0.4
    assert np.argmin(shade[2:-2]) + 2 == pytest.approx(0.2 * per_mag, abs=0.6)
    pale = (
        np.flatnonzero((shade[110:180] < 740) & (shade[110:180] > 600)) + 110
    )  # no line of the grid is here
    assert pale.min() == pytest.approx(0.19 * per_mag, abs=1.1)
    assert pale.max() == pytest.approx(0.21 * per_mag, abs=1.1)


def test_error_bars_reach_as_far_as_they_say():
    sheet = Sheet.blank(60, 120)
    panel = PlotPanel(sheet, 5, 10, 51, 101, (0.0, 10.0), (0.0, 10.0))
    panel.error_bars(np.array([4.0, 8.0]), np.array([5.0, 9.0]), np.array([2.0, 30.0]), "#000000", 1.0)
    dark = sheet.rgb().sum(axis=2) < 60
    assert np.flatnonzero(dark[:, 25]).tolist() == list(range(40, 81))
    assert np.flatnonzero(dark[:, 45]).tolist() == list(range(10, 111)), "cut off at the frame"
    assert dark.sum() == 41 + 101


@pytest.mark.parametrize("full_range", [True, False])
@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("value", [np.nan, 25.0])
def test_zp_survives(tmp_path, full_range, n, value):
    nan = float("nan")
    zp = zero_point(value=value, err=nan, err_mad=nan, err_std=nan, err_median=nan)
    qa.plot_zp_vs_mag(stars().iloc[:n], zp, LIMITS, tmp_path / "z.png", full_range=full_range, dpi=DPI)
    check(tmp_path / "z.png")
    assert "nan" not in all_texts(zp_sheet(stars().iloc[:n], zp, LIMITS, full_range=full_range, dpi=DPI))


# --- how pictures are made -----------------------------------------------------------------------------


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    target = tmp_path / "p.png"
    target.write_bytes(b"of an earlier run")

    def full(temporary, path):
        assert "p.png" in str(temporary)
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space"):
        Sheet.blank(100, 50).save(target)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["p.png"]
    assert target.read_bytes() == b"of an earlier run"


def test_same_input_same_bytes_also_from_threads(tmp_path, white, sources, patch_input):
    p = patch_input

    def draw(i: int) -> tuple[bytes, bytes, bytes]:
        paths = [tmp_path / f"{name}{i}.png" for name in "opz"]
        qa.plot_white_overlay(white, sources, make_wcs(rotation=10), paths[0], gal_model="exp", dpi=DPI)
        qa.plot_patch_overview(p.data, p.model, p.weight, p.bands, p.table, p.patch, paths[1], dpi=DPI)
        qa.plot_zp_vs_mag(stars(), zero_point(), LIMITS, paths[2], full_range=True, dpi=DPI)
        return paths[0].read_bytes(), paths[1].read_bytes(), paths[2].read_bytes()

    alone = draw(0)
    with ThreadPoolExecutor(4) as pool:
        assert all(result == alone for result in pool.map(draw, range(1, 6)))


def test_pictures_do_not_load_matplotlib(tmp_path):
    """To load it takes as long as most of a field's pictures, in every process that draws."""
    code = f"""
import sys
import numpy as np
from types import SimpleNamespace
from tract7dt import qa
from tract7dt.types import Box, Epsf
white = np.random.default_rng(0).normal(size=(40, 40)).astype("f4")
qa.plot_white_after_crop(white, r"{tmp_path}/a.png", dpi=60)
qa.plot_epsf(Epsf(np.ones((5, 5), "f4") / 25, 1, "epsf"), {{}}, r"{tmp_path}/e.png", dpi=60)
qa.plot_psf_stars(white, Box(0, 40, 0, 40), [], r"{tmp_path}/s.png", dpi=60)
loaded = [name for name in sys.modules if name.startswith("matplotlib")]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_inputs_are_not_changed(tmp_path, white, sources, patch_input):
    before, table = white.copy(), sources.copy(deep=True)
    white.setflags(write=False)
    p = patch_input
    for cube in (p.data, p.model, p.weight):
        cube.setflags(write=False)
    qa.plot_white_overlay(white, sources, make_wcs(), tmp_path / "o.png", gal_model="exp", dpi=DPI)
    qa.plot_bright_mask(
        white, np.zeros(white.shape, "u1"), NO_DETECTIONS, sources, tmp_path / "b.png", dpi=DPI
    )
    qa.plot_patch_overview(p.data, p.model, p.weight, p.bands, p.table, p.patch, tmp_path / "p.png", dpi=DPI)
    np.testing.assert_array_equal(white, before)
    pd.testing.assert_frame_equal(sources, table)
