from __future__ import annotations

import gzip
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.wcs import WCS
from astropy.wcs.utils import skycoord_to_pixel
from hypothesis import given, settings
from hypothesis import strategies as st

from tract7dt.errors import InputError, ProductError
from tract7dt.sources import check_bands, place, read_catalogue, read_sources, with_saturation, write_sources
from tract7dt.types import Box, Field, Sources

APPENDED = [
    "x_pix_white",
    "y_pix_white",
    "excluded_crop",
    "excluded_saturation",
    "excluded_any",
    "gaia_source_id",
    "affected_by_bright_mask",
]


@pytest.fixture
def catalogue(tmp_path: Path):
    def read(text: str | bytes, name: str = "catalogue.csv") -> Sources:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_catalogue(str(path))

    return read


def test_texts_stay_and_numbers_become_numbers(catalogue) -> None:
    sources = catalogue(
        "note,ID,RA,DEC,TYPE,ELL,z,FLUX_m400\n007,00019,150.1,2.5,star,,1.10,1e3\n"
        '"a, ""b""",1e5,10,-1,,0.5,,nan\n'
    )
    table = sources.table
    assert sources.has_id
    assert list(table.columns) == ["note", "ID", "RA", "DEC", "TYPE", "ELL", "z", "FLUX_m400", *APPENDED]
    assert table["ID"].tolist() == ["00019", "1e5"]
    assert table["note"].tolist() == ["007", 'a, "b"']
    assert table["z"].tolist() == ["1.10", ""]
    assert table["TYPE"].tolist() == ["star", ""]
    for name in ("RA", "DEC", "ELL", "FLUX_m400", "x_pix_white"):
        assert table[name].dtype == np.float64
    np.testing.assert_array_equal(table["ELL"], [np.nan, 0.5])
    np.testing.assert_array_equal(table["FLUX_m400"], [1000.0, np.nan])
    assert table["x_pix_white"].isna().all()
    for name in ("excluded_crop", "excluded_saturation", "excluded_any", "affected_by_bright_mask"):
        assert table[name].dtype == bool
    assert table["gaia_source_id"].tolist() == ["", ""]


