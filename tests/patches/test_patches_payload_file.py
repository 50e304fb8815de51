from __future__ import annotations

import dataclasses
import gzip
import io
import json
import math
import os
import zlib

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tract7dt.errors import ProductError
from tract7dt.patches import read_payload, write_payload
from tract7dt.types import Box, Epsf, Patch, PatchPayload

PATCH = Patch(3, 11, 1, 0, base=Box(10, 16, 20, 25), roi=Box(7, 19, 17, 28), halo_pix=3)


def payload_of(bands=("m400", "g"), table=None, rng=None, psfs=None) -> PatchPayload:
    rng = rng or np.random.default_rng(1)
    ny, nx = PATCH.roi.shape
    data = rng.normal(0, 10, (len(bands), ny, nx)).astype(np.float32)
    data[0, 0, :2] = np.nan, np.inf
    stamp = rng.random((5, 5)).astype(np.float32)
    stamp /= stamp.sum(dtype=np.float64)
    if psfs is None:
        psfs = (
            Epsf(stamp, 12, "epsf", {"fwhm_pix": 3.4, "note": "a" * 200, "list": [1, 2.5], "bad": math.nan}),
            None,
        )
    if table is None:
        table = pd.DataFrame({"ID": ["00019", "b"], "RA": [1.25, 2.5]})
    n = len(table)
    x, y = rng.uniform(9.5, 15.5, n), rng.uniform(19.5, 24.5, n)
    table = table.assign(
        x_pix_white=x, y_pix_white=y, source_index=np.arange(n, dtype=np.int64) * 3,
        x_pix_patch=x - PATCH.roi.x0, y_pix_patch=y - PATCH.roi.y0, _is_halo_source=np.arange(n) % 2 == 1,
    )  # fmt: skip
    return PatchPayload(
        patch=PATCH,
        bands=tuple(bands),
        data=data,
        bad=rng.integers(0, 8, data.shape).astype(np.uint8),
        sky_sigma=rng.uniform(1e-3, 1e3, len(bands)),
        gain=rng.uniform(0.1, 10, len(bands)),
        scale=rng.uniform(0.1, 10, len(bands)),
        fwhm_pix=np.where(np.arange(len(bands)) == 0, np.nan, 3.3333333333333335),
        psfs=tuple(psfs)[: len(bands)] + (None,) * (len(bands) - len(psfs)),
        table=table,
        paths=tuple(f"/données/{band} image.fits" for band in bands),
    )


def assert_same(a: PatchPayload, b: PatchPayload) -> None:
    assert (a.patch, a.bands, a.paths) == (b.patch, b.bands, b.paths)
    for name in ("data", "bad", "sky_sigma", "gain", "scale", "fwhm_pix"):
        left, right = getattr(a, name), getattr(b, name)
        assert left.dtype == right.dtype
        assert left.dtype.isnative
        np.testing.assert_array_equal(left, right)
    assert b.data.flags.c_contiguous
    for p, q in zip(a.psfs, b.psfs, strict=True):
        assert (p is None) == (q is None)
        if p is not None:
            np.testing.assert_array_equal(p.stamp, q.stamp)
            assert (p.n_stars, p.kind) == (q.n_stars, q.kind)
            wanted = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in p.quality.items()}
            assert wanted == q.quality
    pd.testing.assert_frame_equal(a.table, b.table, check_exact=True)


@pytest.fixture
def written(tmp_path):
    payload = payload_of()
    path = tmp_path / "patch.fits"
    write_payload(payload, path, 0)
    return payload, path


@pytest.mark.parametrize(("level", "name"), [(0, "p.fits"), (1, "p.fits.gz"), (9, "p.fits.gz")])
def test_a_payload_comes_back_exactly(tmp_path, level, name):
    payload = payload_of()
    write_payload(payload, tmp_path / name, level)
    assert_same(payload, read_payload(tmp_path / name))
    assert (tmp_path / name).read_bytes()[:2] == (b"\x1f\x8b" if level else b"SI")


