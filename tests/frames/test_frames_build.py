from __future__ import annotations

import gzip
import hashlib
import json
import os
import threading
import tracemalloc
import warnings
from pathlib import Path

import fsspec
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import block_reduce
from astropy.wcs import WCS

from tract7dt.errors import InputError, ProductError
from tract7dt.frames import build as build_module
from tract7dt.frames import build_field, built_field, inspect_images, open_field, stream
from tract7dt.store import WorkDir, npy

SCALE = 10 ** (-0.4 * (27.5 - 25.0))


def load(paths, configure, **sections):
    settings, work = configure(**sections)
    return build_field(inspect_images([str(p) for p in paths], settings), settings, work), work


@pytest.fixture
def small_chunks(monkeypatch) -> None:
    """Chunks of 7 rows, so that a 40-row image has several and a remainder."""
    monkeypatch.setattr(build_module, "BLOCK_PIXELS", 7 * 60)


def values(dtype: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    if np.dtype(dtype).kind == "f":
        return rng.normal(0, 100, (40, 60)).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(max(limits.min, -30000), min(limits.max, 60000), (40, 60)).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "i8", "f4", "f8"])
@pytest.mark.parametrize("packing", ["plain", "gz", "extension", "url", "url.gz"])
@pytest.mark.usefixtures("small_chunks")
def test_every_pixel_type_and_packing(tmp_path: Path, configure, header, dtype, packing) -> None:
    data = values(dtype)
    path = tmp_path / "image.fits"
    if packing == "extension":
        hdus = fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data, header("r"))])
    else:
        hdus = fits.HDUList([fits.PrimaryHDU(data, header("r")), fits.ImageHDU(np.ones((3, 3)))])
    hdus.writeto(path)
    if packing.endswith("gz"):
        zipped = path.with_name("image.fits.gz")
        zipped.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path = zipped
    where = f"file://{path}" if packing.startswith("url") else str(path)
    field, _ = load([where], configure)
    frame = field.frames["r"]
    assert frame.data.dtype == np.dtype("=f4")
    np.testing.assert_allclose(frame.data, data.astype("f8") * SCALE, rtol=1e-7)
    assert frame.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_scaled_integers_with_blank(tmp_path: Path, configure, header) -> None:
    """BSCALE, BZERO and BLANK as astropy reads them."""
    stored = values("i2")
    stored[3, 4] = -32768
    path = tmp_path / "image.fits"
    hdu = fits.PrimaryHDU(stored, header("r"))
    hdu.header["BSCALE"], hdu.header["BZERO"], hdu.header["BLANK"] = 0.25, 1000.0, -32768
    hdu.writeto(path)
    # astropy may drop scale keywords of in-memory data; set them on the file itself
    with fits.open(path, mode="update", do_not_scale_image_data=True) as hdus:
        hdus[0].header["BSCALE"], hdus[0].header["BZERO"], hdus[0].header["BLANK"] = 0.25, 1000.0, -32768
    expected = fits.getdata(path)
    field, _ = load([path], configure)
    assert np.isnan(expected[3, 4])
    np.testing.assert_allclose(field.frames["r"].data, expected * SCALE, rtol=1e-6)


@pytest.mark.parametrize("compression", ["RICE_1", "GZIP_2", "HCOMPRESS_1"])
@pytest.mark.parametrize("packing", ["plain", "gz", "url"])
@pytest.mark.usefixtures("small_chunks")
def test_tile_compressed(tmp_path: Path, configure, header, compression, packing) -> None:
    data = values("i2")
    path = tmp_path / "image.fits.fz"
    hdu = fits.CompImageHDU(data, header("r"), compression_type=compression, tile_shape=(16, 60))
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    if packing == "gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    field, work = load([f"file://{path}" if packing == "url" else path], configure)
    np.testing.assert_allclose(field.frames["r"].data, data * SCALE, rtol=1e-7)
    assert field.frames["r"].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {p.suffix for p in work.frames.iterdir()} == {".npy", ".json"}


def test_truncated_and_damaged_files(image, tmp_path, configure) -> None:
    path = image("r", values("f4"))
    whole = path.read_bytes()
    settings, work = configure()
    for name, content in (
        ("short.fits", whole[: 2880 + 5000]),
        ("short.fits.gz", gzip.compress(whole)[:-200]),
        ("bad.fits.gz", gzip.compress(whole)[:-8] + b"\0" * 8),
    ):
        broken = tmp_path / name
        broken.write_bytes(gzip.compress(whole) if name.endswith(".gz") else whole)
        infos = inspect_images([str(broken)], settings)
        broken.write_bytes(content)  # the headers were fine
        with pytest.raises(InputError, match=name):
            build_field(infos, settings, work)
        assert not work.frame("r").exists()
        assert not work.field_manifest.exists()


