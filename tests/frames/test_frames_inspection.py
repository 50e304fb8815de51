from __future__ import annotations

import logging
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.time import Time

from tract7dt.errors import InputError
from tract7dt.frames import inspect_images


def test_header_values(image, configure) -> None:
    settings, _ = configure()
    (info,) = inspect_images([str(image("m400", SEEING=9.9))], settings)
    assert (info.band, info.shape) == ("m400", (40, 60))
    assert (info.zp_auto, info.sky_sigma, info.gain, info.saturate) == (27.5, 4.0, 2.0, 50000.0)
    assert info.fwhm_pix == 3.5  # PEEING counts before SEEING
    assert info.epoch == pytest.approx(Time("2024-05-01T12:00:00").jyear, abs=1e-9)
    area = abs(1.4e-4 * 1.4e-4 + 2e-6 * 2e-6)
    assert info.pixel_scale_arcsec == pytest.approx(3600 * area**0.5, rel=1e-12)


def test_seeing_is_in_arcsec(image, configure) -> None:
    settings, _ = configure()
    (info,) = inspect_images([str(image("r", PEEING=None, SEEING=2.0))], settings)
    assert info.fwhm_pix == pytest.approx(2.0 / info.pixel_scale_arcsec)


def test_width_and_epoch_are_optional(image, configure) -> None:
    settings, _ = configure()
    (info,) = inspect_images([str(image("r", PEEING=None, DATE_OBS=None))], settings)
    assert info.fwhm_pix is None
    assert info.epoch is None


def test_mjd_stands_in_for_a_date_without_time(image, configure) -> None:
    settings, _ = configure()
    (info,) = inspect_images([str(image("r", DATE_OBS="2003-10-19", MJD_OBS=52931.75))], settings)
    assert info.epoch == pytest.approx(2000 + (52931.75 - 51544.5) / 365.25, abs=1e-5)


def test_missing_saturate_is_said_once_per_image(image, configure, caplog) -> None:
    settings, _ = configure()
    with caplog.at_level(logging.WARNING):
        (info,) = inspect_images([str(image("r", SATURATE=None))], settings)
    assert info.saturate is None
    assert [r.message for r in caplog.records if "SATURATE" in r.message] == [
        f"{info.path}: no SATURATE in the header, its saturated pixels are not masked"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"FILTER": None}, "keyword FILTER is missing"),
        ({"FILTER": "a/b"}, "FILTER = 'a/b'"),
        ({"FILTER": " "}, "FILTER = ''"),
        ({"FILTER": 7}, "FILTER = 7"),
        ({"FILTER": "white"}, "another"),
        ({"ZP_AUTO": None}, "keyword ZP_AUTO is missing"),
        ({"ZP_AUTO": "bright"}, "ZP_AUTO = 'bright'"),
        ({"ZP_AUTO": -400.0}, "ZP_AUTO = -400: expected a magnitude"),
        ({"SKYSIG": 0.0}, "SKYSIG = 0.0: expected a number above 0"),
        ({"EGAIN": -1.0}, "EGAIN = -1.0"),
        ({"EGAIN": True}, "EGAIN = True"),
        ({"SATURATE": 0}, "SATURATE = 0"),
        ({"CTYPE1": None, "CTYPE2": None}, "expected a celestial WCS"),
        ({"CTYPE1": "GLON-TAN", "CTYPE2": "GLAT-TAN"}, "expected a celestial WCS .* found GLON-TAN"),
        ({"RADESYS": "FK4"}, "RADESYS"),
    ],
)
def test_bad_keyword(image, configure, changes, message) -> None:
    settings, _ = configure()
    path = image("r", **changes)
    with pytest.raises(InputError, match=message) as caught:
        inspect_images([str(path)], settings)
    assert str(path) in str(caught.value)


def test_all_problems_of_all_images_at_once(image, configure, tmp_path: Path) -> None:
    settings, _ = configure()
    (tmp_path / "text.fits").write_text("not FITS at all")
    fits.PrimaryHDU().writeto(tmp_path / "empty.fits")
    fits.PrimaryHDU(np.zeros((3, 4, 5), "f4")).writeto(tmp_path / "cube.fits")
    paths = [image("r", SKYSIG=None, EGAIN=None), image("g", ZP_AUTO=None)]
    paths += [tmp_path / name for name in ("gone.fits", "text.fits", "empty.fits", "cube.fits")]
    with pytest.raises(InputError) as caught:
        inspect_images([str(p) for p in paths], settings)
    message = str(caught.value)
    parts = [
        "SKYSIG",
        "EGAIN",
        "ZP_AUTO",
        "gone.fits: no such file",
        "text.fits: expected a FITS file",
        "empty.fits: expected an image",
        "cube.fits: expected a 2-D image, found NAXIS 5 x 4 x 3",
    ]
    for part in parts:
        assert part in message


def test_one_image_a_filter(image, configure) -> None:
    settings, _ = configure()
    paths = [str(image("r", name="one")), str(image("r", name="two"))]
    with pytest.raises(InputError, match=r"FILTER = 'r' in .*one.fits and in .*two.fits"):
        inspect_images(paths, settings)