def test_the_same_payload_gives_the_same_bytes_and_leaves_nothing_beside_it(tmp_path):
    for name in ("a.fits.gz", "b.fits.gz"):
        write_payload(payload_of(), tmp_path / name, 1)
    assert (tmp_path / "a.fits.gz").read_bytes() == (tmp_path / "b.fits.gz").read_bytes()
    assert (tmp_path / "a.fits.gz").read_bytes()[4:8] == bytes(4)  # no time in the gzip header
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.fits.gz", "b.fits.gz"]


def test_urls_and_files_of_any_suffix_are_read(tmp_path):
    payload = payload_of()
    write_payload(payload, tmp_path / "whatever", 1)
    assert_same(payload, read_payload(f"file://{tmp_path}/whatever"))
    import fsspec

    with fsspec.open("memory://bucket/p.fits.gz", "wb") as stream:
        stream.write((tmp_path / "whatever").read_bytes())
    assert_same(payload, read_payload("memory://bucket/p.fits.gz"))
    with pytest.raises(ProductError, match=r"memory://bucket/none\.fits: no such file"):
        read_payload("memory://bucket/none.fits")
    with pytest.raises(ProductError, match="nosuch://a/b: cannot be opened"):
        read_payload("nosuch://a/b")


def test_astropy_alone_opens_it(tmp_path):
    """What the contract promises to any viewer (names, keywords, pixels, table), by the standard."""
    payload = payload_of()
    path = tmp_path / "p.fits.gz"
    write_payload(payload, path, 1)
    with fits.open(path) as hdus:
        hdus.verify("exception")
        assert [hdu.header.get("EXTNAME") for hdu in hdus[1:]] == [
            "META", "m400", "m400_BAD", "m400_PSF", "g", "g_BAD", "SOURCES",
        ]  # fmt: skip
        primary = hdus[0].header
        assert primary["PATCH"] == "r03_c11_pr01_pc00"
        assert [primary[k] for k in ("X0BASE", "X1BASE", "Y0BASE", "Y1BASE")] == [10, 16, 20, 25]
        assert [primary[k] for k in ("X0ROI", "X1ROI", "Y0ROI", "Y1ROI", "HALOPIX")] == [7, 19, 17, 28, 3]
        assert (primary["NBAND"], primary["NBASE"], primary["NHALO"]) == (2, 1, 1)
        assert not any(card.keyword == "DATE" for hdu in hdus for card in hdu.header.cards)
        np.testing.assert_array_equal(hdus["g"].data, payload.data[1])
        np.testing.assert_array_equal(hdus["g_BAD"].data, payload.bad[1])
        np.testing.assert_array_equal(hdus["m400_PSF"].data, payload.psfs[0].stamp)
        header = hdus["g"].header
        assert header["FILTER"] == "g"
        assert header["SKYSIG"] == pytest.approx(payload.sky_sigma[1], rel=1e-14)
        assert header["EGAIN"] == pytest.approx(payload.gain[1], rel=1e-14)
        assert header["SCALE"] == pytest.approx(payload.scale[1], rel=1e-14)
        assert header["FWHMPIX"] == pytest.approx(10 / 3)
        assert "FWHMPIX" not in hdus["m400"].header
        assert (hdus["m400_PSF"].header["NSTARS"], hdus["m400_PSF"].header["KIND"]) == (12, "epsf")
        table = hdus["SOURCES"].data
        assert list(table["ID"]) == ["00019", "b"]
        assert table["RA"].tolist() == [1.25, 2.5]
        assert table["_is_halo_source"].tolist() == [False, True]
        assert json.loads(hdus["META"].data["JSON"][0])["bands"][1]["sky_sigma"] == payload.sky_sigma[1]