def test_truncated_plain_file_is_refused_by_its_length(image, tmp_path, configure) -> None:
    whole = image("r", values("f4")).read_bytes()
    settings, _ = configure()
    size = 4 * values("f4").size
    short = tmp_path / "short.fits"
    short.write_bytes(whole[: 2880 + size - 1])
    with pytest.raises(
        InputError, match=rf"short.fits: truncated, expected {size} bytes .* found {size - 1}"
    ):
        inspect_images([str(short)], settings)
    short.write_bytes(whole[: 2880 + size])  # without the padding at the end
    assert len(inspect_images([str(short)], settings)) == 1


def test_scaled_header_numbers(image, configure) -> None:
    field, _ = load([image("r", SATURATE=26000.0)], configure)
    frame = field.frames["r"]
    assert frame.scale == pytest.approx(SCALE, rel=1e-12)
    assert frame.sky_sigma == pytest.approx(4.0 * SCALE, rel=1e-12)
    assert frame.gain == pytest.approx(2.0 / SCALE, rel=1e-12)
    assert frame.saturation == pytest.approx(20000.0 * SCALE, rel=1e-12)


def test_saturation_is_inclusive_at_the_exact_level(image, configure) -> None:
    data = np.zeros((40, 60), "f4")
    data[5, 6], data[7, 8] = 20000.0, 19990.0
    field, _ = load([image("r", data, SATURATE=26000.0)], configure)
    bits = field.frames["r"].bad_bits(field.box)
    assert np.argwhere(bits == 2).tolist() == [[5, 6]]


def test_infinite_pixels_become_nan(image, configure) -> None:
    data = np.ones((40, 60), "f8")
    data[0, 0], data[0, 1], data[0, 2], data[0, 3] = np.nan, np.inf, -np.inf, 1e300
    field, _ = load([image("r", data)], configure)
    assert np.argwhere(~np.isfinite(field.frames["r"].data)).tolist() == [[0, 0], [0, 1], [0, 2], [0, 3]]
    assert np.isnan(field.frames["r"].data[0, :4]).all()


@pytest.mark.parametrize(
    ("sigma", "slope", "smooth", "sky_sigma", "gain", "doubted"),
    [
        (4.0, 0.0, 1, 4.0, 2.0, []),
        (4.0, 0.0, 1, 10.0, 2.0, []),
        (4.0, 0.0, 1, 1.6, 2.0, []),
        (4.0, 1.0, 1, 4.0, 2.0, []),  # a gradient is not noise
        (4.0, 0.0, 3, 4.0, 2.0, []),  # neither do neighbours that agree make SKYSIG wrong
        (4.0, 0.0, 1, 0.9, 2.0, ["SKYSIG = 0.9"]),
        (4.0, 0.0, 1, 16.0, 2.0, ["SKYSIG = 16"]),
        (4.0, 0.0, 1, 4.0, 0.01, ["noise of 0.04 electrons"]),
    ],
)
@pytest.mark.usefixtures("small_chunks")
def test_noise_that_the_pixels_do_not_have_is_doubted(
    image, configure, caplog, sigma, slope, smooth, sky_sigma, gain, doubted
) -> None:
    noise = np.random.default_rng(3).normal(0, sigma * smooth**0.5, (40, 60 + smooth - 1))
    data = sum(noise[:, i : i + 60] for i in range(smooth)) / smooth + slope * np.arange(60)
    data[:8, :20] += 1e5
    data[30:, 40:] = np.nan
    load([image("r", data.astype("f4"), SKYSIG=sky_sigma, EGAIN=gain)], configure)
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    said = [text for text in said if "SATURATE" not in text]
    assert len(said) == len(doubted)
    assert all(part in text for part, text in zip(doubted, said))


@pytest.mark.usefixtures("small_chunks")
def test_white_stack_is_the_weighted_mean_of_what_is_finite(image, configure) -> None:
    rng = np.random.default_rng(5)
    sky = {"g": 2.0, "r": 4.0, "i": 8.0}
    data = {band: rng.normal(10, s, (40, 60)).astype("f4") for band, s in sky.items()}
    data["g"][10, 10] = np.nan  # one band only: the stack goes on without it
    for band in sky:
        data[band][20, 30] = np.nan
    paths = [image(band, data[band], SKYSIG=sky[band]) for band in sky]
    field, _ = load(paths, configure, performance={"white_stack_workers": 3, "frame_prep_workers": 2})
    cube = np.ma.masked_invalid([data[b].astype("f8") * SCALE for b in sky])
    weights = np.array([(s * SCALE) ** -2 for s in sky.values()])
    weights = np.broadcast_to(weights[:, None, None], cube.shape)
    mean, total = np.ma.average(cube, axis=0, weights=weights, returned=True)
    np.testing.assert_allclose(field.white, mean.filled(np.nan), rtol=2e-6, atol=1e-6)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(field.white_sigma, 1 / np.sqrt(np.ma.filled(total, 0)), rtol=2e-6)
    assert np.isfinite(field.white[10, 10])
    assert np.isnan(field.white[20, 30])
    assert np.isinf(field.white_sigma[20, 30])


