"""One input, one result: to the last bit, whatever works on it, and nothing changes that does not see a change.

The runners of the flow (processes, threads, one after the other) are compared by
``tests/regression/test_regression_runners.py``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from astropy.io import fits
from badinput_field import BANDS, TinyField, make_field

from tract7dt import qa, stages
from tract7dt.patches import read_patches, read_payload
from tract7dt.settings import Settings, load_settings
from tract7dt.store import WorkDir, sha256_file
from tract7dt.types import Box, Patch, Ref

#: Four patches that share their halos; PSFs from the headers' widths, so that no pixel is seen through a PSF.
DIVISION: dict[str, dict[str, Any]] = {
    "epsf": {"epsf_ngrid": 1, "ngrid": 2, "thresh_sigma": 1e6, "psfstar_mode": "sep", "use_gaiaxp": False},
    "patches": {"halo_pix_min": 4},
    "patch_run": {"no_cutouts": True, "no_patch_overview": True},
    "bright_mask": {"enabled": False},
    "source_saturation_cut": {"enabled": False},
}

Order = Callable[[list[Ref]], list[list[Ref]]]


@dataclass
class Fitted:
    """A run up to the catalogue."""

    work: WorkDir
    settings: Settings

    def catalogue(self) -> list[bytes]:
        return [
            self.work.final_catalog.with_suffix(f".{kind}").read_bytes()
            for kind in ("csv", "parquet", "fits")
        ]

    def payloads(self) -> dict[str, str]:
        return {p.name.split(".")[0]: sha256_file(p) for p in self.work.payloads.glob("*.fits*")}

    def fits(self) -> dict[str, bytes]:
        return {p.parent.name: p.read_bytes() for p in self.work.fits.glob("*/*_cat_fit.csv")}

    def patches(self) -> list[Patch]:
        return read_patches(self.work.patches_json)


def one_batch(payloads: list[Ref]) -> list[list[Ref]]:
    return [payloads]


def fit(tiny: TinyField, name: str, order: Order = one_batch, **changes: dict[str, Any]) -> Fitted:
    """The stages in order, the patches in the given batches."""
    values = {section: dict(keys) for section, keys in DIVISION.items()}
    values["outputs"] = {"work_dir": name}
    for section, keys in changes.items():
        values[section] = values.get(section, {}) | keys
    settings = load_settings(tiny.config(values)).settings
    with mock.patch.multiple(
        qa, draw_crop=mock.DEFAULT, draw_overlays=mock.DEFAULT, draw_epsf_band=mock.DEFAULT
    ):
        field, sources = stages.load_inputs(settings)
        epsf = [stages.build_epsf_band(settings, field, sources, band) for band in BANDS]
    patches = stages.build_patches(settings, field, sources)
    masks = stages.compose_final_masks(settings, field, None)
    payloads = stages.build_patch_inputs(settings, field, sources, masks, patches, epsf)
    fitted = [ref for batch in order(payloads) for ref in stages.fit_patch_batch(settings, batch)]
    stages.merge(settings, field, sources, fitted)
    return Fitted(WorkDir.of(settings), settings)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyField:
    return make_field(tmp_path_factory.mktemp("determinism") / "field")


@pytest.fixture(scope="module")
def first(tiny: TinyField) -> Fitted:
    made = fit(tiny, "first")
    assert len(made.fits()) == 4
    return made


@pytest.mark.parametrize(
    ("order", "workers"),
    [
        (lambda payloads: [payloads[::-1]], 1),
        (lambda payloads: [[ref] for ref in payloads[::-1]], 7),
        (lambda payloads: [payloads[1::2], payloads[::2]], 3),
    ],
    ids=["backwards", "one by one", "odd then even"],
)
def test_order_and_workers_do_not_matter(tiny: TinyField, first: Fitted, order: Order, workers: int) -> None:
    again = fit(
        tiny,
        f"again_{workers}",
        order,
        performance={"frame_prep_workers": workers, "white_stack_workers": workers},
        patch_inputs={"max_workers": workers},
    )
    assert again.payloads() == first.payloads()
    assert again.fits() == first.fits()
    assert again.catalogue() == first.catalogue()


@pytest.mark.parametrize("place", [(20, 22), (47, 40), (70, 5), (94, 94)], ids=str)
def test_a_changed_pixel_changes_the_patches_that_see_it(
    tiny: TinyField, first: Fitted, tmp_path: Path, place: tuple[int, int]
) -> None:
    x, y = place
    folder = tmp_path / "field"
    shutil.copytree(tiny.folder, folder, ignore=shutil.ignore_patterns("first", "again_*"))
    changed = TinyField(folder)
    with fits.open(changed.image(1), mode="update") as hdus:
        hdus[0].data[y, x] += np.float32(25.0)
    after = fit(changed, "after")

    def sees(box: Box) -> bool:
        return bool(box.contains(np.array([x]), np.array([y]))[0])

    seeing = {patch.tag for patch in first.patches() if sees(patch.roi)}
    assert 0 < len(seeing) < 4 or place == (47, 40)
    before_payloads, after_payloads = pixels_of(first), pixels_of(after)
    assert {tag for tag in before_payloads if before_payloads[tag] != after_payloads[tag]} == seeing
    before, now = first.fits(), after.fits()
    assert {tag for tag in before if before[tag] != now[tag]} <= seeing
    owner = next(patch.tag for patch in first.patches() if sees(patch.base))
    assert before[owner] != now[owner]


def pixels_of(fitted: Fitted) -> dict[str, bytes]:
    """What each payload holds but for the names of the images, which lie elsewhere."""
    found = {}
    for path in fitted.work.payloads.glob("*.fits*"):
        payload = read_payload(path)
        table = payload.table.to_json().encode()
        found[payload.patch.tag] = payload.data.tobytes() + payload.bad.tobytes() + table
    return found