def test_awkward_texts_names_and_types_come_back(tmp_path):
    texts = [
        "00019",
        "",
        " both ends ",
        "tab\tline\n\0",
        "x" * 300,
        "恒星 é \U0001f31f",
        "\\N",
        "\\x20 ",
        "nan",
    ]
    mixed = [None, "", "N", "\\", "' quote \" ", "null", "\r", "\ud800", "a"]
    numbers = [0.1, -0.0, np.nan, np.inf, -np.inf, 5e-324, 1.7976931348623157e308, 0.3, 1e22]
    table = pd.DataFrame(
        {
            "ID": texts,
            "mixed": pd.Series(mixed, dtype=object),
            "c" * 100: np.arange(9, dtype=np.int16),
            "c" * 100 + "2": np.arange(9, dtype=np.uint64) + (1 << 63),
            "C" * 100: numbers,
            "é ": np.arange(9, dtype=np.float32) / 3,
            "": np.arange(9) % 2 == 0,
            "with space, and comma ": pd.Series(["a", None] * 4 + ["z"], dtype="str"),
        }
    )  # fmt: skip
    payload = payload_of(table=table)
    write_payload(payload, tmp_path / "p.fits", 0)
    again = read_payload(tmp_path / "p.fits")
    assert_same(payload, again)
    assert np.signbit(again.table["C" * 100][1])


_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
_COLUMN = st.one_of(
    st.tuples(st.just("str"), st.lists(st.one_of(_TEXT, st.none()), min_size=3, max_size=3)),
    st.tuples(st.just("object"), st.lists(st.one_of(_TEXT, st.none()), min_size=3, max_size=3)),
    st.tuples(st.just("float64"), st.lists(st.floats(), min_size=3, max_size=3)),
    st.tuples(st.just("int64"), st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3)),
    st.tuples(st.just("bool"), st.lists(st.booleans(), min_size=3, max_size=3)),
)
_RESERVED = {"x_pix_white", "y_pix_white", "source_index", "x_pix_patch", "y_pix_patch", "_is_halo_source"}


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    columns=st.dictionaries(_TEXT.filter(lambda name: name not in _RESERVED), _COLUMN, max_size=6),
    bands=st.lists(_TEXT.filter(bool), min_size=1, max_size=3, unique=True),
    n=st.integers(0, 3),
    level=st.sampled_from([0, 1]),
)
def test_any_table_and_any_band_name_come_back(tmp_path, columns, bands, n, level):
    table = pd.DataFrame(index=pd.RangeIndex(n)).assign(
        **{
            name: pd.Series(values[:n], dtype=dtype, index=pd.RangeIndex(n))
            for name, (dtype, values) in columns.items()
        }
    )
    payload = payload_of(bands, table)
    write_payload(payload, tmp_path / "p", level)
    assert_same(payload, read_payload(tmp_path / "p"))


def test_a_table_that_cannot_be_kept_is_told(tmp_path):
    with pytest.raises(ProductError, match="column 'when' has type datetime"):
        write_payload(
            payload_of(table=pd.DataFrame({"when": pd.to_datetime(["2020-01-01"])})), tmp_path / "p", 0
        )
    with pytest.raises(ProductError, match="at most 999 columns"):
        write_payload(
            payload_of(table=pd.DataFrame(np.zeros((1, 1000))).rename(columns=str)), tmp_path / "p", 0
        )
    assert list(tmp_path.iterdir()) == []


# --- damage --------------------------------------------------------------------------------------------


def test_missing_and_foreign_files_are_told(tmp_path):
    with pytest.raises(ProductError, match=r"none\.fits: no such file"):
        read_payload(tmp_path / "none.fits")
    for content, message in (
        (b"", "not a FITS file"),
        (b"\x80\x04K\x01.", "not a FITS file"),
        (b"\x1f\x8b", "truncated"),
    ):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ProductError, match=message):
            read_payload(tmp_path / "x")
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(tmp_path / "y.fits")
    with pytest.raises(ProductError, match="not a payload"):
        read_payload(tmp_path / "y.fits")


