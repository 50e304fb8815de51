"""Rows about the source catalogue and the Gaia table."""

from __future__ import annotations

import io

import numpy as np
from badinput_field import BANDS, STARS, TinyField, image_header, pixels
from badinput_images import assert_measured, rewrite
from badinput_rows import Changes, catalogue_of, row

CATALOGUE = "Source catalogue"
GAIA = "Gaia table"
WITH_GAIA: Changes = {"inputs": {"gaiaxp_synphot_csv": "gaia.csv"}, "zp": {"enabled": True}}


def with_ids(tiny: TinyField, *ids: str) -> None:
    rows = tiny.rows()
    for line, text in zip(rows[1:], ids):
        line[0] = text
    tiny.write_rows(rows)


def measured_by_name(tiny: TinyField) -> None:
    """Every row under the name that came in, in all three files, measured; nothing outside of work_dir."""
    from astropy.table import Table

    assert_measured(tiny)
    wanted = [line[0] for line in tiny.rows()[1:]]
    ids = Table.read(tiny.work / "output_catalog.fits")["ID"]
    assert [text.decode() if isinstance(text, bytes) else str(text) for text in ids] == wanted
    beside = {path.name for path in tiny.folder.iterdir()}
    assert beside <= {
        "catalogue.csv",
        "gaia.csv",
        "images.txt",
        "config.yaml",
        "m450.fits",
        "m650.fits",
        "work",
    }
    assert not {path.name for path in tiny.folder.parent.iterdir()} & {"x", "x.png"}


# --- the file --------------------------------------------------------------------------------------------


@row(
    CATALOGUE,
    "A CSV in latin-1",
    "the run ends",
    "expected text in UTF-8, found byte 0xe9 in line 2 (byte …); save the file as UTF-8",
    1,
)
def latin_1(tiny: TinyField) -> None:
    with_ids(tiny, "étoile")
    tiny.catalogue.write_bytes(tiny.catalogue.read_text(encoding="utf-8").encode("latin-1"))


@row(CATALOGUE, "A CSV in UTF-16", "the run ends", "expected text in UTF-8, found byte 0xff in line 1", 1)
def utf_16(tiny: TinyField) -> None:
    tiny.catalogue.write_bytes(tiny.catalogue.read_text(encoding="utf-8").encode("utf-16"))


@row(CATALOGUE, "A CSV with a byte order mark", "read as it is meant", "5 sources, 5 active, 2 bands", 0)
def byte_order_mark(tiny: TinyField) -> None:
    tiny.catalogue.write_bytes(b"\xef\xbb\xbf" + tiny.catalogue.read_bytes())


byte_order_mark.checked(assert_measured)


@row(
    CATALOGUE,
    "Rows with more or fewer cells than the header",
    "the run ends",
    "expected 4 cells a row, as in the header; found another number in line 3 (5), line 4 (2)",
    1,
)
def ragged(tiny: TinyField) -> None:
    rows = tiny.rows()
    rows[2].append("x")
    del rows[3][2:]
    tiny.write_rows(rows)


@row(
    CATALOGUE,
    "A header without rows (zero sources)",
    "the run ends",
    "expected at least one source, found a header without rows",
    1,
)
def no_rows(tiny: TinyField) -> None:
    tiny.write_rows(tiny.rows()[:1])


@row(CATALOGUE, "An empty file", "the run ends", "expected a header line and rows, found an empty file", 1)
def empty_catalogue(tiny: TinyField) -> None:
    tiny.catalogue.write_bytes(b"")


@row(CATALOGUE, "A FITS table that is damaged", "the run ends", "expected a FITS table (…)", 1)
def damaged_fits(tiny: TinyField) -> Changes:
    from astropy.table import Table

    data = io.BytesIO()
    Table({"ID": ["a"], "RA": [150.0], "DEC": [2.0]}).write(data, format="fits")
    broken = data.getvalue().replace(b"TTYPE2  = 'RA      '", b"TTYPE2  = RA  \xb0 '   ", 1)
    (tiny.folder / "catalogue.fits").write_bytes(broken)
    return {"inputs": {"input_catalog": "catalogue.fits"}}


