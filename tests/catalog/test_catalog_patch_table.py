"""Per-patch catalogues."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_catalog import make_audit, make_fit, make_payload, make_sources

from tract7dt.catalog import patch_table, read_patch_catalog, write_patch_catalog
from tract7dt.errors import ProductError
from tract7dt.types import ModelKind


@pytest.fixture
def payload():
    return make_payload(make_sources(), rows=[4, 5, 6, 7], halo=[8, 9])


def test_only_base_sources_with_their_numbers(payload):
    fit = make_fit(payload)
    table = patch_table(payload, fit, make_audit())
    assert table["source_index"].tolist() == [4, 5, 6, 7]
    assert table["ID"].tolist() == ["00004", "00005", "00006", "00007"]
    assert table["stype_fit"].tolist() == ["star", "exp", "dev", "sersic"]
    np.testing.assert_array_equal(table["FLUX_r_fit"], fit.flux[1, :4])
    np.testing.assert_array_equal(table["x_pix_white_fit"], fit.x[0, :4] + 10)
    np.testing.assert_array_equal(table["y_pix_white_fit"], fit.y[0, :4] + 15)
    np.testing.assert_array_equal(table["SKY_g_fit"], np.full(4, fit.sky[0]))
    assert table["patch_tag"].unique().tolist() == ["r00_c00_pr00_pc00"]
    assert table["epsf_tag"].unique().tolist() == ["r00_c00"]


def test_shapes_follow_the_model(payload):
    fit = make_fit(payload)
    table = patch_table(payload, fit, make_audit())
    shape = ["Re_fit", "re_pix_fit", "ELL_fit", "ab_fit", "THETA_fit", "phi_deg_fit", "sersic_n_fit"]
    errors = ["Re_fit_err", "ELL_fit_err", "THETA_fit_err", "sersic_n_fit_err"]
    assert table.loc[0, [*shape, *errors]].isna().all()
    assert table.loc[1:, shape].notna().all(axis=None)
    assert table.loc[1:, "sersic_n_fit"].tolist() == [1.0, 4.0, fit.sersic_n[0, 3]]
    assert table["sersic_n_fit_err"].notna().tolist() == [False, False, False, True]
    np.testing.assert_array_equal(table["re_pix_fit"], table["Re_fit"])
    np.testing.assert_array_equal(table["ab_fit"], 1 - table["ELL_fit"])


@given(st.floats(-1000, 1000))
def test_angles_name_one_direction(theta):
    payload = make_payload(make_sources(), rows=[5])
    fit = make_fit(payload, theta=np.array([[theta]]))
    row = patch_table(payload, fit, make_audit()).iloc[0]
    assert -90 <= row["THETA_fit"] < 90
    assert 0 <= row["phi_deg_fit"] < 180
    # The same line on the image: from +x at THETA, and from +y at phi.
    t, p, given_angle = np.deg2rad([row["THETA_fit"], row["phi_deg_fit"], theta])
    line = np.array([np.cos(t), np.sin(t)])
    assert abs(abs(line @ [-np.sin(p), np.cos(p)]) - 1) < 1e-12
    assert abs(abs(line @ [np.cos(given_angle), np.sin(given_angle)]) - 1) < 1e-12


def test_known_angles():
    payload = make_payload(make_sources(), rows=[5, 9])
    for theta, phi in ((0, 90), (45, 135), (-45, 45), (-90, 0), (89, 179)):
        fit = make_fit(payload, theta=np.full((1, 2), float(theta)))
        assert patch_table(payload, fit, make_audit())["phi_deg_fit"].tolist() == [phi, phi]


def test_audit_columns(payload):
    row = patch_table(payload, make_fit(payload), make_audit(fallback=("r",))).iloc[0]
    assert row["psf_used_epsf_band_count"] == 1
    assert row["psf_fallback_band_count"] == 1
    assert row["psf_fallback_bands"] == "r"
    assert json.loads(row["psf_fallback_reasons_json"]) == {"r": "no ePSF in this cell"}
    assert row["psf_frozen_bands_for_optimizer"] == ""
    mixture = make_audit(mixtures=("r", "g"))
    assert patch_table(payload, make_fit(payload), mixture)["psf_frozen_bands_for_optimizer"].iloc[0] == "g,r"


def test_bound_is_not_stall(payload):
    n = len(payload.table)
    fit = make_fit(
        payload,
        bound=(("", "pos.x@upper,shape.logre@lower", *[""] * (n - 2)),),
        stalled=np.arange(n)[None] == 2,
        converged=np.arange(n)[None] != 2,
    )
    table = patch_table(payload, fit, make_audit())
    assert table["flag_bound_stalled"].tolist() == [False, True, False, False]
    assert table["flag_bound_stalled_which_parameter"][1] == "pos.x@upper,shape.logre@lower"
    assert table["opt_stalled"].tolist() == [False, False, True, False]


def test_single_band_columns_hold_their_own_set(payload):
    fit = make_fit(payload, single_band=True)
    table = patch_table(payload, fit, make_audit())
    for i, band in enumerate(("g", "r")):
        np.testing.assert_array_equal(table[f"x_pix_patch_{band}_fit"], fit.x[i, :4])
        np.testing.assert_array_equal(table[f"Re_{band}_fit"][1:], fit.re[i, 1:4])
    assert "x_pix_white_fit" not in table
    assert table.columns.tolist().count("stype_fit") == 1


def test_a_fit_of_another_payload_is_refused(payload):
    fit = make_fit(payload)
    with pytest.raises(ProductError, match="patch: payload 'r00_c00_pr00_pc00', fit 'other'"):
        patch_table(payload, replace(fit, tag="other"), make_audit())
    other = make_payload(make_sources(), rows=[4, 5])
    with pytest.raises(ProductError, match="number of sources: payload 2, fit 6"):
        patch_table(other, fit, make_audit())


ODD_FLOATS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([np.nextafter(1, 2), 0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, 1 / 3]),
)


@settings(max_examples=60, deadline=None)
@given(
    flux=st.lists(ODD_FLOATS, min_size=8, max_size=8),
    ids=st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
        min_size=4,
        max_size=4,
        unique=True,
    ),
    single=st.booleans(),
)
def test_csv_reads_back_bit_for_bit(tmp_path_factory, flux, ids, single):
    payload = make_payload(make_sources(), rows=[4, 5, 6, 7])
    payload.table["ID"] = ids
    fit = make_fit(payload, single, flux=np.array(flux).reshape(2, 4))
    table = patch_table(payload, fit, make_audit(fallback=("g",)))
    path = tmp_path_factory.mktemp("csv") / "x_cat_fit.csv"
    write_patch_catalog(table, path)
    back = read_patch_catalog(path)
    pd.testing.assert_frame_equal(back, table, check_exact=True)
    for name in table.select_dtypes("float64"):
        a, b = table[name].to_numpy(), back[name].to_numpy()
        both_nan = np.isnan(a) & np.isnan(b)
        np.testing.assert_array_equal(a.view(np.int64)[~both_nan], b.view(np.int64)[~both_nan])


@pytest.mark.parametrize(
    "name", ["00019", "NA", "nan", "", "null", "True", "1e5", "a,b", 'a"b', "a\nb", "a\r\nb", " a "]
)
def test_names_are_kept_to_the_character(tmp_path, name):
    payload = make_payload(make_sources(), rows=[4, 5])
    payload.table["ID"] = [name, "other"]
    table = patch_table(payload, make_fit(payload), make_audit())
    write_patch_catalog(table, tmp_path / "a.csv")
    assert read_patch_catalog(tmp_path / "a.csv")["ID"].tolist() == [name, "other"]


def test_booleans_are_words_and_integers_have_no_point(tmp_path, payload):
    path = tmp_path / "a.csv"
    write_patch_catalog(patch_table(payload, make_fit(payload), make_audit()), path)
    raw = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert set(raw["opt_converged"]) == {"True"}
    assert set(raw["opt_niters"]) == {"7"}


def test_an_empty_patch_round_trips(tmp_path):
    payload = make_payload(make_sources(), rows=[], halo=[4])
    table = patch_table(payload, make_fit(payload), make_audit())
    write_patch_catalog(table, tmp_path / "a.csv")
    pd.testing.assert_frame_equal(read_patch_catalog(tmp_path / "a.csv"), table)
    assert len(table) == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: "", "not a catalogue"),
        (lambda t: t.replace("FLUX_g_fit", "Flux_g_fit"), "lacks"),
        (lambda t: t.replace("FLUXERR_", "FLX_"), "not a patch catalogue"),
        (lambda t: t.replace("True", "yes"), "not a catalogue"),
        (lambda t: t.replace(",star,", ",star,oops", 1), "not a catalogue"),
        (lambda t: t.replace("source_index", "nothing"), "lacks the columns"),
    ],
)
def test_damaged_files_are_named(tmp_path, payload, damage, message):
    path = tmp_path / "a.csv"
    write_patch_catalog(patch_table(payload, make_fit(payload), make_audit()), path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(ProductError, match=message) as caught:
        read_patch_catalog(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ProductError, match="not found"):
        read_patch_catalog(tmp_path / "none.csv")


def test_a_further_column_is_tolerated(tmp_path, payload):
    table = patch_table(payload, make_fit(payload), make_audit()).assign(later="00x")
    write_patch_catalog(table, tmp_path / "a.csv")
    assert read_patch_catalog(tmp_path / "a.csv")["later"].tolist() == ["00x"] * 4


def test_kinds_have_the_names_of_the_contract():
    assert [k.name.lower() for k in ModelKind] == ["star", "exp", "dev", "sersic"]
