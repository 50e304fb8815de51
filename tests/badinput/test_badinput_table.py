"""Whatever arrives: the run says what is wrong, keeps what is good, and the table in the docs says the same."""

from __future__ import annotations

import re
from pathlib import Path

import badinput_folders  # noqa: F401 -- brings its rows
import badinput_images  # noqa: F401
import badinput_tables  # noqa: F401
import pytest
from badinput_field import TinyField, make_field
from badinput_rows import ROWS, Row
from badinput_run import run_command

#: From here to the end the page is generated.
MARK = "<!-- from here on: python tests/badinput/write_page.py -->\n"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md"
ALL = [pytest.param(row, id=row.spoil.__name__) for rows in ROWS.values() for row in rows]


def words(text: str) -> str:
    """``text`` with every run of blanks and line breaks as one blank."""
    return " ".join(text.split())


@pytest.mark.parametrize("row", ALL)
def test_row(row: Row, tmp_path: Path) -> None:
    tiny: TinyField = make_field(tmp_path / "night" / "field")
    changes = row.spoil(tiny)
    if changes is not None:
        tiny.config(changes)
    ended = run_command(tiny)
    if tiny.held:
        tiny.held.close()
    assert ended.code == row.code, ended.said
    parts = [re.escape(words(part)) for part in row.message.split("…")]
    assert re.search(".*?".join(parts), words(ended.said)), ended.said
    assert "Traceback" not in ended.terminal
    assert "looks like a defect" not in ended.said
    assert ("what to do:" in ended.terminal) is (row.code != 0)
    assert (tiny.work / "output_catalog.csv").exists() is (row.code == 0)
    assert not list(tiny.work.rglob(".*.tmp*"))
    for check in row.check:
        check(tiny)


def message_cell(row: Row) -> str:
    return "`" + row.message.replace("|", "\\|") + "`"


def table_text() -> str:
    """The tables of the page, as the rows have it."""
    text = []
    for section, rows in ROWS.items():
        text += [
            f"### {section}",
            "",
            "| what arrives | what happens | message | exit code |",
            "|---|---|---|---|",
        ]
        text += [f"| {r.what} | {r.happens} | {message_cell(r)} | {r.code} |" for r in rows]
        text.append("")
    return "\n".join(text)


def test_page_has_the_rows_of_the_test() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.split(MARK)[1] == table_text(), "python tests/badinput/write_page.py"
