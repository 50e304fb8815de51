"""Reading a configuration: paths, legacy keys, defaults, every rule of the contract."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tract7dt.errors import ConfigError
from tract7dt.settings import (
    EpsfSettings,
    Settings,
    apply_overrides,
    differences_from_default,
    key_table,
    load_settings,
    parse_overrides,
    settings_digest,
    settings_from_dict,
)

MINIMAL: dict[str, Any] = {
    "inputs": {"input_catalog": "cat.csv", "image_list_file": "images.txt", "gaiaxp_synphot_csv": "gaia.csv"},
    "outputs": {"work_dir": "run"},
}

# Every key of 0.7, as a user of it would write them; values differ from the defaults where a key allows it.
OF_0_7 = """
inputs:
  tile_name: "T01462"
  input_catalog: "input/cat.csv"
  image_list_file: "input/images.txt"
  gaiaxp_synphot_csv: "/data/gaia/T01462.csv"
outputs:
  work_dir: "results"
  cropped_images_dir: "crop"
  overlay_dir: "ov"
  epsf_dir: "PSF"
  patches_dir: "/scratch/patches"
  patch_inputs_dir: "in"
  tractor_out_dir: "out"
  final_catalog: "final/cat.csv"
image_scaling: {zp_ref: 23}
crop:
  enabled: no
  margin: 250
  plot_pre_crop: false
  plot_post_crop: false
  display_downsample: 2
  post_crop_display_downsample: 8
overlay: {enabled: false, downsample_full: 8, zoom_enabled: false, zoom_box: [0, 10, -5, 20]}
checks:
  require_wcs_alignment: false
  wcs_tolerance: {crval: 1e-5, crpix: 0.01, cd: 1.0e-8, cdelt: 1e-08}
  require_same_shape: false
source_saturation_cut: {enabled: false, radius_pix: 12, require_all_bands: true, saturation_divisor: 1}
bright_mask:
  enabled: false
  thresh_sigma: 4
  minarea: 12
  deblend_nthresh: 64
  deblend_cont: 1e-3
  clean: false
  clean_param: 2
  match_radius_pix: 4
  ellipse_scale: 2
  min_radius_pix: 0
  dilate_pix: 0
logging: {ignore_warnings: false, level: debug, file: "logs/a.log", format: "%(message)s"}
plotting: {dpi: 100}
performance: {frame_prep_workers: 4, white_stack_workers: AUTO}
epsf:
  use_gaiaxp: false
  epsf_ngrid: 3
  ngrid: 2
  skip_empty_epsf_patches: false
  thresh_sigma: 8
  minarea: 9
  cutout_size: 41
  edge_pad: 0
  min_sep: 20
  max_stars: 10
  q_range: [1, 2]
  psfstar_mode: SEP
  gaia_mag_min: 12
  gaia_mag_max: 17.5
  gaia_snap_to_sep: false
  gaia_forced_k_fwhm: 2
  gaia_forced_rmin_pix: 5
  gaia_forced_rmax_pix: 5
  gaia_snr_min: 10
  gaia_match_r_pix: 2
  gaia_seed_sat_r: 5
  gaia_seed_sat_div: 1.4
  star_sat_check_r: 0
  oversamp: 2
  maxiters: 5
  do_clip: false
  recenter_boxsize: 5
  final_psf_size: 51
  save_star_montage_max: 0
  background_subtract_patch: false
  background_boxsize: 64
  background_filtersize: 3
  background_source_mask_sigma: 2
  background_mask_dilate: 0
  star_local_bkg_subtract: false
  star_local_bkg_annulus_rin_pix: 10
  star_local_bkg_annulus_rout_pix: 25
  star_local_bkg_sigma: 2.5
  star_local_bkg_minpix: 5
  save_patch_background_diagnostics: false
  save_star_local_background_diagnostics: false
  diagnostics_show_colorbar: false
  save_growth_curve: false
  save_residual_diagnostics: false
  residual_diag_max_stars: 3
  parallel_bands: false
  max_workers: 2
patches: {halo_pix_min: 30}
patch_inputs:
  save_patch_inputs: false
  skip_empty_patch: false
  include_wcs_in_payload: true
  max_workers: 2
  gzip_compresslevel: 0
  keep_payloads_in_memory: true