@pytest.mark.parametrize("checked", [True, False])
def test_shapes_must_agree_checked_or_not(image, configure, checked) -> None:
    settings, _ = configure(checks={"require_same_shape": checked, "require_wcs_alignment": False})
    paths = [str(image("r")), str(image("g", np.zeros((40, 61), "f4")))]
    with pytest.raises(InputError, match="61 x 40 pixels, expected 60 x 40") as caught:
        inspect_images(paths, settings)
    assert ("require_same_shape is off" in str(caught.value)) is not checked


@pytest.mark.parametrize(
    ("keyword", "shift", "ok"),
    [
        ("CRVAL1", 5e-7, True),
        ("CRVAL1", 2e-6, False),
        ("CRPIX2", 5e-7, True),
        ("CRPIX2", 2e-6, False),
        ("PC1_1", 1e-6, False),
        ("PC1_1", 5e-10, True),
    ],
)
def test_alignment_within_the_tolerances(image, configure, header, keyword, shift, ok) -> None:
    settings, _ = configure()
    changed = {keyword: header("g")[keyword] + shift}
    paths = [str(image("r")), str(image("g", **changed))]
    if ok:
        assert len(inspect_images(paths, settings)) == 2
        return
    with pytest.raises(InputError, match=r"g\.fits: (CRVAL|CRPIX|PC) differs by"):
        inspect_images(paths, settings)
    relaxed, _ = configure(checks={"require_wcs_alignment": False})
    assert len(inspect_images(paths, relaxed)) == 2


def test_projection_and_distortion_count_as_alignment(image, configure) -> None:
    settings, _ = configure()
    first = str(image("r"))
    with pytest.raises(InputError, match="CTYPE RA---SIN, DEC--SIN, expected RA---TAN, DEC--TAN"):
        inspect_images([first, str(image("g", CTYPE1="RA---SIN", CTYPE2="DEC--SIN"))], settings)
    sip = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 2, "B_ORDER": 2}
    same = [str(image("a", **sip, A_2_0=1e-5)), str(image("b", **sip, A_2_0=1e-5))]
    assert len(inspect_images(same, settings)) == 2
    with pytest.raises(InputError, match="distortions differ by"):
        inspect_images([same[0], str(image("c", **sip, A_2_0=5e-5))], settings)


def test_cd_and_pc_that_mean_the_same_are_aligned(tmp_path, configure, header) -> None:
    settings, _ = configure()
    plain = header("r")
    as_cd = header("g")
    for i in (1, 2):
        for j in (1, 2):
            as_cd[f"CD{i}_{j}"] = plain.get(f"PC{i}_{j}", 0.0) * plain[f"CDELT{i}"]
            as_cd.remove(f"PC{i}_{j}", ignore_missing=True)
        as_cd.remove(f"CDELT{i}")
    paths = []
    for h in (plain, as_cd):
        paths.append(str(tmp_path / f"{h['FILTER']}.fits"))
        fits.PrimaryHDU(np.zeros((40, 60), "f4"), h).writeto(paths[-1])
    assert len(inspect_images(paths, settings)) == 2


def test_a_crop_that_leaves_nothing(image, configure) -> None:
    settings, _ = configure(crop={"enabled": True, "margin": 20})
    with pytest.raises(InputError, match=r"crop.margin = 20 leaves nothing of images of 60 x 40"):
        inspect_images([str(image("r"))], settings)


def test_a_frame_too_small_for_its_patches(image, configure) -> None:
    settings, _ = configure(epsf={"epsf_ngrid": 7, "ngrid": 6})
    with pytest.raises(InputError, match=r"cannot be divided into 7 x 7 cells"):
        inspect_images([str(image("r"))], settings)


def test_wrong_inputs_are_reported_within_two_seconds(image, configure, tmp_path: Path) -> None:
    """Forty large images with a fault in the last one: only headers are read."""
    paths = []
    for i in range(40):
        path = image(f"m{i}", np.zeros((2, 3), "f4"), **({"EGAIN": None} if i == 39 else {}))
        header = fits.getheader(path)
        header["NAXIS1"], header["NAXIS2"] = 9576, 6388
        with path.open("wb") as stream:
            stream.write(header.tostring().encode())
            stream.truncate(len(header.tostring()) + 4 * 9576 * 6388)  # sparse
        paths.append(str(path))
    code = (
        "import sys; from tract7dt.settings import settings_from_dict as s; "
        "from tract7dt.frames import inspect_images; "
        "inspect_images(sys.argv[1:], s({'inputs': {'input_catalog': 'c', 'image_list_file': 'l'}, "
        "'outputs': {'work_dir': 'w'}}, '.').settings)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False)
    assert "InputError" in done.stderr
    assert "m39.fits: keyword EGAIN is missing" in done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # CPU time, imports included: what the wall shows on an idle machine, whatever else runs on this one.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.5
