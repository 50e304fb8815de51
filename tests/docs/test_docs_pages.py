"""The documentation: every message has its cause, every page its place, and what it tells to type works."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

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
    assert len(found) > 400
    page = errors.page()
    assert (DOCS / "errors.md").read_text(encoding="utf-8") == page, (
        "python docs/make_errors.py > docs/errors.md"
    )
    causes = errors.read_causes()
    texts = errors.by_heading()
    for module, _, text in found:
        heading, _ = errors.area(module)
        shown = errors.shown(text)
        why = causes[heading, shown]
        assert why.cause
        assert why.cure
        row = " | ".join(errors._cell(t) for t in (f"`{shown}`", texts[heading][shown], why.cause, why.cure))
        assert f"## {heading}\n" in page
        assert f"\n| {row} |\n" in page, (module, text)


def test_messages_are_read_from_all_forms_that_the_code_uses(errors: ModuleType) -> None:
    texts = {text for _, _, text in errors.messages()}
    assert "inputs.gaiaxp_synphot_csv is not set; it is needed for Gaia stars and the zero point" in texts
    assert "…: missing; tract7dt run makes it" in texts
    assert "the images cannot be used: …" in texts, "a joined list"
    assert "must be odd" in texts, "a validator's ValueError"
    assert "… = …: expected …" in texts, "appended to a list of problems"
    assert "… differs by … …, allowed …" in texts, "a list of problems in one go"
    assert "… given; must be … … (…)" in texts, "a problem by its key"
    assert "holds a slash" in texts, "returned by a function that tells a problem"
    assert "…: no such bucket…; create it first, or correct the name" in texts, "made here, raised elsewhere"


def test_no_module_tells_a_list_of_problems_that_is_not_read(errors: ModuleType) -> None:
    for path in errors._modules():
        if re.search(r"\bproblems(\.append\(f?\"| \+?= \[\s*f?\")", path.read_text(encoding="utf-8")):
            module = path.relative_to(ROOT).as_posix()
            assert errors._longest(errors.PARTS, module), f"{module}: which error? Say it in PARTS"


def test_messages_without_an_entry_and_entries_without_a_message_are_named(errors: ModuleType) -> None:
    causes = errors.read_causes()
    errors.check(causes)
    gone, stays = list(causes)[:2]
    stale = ("Images", "…: a message that the code does not have")
    changed = {key: why for key, why in causes.items() if key != gone} | {stale: causes[stays]}
    with pytest.raises(errors.IncompleteCausesError) as told:
        errors.check(changed)
    assert f"no entry: {': '.join(gone)}" in str(told.value)
    assert f"no such message: {': '.join(stale)}" in str(told.value)
    assert ": ".join(stays) not in str(told.value)


def test_an_entry_without_a_cure_and_one_that_comes_twice_are_named(
    errors: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "causes.yaml"
    entries = [{"messages": ["a", "b"], "cause": "It rains."}, {"messages": ["a"], "cause": "c", "cure": "d"}]
    path.write_text(yaml.safe_dump({"Weather": entries}))
    with pytest.raises(errors.IncompleteCausesError) as told:
        errors.read_causes(path)
    for line in ("no cause or no cure: Weather: a", "no cause or no cure: Weather: b", "twice: Weather: a"):
        assert line in str(told.value)


def test_cures_name_keys_commands_options_and_variables_that_there_are(errors: ModuleType) -> None:
    from typer.main import get_command

    from flows.cli import app
    from flows.parameters import Stage
    from tract7dt.settings import describe, key_table

    def below(command: Any) -> Iterator[Any]:
        yield command
        for inner in getattr(command, "commands", {}).values():
            yield from below(inner)

    commands = list(below(get_command(app)))
    names = {command.name for command in commands}
    options = {"--help"} | {opt for command in commands for each in command.params for opt in each.opts}
    code = "".join(
        p.read_text("utf-8") for root in ("tract7dt", "flows") for p in (ROOT / root).rglob("*.py")
    )
    sections = "|".join(section.path for section in describe())
    keys = set(key_table()) | {"checks.wcs_tolerance"}  # a section within one
    for (heading, message), why in errors.read_causes().items():
        text = f"{why.cause} {why.cure}"
        for span in re.findall(r"`([^`]+)`", text):
            for key in re.findall(rf"(?:^|\s|')((?:{sections})\.[a-z_.]+)", span):
                assert key in keys or key.endswith((".fits", ".json")), (heading, message, key)
            for name in re.findall(r"tract7dt ((?:results )?[a-z-]+)", span):
                assert set(name.split()) <= names, (heading, message, name)
            if not span.startswith(("pip", "python", "prefect", "iconv", "ls", "head")):
                for option in re.findall(r"(?:^|\s)(--?[a-z][a-z-]*)", span):
                    assert option in options, (heading, message, option)
            for stage in re.findall(r"--refresh (\w+)", span):
                assert stage in (*get_args(Stage), "STAGE"), (heading, message, stage)
        for name in re.findall(r"\b(?:TRACT7DT|AWS|PREFECT)_[A-Z_]+", text):
            assert name in code, (heading, message, name)


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
