"""What pictures cost: the same field with and without them, CPU seconds of everything, and the report.

    python benchmarks/bench_plots.py [--direct] [--repeat N] [CONFIG]

Without CONFIG a simulated field of 1000 x 1000 pixels in 6 bands with the default switches. "Without" means
that every drawing function of tract7dt.qa does nothing and the report is off. The bar: pictures may cost 25 %
of the run without them. Exit code 1 above it.

The CPU seconds of two runs can only be compared on a machine that is not busy: on one that is, a second does
less work. So those of the drawing functions and of the report are taken within the run, too, by kind;
``within`` is their share of the rest of the same run, and does not count what is loaded for them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BAR = 0.25

#: Imported by every Python of the run "without": the drawing functions are replaced when qa.draw is imported.
NO_PICTURES = """
import importlib.machinery, sys

class _Finder:
    def find_spec(self, name, path=None, target=None):
        if name not in ("tract7dt.qa.draw", "tract7dt.patch_pictures"):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            for each in dir(module):
                if each.startswith("draw_"):
                    setattr(module, each, lambda *args, **kwargs: None)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, _Finder())
"""


#: The same for the run "with": what each drawing function takes, not counting those that another one calls, is
#: added to a file of the process.
TIMED = """
import importlib.machinery, json, os, sys, time
_inside, _spent = [], {}

def _timed(name, call):
    def drawn(*args, **kwargs):
        if _inside:
            return call(*args, **kwargs)
        _inside.append(name)
        begin = time.process_time()
        try:
            return call(*args, **kwargs)
        finally:
            _inside.pop()
            _spent[name] = _spent.get(name, 0.0) + time.process_time() - begin
            with open(os.path.join(os.environ["BENCH_SPENT"], f"{os.getpid()}.json"), "w") as stream:
                json.dump(_spent, stream)
    return drawn

_WRAPPED = {
    "tract7dt.qa.draw": "draw_",
    "tract7dt.patch_pictures": "draw_fitted",
    "tract7dt.run_report": "make_report",
}

class _Finder:
    def find_spec(self, name, path=None, target=None):
        if name not in _WRAPPED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            for each in dir(module):
                if each.startswith(_WRAPPED[name]):
                    setattr(module, each, _timed(each, getattr(module, each)))
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, _Finder())
"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", type=Path)
    parser.add_argument("--direct", action="store_true", help="without Prefect, in one process")
    parser.add_argument("--repeat", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = given.config.resolve() if given.config else _field(folder)
        for name, text in (("off", NO_PICTURES), ("on", TIMED)):
            (folder / name).mkdir()
            (folder / name / "sitecustomize.py").write_text(text)
        spent: dict[str, list[tuple[float, float]]] = {"with": [], "without": []}
        kinds: list[dict[str, float]] = []
        _run(config, folder, True, given.direct)  # kernels are compiled, files are in memory
        for _ in range(given.repeat):
            for case, pictures in (("without", False), ("with", True)):
                spent[case].append(_run(config, folder, pictures, given.direct))
            kinds.append(_by_kind(folder) | {"all": spent["with"][-1][0]})
    cpu = {case: min(pair[0] for pair in pairs) for case, pairs in spent.items()}
    wall = {case: min(pair[1] for pair in pairs) for case, pairs in spent.items()}
    cost = {"cpu": cpu["with"] / cpu["without"] - 1, "wall": wall["with"] / wall["without"] - 1}
    best = min(kinds, key=lambda kind: kind["all"])
    drawing = sum(best.values()) - best["all"]
    cost["within"] = drawing / (best["all"] - drawing)
    result = {"cpu_s": cpu, "wall_s": wall, "drawing_cpu_s": best, "cost_of_pictures": cost, "bar": BAR}
    print(json.dumps(result, indent=1))
    return 0 if cost["cpu"] <= BAR else 1


def _by_kind(folder: Path) -> dict[str, float]:
    """CPU seconds of the drawing functions of the last run, all its processes together."""
    found: dict[str, float] = {}
    for path in (folder / "spent").glob("*.json"):
        for name, seconds in json.loads(path.read_text()).items():
            found[name] = found.get(name, 0.0) + seconds
    return found


def _field(folder: Path) -> Path:
    """The field of the bar."""
    from tract7dt.sample import SampleOptions, make_sample

    made = folder / "field"
    make_sample(made, SampleOptions(width=1000, height=1000, bands=6, seed=11))
    return made / "config.yaml"


def _run(config: Path, folder: Path, pictures: bool, direct: bool) -> tuple[float, float]:
    """CPU and wall seconds of a run from nothing; CPU of the run and of all its children."""
    work = folder / "run"
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(folder / "spent", ignore_errors=True)
    (folder / "spent").mkdir()
    path = [str(folder / ("on" if pictures else "off")), str(ROOT)]
    command = [
        sys.executable, "-m", "flows.cli", "run", "--config", str(config),
        "-o", f"outputs.work_dir={work}", "-o", f"report.enabled={str(pictures).lower()}",
    ]  # fmt: skip
    command += ["--direct"] if direct else []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "BENCH_SPENT": str(folder / "spent")}
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - clock
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    drawn = len(list(work.rglob("*.png")))
    if pictures and not _by_kind(folder):
        raise SystemExit("no drawing function was timed")
    if bool(drawn) is not pictures:
        raise SystemExit(f"{'no' if pictures else drawn} pictures were drawn where the opposite was wanted")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


if __name__ == "__main__":
    sys.exit(main())
