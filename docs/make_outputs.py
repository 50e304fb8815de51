"""Print the page of the outputs: ``python docs/make_outputs.py > docs/outputs.md``.

The text is outputs.head.md, the tables behind it come from the code.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tract7dt.flags import flags_markdown
from tract7dt.schema import columns_markdown


def main() -> None:
    """Print the page."""
    head = (Path(__file__).parent / "outputs.head.md").read_text(encoding="utf-8")
    tables = f"{flags_markdown().strip()}\n\n## Columns of the catalogue\n{columns_markdown().rstrip()}\n"
    sys.stdout.write(head + tables)


if __name__ == "__main__":
    main()
