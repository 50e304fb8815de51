"""What a run is given: the parameters of the parent flow and of ``tract7dt run``, and how they are checked.

The parameters are flat, so that each is a line of the form in the UI, and one can be overridden in a
deployment without the others.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from tract7dt.errors import ConfigError
from tract7dt.selection import parse_selection
from tract7dt.settings import LoadedSettings, Settings, apply_overrides, fill_placeholders, load_settings

__all__ = [
    "ConfigParameter",
    "FieldParameter",
    "Given",
    "NightParameter",
    "OnlyParameter",
    "OverridesParameter",
    "PublishParameter",
    "RefreshParameter",
    "Stage",
    "read_given",
    "read_template",
    "slug",
]

Stage = Literal[
    "load_inputs",
    "augment_gaia",
    "bright_mask",
    "build_epsf",
    "build_patches",
    "compose_final_masks",
    "build_patch_inputs",
    "run_patches",
    "merge",
    "compute_zp",
]


@dataclass(frozen=True, slots=True)
class _Shown:
    """How the form shows a parameter. Prefect hands on no description but that of the type itself."""

    sentence: str
    schema: Mapping[str, Any] | None = None

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(self.schema or handler(core)) | {"description": self.sentence}


def _blank_is_none(value: Any) -> Any:
    """A field of the form that was emptied again is as good as one that was never filled."""
    return None if isinstance(value, str) and not value.strip() else value


_TEXT = {"type": "string"}

ConfigParameter = Annotated[
    str, _Shown("Configuration of the field: a YAML file, as a path on the worker's machine or a URL.", _TEXT)
]
FieldParameter = Annotated[
    str | None,
    BeforeValidator(_blank_is_none),
    _Shown(
        "Name of the field. If given, it must be the configuration's `inputs.tile_name`: a guard against the "
        "wrong file.",
        _TEXT,
    ),
]
NightParameter = Annotated[
    str | None,
    BeforeValidator(_blank_is_none),
    _Shown(
        "Night of the images, YYYY-MM-DD (date of the evening). Replaces `{night}` in the paths of the "
        "configuration.",
        _TEXT,
    ),
]
OverridesParameter = Annotated[
    dict[str, Any] | None,
    _Shown(
        'Settings to change for this run, dotted key: value, as `{"zp.clip_sigma": 2.5}`. Keys and values are '
        "checked before anything runs; all keys, with defaults and ranges, are in docs/configuration.md.",
        {"type": "object", "additionalProperties": True},
    ),
]
RefreshParameter = Annotated[
    list[Stage] | None,
    _Shown(
        "Stages to compute anew although nothing has changed; what follows is reused if its inputs come out "
        "the same.",
        {"type": "array", "items": {"type": "string", "enum": list(get_args(Stage))}, "uniqueItems": True},
    ),
]
OnlyParameter = Annotated[
    list[str] | None,
    _Shown(
        "Fit only a part of the field. Each entry: a patch (`r00_c01_pr00_pc02`), an ePSF cell with all its "
        "patches (`r00_c01`), or a sky box in degrees, `ra_min ra_max dec_min dec_max`. Other patches keep "
        "the fits that they have; sources without one are flagged `patch_not_fitted`.",
        {"type": "array", "items": _TEXT},
    ),
]

PublishParameter = Annotated[
    bool,
    _Shown(
        "Bring the results to publish.url of the configuration, if it is set. A run of a part of the field is "
        "never published.",
        {"type": "boolean"},
    ),
]


@dataclass(frozen=True, slots=True)
class Given:
    """What a run was given.

    Attributes
    ----------
    config : str
        Path or URL of the configuration.
    field, night : str or None
    overrides : mapping
        Dotted key -> value.
    refresh, only : tuple of str
    publish : bool
    """

    config: str
    field: str | None = None
    night: str | None = None
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    refresh: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    publish: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as the record says it."""
        return asdict(self) | {
            "overrides": dict(self.overrides),
            "refresh": list(self.refresh),
            "only": list(self.only),
        }

    def as_parameters(self) -> dict[str, Any]:
        """The parameters of the flow: without what was not given, which the form would not take back."""
        return {name: value for name, value in self.as_dict().items() if value is not None}


def read_given(given: Given) -> LoadedSettings:
    """The configuration that a run is to work with, checked with everything else that it was given.

    Raises
    ------
    ConfigError
        One line for each thing that is wrong; nothing has been written or started.
    """
    problems: list[str] = []
    if unknown := [name for name in given.refresh if name not in get_args(Stage)]:
        problems.append(
            f"refresh: there is no stage {', '.join(unknown)}; allowed: {', '.join(get_args(Stage))}"
        )
    problems += _said(lambda: parse_selection(given.only)) + _night_problem(given.night)
    loaded: LoadedSettings | None = None
    try:
        loaded = load_settings(given.config)
        settings = loaded.settings
        if given.overrides:
            settings = apply_overrides(settings, given.overrides, settings.base_dir)
        if given.field is not None and given.field != settings.inputs.tile_name:
            problems.append(
                f"field: {given.field!r} given, but {given.config} is of {settings.inputs.tile_name!r} "
                "(inputs.tile_name): correct the one or the other"
            )
        loaded = replace(loaded, settings=fill_placeholders(settings, given.night))
    except ConfigError as error:
        problems.append(str(error))
    if problems or loaded is None:
        raise ConfigError("\n".join(problems))
    return loaded


def read_template(given: Given) -> Settings:
    """The configuration and the overrides before the night is put in: what all nights of a field have in common.

    Raises
    ------
    ConfigError
        The configuration or an override is wrong.
    """
    settings = load_settings(given.config).settings
    return apply_overrides(settings, given.overrides, settings.base_dir) if given.overrides else settings


def _said(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except ConfigError as error:
        return [str(error)]
    return []


def _night_problem(night: str | None) -> list[str]:
    try:
        if night is None or datetime.date.fromisoformat(night).isoformat() == night:
            return []
    except ValueError:
        pass
    return [f"night: {night!r} given; allowed: a date, YYYY-MM-DD"]


def slug(name: str) -> str:
    """``name`` as a part of an artifact's key: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "field"