def test_known_columns_in_any_case(catalogue, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        table = catalogue(
            "ra,Dec,id,type,ell,theta,re,sersic_N,pos_err,RE_ERR,flux_m400,Flux_gA_err\n" + "1," * 11 + "1\n"
        )
    names = [
        "RA",
        "DEC",
        "ID",
        "TYPE",
        "ELL",
        "THETA",
        "Re",
        "SERSIC_n",
        "POS_ERR",
        "Re_ERR",
        "FLUX_m400",
        "FLUX_gA_ERR",
    ]
    assert list(table.table.columns)[:12] == names
    assert len([r for r in caplog.records if "is read as" in r.message]) == 12
    caplog.clear()
    catalogue("RA,DEC,ID,Re,unKnown\n1,1,a,1,1\n")
    assert not caplog.records


@given(st.floats(0, 360, exclude_min=True) | st.floats(0, 1e-300))
@settings(max_examples=50, deadline=None)
def test_numbers_are_read_to_the_bit(tmp_path_factory, ra: float) -> None:
    path = tmp_path_factory.mktemp("c") / "c.csv"
    path.write_text(f"RA,DEC\n{ra!r},1\n")
    assert read_catalogue(str(path)).table["RA"][0] == ra


def test_missing_and_infinite_values(catalogue) -> None:
    words = ["", "nan", "NaN", "NULL", "null", "inf", "-Infinity", "NA", "--", " "]
    table = catalogue("ID,RA,DEC,ELL\n" + "".join(f"{i},{w},2,{w}\n" for i, w in enumerate(words))).table
    assert len(table) == len(words)
    assert table["RA"].isna().all()
    assert table["ELL"].isna().all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found an empty file"),
        ("RA,DEC\n", "header without rows"),
        ("ID,x\n1,2\n", "column RA and DEC missing; .* found columns ID, x"),
        ("RA,dec,ID,declination\n1,,a\n", r"expected 4 cells a row, .* line 2 \(3\)"),
        ("RA,DEC\n1,2\n3,4,5\n", r"line 3 \(3\)"),
        ("RA,ra,DEC\n1,1,2\n", "columns RA and ra: expected one column RA"),
        ("RA,DEC,x,x\n1,1,2,2\n", "columns x and x: expected one column x"),
        ("RA,DEC,FLUX_g_fit\n1,1,2\n", "column FLUX_g_fit: the pipeline writes"),
        ("RA,DEC,Excluded_Any,ra_fit\n1,1,2,3\n", "column Excluded_Any.*\n.*column ra_fit"),
        ("RA,DEC,ELL\n1,1,2\n1,2,abc\n1,3,1_0\n", r"ELL: .* row 2 \(line 3\) 'abc', row 3 .* '1_0'"),
        ("RA,DEC\n12:30:00,+1:00:00\n", r"column RA: .* '12:30:00'\n.*column DEC: .* '\+1:00:00'"),
        ("RA,DEC\n360.1,1\n-0.1,1\n1,90.5\n", r"RA: .* row 1 .* 360.1, row 2 .*\n.*DEC: .* row 3 .* 90.5"),
        ("ID,RA,DEC\n01,1,1\n1,1,2\n01,1,3\n", r"ID '01' in row 1 \(line 2\), row 3 \(line 4\)"),
        ("ID,RA,DEC\n,1,1\na,1,2\n  ,1,3\n", r"column ID: .* found none in row 1 \(line 2\), row 3"),
        ("RA,DEC\n1,1\n2,1\n1.0,1e0\n", r"\(RA, DEC\) = \(1.0, 1.0\) in row 1 \(line 2\), row 3"),
        ('RA,DEC\n1,"2\n', "not valid CSV"),
        (b"RA,DEC,name\n1,2,a\n1,3,caf\xe9\n", r"byte 0xe9 in line 3 \(byte 25\)"),
        ("RA,DEC\n1,2\n".encode("utf-16"), "expected text in UTF-8"),
    ],
)  # fmt: skip
def test_bad_catalogues_say_where(catalogue, text, message) -> None:
    with pytest.raises(InputError, match=message) as caught:
        catalogue(text)
    assert "catalogue.csv" in str(caught.value)


def test_all_problems_at_once_and_long_lists_are_cut(catalogue) -> None:
    rows = "".join("same,999,x\n" for _ in range(30))
    with pytest.raises(InputError) as caught:
        catalogue("ID,RA,DEC\n" + rows)
    message = str(caught.value)
    assert "column DEC: expected numbers" in message
    assert "column RA: expected 0 to 360" in message
    assert "ID 'same' in row 1 (line 2)" in message
    assert "and 20 more" in message


def test_rows_without_a_position_stay_and_need_no_unique_position(catalogue) -> None:
    sources = catalogue("RA,DEC\n,\n,\n1,2\n\n,3\n")
    assert not sources.has_id
    assert len(sources) == 4


def test_line_numbers_survive_blank_lines_and_line_breaks_in_cells(catalogue) -> None:
    with pytest.raises(InputError, match=r"row 2 \(line 5\) 'x'"):
        catalogue('RA,DEC,note\r\n\r\n1,2,"two\nlines"\r\nx,1,\r\n')


def test_bom_and_gzip(catalogue) -> None:
    assert catalogue(b"\xef\xbb\xbfRA,DEC\n1,2\n").table["RA"][0] == 1
    assert catalogue(gzip.compress(b"RA,DEC\n1,2\n"), "c.csv.gz").table["RA"][0] == 1


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_catalogue(str(tmp_path / "none.csv"))
    with pytest.raises(InputError, match="found a folder"):
        read_catalogue(str(tmp_path))
    with pytest.raises(InputError, match="cannot be read"):
        read_catalogue("nosuchprotocol://x/y.csv")


def test_unnamed_column_of_row_labels(catalogue) -> None:
    assert list(catalogue(",RA,DEC\n0,1,2\n").table.columns)[:3] == ["Unnamed: 0", "RA", "DEC"]