@pytest.mark.parametrize("level", [0, 1])
def test_every_truncation_is_told(tmp_path, level):
    path = tmp_path / "p"
    write_payload(payload_of(), path, level)
    content = path.read_bytes()
    for size in [*range(0, len(content) - 1, max(len(content) // 60, 1)), len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(ProductError, match=str(path)):
            read_payload(path)
    path.write_bytes(content + b"more")
    with pytest.raises(ProductError, match=str(path)):
        read_payload(path)


@pytest.mark.filterwarnings("ignore::astropy.utils.exceptions.AstropyUserWarning")
@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_told_or_harmless(written, tmp_path, place, bit):
    payload, path = written
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    content[at] ^= 1 << bit
    (tmp_path / "damaged").write_bytes(content)
    try:
        again = read_payload(tmp_path / "damaged")
    except ProductError:
        return
    # only the text of the primary header is outside of the checksum, and the reader does not go by it
    assert at < 2880 * 2
    assert_same(payload, again)


def forge(path, change):
    """Change the extensions with astropy and give the file a valid checksum again."""
    with fits.open(path, lazy_load_hdus=False, memmap=False) as hdus:
        for hdu in hdus:
            _ = hdu.data
        hdus = change(hdus) or hdus
        stream = io.BytesIO()
        hdus.writeto(stream)
    reseal(path, stream.getvalue())


def reseal(path, content):
    head = io.BytesIO(content)
    header = fits.Header.fromfile(head)
    header["DATACRC"] = f"{zlib.crc32(content[head.tell() :]):08x}"
    path.write_bytes(header.tostring().encode() + content[head.tell() :])


def edit_meta(change):
    def edit(hdus):
        meta = json.loads(hdus["META"].data["JSON"][0])
        change(meta)
        text = json.dumps(meta).encode()
        hdus[1] = fits.BinTableHDU.from_columns(
            [fits.Column("JSON", f"{len(text)}A", array=np.array([text]))], name="META"
        )

    return edit


def set_band(**values):
    return edit_meta(lambda meta: meta["bands"][0].update(values))


def drop(name):
    return lambda hdus: fits.HDUList([hdu for hdu in hdus if hdu.name.upper() != name])


def set_pixels(name, array):
    def change(hdus):
        hdus[name].data = array

    return change


def set_column(name, value):
    def change(hdus):
        hdus["SOURCES"].data[name][:] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("META"), "META"),
        (drop("G"), "expected image extension g, found g_BAD"),
        (drop("M400_BAD"), "expected image extension m400_BAD"),
        (drop("M400_PSF"), "expected image extension m400_PSF"),
        (drop("SOURCES"), "expected table SOURCES"),
        (set_pixels("g", np.zeros((4, 4), np.float32)), r"extension g has shape \(4, 4\).*\(11, 12\)"),
        (set_pixels("g", np.zeros((11, 12), np.float64)), "expected float32, found"),
        (set_pixels("g_BAD", np.zeros((11, 12), np.int16)), "expected uint8, found"),
        (set_pixels("m400_PSF", np.full((4, 4), 1 / 16, np.float32)), "square stamp of odd size"),
        (set_pixels("m400_PSF", np.zeros((5, 5), np.float32)), "expected sum 1"),
        (set_pixels("m400_PSF", np.full((5, 5), np.nan, np.float32)), "expected sum 1, found nan"),
        (set_band(sky_sigma=None), "positive number as sky_sigma, found None"),
        (set_band(sky_sigma=math.nan), "positive number as sky_sigma, found nan"),
        (set_band(gain=-1.0), "gain"),
        (set_band(scale="1"), "scale"),
        (set_band(fwhm_pix=0.0), "fwhm_pix"),
        (set_band(path=3), "path is no text"),
        (set_band(path=None), "some bands have a path"),
        (set_band(band="g"), "expected bands that differ"),
        (set_band(psf={"n_stars": 3, "kind": "pickle", "quality": {}}), "PSF has n_stars 3, kind 'pickle'"),
        (set_band(psf=None), "expected image extension g, found m400_PSF"),
        (edit_meta(lambda meta: meta["patch"].pop("x0_roi")), "META, patch: missing.*x0_roi"),
        (edit_meta(lambda meta: meta["patch"].update(x1_roi=10**12)), r"extension m400 has shape"),
        (edit_meta(lambda meta: meta.pop("bands")), "lacks its lists"),
        (edit_meta(lambda meta: meta.update(bands=[])), "expected bands that differ"),
        (edit_meta(lambda meta: meta["columns"][0].update(type="void")), "unknown type 'void'"),
        (edit_meta(lambda meta: meta["columns"][0].update(type="float64")), "'ID'.*expected float64"),
        (edit_meta(lambda meta: meta["columns"][1].update(type="str")), "'RA'.*no text"),
        (edit_meta(lambda meta: meta["columns"].pop()), "not those that its description names"),
        (set_column("source_index", 4), "source_index repeats"),
        (set_column("x_pix_white", np.nan), "not finite"),
        (set_column("x_pix_white", 17.0), "outside of the base box"),
        (set_column("y_pix_patch", 0.0), "y_pix_patch is not the position in the roi"),
        (set_column("ID", "\\u12"), "ID"),
    ],
)  # fmt: skip
def test_content_that_is_wrong_behind_a_valid_checksum_is_told(written, change, message):
    _, path = written
    forge(path, change)
    with pytest.raises(ProductError, match=message) as caught:
        read_payload(path)
    assert str(path) in str(caught.value)


