"""Digest of settings, and what differs from the defaults."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from tract7dt.settings.describe import key_table
from tract7dt.settings.paths import relative_outputs
from tract7dt.settings.root import Settings

__all__ = ["differences_from_default", "settings_digest"]


def settings_digest(settings: Settings, sections: Iterable[str]) -> str:
    """Hexadecimal SHA-256 of some sections: equal if and only if their values are.

    Parameters
    ----------
    settings : Settings
    sections : iterable of str
        Sections or single keys by dotted path, ``("epsf", "image_scaling.zp_ref")``, in any order.

    Raises
    ------
    KeyError
        If there is no such section or key.
    """
    values = settings.model_dump(mode="json")
    chosen = {path: _value_at(values, path) for path in sections}
    text = json.dumps(chosen, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences_from_default(settings: Settings) -> dict[str, tuple[Any, Any]]:
    """Keys whose value is not the default: dotted path -> (value, default), plain data, in order.

    Required keys have no default and are left out. Outputs are compared relative to ``work_dir``.
    """
    values = relative_outputs(settings).model_dump(mode="json")
    found = {}
    for path, info in key_table().items():
        value = _value_at(values, path)
        if not info.required and value != info.default:
            found[path] = (value, info.default)
    return found


def _value_at(values: Mapping[str, Any], path: str) -> Any:
    part: Any = values
    for name in path.split("."):
        if not isinstance(part, Mapping) or name not in part:
            raise KeyError(f"no section or key {path} in the settings")
        part = part[name]
    return part