@row(
    CATALOGUE,
    "A text where a number is due",
    "the run ends",
    "column RA: expected numbers, found row 2 (line 3) '10:00:01'",
    1,
)
def text_for_number(tiny: TinyField) -> None:
    rows = tiny.rows()
    rows[2][1] = "10:00:01"
    tiny.write_rows(rows)


@row(
    CATALOGUE,
    "No RA, no DEC",
    "the run ends",
    "column RA and DEC missing; expected RA and DEC, found columns ID, lon, lat, TYPE",
    1,
)
def no_positions(tiny: TinyField) -> None:
    rows = tiny.rows()
    tiny.write_rows([["ID", "lon", "lat", "TYPE"], *rows[1:]])


@row(
    CATALOGUE,
    "A column that the pipeline writes (`FLUX_m450_fit`)",
    "the run ends",
    "column FLUX_m450_fit: the pipeline writes a column of this name; rename or remove it",
    1,
)
def reserved_column(tiny: TinyField) -> None:
    rows = tiny.rows()
    tiny.write_rows([[*line, "FLUX_m450_fit" if i == 0 else "1"] for i, line in enumerate(rows)])


# --- names -----------------------------------------------------------------------------------------------


@row(
    CATALOGUE,
    "An ID twice",
    "the run ends",
    "expected every source once, found ID '001' in row 1 (line 2), row 2 (line 3)",
    1,
)
def id_twice(tiny: TinyField) -> None:
    with_ids(tiny, "001", "001")


@row(
    CATALOGUE,
    "Two sources of different IDs at one position",
    "both are fitted, as they could be meant; the log names them",
    "2 sources have the position of another one, so that nothing tells their fluxes apart: ID 001, twin",
    0,
)
def same_position(tiny: TinyField) -> None:
    rows = tiny.rows()
    tiny.write_rows([*rows, ["twin", *rows[1][1:]]])


@row(
    CATALOGUE,
    "IDs that differ in blanks around them alone",
    "the run ends: the FITS catalogue could not tell them apart",
    "expected every source once, found ID '001 ' in row 1 (line 2), row 2 (line 3)",
    1,
)
def id_twice_but_for_blanks(tiny: TinyField) -> None:
    with_ids(tiny, "001", "001 ")


@row(
    CATALOGUE,
    "An empty ID",
    "the run ends",
    "column ID: expected an identifier in every row, found none in row 2 (line 3)",
    1,
)
def empty_id(tiny: TinyField) -> None:
    with_ids(tiny, "001", "  ")


@row(
    CATALOGUE,
    "IDs of 300 characters, in any script",
    "kept to the character; pictures get a shorter name",
    "5 sources, 5 active, 2 bands",
    0,
)
def long_ids(tiny: TinyField) -> Changes:
    with_ids(tiny, "a" * 300, "é" * 300, "星の名前", "a" * 299 + "b", "‮right to left‬")
    return {"patch_run": {"no_cutouts": False}}


@row(
    CATALOGUE,
    "IDs that are paths: `../../x`, `a/b`, `/etc/passwd`, `..`, a line break",
    "kept to the character; pictures stay in the patch's own folder",
    "5 sources, 5 active, 2 bands",
    0,
)
def ids_as_paths(tiny: TinyField) -> Changes:
    with_ids(tiny, "../../x", "a/b", "/etc/passwd", "..", "two\nlines")
    return {"patch_run": {"no_cutouts": False}}


@row(
    CATALOGUE,
    "IDs and cells that a spreadsheet takes for formulas (`=1+1`, `@x`, `-2`)",
    "kept to the character: a catalogue is data; open it as text in a spreadsheet",
    "5 sources, 5 active, 2 bands",
    0,
)
def formulas(tiny: TinyField) -> None:
    with_ids(tiny, "=1+1", "@SUM(A1)", "-2", "+3", '=HYPERLINK("http://x","y")')