@pytest.mark.usefixtures("small_chunks")
def test_a_small_frame_keeps_its_pixels_in_the_preview(image, configure) -> None:
    field, work = load([image("r", values("f4"))], configure, crop={"enabled": True, "margin": 9})
    assert json.loads(work.field_manifest.read_text())["preview"]["step"] == 1
    preview = np.load(work.frames / "white_full_preview.npy")
    part = preview[field.crop.y0 : field.crop.y1, field.crop.x0 : field.crop.x1]
    np.testing.assert_allclose(part, field.white, rtol=1e-6)


def test_crop_and_preview(image, configure, monkeypatch) -> None:
    monkeypatch.setattr(build_module, "MIN_PREVIEW_SIDE", 10)
    data = values("f4")
    data[12:20, 16:24] = np.nan
    crop = {"enabled": True, "margin": 9, "display_downsample": 4}
    field, work = load([image("r", data)], configure, crop=crop)
    assert field.shape == (22, 42)
    assert (field.crop.x0, field.crop.x1, field.crop.y0, field.crop.y1) == (9, 51, 9, 31)
    np.testing.assert_allclose(field.frames["r"].data, data[9:31, 9:51] * SCALE, rtol=1e-6)
    np.testing.assert_allclose(field.white, data[9:31, 9:51] * SCALE, rtol=1e-6)
    preview = np.load(work.frames / "white_full_preview.npy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of an empty block is the point
        # rows and columns that fill no block are the last one
        sides = [-n % 4 for n in data.shape]
        padded = np.pad(data.astype("f8") * SCALE, [(0, n) for n in sides], constant_values=np.nan)
        expected = block_reduce(padded, 4, np.nanmean)
    np.testing.assert_allclose(preview, expected, rtol=1e-4, atol=1e-5)
    assert json.loads(work.field_manifest.read_text())["preview"]["step"] == 4


@pytest.mark.parametrize("sip", [False, True])
def test_wcs_of_the_crop(image, configure, sip) -> None:
    extra = {}
    if sip:
        extra = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "A_ORDER": 3, "B_ORDER": 3}
        extra |= {"A_2_0": 1.234567890123e-5, "A_0_3": -3.3e-8, "B_1_1": 2.2e-6}
    path = image("r", **extra)
    field, work = load([path], configure, crop={"enabled": True, "margin": 7})
    full = WCS(fits.getheader(path))
    y, x = np.mgrid[0 : field.shape[0], 0 : field.shape[1]]
    expected = np.array(full.all_pix2world(x + 7, y + 7, 0))
    written = WCS(fits.getheader(work.wcs))
    for wcs in (field.wcs, open_field(work.field_manifest).wcs, written):
        np.testing.assert_allclose(np.array(wcs.all_pix2world(x, y, 0)), expected, rtol=0, atol=1e-9)
    header = fits.getheader(work.wcs)
    assert (header["IMAGEW"], header["IMAGEH"]) == (46, 26)


def test_unwritable_wcs_is_an_error(image, configure) -> None:
    settings, work = configure()
    work.wcs.mkdir(parents=True)
    with pytest.raises(ProductError, match=r"wcs\.fits: cannot be written"):
        build_field(inspect_images([str(image("r"))], settings), settings, work)
    assert not work.field_manifest.exists()


def test_manifest_round_trip_and_repeatability(image, configure) -> None:
    paths = [image("g", DATE_OBS="2020-01-01T00:00:00", PEEING=None), image("r", SATURATE=None)]
    field, work = load(paths, configure)
    first = work.field_manifest.read_bytes()
    again = open_field(work.field_manifest)
    assert again.bands == ("g", "r")
    for band in again.bands:
        for name in ("sky_sigma", "gain", "scale", "zp_auto", "saturation", "fwhm_pix", "path", "sha256"):
            assert getattr(again.frames[band], name) == getattr(field.frames[band], name), name
    assert again.frames["g"].fwhm_pix is None
    assert again.frames["r"].saturation is None
    assert again.epoch == pytest.approx((2020.0 + 2024.3325) / 2, abs=2e-3)
    assert (again.zp_ref, again.pixel_scale_arcsec) == (field.zp_ref, field.pixel_scale_arcsec)
    load(paths, configure)
    assert work.field_manifest.read_bytes() == first


