"""Print the page of the error messages: ``python docs/make_errors.py > docs/errors.md``.

Messages are read from the code, their causes and cures from ``error_causes.yaml``, which must have one of each.
"""

from __future__ import annotations

import ast
import builtins
import functools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parent.parent
CAUSES = ROOT / "docs" / "error_causes.yaml"

#: First part of a module's path -> heading and a sentence. The longest one that fits counts.
AREAS: dict[str, tuple[str, str]] = {
    "tract7dt/settings": (
        "Configuration",
        "The message begins with file, line and key. All problems are told at once; `tract7dt dump-config` prints "
        "every key with its range.",
    ),
    "flows/parameters": ("Parameters of a run", "Options of `tract7dt run`, or parameters of the flow."),
    "tract7dt/selection": ("A part of a field", "Of `--only`, or of the parameter `only`."),
    "tract7dt/sources": ("Catalogue and Gaia table", "What the tables need is in [input files](inputs.md)."),
    "tract7dt/frames": ("Images", "What the images need is in [input files](inputs.md)."),
    "tract7dt/brightmask": ("Bright mask", "The mask is `bright_mask.fits` in `work_dir`."),
    "tract7dt/psf": ("PSF", "Products of `tract7dt run-epsf`, in `outputs.epsf_dir`."),
    "tract7dt/patches": (
        "Patches and payloads",
        "The division is in `outputs.patches_dir`, the payloads are in `outputs.patch_inputs_dir`.",
    ),
    "tract7dt/fit": (
        "The fit",
        "PatchError costs one patch: its sources stay in the catalogue without a fit.",
    ),
    "tract7dt/patch_pictures": ("Pictures of a patch", "The catalogue does not depend on them."),
    "tract7dt/catalog": ("Catalogue and zero point", "From the fits in `outputs.tractor_out_dir`."),
    "tract7dt/qa": ("Report", "The report is made from what is in `work_dir`."),
    "tract7dt/run_report": ("Report", "The report is made from what is in `work_dir`."),
    "tract7dt/redraw": ("Pictures", "The catalogue does not depend on them."),
    "tract7dt/reuse": ("Reuse and the lock", "A run keeps what is whole and up to date in `work_dir`."),
    "tract7dt/store": (
        "Files and object stores",
        "A store that does not answer is asked four times; a run then tries the stage again, as `runtime.retries` "
        "says.",
    ),
    "tract7dt/publish": (
        "Publication",
        "What is published already is not sent twice: a cure ends with the same `tract7dt run` again.",
    ),
    "tract7dt/results": ("Published results", "Commands are in [fetching results](results.md)."),
    "tract7dt/sample": ("Sample data", "Commands are in [sample data](sample_data.md)."),
    "tract7dt": (
        "Stages",
        "A whole `tract7dt run` makes what is missing; a step command needs what goes before it.",
    ),
    "flows/pool": ("Workers", "Processes that fit patches and build ePSFs."),
    "flows": ("Commands and the Prefect server", "Sites and deployments are in [deployment](deployment.md)."),
    "tasks": ("Tasks", "What a stage raised, as the server shows it."),
}

#: Modules that tell problems in a list, of which one error is made: the error, and whether their ValueErrors are
#: told in it, too. The longest one that fits counts.
PARTS: dict[str, tuple[str, bool]] = {
    "flows/fields": ("ConfigError", True),
    "flows/parameters": ("ConfigError", False),
    "flows/pool/batch": ("PatchError", False),
    "tract7dt/catalog": ("ProductError", False),
    "tract7dt/fit": ("PatchError", False),
    "tract7dt/fit/tractor": ("ConfigError", False),
    "tract7dt/frames": ("InputError", False),
    "tract7dt/patches": ("ProductError", False),
    "tract7dt/publish/contents": ("ProductError", False),
    "tract7dt/publish/manifest": ("StoreError", True),
    "tract7dt/sample": ("SampleError", False),
    "tract7dt/selection": ("ConfigError", True),
    "tract7dt/settings": ("ConfigError", True),
    "tract7dt/sources": ("InputError", False),
    "tract7dt/store/urls": ("ConfigError", False),
}
#: Errors that are told as another one.
_SAID_AS = {"_CacheError": "StoreError"}
#: What such lists (and what a patch is recorded with) are called, and functions that return one or one problem.
_LISTS = ("problems", "lacking", "wrong", "reason")
_TELLING = re.compile(r"_problems?$|_fault$|^_(unrelated|incomplete)$")

#: The first column holds sentences here, not names that are to stay whole (pages.css).
_STYLE = """\
<style>
.md-typeset table:not([class]) td:first-child code { white-space: normal; }
.md-typeset table:not([class]) td:first-child { min-width: 13rem; }
.md-typeset table:not([class]) td:nth-child(n + 3) { min-width: 10rem; }
</style>"""


class Cause(NamedTuple):
    """Why a message comes, and what to do."""

    cause: str
    cure: str


class IncompleteCausesError(Exception):
    """Messages without an entry, or entries without a message."""


@functools.cache
def messages() -> tuple[tuple[str, str, str], ...]:
    """``(module, exception, text)`` of every error that the code tells with a text of its own."""
    return tuple(found for path in _modules() for found in _told(path))


def _modules() -> Iterator[Path]:
    for root in ("tract7dt", "flows", "tasks"):
        yield from sorted((ROOT / root).rglob("*.py"))


