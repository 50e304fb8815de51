"""CSV, Parquet and FITS catalogues, read back with other software."""

from __future__ import annotations

import csv
import warnings

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.io.fits.verify import VerifyWarning
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_catalog import BANDS, make_audit, make_fit, make_payload, make_sources, make_wcs

from tract7dt.catalog import (
    apply_zero_points,
    catalog_paths,
    fitsfile,
    merge,
    patch_table,
    read_catalog,
    write_catalog,
)
from tract7dt.catalog.fitsfile import fits_names
from tract7dt.catalog.passthrough import numeric_or_text
from tract7dt.errors import ConfigError, ProductError
from tract7dt.types import Sources, ZeroPoint


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", VerifyWarning)
        warnings.simplefilter("error", UserWarning)
        yield


def make_catalog(single=False, extra=None):
    """A merged catalogue with magnitudes; row 5 has no fit."""
    sources = make_sources()
    if extra:
        sources = Sources(sources.table.assign(**extra), True)
    payload = make_payload(sources, [2, 3, 4, *range(6, 12)])
    table = patch_table(payload, make_fit(payload, single), make_audit(fallback=("g",)))
    merged = merge(sources, [table], make_wcs(), BANDS, single)
    zps = [ZeroPoint(b, 5, 5, 0, 0, 3.0, 25.1, 0.01, 0.02, 0.003, 5, np.nan, 0.01) for b in BANDS]
    return apply_zero_points(merged, zps)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    table = make_catalog()
    path = tmp_path_factory.mktemp("out") / "output_catalog.csv"
    return table, write_catalog(table, path, BANDS, {"field": "7DT \u00e9", "zp_ref": 25.0})


@pytest.mark.parametrize("single", [False, True])
def test_the_csv_reads_back_exactly(tmp_path, single):
    table = make_catalog(single)
    path, *_ = write_catalog(table, tmp_path / "c.csv", BANDS)
    pd.testing.assert_frame_equal(read_catalog(path), table, check_exact=True)
    pd.testing.assert_frame_equal(read_catalog(path, BANDS), table, check_exact=True)


def test_the_csv_is_plain(written):
    table, (path, _, _) = written
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["ID"] for r in rows] == [f"{i:05d}" for i in range(12)]
    assert [r["note"] for r in rows[:4]] == ["é, ü", "00012", ' "q" ', ""]
    assert [r["other_mag"] for r in rows[:4]] == ["1.50", "", "-3", "2e1"]
    assert rows[0]["FLUX_g_fit"] == ""
    assert rows[0]["opt_converged"] == "False"
    assert rows[4]["opt_converged"] == "True"
    assert rows[4]["opt_niters"] == "7"
    assert float(rows[4]["RA_fit"]) == table["RA_fit"][4]
    assert len(rows) == 12


@pytest.mark.parametrize("single", [False, True])
def test_parquet_gives_back_types_and_values(tmp_path, single):
    table = make_catalog(single)
    _, path, _ = write_catalog(table, tmp_path / "c.csv", BANDS)
    back = read_catalog(path)
    own = ["other_mag"]
    pd.testing.assert_frame_equal(back.drop(columns=own), table.drop(columns=own), check_exact=True)
    assert back["other_mag"].dtype == float
    np.testing.assert_array_equal(back["other_mag"][:4], [1.5, np.nan, -3.0, 20.0])
    plain = pd.read_parquet(path)
    assert plain["fit_is_reliable"].dtype == bool
    np.testing.assert_array_equal(plain["FLUX_g_fit"], table["FLUX_g_fit"])


def test_parquet_fields_have_unit_and_description(written):
    _, (_, path, _) = written
    schema = pq.read_schema(path)
    for name, unit in (
        ("RA_fit_err", b"arcsec"),
        ("FLUX_g_fit", b"count"),
        ("MAG_r_fit", b"mag"),
        ("ID", b""),
    ):
        metadata = schema.field(name).metadata
        assert metadata[b"unit"] == unit
        assert metadata[b"description"].endswith(b".")
    assert schema.field("note").metadata is None
    assert b'"zp_ref": 25.0' in schema.metadata[b"tract7dt"]