def test_the_field_is_there_while_its_images_are_digested(image, configure, monkeypatch) -> None:
    paths = [image("g"), image("r")]
    go_on, plain = threading.Event(), stream.sha256_file

    def patient(path: Path) -> str:
        assert go_on.wait(60)
        return plain(path)

    monkeypatch.setattr(stream, "sha256_file", patient)
    settings, work = configure()
    with built_field(inspect_images([str(path) for path in paths], settings), settings, work) as field:
        assert not work.field_manifest.exists()
        assert [frame.sha256 for frame in field.frames.values()] == ["", ""]
        before = {band: frame.data.copy() for band, frame in field.frames.items()}
        go_on.set()
    written = open_field(work.field_manifest)
    for path, (band, frame) in zip(paths, written.frames.items(), strict=True):
        assert frame.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        np.testing.assert_array_equal(frame.data, before[band])


def test_a_block_that_fails_leaves_no_manifest(image, configure) -> None:
    path = image("r")
    load([path], configure)
    settings, work = configure()
    assert work.field_manifest.exists()
    images = inspect_images([str(path)], settings)
    with pytest.raises(InputError, match="of the block"), built_field(images, settings, work):
        raise InputError("of the block")
    assert not work.field_manifest.exists()


@pytest.mark.parametrize("change", ["written to", "replaced", "gone"])
def test_an_image_that_is_another_before_it_is_digested_has_no_digest(
    image, configure, monkeypatch, caplog, change: str
) -> None:
    paths = [image("g"), image("r")]
    plain = stream.sha256_file

    def late(path: Path) -> str:
        if path == paths[1]:
            content = path.read_bytes()
            if change != "written to":
                path.unlink()
            if change != "gone":
                path.write_bytes(content)
                os.utime(path, ns=(1, 1))
        return plain(path)

    monkeypatch.setattr(stream, "sha256_file", late)
    with caplog.at_level("WARNING"):
        field, _ = load(paths, configure)
    assert field.frames["g"].sha256 == hashlib.sha256(paths[0].read_bytes()).hexdigest()
    assert field.frames["r"].sha256 == ""
    assert [record.message for record in caplog.records if "written to" in record.message] == [
        f"{paths[1]} was written to while it was read; the next run reads it again"
    ]


def test_damaged_products_are_named(image, configure) -> None:
    _, work = load([image("r")], configure)
    data = work.frame("r").read_bytes()
    for broken in (data[:-100], b"", b"nonsense"):
        work.frame("r").write_bytes(broken)
        with pytest.raises(ProductError, match=r"r\.npy: damaged"):
            open_field(work.field_manifest)
    np.save(work.frame("r"), np.zeros((40, 61), "f4"))
    with pytest.raises(ProductError, match=r"r\.npy: expected float32 of shape \(40, 60\)"):
        open_field(work.field_manifest)
    work.frame("r").unlink()
    with pytest.raises(ProductError, match=r"r\.npy: missing"):
        open_field(work.field_manifest)
    work.field_manifest.write_text("{}")
    with pytest.raises(ProductError, match=r"field\.json: damaged"):
        open_field(work.field_manifest)
    work.field_manifest.unlink()
    with pytest.raises(ProductError, match=r"field\.json: missing"):
        open_field(work.field_manifest)


def test_the_real_field(shared: Path, tmp_path: Path, configure) -> None:
    """SDSS Stripe 82: gzip, 16-bit integers with BZERO, against astropy's own reader."""
    folder = shared / "data" / "sdss_s82_small" / "images"
    paths = [folder / f"sdss_s82_{band}A.fits.gz" for band in "ugriz"]
    field, work = load(paths, configure, crop={"enabled": True, "margin": 50})
    assert field.bands == ("uA", "gA", "rA", "iA", "zA")
    assert field.shape == (500, 500)
    assert field.epoch == pytest.approx(2003.7966, abs=1e-4)
    assert isinstance(work, WorkDir)
    total, weight = np.zeros((500, 500)), 0.0
    for path, frame in zip(paths, field.frames.values()):
        data, header = fits.getdata(path, header=True)
        scale = 10 ** (-0.4 * (header["ZP_AUTO"] - 25))
        np.testing.assert_allclose(frame.data, data[50:-50, 50:-50] * scale, rtol=1e-6)
        assert frame.fwhm_pix == header["PEEING"]
        w = (header["SKYSIG"] * scale) ** -2
        total += w * data[50:-50, 50:-50] * scale
        weight += w
    np.testing.assert_allclose(field.white, total / weight, rtol=1e-4, atol=1e-5)
    # Sky pixels of the stack scatter as the stack's own noise map says, within resampling (README: SKYSIGM)
    scatter = 1.4826 * np.median(np.abs(field.white - np.median(field.white)))
    assert scatter == pytest.approx(float(np.median(field.white_sigma)), rel=0.25)


