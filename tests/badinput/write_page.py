"""Write the tables of docs/troubleshooting.md anew: ``python tests/badinput/write_page.py``."""

from __future__ import annotations

import test_badinput_table  # noqa: F401 -- brings all rows
from badinput_page import PAGE, page_text

if __name__ == "__main__":
    PAGE.write_text(page_text(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
