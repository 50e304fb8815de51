"""Print the page of the error messages: ``python docs/make_errors.py > docs/errors.md``.

Messages are read from the code, causes and cures stand here, by the part of the code that they come from.
"""

from __future__ import annotations

import ast
import builtins
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: First part of a module's path -> heading, cause, cure. The longest one that fits counts.
AREAS: dict[str, tuple[str, str, str]] = {
    "tract7dt/settings": (
        "Configuration",
        "A key, a value or the YAML itself is wrong.",
        "Correct the line that the message names; `tract7dt dump-config` shows every key with its range.",
    ),
    "flows/parameters": (
        "Parameters of a run",
        "A parameter does not fit the configuration.",
        "See the table of parameters in orchestration; all problems are listed at once.",
    ),
    "tract7dt/selection": (
        "A part of a field",
        "`--only` names a patch, cell or box that the field does not have.",
        "The message lists the form, and patches that there are.",
    ),
    "tract7dt/sources": (
        "Catalogue and Gaia table",
        "The table is missing, not of the expected form, or contradicts the images.",
        "Correct the rows or columns that the message names; see input files.",
    ),
    "tract7dt/frames": (
        "Images",
        "A file is missing, truncated, not FITS, or does not lie on the pixels of the others.",
        "Fetch the file again, or correct the keywords that the message names. A product: run load_inputs again.",
    ),
    "tract7dt/brightmask": (
        "Bright mask",
        "The mask of an earlier run is missing or damaged.",
        "`tract7dt run --refresh bright_mask`.",
    ),
    "tract7dt/psf": (
        "PSF",
        "A product of the ePSF stage is missing or was changed after it was written.",
        "`tract7dt run-epsf`, then run again.",
    ),
    "tract7dt/patches": (
        "Patches and payloads",
        "The division does not fit the frame, or a payload is damaged or of another version.",
        "Change `epsf.epsf_ngrid` or `epsf.ngrid` where the message says so; else run "
        "`tract7dt build-patches` and `build-patch-inputs` again.",
    ),
    "tract7dt/fit": (
        "The fit",
        "The engine is not there, or a payload holds what cannot be fitted.",
        "For the engine see installation; for a patch read its log and look at its payload in a FITS viewer.",
    ),
    "tract7dt/patch_pictures": (
        "Pictures of a patch",
        "The fit that is to be drawn is not whole.",
        "`tract7dt run --refresh run_patches --only PATCH`.",
    ),
    "tract7dt/catalog": (
        "Catalogue and zero point",
        "Fits of another catalogue, division or run lie in the folder, or a table is damaged.",
        "Run the fits again (`tract7dt run`), into an empty work_dir if two runs were mixed.",
    ),
    "tract7dt/qa": (
        "Report",
        "There is no catalogue yet, or it is damaged.",
        "Run the pipeline first.",
    ),
    "tract7dt/run_report": (
        "Report",
        "There is no catalogue yet, or it is damaged.",
        "Run the pipeline first.",
    ),
    "tract7dt/redraw": ("Pictures", "A product that is to be drawn is damaged.", "Run its stage again."),
    "tract7dt/reuse": (
        "Reuse and the lock",
        "Another run works in the same work_dir, or a record is not one of ours.",
        "Wait for it or end it. After a kill the lock is free by itself.",
    ),
    "tract7dt/store": (
        "Files and object stores",
        "A file or object is missing, changes while it is read, or its place refuses.",
        "Look at the address, the credentials (environment or ~/.aws) and the room on the disk; troubles of "
        "connections are tried again by themselves.",
    ),
    "tract7dt/publish": (
        "Publication",
        "The run is not complete, or the store does not hold what was sent.",
        "Finish the run, then publish again: what is there already is not sent twice.",
    ),
    "tract7dt/results": (
        "Published results",
        "No run fits what was asked for, or an object is missing or damaged.",
        "`tract7dt results list` shows what there is.",
    ),
    "tract7dt/sample": (
        "Sample data",
        "The download, the archive or the folder is not as expected.",
        "The message names the variable, file or option; `--force` replaces a sample field.",
    ),
    "tract7dt": (
        "Stages",
        "A product of an earlier step is missing, or a stage gave up.",
        "Run the command that the message names, or `tract7dt run`.",
    ),
    "flows/pool": (
        "Workers",
        "A worker process died, took too long or too much memory.",
        "Fewer workers (`runtime.max_workers`), more memory (`runtime.worker_memory_mb`) or time "
        "(`runtime.*_timeout_seconds`).",
    ),
    "flows": (
        "Commands and the Prefect server",
        "A folder cannot be written to, a runner is not installed, the server does not answer.",
        "As the message says; `--direct` needs no server.",
    ),
    "tasks": ("Tasks", "A stage failed.", "The message ends with the cause, which is listed here, too."),
}


@functools.cache
def messages() -> tuple[tuple[str, str, str], ...]:
    """``(module, exception, text)`` of every error that the code raises with a text of its own."""
    return tuple(_raised())


def _raised() -> Iterator[tuple[str, str, str]]:
    for root in ("tract7dt", "flows", "tasks"):
        for path in sorted((ROOT / root).rglob("*.py")):
            module = path.relative_to(ROOT).as_posix()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                    name = ast.unparse(node.exc.func).rsplit(".", 1)[-1]
                    if not hasattr(builtins, name) and name.endswith(("Error", "Locked", "Overdue")):
                        text = _text(node.exc.args[0])
                        if any(letter.isalpha() for letter in text.replace("…", "")):
                            yield module, name, text


def _text(node: ast.expr) -> str:
    """A message with an ellipsis for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join("…" if isinstance(v, ast.FormattedValue) else _text(v) for v in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join":
        first = node.args[0] if node.args else None
        return _text(first.elts[0]) + " …" if isinstance(first, ast.List) and first.elts else "…"
    return "…"


def area(module: str) -> tuple[str, str, str]:
    """Heading, cause and cure of a module's errors."""
    return AREAS[max((key for key in AREAS if module.startswith(key)), key=len)]


def page() -> str:
    """The page."""
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for module, name, text in messages():
        found.setdefault(area(module), {})[" ".join(text.split())] = name
    lines = [
        "# Every error message",
        "",
        "`…` stands for what is filled in: a file, a key, a value. ConfigError ends a command with exit code 2,",
        "every other error with 1; PatchError and ProductError of a patch cost that patch alone.",
    ]
    for (heading, cause, cure), texts in sorted(found.items()):
        lines += [
            "",
            f"## {heading}",
            "",
            f"Cause: {cause} Cure: {cure}",
            "",
            "| message | error |",
            "|---|---|",
        ]
        lines += [f"| `{_cell(text)}` | {name} |" for text, name in sorted(texts.items())]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'")


if __name__ == "__main__":
    sys.stdout.write(page())
