"""Types of configuration values: what is accepted, and its range, said once.

Values are taken strictly: ``true`` is not a whole number, ``'5'`` is not one either, and ``nan`` is no
number at all. Two things are forgiven because users write them: a whole number where a number is
wanted, and ``1e-12`` without a dot, which YAML 1.1 reads as text.
"""

from __future__ import annotations

import logging
import re
import zoneinfo
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    WithJsonSchema,
    model_validator,
)

__all__ = [
    "AboveOne",
    "Auto",
    "AutoCount",
    "AutoWholeNumber",
    "Count",
    "Flag",
    "Fraction",
    "GzipLevel",
    "InputPath",
    "Integer",
    "LinkSeconds",
    "LogFile",
    "LogFormat",
    "LowerCase",
    "Name",
    "NonNegative",
    "OddCount",
    "OneToThree",
    "Options",
    "OutputPath",
    "Percentile",
    "Positive",
    "Real",
    "Retries",
    "Rising",
    "Section",
    "Text",
    "TimeZone",
    "UnorderedKeysError",
    "UpperCase",
    "Url",
    "WebUrl",
    "WholeNumber",
    "key",
]

_EXPONENT_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


def key(default: Any, sentence: str, *, unit: str = "", example: Any = None) -> Any:
    """Definition of one configuration key; its type and range stand in the annotation.

    Parameters
    ----------
    default : object
        Default, or ``...`` for a key that must be given.
    sentence : str
        What the key does.
    unit : str, optional
        Unit of the value.
    example : object, optional
        What ``dump-config`` shows for a key without a default.
    """
    extra: dict[str, Any] = {"unit": unit}
    examples = None if example is None else [example]
    return Field(default, description=sentence, json_schema_extra=extra, examples=examples)


class UnorderedKeysError(ValueError):
    """Two keys of a section of which the first must be below the second, and is not.

    Attributes
    ----------
    pairs : list of (str, str)
        Names of the keys that are in the wrong order.
    """

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{low} is not below {high}" for low, high in pairs))
        self.pairs = pairs


class Section(BaseModel):
    """Base of all sections: frozen, no unknown key, no non-finite number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def rising_pairs(cls) -> tuple[tuple[str, str], ...]:
        """Pairs of keys of which the first must be below the second."""
        return ()

    @model_validator(mode="after")
    def _rising(self) -> Self:
        wrong = [(a, b) for a, b in self.rising_pairs() if not getattr(self, a) < getattr(self, b)]
        if wrong:
            raise UnorderedKeysError(wrong)
        return self


def _exponent_text(value: Any) -> Any:
    if isinstance(value, str) and _EXPONENT_NUMBER.fullmatch(value):
        return float(value)
    return value


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd")
    return value


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _upper(value: Any) -> Any:
    return value.strip().upper() if isinstance(value, str) else value


def _path_text(value: Any) -> Any:
    """Text of a path; Python callers may hand over a ``Path``."""
    if isinstance(value, PurePath):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError("must be text")
    if not value.strip():
        raise ValueError("is empty")
    if "\0" in value:
        raise ValueError("holds a NUL character")
    return value


def _plain_integer(value: Any) -> Any:
    """Refuse what only equals a whole number (``true``, ``1.0``), which a choice would let pass."""
    if type(value) is not int:
        raise ValueError("must be a whole number")
    return value


def _file_name(value: str) -> str:
    if "/" in value or "\0" in value:
        raise ValueError("becomes part of file names: no slash")
    return value


def _local_path(value: Any) -> Any:
    text = _path_text(value)
    if "://" in text:
        raise ValueError("must be a local path: results go to an object store with publish.url")
    return text


def _without_secret(value: str) -> str:
    """Refuse a URL with a password or a signature: it would be copied to logs, records and the server."""
    if "://" in value:
        from tract7dt.store.urls import has_secret  # NumPy comes with it: only where there is a URL

        if has_secret(value):
            raise ValueError(
                "holds a secret, and URLs end up in logs: give it without, and the credentials in the "
                "environment or ~/.aws"
            )
    return value


def _without_secrets_inside(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse options with a password: settings are kept in work_dir and by the server."""
    from tract7dt.store.urls import redacted, secret_names

    if value and (names := secret_names(value)):
        raise ValueError(
            f"{', '.join(names)} holds a secret, and settings are kept with the results and by the server: "
            "give it in the environment, where Dask and Ray look for it, too"
        )
    if redacted(repr(value)) != repr(value):
        raise ValueError("a URL in it holds a secret: give it without")
    return value