for made in (long_ids, ids_as_paths, formulas):
    made.checked(measured_by_name)


@long_ids.checked
@ids_as_paths.checked
def files_stay_in_the_folder_of_the_patch(tiny: TinyField) -> None:
    made = [path for path in (tiny.work / "outputs").rglob("*") if path.is_file()]
    assert made
    assert {path.relative_to(tiny.work / "outputs").parts[0] for path in made} == {"r00_c00_pr00_pc00"}
    assert len([path for path in made if path.name.startswith("src_")]) == len(STARS)


# --- positions -------------------------------------------------------------------------------------------


def move(tiny: TinyField, *numbers: int, ra: str | None = None, dec: str | None = None) -> None:
    rows = tiny.rows()
    for number in numbers:
        rows[number][1:3] = [ra or rows[number][1], dec or rows[number][2]]
    tiny.write_rows(rows)


def assert_rows(tiny: TinyField, excluded: list[str], fitted: int) -> None:
    table = catalogue_of(tiny)
    assert table["ID"].tolist() == [line[0] for line in tiny.rows()[1:]]
    assert table["excluded_reason"].tolist() == excluded
    assert (table["x_pix_white_fit"] != "").sum() == fitted
    for reason, issues, fit in zip(excluded, table["fit_quality_issues"], table["x_pix_white_fit"]):
        assert ("excluded" in issues) is bool(reason)
        assert not (reason and fit)


@row(
    CATALOGUE,
    "RA in hours (all below 24)",
    "nothing is fitted; every row stays, excluded; the log names the cause",
    "none of 5 sources lies on the working frame (centre RA 150.00000, DEC 2.00000); RA seems to be in hours, expected degrees",  # noqa: E501
    0,
)
def hours(tiny: TinyField) -> None:
    rows = tiny.rows()
    for line in rows[1:]:
        line[1] = f"{float(line[1]) / 15:.8f}"
    tiny.write_rows(rows)


@row(
    CATALOGUE,
    "All sources excluded",
    "nothing is fitted; every row stays, with the reason",
    "no source is left to fit: all 5 lie off the working frame or near saturation",
    0,
)
def all_excluded(tiny: TinyField) -> None:
    move(tiny, 1, 2, 3, 4, 5, ra="210.5")
    rows = tiny.rows()
    for number, line in enumerate(rows[1:]):
        line[2] = str(number)
    tiny.write_rows(rows)


@hours.checked
@all_excluded.checked
def nothing_is_fitted(tiny: TinyField) -> None:
    assert_rows(tiny, ["crop"] * 5, 0)


@row(
    CATALOGUE,
    "Sources far outside, at the antipode, without a position",
    "they stay in the catalogue, excluded; the others are fitted",
    "merged 5 rows: 2 fitted, 2 reliable, 3 excluded (crop 3, saturation 0)",
    0,
)
def far_outside(tiny: TinyField) -> None:
    move(tiny, 1, ra="151.0")
    move(tiny, 2, ra="330.0", dec="-2.0")
    move(tiny, 3, ra="nan", dec="inf")


@far_outside.checked
def others_are_fitted(tiny: TinyField) -> None:
    assert_rows(tiny, ["crop", "crop", "crop", "", ""], 2)


@row(
    CATALOGUE,
    "RA above 360, DEC above 90",
    "the run ends",
    "column RA: expected 0 to 360 deg, found row 1 (line 2) 400 … column DEC: expected -90 to 90 deg, found row 2 (line 3) 91",  # noqa: E501
    1,
)
def out_of_range(tiny: TinyField) -> None:
    move(tiny, 1, ra="400")
    move(tiny, 2, dec="91")


