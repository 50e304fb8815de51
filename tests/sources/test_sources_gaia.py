from __future__ import annotations

import dataclasses
import logging
import warnings
from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time
from astropy.wcs import WCS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tract7dt.errors import InputError
from tract7dt.sources.gaia import (
    at_epoch,
    augment,
    gaia_magnitudes,
    match_one_to_one,
    place_gaia,
    read_gaia,
    selection_box,
    write_augmented_csv,
)
from tract7dt.types import Box, Field, Frame, Sources

SCALE = 0.5  # arcsec per pixel


def field_of(shape=(400, 500), bands=("g", "r"), epoch=None, crval=(150.0, 2.0), crpix=None) -> Field:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = crval, crpix or (shape[1] / 2, shape[0] / 2)
    wcs.wcs.cdelt = [-SCALE / 3600, SCALE / 3600]
    image = np.zeros(shape, np.float32)
    frames = {band: Frame(band, image, 1.0, 1.0, 1.0, 25.0, None, 3.0, "") for band in bands}
    return Field(frames, image, image, wcs, Box(0, shape[1], 0, shape[0]), SCALE, epoch, 25.0)


def settings_of(**zp) -> SimpleNamespace:
    default = {
        "gaia_mag_min": 8.0,
        "gaia_mag_max": 18.0,
        "match_radius_arcsec": 3.0,
        "min_box_size_pix": 3000,
        "gaia_pos_err_pix": 0.1,
        "inject_gaia_sources": True,
    }
    return SimpleNamespace(zp=SimpleNamespace(**default | zp))


