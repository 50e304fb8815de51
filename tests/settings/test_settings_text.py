"""dump-config, the documentation page and the JSON schema are the models in other words."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tract7dt.errors import ConfigError
from tract7dt.settings import (
    Settings,
    config_markdown,
    describe,
    differences_from_default,
    dump_config_text,
    key_table,
    load_settings,
    settings_from_dict,
)

REPOSITORY = Path(__file__).resolve().parents[2]


def test_dumped_defaults_load_back_and_hold_every_key(tmp_path: Path) -> None:
    text = dump_config_text()
    (tmp_path / "c.yaml").write_text(text)
    loaded = load_settings(tmp_path / "c.yaml")
    assert differences_from_default(loaded.settings) == {}
    held = yaml.safe_load(text)
    for path in key_table():
        part = held
        for name in path.split("."):
            part = part[name]
    assert len(key_table()) == 182


def test_every_key_is_described() -> None:
    for path, info in key_table().items():
        assert info.sentence.endswith("."), path
        assert info.allowed, path
        name = path.rsplit(".", maxsplit=1)[-1]
        assert info.unit or not name.endswith(("_pix", "_arcsec", "_seconds", "_sigma")), path
    assert len(describe()) == 24


def test_dump_shows_unit_range_and_sentence() -> None:
    lines = dump_config_text().splitlines()
    at = lines.index("  cutout_size: 61")
    assert lines[at - 1] == "  # Side of the cutout of a star. [pix] (odd whole number >= 3)"
    assert all(len(line) < 200 for line in lines)


def test_the_configuration_page_is_the_generated_one() -> None:
    code = [sys.executable, "-m", "tract7dt.settings.docs"]
    printed = subprocess.run(code, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout
    assert printed == config_markdown()
    assert (REPOSITORY / "docs" / "configuration.md").read_text() == printed


def test_tables_of_the_page_have_five_cells_a_row() -> None:
    rows = [line for line in config_markdown().splitlines() if line.startswith("|")]
    assert sum(line.startswith("| `") for line in rows) == len(key_table())
    for row in rows:
        assert row.replace("\\|", "").count("|") == 6, row


def test_json_schema_can_serve_a_form() -> None:
    schema = json.loads(json.dumps(Settings.model_json_schema()))
    epsf = schema["$defs"]["EpsfSettings"]
    assert epsf["additionalProperties"] is False
    assert epsf["properties"]["psfstar_mode"]["enum"] == ["sep", "gaia", "sep+gaia"]
    assert epsf["properties"]["cutout_size"]["unit"] == "pix"
    assert epsf["properties"]["cutout_size"]["minimum"] == 3


def values_for(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that a key allows, made from its JSON schema."""
    if "anyOf" in schema:
        return st.one_of([values_for(part) for part in schema["anyOf"]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    low, high = schema.get("minimum"), schema.get("maximum")
    above = schema.get("exclusiveMinimum")
    kind = schema["type"]
    if kind == "integer":
        numbers = st.integers(-(10**6) if low is None else low, 10**6 if high is None else high)
        return numbers.map(lambda n: n | 1) if "not" in schema else numbers
    if kind == "number":
        smallest = above if above is not None else low if low is not None else -1e300
        return st.floats(smallest, 1e300 if high is None else high, exclude_min=above is not None)
    if kind == "array":
        pairs = [st.tuples(values_for(s), values_for(s)) for s in schema["prefixItems"][::2]]
        rising = [p.filter(lambda ab: ab[0] < ab[1]) for p in pairs]
        return st.tuples(*rising).map(lambda ps: [v for pair in ps for v in pair])
    if kind == "object":
        return st.dictionaries(st.text("abc", min_size=1), st.integers() | st.text(), max_size=2)
    if kind == "string":
        if "URL" in schema.get("format", "") and "path" not in schema["format"]:
            return st.sampled_from(["https://host/a", "http://host:1/"])
        if schema.get("format") == "time zone":
            return st.sampled_from(["America/Santiago", "UTC", "Asia/Seoul"])
        text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)
        plain = text.filter(lambda t: t.strip() and "/" not in t and not t.startswith("~") and "%" not in t)
        return plain.filter(lambda t: t not in (".", "..") and t.strip().lower() != "auto" and len(t) < 50)
    return st.booleans() if kind == "boolean" else st.none()


def schema_of(path: str) -> dict[str, Any]:
    part: Any = Settings.model_json_schema()
    whole = part
    for name in path.split("."):
        part = part["properties"][name]
        if "$ref" in part:
            part = whole["$defs"][part["$ref"].rsplit("/", maxsplit=1)[-1]]
    return part


STRATEGIES = {path: values_for(schema_of(path)) for path in key_table()}
STRATEGIES["logging.format"] = st.sampled_from(["%(message)s", "%(asctime)s: %(message)s # | 'x'"])


@st.composite
def configurations(draw: Any) -> dict[str, Any]:
    required = [path for path, info in key_table().items() if info.required]
    chosen = draw(st.lists(st.sampled_from(sorted(STRATEGIES)), max_size=25, unique=True))
    values: dict[str, Any] = {}
    for path in [*required, *chosen]:
        part = values
        *sections, name = path.split(".")
        for section in sections:
            part = part.setdefault(section, {})
        part[name] = draw(STRATEGIES[path])
    return values


@hypothesis_settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(configurations())
def test_any_configuration_survives_dump_and_load(values: dict[str, Any]) -> None:
    try:
        settings = settings_from_dict(values, "/nowhere").settings
    except ConfigError as error:  # every value is allowed by itself, so only an order can be wrong
        lines = str(error).splitlines()
        assert all(" given; must be " in line for line in lines), lines
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "c.yaml"
        file.write_text(dump_config_text(settings), encoding="utf-8")
        again = load_settings(file).settings
    assert again.model_dump() == settings.model_dump()  # the folder of the file is another one
    elsewhere = settings_from_dict(settings.model_dump(mode="json"), "/elsewhere").settings
    assert elsewhere.model_dump() == settings.model_dump()
