"""What a run is given: checked before anything runs, shown in the form, the same for command and flow."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from astropy.wcs import WCS

from flows.parameters import Given, Stage, read_given, slug
from tract7dt import frames, patches
from tract7dt.errors import ConfigError, InputError
from tract7dt.run_record import STAGES
from tract7dt.selection import Selection, SkyBox, parse_selection, selected_tags
from tract7dt.types import Box, Patch, Ref

CONFIG = """\
inputs: {{tile_name: T1, input_catalog: cat.csv, image_list_file: "{images}", gaiaxp_synphot_csv: gaia.csv}}
outputs: {{work_dir: "{work}"}}
"""


def config(folder: Path, images: str = "list.txt", work: str = "out") -> str:
    path = folder / "config.yaml"
    path.write_text(CONFIG.format(images=images, work=work))
    return str(path)


def test_stages_of_the_form_are_those_of_a_run() -> None:
    assert get_args(Stage) == STAGES


def test_everything_wrong_is_said_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    given = Given(
        config(tmp_path),
        field="T2",
        night="20261120",
        overrides={"zp.clip_sigma": 2.5},
        refresh=("merge", "fit"),
        only=("r00_c00", "nowhere", "10 9"),
    )
    with pytest.raises(ConfigError) as caught:
        read_given(given)
    text = str(caught.value)
    assert "refresh: there is no stage fit; allowed: load_inputs, augment_gaia" in text
    assert "only: 'nowhere': expected a patch (r00_c01_pr00_pc02)" in text
    assert "only: '10 9'" in text
    assert "night: '20261120' given; allowed: a date, YYYY-MM-DD" in text
    assert "field: 'T2' given, but" in text
    assert "'T1'" in text
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"zp.clip_sgma": 2.5}, "zp.clip_sgma: unknown key; the closest known key is zp.clip_sigma"),
        ({"zp.clip_sigma": -1}, "zp.clip_sigma: -1 given; allowed: number > 0"),
        ({"zp.zp_err_method": "best"}, "zp.zp_err_method: 'best' given; allowed: all_mad or bright_std"),
        ({"zp": 3}, "zp: 3 given; allowed: a mapping"),
    ],
)
def test_a_wrong_override_names_its_key_and_what_is_allowed(
    tmp_path: Path, overrides: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        read_given(Given(config(tmp_path), overrides=overrides))


def test_overrides_reach_the_settings_and_their_paths_start_at_the_configuration(tmp_path: Path) -> None:
    given = Given(config(tmp_path), overrides={"zp.clip_sigma": 2.5, "outputs.work_dir": "elsewhere"})
    settings = read_given(given).settings
    assert settings.zp.clip_sigma == 2.5
    assert settings.outputs.work_dir == tmp_path / "elsewhere"
    assert settings.outputs.epsf_dir == tmp_path / "elsewhere" / "EPSFs"


def test_field_and_night_stand_in_paths(tmp_path: Path) -> None:
    path = config(tmp_path, images="{night}/{tile_name}.txt", work="runs/{tile_name}/{night}")
    settings = read_given(Given(path, night="2026-11-20")).settings
    assert settings.inputs.image_list_file == str(tmp_path / "2026-11-20" / "T1.txt")
    assert settings.outputs.work_dir == tmp_path / "runs" / "T1" / "2026-11-20"
    assert settings.outputs.patches_dir.is_relative_to(settings.outputs.work_dir)
    with pytest.raises(ConfigError, match=r"outputs.work_dir: .*which night\? Give it"):
        read_given(Given(path))


def test_configuration_from_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.chdir(tmp_path)
    with fsspec.open("memory://fields/T1.yaml", "w") as stream:
        stream.write(CONFIG.format(images="list.txt", work="out"))
    settings = read_given(Given("memory://fields/T1.yaml", field="T1")).settings
    assert settings.outputs.work_dir == tmp_path / "out"
    with pytest.raises(ConfigError, match=r"memory://fields/none\.yaml: no such configuration file"):
        read_given(Given("memory://fields/none.yaml"))
    with pytest.raises(ConfigError, match="cannot read the configuration file"):
        read_given(Given("nonsense://fields/T1.yaml"))
    by_file = read_given(Given(f"file://{config(tmp_path)}"))
    assert by_file.path == tmp_path / "config.yaml"


def test_the_form_describes_every_parameter_and_offers_the_stages() -> None:
    from prefect.utilities.callables import parameter_schema

    from flows.photometry import photometry

    schema = parameter_schema(photometry).model_dump()
    properties = schema["properties"]
    assert list(properties) == ["config", "field", "night", "overrides", "refresh", "only", "publish"]
    assert schema["required"] == ["config"]
    for name, shown in properties.items():
        assert len(shown["description"]) > 40, name
        assert shown["type"] in ("string", "object", "array", "boolean"), (
            "flat: no choice between types, no nested model"
        )
    # The form sends every line back, and the server compares it with the schema: None would be of no type.
    empty = {"string": "", "object": {}, "array": []}
    assert {n: p["default"] for n, p in properties.items() if "default" in p and p["type"] in empty} == {
        n: empty[p["type"]] for n, p in properties.items() if n != "config" and p["type"] in empty
    }
    assert properties["refresh"]["items"]["enum"] == list(STAGES)
    assert properties["overrides"]["default"] == {}
    assert "zp.clip_sigma" in properties["overrides"]["description"]


def test_given_is_plain_data(tmp_path: Path) -> None:
    given = Given("c.yaml", "T1", None, {"zp.clip_sigma": 2.5}, ("merge",), ("r00_c00",))
    assert json.loads(json.dumps(given.as_dict())) == given.as_dict()
    assert given.as_dict()["refresh"] == ["merge"]


@pytest.mark.parametrize(
    ("name", "key"), [("UDS", "uds"), ("T07_a.b", "t07-a-b"), ("--", "field"), ("Å 3 ", "3")]
)
def test_artifact_keys_are_lower_case_digits_and_dashes(name: str, key: str) -> None:
    assert slug(name) == key


# --- a part of a field -----------------------------------------------------------------------------------


def test_selection_is_read() -> None:
    assert parse_selection([]) is None
    chosen = parse_selection(["r00_c01", " r00_c01_pr00_pc02 ", "150.1, 150.2, -2.2, -2.1", "359 1 0 1"])
    assert chosen == Selection(
        ("r00_c01", "r00_c01_pr00_pc02"), (SkyBox(150.1, 150.2, -2.2, -2.1), SkyBox(359, 1, 0, 1))
    )
    assert chosen.boxes[1].width == 2


@pytest.mark.parametrize(
    "item", ["", "r0_c1", "1 2 3", "a b c d", "1 2 4 3", "1 1 3 4", "-1 2 3 4", "1 2 3 94", "nan 2 3 4"]
)
def test_what_is_no_selection_is_refused(item: str) -> None:
    with pytest.raises(ConfigError, match="only: "):
        parse_selection([item])


class _Field:
    """Four patches of 100 x 100 pixels, 1 arcsec each, about a point of the sky."""

    def __init__(self, ra: float) -> None:
        self.wcs = WCS(naxis=2)
        self.wcs.wcs.crpix, self.wcs.wcs.crval = [100.5, 100.5], [ra, 30.0]
        self.wcs.wcs.cdelt, self.wcs.wcs.ctype = [-1 / 3600, 1 / 3600], ["RA---TAN", "DEC--TAN"]


@pytest.fixture
def division(monkeypatch: pytest.MonkeyPatch) -> Any:
    def of(ra: float) -> tuple[WCS, Ref, Ref]:
        field = _Field(ra)
        boxes = [(r, c, Box(100 * c, 100 * c + 100, 100 * r, 100 * r + 100)) for r in (0, 1) for c in (0, 1)]
        known = [Patch(r, c, 0, 0, box, box, 0) for r, c, box in boxes]
        monkeypatch.setattr(frames, "open_field", lambda _: field)
        monkeypatch.setattr(patches, "read_patches", lambda _: known)
        return field.wcs, Ref("field", "", "field"), Ref("patches", "", "patches")

    return of


@pytest.mark.parametrize("ra", [150.0, 0.0])
@pytest.mark.parametrize("size", [1.0, 30.0, 400.0])
def test_a_sky_box_chooses_the_patches_that_it_touches(division: Any, ra: float, size: float) -> None:
    """Boxes smaller than a patch, larger than the field, and at RA 0."""
    wcs, field, known = division(ra)
    rng = np.random.default_rng(3)
    for x, y in rng.uniform(20, 180, (20, 2)):
        corner = wcs.pixel_to_world_values([x - size / 2, x + size / 2], [y - size / 2, y + size / 2])
        (ra1, ra0), (dec0, dec1) = corner
        chosen = selected_tags(Selection((), (SkyBox(ra0 % 360, ra1 % 360, dec0, dec1),)), field, known)
        cells = {(r, c) for r in (0, 1) for c in (0, 1)}
        edge = 99.5
        sure = {
            (r, c)
            for r, c in cells
            if (y + size / 2 > edge + 4 if r else y - size / 2 < edge - 4)
            and (x + size / 2 > edge + 4 if c else x - size / 2 < edge - 4)
        }
        near = {
            (r, c)
            for r, c in cells
            if (y + size / 2 > edge - 4 if r else y - size / 2 < edge + 4)
            and (x + size / 2 > edge - 4 if c else x - size / 2 < edge + 4)
        }
        found = {(int(tag[1:3]), int(tag[5:7])) for tag in chosen}
        assert sure <= found <= near, (x, y)


def test_patches_and_cells_by_name_and_what_is_not_there(division: Any) -> None:
    _, field, known = division(150.0)
    assert selected_tags(Selection(("r00_c01",), ()), field, known) == {"r00_c01_pr00_pc00"}
    assert selected_tags(Selection(("r01_c01_pr00_pc00",), ()), field, known) == {"r01_c01_pr00_pc00"}
    with pytest.raises(InputError) as caught:
        selected_tags(Selection(("r07_c07",), (SkyBox(10, 11, 1, 2),)), field, known)
    assert "no patch or cell r07_c07" in str(caught.value)
    assert "no patch of the field lies in SkyBox(ra_min=10" in str(caught.value)
    assert "r00_c00_pr00_pc00" in str(caught.value)
