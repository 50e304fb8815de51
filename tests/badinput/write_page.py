"""Write the tables of docs/troubleshooting.md anew from the rows: ``python tests/badinput/write_page.py``."""

from __future__ import annotations

from test_badinput_table import MARK, PAGE, table_text

if __name__ == "__main__":
    head = PAGE.read_text(encoding="utf-8").split(MARK)[0]
    PAGE.write_text(head + MARK + table_text(), encoding="utf-8")