@pytest.mark.parametrize("packing", ["plain", "gz", "memory"])
def test_memory_stays_below_one_frame(tmp_path, configure, header, monkeypatch, packing) -> None:
    """Three frames of 7.2 MB, loaded, cropped and stacked with less than one of them in memory at a time."""
    monkeypatch.setattr(build_module, "BLOCK_PIXELS", 1 << 15)
    monkeypatch.setattr(build_module, "MIN_PREVIEW_SIDE", 100)
    monkeypatch.setattr(npy.row_chunks, "__defaults__", (1 << 15,))
    paths = []
    for band in "gri":
        path = tmp_path / f"{band}.fits"
        fits.PrimaryHDU(np.full((1200, 1500), 7.0, "f4"), header(band)).writeto(path)
        if packing == "gz":
            path.write_bytes(gzip.compress(path.read_bytes()))
        if packing == "memory":  # a store without local files
            fsspec.filesystem("memory").pipe(f"/{tmp_path.name}/{band}.fits", path.read_bytes())
            paths.append(f"memory:///{tmp_path.name}/{band}.fits")
        else:
            paths.append(str(path))
    settings, work = configure(crop={"enabled": True, "margin": 10})
    infos = inspect_images(paths, settings)
    tracemalloc.start()
    field = build_field(infos, settings, work)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(field.white[::100, ::100], 7.0 * SCALE, rtol=1e-6)
    assert peak < 1200 * 1500 * 4


@pytest.mark.parametrize(
    ("shape", "step"), [((53, 61), 7), ((40, 24), 4), ((20, 3), 5), ((9, 10), 1), ((7, 5), 9)]
)
@pytest.mark.parametrize("height", [1, 6, 11, 100])
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_preview_is_the_mean_of_each_block(shape, step: int, height: int, share: float) -> None:
    """Whatever chunks the rows come in, with blocks cut by them and by the edges of the frame."""
    rng = np.random.default_rng(3)
    ny, nx = -(-shape[0] // step), -(-shape[1] // step)
    width = np.minimum(step, shape[1] - step * np.arange(nx))
    sums, weights = np.zeros((ny, nx), "f4"), np.zeros((ny, nx), "f4")
    preview = build_module._Preview(step, width, sums, weights, threading.Lock())
    bands = [np.where(rng.random(shape) < share, np.nan, rng.normal(100, 30, shape)) for _ in range(3)]
    for band, weight in zip(bands, (0.5, 1.0, 2.0)):
        for y0 in range(0, shape[0], height):
            rows = band[y0 : y0 + height].astype("f4")
            preview.add(y0, rows, np.isfinite(rows) if share else None, weight)
    expected = np.empty((ny, nx))
    for i, j in np.ndindex(ny, nx):
        block = np.s_[i * step : (i + 1) * step, j * step : (j + 1) * step]
        parts = [(w, v[block][np.isfinite(v[block])]) for v, w in zip(bands, (0.5, 1.0, 2.0))]
        weight = sum(w * v.size for w, v in parts)
        expected[i, j] = sum(w * v.sum() for w, v in parts) / weight if weight else np.nan
    np.testing.assert_allclose(preview.mean(), expected, rtol=1e-5)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("stored", ["f4", "f8", "i2"])
def test_frames_to_the_last_bit(image, configure, stored: str) -> None:
    """The product in double precision, then float32; what becomes too large or has no value is NaN."""
    rng = np.random.default_rng(9)
    data = rng.normal(0, 3000, (40, 60)).astype(stored)
    if stored != "i2":
        data[3, 4], data[5, 6], data[38, 0], data[20] = np.nan, np.inf, np.finfo(stored).max, -0.0
    if stored == "f8":
        data[21, 3] = 3e38 / SCALE * 2  # too large for a float32
    field, _ = load([image("r", data)], configure)
    with np.errstate(over="ignore"):
        expected = (data.astype(np.float64) * field.frames["r"].scale).astype(np.float32)
    expected[~np.isfinite(expected)] = np.nan
    assert field.frames["r"].data.tobytes() == expected.tobytes()
