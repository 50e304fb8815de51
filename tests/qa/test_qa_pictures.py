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
from PIL import Image
from qa_inputs import all_texts, legend_texts, make_wcs, read_png

from tract7dt import qa
from tract7dt.qa.bright import bright_mask_figure
from tract7dt.qa.crop import after_crop_figure, before_crop_figure
from tract7dt.qa.figure import new_figure, save_figure
from tract7dt.qa.overlay import overlay_figure
from tract7dt.qa.patch import patch_sheet, weighted_stacks
from tract7dt.qa.profile import growth_curve, half_width, radial_profile
from tract7dt.qa.style import SYMBOLS
from tract7dt.qa.zp import zp_figure
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


def counts(figure) -> dict[str, int]:
    """``text -> N`` of the legend entries that count."""
    out = {}
    for text in legend_texts(figure):
        if "(N=" in text:
            label, rest = text.split(" (N=", 1)
            out[label] = int(rest.split(")")[0])
    return out


def drawn(figure, name: str, panel: int = 0) -> np.ndarray:
    """Positions at which a symbol was drawn."""
    symbol = SYMBOLS[name]
    lines = [
        line.get_xydata()
        for line in figure.axes[panel].lines
        if line.get_marker() is symbol.marker and line.get_markeredgecolor() == symbol.color
    ]
    return np.concatenate(lines) if lines else np.zeros((0, 2))


# --- overlay -------------------------------------------------------------------------------------------


def overlay(white, table, box=None, wcs=None, **kwargs):
    box = box or Box(0, white.shape[1], 0, white.shape[0])
    options = {"gal_model": "exp", "downsample": 1, "title": "t", "dpi": DPI} | kwargs
    return overlay_figure(white, table, wcs, box, **options)


def test_overlay_counts_by_type(white, sources):
    figure = overlay(white, sources, wcs=make_wcs())
    assert counts(figure) == {
        "STAR": 3,
        "GAL/EXP/DEV/SERSIC": 4,
        "UNKNOWN": 5,
        "excluded: saturation": 1,
        "not drawn: excluded by crop": 2,
        "not drawn: NaN or out of bounds": 2,
    }
    assert "UNKNOWN (N=5) (fallback=exp)" in legend_texts(figure)
    for name, n in (("star", 3), ("galaxy", 4), ("unknown", 5), ("saturated", 1)):
        assert len(drawn(figure, name)) == n, name
    np.testing.assert_allclose(drawn(figure, "saturated")[0], sources.loc[12, ["x_pix_white", "y_pix_white"]])


def test_overlay_without_a_type_column_has_only_unknown(white, sources):
    figure = overlay(white, sources.drop(columns="TYPE"))
    assert counts(figure)["UNKNOWN"] == 12
    assert counts(figure)["STAR"] == 0


def test_overlay_takes_the_crop_count_that_it_is_given(white, sources):
    assert counts(overlay(white, sources, n_crop_excluded=77))["not drawn: excluded by crop"] == 77


def test_overlay_tells_compass_and_scale(white, sources):
    texts = all_texts(overlay(white, sources, wcs=make_wcs(rotation=30)))
    assert "\nN\n" in texts
    assert "\nE\n" in texts
    assert "0.5″/pix" in texts
    assert "blue: no data" in texts
    assert "\nN\n" not in all_texts(overlay(white, sources))


@pytest.mark.parametrize("block", [1, 3])
def test_a_pixel_is_shown_where_it_is(tmp_path, block):
    """One bright pixel: the brightest spot of the picture is at its place by the axes' own transform."""
    white = np.random.default_rng(0).normal(size=(900, 1500)).astype(np.float32)
    white[700:703, 300:303] = 1e6
    figure = overlay(white, NO_SOURCES, downsample=block, dpi=100 if block == 1 else 36)
    save_figure(figure, tmp_path / "p.png")
    png = read_png(tmp_path / "p.png")
    ax = figure.axes[0]
    left, bottom, right, top = (round(v) for v in ax.get_window_extent().extents)
    shade = png.pixels[:, :, 0][::-1].astype(int)  # from the bottom up, as the display coordinates
    inside = shade[bottom + 2 : top - 2, left + 2 : right - 2]
    y, x = np.argwhere(inside == inside.max()).mean(axis=0) + (bottom + 2.5, left + 2.5)
    np.testing.assert_allclose(ax.transData.inverted().transform((x, y)), (301, 701), atol=3.5)