@pytest.mark.parametrize("suffix", [".parquet", ".fits", ".fits.gz"])
def test_tables_with_types(tmp_path: Path, suffix: str) -> None:
    table = Table(
        {
            "ID": np.array([2**62 + 1, 7]),
            "ra": np.array([10.123456789012345, np.nan]),
            "DEC": np.array([1.5, 2.5], ">f8"),
            "Re": np.array([2.5, 3.5], np.float32),
            "ok": np.array([True, False]),
            "name": ["ä b" if suffix == ".parquet" else "a b", "x"],
            "short": np.array([0.1, np.nan], np.float32),
        }
    )
    path = tmp_path / f"c{suffix}"
    if suffix == ".parquet":
        frame = table.to_pandas()
        frame["empty"] = ["", None]
        frame.to_parquet(path)
    else:
        table.write(path)
    got = read_catalogue(f"file://{path}").table
    assert got["ID"].tolist() == [str(2**62 + 1), "7"]
    assert got["RA"][0] == 10.123456789012345
    assert np.isnan(got["RA"][1])
    assert got["DEC"].tolist() == [1.5, 2.5]
    assert got["Re"].tolist() == [2.5, 3.5]
    assert got["ok"].tolist() == ["True", "False"]
    assert got["name"].tolist() == table["name"].tolist()
    assert got["short"].tolist() == ["0.1", ""]


