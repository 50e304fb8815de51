"""Files of the fields of a site, one a field, and the ``prefect.yaml`` that they make up together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from flows.parameters import Given
from tract7dt.errors import ConfigError
from tract7dt.store import write_text
from tract7dt.store.urls import is_url, name_problem

__all__ = [
    "FIELDS_QUEUE",
    "POOL",
    "SITE_QUEUE",
    "SITE_TAG",
    "TAG",
    "FieldFile",
    "field_files",
    "given_of",
    "prefect_yaml",
    "read_field",
    "read_fields",
    "write_prefect_yaml",
]

#: Work pool of the machine.
POOL = "tract7dt"
#: Tag of all deployments that come from files of fields.
TAG = "tract7dt-field"
#: Tag of what a site does besides: it looks at its fields, and tidies up.
SITE_TAG = "tract7dt-site"
#: Queues of the pool: a look at the fields does not wait until the runs of a night are over.
FIELDS_QUEUE = "default"
SITE_QUEUE = "site"
ENTRYPOINT = "flows.photometry.photometry"

#: The code is where the worker runs; there is nothing to fetch, build or send.
_NO_STEPS = {"build": None, "push": None, "pull": None}
#: Name, entrypoint, cron and description of what a site does besides its fields.
_OF_THE_SITE = (
    ("hourly", "flows.watch.watch", "7 * * * *", "Health of the fields; tells of fields that did not run."),
    (
        "daily",
        "flows.watch.retention",
        "40 15 * * *",
        "Removes what retention says of each field's old nights.",
    ),
)

_HEAD = """\
# Written by `tract7dt deploy` from fields/*.yaml, one deployment a file. Change those: this file is overwritten.
# `prefect --no-prompt deploy --all --prefect-file prefect.yaml` registers it.
"""


def _cron(value: str) -> str:
    from prefect.client.schemas.schedules import CronSchedule  # a second, which --help does not take

    try:
        CronSchedule(cron=value)
    except ValueError:
        raise ValueError("expected five fields of cron: minute, hour, day, month, day of the week") from None
    if len(value.split()) != 5:
        raise ValueError("expected five fields of cron, no seconds")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("expected a time zone, as America/Santiago") from None
    return value


class FieldFile(BaseModel):
    """What a file of a field may say.

    Attributes
    ----------
    config : str
        Configuration of the field, path (relative to the file) or URL.
    cron : str or None
        When it runs, in ``timezone``; None: only when somebody starts it.
    timezone : str
    active : bool
        Whether the schedule is on.
    parameters : dict
        Further parameters of the flow: overrides, refresh, publish.
    tags : tuple of str
    description : str
    name : str
        Of the field; the file's name if it is not given. Must be ``inputs.tile_name`` of the configuration.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: Annotated[str, Field(min_length=1)]
    cron: Annotated[str, AfterValidator(_cron)] | None = None
    timezone: Annotated[str, AfterValidator(_zone)] = "America/Santiago"
    active: bool = True
    parameters: dict[str, Any] = Field(default_factory=dict)
    tags: tuple[str, ...] = ()
    description: str = ""
    name: str = ""


def field_files(folder: Path) -> list[Path]:
    """Files of the fields of a site, by name.

    Raises
    ------
    ConfigError
        There is no folder ``fields``.
    """
    fields = folder / "fields"
    if not fields.is_dir():
        raise ConfigError(f"{fields}: no such folder; expected one file a field in it (docs/deployment.md)")
    return sorted(path for path in fields.glob("*.yaml") if not path.name.startswith("."))


def read_field(path: Path) -> FieldFile:
    """Read and check the file of a field.

    Raises
    ------
    ConfigError
        One line for each thing that is wrong.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping with the key config, found {type(values).__name__}")
    try:
        found = FieldFile.model_validate(values)
    except ValidationError as error:
        told = [f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ConfigError("\n".join(told)) from None
    name = found.name or path.stem
    config = (
        found.config
        if is_url(found.config)
        else str((path.parent / Path(found.config).expanduser()).resolve())
    )
    problems = [f"{path}: name {name!r} {trouble}" for trouble in [name_problem(name)] if trouble]
    problems += _parameter_problems(path, found.parameters)
    if problems:
        raise ConfigError("\n".join(problems))
    return found.model_copy(update={"name": name, "config": config})


def given_of(path: Path) -> Given:
    """What runs of a field are given, without a night: from its file, or from its configuration alone.

    Raises
    ------
    ConfigError
        One line for each thing that is wrong with the file of the field.
    """
    if "://" in str(path) or not _is_field_file(path):
        return Given(str(path))
    field = read_field(path)
    values = field.parameters
    overrides, refresh = values.get("overrides") or {}, tuple(values.get("refresh") or ())
    return Given(field.config, field.name, overrides=overrides, refresh=refresh)


def _is_field_file(path: Path) -> bool:
    """A configuration has sections, a file of a field names a configuration."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return True  # reading it as one says what is wrong
    return not (isinstance(values, dict) and "inputs" in values)


def _parameter_problems(path: Path, parameters: dict[str, Any]) -> list[str]:
    known = ("overrides", "refresh", "only", "publish")
    return [
        f"{path}: parameters.{name}: unknown; allowed: {', '.join(known)}"
        for name in parameters
        if name not in known
    ]


def read_fields(folder: Path) -> tuple[list[FieldFile], list[str]]:
    """The fields of a site, and what is wrong with files that cannot be used: one costs no other."""
    fields: dict[str, FieldFile] = {}
    problems = []
    for path in field_files(folder):
        try:
            field = read_field(path)
        except ConfigError as error:
            problems.append(str(error))
            continue
        if field.name in fields:
            problems.append(f"{path}: there is a field {field.name} already")
            continue
        fields[field.name] = field
    return list(fields.values()), problems


def prefect_yaml(fields: Sequence[FieldFile]) -> str:
    """The text of ``prefect.yaml``.

    A run waits while another of its field goes on (ENQUEUE): a night is never lost, nor runs twice at once.
    """
    made = [_deployment(field) for field in fields] + [_site_deployment(*each) for each in _OF_THE_SITE]
    content = {"name": "tract7dt", "deployments": made}
    return _HEAD + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)


def write_prefect_yaml(folder: Path, fields: Sequence[FieldFile]) -> Path:
    """Write ``prefect.yaml`` of a site; returns its path."""
    path = folder / "prefect.yaml"
    write_text(path, prefect_yaml(fields))
    return path


def _deployment(field: FieldFile) -> dict[str, Any]:
    schedule = {"cron": field.cron, "timezone": field.timezone, "slug": "nightly", "active": field.active}
    return {
        "name": field.name,
        "description": field.description or f"Photometry of the field {field.name}.",
        "tags": [TAG, *field.tags],
        "entrypoint": ENTRYPOINT,
        "parameters": {"config": field.config, "field": field.name} | field.parameters,
        "schedules": [schedule] if field.cron else [],
        "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
        "work_pool": {"name": POOL, "work_queue_name": FIELDS_QUEUE},
        **_NO_STEPS,
    }


def _site_deployment(name: str, entrypoint: str, cron: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "tags": [SITE_TAG],
        "entrypoint": entrypoint,
        "schedules": [{"cron": cron, "timezone": "America/Santiago", "slug": name, "active": True}],
        "concurrency_limit": {"limit": 1, "collision_strategy": "CANCEL_NEW"},
        "work_pool": {"name": POOL, "work_queue_name": SITE_QUEUE},
        **_NO_STEPS,
    }