def test_zoom_counts_and_blanks(tmp_path, white, sources):
    figure = overlay(white, sources, box=Box(60, 200, -40, 40))
    x, y = sources["x_pix_white"], sources["y_pix_white"]
    inside = (x >= 59.5) & (x < 119.5) & (y < 39.5) & ~sources["excluded_any"]
    found = counts(figure)
    assert found["STAR"] + found["GAL/EXP/DEV/SERSIC"] + found["UNKNOWN"] == int(inside.sum())
    assert "not drawn: excluded by crop" not in found
    assert figure.axes[0].get_xlim() == (59.5, 199.5)
    assert figure.axes[0].get_ylim() == (-40.5, 39.5)
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
    assert "outside of the working frame" in all_texts(
        overlay(white, sources, box=Box(4000, 5000, 4000, 5000))
    )


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


def check_legend_fits(figure) -> None:
    """The legend lies within its strip and left of the scale bar."""
    figure.canvas.draw()
    strip = next(ax for ax in figure.axes if ax.get_legend() is not None)
    box, legend = strip.get_window_extent(), strip.get_legend().get_window_extent()
    right = min([box.x1, *(line.get_window_extent().x0 for line in strip.lines)])
    assert legend.x0 >= box.x0 - 1
    assert legend.x1 <= right + 1
    assert legend.y0 >= box.y0 - 1
    assert legend.y1 <= box.y1 + 1


@pytest.mark.parametrize("wcs", [None, make_wcs(rotation=45)], ids=["no WCS", "WCS"])
@pytest.mark.parametrize("shape", [(80, 120), (400, 10), (10, 400)])
def test_legends_fit(sources, patch_input, wcs, shape):
    white = np.zeros(shape, np.float32)
    many = pd.concat([sources] * 400, ignore_index=True)
    check_legend_fits(overlay(white, many, wcs=wcs, gal_model="sersic"))
    options = {"wcs": wcs, "downsample": 1, "title": "t", "dpi": DPI}
    check_legend_fits(bright_mask_figure(white, np.zeros(shape, "u1"), NO_DETECTIONS, sources, **options))
    sheet = overview(patch_input, wcs=wcs)
    assert max(x for name, xy in sheet.marks.items() if name.startswith("legend") for x, _ in xy) < 560


# --- crop ----------------------------------------------------------------------------------------------


def test_crop_pictures(tmp_path, white):
    figure = before_crop_figure(
        white, Box(80, 400, 60, 260), downsample=4, preview_factor=4, wcs=make_wcs(), title="t", dpi=DPI
    )
    (label,) = legend_texts(figure)
    assert label == "kept: 320 × 200 pix (42 % of the frame)"
    outline = next(p for p in figure.axes[0].patches if not p.get_fill())
    assert outline.get_bbox().bounds == (79.5, 59.5, 320, 200)
    assert figure.axes[0].get_xlim() == (-0.5, 479.5)
    assert figure.axes[0].images[0].get_extent() == [-0.5, 479.5, -0.5, 319.5]
    after = after_crop_figure(
        white, downsample=4, wcs=None, crop_box=Box(80, 200, 60, 140), title="t", dpi=DPI
    )
    assert legend_texts(after) == ["working frame: 120 × 80 pix, from (80, 60) of the input frame"]
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
    figure = bright_mask_figure(
        white, mask, detections, sources, wcs=make_wcs(), downsample=1, title="t", dpi=DPI
    )
    assert counts(figure) == {
        "detection, in the catalogue": 3,
        "detection, not in the catalogue": 1,
        "catalogue source, detected": 2,
        "catalogue source under the mask": 1,
    }
    assert "masked as bright (1 % of the pixels)" in legend_texts(figure)
    assert "saturated in any band (1 % of the pixels)" in legend_texts(figure)
    np.testing.assert_array_equal(drawn(figure, "unmatched"), [[100.0, 10.0]])
    tinted = figure.axes[0].images[0].get_array()
    plain = np.ptp(np.asarray(tinted[..., :3], int), axis=2) == 0
    np.testing.assert_array_equal(~plain & np.isfinite(white), (mask > 0) & np.isfinite(white))
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
    zoom = 8  # 70 by 60 pixels of the roi on at most 560
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
    (base_x, base_y), zoom = sheet.marks["base box"][0], 8
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
    expected = [(8 * (x + 1.5) - 0.5, 8 * (60 - (y - 0.5)) - 0.5) for x, y in ((15, 20), (40, 35), (52, 12))]
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
    figure = zp_figure(stars(), zero_point(), LIMITS, full_range=False, dpi=DPI)
    assert counts(figure) == {"kept": 22, "clipped": 3, "unreliable": 2, "outside the range": 5}
    ax = figure.axes[0]
    assert ax.get_xlim() == (12.0, 18.0)
    assert ax.get_ylim() == pytest.approx((24.81, 25.21))
    arrows = {
        m: sum(
            len(line.get_xdata())
            for line in ax.lines
            if line.get_marker() == m and line.get_markeredgewidth() == 0
        )
        for m in "^v<>"
    }
    assert arrows == {"^": 2, "v": 1, "<": 1, ">": 1}
    for line in ax.lines:
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        if line.get_marker() not in ("None", None):
            assert ((x >= 12) & (x <= 18) & (y >= 24.81) & (y <= 25.21)).all()
    texts = all_texts(figure)
    assert "ZP 25.0100 ± 0.0100 mag" in texts
    assert "[mag AB]" in texts
    qa.plot_zp_vs_mag(stars(), zero_point(), LIMITS, tmp_path / "z.png", full_range=False, dpi=DPI)
    check(tmp_path / "z.png")