@pytest.mark.filterwarnings("ignore:File may have been truncated")
def test_sizes_that_the_file_does_not_hold_are_told(written):
    """A header that claims a terabyte must not make the reader ask for one."""
    _, path = written
    content = path.read_bytes()
    for key, claimed in (
        (b"NAXIS1  =                   12", 10**6),
        (b"NAXIS2  =                   11", 10**6),
    ):
        card = key[:10] + b"%20d" % claimed
        assert key in content
        reseal(path, content.replace(key, card))
        with pytest.raises(ProductError):
            read_payload(path)


def test_a_gzip_bomb_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("tract7dt.patches.payload_file.MAX_BYTES", 10_000)
    (tmp_path / "p").write_bytes(gzip.compress(bytes(10**7)))
    with pytest.raises(ProductError, match="larger than a payload can be"):
        read_payload(tmp_path / "p")
    with pytest.raises(ProductError, match="make patches smaller"):
        write_payload(payload_of(), tmp_path / "q", 0)


def test_another_version_is_told(written):
    _, path = written
    content = path.read_bytes()
    assert b"FORMATV =                    1" in content
    path.write_bytes(content.replace(b"FORMATV =                    1", b"FORMATV =                    2"))
    with pytest.raises(ProductError, match="format version 2, this program reads 1"):
        read_payload(path)


def test_no_payload_is_unpickled(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    for content in (pickle.dumps(Evil()), gzip.compress(pickle.dumps(Evil()))):
        (tmp_path / "p.fits").write_bytes(content)
        with pytest.raises(ProductError, match="not a FITS file"):
            read_payload(tmp_path / "p.fits")
    assert not (tmp_path / "ran").exists()


def test_a_frozen_payload_is_not_changed_by_writing(tmp_path):
    payload = payload_of(psfs=())
    copy = dataclasses.replace(payload, data=payload.data.copy(), table=payload.table.copy())
    write_payload(payload, tmp_path / "p", 0)
    assert_same(payload, copy)


def test_the_bytes_are_those_of_astropy(tmp_path):
    """Extensions are written without astropy, which is slow: the same bytes all the same."""
    payload = payload_of(bands=("m400", "g"))
    long = tuple("/a folder of a rather long name" * 4 + path for path in payload.paths)
    path = tmp_path / "p.fits"
    write_payload(dataclasses.replace(payload, paths=long), path, 0)
    content = path.read_bytes()
    with fits.open(path, memmap=False) as hdus:
        hdus.verify("exception")
        names = ["META", "m400", "m400_BAD", "m400_PSF", "g", "g_BAD", "SOURCES"]
        assert [hdu.name for hdu in hdus[1:]] == names
        assert hdus["M400"].header["IMAGE"].endswith("m400 image.fits")
        for hdu in hdus[1:]:
            info = hdu.fileinfo()
            written = io.BytesIO()
            kind = fits.ImageHDU if hdu.is_image else fits.BinTableHDU
            own = [card for card in hdu.header.cards if card.keyword not in ("XTENSION", "CHECKSUM")]
            anew = kind(hdu.data, fits.Header(own) if hdu.is_image else hdu.header)
            fits.HDUList([fits.PrimaryHDU(), anew]).writeto(written)
            end = info["datLoc"] + info["datSpan"]
            assert content[info["hdrLoc"] : end] == written.getvalue()[2880:], hdu.name
    assert end == len(content)
