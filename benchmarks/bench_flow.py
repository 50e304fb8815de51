"""Benchmark of the orchestration: ``python benchmarks/bench_flow.py [--quick] [--out RESULTS_flow.md]``.

What Prefect and the pool of workers cost: a field of 1000 x 1000 pixels and six bands by the flow and by
``--direct``; thousands of patches that cost nothing, by the flow and by the pool alone.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
sys.path[:0] = [str(HERE.parent), str(HERE)]

import trivial_stages  # noqa: E402 - after the thread counts

from flows import server  # noqa: E402
from tract7dt import stages  # noqa: E402
from tract7dt.batches import LONGEST_S  # noqa: E402
from tract7dt.fit.warm import warm_up  # noqa: E402
from tract7dt.progress import open_folder  # noqa: E402
from tract7dt.settings import settings_from_dict  # noqa: E402
from tract7dt.store import ref_to, write_json, write_text  # noqa: E402
from tract7dt.types import Ref  # noqa: E402

stages.fit_patch_batch = trivial_stages.fit_patch_batch  # before anything imports the tasks

#: Pictures would hide a part of what is measured.
NO_PICTURES = ("patch_run.no_patch_overview=true", "patch_run.no_cutouts=true", "overlay.zoom_enabled=false")

#: As it is without a word about workers in the configuration.
DEFAULT = "flow, own server, a worker for each core"

#: CPU seconds of work that the program puts into a batch (``tract7dt.batches``), but for the last ones.
BATCH_S = LONGEST_S


@dataclasses.dataclass(frozen=True)
class Cost:
    """Seconds of a command or a block, its children included."""

    wall: float
    cpu: float


def run(*command: str) -> Cost:
    """Cost of a ``tract7dt`` command."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: {said.decode()[-2000:]}")
    return Cost(time.perf_counter() - begun, used.ru_utime + used.ru_stime)


@contextlib.contextmanager
def own_server(folder: Path) -> Iterator[tuple[float, int]]:
    """A server for all runs; the seconds that it took to start, and its process id."""
    os.environ["PREFECT_HOME"] = str(folder / "home")
    os.environ.update(server.quiet_environment())
    begun = time.perf_counter()
    local = server.LocalServer(folder / "server.log")
    with local.running():
        local.wait_until_ready()
        os.environ["PREFECT_API_URL"] = local.url
        assert local._process is not None
        yield time.perf_counter() - begun, local._process.pid


@dataclasses.dataclass
class Field:
    """What the field cost, in each of its ways."""

    costs: dict[str, list[Cost]]
    #: Seconds of the flow runs themselves, as the UI shows them: first and second of each pair.
    flow_runs: list[tuple[float, float]]
    #: Seconds of wall until a server answers that is started where one was before, as a run starts its own.
    server_start: list[float]
    same: bool = True

    def best(self, kind: str) -> Cost:
        """The least wall time and the least CPU time."""
        return Cost(min(c.wall for c in self.costs[kind]), min(c.cpu for c in self.costs[kind]))


def field_costs(folder: Path, repeats: int) -> Field:
    """Costs of the field, by flow and directly; whether the catalogues are the same.

    With one worker, as ``--direct`` works in one process, and with the default, a worker for each core.
    """
    there = folder / "field"
    run("make-sample", str(there), "--size", "1000", "1000", "--bands", "6", "--seed", "11")
    [config] = there.glob("*.yaml")
    kinds = ("direct", "flow", "flow, own server", DEFAULT)
    field = Field({f"{kind}{again}": [] for kind in kinds for again in ("", ", nothing changed")}, [], [])
    catalogues = set()
    warm_up()  # what is compiled here is found compiled there
    with own_home(folder / "second_home"):
        start_of_a_server(folder)  # makes the database
    for i in range(repeats):
        for kind in kinds:
            work = folder / f"{kind}{i}"
            workers = () if kind == DEFAULT else ("runtime.max_workers=1",)
            options = (f"outputs.work_dir={work}", *workers, *NO_PICTURES)
            more = ["--direct"] if kind == "direct" else []
            more += [part for option in options for part in ("-o", option)]
            alone = own_home(folder / "second_home") if "own" in kind else contextlib.nullcontext()
            seconds = []
            with alone:
                for again in ("", ", nothing changed"):
                    field.costs[kind + again].append(run("run", "--config", str(config), *more))
                    if kind == "flow":
                        seconds.append(seconds_of_the_flow(work))
                if kind == "flow, own server":
                    field.server_start.append(start_of_a_server(folder))
            if kind == "flow":
                field.flow_runs.append((seconds[0], seconds[1]))
            catalogues.add((work / "output_catalog.csv").read_bytes())
    field.same = len(catalogues) == 1
    return field


