"""Inputs of the picture tests: small, seeded, with every kind of source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from qa_inputs import PatchInput

from tract7dt.qa.raster import Sheet, text_width
from tract7dt.types import Box, Patch


@pytest.fixture(autouse=True)
def words_cut_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Whatever is drawn in these tests: every word lies within its picture, from end to end."""
    cut: list[str] = []
    write = Sheet.text

    def text(sheet: Sheet, left: float, top: float, text: str, **how: Any) -> None:
        width = text_width(text, how.get("size", 12), how.get("bold", False))
        begin = left - {"left": 0.0, "centre": 0.5, "right": 1.0}[how.get("align", "left")] * width
        if begin < -0.5 or begin + width > sheet.pixels.shape[1] + 0.5:
            cut.append(text)
        write(sheet, left, top, text, **how)

    monkeypatch.setattr(Sheet, "text", text)
    yield cut
    assert cut == []


@pytest.fixture
def white() -> np.ndarray:
    """80 by 120 pixels of sky with three stars and a hole."""
    rng = np.random.default_rng(5)
    image = rng.normal(0.0, 1.0, (80, 120)).astype(np.float32)
    yy, xx = np.indices(image.shape)
    for x, y, flux in ((20, 30, 800.0), (70, 50, 5000.0), (100, 10, 90.0)):
        image += (flux * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / 8)).astype(np.float32)
    image[60:70, 0:15] = np.nan
    return image


@pytest.fixture
def sources() -> pd.DataFrame:
    """Three stars, four galaxies, five unknown, one saturated, two cropped, one lost, one off the frame."""
    rows = [
        *[("STAR", "")] * 2, ("star ", ""), ("EXP", ""), ("gal", ""), ("DEV", ""), ("SERSIC", ""),
        ("", ""), (None, ""), (np.nan, ""), ("QSO", ""), ("  ", ""),
        ("STAR", "saturated"), ("EXP", "crop"), ("STAR", "crop"), ("STAR", "lost"), ("EXP", "off"),
    ]  # fmt: skip
    n = len(rows)
    table = pd.DataFrame(
        {
            "ID": [f"{i:03d}" for i in range(n)],
            "TYPE": [r[0] for r in rows],
            "x_pix_white": np.linspace(2, 117, n),
            "y_pix_white": np.linspace(77, 3, n),
            "excluded_crop": [r[1] == "crop" for r in rows],
            "excluded_saturation": [r[1] == "saturated" for r in rows],
            "affected_by_bright_mask": False,
        }
    )
    what = np.array([r[1] for r in rows])
    table.loc[what == "lost", "x_pix_white"] = np.nan
    table.loc[what == "off", "x_pix_white"] = 119.6
    table.loc[what == "crop", "x_pix_white"] = -300.0
    table["excluded_any"] = table["excluded_crop"] | table["excluded_saturation"]
    return table


@pytest.fixture
def patch_input() -> PatchInput:
    """Three bands of 60 by 70 pixels: the model is the truth, the noise is that of the weights."""
    rng = np.random.default_rng(11)
    roi = Box(1000, 1070, 500, 560)
    x, y = np.array([15.0, 40.0, 52.0, 3.0]), np.array([20.0, 35.0, 12.0, 55.0])
    yy, xx = np.indices(roi.shape)
    model = np.zeros((3, *roi.shape), np.float32)
    for i in range(3):
        for j in range(4):
            model[i] += 200 * (j + 1) * np.exp(-((xx - x[j]) ** 2 + (yy - y[j]) ** 2) / 8)
    sigma = np.array([1.0, 3.0, 2.0])[:, None, None]
    data = (model + sigma * rng.standard_normal(model.shape)).astype(np.float32)
    weight = np.broadcast_to(1 / sigma**2, model.shape).astype(np.float32).copy()
    table = pd.DataFrame(
        {
            "x_pix_patch": x + 1, "y_pix_patch": y - 1, "x_pix_patch_fit": x, "y_pix_patch_fit": y,
            "_is_halo_source": [False, False, False, True], "stype": ["star", "exp", "sersic", "star"],
        }
    )  # fmt: skip
    patch = Patch(0, 1, 2, 3, Box(1010, 1060, 510, 550), roi, 10)
    return PatchInput(data, model, weight, ("m625", "m400", "m500"), table, patch)
