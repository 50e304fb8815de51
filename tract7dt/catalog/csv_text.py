"""Tables as the lines of a CSV file, column by column: what ``DataFrame.to_csv`` writes, a few times faster."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from typing import TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tract7dt.catalog.text import text_array

__all__ = ["write_lines"]

#: Rows that are put together at once.
_ROWS = 1 << 16
#: Cells of columns of floats that are made at once: calls of their own for each column of a short table, like that
#: of a patch, would take longer than the cells.
_CELLS = 1 << 16
#: Rows of a table, such as that of a patch, whose columns are not worth a call each.
_SHORT = 500
#: What a cell must not hold unless it is quoted.
_SPECIAL = '[",\r\n]'
_NOT_PLAIN = re.compile(_SPECIAL)


def write_lines(table: pd.DataFrame, stream: TextIO) -> None:
    """Write header and rows: a missing value is empty, a float the shortest text that reads back the same.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns of floats, whole numbers (missing ones allowed), booleans or text.
    stream : text stream
        Opened with ``newline=""``.
    """
    stream.write(_line([str(name) for name in table.columns]))
    if not len(table.columns):
        return
    if len(table) <= _SHORT:
        _write_short(table, stream)
        return
    columns = [table.iloc[:, i] for i in range(len(table.columns))]
    kinds = [column.dtype.kind for column in columns]
    floats = [i for i, kind in enumerate(kinds) if kind == "f"]
    numbers = [columns[i].to_numpy(np.float64) for i in floats]
    others = {i: _writer(columns[i]) for i, kind in enumerate(kinds) if kind != "f"}
    for start in range(0, len(table), _ROWS):
        rows = slice(start, min(start + _ROWS, len(table)))
        made = {i: writer(rows) for i, writer in others.items()}
        for some in range(0, len(floats), max(1, _CELLS // (rows.stop - rows.start))):
            part = slice(some, some + max(1, _CELLS // (rows.stop - rows.start)))
            made |= dict(zip(floats[part], _floats([column[rows] for column in numbers[part]])))
        cells = [made[i] for i in range(len(columns))]
        if len(cells) == 1:  # an empty line would be no row
            cells = [pc.if_else(pc.equal(cells[0], ""), '""', cells[0])]
        lines = pc.binary_join_element_wise(*cells, pa.scalar(",")).to_pylist()
        stream.write("\n".join(lines) + "\n")


def _write_short(table: pd.DataFrame, stream: TextIO) -> None:
    """The rows of a short table, put together in Python: arrow's calls for each column would take longer."""
    kinds = [dtype.kind if isinstance(dtype, np.dtype) else "" for dtype in table.dtypes]
    cells: list[list[str]] = [[]] * len(kinds)
    for numbers, dtype in (("f", np.float64), ("iu", np.int64), ("b", np.bool_)):
        some = [i for i, kind in enumerate(kinds) if kind and kind in numbers]
        for i, values in zip(some, table.iloc[:, some].to_numpy(dtype).T.tolist(), strict=True):
            cells[i] = [repr(value) if value == value else "" for value in values]
    for i, kind in enumerate(kinds):
        if kind not in tuple("fiub"):
            cells[i] = _short_cells(table.iloc[:, i])
    if len(cells) == 1:
        cells = [[text or '""' for text in cells[0]]]
    stream.writelines(f"{','.join(row)}\n" for row in zip(*cells, strict=True))


def _short_cells(column: pd.Series) -> list[str]:
    """The cells of a short column of text, or of what may be missing."""
    texts = [] if column.dtype.kind in "iub" else column.tolist()
    if texts and all(type(text) is str for text in texts):
        return ['"' + text.replace('"', '""') + '"' if _NOT_PLAIN.search(text) else text for text in texts]
    cells: list[str] = _writer(column)(slice(0, len(column))).to_pylist()
    return cells


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _writer(values: pd.Series) -> Callable[[slice], pa.StringArray]:
    """The cells of some rows of a column that does not hold floats."""
    kind = values.dtype.kind
    if kind == "b":
        return lambda rows: pc.if_else(pa.array(values.array[rows], type=pa.bool_()), "True", "False")
    if kind in "iu":
        whole = values.astype("Int64").array
        return lambda rows: pa.array(whole[rows], type=pa.int64()).cast(pa.string()).fill_null("")
    return lambda rows: _quoted(text_array(values.iloc[rows]))


def _floats(columns: list[np.ndarray]) -> list[pa.StringArray]:
    """The cells of columns of the same length."""
    numbers = np.concatenate(columns)
    there = ~np.isnan(numbers)
    texts = pa.array(["", *map(repr, numbers[there].tolist())], type=pa.string())
    cells = texts.take(pa.array(np.where(there, np.cumsum(there), 0)))
    length = len(columns[0])
    return [cells.slice(i * length, length) for i in range(len(columns))]


def _quoted(texts: pa.StringArray) -> pa.StringArray:
    """Texts that hold a comma, a quote or a line break in quotes, whose own quotes are doubled."""
    special = pc.match_substring_regex(texts, _SPECIAL)
    if not pc.any(special, min_count=0).as_py():
        return texts
    doubled = pc.replace_substring(texts, '"', '""')
    return pc.if_else(special, pc.binary_join_element_wise('"', doubled, '"', ""), texts)
