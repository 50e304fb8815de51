"""Whatever arrives: the run says what is wrong, keeps what is good, and the table in the docs says the same."""

from __future__ import annotations

import re
from pathlib import Path

import badinput_folders  # noqa: F401 -- brings its rows
import badinput_images  # noqa: F401
import badinput_tables  # noqa: F401
import pytest
from badinput_field import TinyField, make_field
from badinput_page import FAULTS, INVARIANTS, PAGE, Fact, defined, examples, page_text
from badinput_rows import ROWS, Row
from badinput_run import run_command

ALL = [pytest.param(row, id=row.spoil.__name__) for rows in ROWS.values() for row in rows if not row.tested]
ELSEWHERE = [row.tested for rows in ROWS.values() for row in rows if row.tested]


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


def test_page_has_the_tables() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [test for test in ELSEWHERE if not defined(test)] == []
    assert page == page_text(page), "python tests/badinput/write_page.py"


@pytest.mark.parametrize("fact", [*FAULTS, *INVARIANTS], ids=lambda fact: fact.what[:40])
def test_facts_of_the_page_have_their_tests(fact: Fact) -> None:
    assert fact.tests
    assert [test for test in fact.tests if not defined(test)] == []
    if "{n}" in fact.how:
        assert all(examples(test) >= 25 for test in fact.tests)
