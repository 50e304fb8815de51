"""Column definitions and flags."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units

from tract7dt import flags, schema

# Written out by hand from the output contract, not from the code.
CONTRACT_TEXT = """
excluded_crop excluded_saturation excluded_any excluded_reason affected_by_bright_mask gaia_source_id
x_pix_white y_pix_white x_pix_patch y_pix_patch x_pix_patch_fit y_pix_patch_fit x_pix_white_fit
y_pix_white_fit RA_fit DEC_fit FLUX_g_fit FLUXERR_g_fit FLUX_r_fit FLUXERR_r_fit stype_fit sersic_n_fit
re_pix_fit Re_fit ab_fit phi_deg_fit ELL_fit THETA_fit opt_converged opt_hit_max_iters opt_niters
opt_last_dlnp flag_bound_stalled flag_bound_stalled_which_parameter patch_tag epsf_tag
psf_min_epsf_nstars_for_use psf_used_epsf_band_count psf_fallback_band_count psf_low_star_band_count
psf_fallback_bands psf_low_star_bands psf_frozen_bands_for_optimizer psf_fallback_reasons_json
fit_is_reliable fit_quality_issues MAG_g_fit MAGERR_g_fit MAG_r_fit MAGERR_r_fit x_pix_fit_err
y_pix_fit_err RA_fit_err DEC_fit_err Re_fit_err ELL_fit_err THETA_fit_err sersic_n_fit_err CHI2_g_fit
FRACMASKED_g FRACFLUX_g SKY_g_fit CHI2_r_fit FRACMASKED_r FRACFLUX_r SKY_r_fit
"""

SINGLE_TEXT = """
x_pix_white_g_fit y_pix_patch_r_fit RA_g_fit DEC_r_fit RA_g_fit_err Re_g_fit Re_g_fit_err ELL_r_fit
THETA_g_fit sersic_n_r_fit_err re_pix_g_fit ab_g_fit phi_deg_g_fit opt_converged_g opt_niters_r
flag_bound_stalled_g flag_bound_stalled_which_parameter_r x_pix_g_fit_err stype_fit patch_tag FLUX_g_fit
fit_is_reliable fit_is_reliable_g
"""


def test_every_column_of_the_contract_is_defined():
    assert set(CONTRACT_TEXT.split()) <= {c.name for c in schema.expand(["g", "r"], False)}


def test_in_single_band_mode_every_fitted_column_but_the_type_carries_the_band():
    names = {c.name for c in schema.expand(["g", "r"], True)}
    assert set(SINGLE_TEXT.split()) <= names
    lost = {"x_pix_white_fit", "RA_fit", "Re_fit", "opt_converged", "flag_bound_stalled", "x_pix_fit_err"}
    assert not lost & names


@pytest.mark.parametrize("single", [False, True])
def test_names_are_unique_and_units_are_fits_units(single):
    columns = schema.expand(["m400", "m425"], single)
    names = [c.name for c in columns]
    assert len(set(names)) == len(names)
    assert not [n for n in names if "{" in n]
    for column in columns:
        assert column.text.endswith(".")
        assert "{band}" not in column.text
        if column.unit:
            units.Unit(column.unit, format="fits", parse_strict="raise")
            units.Unit(column.unit, format="vounit", parse_strict="raise")


def test_bands_and_mode_are_seen_from_the_columns():
    for single in (False, True):
        names = [c.name for c in schema.expand(["a_b", "fit"], single)]
        assert schema.bands_of(names) == ("a_b", "fit")
        assert schema.is_single_band(names) is single


def test_describe_knows_columns_of_both_modes_only():
    assert schema.describe("RA_fit_err", ["g"]).unit == "arcsec"
    assert schema.describe("RA_g_fit_err", ["g"]).unit == "arcsec"
    assert "band g" in schema.describe("RA_g_fit_err", ["g"]).text
    assert schema.describe("RA_r_fit_err", ["g"]) is None
    assert schema.describe("B_V", ["g"]) is None


def test_bands_that_clash_are_refused():
    with pytest.raises(ValueError, match="FLUX_g_ERR"):
        schema.expand(["g", "g_ERR"], False)


def test_docs_list_every_column_and_flag():
    page = schema.columns_markdown()
    for column in schema.COLUMNS:
        assert f"`{column.name.replace('{set}', '')}`" in page
    text = flags.flags_markdown()
    assert all(f"`{q.name}`" in text for q in (*flags.QUALITY_ISSUES, *flags.EXCLUSION_REASONS))


def test_hard_and_soft_issues_are_those_of_the_contract():
    hard = {q.name for q in flags.QUALITY_ISSUES if q.hard}
    soft = {q.name for q in flags.QUALITY_ISSUES if not q.hard}
    assert hard == {
        "excluded",
        "no_fit_result",
        "hit_max_iters",
        "bound_stalled",
        "bright_mask",
        "patch_failed",
        "patch_not_fitted",
    }
    assert soft == {"not_converged", "all_psf_fallback"}


def test_excluded_reason():
    reason = flags.excluded_reason(np.array([0, 1, 0, 1], bool), np.array([0, 0, 1, 1], bool))
    assert reason.tolist() == ["", "crop", "saturation", "crop+saturation"]
    assert flags.excluded_reason(np.zeros(0, bool), np.zeros(0, bool)).tolist() == []


def test_reliability_against_row_by_row():
    rng = np.random.default_rng(1)
    issues = {q.name: rng.random(300) < 0.2 for q in flags.QUALITY_ISSUES}
    reliable, text = flags.reliability(issues)
    for i in range(300):
        mine = [q for q in flags.QUALITY_ISSUES if issues[q.name][i]]
        assert text[i] == ",".join(q.name for q in mine)
        assert reliable[i] == (not any(q.hard for q in mine))
    with pytest.raises(ValueError, match="expected the issues"):
        flags.reliability({"excluded": np.zeros(3, bool)})
