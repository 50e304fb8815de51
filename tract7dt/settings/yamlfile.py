"""Reading YAML: one mapping, no duplicate keys, and the line where each key stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tract7dt.errors import ConfigError

__all__ = ["YamlText", "parse_value", "parse_yaml", "read_text"]

Keys = tuple[str, ...]

#: Nesting of a configuration is 4 at most; the lines of deeper keys are never asked for.
_DEPTH_OF_LINES = 4


@dataclass(frozen=True, slots=True)
class YamlText:
    """A parsed YAML mapping.

    Attributes
    ----------
    values : dict
        The mapping.
    lines : dict of tuple of str to int
        1-based line of each key, by its path.
    duplicates : list of (str, int, int)
        Dotted path of each key that stands twice in one mapping, line of the first and of the second.
    """

    values: dict[Any, Any]
    lines: dict[Keys, int]
    duplicates: list[tuple[str, int, int]]


def read_text(source: str | Path) -> str:
    """Text of a configuration file.

    Parameters
    ----------
    source : str or Path
        Local path, or any URL that fsspec opens.

    Raises
    ------
    ConfigError
        If the file is missing, not a file, not readable or not UTF-8, or nothing here opens such URLs.
    """
    try:
        raw = _bytes_at(str(source)) if "://" in str(source) else Path(source).read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{source}: no such configuration file") from None
    except OSError as error:
        raise ConfigError(
            f"{source}: cannot read the configuration file: {error.strerror or error}"
        ) from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{source}:{line}: the configuration file must be UTF-8 text; byte {error.start} is not"
        ) from None


def _bytes_at(url: str) -> bytes:
    import fsspec  # only where it is needed: it costs a tenth of a second

    try:
        with fsspec.open(url, "rb") as stream:
            return bytes(stream.read())
    except (ImportError, ValueError) as error:  # a missing extra; a protocol that nobody knows
        raise ConfigError(f"{url}: cannot read the configuration file: {error}") from None


def parse_yaml(text: str, source: str) -> YamlText:
    """Parse a YAML mapping; only plain data, no Python objects.

    Parameters
    ----------
    text : str
        YAML text.
    source : str
        File name for messages.

    Raises
    ------
    ConfigError
        If the text is no YAML, or not one mapping.
    """
    try:
        node, values = _node_and_values(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark is not None else source
        raise ConfigError(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{source}: not a configuration: nested too deeply") from None
    if node is None:
        raise ConfigError(f"{source}: the configuration is empty; inputs and outputs.work_dir must be given")
    if not isinstance(values, dict):
        raise ConfigError(
            f"{source}: a configuration is a mapping of sections, found {_kind(values)} at the top"
        )
    lines: dict[Keys, int] = {}
    duplicates: list[tuple[str, int, int]] = []
    _walk(node, (), lines, duplicates, set())
    return YamlText(values, lines, duplicates)


def parse_value(text: str) -> Any:
    """A value in YAML; only plain data, no Python objects.

    Raises
    ------
    ConfigError
        If the text is no YAML.
    """
    try:
        return _node_and_values(text)[1]
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ConfigError(f"not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError("nested too deeply") from None


def _node_and_values(text: str) -> tuple[yaml.Node | None, Any]:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is not None and (line := _cycle(node, {}, set())) is not None:
        raise ValueError(f"line {line}: an alias stands for what holds it")  # nobody could walk through it
    return node, yaml.safe_load(text)


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"a {type(value).__name__}"


def _cycle(node: yaml.Node, above: dict[int, yaml.Node], done: set[int]) -> int | None:
    """Line of a mapping that is part of itself by an alias (``a: &x {b: *x}``); None if there is none.

    A list that holds itself is a wrong value like any other, since nobody walks through lists.
    """
    if id(node) in above:
        loop = list(above.values())[list(above).index(id(node)) :]
        mappings = [part for part in loop if isinstance(part, yaml.MappingNode)]
        return mappings[0].start_mark.line + 1 if mappings else None
    if id(node) in done or not isinstance(node, yaml.CollectionNode):
        return None
    above[id(node)] = node
    for item in node.value:
        for below in item if isinstance(item, tuple) else (item,):
            if (line := _cycle(below, above, done)) is not None:
                return line
    del above[id(node)]
    done.add(id(node))
    return None


def _walk(
    node: yaml.Node,
    path: Keys,
    lines: dict[Keys, int],
    duplicates: list[tuple[str, int, int]],
    seen: set[int],
) -> None:
    """Note the line of every key below ``node``, and keys that are given twice.

    PyYAML lets the last of two equal keys win without a word. Nodes that aliases share are visited once.
    """
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _walk(item, (*path, "[]"), lines, duplicates, seen)
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for name, value in node.value:
        if not isinstance(name, yaml.ScalarNode) or name.tag == "tag:yaml.org,2002:merge":
            _walk(value, path, lines, duplicates, seen)
            continue
        line = name.start_mark.line + 1
        here = (*path, name.value)
        if name.value in first:
            duplicates.append((".".join(here), first[name.value], line))
        first.setdefault(name.value, line)
        if len(here) <= _DEPTH_OF_LINES:
            lines[here] = line
        _walk(value, here, lines, duplicates, seen)