patch_run:
  enable_multi_band_simultaneous_fitting: false
  python_exe: "/opt/python"
  resume: true
  max_workers: 32
  threads_per_process: 2
  gal_model: "dev"
  n_opt_iters: 40
  dlnp_stop: 1e-6
  r_ap: 4
  eps_flux: 1e-3
  sersic_n_init: 2
  re_fallback_pix: 2
  psf_model: hybrid
  psf_fallback_model: ncircular_gaussian
  min_epsf_nstars_for_use: 5
  ncircular_gaussian_n: 2
  hybrid_psf_n: 4
  gaussian_mixture_n: 3
  fallback_default_fwhm_pix: 3
  fallback_stamp_radius_pix: 20
  cutout_size: 50
  cutout_max_sources: 7
  cutout_start: 2
  cutout_data_p_lo: 5
  cutout_data_p_hi: 95.5
  cutout_model_p_lo: 2
  cutout_model_p_hi: 98
  cutout_resid_p_abs: 90
  no_cutouts: true
  no_patch_overview: true
  flag_maxiter_margin: 2
  pos_max_shift_pix: null
  enable_staged_fit: false
moffat_psf: {fwhm_default_pix: 4.0, beta: 2.5, radius_pix: 15, module_path: null}
merge: {pattern: "*.csv"}
zp:
  enabled: false
  inject_gaia_sources: false
  gaia_mag_min: 4
  gaia_mag_max: 28.0
  match_radius_arcsec: 2
  min_box_size_pix: 6000
  clip_sigma: 2
  clip_max_iters: 3
  gaia_pos_err_pix: null
  plot_mag_lo: 12
  plot_mag_hi: 19
  plot_zp_offset: 1
  zp_err_method: bright_std
  zp_err_snr_min: 50
"""
NEW_SECTIONS = ("runtime", "night", "publish", "retention", "watch", "report")
NEW_KEYS = ("patch_run.engine", "patch_run.noise_model", "patch_run.remove_payloads", "epsf.spatial")


def load(tmp_path: Path, text: str) -> Settings:
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    return load_settings(tmp_path / "c.yaml").settings


def with_key(path: str, value: Any) -> dict[str, Any]:
    values = copy.deepcopy(MINIMAL)
    part = values
    *sections, name = path.split(".")
    for section in sections:
        part = part.setdefault(section, {})
    part[name] = value
    return values


def test_a_configuration_with_every_key_of_0_7_loads_unchanged(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(OF_0_7)
    loaded = load_settings(tmp_path / "c.yaml")
    given = yaml.safe_load(OF_0_7)
    dumped = loaded.settings.model_dump(mode="json")
    old_keys = [k for k in key_table() if k.split(".")[0] not in NEW_SECTIONS and k not in NEW_KEYS]
    for path in old_keys:  # the text above holds every key, so each must arrive
        want, got = given, dumped
        for name in path.split("."):
            want, got = want[name], got[name]
        if path.startswith(("inputs.", "outputs.")) or path == "logging.file":
            continue
        want = float(want) if isinstance(got, float) else want
        assert got == (want.lower() if path != "logging.level" and isinstance(want, str) else want) or (
            path == "logging.level" and got == "DEBUG"
        ), path
    assert len(old_keys) == 150
    assert loaded.source == OF_0_7
    legacy = [w for w in loaded.warnings if "no longer does anything" in w]
    assert sorted(w.split()[0] for w in legacy) == [
        "epsf.gaia_seed_sat_div",
        "epsf.gaia_seed_sat_r",
        "moffat_psf.fwhm_default_pix",
        "moffat_psf.module_path",
        "patch_inputs.include_wcs_in_payload",
        "patch_inputs.keep_payloads_in_memory",
        "patch_run.python_exe",
    ]
    assert any("final_psf_size (51) is larger than epsf.cutout_size (41)" in w for w in loaded.warnings)


def test_the_sample_configuration_of_0_7_loads_but_for_its_paths(tmp_path: Path) -> None:
    place = os.environ.get("TRACT7DT_07_SAMPLE_CONFIG")
    if not place:
        pytest.skip("TRACT7DT_07_SAMPLE_CONFIG does not name the sample_config.yaml of tract7dt 0.7")
    loaded = load_settings(place)
    changed = set(differences_from_default(loaded.settings))
    assert changed == {
        "inputs.gaiaxp_synphot_csv",
        "patch_run.max_workers",
        "zp.gaia_mag_min",
        "zp.gaia_mag_max",
        "zp.min_box_size_pix",
    }


def test_defaults_are_those_of_the_contract(shared: Path) -> None:
    """The table of the specification, read here, against the models."""
    rows = {}
    for line in (shared / "spec" / "config.md").read_text().splitlines():
        cells = [c.strip() for c in line.replace("\\|", "\0").strip("|").split("|")]
        if line.startswith("| ") and "." in cells[0] and len(cells) == 5:
            rows[cells[0]] = (cells[2].replace("\0", "|"), cells[3])
    checked = 0
    for path, info in key_table().items():
        if path not in rows:
            continue
        default, unit = rows[path]
        if default == "(required)":
            assert info.required, path
        elif isinstance(info.default, str):
            assert info.default == default.strip("`"), path
        else:
            want = yaml.safe_load(default)
            want = float(want) if isinstance(info.default, float) else want
            assert info.default == want, path
        if unit and unit not in ("pix / -",):
            assert info.unit == unit, path
        checked += 1
    assert checked > 90
    combined = [k for k in rows if k not in key_table()]  # rows of several keys, "a, b" or "a / b"
    assert all("," in k or "/" in k for k in combined), combined


def test_paths_are_relative_to_the_file_and_to_work_dir(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    settings = load(
        tmp_path,
        """