def test_zp_in_the_full_range_shows_every_star():
    figure = zp_figure(stars(), zero_point(), LIMITS, full_range=True, dpi=DPI)
    assert counts(figure) == {"kept": 22, "clipped": 3, "unreliable": 2}
    (x0, x1), (y0, y1) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    assert x0 < 11.0
    assert x1 > 20.0
    assert y0 < 24.0
    assert 27.0 < y1 < 30.0, "the other band's stars are not here"
    points = [line for line in figure.axes[0].lines if line.get_marker() in ("o", "x", "d")]
    assert sum(len(line.get_xdata()) for line in points) == 27


def test_zp_line_and_band_of_the_error():
    figure = zp_figure(stars(), zero_point(), LIMITS, full_range=False, dpi=DPI)
    level = [line for line in figure.axes[0].lines if line.get_marker() == "None"]
    np.testing.assert_allclose(level[0].get_ydata(), 25.01)
    span = figure.axes[0].patches[0].get_extents()
    inverse = figure.axes[0].transData.inverted()
    np.testing.assert_allclose(
        [inverse.transform((0, span.y0))[1], inverse.transform((0, span.y1))[1]], [25.0, 25.02], atol=1e-6
    )


@pytest.mark.parametrize("full_range", [True, False])
@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("value", [np.nan, 25.0])
def test_zp_survives(tmp_path, full_range, n, value):
    nan = float("nan")
    zp = zero_point(value=value, err=nan, err_mad=nan, err_std=nan, err_median=nan)
    qa.plot_zp_vs_mag(stars().iloc[:n], zp, LIMITS, tmp_path / "z.png", full_range=full_range, dpi=DPI)
    check(tmp_path / "z.png")
    assert "nan" not in all_texts(zp_figure(stars().iloc[:n], zp, LIMITS, full_range=full_range, dpi=DPI))


# --- how pictures are made -----------------------------------------------------------------------------


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    target = tmp_path / "p.png"
    target.write_bytes(b"of an earlier run")

    def broken(self, path, **kwargs):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(OSError, match="no space"):
        save_figure(new_figure(100, 50, DPI), target)
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


def test_no_pyplot_and_no_global_state(tmp_path):
    code = f"""
import sys
import matplotlib
before = matplotlib.rcParams.copy()
import numpy as np
from types import SimpleNamespace
from tract7dt import qa
from tract7dt.types import Box, Epsf
white = np.random.default_rng(0).normal(size=(40, 40)).astype("f4")
qa.plot_white_after_crop(white, r"{tmp_path}/a.png", dpi=60)
qa.plot_epsf(Epsf(np.ones((5, 5), "f4") / 25, 1, "epsf"), {{}}, r"{tmp_path}/e.png", dpi=60)
qa.plot_psf_stars(white, Box(0, 40, 0, 40), [], r"{tmp_path}/s.png", dpi=60)
assert "matplotlib.pyplot" not in sys.modules, "pyplot was imported"
after = matplotlib.rcParams.copy()
different = [k for k in before if dict.__getitem__(before, k) != dict.__getitem__(after, k)]
assert not different, f"rcParams were changed: {{different}}"
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
