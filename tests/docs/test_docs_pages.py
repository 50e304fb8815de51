"""The documentation: every message has its cause, every page its place, and what it tells to type works."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from chromium import chromium

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def errors() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_errors", DOCS / "make_errors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_message_of_the_code_has_a_cause_and_a_cure(errors: ModuleType) -> None:
    found = errors.messages()
    assert len(found) > 200
    page = errors.page()
    assert (DOCS / "errors.md").read_text(encoding="utf-8") == page, (
        "python docs/make_errors.py > docs/errors.md"
    )
    for module, name, text in found:
        heading, cause, cure = errors.area(module)
        assert f"## {heading}" in page
        assert cause in page
        assert cure in page
        assert f"| `{errors._cell(' '.join(text.split()))}` | {name} |" in page, (module, text)


def test_messages_are_read_from_all_forms_that_the_code_uses(errors: ModuleType) -> None:
    texts = {text for _, _, text in errors.messages()}
    assert "inputs.gaiaxp_synphot_csv is not set; it is needed for Gaia stars and the zero point" in texts
    assert "…: missing; run load_inputs first" in texts
    assert "the images cannot be used: …" in texts, "a joined list"


def test_every_page_is_in_the_table_of_contents() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    named: list[str] = []
    for entry in nav:
        named += [entry] if isinstance(entry, str) else [page for pages in entry.values() for page in pages]
    pages = {path.name for path in DOCS.glob("*.md")} - {"outputs.head.md"}
    lacking = pages - set(named)
    assert not lacking, f"put {sorted(lacking)} into the nav of mkdocs.yml"
    assert not set(named) - pages


def test_every_command_is_in_its_page() -> None:
    from flows.cli import app

    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    for command in app.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")  # type: ignore[union-attr]
        assert f"`{name}`" in text, name


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages as ``make docs`` builds them; a warning is an error."""
    pytest.importorskip("material", reason="mkdocs-material is not installed (make docs installs it)")
    built = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(built)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return built


def test_documentation_builds_without_a_warning_and_asks_for_nothing_elsewhere(site: Path) -> None:
    pages = list(site.glob("*.html"))
    assert {page.stem for page in pages} >= {page.stem for page in DOCS.glob("*.md")} - {"outputs.head"}
    for page in pages:
        asked = re.findall(
            r"<(?:script|img|iframe|link)[^>]*?(?:src|href)=\"([^\"]+)", page.read_text("utf-8")
        )
        assert asked
        assert not [url for url in asked if "//" in url], page.name


@pytest.mark.slow  # a browser, seconds; the only thing that shows whether the search works from a disk
@pytest.mark.browser
def test_the_search_works_from_a_disk(site: Path, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile", (1280, 900)) as browser:
        browser.get((site / "index.html").as_uri())
        browser.find_element("css selector", ".md-search__form").click()
        browser.find_element("css selector", ".md-search__input").send_keys("compass")
        until = time.monotonic() + 30
        links: list[str] = []
        while not any("report.html" in link for link in links) and time.monotonic() < until:
            time.sleep(0.2)
            links = browser.execute_script(
                "return [...document.querySelectorAll('.md-search-result__item a')].map(a => a.href)"
            )
        assert any(link.startswith((site / "report.html").as_uri()) for link in links)
        assert [line["message"] for line in browser.get_log("browser")] == []


def _commands(folder: Path, home: Path) -> dict[str, str]:
    """An environment in which ``tract7dt`` and ``python`` are this checkout's, put into ``folder``."""
    folder.mkdir(parents=True)
    for name, rest in (("tract7dt", ' -m flows.cli "$@"'), ("python", ' "$@"')):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{rest}\n')
        (folder / name).chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(home)}


def _readme_blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)


def test_what_the_readme_makes_is_what_ci_makes() -> None:
    """Its ``make`` commands are lines of what CI runs on a fresh machine."""
    wanted = [line for block in _readme_blocks() for line in block.splitlines() if line.startswith("make ")]
    assert wanted == ["make demo", "make test"]
    assert set(wanted) <= set((ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines())


@pytest.mark.slow  # about 25 s of CPU: a run by the flow
def test_the_readme_runs_a_field(tmp_path: Path) -> None:
    """Its other block, in an empty folder; between its lines the four keys are filled in, here with a sample's."""
    (block,) = [block for block in _readme_blocks() if not block.startswith("make ")]
    first, second = block.strip().splitlines()
    environment = _commands(tmp_path / ".venv" / "bin", tmp_path / "home")
    sample = ["tract7dt", "make-sample", "sample", "--size", "260", "260", "--bands", "2"]
    for command in (
        ["sh", "-euc", first],
        sample,
        ["sh", "-euc", "cp -r sample/* . && mv config.yaml field.yaml"],
        ["sh", "-euc", second],
    ):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
        if command[-1] == first:
            assert "work_dir" in (tmp_path / "field.yaml").read_text(encoding="utf-8")
    assert (tmp_path / "run" / "output_catalog.csv").is_file()


@pytest.mark.slow  # about 40 s of CPU: one run by the flow, two without
def test_the_quick_start_does_what_it_says(tmp_path: Path) -> None:
    """Its shell blocks, one after the other, in an empty folder."""
    text = (DOCS / "quickstart.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    assert len(blocks) >= 6
    environment = _commands(tmp_path / "bin", tmp_path / "home")
    for block in blocks:
        done = subprocess.run(
            ["sh", "-euc", block], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    assert "MAG_" in done.stdout or (tmp_path / "field.yaml").is_file()
    assert (tmp_path / "field" / "run" / "report.html").is_file()
