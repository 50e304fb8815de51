"""What a row of the table is: the words of docs/troubleshooting.md, and how to bring it about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from badinput_field import TinyField

__all__ = ["ROWS", "Changes", "Row", "catalogue_of", "row"]

#: Sections and keys of the configuration that a row changes.
Changes = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes
    ----------
    what, happens, message : str
        The first three cells; in ``message`` an ellipsis stands for what differs from case to case.
    code : int
        Exit code.
    spoil : callable
        Changes the files of the field; returns changes of the configuration, or None.
    check : callable or None
        Looks at what the run has left.
    tested : str
        Another test that brings it about (``path::function``), where it takes longer than a row may; "" for
        none.
    """

    what: str
    happens: str
    message: str
    code: int
    spoil: Callable[[TinyField], Changes | None]
    check: list[Callable[[TinyField], None]] = field(default_factory=list)
    tested: str = ""

    def checked(self, check: Callable[[TinyField], None]) -> Callable[[TinyField], None]:
        """Decorator: what to look at after the run."""
        self.check.append(check)
        return check


#: By section of the page.
ROWS: dict[str, list[Row]] = {}


def row(
    section: str, what: str, happens: str, message: str, code: int, tested: str = ""
) -> Callable[[Callable[[TinyField], Changes | None]], Row]:
    """Decorator: the function spoils the field, and becomes the row."""

    def add(spoil: Callable[[TinyField], Changes | None]) -> Row:
        made = Row(what, happens, message, code, spoil, tested=tested)
        ROWS.setdefault(section, []).append(made)
        return made

    return add


def catalogue_of(tiny: TinyField) -> pd.DataFrame:
    """The final catalogue, every cell as text."""
    return pd.read_csv(tiny.work / "output_catalog.csv", dtype=str, keep_default_na=False)
