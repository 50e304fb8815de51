"""Fetching what was published: which runs there are, their files, checked, and the catalogue as a table.

>>> from tract7dt import results
>>> table = results.load("s3://bucket/photometry", field="UDS")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tract7dt.results.runs import FoundRun, RunInfo, find_run, list_runs
    from tract7dt.results.table import load
    from tract7dt.results.transfer import Check, download, open_address, verify, verify_folder

__all__ = [
    "Check",
    "FoundRun",
    "RunInfo",
    "download",
    "find_run",
    "list_runs",
    "load",
    "open_address",
    "verify",
    "verify_folder",
]

_HOME = {
    "FoundRun": "runs",
    "RunInfo": "runs",
    "find_run": "runs",
    "list_runs": "runs",
    "load": "table",
    "Check": "transfer",
    "download": "transfer",
    "open_address": "transfer",
    "verify": "transfer",
    "verify_folder": "transfer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
