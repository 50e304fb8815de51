"""A configuration without the secrets in it."""

from __future__ import annotations

import yaml

from tract7dt.store.urls import HIDDEN, Redactor, is_secret_name

__all__ = ["without_secrets"]


def without_secrets(text: str) -> str:
    """Text of a configuration in which every value below a key such as ``password`` is ``***``.

    Everything else, comments and order included, is as it was; what URLs carry, and the values of secret
    environment variables, are hidden, too.

    Parameters
    ----------
    text : str
        Valid YAML.
    """
    places: set[tuple[int, int]] = set()
    _find_secrets(yaml.compose(text, Loader=yaml.SafeLoader), False, places, set())
    for start, end in sorted(places, reverse=True):
        line_end = "\n" if text[start:end].endswith("\n") else ""  # a block of lines ends with its last one
        text = text[:start] + f"'{HIDDEN}'" + line_end + text[end:]
    return Redactor().text(text)


def _find_secrets(
    node: yaml.Node | None, hide: bool, places: set[tuple[int, int]], seen: set[tuple[int, bool]]
) -> None:
    """Begin and end of every scalar below a key with a secret's name."""
    if node is None or (id(node), hide) in seen:
        return
    seen.add((id(node), hide))
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            secret = isinstance(name, yaml.ScalarNode) and is_secret_name(name.value)
            _find_secrets(value, hide or secret, places, seen)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _find_secrets(item, hide, places, seen)
    elif hide:
        places.add((node.start_mark.index, node.end_mark.index))
