"""What a stage returned, as plain data in a record: paths relative to the work_dir, so that it may move."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tract7dt.errors import ProductError
from tract7dt.stages import LoadedField, Masked
from tract7dt.types import Ref

__all__ = ["from_plain", "to_plain"]

#: Named tuples of references. Nothing else is ever made from what a file says.
_TUPLES = {kind.__name__: kind for kind in (LoadedField, Masked)}


def to_plain(value: Any, root: Path) -> Any:
    """Plain data of a stage's result: references, lists and the named tuples of them, text, numbers, None.

    Raises
    ------
    TypeError
        If ``value`` is anything else.
    """
    if isinstance(value, Ref):
        return {"ref": [_relative(value.path, root), value.sha256, value.kind]}
    if type(value).__name__ in _TUPLES and isinstance(value, tuple):
        return {"tuple": type(value).__name__, "of": [to_plain(item, root) for item in value]}
    if isinstance(value, (list, tuple)):
        return [to_plain(item, root) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"a stage returns references, found {type(value).__name__}")


def from_plain(plain: Any, root: Path) -> Any:
    """The result that :func:`to_plain` took apart, for a work_dir at ``root``.

    Raises
    ------
    ProductError
        If ``plain`` is not what :func:`to_plain` makes.
    """
    if isinstance(plain, list):
        return [from_plain(item, root) for item in plain]
    if not isinstance(plain, dict):
        return plain
    match plain:
        case {"ref": [str(path), str(sha256), str(kind)]}:
            return Ref(path if "://" in path else os.path.normpath(root / path), sha256, kind)
        case {"tuple": str(name), "of": list(items)} if name in _TUPLES:
            return _TUPLES[name](*(from_plain(item, root) for item in items))
    raise ProductError(f"not the result of a stage: {plain!r:.100}")


def _relative(path: str, root: Path) -> str:
    return path if "://" in path else os.path.relpath(path, root)