@pytest.mark.parametrize(
    ("name", "content"), [("c.parquet", b"PAR1 no"), ("c.fits", b"SIMPLE no"), ("c.fits", b"")]
)
def test_broken_tables(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_catalogue(str(tmp_path / name))


def test_bands_must_be_those_of_the_images(catalogue) -> None:
    sources = catalogue("RA,DEC,FLUX_g,FLUX_r,FLUX_g_ERR\n1,2,3,4,5\n")
    check_bands(sources, ["r", "g"])
    with pytest.raises(InputError, match="without an image: FLUX_r; images without a column: FLUX_i"):
        check_bands(sources, ["g", "i"])
    with pytest.raises(InputError, match="images without a column: FLUX_i"):
        check_bands(sources, ["g", "r", "i"])
    check_bands(catalogue("RA,DEC\n1,2\n"), ["g", "i"])


# --- on the frame --------------------------------------------------------------------------------------


def make_field(shape: tuple[int, int] = (400, 600), sip: bool = False) -> Field:
    header = {
        "CTYPE1": "RA---TAN" + ("-SIP" if sip else ""),
        "CTYPE2": "DEC--TAN" + ("-SIP" if sip else ""),
        "CRVAL1": 0.01,
        "CRVAL2": 60.0,
        "CRPIX1": 300.0,
        "CRPIX2": 200.0,
        "CD1_1": -1.4e-4,
        "CD2_2": 1.4e-4,
        "CD1_2": 3e-6,
        "CD2_1": 3e-6,
    }
    if sip:
        header |= {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-5, "B_1_1": -2e-5}
    wcs = WCS(header)
    blank = np.zeros(shape, np.float32)
    return Field({}, blank, blank, wcs, Box(0, shape[1], 0, shape[0]), 0.5, None, 25.0)


def sources_at(ra: np.ndarray, dec: np.ndarray) -> Sources:
    return Sources(pd.DataFrame({"RA": ra, "DEC": dec}), has_id=False)


@pytest.mark.parametrize("sip", [False, True])
def test_positions_agree_with_astropy(sip: bool) -> None:
    field = make_field(sip=sip)
    rng = np.random.default_rng(2)
    x, y = rng.uniform(-50, 650, 300), rng.uniform(-50, 450, 300)
    ra, dec = field.wcs.all_pix2world(x, y, 0)
    table = place(sources_at(ra, dec), field).table
    np.testing.assert_allclose(table["x_pix_white"], x, rtol=0, atol=1e-3)
    np.testing.assert_allclose(table["y_pix_white"], y, rtol=0, atol=1e-3)
    inside = (x >= -0.5) & (x < 599.5) & (y >= -0.5) & (y < 399.5)
    assert table["excluded_crop"].tolist() == (~inside).tolist()
    assert table["excluded_any"].tolist() == (~inside).tolist()
    expected = skycoord_to_pixel(SkyCoord(ra[inside], dec[inside], unit="deg"), field.wcs, mode="all")
    np.testing.assert_allclose(table["x_pix_white"][inside], expected[0], atol=1e-3)


@pytest.mark.parametrize("sip", [False, True])
def test_far_away_and_undefined_positions_are_off_the_frame(sip: bool) -> None:
    field = make_field(sip=sip)
    ra = np.array([0.01, np.nan, 1.0, 180.01, 90.0, 0.01, 359.999, 5.0, 180.0, 0.01])
    dec = np.array([60.0, 60.0, np.nan, -60.0, 0.0, -90.0, 60.0, 62.0, 89.0, 60.1])
    table = place(sources_at(ra, dec), field).table
    assert np.flatnonzero(~table["excluded_crop"]).tolist() == [0, 6]
    assert table["x_pix_white"][[1, 2]].isna().all()


def test_hours_are_recognised_when_nothing_is_on_the_frame(caplog) -> None:
    field = make_field()
    with caplog.at_level(logging.WARNING):
        place(sources_at(np.array([0.01 / 15, 0.011 / 15]), np.array([60.001, 60.0])), field)
    assert not caplog.records  # near RA 0 these may well be degrees: one of them is on the frame
    shifted = make_field()
    shifted.wcs.wcs.crval = [150.0, 60.0]
    with caplog.at_level(logging.WARNING):
        place(sources_at(np.array([10.0, np.nan]), np.array([60.0, 1.0])), shifted)
    assert "RA seems to be in hours" in caplog.text


def test_saturation_flags() -> None:
    field = make_field()
    placed = place(sources_at(np.array([0.01, 90.0, 0.01]), np.array([60.0, 0.0, 60.001])), field)
    flagged = with_saturation(placed, np.array([True, False, False])).table
    assert flagged["excluded_saturation"].tolist() == [True, False, False]
    assert flagged["excluded_any"].tolist() == [True, True, False]
    assert not placed.table["excluded_saturation"].any()
    with pytest.raises(ValueError, match="expected 3 flags"):
        with_saturation(placed, np.array([True]))


# --- on disk -------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(TEXT, st.none() | TEXT, st.floats(allow_nan=True), st.booleans()), min_size=1))
def test_stored_sources_come_back_to_the_bit(tmp_path_factory, rows) -> None:
    text, maybe, number, flag = zip(*rows)
    table = pd.DataFrame(
        {"ID": list(text), "note": list(maybe), "RA": np.array(number), "flag": np.array(flag)}
    )
    path = tmp_path_factory.mktemp("s") / "s.parquet"
    write_sources(Sources(table, has_id=False), path)
    back = read_sources(path)
    assert back.has_id is False
    assert list(back.table.columns) == list(table.columns)
    assert back.table["ID"].tolist() == list(text)
    assert [None if pd.isna(v) else v for v in back.table["note"]] == list(maybe)
    finite = ~np.isnan(np.array(number))
    assert back.table["RA"].to_numpy()[finite].tobytes() == np.array(number)[finite].tobytes()
    assert (back.table["RA"].isna().to_numpy() == ~finite).all()
    assert back.table["flag"].dtype == bool
    assert back.table["flag"].tolist() == list(flag)


def test_stored_catalogue_equals_the_one_that_was_read(catalogue, tmp_path: Path) -> None:
    sources = catalogue("ID,RA,DEC,note\n00019,1,2,\n2,,3,x\n")
    write_sources(sources, tmp_path / "s.parquet")
    back = read_sources(tmp_path / "s.parquet")
    assert back.has_id
    pd.testing.assert_frame_equal(back.table, sources.table)


def test_broken_stored_sources(tmp_path: Path) -> None:
    with pytest.raises(ProductError, match="missing"):
        read_sources(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"nonsense")
    with pytest.raises(ProductError, match=r"bad\.parquet"):
        read_sources(tmp_path / "bad.parquet")
    pd.DataFrame({"RA": [1.0]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(ProductError, match="not a base catalogue"):
        read_sources(tmp_path / "other.parquet")


def test_the_real_catalogue(shared: Path) -> None:
    path = shared / "data" / "sdss_s82_small" / "input_catalog.csv"
    sources = read_catalogue(str(path))
    expected = pd.read_csv(path)
    assert len(sources) == len(expected) == 67
    assert sources.table["ID"].tolist() == expected["ID"].tolist()
    np.testing.assert_array_equal(sources.table["Re"], expected["Re"])
