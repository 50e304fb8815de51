"""Packages whose names load when they are first used.

A worker starts anew for every run and after every accident. What it does not use (pictures, final catalogues, the
building of payloads) it should neither wait for nor hold in memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

__all__ = ["names_on_demand"]


def names_on_demand(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package.

    Parameters
    ----------
    package : str
        ``__name__`` of the package.
    modules : mapping of str to sequence of str
        Its modules, and the names that each gives to the package. No name may be that of a module.
    """
    home = {name: module for module, names in modules.items() for name in names}

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{home[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return load