def test_fits_read_with_astropy(written):
    table, (_, _, path) = written
    back = Table.read(path, hdu="CATALOG")
    assert back.colnames == list(table.columns)
    assert back["RA_fit"].unit == u.deg
    assert back["RA_fit_err"].unit == u.arcsec
    assert back["SKY_g_fit"].unit == u.count / u.pix
    assert back["xy_pix_fit_cov"].unit == u.pix**2
    for name in ("FLUX_g_fit", "RA_fit", "MAGERR_r_fit", "Re_fit"):
        np.testing.assert_array_equal(np.ma.filled(back[name], np.nan), table[name])
    assert list(back["ID"]) == list(table["ID"])
    assert list(np.ma.filled(back["note"], "")) == [t.rstrip(" ") for t in table["note"]]
    assert list(np.ma.filled(back["gaia_source_id"], "")) == list(table["gaia_source_id"])
    np.testing.assert_array_equal(back["fit_is_reliable"], table["fit_is_reliable"])
    assert back["fit_is_reliable"].dtype == bool
    niter = back["opt_niters"]
    assert niter.mask.tolist() == table["opt_niters"].isna().tolist()
    assert (niter[~niter.mask] == 7).all()
    np.testing.assert_array_equal(np.ma.filled(back["other_mag"], np.nan)[:4], [1.5, np.nan, -3.0, 20.0])


def test_fits_header_describes_columns_and_flags(written):
    table, (_, _, path) = written
    with fits.open(path) as hdus:
        hdus.verify("exception")
        header = hdus["CATALOG"].header
        names = {header[f"TTYPE{i}"]: i for i in range(1, len(table.columns) + 1)}
        assert "total flux in g" in header[f"TCOMM{names['FLUX_g_fit']}"]
        assert header[f"TCOMM{names['note']}"] == "Text is UTF-8."
        comments = " ".join(hdus[0].header["COMMENT"])
        assert "bound_stalled (hard)" in comments
        assert "zp_ref = 25.0" in comments


def test_two_writes_are_equal_bytes(tmp_path, written):
    table, paths = written
    again = write_catalog(table.copy(), tmp_path / "c.csv", BANDS, {"field": "7DT \u00e9", "zp_ref": 25.0})
    for a, b in zip(paths, again):
        assert a.read_bytes() == b.read_bytes()


def test_a_rerun_over_files_replaces_them_and_leaves_nothing_else(tmp_path):
    table = make_catalog()
    for _ in range(2):
        paths = write_catalog(table, tmp_path / "c.csv", BANDS)
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_pass_through_columns_with_troublesome_names(tmp_path):
    extra = {
        "re_FIT": "a",  # the same as Re_fit in lower case
        "ra": "12",
        "Größe [mag]": "1",
        "x" * 100: "1",
        "x" * 99 + "y": "2",
        "a b": "1",
        "a_b": "2",
        "SIMPLE": "T",
    }
    table = make_catalog(extra=extra)
    *_, path = write_catalog(table, tmp_path / "c.csv", BANDS)
    with fits.open(path) as hdus:
        header, columns = hdus["CATALOG"].header, hdus["CATALOG"].columns.names
        originals = dict(zip(table.columns, columns, strict=True))
        assert len({c.lower() for c in columns}) == len(columns)
        assert originals["Re_fit"] == "Re_fit_2" or originals["re_FIT"] == "re_FIT_2"
        assert originals["RA"] == "RA"
        assert originals["a_b"] == "a_b"
        assert hdus["CATALOG"].data[originals["a b"]][0] == 1
        where = columns.index(originals["Größe [mag]"]) + 1
        assert 'Column "Gr\\u00f6\\u00dfe [mag]" of the CSV.' in header[f"TCOMM{where}"]


def test_names_of_the_schema_keep_their_place_in_fits():
    assert fits_names(["ra", "RA", "Re_fit", "re_fit", "a b", "a_b"]) == [
        "ra",
        "RA_2",
        "Re_fit",
        "re_fit_2",
        "a_b_2",
        "a_b",
    ]