@row(
    CATALOGUE,
    "Sources on NaN pixels",
    "they stay in the catalogue, with the masked share; the others are fitted",
    "merged 5 rows",
    0,
)
def on_nan(tiny: TinyField) -> None:
    for number, band in enumerate(BANDS):
        image = pixels(number)
        image[12:33, 10:31] = np.nan
        rewrite(tiny, number, image, image_header(band))


@on_nan.checked
def masked_source_is_not_reliable(tiny: TinyField) -> None:
    table = catalogue_of(tiny)
    assert len(table) == 5
    assert table["fit_is_reliable"].tolist() == ["False", "True", "True", "True", "True"]
    assert table["FRACMASKED_m450"].iloc[0] in ("", "1.0")
    for line, (_, _, flux) in zip(table.iloc[1:].itertuples(), STARS[1:]):
        assert abs(float(line.FLUX_m650_fit) / flux - 1) < 0.1


@row(
    CATALOGUE,
    "A CSV of 10^6 rows, all but some 10^2 of them outside of the frame",
    "they stay in the catalogue, excluded; the others are fitted; in minutes and less than 2 GB",
    "merged … rows: … fitted",
    0,
    tested="tests/badinput/test_badinput_million.py::test_a_million_rows",
)
def a_million_rows(tiny: TinyField) -> None:
    tiny.write_rows(tiny.rows() + [[f"far{i}", "10.0", f"{i * 1e-5:.5f}", "STAR"] for i in range(10**6)])


@row(CATALOGUE, "One source", "fitted", "merged 1 rows: 1 fitted, 1 reliable", 0)
def one_source(tiny: TinyField) -> None:
    tiny.write_rows([tiny.rows()[0], tiny.rows()[3]])


@one_source.checked
def one_row(tiny: TinyField) -> None:
    (line,) = catalogue_of(tiny).itertuples()
    assert abs(float(line.FLUX_m650_fit) / STARS[2][2] - 1) < 0.1


@row(
    CATALOGUE,
    "FLUX columns of other bands than the images'",
    "the run ends",
    "catalogue and images differ in bands; … columns without an image: FLUX_r; images without a column: FLUX_m450, FLUX_m650",  # noqa: E501
    1,
)
def other_bands(tiny: TinyField) -> None:
    tiny.write_rows([[*line, "FLUX_r" if i == 0 else "1"] for i, line in enumerate(tiny.rows())])


@row(
    CATALOGUE,
    "Start values that make no sense: negative, NaN, 1e300, ELL 5, Re -1",
    "fitted from the start values that stand in",
    "merged 5 rows: 5 fitted",
    0,
)
def senseless_start(tiny: TinyField) -> None:
    names = ["FLUX_m450", "FLUX_m650", "ELL", "THETA", "Re", "SERSIC_n", "POS_ERR"]
    values = [["-5", "nan", "5", "1e9", "-1", "0", "-1"], ["1e300", "inf", "nan", "", "1e300", "99", "0"]]
    rows = [[*line, *(names if i == 0 else values[i % 2])] for i, line in enumerate(tiny.rows())]
    tiny.write_rows(rows)


# --- Gaia ------------------------------------------------------------------------------------------------


def spoil_gaia(tiny: TinyField, column: str, *values: str) -> None:
    rows = tiny.rows(tiny.gaia)
    place = rows[0].index(column)
    for line, value in zip(rows[1:], values):
        line[place] = value
    tiny.write_rows(rows, tiny.gaia)


@row(
    GAIA,
    "No `mag_{band}` of any image",
    "the run ends",
    "no column mag_{band} for any image band (m450, m650); the table has mag_g, mag_r",
    1,
)
def other_gaia_bands(tiny: TinyField) -> Changes:
    rows = tiny.rows(tiny.gaia)
    tiny.write_rows([[*rows[0][:4], "mag_g", "mag_r"], *rows[1:]], tiny.gaia)
    return WITH_GAIA


