"""What every key is, taken from the models: for messages, dump-config and the documentation."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter

from tract7dt.settings.root import Settings

__all__ = ["KeyInfo", "SectionInfo", "describe", "key_table", "section_at"]


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """Definition of one key.

    Attributes
    ----------
    path : str
        Dotted path.
    allowed : str
        Type and range in words.
    default : object
        Default as plain data; None for a required key.
    required : bool
    unit, sentence : str
    example : object
        Placeholder of a required key.
    """

    path: str
    allowed: str
    default: Any
    required: bool
    unit: str
    sentence: str
    example: Any = None


@dataclass(frozen=True, slots=True)
class SectionInfo:
    """A section, its sentence, its keys and the sections inside it, in order."""

    path: str
    sentence: str
    members: tuple[KeyInfo | SectionInfo, ...]


@functools.cache
def describe() -> tuple[SectionInfo, ...]:
    """All sections in order."""
    return tuple(m for m in _members(Settings, "") if isinstance(m, SectionInfo))


@functools.cache
def key_table() -> Mapping[str, KeyInfo]:
    """All keys by dotted path, in order."""
    found: dict[str, KeyInfo] = {}

    def collect(section: SectionInfo) -> None:
        for member in section.members:
            if isinstance(member, KeyInfo):
                found[member.path] = member
            else:
                collect(member)

    for section in describe():
        collect(section)
    return found


def section_at(path: str) -> type[BaseModel] | None:
    """Model of the section at a dotted path ("" is the whole), None where there is none."""
    model: type[BaseModel] = Settings
    for name in path.split(".") if path else ():
        info = model.model_fields.get(name)
        inner = None if info is None else _section(info.annotation)
        if inner is None:
            return None
        model = inner
    return model


def _section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _members(model: type[BaseModel], prefix: str) -> list[KeyInfo | SectionInfo]:
    members: list[KeyInfo | SectionInfo] = []
    schema = model.model_json_schema()
    for name, info in model.model_fields.items():
        path = f"{prefix}{name}"
        sentence = info.description or ""
        inner = _section(info.annotation)
        if inner is not None:
            members.append(SectionInfo(path, sentence, tuple(_members(inner, f"{path}."))))
            continue
        part = schema["properties"][name]
        default = None if info.is_required() else _plain(info.default)
        example = info.examples[0] if info.examples else None
        members.append(
            KeyInfo(path, allowed(part), default, info.is_required(), part.get("unit", ""), sentence, example)
        )
    return members


def _plain(value: Any) -> Any:
    return TypeAdapter(Any).dump_python(value, mode="json")


def allowed(schema: Mapping[str, Any]) -> str:
    """Type and range of a value in words, from its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(allowed(part) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        choices = [str(c) for c in schema.get("enum", [schema.get("const")])]
        return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"
    kind = schema.get("type")
    if kind in ("integer", "number"):
        word = "whole number" if kind == "integer" else "number"
        word = f"odd {word}" if "not" in schema else word
        return f"{word} {_range(schema)}".rstrip()
    if kind == "array":
        parts = schema["prefixItems"]
        return f"list of {len(parts)} {allowed(parts[0]).replace('number', 'numbers', 1)}"
    words = {"boolean": "true or false", "null": "null", "object": "mapping", "string": "text"}
    return str(schema.get("format") or words[str(kind)])


def _range(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"from {low} to {high}"
    if low is not None:
        return f">= {low}"
    above = schema.get("exclusiveMinimum")
    return "" if above is None else f"> {above}"
