"""What must hold for any input: invariants that span several stages, over generated ones.

Others stand with what they are about: a configuration survives dump and load
(``tests/settings/test_settings_text.py``), any table survives a payload
(``tests/patches/test_patches_payload_file.py``), base boxes tile the frame
(``tests/patches/test_patches_division.py``), a flux scale shifts the zero point and nothing else
(``tests/catalog/test_catalog_zeropoint.py``).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.wcs import WCS
from badinput_field import image_header
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_catalog import BANDS, make_audit, make_fit, make_payload, make_sources, make_wcs

from tract7dt.catalog import merge, patch_table
from tract7dt.frames import build_field, inspect_images
from tract7dt.patches import read_payload, write_payload
from tract7dt.settings import settings_from_dict
from tract7dt.store import WorkDir
from tract7dt.types import Box, Epsf, Patch, PatchPayload

FATES = ("fitted", "failed", "left out")


@settings(max_examples=40, deadline=None)
@given(data=st.data(), n_patches=st.integers(1, 5), single=st.booleans(), has_id=st.booleans())
def test_merge_keeps_every_row_once_whatever_patches_failed(
    data: st.DataObject, n_patches: int, single: bool, has_id: bool
) -> None:
    sources = make_sources(n=16, has_id=has_id)
    active = np.flatnonzero(~sources.table["excluded_any"].to_numpy())
    owner = {int(row): data.draw(st.integers(0, n_patches - 1)) for row in active}
    fates = [data.draw(st.sampled_from(FATES)) for _ in range(n_patches)]
    tables, failed, left_out = [], {}, {}
    for number, fate in enumerate(fates):
        rows = [row for row, patch in owner.items() if patch == number]
        halo = [row for row, patch in owner.items() if patch != number][:2]
        payload = make_payload(sources, rows, halo, tag=(0, 0, number, 0))
        if fate == "fitted":
            tables.append(patch_table(payload, make_fit(payload, single), make_audit()))
        elif fate == "failed":
            failed[payload.patch.tag] = (f"reason {number}", rows)
        else:
            left_out[payload.patch.tag] = rows
    tables = data.draw(st.permutations(tables))

    merged = merge(sources, tables, make_wcs(), BANDS, single, failed, left_out)

    given_columns = ["RA", "DEC", "TYPE", "note", "other_mag", *(["ID"] if has_id else [])]
    pd.testing.assert_frame_equal(merged[given_columns], sources.table[given_columns], check_dtype=False)
    flux = merged["FLUX_g_fit"].to_numpy(float)
    for row, issues in enumerate(merged["fit_quality_issues"]):
        fate = fates[owner[row]] if row in owner else "excluded"
        assert np.isfinite(flux[row]) == (fate == "fitted")
        assert ("patch_failed" in issues) == (fate == "failed")
        assert ("patch_not_fitted" in issues) == (fate == "left out")
        assert ("excluded" in issues) == (fate == "excluded")
        if fate != "fitted":
            assert not merged["fit_is_reliable"][row]


_FLOAT32 = st.floats(width=32)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    data=st.data(),
    level=st.sampled_from([0, 6]),
    half=st.integers(0, 3),
)
def test_any_pixels_and_masks_survive_a_payload(
    shape: tuple[int, int], data: st.DataObject, level: int, half: int
) -> None:
    n = shape[0] * shape[1]
    pixels = data.draw(st.lists(_FLOAT32, min_size=2 * n, max_size=2 * n))
    bits = data.draw(st.binary(min_size=2 * n, max_size=2 * n))
    numbers = st.floats(min_value=1e-300, max_value=1e300)
    roi = Box(3, 3 + shape[1], 5, 5 + shape[0])
    stamp = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    stamp[half, half] = 1
    table = pd.DataFrame(
        {name: np.zeros(0) for name in ("x_pix_white", "y_pix_white", "x_pix_patch", "y_pix_patch")}
    )
    table["source_index"] = np.zeros(0, np.int64)
    table["_is_halo_source"] = np.zeros(0, bool)
    payload = PatchPayload(
        patch=Patch(0, 0, 0, 0, base=roi, roi=roi, halo_pix=0),
        bands=("g", "r"),
        data=np.array(pixels, np.float32).reshape(2, *shape),
        bad=np.frombuffer(bits, np.uint8).reshape(2, *shape),
        sky_sigma=np.array(data.draw(st.tuples(numbers, numbers))),
        gain=np.array(data.draw(st.tuples(numbers, numbers))),
        scale=np.array(data.draw(st.tuples(numbers, numbers))),
        fwhm_pix=np.array([2.5, np.nan]),
        psfs=(Epsf(stamp, 4, "epsf", {}), None),
        table=table,
    )
    with tempfile.TemporaryDirectory() as folder:
        write_payload(payload, Path(folder) / "p", level)
        again = read_payload(Path(folder) / "p")
        write_payload(again, Path(folder) / "q", level)
        assert (Path(folder) / "p").read_bytes() == (Path(folder) / "q").read_bytes()
    # NaN equals NaN here; which of the many NaN it was does not matter to anybody.
    np.testing.assert_array_equal(again.data, payload.data)
    assert np.array_equal(np.signbit(again.data), np.signbit(payload.data)) or np.isnan(payload.data).any()
    np.testing.assert_array_equal(again.bad, payload.bad)
    for name in ("sky_sigma", "gain", "scale", "fwhm_pix"):
        np.testing.assert_array_equal(getattr(again, name), getattr(payload, name))
    assert again.patch == payload.patch


def _wcs_cards(
    kind: str, turn: float, flip: int, stretch: float, dec: float, terms: list[float]
) -> dict[str, Any]:
    step, angle = 0.505 / 3600, np.radians(turn)
    cards: dict[str, Any] = {
        "CRVAL1": 359.9999, "CRVAL2": dec, "CRPIX1": 20.25, "CRPIX2": 31.5,
        "CD1_1": -step * flip * np.cos(angle), "CD1_2": step * stretch * np.sin(angle),
        "CD2_1": step * flip * np.sin(angle), "CD2_2": step * stretch * np.cos(angle),
    }  # fmt: skip
    if kind == "SIP":
        cards |= {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2}
        names = ("A_2_0", "A_1_1", "A_0_2", "B_2_0", "B_1_1", "B_0_2")
        cards |= {name: 1e-5 * term for name, term in zip(names, terms, strict=True)}
    elif kind == "TPV":
        cards |= {"CTYPE1": "RA---TPV", "CTYPE2": "DEC--TPV", "PV1_1": 1.0, "PV2_1": 1.0}
        names = ("PV1_0", "PV1_4", "PV1_5", "PV2_0", "PV2_4", "PV2_6")
        cards |= {name: 1e-4 * term for name, term in zip(names, terms, strict=True)}
    return cards


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["TAN", "SIP", "TPV"]),
    turn=st.floats(-180, 180),
    flip=st.sampled_from([1, -1]),
    stretch=st.floats(0.9, 1.1),
    dec=st.floats(-89.9, 89.9),
    terms=st.lists(st.floats(-1, 1), min_size=6, max_size=6),
    margin=st.integers(0, 18),
)
def test_wcs_of_the_crop_agrees_with_that_of_the_image(
    kind: str, turn: float, flip: int, stretch: float, dec: float, terms: list[float], margin: int
) -> None:
    header = image_header("r")
    header.update(_wcs_cards(kind, turn, flip, stretch, dec, terms))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fits.PrimaryHDU(np.zeros((60, 50), np.float32), header).writeto(folder / "r.fits")
        values = {
            "inputs": {"input_catalog": "c", "image_list_file": "i"},
            "outputs": {"work_dir": "work"},
            "crop": {"enabled": margin > 0, "margin": max(margin, 1)},
            "epsf": {"epsf_ngrid": 1, "ngrid": 1},
        }
        given_settings = settings_from_dict(values, folder).settings
        work = WorkDir.of(given_settings)
        field = build_field(inspect_images([str(folder / "r.fits")], given_settings), given_settings, work)
        snapshot = WCS(fits.getheader(work.wcs))
        assert fits.getheader(work.wcs)["IMAGEW"] == 50 - 2 * margin
    x, y = (axis.ravel() for axis in np.meshgrid([-0.5, 3.0, 24.25, 49.5], [-0.5, 7.0, 59.5]))
    ra, dec_ = WCS(header).all_pix2world(x, y, 0)
    for wcs in (snapshot, field.wcs):
        found_ra, found_dec = wcs.all_pix2world(x - margin, y - margin, 0)
        d_ra = (found_ra - ra + 180) % 360 - 180
        assert np.abs(d_ra * np.cos(np.radians(dec_))).max() <= 1e-9
        assert np.abs(found_dec - dec_).max() <= 1e-9