@row(
    GAIA,
    "Rows with a cell too many",
    "the run ends: every value would stand under the wrong name",
    "Gaia table … cannot be read: expected 6 cells a row, as in the header; found another number in line 2 (7)",
    1,
)
def gaia_shifted(tiny: TinyField) -> Changes:
    rows = tiny.rows(tiny.gaia)
    tiny.write_rows([rows[0], *([*line, ""] for line in rows[1:])], tiny.gaia)
    return WITH_GAIA


@row(
    GAIA,
    "A `source_id` that is no number",
    "taken as it is: it is text",
    "4 Gaia stars, 4 matched, 0 not in the catalogue",
    0,
)
def gaia_names(tiny: TinyField) -> Changes:
    spoil_gaia(tiny, "source_id", "Gaia DR3 one", "../x", "=2", "0004")
    return WITH_GAIA


@gaia_names.checked
def gaia_names_arrive(tiny: TinyField) -> None:
    assert_measured(tiny)
    assert catalogue_of(tiny)["gaia_source_id"].tolist() == ["Gaia DR3 one", "../x", "=2", "0004", ""]


@row(GAIA, "A `source_id` twice", "the run ends", "1 source_id repeat: 7", 1)
def gaia_twice(tiny: TinyField) -> Changes:
    spoil_gaia(tiny, "source_id", "7", "7")
    return WITH_GAIA


@row(
    GAIA,
    "No star with a usable magnitude",
    "the catalogue is complete, without magnitudes; the log says so",
    "m450: no zero point: no reliable Gaia star has a magnitude and a positive flux … m650: no zero point",
    0,
)
def no_magnitudes(tiny: TinyField) -> Changes:
    for band in BANDS:
        spoil_gaia(tiny, f"mag_{band}", "99", "-999", "", "x")
    return WITH_GAIA


@no_magnitudes.checked
def no_magnitude_is_invented(tiny: TinyField) -> None:
    assert_measured(tiny)
    assert set(catalogue_of(tiny)["MAG_m450_fit"]) == {""}


@row(
    GAIA,
    "Magnitudes of another band, 7 mag off",
    "the magnitudes follow Gaia; the log says that the header contradicts",
    "m650: the zero point from Gaia differs by +7.0… mag from ZP_AUTO = 25 of …",
    0,
)
def magnitudes_off(tiny: TinyField) -> Changes:
    rows = tiny.rows(tiny.gaia)
    spoil_gaia(tiny, "mag_m650", *(str(float(line[5]) + 7.02) for line in rows[1:]))
    return WITH_GAIA


@row(
    GAIA,
    "Magnitudes that agree for no two stars",
    "the zero point has the error that they leave; never a clipped few",
    "m450: zero point …",
    0,
)
def all_clipped(tiny: TinyField) -> Changes:
    for band in BANDS:
        spoil_gaia(tiny, f"mag_{band}", "11.0", "14.0", "17.0", "20.0")
    return WITH_GAIA


@all_clipped.checked
def error_is_honest(tiny: TinyField) -> None:
    import pandas as pd

    assert_measured(tiny)
    summary = pd.read_csv(tiny.work / "ZP" / "zp_summary.csv")
    assert (summary["zp_err_median"] > 0.5).all()
    assert (summary["n_kept"] >= 2).all()


@row(
    GAIA,
    "No row at all",
    "the catalogue is complete, without magnitudes",
    "no Gaia star of … mag on the frame",
    0,
)
def gaia_empty(tiny: TinyField) -> Changes:
    tiny.write_rows(tiny.rows(tiny.gaia)[:1], tiny.gaia)
    return WITH_GAIA


gaia_empty.checked(assert_measured)


@row(
    GAIA,
    "zp.enabled without a Gaia table",
    "the catalogue is complete, without magnitudes; the log says so",
    "zp.enabled is true, but inputs.gaiaxp_synphot_csv is not given",
    0,
)
def no_gaia(tiny: TinyField) -> Changes:
    return {"zp": {"enabled": True}}


no_gaia.checked(assert_measured)