@contextlib.contextmanager
def own_home(home: Path) -> Iterator[None]:
    """No server is known within the block, and Prefect's home is another."""
    kept = {name: os.environ[name] for name in ("PREFECT_API_URL", "PREFECT_HOME")}
    del os.environ["PREFECT_API_URL"]
    os.environ["PREFECT_HOME"] = str(home)
    try:
        yield
    finally:
        os.environ.update(kept)


def start_of_a_server(folder: Path) -> float:
    """Seconds until a server answers."""
    begun = time.perf_counter()
    local = server.LocalServer(folder / "another_server.log")
    with local.running():
        local.wait_until_ready()
        return time.perf_counter() - begun


def seconds_of_the_flow(work_dir: Path) -> float:
    """How long the last flow run took, by the server."""
    run_id = json.loads((work_dir / "run_summary.json").read_text())["run_id"]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{os.environ['PREFECT_API_URL']}/flow_runs/{run_id}", timeout=10) as answer:
        return float(json.load(answer)["total_run_time"])


def trivial(folder: Path, n_patches: int) -> tuple[Any, list[Ref]]:
    """Settings, and payloads that hold nothing."""
    settings = settings_from_dict(
        {
            "inputs": {"tile_name": "trivial", "input_catalog": "c.csv", "image_list_file": "l.txt"},
            "outputs": {"work_dir": str(folder / "trivial")},
            "runtime": {"max_workers": 2},
        },
        base_dir=folder,
    ).settings
    refs = []
    for i in range(n_patches):
        path = folder / "trivial" / "payloads" / f"p{i:05d}.fits"
        write_text(path, "")
        refs.append(ref_to(path, "payload"))
    return settings, refs