def test_more_columns_than_a_fits_table_holds(tmp_path, monkeypatch):
    assert fitsfile.MAX_COLUMNS == 999
    monkeypatch.setattr(fitsfile, "MAX_COLUMNS", 60)
    table = make_catalog()
    assert 60 < len(table.columns) <= 120
    *_, path = write_catalog(table, tmp_path / "c.csv", BANDS)
    with fits.open(path) as hdus:
        assert [h.name for h in hdus] == ["PRIMARY", "CATALOG", "CATALOG2"]
        names = hdus[1].columns.names + hdus[2].columns.names
        assert names == list(table.columns)
        assert hdus[2].data["MAG_g_fit"].shape == (12,)


def test_an_empty_catalogue(tmp_path):
    table = make_catalog().head(0)
    path, parquet, binary = write_catalog(table, tmp_path / "c.csv", BANDS)
    assert len(read_catalog(path)) == len(read_catalog(parquet)) == 0
    pd.testing.assert_frame_equal(read_catalog(path), table, check_index_type=False)
    assert len(Table.read(binary)) == 0


def test_the_csv_must_not_take_the_name_of_another_format(tmp_path):
    with pytest.raises(ConfigError, match="final_catalog"):
        catalog_paths(tmp_path / "out.fits")
    assert [p.name for p in catalog_paths("a/out.v2.csv")] == ["out.v2.csv", "out.v2.parquet", "out.v2.fits"]


def test_missing_and_damaged_files_are_named(tmp_path):
    for name in ("c.csv", "c.parquet"):
        with pytest.raises(ProductError, match=f"{name}: not found"):
            read_catalog(tmp_path / name)
    (tmp_path / "c.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(ProductError, match="damaged"):
        read_catalog(tmp_path / "c.parquet")
    table = make_catalog()
    with pytest.raises(ProductError, match="several columns are named"):
        write_catalog(pd.concat([table, table[["RA"]]], axis=1), tmp_path / "c.csv", BANDS)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2", ""], "Int64"),
        (["0", "-7"], "Int64"),
        (["1", "2.5", ""], "float64"),
        ([".5", "1.", "-1e-5", "nan"], "float64"),
        (["1.0", "nan", "NaN"], "float64"),
        (["00019", "20"], "text"),
        (["01.5", "2"], "text"),
        (["+5", "4"], "text"),
        (["1_000"], "text"),
        ([" 1"], "text"),
        (["0x10"], "text"),
        (["inf"], "text"),
        (["1e999"], "text"),
        (["", ""], "text"),
        ([], "text"),
        (["."], "text"),
        (["e5"], "text"),
        (["-"], "text"),
        (["True", "False"], "text"),
        (["٣", "1"], "text"),  # a digit, but not ASCII
        (["4123456789012345678"], "Int64"),
        (["99999999999999999999"], "text"),
        (["9007199254740993", "1.5"], "text"),
        (["2020-01-01"], "text"),
    ],
)
def test_plain_numbers_only(values, kind):
    column = numeric_or_text(values)
    if kind == "text":
        assert list(column) == values
    else:
        assert str(column.dtype) == kind
        got = [np.nan if v is pd.NA else v for v in column]
        np.testing.assert_array_equal(got, [float(v) if v else np.nan for v in values])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(st.integers(-(2**63) + 1, 2**63 - 1).map(str), st.just("")), min_size=1))
def test_whole_numbers_are_never_changed(values):
    column = numeric_or_text(values)
    assert ["" if pd.isna(v) else str(v) for v in column] == values


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False).map(repr), min_size=1))
def test_floats_are_read_to_the_bit(values):
    column = numeric_or_text(values)
    assert list(column) == [float(v) for v in values]


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)


@settings(deadline=None, max_examples=10)
@given(st.lists(TEXT, min_size=12, max_size=12))
def test_any_text_survives_in_all_formats(tmp_path_factory, texts):
    table = make_catalog().assign(mine=pd.Series(texts, dtype="str"))
    csv_path, parquet, binary = write_catalog(table, tmp_path_factory.mktemp("t") / "c.csv", BANDS)
    assert list(read_catalog(csv_path)["mine"]) == texts
    typed = read_catalog(parquet)["mine"]
    if isinstance(typed.dtype, pd.StringDtype):
        assert list(typed) == texts
        # FITS does not keep blanks at the end.
        got = [t.rstrip(" ") for t in np.ma.filled(Table.read(binary, hdu="CATALOG")["mine"], "")]
        assert got == [t.rstrip(" ") for t in texts]
