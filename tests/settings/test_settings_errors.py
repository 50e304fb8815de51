"""Problems are told completely: file, line, path, what was given, what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tract7dt.errors import ConfigError
from tract7dt.settings import load_settings, settings_from_dict

HEAD = "inputs: {input_catalog: a, image_list_file: b, gaiaxp_synphot_csv: c}\noutputs: {work_dir: w}\n"


def errors_of(tmp_path: Path, text: str | bytes) -> list[str]:
    file = tmp_path / "c.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        load_settings(file)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{file}:") for line in lines), lines
    return [line.removeprefix(str(file)) for line in lines]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epsf: {max_star: 3}", ":3: epsf.max_star: unknown key; the closest known key is epsf.max_stars"),
        ("max_stars: 3", ":3: max_stars: unknown key; the closest known key is epsf.max_stars"),
        ("espf: {}", ":3: espf: unknown key; the closest known key is epsf"),
        (
            "checks: {wcs_tolerance: {crvall: 1}}",
            ":3: checks.wcs_tolerance.crvall: unknown key; the closest known key is "
            "checks.wcs_tolerance.crval",
        ),
        ("epsf: {max_stars: true}", ":3: epsf.max_stars: true given; allowed: whole number >= 1"),
        (
            "epsf: {max_stars: '5'}",
            ":3: epsf.max_stars: '5' given; allowed: whole number >= 1 (in quotes it is text, not a number)",
        ),
        ("epsf: {max_stars: 5.0}", ":3: epsf.max_stars: 5.0 given; allowed: whole number >= 1"),
        ("epsf: {do_clip: 1}", ":3: epsf.do_clip: 1 given; allowed: true or false"),
        ("epsf: {min_sep: true}", ":3: epsf.min_sep: true given; allowed: number >= 0"),
        (
            "epsf: {min_sep: '30'}",
            ":3: epsf.min_sep: '30' given; allowed: number >= 0 (in quotes it is text, not a number)",
        ),
        ("epsf: {min_sep: .nan}", ":3: epsf.min_sep: .nan given; allowed: number >= 0"),
        (
            "epsf: {final_psf_size: 54}",
            ":3: epsf.final_psf_size: 54 given; allowed: odd whole number >= 3 (must be odd)",
        ),
        (
            "epsf: {max_workers: many}",
            ":3: epsf.max_workers: 'many' given; allowed: whole number >= 1 or auto",
        ),
        ("epsf: {max_workers: 0}", ":3: epsf.max_workers: 0 given; allowed: whole number >= 1 or auto"),
        ("epsf: {max_stars: }", ":3: epsf.max_stars: null given; allowed: whole number >= 1"),
        (
            "epsf: {q_range: [1.3, 0.7]}",
            ":3: epsf.q_range: [1.3, 0.7] given; allowed: list of 2 numbers > 0 (each pair must rise)",
        ),
        ("epsf: {q_range: [1]}", ":3: epsf.q_range: [1] given; allowed: list of 2 numbers > 0"),
        (
            "overlay: {zoom_box: [0, 1, 3, 3]}",
            "overlay.zoom_box: [0, 1, 3, 3] given; allowed: list of 4 whole numbers (each pair must rise)",
        ),
        ("patch_inputs: {gzip_compresslevel: 10}", "allowed: whole number from 0 to 9"),
        ("patch_run: {gal_model: gal}", "'gal' given; allowed: dev, exp, sersic or star"),
        ("patch_run: {ncircular_gaussian_n: 4}", "4 given; allowed: 1, 2 or 3"),
        ("patch_run: {ncircular_gaussian_n: true}", "true given; allowed: 1, 2 or 3"),
        ("patch_run: {cutout_data_p_hi: 101}", "101 given; allowed: number from 0 to 100"),
        ("moffat_psf: {beta: 1}", "moffat_psf.beta: 1 given; allowed: number > 1"),
        (
            "zp: {gaia_mag_min: 18, gaia_mag_max: 17}",
            ":3: zp.gaia_mag_min: 18 given; must be below zp.gaia_mag_max (17)",
        ),
        (
            "zp: {gaia_mag_max: 7}",
            ":3: zp.gaia_mag_max: 7 given; must be above zp.gaia_mag_min (8.0, the default)",
        ),
        (
            "patch_run: {cutout_model_p_lo: 99}",
            "99 given; must be below patch_run.cutout_model_p_hi (99.0, the default)",
        ),
        ("epsf: {star_local_bkg_annulus_rin_pix: 30}", "must be below epsf.star_local_bkg_annulus_rout_pix"),
        ("crop:", ":3: crop: null given; allowed: a mapping of the section's keys"),
        ("crop: [1]", ":3: crop: [1] given; allowed: a mapping of the section's keys"),
        ("1: 2", ":3: 1: unknown key"),
        ("logging: {format: '%(x'}", "is not a log format"),
        ("publish: {url: bucket}", "publish.url: 'bucket' given; allowed: URL or null"),
        ("publish: {endpoint_url: 's3://x'}", "allowed: http(s) URL or null"),
        (
            "night: {timezone: Chile/Tololo}",
            "night.timezone: 'Chile/Tololo' given; allowed: time zone (is not",
        ),
        ("runtime: {cluster: [1]}", "runtime.cluster: [1] given; allowed: mapping or null"),
        ("runtime: {task_runner: threads}", "allowed: process, thread, sequential, dask or ray"),
        ("crop: {margin: 5}\ncrop: {margin: 6}", ":4: crop: given twice (first in line 3)"),
        ("crop:\n  margin: 5\n  margin: 6", ":5: crop.margin: given twice (first in line 4)"),
    ],
)
def test_one_problem_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    lines = errors_of(tmp_path, HEAD + text + "\n")
    assert len(lines) == 1, lines
    assert message in lines[0]


@pytest.mark.parametrize(
    "text",
    [
        "publish: {url: 's3://AKIA7DT:geheim99@bucket/x'}",
        "publish: {url: s3://b, endpoint_url: 'https://me:geheim99@store.example.org'}",
        "publish: {url: 'https://store.example.org/b?X-Amz-Signature=geheim99'}",
    ],
)
def test_urls_with_secrets_are_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    (line,) = errors_of(tmp_path, HEAD + text + "\n")
    assert "holds a secret" in line
    assert "***" in line
    assert "geheim99" not in line


def test_inputs_with_secrets_are_refused(tmp_path: Path) -> None:
    text = "inputs: {input_catalog: 's3://me:geheim99@b/c.csv', image_list_file: l.txt}\noutputs: {work_dir: o}\n"
    (line,) = errors_of(tmp_path, text)
    assert "inputs.input_catalog" in line
    assert "geheim99" not in line


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """
inputs:
  input_catalog: ""
  tile_name: a/b
