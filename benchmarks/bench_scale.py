"""How far the orchestration goes: ``python benchmarks/bench_scale.py [--patches 20000] [--per-task 100 10 1]``.

Patches that take 10 ms and no CPU (they sleep) go through the flow on a real server, in batches of several
sizes, by more workers than this machine has cores: what is left is what the run and the server can do. Figures
go into RESULTS_tile.md; what each size gave is kept and not measured again with ``--keep FOLDER``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bench_flow  # first: it sets the threads, and puts a fit that costs nothing in the place of the real one
import trivial_stages
from bench_tile import put_section

from flows import server
from tract7dt.progress import open_folder
from tract7dt.store import ref_to, write_json
from tract7dt.types import Ref

PATCH_S = 0.010


@dataclasses.dataclass
class Cost:
    """What so many tasks of so many patches have cost.

    Attributes
    ----------
    patches, per_task, workers : int
    wall, run_cpu, server_cpu : float
        Seconds; CPU of the process of the run and of the server.
    run_mb, server_mb : float
        Largest resident memory, MiB.
    database_mb : float
        What the server's database has grown by.
    """

    patches: int
    per_task: int
    workers: int
    wall: float
    run_cpu: float
    server_cpu: float
    run_mb: float
    server_mb: float
    database_mb: float

    def row(self) -> str:
        """A row of the table."""
        tasks = self.patches // self.per_task
        least = self.patches * PATCH_S / self.workers
        return (
            f"| {self.per_task} | {tasks} | {least:.0f} | {self.wall:.0f} | {tasks / self.wall:.0f} "
            f"| {1e3 * self.run_cpu / tasks:.1f} | {1e3 * self.server_cpu / tasks:.1f} | {self.run_mb:.0f} "
            f"| {self.server_mb:.0f} | {self.database_mb:.1f} |\n"
        )


def resident_mb(pid: int) -> float:
    """Resident memory of a process, MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


class Peaks(threading.Thread):
    """Largest resident memory of processes while the block runs."""

    def __init__(self, *pids: int) -> None:
        super().__init__(daemon=True)
        self.largest = dict.fromkeys(pids, 0.0)
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.5):
            for pid, largest in self.largest.items():
                self.largest[pid] = max(largest, resident_mb(pid))

    def __enter__(self) -> Peaks:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def measure(folder: Path, pid: int, n_patches: int, per_task: list[int], workers: int) -> list[Cost]:
    """Cost of all patches for each size of a batch."""
    from flows import pool, runners  # Prefect reads the server's address when it is imported
    from flows.patches import run_patches

    runners.worker_count = lambda wanted, n_tasks=None: workers  # they sleep: cores do not count
    settings, refs = bench_flow.trivial(folder, n_patches)
    home, costs = Path(os.environ["PREFECT_HOME"]), []
    with open_folder(settings.outputs.work_dir), pool.pool_for(settings) as workers_of_run:
        assert workers_of_run is not None
        with ThreadPoolExecutor(workers) as threads:  # workers warm
            list(
                threads.map(
                    lambda ref: workers_of_run.fit([ref], trivial_stages.fit_patch_batch), refs[:workers]
                )
            )
        for size in per_task:
            batches: list[list[Ref]] = [refs[i : i + size] for i in range(0, n_patches, size)]
            path = folder / "trivial" / "batches.json"
            write_json(path, [[dataclasses.asdict(ref) for ref in batch] for batch in batches])
            runner = runners.task_runner(settings, "patches", len(batches))
            stored, begun = _size(home), time.perf_counter()
            cpu, there = time.process_time(), bench_flow.cpu_of(pid)
            with Peaks(os.getpid(), pid) as peaks:
                fits = run_patches.with_options(task_runner=runner)(settings, ref_to(path, "batches"))
            assert len(fits) == n_patches
            used = time.process_time() - cpu, bench_flow.cpu_of(pid) - there
            memory = peaks.largest[os.getpid()], peaks.largest[pid]
            wall, grown = time.perf_counter() - begun, _size(home) - stored
            costs.append(Cost(n_patches, size, workers, wall, *used, *memory, grown))
            print(costs[-1], flush=True)
    return costs


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.glob("*.db*")) / 1e6


def section(costs: list[Cost]) -> str:
    """The figures as Markdown."""
    one = costs[0]
    head = (
        f"## {one.patches} patches of {1e3 * PATCH_S:.0f} ms through the flow, {one.workers} workers\n\n"
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, SQLite; "
        "`python benchmarks/bench_scale.py`. The patches sleep: workers, more than cores, take next to no CPU.\n\n"
        "| patches a task | tasks | patches alone, s | wall, s | tasks a second | CPU a task in the run, ms "
        "| in the server, ms | run, MiB | server, MiB | database, MB |\n" + "|---" * 10 + "|\n"
    )
    return head + "".join(cost.row() for cost in costs)


def main() -> None:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=20_000)
    parser.add_argument("--per-task", type=int, nargs="+", default=[100, 10, 1])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--keep", type=Path, help="folder of what was measured")
    parser.add_argument("--out", type=Path, default=bench_flow.HERE / "RESULTS_tile.md")
    args = parser.parse_args()
    os.environ["TRIVIAL_PATCH_S"] = str(PATCH_S)
    kept: dict[int, Cost] = {}
    record = args.keep and args.keep / f"scale_{args.patches}_{args.workers}.json"
    if record and record.exists():
        kept = {entry["per_task"]: Cost(**entry) for entry in json.loads(record.read_text())}
    wanted = [size for size in args.per_task if size not in kept]
    if wanted:
        with tempfile.TemporaryDirectory() as name, bench_flow.own_server(Path(name)) as (_, pid):
            for cost in measure(Path(name), pid, args.patches, wanted, args.workers):
                kept[cost.per_task] = cost
            server.drain()
    costs = [kept[size] for size in args.per_task]
    if record:
        record.write_text(json.dumps([dataclasses.asdict(cost) for cost in kept.values()]))
    text = section(costs)
    print(text)
    put_section(args.out, text)


if __name__ == "__main__":
    main()
