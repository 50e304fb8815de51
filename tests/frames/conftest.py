"""Small images with known content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from tract7dt.settings import Settings, settings_from_dict
from tract7dt.store import WorkDir


def header_of(band: str, **changes: Any) -> fits.Header:
    """A complete header; ``KEY=None`` removes a keyword, ``DATE_OBS`` means DATE-OBS."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.1, 2.2]
    wcs.wcs.crpix = [30.25, 20.75]
    wcs.wcs.cd = np.array([[-1.4e-4, 2e-6], [2e-6, 1.4e-4]])
    header = wcs.to_header()
    header.update({"FILTER": band, "ZP_AUTO": 27.5, "SKYSIG": 4.0, "EGAIN": 2.0, "SATURATE": 50000.0})
    header.update({"PEEING": 3.5, "DATE-OBS": "2024-05-01T12:00:00"})
    for keyword, value in changes.items():
        name = keyword.replace("_OBS", "-OBS")
        if value is None:
            header.remove(name, ignore_missing=True)
        else:
            header[name] = value
    return header


@pytest.fixture
def header() -> Callable[..., fits.Header]:
    return header_of


@pytest.fixture
def image(tmp_path: Path) -> Callable[..., Path]:
    """Write ``{name or band}.fits`` and return its path."""

    def write(band: str, data: np.ndarray | None = None, name: str | None = None, **changes: Any) -> Path:
        path = tmp_path / f"{name or band}.fits"
        if data is None:
            data = np.zeros((40, 60), np.float32)
        fits.PrimaryHDU(data, header_of(band, **changes)).writeto(path)
        return path

    return write


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., tuple[Settings, WorkDir]]:
    """Settings without a crop, unless told so, and the layout of the run."""

    def make(**sections: Any) -> tuple[Settings, WorkDir]:
        values: dict[str, Any] = {
            "inputs": {"input_catalog": "c.csv", "image_list_file": "l.txt"},
            "outputs": {"work_dir": "work"},
            "crop": {"enabled": False},
            "epsf": {"epsf_ngrid": 1, "ngrid": 1},
        }
        settings = settings_from_dict(values | sections, tmp_path).settings
        return settings, WorkDir.of(settings)

    return make
