"""The visual language: distinct symbols, colours that colour-blind readers can tell apart, band order."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from tract7dt.qa.color import to_hex, to_rgb
from tract7dt.qa.marker_stamps import marker_stamp
from tract7dt.qa.palette import GREYS, PALETTE, SIGNED_STEPS, grey_index, tinted, to_index
from tract7dt.qa.psf_stars import REASON_SYMBOLS
from tract7dt.qa.style import (
    DARK,
    DOT_SCALE,
    PAPER,
    SYMBOLS,
    as_drawn,
    band_colors,
    band_wavelength,
    fading_scale,
    order_bands,
    zoomed_scale,
)

# Machado, Oliveira & Fernandes (2009), severity 1, for linear RGB.
BLINDNESS = {
    "normal": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
#: Symbols that can meet in one picture.
PICTURES = {
    "overlay": ("star", "galaxy", "unknown", "saturated"),
    "bright": ("matched", "unmatched", "matched_source", "affected"),
    "patch": ("star", "galaxy", "unknown", "halo", "start"),
    "zp": ("kept", "unreliable", "clipped"),
    "gaia": ("unlabelled", "gaia", "injected", "saturated"),
    "psf_stars": ("psf_used", "gaia"),
}


def linear(color: str) -> np.ndarray:
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of linear RGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    t = np.clip(to_xyz @ np.clip(rgb, 0, 1), 0, None) / np.array([0.9505, 1.0, 1.089])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(a: str, b: str, matrix: np.ndarray) -> float:
    return float(np.linalg.norm(lab(matrix @ linear(a)) - lab(matrix @ linear(b))))


@pytest.mark.parametrize("picture", PICTURES)
def test_symbols_that_meet_differ_in_shape(picture):
    markers = [repr(SYMBOLS[name].marker) for name in PICTURES[picture]]
    assert len(set(markers)) == len(markers)


def test_an_open_circle_is_a_star():
    everything = [*SYMBOLS.items(), *REASON_SYMBOLS.items()]
    assert {name for name, s in everything if s.marker in ("o", "8") and not s.filled} == {"star"}


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("picture", ["overlay", "bright", "patch", "gaia"])
def test_colours_stay_apart_for_colour_blind_readers(picture, blindness):
    """CIE76 of at least 18: several times the just noticeable 2.3."""
    for a, b in combinations(PICTURES[picture], 2):
        found = distance(SYMBOLS[a].color, SYMBOLS[b].color, BLINDNESS[blindness])
        assert found > 18, (a, b, found)


def luminance(color: str) -> float:
    return float(np.array([0.2126, 0.7152, 0.0722]) @ linear(color))


def test_symbols_are_legible_on_their_backgrounds():
    """WCAG contrast of graphical objects: 3 to 1."""
    for name, symbol in SYMBOLS.items():
        on_dark = (luminance(symbol.color) + 0.05) / (luminance(DARK) + 0.05)
        on_paper = (luminance(PAPER) + 0.05) / (luminance(symbol.color_on_paper) + 0.05)
        assert on_dark > 3, name
        assert on_paper > (2.3 if name == "not_drawn" else 3), name


def test_the_seeds_hues_are_kept():
    def hue(name: str) -> np.ndarray:
        rgb = np.array(to_rgb(SYMBOLS[name].color))
        return rgb > 0.5 * (rgb.max() + rgb.min())

    wanted = {
        "star": (0, 1, 1), "galaxy": (1, 0, 1), "unknown": (1, 1, 0), "saturated": (1, 0, 0),
        "unmatched": (1, 0, 0), "matched_source": (0, 0, 1), "matched": (0, 1, 0), "affected": (1, 0, 0),
    }  # fmt: skip
    for name, expected in wanted.items():
        got = hue(name)
        if name in (
            "matched",
            "affected",
            "matched_source",
        ):  # lime, orange, blue: mixed with their neighbour
            assert got[np.flatnonzero(expected)[0]], name
        else:
            assert got.tolist() == [bool(v) for v in expected], name


def test_reasons_have_symbols_of_their_own():
    looks = [(str(s.marker), s.color) for s in REASON_SYMBOLS.values()]
    assert len(set(looks)) == len(looks)
    assert REASON_SYMBOLS["saturated"] is SYMBOLS["saturated"]
    taken = {(str(SYMBOLS[n].marker), SYMBOLS[n].color) for n in ("psf_used", "gaia", "affected")}
    assert not taken & set(looks)
    elsewhere = {s.marker for n, s in SYMBOLS.items() if n != "saturated"} - {"d", "x"}
    assert not elsewhere & {s.marker for s in REASON_SYMBOLS.values()}, "a shape means one thing"


@pytest.mark.parametrize(
    ("band", "nm"),
    [
        ("m400", 400), ("m875", 875), ("M1000", 1000), ("400", 400), ("m400w", 400), ("r", 623), ("u", 355),
        ("gA", 477), ("i_2", 763), ("r'", 623), ("B", 436), ("Rc", 641),
        ("white", None), ("green", None), ("", None), ("m12", None), ("m40000", None), ("Ha", None),
        ("Ks", 2190), ("V_1", 545),
    ],
)  # fmt: skip
def test_band_wavelength(band, nm):
    assert band_wavelength(band) == nm


def test_bands_are_ordered_by_wavelength_unknown_last_as_given():
    assert order_bands(["lum", "m700", "r", "clear", "m400"]) == ["m400", "r", "m700", "lum", "clear"]
    assert order_bands([]) == []


def test_band_colours_run_from_violet_to_red_and_unknown_are_grey():
    colors = band_colors(["m400", "m550", "m875", "lum", "clear"])
    blue, green, red = (np.array(to_rgb(colors[b])) for b in ("m400", "m550", "m875"))
    assert blue[2] == blue.max()
    assert green[1] == green.max()
    assert red[0] == red.max()
    for band in ("lum", "clear"):
        assert len(set(to_rgb(colors[band]))) == 1
    assert len(set(colors.values())) == 5
    assert band_colors(["m550"])["m550"] == colors["m550"], "a band has its colour whatever the others are"


def test_symbols_shrink_with_density_down_to_dots():
    scales = [fading_scale(n, 460.0**2) for n in (0, 1, 100, 3000, 50_000, 10**7)]
    assert scales[:3] == [1.0, 1.0, 1.0]
    assert all(a >= b for a, b in pairwise(scales))
    assert scales[3] > DOT_SCALE > scales[4] > 0
    assert as_drawn(SYMBOLS["unknown"], scales[4]).marker == "o"
    assert as_drawn(SYMBOLS["unknown"], 1.0) == SYMBOLS["unknown"]


def test_symbols_grow_where_pixels_are_large():
    assert zoomed_scale(1.0, 0.2) == 1.0
    assert zoomed_scale(1.0, 1.8) == pytest.approx(1.6)
    assert zoomed_scale(1.0, 50.0) == 2.2
    assert zoomed_scale(0.4, 50.0) == 0.4


@pytest.mark.parametrize("name", sorted(SYMBOLS))
def test_a_symbol_is_as_large_as_it_says_and_round_its_middle(name):
    """The mask's centre of mass is its middle; it reaches half its size, a diamond sqrt(2) times as far."""
    symbol = SYMBOLS[name]
    ((color, mask),) = marker_stamp(symbol, 20.0, 1.0, False)
    assert color == symbol.color
    y, x = np.nonzero(mask > 0.3)
    half = mask.shape[0] // 2
    reach = max(np.abs(x - half).max(), np.abs(y - half).max())
    assert 9 <= reach <= (15 if symbol.marker in ("D", "d") else 11)
    assert abs((x - half).mean()) < 0.5
    assert abs((y - half).mean()) < (3.5 if symbol.marker in ("^", "v") else 0.8)
    assert (mask[half, half] == 1) is np.bool_(symbol.filled or symbol.marker in ("+", "x"))


