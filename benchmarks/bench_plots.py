"""What pictures cost: the same field with and without them, CPU seconds of everything, and the report.

    python benchmarks/bench_plots.py [--direct] [--repeat N] [--out RESULTS_plots.md] [CONFIG]

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
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

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
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RESULTS_plots.md"))
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
        pictures_drawn, report_mb = _drawn(folder)
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
    result |= {"pictures": pictures_drawn, "report_MB": report_mb}
    print(json.dumps(result, indent=1))
    given.out.write_text(_page(result, given), encoding="utf-8")
    return 0 if cost["cpu"] <= BAR else 1


def _drawn(folder: Path) -> tuple[dict[str, int], float]:
    """How many pictures of which kind the last run left, and how large its report is, MB."""
    kinds: dict[str, int] = {}
    for path in (folder / "run").rglob("*.png"):
        name = path.stem
        for prefix in ("src_halo_", "src_", "zp_vs_mag__"):
            if name.startswith(prefix):
                name = f"{prefix}*"
                break
        kinds[name] = kinds.get(name, 0) + 1
    return dict(sorted(kinds.items())), (folder / "run" / "report.html").stat().st_size / 1e6


def _page(result: dict[str, Any], given: argparse.Namespace) -> str:
    """RESULTS_plots.md."""
    cpu, wall, cost = result["cpu_s"], result["wall_s"], result["cost_of_pictures"]
    field = (
        "The field of CONFIG"
        if given.config
        else "A simulated field of 1000 x 1000 pixels, six bands, default switches"
    )
    direct = ", --direct" if given.direct else ""
    spent = {name: s for name, s in result["drawing_cpu_s"].items() if name != "all"}
    rows = [f"| {name} | {s:.2f} |" for name, s in sorted(spent.items(), key=lambda item: -item[1])]
    counts = ", ".join(f"{n} {name}" for name, n in result["pictures"].items())
    return "\n".join(
        [
            "# What pictures and report cost",
            "",
            f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores (load "
            f"{os.getloadavg()[2]:.1f}); `python benchmarks/bench_plots.py --repeat {given.repeat}{direct}`.",
            f"{field}. The bar: {100 * BAR:.0f} % of the CPU time of the run without.",
            "",
            "| | without | with | cost |",
            "|---|---|---|---|",
            f"| CPU, all processes, s | {cpu['without']:.1f} | {cpu['with']:.1f} | {100 * cost['cpu']:.1f} % |",
            f"| wall, s | {wall['without']:.1f} | {wall['with']:.1f} | {100 * cost['wall']:.1f} % |",
            f"| drawing functions and report within the run with, CPU, s | | {sum(spent.values()):.1f} "
            f"| {100 * cost['within']:.1f} % of its rest |",
            "",
            f"The least of {given.repeat} runs each.",
            "",
            "| drawing function | CPU, s |",
            "|---|---|",
            *rows,
            "",
            f"{sum(result['pictures'].values())} pictures: {counts}. report.html: {result['report_MB']:.1f} MB.",
            "",
        ]
    )


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