inputs: {input_catalog: ../a/./cat.csv, image_list_file: ~/images.txt, gaiaxp_synphot_csv: "s3://b/g.csv"}
outputs: {work_dir: run, epsf_dir: E, final_catalog: /abs/cat.csv, overlay_dir: ~/ov}
logging: {file: logs/x.log}
""",
    )
    assert settings.inputs.input_catalog == str(tmp_path.parent / "a" / "cat.csv")
    assert settings.inputs.image_list_file == str(tmp_path / "home" / "images.txt")
    assert settings.inputs.gaiaxp_synphot_csv == "s3://b/g.csv"
    assert settings.outputs.work_dir == tmp_path / "run"
    assert settings.outputs.epsf_dir == tmp_path / "run" / "E"
    assert settings.outputs.patches_dir == tmp_path / "run" / "patches"
    assert settings.outputs.final_catalog == Path("/abs/cat.csv")
    assert settings.outputs.overlay_dir == tmp_path / "home" / "ov"
    assert settings.logging.file == tmp_path / "run" / "logs" / "x.log"


def test_paths_do_not_depend_on_the_working_folder(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(MINIMAL))
    absolute = load_settings(tmp_path / "c.yaml").settings
    monkeypatch.chdir(tmp_path)
    assert load_settings("c.yaml").settings == absolute
    assert settings_from_dict(MINIMAL, ".").settings == absolute


@pytest.mark.parametrize(
    ("path", "value", "taken"),
    [
        ("patch_run.dlnp_stop", "1e-12", 1e-12),
        ("patch_run.dlnp_stop", 0, 0.0),
        ("image_scaling.zp_ref", -3, -3.0),
        ("patch_run.max_workers", "auto", "auto"),
        ("patch_run.max_workers", 7, 7),
        ("patch_run.pos_max_shift_pix", None, None),
        ("patch_run.cutout_max_sources", None, None),
        ("patch_run.psf_model", "Pixelized", "pixelized"),
        ("logging.level", "warning", "WARNING"),
        ("logging.file", None, None),
        ("logging.file", "auto", "auto"),
        ("runtime.cluster", {"n_workers": 2}, {"n_workers": 2}),
        ("publish.url", "file:///data/out", "file:///data/out"),
        ("publish.endpoint_url", "http://localhost:9000", "http://localhost:9000"),
        ("epsf.q_range", [0.5, 2], (0.5, 2.0)),
        ("overlay.zoom_box", [0, 1, 2, 3], (0, 1, 2, 3)),
    ],
)
def test_values_that_are_accepted(path: str, value: Any, taken: Any) -> None:
    part: Any = settings_from_dict(with_key(path, value), ".").settings
    for name in path.split("."):
        part = getattr(part, name)
    assert part == taken
    assert type(part) is type(taken)


def test_settings_are_frozen_and_survive_pickling() -> None:
    settings = settings_from_dict(MINIMAL, ".").settings
    assert pickle.loads(pickle.dumps(settings)) == settings
    with pytest.raises(ValueError, match="frozen"):
        settings.epsf.max_stars = 3  # type: ignore[misc]
    assert EpsfSettings().max_stars == 30
    assert EpsfSettings(max_stars=5).max_stars == 5


def test_overrides_replace_keys_and_outputs_follow_work_dir(tmp_path: Path) -> None:
    settings = settings_from_dict(with_key("outputs.epsf_dir", "E"), tmp_path).settings
    changed = apply_overrides(
        settings,
        {
            "zp.clip_sigma": 2.5,
            "checks.wcs_tolerance.cd": "1e-7",
            "outputs.work_dir": "other",
            "epsf": {"max_stars": 5, "ngrid": 2},
            "runtime.cluster.n_workers": 2,
            "inputs.input_catalog": "s3://b/c.parquet",
        },
        tmp_path,
    )
    assert changed.zp.clip_sigma == 2.5
    assert changed.checks.wcs_tolerance.cd == 1e-7
    assert (changed.epsf.max_stars, changed.epsf.ngrid) == (5, 2)
    assert changed.runtime.cluster == {"n_workers": 2}
    assert changed.outputs.work_dir == tmp_path / "other"
    assert changed.outputs.epsf_dir == tmp_path / "other" / "E"
    assert changed.inputs.input_catalog == "s3://b/c.parquet"
    assert changed.inputs.image_list_file == settings.inputs.image_list_file
    assert settings.zp.clip_sigma == 3.0
    assert apply_overrides(settings, {}) == settings


def test_wrong_overrides_are_all_reported(tmp_path: Path, caplog: Any) -> None:
    settings = settings_from_dict(MINIMAL, tmp_path).settings
    wrong = {"zp.clip_sgma": 2, "epsf.max_stars": 0, "nosuch.key": 1, "zp.gaia_mag_max": 5, "epsf.ngrid.x": 1}
    with pytest.raises(ConfigError) as caught:
        apply_overrides(settings, wrong)
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert all(line.startswith("overrides: ") for line in lines)
    assert "overrides: zp.clip_sgma: unknown key; the closest known key is zp.clip_sigma" in lines
    assert any("epsf.max_stars: 0 given; allowed: whole number >= 1" in line for line in lines)
    assert any("zp.gaia_mag_min: 8.0 given; must be below zp.gaia_mag_max (5)" in line for line in lines)
    apply_overrides(settings, {"patch_run.python_exe": "x"})
    assert "patch_run.python_exe no longer does anything" in caplog.text


def test_overrides_as_text() -> None:
    given = parse_overrides(["zp.clip_sigma=2.5", "epsf.q_range=[0.5, 2]", "logging.file=null", "a.b=c=d"])
    assert given == {"zp.clip_sigma": 2.5, "epsf.q_range": [0.5, 2], "logging.file": None, "a.b": "c=d"}
    with pytest.raises(ConfigError, match="not of the form"):
        parse_overrides(["zp.clip_sigma"])
    with pytest.raises(ConfigError, match=r"zp\.x: the value '\[' is not valid YAML"):
        parse_overrides(["zp.x=["])
    for text in ("&a {b: *a}", "&a {b: {c: *a}}", "[" * 1500):
        with pytest.raises(ConfigError, match=r"zp\.x: the value .* is not valid YAML"):
            parse_overrides([f"zp.x={text}"])


def test_digest_follows_the_chosen_sections_only() -> None:
    one = settings_from_dict(MINIMAL, ".").settings
    two = apply_overrides(one, {"zp.clip_sigma": 2.5})
    assert settings_digest(one, ["epsf", "patch_run"]) == settings_digest(two, ["patch_run", "epsf"])
    assert settings_digest(one, ["zp"]) != settings_digest(two, ["zp"])
    assert settings_digest(one, ["zp.clip_max_iters"]) == settings_digest(two, ["zp.clip_max_iters"])
    assert settings_digest(one, ["epsf"]) != settings_digest(one, ["patch_run"])
    with pytest.raises(KeyError, match="no section or key"):
        settings_digest(one, ["nosuch"])


def test_differences_from_default() -> None:
    settings = settings_from_dict(MINIMAL, ".").settings
    assert set(differences_from_default(settings)) == {"inputs.gaiaxp_synphot_csv"}
    settings = apply_overrides(settings, {"zp.clip_sigma": 2.5, "outputs.epsf_dir": "E"})
    found = differences_from_default(settings)
    assert found["zp.clip_sigma"] == (2.5, 3.0)
    assert found["outputs.epsf_dir"] == ("E", "EPSFs")


def test_importing_the_settings_is_light() -> None:
    heavy = ["numpy", "pandas", "astropy", "scipy", "matplotlib", "prefect", "photutils", "numba"]
    code = f"import sys, tract7dt.settings; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