def sources_of(field: Field, x, y, has_id=True, **columns) -> Sources:
    """Base catalogue with the input columns in the order given, then the derived ones."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    sky = field.wcs.pixel_to_world_values(x, y)
    excluded = columns.pop("excluded_saturation", np.zeros(len(x), bool))
    table = pd.DataFrame({"ID": [f"{k:05d}" for k in range(len(x))]} if has_id else {"note": ["n"] * len(x)})
    table = table.assign(RA=sky[0], DEC=sky[1], **columns, x_pix_white=x, y_pix_white=y)
    table = table.assign(
        excluded_crop=~field.box.contains(x, y), excluded_saturation=np.asarray(excluded, bool)
    )
    table["excluded_any"] = table["excluded_crop"] | table["excluded_saturation"]
    return Sources(table.assign(gaia_source_id="", affected_by_bright_mask=False), has_id)


def gaia_of(field: Field, x, y, g=15.0, **columns) -> pd.DataFrame:
    sky = field.wcs.pixel_to_world_values(np.asarray(x, float), np.asarray(y, float))
    table = pd.DataFrame({"source_id": [str(5_000_000_000_000_000_001 + k) for k in range(len(x))]})
    table = table.assign(ra=sky[0], dec=sky[1], phot_g_mean_mag=g)
    table = table.assign(**({f"mag_{band}": 15.0 for band in field.bands} | columns))
    for name in ("pmra", "pmdec", "ref_epoch"):
        if name not in table:
            table[name] = np.nan
    return table


def tags(sources: Sources) -> list[str]:
    return [text[-1:] for text in sources.table["gaia_source_id"]]


# --- reading -------------------------------------------------------------------------------------------


def test_source_id_is_text_to_the_last_digit_and_numbers_are_numbers(tmp_path):
    path = tmp_path / "gaia.csv"
    path.write_text(
        "\ufeffsource_id, ra,dec,phot_g_mean_mag,mag_g,mag_r,extra\n"
        "0058531234567890123456,10.5,-3.25,14.0,15.5,99.0,x\n"
        "b,10.6,-3.25,,-999,abc,\n",
        encoding="utf-8",
    )
    table = read_gaia(str(path), ["r", "g", "i"], need_magnitudes=True)
    assert table["source_id"].tolist() == ["0058531234567890123456", "b"]
    assert table["ra"].tolist() == [10.5, 10.6]
    assert table["mag_g"].tolist()[0] == 15.5
    # 99, -999 and text stand for no magnitude
    assert table[["mag_r", "pmra", "ref_epoch"]].isna().all(axis=None)
    assert np.isnan(table["mag_g"][1])
    assert "mag_i" not in table
    assert "extra" not in table


def test_rows_without_a_position_are_left_out_and_logged(tmp_path, caplog):
    path = tmp_path / "gaia.csv"
    path.write_text("ra,dec\n1,2\n,2\n1,nan\ninf,2\n1,91\nx,2\n3,4\n")
    with caplog.at_level(logging.WARNING, "tract7dt"):
        table = read_gaia(str(path), ["g"], need_magnitudes=False)
    assert table["ra"].tolist() == [1.0, 3.0]
    assert "5 of 7 rows have no valid ra, dec" in caplog.text
    assert table["source_id"].tolist() == ["", ""]


@pytest.mark.parametrize(
    ("text", "magnitudes", "message"),
    [
        ("ra,dec\n1,2\n", True, "source_id is missing; column phot_g_mean_mag is missing; no column mag_"),
        ("id,ra\n1,2\n", False, "column dec is missing; columns: id, ra"),
        (
            "source_id,ra,dec,phot_g_mean_mag,mag_z\na,1,2,3,4\n",
            True,
            r"any image band \(g, r\); the table has mag_z",
        ),
        (
            "source_id,ra,dec,phot_g_mean_mag,mag_g\na,1,2,3,4\nb,1,2,3,4\na,1,2,3,4\n",
            True,
            "1 source_id repeat: a",
        ),
        (
            "source_id,ra,dec,phot_g_mean_mag,mag_g\na,1,2,3,4\n,1,2,3,4\n",
            True,
            "source_id is empty on line 3",
        ),
        ("", True, "cannot be read"),
    ],
)
def test_a_table_that_is_wrong_is_told(tmp_path, text, magnitudes, message):
    path = tmp_path / "gaia.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_gaia(str(path), ["g", "r"], need_magnitudes=magnitudes)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv cannot be read"):
        read_gaia(str(tmp_path / "none.csv"), ["g"], need_magnitudes=False)


def test_bands_without_a_column_are_warned_of(tmp_path, caplog):
    path = tmp_path / "gaia.csv"
    path.write_text("source_id,ra,dec,phot_g_mean_mag,mag_g\na,1,2,3,4\n")
    with caplog.at_level(logging.WARNING, "tract7dt"):
        read_gaia(str(path), ["g", "r", "i"], need_magnitudes=True)
    assert "for r, i" in caplog.text


def test_magnitudes_by_source_id():
    table = pd.DataFrame({"source_id": ["", "a", "b"], "mag_g": [9.0, 1.0, np.nan]})
    found = gaia_magnitudes(table, pd.Series(["b", "a", "", "zz"]), ["g", "r"])
    np.testing.assert_array_equal(found, [[np.nan, 1.0, np.nan, np.nan], [np.nan] * 4])
    assert gaia_magnitudes(table.iloc[:0], ["a"], ["g"]).shape == (1, 1)


# --- proper motion and place ---------------------------------------------------------------------------


@pytest.mark.parametrize("dec", [-89.9999, -30.0, 0.0, 4.7, 89.9999])
@pytest.mark.parametrize("ra", [0.0001, 123.0, 359.9999])
def test_proper_motion_agrees_with_astropy(ra, dec):
    """Against SkyCoord.apply_space_motion, Barnard's star's motion over 6.5 years, to a microarcsecond."""
    pmra, pmdec = -801.55, 10362.39
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        moved = SkyCoord(
            ra * u.deg, dec * u.deg, pm_ra_cosdec=pmra * u.mas / u.yr, pm_dec=pmdec * u.mas / u.yr,
            distance=1 * u.Mpc, radial_velocity=0 * u.km / u.s, obstime=Time(2016.0, format="jyear"),
        ).apply_space_motion(Time(2022.5, format="jyear"))  # fmt: skip
    got = at_epoch(*(np.array([v]) for v in (ra, dec, pmra, pmdec, 6.5)))
    off = SkyCoord(got[0] * u.deg, got[1] * u.deg).separation(SkyCoord(moved.ra, moved.dec))
    assert off.to_value(u.uas)[0] < 1


def test_stars_without_motion_epoch_or_date_stay():
    one = np.ones(4)
    years = np.array([5.0, 5.0, np.nan, 5.0])
    pmra = np.array([np.nan, 100.0, 100.0, 100.0])
    pmdec = np.array([100.0, np.nan, 100.0, 100.0])
    ra, _ = at_epoch(10 * one, 20 * one, pmra, pmdec, years)
    assert (ra == 10).tolist() == [True, True, True, False]
    field = field_of(epoch=None)
    gaia = gaia_of(field, [100.0], [50.0], pmra=1e4, pmdec=1e4, ref_epoch=2016.0)
    assert place_gaia(gaia, field)["x_pix_white"][0] == pytest.approx(100, abs=1e-6)


def test_stars_move_to_the_epoch_of_the_images():
    field = field_of(epoch=2026.0)
    gaia = gaia_of(field, [100.0, 120.0], [50.0, 60.0], pmra=500.0, pmdec=250.0, ref_epoch=[2016.0, 2026.0])
    placed = place_gaia(gaia, field)
    # 10 years: 5 arcsec east (towards -x) and 2.5 north, of 0.5 arcsec pixels
    assert placed["x_pix_white"].to_numpy() == pytest.approx([90.0, 120.0], abs=0.01)
    assert placed["y_pix_white"].to_numpy() == pytest.approx([55.0, 60.0], abs=0.01)
    again = field.wcs.world_to_pixel_values(placed["ra"], placed["dec"])
    np.testing.assert_allclose(again[0], placed["x_pix_white"], atol=1e-9)


def test_stars_far_from_the_field_have_no_pixel():
    field = field_of()
    gaia = gaia_of(field, [0.0, 499.0, -40.0], [0.0, 399.0, 200.0])
    gaia.loc[3] = gaia.loc[0]
    gaia.loc[3, ["ra", "dec"]] = [
        330.0,
        -2.0,
    ]  # the antipode, where a TAN projection has no pixel or a wrong one
    placed = place_gaia(gaia, field)
    assert np.isfinite(placed["x_pix_white"]).tolist() == [True, True, True, False]
    assert place_gaia(gaia.iloc[:0], field).empty


# --- the box and the match -----------------------------------------------------------------------------


@given(
    points=st.lists(st.tuples(st.floats(-0.5, 299.4), st.floats(-0.5, 199.4)), min_size=1, max_size=6),
    least=st.integers(1, 400),
)
@example(points=[(0.5, 0.5)], least=1)
def test_selection_box_is_a_square_on_the_frame_around_all(points, least):
    frame = Box(0, 300, 0, 200)
    x, y = np.array(points).T
    box = selection_box(x, y, least, frame)
    assert box.contains(x, y).all()
    assert box.expanded(0, frame) == box
    spread = max(int(np.floor(v.max() + 0.5)) - int(np.floor(v.min() + 0.5)) + 1 for v in (x, y))
    side = max(least, spread)
    assert (box.nx, box.ny) == (min(side, 300), min(side, 200))


def test_selection_box_moves_in_from_an_edge_and_without_sources_is_the_frame():
    frame = Box(0, 300, 0, 200)
    assert selection_box(np.array([5.0, np.nan]), np.array([100.0, 3.0]), 50, frame) == Box(0, 50, 75, 125)
    assert selection_box(np.array([299.0]), np.array([0.0]), 50, frame) == Box(250, 300, 0, 50)
    assert selection_box(np.array([np.nan]), np.array([1.0]), 50, frame) == frame


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 25),
    m=st.integers(0, 25),
    dec=st.sampled_from([0.0, 60.0, -89.99]),
)
def test_match_is_one_to_one_nearest_first(seed, n, m, dec):
    """Naive twin: all separations by astropy, the smallest left is taken, again and again."""
    rng = np.random.default_rng(seed)
    cos = np.cos(np.radians(dec))
    ra, dec1 = rng.uniform(0, 10 / 3600, n) / cos, dec + rng.uniform(0, 10 / 3600, n)
    other_ra, dec2 = rng.uniform(0, 10 / 3600, m) / cos, dec + rng.uniform(0, 10 / 3600, m)
    ra[: n // 8] = np.nan
    expected = []
    if n and m:
        a = SkyCoord(np.nan_to_num(ra) * u.deg, dec1 * u.deg)[:, None]
        apart = a.separation(SkyCoord(other_ra * u.deg, dec2 * u.deg)[None, :]).arcsec
        apart[np.isnan(ra)] = np.inf
        while np.min(apart, initial=np.inf) <= 3:
            i, j = np.unravel_index(np.argmin(apart), apart.shape)
            expected.append((i, j))
            apart[i, :] = apart[:, j] = np.inf
    first, second = match_one_to_one(ra, dec1, other_ra, dec2, 3.0)
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == expected


# --- augmentation --------------------------------------------------------------------------------------


def test_input_rows_stay_as_they_are_and_where_they_are():
    """Rows, order, texts, columns and flags; leading zeros survive with and without injection (defect 14)."""
    field = field_of()
    sources = sources_of(
        field, [50.0, 100.0, np.nan, -20.0, 300.0], [50.0, 100.0, np.nan, 40.0, 200.0],
        TYPE=["STAR", "EXP", "", "weird", "STAR"], note=["é", "", " x ", "007", "nan"],
        Re=[np.nan, 2.0, 3.0, 4.0, 5.0], excluded_saturation=[False, False, False, False, True],
    )  # fmt: skip
    before = sources.table.copy()
    gaia = gaia_of(field, [50.5, 300.5, 420.0], [50.0, 200.0, 300.0])
    for inject in (True, False):
        result = augment(sources, gaia, field, settings_of(inject_gaia_sources=inject))
        assert len(result) == (6 if inject else 5)
        kept = result.table.iloc[:5]
        unchanged = [name for name in before if name != "gaia_source_id"]
        pd.testing.assert_frame_equal(kept[unchanged], before[unchanged])
        assert tags(result)[:5] == ["1", "", "", "", "2"]  # excluded rows are tagged, too
        columns = list(result.table)
        added = ["FLUX_g", "FLUX_r", "POS_ERR"] if inject else ["FLUX_g", "FLUX_r"]
        assert columns[: columns.index("x_pix_white")] == ["ID", "RA", "DEC", "TYPE", "note", "Re", *added]
        assert columns[columns.index("x_pix_white") :] == list(before)[list(before).index("x_pix_white") :]
        assert result.table[["excluded_crop", "excluded_saturation", "excluded_any"]].dtypes.eq(bool).all()
        pd.testing.assert_frame_equal(sources.table, before)  # what was given is not changed


def test_injected_rows():
    field = field_of(epoch=2026.0)
    sources = sources_of(field, [50.0], [50.0], TYPE=["EXP"], note=["x"], Re=[2.0])
    gaia = gaia_of(field, [200.0, 300.0, 320.0], [100.0, 200.0, 210.0], mag_r=[17.5, np.nan, 16.0],
                   pmra=[500.0, 0, 0], pmdec=0.0, ref_epoch=2016.0)  # fmt: skip
    result = augment(sources, gaia, field, settings_of(), lambda x, y: x > 310)
    new = result.table.iloc[1:]
    assert new["ID"].tolist() == ["gaia_" + text for text in gaia["source_id"]]
    assert new["gaia_source_id"].tolist() == gaia["source_id"].tolist()
    assert new["TYPE"].tolist() == ["STAR"] * 3
    assert new["POS_ERR"].tolist() == [0.1] * 3
    assert new["note"].tolist() == [""] * 3
    assert new["Re"].isna().all()
    # mag 15 at zp 25 is 10**4 counts
    np.testing.assert_allclose(new["FLUX_g"], 1e4, rtol=1e-12)
    np.testing.assert_allclose(new["FLUX_r"], [1e3, np.nan, 10**3.6], rtol=1e-12)
    # at the epoch of the images: 5 arcsec, 10 pix east
    np.testing.assert_allclose(new["x_pix_white"], [190.0, 300.0, 320.0], atol=0.01)
    at = field.wcs.world_to_pixel_values(new["RA"], new["DEC"])
    np.testing.assert_allclose(at[0], new["x_pix_white"], atol=1e-6)
    # near saturation: there, but excluded
    assert new["excluded_saturation"].tolist() == new["excluded_any"].tolist() == [False, False, True]
    assert not new["excluded_crop"].any()
    assert not new["affected_by_bright_mask"].any()
    assert np.isnan(result.table["POS_ERR"][0])
    assert result.table.index.tolist() == [0, 1, 2, 3]


def test_injection_without_columns_it_needs_and_without_position_prior():
    field = field_of()
    sources = sources_of(field, [50.0], [50.0], has_id=False)
    result = augment(sources, gaia_of(field, [200.0], [100.0]), field, settings_of(gaia_pos_err_pix=None))
    assert "ID" not in result.table  # the key is (RA, DEC)
    assert not result.has_id
    assert "POS_ERR" not in result.table
    assert result.table["TYPE"].tolist() == ["", "STAR"]
    assert result.table["note"].tolist() == ["n", ""]


def test_only_missing_fluxes_are_filled():
    field = field_of()
    given = [np.nan, 7.0, -3.0, np.nan]
    sources = sources_of(field, [50, 100, 150, 200], [50] * 4, FLUX_g=given, FLUX_r=[np.nan] * 4)
    gaia = gaia_of(field, [50.0, 100.0, 150.0], [50.0] * 3)
    gaia["mag_r"] = [15.0, np.nan, 20.0]
    table = augment(sources, gaia, field, settings_of()).table
    np.testing.assert_allclose(table["FLUX_g"], [1e4, 7.0, -3.0, np.nan], rtol=1e-12)
    np.testing.assert_allclose(table["FLUX_r"], [1e4, np.nan, 100.0, np.nan], rtol=1e-12)


def test_two_rows_never_share_a_gaia_star():
    field = field_of()
    sources = sources_of(field, [100.0, 101.0, 104.0], [100.0] * 3)
    both = augment(sources, gaia_of(field, [101.2], [100.0]), field, settings_of())
    assert tags(both) == ["", "1", ""]
    # nearest pair first: star 1 takes row 1, so star 2, although nearer to it than to row 2, takes row 2
    shared = augment(sources, gaia_of(field, [101.1, 102.0], [100.0] * 2), field, settings_of())
    assert tags(shared) == ["", "1", "2"] or tags(shared) == ["2", "1", ""]


def test_a_galaxy_does_not_take_the_star_beside_it():
    """Types count (defect 13): the nearer row is a galaxy, the star is 2 arcsec away."""
    field = field_of()
    star = gaia_of(field, [100.0], [100.0])
    for kind in ("STAR", "", "GAL", "star", "?"):
        sources = sources_of(field, [100.4, 104.0], [100.0] * 2, TYPE=["exp", kind])
        assert tags(augment(sources, star, field, settings_of())) == ["", "1"]
    # a galaxy alone: the same object within half the radius, else the star is another one and is added
    near = sources_of(field, [102.0], [100.0], TYPE=["SERSIC"])
    assert tags(augment(near, star, field, settings_of())) == ["1"]
    far = sources_of(field, [104.0], [100.0], TYPE=["SERSIC"])
    assert tags(augment(far, star, field, settings_of())) == ["", "1"]


def test_magnitude_limits_frame_and_box_choose_the_stars():
    field = field_of()
    near = [False, False, True]
    sources = sources_of(field, [100.0, 110.0, 450.0], [100.0, 110.0, 350.0], excluded_saturation=near)
    # 1: in; 2 and 3: too bright, too faint; 4: no magnitude; 5: off the frame; 6: out of the box
    x = [120.0, 121.0, 122.0, 123.0, -5.0, 400.0]
    gaia = gaia_of(field, x, [100.0] * 6, g=[18.0, 7.9, 18.1, np.nan, 12.0, 12.0])
    result = augment(sources, gaia, field, settings_of(min_box_size_pix=100))
    assert tags(result) == ["", "", "", "1"]
    whole = augment(sources, gaia, field, settings_of(min_box_size_pix=3000))
    assert tags(whole) == ["", "", "", "1", "6"]


def test_no_gaia_star_leaves_the_catalogue_as_it_is(caplog):
    """Flags included (defect 16)."""
    field = field_of()
    sources = sources_of(field, [50.0, -10.0], [50.0, 3.0], excluded_saturation=[True, False])
    for gaia in (gaia_of(field, [], []), gaia_of(field, [5000.0], [50.0])):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "tract7dt"):
            result = augment(sources, gaia, field, settings_of())
        assert "no Gaia star of 8.0-18.0 mag on the frame" in caplog.text
        pd.testing.assert_frame_equal(result.table, sources.table)


def test_no_active_source_at_all():
    field = field_of()
    sources = sources_of(field, [50.0], [50.0], excluded_saturation=[True])
    assert tags(augment(sources, gaia_of(field, [50.0, 60.0], [50.0, 90.0]), field, settings_of())) == [
        "1",
        "2",
    ]


def test_an_identifier_that_is_taken_is_told():
    field = field_of()
    gaia = gaia_of(field, [100.0], [100.0])
    sources = sources_of(field, [300.0], [300.0])
    taken = dataclasses.replace(sources, table=sources.table.assign(ID="gaia_" + gaia["source_id"]))
    with pytest.raises(InputError, match="gaia_5000000000000000001; rename"):
        augment(taken, gaia, field, settings_of())
    # the same star given back as input is matched, not added again
    again = sources_of(field, [100.0], [100.0])
    again = dataclasses.replace(again, table=again.table.assign(ID="gaia_" + gaia["source_id"]))
    assert len(augment(again, gaia, field, settings_of())) == 1


def test_the_csv_keeps_texts_and_floats(tmp_path):
    field = field_of()
    sources = sources_of(field, [50.1, 80.0], [50.7, 90.0], TYPE=["STAR", ""], note=['say "a, b"', "007"])
    result = augment(sources, gaia_of(field, [50.0, 200.3], [50.0, 100.0]), field, settings_of())
    write_augmented_csv(result, tmp_path / "ZP" / "f_with_Gaia.csv")
    text = {"ID": str, "gaia_source_id": str, "note": str, "TYPE": str}
    back = pd.read_csv(
        tmp_path / "ZP" / "f_with_Gaia.csv", dtype=text, keep_default_na=False, na_values={"POS_ERR": ""}
    )
    assert list(back) == list(result.table)
    for name in ("ID", "TYPE", "note", "gaia_source_id", "RA", "x_pix_white", "excluded_any"):
        assert back[name].tolist() == result.table[name].tolist()


def test_a_real_field(shared):
    """Against astropy's nearest-neighbour match on SDSS stars: each star's own row, and one only."""
    folder = shared / "data" / "sdss_s82_small"
    catalogue = pd.read_csv(folder / "input_catalog.csv", dtype={"ID": str})
    field = field_of((600, 600), ("gA", "rA"), crval=(351.66, 0.16), crpix=(300.5, 300.5))
    x, y = field.wcs.world_to_pixel_values(catalogue["RA"], catalogue["DEC"])
    gaia = read_gaia(str(folder / "gaiaxp_synphot.csv"), field.bands, need_magnitudes=True)
    on_frame = field.box.contains(*field.wcs.world_to_pixel_values(gaia["ra"], gaia["dec"]))
    gaia = gaia[on_frame].reset_index(drop=True)
    assert len(gaia) > 5
    sources = sources_of(field, x, y, TYPE=catalogue["TYPE"].tolist())
    result = augment(sources, gaia, field, settings_of(gaia_mag_max=30.0, gaia_mag_min=0.0))
    rows = SkyCoord(sources.table["RA"].to_numpy() * u.deg, sources.table["DEC"].to_numpy() * u.deg)
    stars = SkyCoord(gaia["ra"].to_numpy() * u.deg, gaia["dec"].to_numpy() * u.deg)
    nearest, apart, _ = stars.match_to_catalog_sky(rows)
    assert (apart.arcsec < 0.1).all()
    tagged = result.table["gaia_source_id"][: len(sources)]
    assert tagged[tagged != ""].is_unique
    for star, source_id in enumerate(gaia["source_id"]):
        # some stars are twice in this catalogue: either row will do, but not both
        row = int(np.flatnonzero(tagged == source_id)[0])
        assert rows[row].separation(rows[nearest[star]]).arcsec < 1e-6
        assert catalogue["TYPE"][row] == "STAR"
    assert len(result) == len(sources)