def test_a_rim_is_wider_than_its_symbol_and_lies_below_it():
    (rim, wide), (_, mask) = marker_stamp(SYMBOLS["star"], 12.0, 1.2, True)
    assert rim == "#000000"
    pad = (wide.shape[0] - mask.shape[0]) // 2
    assert ((np.pad(mask, pad) > 0.5) <= (wide > 0.2)).all()
    assert (wide > 0.2).sum() > 1.5 * (mask > 0.2).sum()


def test_colours_by_name():
    assert to_rgb("#ff8000") == (1.0, 128 / 255, 0.0)
    assert to_hex(to_rgb("#1c2026")) == "#1c2026"


def test_a_colour_becomes_the_nearest_one_of_the_palette():
    """Against a search through all greys and all colours of the cube."""
    rgb = np.random.default_rng(1).integers(0, 256, (500, 3)).astype(float)
    rgb[:100] = rgb[:100, :1] + np.random.default_rng(2).integers(-6, 7, (100, 3))  # nearly grey
    rgb = np.clip(rgb, 0, 255)
    usable = np.r_[0:GREYS, GREYS + 1 + SIGNED_STEPS : GREYS + 1 + SIGNED_STEPS + 125]
    found = np.linalg.norm(PALETTE[to_index(rgb)] - rgb, axis=1)
    best = np.linalg.norm(PALETTE[usable][None].astype(float) - rgb[:, None], axis=2).min(axis=1)
    assert (found - best).max() < 15.0, "the search is in steps of 5, 6 and 5 bits: up to 8 in each colour"
    assert np.median(found - best) < 1.0


def test_tints_keep_the_image_and_its_darkness():
    grey = grey_index(np.linspace(0, 1, 50)[None])
    over = PALETTE[tinted(grey, np.ones(grey.shape, bool), 0)][0].astype(int)
    assert (np.diff(over.sum(axis=1)) >= 0).all()
    assert (over[:, 0] > over[:, 2] + 50).all(), "orange"
    np.testing.assert_array_equal(tinted(grey, np.zeros(grey.shape, bool), 1), grey)
