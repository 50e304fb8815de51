"""The blocks of docs/deployment.md, run as a new operator would, in a home that holds nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from nightly_site import ROOT, free_port, site_environment

PAGE = ROOT / "docs" / "deployment.md"


def blocks() -> list[tuple[str, str]]:
    """Mark and text of each block of the page."""
    return re.findall(r"^```(sh[^\n]*)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


def test_the_page_has_blocks_that_anybody_can_run() -> None:
    marks = [mark for mark, _ in blocks()]
    assert set(marks) == {"sh", "sh root"}
    assert marks.count("sh") >= 8
    text = "".join(text for mark, text in blocks() if mark == "sh")
    assert "sudo" not in text
    for command in (
        "make-sample",
        "check-field",
        "serve",
        "deploy",
        "results get",
        "prefect --no-prompt deploy --all",
    ):
        assert command in text


@pytest.mark.slow
def test_the_page_works_command_by_command(tmp_path: Path) -> None:
    home = tmp_path / "home"
    tools = tmp_path / "bin"
    home.mkdir()
    tools.mkdir()
    for name, module in (("tract7dt", "flows.cli"), ("prefect", "prefect")):
        (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        (tools / name).chmod(0o755)
    environment = site_environment(home)
    environment |= {"HOME": str(home), "PATH": f"{tools}:{environment['PATH']}", "NO_COLOR": "1"}
    script = ["set -e", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for number, (mark, text) in enumerate(blocks()):
        if mark == "sh":
            script += [f"echo '### block {number}'", text]
    ran = subprocess.run(
        ["bash", "-c", "\n".join(script).replace("4200", str(free_port()))],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    log = home / "site" / "serve.log"
    told = f"{ran.stdout}\n{ran.stderr}\n{log.read_text(errors='replace') if log.exists() else ''}"
    assert ran.returncode == 0, told
    assert "fail  images" in ran.stdout
    assert "it would not run" in ran.stdout
    assert "it failed, as foretold" in ran.stdout
    fetched = sorted(path.name for path in (home / "fetched").rglob("output_catalog.*"))
    assert fetched == ["output_catalog.csv", "output_catalog.fits", "output_catalog.parquet"]
    assert re.search(r"(\d+) of \1 files are sound", ran.stdout)
    assert re.search(r"SIM6\s.*latest", ran.stdout)
    assert ran.stdout.count("tract7dt: a zero point jumped") == 1
    assert "0 runs would lose files" in ran.stdout