def _told(path: Path) -> Iterator[tuple[str, str, str]]:
    module = path.relative_to(ROOT).as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        # Raised here, or made here and raised elsewhere.
        if isinstance(node, ast.Call) and node.args:
            name = ast.unparse(node.func).rsplit(".", 1)[-1]
            if not hasattr(builtins, name) and name.endswith(("Error", "Locked", "Overdue")):
                text = _text(node.args[0])
                if any(letter.isalpha() for letter in text):
                    yield module, _SAID_AS.get(name, name), text
    found = _longest(PARTS, module)
    if found is None:
        return
    error, with_values = PARTS[found]
    for text in _problems(tree, with_values):
        words = re.findall(r"[^\W\d_]{2,}", text)
        # A single word names a thing; it does not say what is wrong with it.
        if len(words) > 1 or (words and re.search("[:=]", text)):
            yield module, error, text


def _problems(tree: ast.AST, with_values: bool) -> Iterator[str]:
    """Texts of the lists of problems of a module and, if they are told, of its ValueErrors."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "append":
            if _is_list(node.func.value):
                yield from _texts(node.args[0])
        elif isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(node, ast.Assign) and isinstance(target, ast.Subscript):
                target = target.value  # problems by their key
            if _is_list(target):
                yield from _texts(node.value)
        elif isinstance(node, ast.FunctionDef) and _TELLING.search(node.name):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    yield from _texts(inner.value)
        elif with_values and isinstance(node, ast.Call) and ast.unparse(node.func) == "ValueError":
            yield from _texts(node.args[0])


def _is_list(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in _LISTS


def _texts(node: ast.expr) -> Iterator[str]:
    """Problems in a list, or in what is appended to one: a text, or a tuple that ends with it."""
    if isinstance(node, ast.List):
        for inner in node.elts:
            yield from _texts(inner)
    elif isinstance(node, ast.Tuple):
        yield from _texts(node.elts[-1])
    elif isinstance(node, ast.ListComp):
        yield from _texts(node.elt)
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
    else:
        yield _text(node)


def _text(node: ast.expr) -> str:
    """A message with an ellipsis for what is filled in."""
    return re.sub("…+", "…", _joined(node))


def _joined(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else "…"
    if isinstance(node, ast.JoinedStr):
        return "".join("…" if isinstance(v, ast.FormattedValue) else _joined(v) for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _joined(node.left) + _joined(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "rstrip":
            return _joined(node.func.value)
        first = node.args[0] if node.args else None
        if node.func.attr == "join" and isinstance(first, ast.List) and first.elts:
            return _joined(first.elts[0]) + " …"
    return "…"


def _longest(keys: Iterable[str], module: str) -> str | None:
    return max((key for key in keys if module.startswith(key)), key=len, default=None)


def area(module: str) -> tuple[str, str]:
    """Heading and sentence of a module's errors."""
    return AREAS[_longest(AREAS, module) or ""]


def shown(text: str) -> str:
    """A message as the page and the file of the causes have it."""
    return " ".join(text.split()).replace("`", "'")


def by_heading() -> dict[str, dict[str, str]]:
    """Heading -> message as it is shown -> its error."""
    found: dict[str, dict[str, set[str]]] = {}
    for module, name, text in messages():
        found.setdefault(area(module)[0], {}).setdefault(shown(text), set()).add(name)
    return {
        heading: {text: ", ".join(sorted(names)) for text, names in sorted(texts.items())}
        for heading, texts in sorted(found.items())
    }


def read_causes(path: Path = CAUSES) -> dict[tuple[str, str], Cause]:
    """``(heading, message)`` -> its cause and cure, from the file of the causes.

    Raises
    ------
    IncompleteCausesError
        A message comes twice, or an entry lacks something.
    """
    found: dict[tuple[str, str], Cause] = {}
    wrong = []
    for heading, entries in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        for entry in entries:
            cause = Cause(*(" ".join(str(entry.get(key) or "").split()) for key in Cause._fields))
            for text in entry["messages"]:
                if (heading, text) in found:
                    wrong.append(f"twice: {heading}: {text}")
                if not all(cause):
                    wrong.append(f"no cause or no cure: {heading}: {text}")
                found[heading, text] = cause
    if wrong:
        raise IncompleteCausesError("\n".join([f"{path}:", *wrong]))
    return found


def check(causes: Mapping[tuple[str, str], Cause]) -> None:
    """Raise IncompleteCausesError unless messages of the code and entries are the same."""
    there = {(heading, text) for heading, texts in by_heading().items() for text in texts}
    wrong = [f"no entry: {heading}: {text}" for heading, text in sorted(there - set(causes))]
    wrong += [f"no such message: {heading}: {text}" for heading, text in sorted(set(causes) - there)]
    if wrong:
        raise IncompleteCausesError("\n".join([f"{CAUSES}:", *wrong]))


def page() -> str:
    """The page."""
    causes = read_causes()
    check(causes)
    about = dict(AREAS.values())
    lines = [
        "# Every error message",
        "",
        "<!-- Generated by `python docs/make_errors.py > docs/errors.md` from the code and error_causes.yaml;",
        "do not edit. -->",
        "",
        _STYLE,
        "",
        "`…` stands for what is filled in: a file, a key, a value; of a list of problems each has its own row.",
        "ConfigError ends a command with exit code 2, every other error with 1; PatchError and ProductError",
        "of a patch cost that patch alone.",
    ]
    for heading, texts in by_heading().items():
        lines += ["", f"## {heading}", "", about[heading], ""]
        lines += ["| message | error | cause | cure |", "|---|---|---|---|"]
        for text, name in texts.items():
            why = causes[heading, text]
            cells = (f"`{text}`", name, why.cause, why.cure)
            lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    try:
        sys.stdout.write(page())
    except IncompleteCausesError as error:
        sys.exit(str(error))