def _url(value: str) -> str:
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://.", value):
        raise ValueError("is not a URL (scheme://...)")
    return _without_secret(value)


def _web_url(value: str) -> str:
    if not re.match(r"https?://.", value):
        raise ValueError("is not an http or https URL")
    return _without_secret(value)


def _time_zone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("is not a time zone, as America/Santiago") from None
    return value


def _rising_list(values: tuple[float, ...]) -> tuple[float, ...]:
    """Check that each pair of the list is in rising order."""
    if any(values[i] >= values[i + 1] for i in range(0, len(values), 2)):
        raise ValueError("each pair must rise")
    return values


def _log_format(value: str) -> str:
    try:
        logging.Formatter(value)
    except ValueError as error:
        raise ValueError(f"is not a log format: {error}") from error
    return value


Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict(), Field(min_length=1)]
Name = Annotated[Text, AfterValidator(_file_name)]

Real = Annotated[float, Strict(), BeforeValidator(_exponent_text)]
Positive = Annotated[float, Strict(), Gt(0), BeforeValidator(_exponent_text)]
NonNegative = Annotated[float, Strict(), Ge(0), BeforeValidator(_exponent_text)]
Fraction = Annotated[float, Strict(), Ge(0), Le(1), BeforeValidator(_exponent_text)]
Percentile = Annotated[float, Strict(), Ge(0), Le(100), BeforeValidator(_exponent_text)]
AboveOne = Annotated[float, Strict(), Gt(1), BeforeValidator(_exponent_text)]

Integer = Annotated[int, Strict()]
Count = Annotated[int, Strict(), Ge(1)]
WholeNumber = Annotated[int, Strict(), Ge(0)]
Retries = Annotated[int, Strict(), Ge(0), Le(50)]
GzipLevel = Annotated[int, Strict(), Ge(0), Le(9)]
LinkSeconds = Annotated[int, Strict(), Ge(1), Le(604800)]
OddCount = Annotated[
    int,
    Strict(),
    Ge(3),
    AfterValidator(_odd),
    WithJsonSchema({"type": "integer", "minimum": 3, "not": {"multipleOf": 2}}),
]

Auto = Annotated[Literal["auto"], BeforeValidator(_lower)]
AutoCount = Count | Auto
AutoWholeNumber = WholeNumber | Auto

OneToThree = Annotated[Literal[1, 2, 3], BeforeValidator(_plain_integer)]
LowerCase = BeforeValidator(_lower)
UpperCase = BeforeValidator(_upper)
Rising = AfterValidator(_rising_list)

TimeZone = Annotated[
    Text, AfterValidator(_time_zone), WithJsonSchema({"type": "string", "format": "time zone"})
]
InputPath = Annotated[
    str,
    BeforeValidator(_path_text),
    AfterValidator(_without_secret),
    WithJsonSchema({"type": "string", "format": "path or URL"}),
]
OutputPath = Annotated[
    Path, BeforeValidator(_local_path), WithJsonSchema({"type": "string", "format": "path"})
]
LogFile = Auto | OutputPath | None
LogFormat = Annotated[Text, AfterValidator(_log_format)]
Options = Annotated[dict[str, Any], AfterValidator(_without_secrets_inside)]
Url = Annotated[str, Strict(), AfterValidator(_url), WithJsonSchema({"type": "string", "format": "URL"})]
WebUrl = Annotated[
    str, Strict(), AfterValidator(_web_url), WithJsonSchema({"type": "string", "format": "http(s) URL"})
]