outputs: {work_dir: "s3://bucket/run"}
epsf:
  max_star: 3
  max_stars: 0
  gaia_mag_min: 31
zp:
  gaia_mag_max: .inf
  gaia_mag_min: 40
  plot_mag_lo: 30
"""
    lines = errors_of(tmp_path, text)
    told = [(line.split(": ")[0], line.split(": ")[1].split(" ")[0]) for line in lines]
    assert told == [
        ("", "inputs.image_list_file"),
        (":3", "inputs.input_catalog"),
        (":4", "inputs.tile_name"),
        (":5", "outputs.work_dir"),
        (":7", "epsf.max_star"),
        (":8", "epsf.max_stars"),
        (":9", "epsf.gaia_mag_min"),
        (":11", "zp.gaia_mag_max"),
        (":13", "zp.plot_mag_lo"),
    ]
    assert "publish.url" in lines[3]


def test_missing_sections_name_their_required_keys() -> None:
    with pytest.raises(ConfigError) as caught:
        settings_from_dict({}, ".", source="form")
    assert [line.split(" (")[0] for line in str(caught.value).splitlines()] == [
        "form: inputs.input_catalog: required, but not given",
        "form: inputs.image_list_file: required, but not given",
        "form: outputs.work_dir: required, but not given",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", ": the configuration is empty"),
        (b"# only a comment\n", ": the configuration is empty"),
        (b"- a\n- b\n", ": a configuration is a mapping of sections, found a list at the top"),
        (b"text\n", "found a str at the top"),
        (b"inputs: {input_catalog: \xe9}\n", ":1: the configuration file must be UTF-8 text; byte 24 is not"),
        (b"a: [1,\nb: 2\n", ": not valid YAML"),
        (b"a: 1\n\tb: 2\n", ":2: not valid YAML"),
        (b"a: !!python/object/apply:os.getcwd []\n", ":1: not valid YAML: could not determine a constructor"),
        (b"a: 1\n---\nb: 2\n", "not valid YAML: but found another document"),
        (b"a: 2024-13-45\n", ": not valid YAML: month must be in 1..12"),
        (b"a: \x00\n", "not valid YAML"),
        (b"{? [a]: b}\n", "not valid YAML: found unhashable key"),
        (b"[" * 5000, "nested too deeply"),
        (b"b: 1\na: &x {c: [2, *x]}\n", ": not valid YAML: line 2: an alias stands for what holds it"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, text: bytes, message: str) -> None:
    lines = errors_of(tmp_path, text)
    assert len(lines) == 1
    assert message in lines[0]


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_settings(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot read the configuration file"):
        load_settings(tmp_path)


def test_aliases_merge_keys_and_byte_order_mark_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    text = HEAD + "epsf: &a {gaia_mag_min: 9, gaia_mag_max: 12}\nzp: {<<: *a, clip_sigma: 2}\n"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    settings = load_settings(file).settings
    assert (settings.zp.gaia_mag_min, settings.zp.clip_sigma) == (9.0, 2.0)


def test_a_self_containing_list_is_told_like_any_other(tmp_path: Path) -> None:
    lines = errors_of(tmp_path, HEAD + "epsf: {q_range: &a [*a, 1]}\n")
    assert lines[0].startswith(":3: epsf.q_range: [[")


def test_long_values_are_cut(tmp_path: Path) -> None:
    lines = errors_of(tmp_path, HEAD + f"epsf: {{max_workers: {'x' * 10000}}}\n")
    assert len(lines[0]) < 250


def test_errors_reach_other_processes_whole() -> None:
    import pickle

    with pytest.raises(ConfigError) as caught:
        settings_from_dict({"epsf": {"ngrid": 0}}, ".")
    again: Any = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)


def test_a_zero_point_without_gaia_earns_a_warning() -> None:
    values = {"inputs": {"input_catalog": "a", "image_list_file": "b"}, "outputs": {"work_dir": "w"}}
    assert any("gaiaxp_synphot_csv is not given" in w for w in settings_from_dict(values, ".").warnings)
    values["zp"] = {"enabled": False}  # type: ignore[dict-item]
    assert settings_from_dict(values, ".").warnings == []
    values["epsf"] = {"psfstar_mode": "gaia"}
    assert any("no stars to build ePSFs from" in w for w in settings_from_dict(values, ".").warnings)


@pytest.mark.parametrize(
    ("outputs", "inputs", "key"),
    [
        ("final_catalog: ../a.csv", "input_catalog: a.csv, image_list_file: b", "input_catalog"),
        ("final_catalog: ../a.csv", "input_catalog: x/../a.fits, image_list_file: b", "input_catalog"),
        ("final_catalog: ../a.csv", "input_catalog: c, image_list_file: a.parquet", "image_list_file"),
        (
            "overlay_dir: o",
            "input_catalog: w/ZP/T_with_Gaia.csv, image_list_file: b, tile_name: T",
            "input_catalog",
        ),
        (
            "overlay_dir: o",
            "input_catalog: c, image_list_file: b, gaiaxp_synphot_csv: w/ZP/zp_summary.csv",
            "gaiaxp_synphot_csv",
        ),
    ],
)
def test_a_run_overwrites_no_input_of_its_own(tmp_path: Path, outputs: str, inputs: str, key: str) -> None:
    (problem,) = errors_of(tmp_path, f"inputs: {{{inputs}}}\noutputs: {{work_dir: w, {outputs}}}\n")
    assert problem.startswith(f":1: inputs.{key}: {tmp_path}/")
    assert problem.endswith("would be overwritten by the run, which writes a file of this name")


def test_an_input_that_is_a_link_to_an_output(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to(tmp_path / "w" / "output_catalog.csv")
    (problem,) = errors_of(
        tmp_path, "inputs: {input_catalog: a.csv, image_list_file: b}\noutputs: {work_dir: w}"
    )
    assert "would be overwritten" in problem


def test_the_csv_catalogue_is_named_as_one(tmp_path: Path) -> None:
    (problem,) = errors_of(tmp_path, HEAD.replace("work_dir: w", "work_dir: w, final_catalog: c.fits"))
    assert problem.startswith(f":2: outputs.final_catalog: {tmp_path}/w/c.fits names the CSV catalogue")


def test_links_in_a_circle_are_for_the_reader_to_tell(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to("a.csv")
    values = {"inputs": {"input_catalog": "a.csv", "image_list_file": "b"}, "outputs": {"work_dir": "w"}}
    assert settings_from_dict(values, tmp_path).settings.inputs.input_catalog == str(tmp_path / "a.csv")
