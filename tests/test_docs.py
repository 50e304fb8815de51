from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_page_of_the_outputs_is_the_generated_one():
    page = subprocess.run(
        [sys.executable, DOCS / "make_outputs.py"], capture_output=True, text=True, check=True
    ).stdout
    assert (DOCS / "outputs.md").read_text(encoding="utf-8") == page, (
        "python docs/make_outputs.py > docs/outputs.md"
    )


@pytest.mark.parametrize(
    "page", [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda p: p.name
)
def test_every_relative_link_leads_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
