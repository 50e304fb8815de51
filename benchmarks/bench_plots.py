"""What pictures cost: the same field with and without them, CPU seconds of everything, and the report.

    python benchmarks/bench_plots.py [--direct] [--repeat N] [CONFIG]

Without CONFIG a simulated field of 1000 x 1000 pixels in 6 bands with the default switches. "Without" means
that every drawing function of tract7dt.qa does nothing and the report is off. The bar: pictures may cost 25 %
of the run without them. Exit code 1 above it.
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

#: Imported by every Python of the run "without": the drawing functions are replaced when qa is imported.
NO_PICTURES = """
import importlib.machinery, sys

class _Finder:
    def find_spec(self, name, path=None, target=None):
        if name not in ("tract7dt.qa", "tract7dt.patch_pictures"):
            return None
        sys.meta_path.remove(self)
        try:
            import importlib.util
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
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
        (folder / "off").mkdir()
        (folder / "off" / "sitecustomize.py").write_text(NO_PICTURES)
        spent: dict[str, list[tuple[float, float]]] = {"with": [], "without": []}
        _run(config, folder, True, given.direct)  # kernels are compiled, files are in memory
        for _ in range(given.repeat):
            for case, pictures in (("without", False), ("with", True)):
                spent[case].append(_run(config, folder, pictures, given.direct))
    cpu = {case: min(pair[0] for pair in pairs) for case, pairs in spent.items()}
    wall = {case: min(pair[1] for pair in pairs) for case, pairs in spent.items()}
    cost = {"cpu": cpu["with"] / cpu["without"] - 1, "wall": wall["with"] / wall["without"] - 1}
    print(json.dumps({"cpu_s": cpu, "wall_s": wall, "cost_of_pictures": cost, "bar": BAR}, indent=1))
    return 0 if cost["cpu"] <= BAR else 1


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
    path = [str(ROOT)] if pictures else [str(folder / "off"), str(ROOT)]
    command = [
        sys.executable, "-m", "flows.cli", "run", "--config", str(config),
        "-o", f"outputs.work_dir={work}", "-o", f"report.enabled={str(pictures).lower()}",
    ]  # fmt: skip
    command += ["--direct"] if direct else []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - clock
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    drawn = len(list(work.rglob("*.png")))
    if bool(drawn) is not pictures:
        raise SystemExit(f"{'no' if pictures else drawn} pictures were drawn where the opposite was wanted")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


if __name__ == "__main__":
    sys.exit(main())