def cpu_of(pid: int) -> float:
    """CPU seconds of a running process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def timed(costs: list[Cost], server_pid: int) -> Iterator[None]:
    """Append the cost of the block in this process and in that of the server."""
    wall, cpu, there = time.perf_counter(), time.process_time(), cpu_of(server_pid)
    yield
    spent = time.process_time() - cpu + cpu_of(server_pid) - there
    costs.append(Cost(time.perf_counter() - wall, spent))


def pool_costs(
    folder: Path, server_pid: int, n_patches: int, per_task: list[int]
) -> tuple[Cost, dict[int, tuple[int, Cost]]]:
    """Cost of all patches by two workers of the bare pool; by the flow, for several sizes of a batch."""
    from flows.patches import run_patches
    from flows.pool import pool_for
    from flows.runners import task_runner

    settings, refs = trivial(folder, n_patches)
    bare: list[Cost] = []
    found: dict[int, tuple[int, Cost]] = {}
    with open_folder(settings.outputs.work_dir), pool_for(settings) as pool:
        assert pool is not None
        with ThreadPoolExecutor(2) as threads:  # workers warm
            list(
                threads.map(
                    lambda part: pool.fit(part, trivial_stages.fit_patch_batch), (refs[:1], refs[1:2])
                )
            )
        with timed(bare, server_pid), ThreadPoolExecutor(2) as threads:
            halves = (refs[::2], refs[1::2])
            list(threads.map(lambda part: pool.fit(part, trivial_stages.fit_patch_batch), halves))
        for size in per_task:
            batches = [refs[i : i + size] for i in range(0, n_patches, size)]
            path = folder / "trivial" / "batches.json"
            write_json(path, [[dataclasses.asdict(ref) for ref in batch] for batch in batches])
            runner = task_runner(settings, "patches", len(batches))
            costs: list[Cost] = []
            with timed(costs, server_pid):
                fits = run_patches.with_options(task_runner=runner)(settings, ref_to(path, "batches"))
            assert len(fits) == n_patches
            found[size] = (len(batches), costs[0])
    return bare[0], found


def report(
    start: float,
    field: Field,
    n_patches: int,
    bare: Cost,
    batched: dict[int, tuple[int, Cost]],
) -> str:
    """The results as Markdown."""
    direct, flow, own = field.best("direct"), field.best("flow"), field.best("flow, own server")
    own_start = min(field.server_start)
    first, second = min(a for a, _ in field.flow_runs), min(b for _, b in field.flow_runs)
    allowed = 0.05 * direct.wall + own_start
    lines = [
        "# Orchestration",
        "",
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores; "
        "`python benchmarks/bench_flow.py`.",
        "",
        "## A field of 1000 x 1000 pixels, six bands, one worker unless said, no pictures of patches",
        "",
        f"Best of {len(field.flow_runs)}. Catalogues byte-identical: {'yes' if field.same else 'NO'}. In the rows "
        f'"flow" the server was there before (its first start took {start:.1f} s, with its database to make); in '
        f"those with its own, the run starts it, where one was before: {own_start:.1f} s until it answers.",
        "",
        "| | wall, s | CPU of the run, s |",
        "|---|---|---|",
    ]
    for kind in field.costs:
        best = field.best(kind)
        lines.append(f"| {kind} | {best.wall:.1f} | {best.cpu:.1f} |")
    lines += [
        "",
        *(
            f"- {'met' if more <= allowed else 'NOT MET'}: flow with its own server, {workers}, more than "
            f"`--direct`: {more:.1f} s (at most 5 % and the start of the server: {allowed:.1f} s)"
            for workers, more in (
                ("a worker for each core, the default", field.best(DEFAULT).wall - direct.wall),
                ("one worker", own.wall - direct.wall),
            )
        ),
        f"- flow with a server that is there more than `--direct`: {flow.wall - direct.wall:.1f} s wall, "
        f"{flow.cpu - direct.cpu:.1f} s CPU, whatever the field takes: the imports of Prefect, and of the library "
        "in the worker",
        f"- {'met' if second <= 0.1 * first else 'NOT MET'}: second flow run, nothing changed: {second:.1f} s of "
        f"{first:.1f} s, {second / first:.1%}, as the UI counts the time of a run (at most 10 %)",
        "",
        f"## {n_patches} patches that cost nothing, two workers",
        "",
        f"The pool alone: {bare.wall:.2f} s wall, {bare.cpu:.2f} s CPU in the process of the run and the server. "
        "Bar: 60 s wall over it.",
        "",
        f"| patches a task | tasks | wall over the pool, s | CPU a task, ms | share of a batch of {BATCH_S:g} s |",
        "|---|---|---|---|---|",
    ]
    for size, (n_tasks, cost) in batched.items():
        each = max(cost.cpu - bare.cpu, 0) / n_tasks
        lines.append(
            f"| {size} | {n_tasks} | {cost.wall - bare.wall:.1f} | {1000 * each:.1f} | {each / BATCH_S:.2%} |"
        )
    lines += [
        "",
        "Bar of the last column: 3 %. The CPU is that of the run and of the server, with the start and the end",
        "of the subflow included.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="One run of the field, fewer patches.")
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS_flow.md")
    options = parser.parse_args()
    n_patches, repeats = (200, 1) if options.quick else (2000, 2)
    with tempfile.TemporaryDirectory() as name, own_server(Path(name)) as (start, pid):
        bare, batched = pool_costs(Path(name), pid, n_patches, [n_patches // 10, n_patches // 100, 1])
        field = field_costs(Path(name), repeats)
        server.drain()
    text = report(start, field, n_patches, bare, batched)
    options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
