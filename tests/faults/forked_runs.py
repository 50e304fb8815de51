"""Runs of the command in forked children of one process, so that each costs a run and no imports.

``python forked_runs.py FOLDER KIND STEP`` prints one JSON object a case. A child dies of SIGKILL (or its clock
jumps a day back) at the moment at which it would put a finished file in its place (``Path.replace``): at the
first of these, and every STEP-th after it to the end of the run, so that every stage is met, between any two of
its products. Kind ``full``: the disk has room for so many kB alone, in steps of STEP.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "badinput"))

from badinput_field import TinyField, make_field
from badinput_run import Ended, run_command

DIVISION: dict[str, dict[str, Any]] = {
    "epsf": {"epsf_ngrid": 1, "ngrid": 2},
    "patches": {"halo_pix_min": 4},
    "inputs": {"gaiaxp_synphot_csv": "gaia.csv"},
    "zp": {"enabled": True},
}


def forked(tiny: TinyField, before: Callable[[], object] = lambda: None) -> tuple[int, str]:
    """Run the command in a child; ``before`` changes the child's world. Exit code (negative: signal), words."""
    said = Path(tempfile.gettempdir()) / f"forked-{os.getpid()}.txt"  # not where the disk is full
    said.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        code = 99
        with contextlib.suppress(BaseException):
            before()
            ended: Ended = run_command(tiny)
            said.write_text(ended.terminal, encoding="utf-8")
            code = ended.code
        os._exit(code)
    _, status = os.waitpid(child, 0)
    words = said.read_text(encoding="utf-8") if said.exists() else ""
    said.unlink(missing_ok=True)
    return os.waitstatus_to_exitcode(status), words


def at_replacement(number: int, act: Callable[[], None]) -> None:
    """Do ``act`` when a file is put in its place for the ``number``-th time."""
    real, count = Path.replace, 0

    def replace(self: Path, target: Any) -> Path:
        nonlocal count
        count += 1
        if count == number:
            act()
        return real(self, target)

    Path.replace = replace  # type: ignore[method-assign]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def clock_back() -> None:
    real = time.time
    time.time = lambda: real() - 86400.0


def fits_in_place(tiny: TinyField) -> dict[str, tuple[int, int]]:
    """Identity of each finished fit: it changes when a patch is fitted again."""
    found = {}
    for path in tiny.work.glob("outputs/*/meta.json"):
        stat = path.stat()
        found[path.parent.name] = (stat.st_ino, stat.st_mtime_ns)
    return found


def stage_of(tiny: TinyField) -> str:
    """The stage at which the record of the run stopped."""
    summary = tiny.work / "run_summary.json"
    if not summary.exists():
        return "before the first stage"
    stages = json.loads(summary.read_text())["stages"]
    running = [entry["name"] for entry in stages if entry["status"] not in ("done", "cached", "skipped")]
    return running[0] if running else f"after {stages[-1]['name']}" if stages else "before the first stage"


def after(tiny: TinyField, code: int, terminal: str) -> dict[str, Any]:
    """What a run with a fault has left, and the run after it."""
    stopped, finished = stage_of(tiny), fits_in_place(tiny)
    again, words = forked(tiny)
    now = fits_in_place(tiny)
    catalogue = tiny.work / "output_catalog.csv"
    return {
        "code": code,
        "terminal": terminal[-2000:],
        "stopped": stopped,
        "finished": len(finished),
        "refitted": [tag for tag, identity in finished.items() if now.get(tag) != identity],
        "again": again,
        "words": words[-2000:],
        "temporaries": [str(path) for path in tiny.work.rglob(".*.tmp*")],
        "catalogue": catalogue.read_text() if catalogue.exists() else "",
    }


def replaced(tiny: TinyField, act: Callable[[], None], number: int) -> dict[str, Any]:
    """``act`` when a file is put in its place for the ``number``-th time."""
    return after(tiny, *forked(tiny, lambda: at_replacement(number, act)))


def full(tiny: TinyField, kilobytes: int) -> dict[str, Any]:
    """A disk with so much room; then the room comes back. Needs a file system of one's own around the field."""
    filler = tiny.folder / "filler"
    room = os.statvfs(tiny.folder)
    with filler.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, room.f_bavail * room.f_frsize - kilobytes * 1024)
    result = forked(tiny)
    filler.unlink()
    return after(tiny, *result)


def healthy_run(folder: Path) -> dict[str, Any]:
    """A run without a fault, how many files it puts in their places and how much room it takes, kB."""
    log = folder / "replacements"

    def count() -> None:
        real = Path.replace

        def replace(self: Path, target: Any) -> Path:
            with log.open("a") as stream:
                stream.write(f"{target}\n")
            return real(self, target)

        Path.replace = replace  # type: ignore[method-assign]

    run_command(field_in(folder / "warm"))  # what is imported and compiled now need not be in each child
    tiny = field_in(folder / "healthy")
    code, words = forked(tiny, count)
    sizes = [path.stat().st_blocks // 2 for path in tiny.work.rglob("*")]
    return {
        "code": code,
        "words": words[-2000:],
        "replacements": len(log.read_text().splitlines()),
        "kilobytes": sum(sizes),
        "catalogue": (tiny.work / "output_catalog.csv").read_text(),
    }


def field_in(folder: Path) -> TinyField:
    tiny = make_field(folder / "field")
    tiny.config(DIVISION)
    return tiny


def main() -> None:
    """``forked_runs.py FOLDER kill|clock|full STEP``."""
    folder, kind, step = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    healthy = healthy_run(folder)
    print(json.dumps(healthy), flush=True)
    last = healthy["kilobytes"] if kind == "full" else healthy["replacements"]
    for number in range(1 if kind != "full" else 8, last + 1, step):
        place = folder / f"{kind}_{number}"
        tiny = field_in(place)
        made = full(tiny, number) if kind == "full" else replaced(tiny, ACTS[kind], number)
        print(json.dumps({"number": number} | made), flush=True)
        shutil.rmtree(place)


ACTS = {"kill": die, "clock": clock_back}


if __name__ == "__main__":
    main()
