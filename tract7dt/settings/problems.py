"""Turning what is wrong with a configuration into one line each: path, what was given, what is allowed."""

from __future__ import annotations

import difflib
import math
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from tract7dt.settings.describe import key_table, section_at
from tract7dt.settings.fields import UnorderedKeysError
from tract7dt.settings.root import Settings

__all__ = ["closest_key", "find_problems"]

Keys = tuple[str, ...]

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlevel = 3


def find_problems(values: Mapping[Any, Any]) -> dict[Keys, str]:
    """Everything that is wrong with a configuration (legacy keys taken out).

    Parameters
    ----------
    values : mapping
        Sections and keys as read.

    Returns
    -------
    dict
        Path of each wrong key -> what is wrong with it; empty if all is well.
    """
    found: dict[Keys, str] = {}
    for error in _errors(values):
        if not _is_order(error):
            path, message = _single_key_problem(error, values)
            found.setdefault(path, message)
    # Pydantic compares the keys of a section only when each is right by itself, so look again without the
    # wrong ones: all problems are to be told at once.
    for error in _errors(_without(values, found)):
        if _is_order(error):
            found.update(_order_problems(error, values, found))
    return found


def closest_key(path: str) -> str:
    """Known key (or section) that an unknown dotted path most likely means."""
    parent, _, name = path.rpartition(".")
    model = section_at(parent)
    siblings = list(model.model_fields) if model is not None else []
    near = difflib.get_close_matches(name, siblings, n=1, cutoff=0.7)
    if near:
        return f"{parent}.{near[0]}" if parent else near[0]
    known = list(key_table())
    same_name = [k for k in known if k.rpartition(".")[2] == name]
    if same_name:
        return difflib.get_close_matches(path, same_name, n=1, cutoff=0.0)[0]
    return difflib.get_close_matches(path, known, n=1, cutoff=0.0)[0]


def _errors(values: Mapping[Any, Any]) -> list[Any]:
    try:
        # An absent section is an empty one, so that each required key in it is named.
        Settings.model_validate({"inputs": {}, "outputs": {}, **values})
    except ValidationError as error:
        return list(error.errors(include_url=False))
    return []


def _is_order(error: Mapping[str, Any]) -> bool:
    return isinstance(error.get("ctx", {}).get("error"), UnorderedKeysError)


def _single_key_problem(error: Mapping[str, Any], values: Mapping[Any, Any]) -> tuple[Keys, str]:
    path, known = _known_part(error["loc"])
    if error["type"] == "extra_forbidden" or not known:
        path = tuple(str(part) for part in error["loc"])
        return path, f"unknown key; the closest known key is {closest_key('.'.join(path))}"
    info = key_table().get(".".join(path))
    if error["type"] == "missing" and len(error["loc"]) == len(path):
        return path, "required, but not given" + (f" ({info.sentence})" if info else "")
    given = _given(values, path)
    if info is None:
        return path, f"{given} given; allowed: a mapping of the section's keys"
    cause = error.get("ctx", {}).get("error")
    why = f" ({cause})" if isinstance(cause, ValueError) else _hint(_value(values, path), info.allowed)
    return path, f"{given} given; allowed: {info.allowed}{why}"


def _hint(value: Any, allowed: str) -> str:
    if isinstance(value, str) and "number" in allowed and value.strip().lstrip("+-")[:1].isdigit():
        return " (in quotes it is text, not a number)"
    if allowed == "text":
        return " (put it in quotes)"
    return ""


def _known_part(loc: tuple[int | str, ...]) -> tuple[Keys, bool]:
    """Key or section that a pydantic location lies in; what follows are list indices and names of unions."""
    path: Keys = ()
    for part in loc:
        here = (*path, str(part))
        if section_at(".".join(here)) is None:
            return (here, True) if ".".join(here) in key_table() else (here, False)
        path = here
    return path, True


def _order_problems(
    error: Mapping[str, Any], values: Mapping[Any, Any], found: Mapping[Keys, str]
) -> dict[Keys, str]:
    """Pairs in the wrong order, unless one of the two is wrong by itself."""
    section = tuple(str(part) for part in error["loc"])
    problems = {}
    for low, high in error["ctx"]["error"].pairs:
        if (*section, low) in found or (*section, high) in found:
            continue
        # Told where the user wrote it: the other one may be a default.
        if _value(values, (*section, low)) is not None:
            name, order, other = low, "below", high
        else:
            name, order, other = high, "above", low
        problems[(*section, name)] = (
            f"{_given(values, (*section, name))} given; must be {order} "
            f"{'.'.join((*section, other))} ({_given(values, (*section, other))})"
        )
    return problems


def _value(values: Any, path: Iterable[str]) -> Any:
    for name in path:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values


def _given(values: Mapping[Any, Any], path: Keys) -> str:
    """The value at ``path`` as the file has it, or the default."""
    info = key_table().get(".".join(path))
    holder = _value(values, path[:-1])
    if info is not None and not (isinstance(holder, Mapping) and path[-1] in holder):
        return f"{info.default}, the default"
    value = _value(values, path)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, str) and "://" in value:
        from tract7dt.store.urls import redacted  # NumPy comes with it: only where there is a URL

        value = redacted(value)
    if isinstance(value, Mapping) and value:
        return _mapping_told(value)
    return _SHORT.repr(value)


def _mapping_told(value: Mapping[Any, Any]) -> str:
    """A mapping for a message; only its keys where one of them, or a URL, holds a secret."""
    from tract7dt.store.urls import redacted, secret_names

    if secret_names(value) or redacted(repr(value)) != repr(value):
        return f"a mapping of {', '.join(map(str, value))}"
    return _SHORT.repr(value)


def _without(values: Mapping[Any, Any], found: Iterable[Keys]) -> dict[Any, Any]:
    """Copy of ``values`` without the keys that have a problem."""
    cleaned = {n: _copy(v) for n, v in values.items()}
    for path in found:
        part: Any = cleaned
        for name in path[:-1]:
            part = part.get(name) if isinstance(part, dict) else None
        if isinstance(part, dict):
            for name in [n for n in part if str(n) == path[-1]]:
                del part[name]
    return cleaned


def _copy(value: Any) -> Any:
    return {n: _copy(v) for n, v in value.items()} if isinstance(value, Mapping) else value
