"""A whole tile: ``python benchmarks/bench_tile.py [--scale 0.25] [--bands 5 10 20] [--folder DIR]``.

Simulates a tile of 9576 x 6388 pixels and 30,000 sources at a linear scale, runs the flow on it with two workers,
and watches the memory of all its processes. With several numbers of bands the runs show what grows with them.
Figures go below a heading of their own in RESULTS_tile.md, in the place of those of before, and the memory curve
beside them; RESULTS.md gets a row a run at its end. What a run has given is kept beside the tile
(``run_20.json``); with ``--keep-runs`` it is taken from there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
sys.path[:0] = [str(HERE.parent), str(HERE)]

import matplotlib  # noqa: E402 - after the thread counts

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from memory_curve import MemoryCurve, megabytes, watch  # noqa: E402

from tract7dt.patches import SECONDS_PER_COST  # noqa: E402
from tract7dt.sample import SampleOptions, make_sample  # noqa: E402

WIDTH, HEIGHT = 9576, 6388
STARS, GALAXIES = 10_000, 20_000
CELLS = 7
SCIENCE = ("build_epsf", "run_patches")
#: Where RESULTS.md has a row a run; ``bench_fit.py`` keeps what begins so.
HISTORY = "## Tile at scale, run by run"
#: Switched off: what is measured is the photometry.
PICTURES = (
    "crop.plot_pre_crop",
    "crop.plot_post_crop",
    "overlay.enabled",
    "overlay.zoom_enabled",
    "epsf.save_patch_background_diagnostics",
    "epsf.save_star_local_background_diagnostics",
    "epsf.save_growth_curve",
    "epsf.save_residual_diagnostics",
)


# What a run says a second before it reads images, if it has a server of its own, and a tenth of one before.
_BEGINS = ("Prefect UI at", "Beginning flow run")
_LOADED = re.compile(r"load_inputs timing \[s\]: prep=\S+ white=\S+ total=(\S+)")


@dataclass(frozen=True)
class Run:
    """A run of the tile in so many bands."""

    bands: int
    megapixels: float
    curve: MemoryCurve
    record: dict[str, Any]
    images_mb: float
    frames_mb: float
    work_mb: float
    payloads_mb: float
    costs: list[tuple[float, float]]
    plain_read: float
    #: Seconds of wall that reading, scaling and stacking the images took, of the stage that has them.
    load_s: float
    pulls: tuple[float, float]

    def stage(self, name: str, what: str = "cpu_s") -> float:
        """A figure of one stage."""
        return float(next(entry[what] for entry in self.record["stages"] if entry["name"] == name))

    def write(self, path: Path) -> None:
        """Keep it."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Run:
        """What :meth:`write` kept."""
        kept = json.loads(path.read_text(encoding="utf-8"))
        return cls(**(kept | {"curve": MemoryCurve(**kept["curve"])}))


def simulate(folder: Path, scale: float, seed: int) -> Path:
    """The tile with its 20 bands; what an earlier call has made stays."""
    field = folder / f"tile_{scale:g}"
    if not field.exists():
        make_sample(
            field,
            SampleOptions(
                width=round(WIDTH * scale),
                height=round(HEIGHT * scale),
                bands=20,
                seed=seed,
                stars=round(STARS * scale**2),
                galaxies=round(GALAXIES * scale**2),
            ),
            progress=lambda done, n: print(f"  band {done} of {n}", flush=True),
        )
    return field


def plain_read_rate(paths: list[Path]) -> float:
    """MB/s of reading files from the disk, the page cache emptied of them first."""
    size, seconds = 0, 0.0
    for path in paths:
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            begun = time.perf_counter()
            while block := file.read(1 << 24):
                size += len(block)
            seconds += time.perf_counter() - begun
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # cold for the run, too
    return size / 1e6 / seconds


@contextlib.contextmanager
def memory_at_hand(megabytes: float, log: Path) -> Iterator[None]:
    """Let the system have so much free memory that it need not ask for when ``log`` says that a run begins.

    A virtual machine gives memory that is free for some seconds back to its host. To get it again can take longer
    than to read a file into it (2 s a GB), which says nothing about the program.
    """
    ended = threading.Event()
    available = int(re.findall(r"MemAvailable: +(\d+)", Path("/proc/meminfo").read_text())[0]) / 1e3

    held = [np.ones(int(1e6 * min(megabytes, available / 2)), np.uint8)]

    def hold() -> None:
        while not ended.wait(0.02):
            text = log.read_text(errors="replace") if log.exists() else ""
            if any(words in text for words in _BEGINS):
                break
        held.clear()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        yield
    finally:
        ended.set()
        holder.join()


def patch_costs(work: Path) -> list[tuple[float, float]]:
    """Predicted and real CPU seconds of every patch."""
    index = json.loads((work / "patch_payloads" / "payloads.json").read_text())
    metas = {tag: json.loads((work / "outputs" / tag / "meta.json").read_text()) for tag in index}
    return [(entry["cost"] * SECONDS_PER_COST, metas[tag].get("cpu_s", 0.0)) for tag, entry in index.items()]


def run_tile(field: Path, scale: float, bands: int, workers: int) -> Run:
    """The flow on the first bands of the tile, diagnostics off."""
    listed = (field / "image_list.txt").read_text().splitlines()
    images = [line for line in listed if line and not line.startswith("#")]
    chosen = [images[i] for i in np.linspace(0, len(images) - 1, bands).round().astype(int)]
    (field / f"images_{bands}.txt").write_text("\n".join(chosen) + "\n")
    work = field / f"run_{bands}"
    shutil.rmtree(work, ignore_errors=True)
    paths = [path if (path := Path(name)).is_absolute() else field / name for name in chosen]
    images_mb = sum(path.stat().st_size for path in paths) / 1e6
    os.sync()  # images that were just simulated: what is not on the disk yet cannot be dropped from memory
    rates = [plain_read_rate(paths) for _ in range(3)]
    options = (
        f"inputs.image_list_file={field / f'images_{bands}.txt'}",
        f"outputs.work_dir={work}",
        f"epsf.epsf_ngrid={max(1, round(CELLS * scale))}",
        "epsf.ngrid=6",
        f"runtime.max_workers={workers}",
        *(f"{switch}=false" for switch in PICTURES),
        "patch_run.no_cutouts=true",
        "patch_run.no_patch_overview=true",
    )
    overrides = [part for option in options for part in ("-o", option)]
    command = [sys.executable, "-m", "flows.cli", "run", "-c", str(field / "config.yaml"), *overrides]
    with memory_at_hand(3 * images_mb, work / "run.log"):
        curve = watch(command, field / f"run_{bands}.log", work)
    record = json.loads((work / "run_summary.json").read_text())
    # a disk that others use, too, has good and bad seconds
    rates += [plain_read_rate(paths) for _ in range(2)]
    return Run(
        bands=bands,
        megapixels=round(WIDTH * scale) * round(HEIGHT * scale) / 1e6,
        curve=curve,
        record=record,
        images_mb=images_mb,
        frames_mb=sum((work / "frames" / f"{band}.npy").stat().st_size for band in _bands(work)) / 1e6,
        work_mb=megabytes(work),
        payloads_mb=megabytes(work / "patch_payloads"),
        costs=patch_costs(work),
        plain_read=float(np.median(rates)),
        load_s=float(_LOADED.findall((work / "run.log").read_text())[-1]),
        pulls=flux_pulls(field, work),
    )


def _bands(work: Path) -> list[str]:
    return [frame["band"] for frame in json.loads((work / "frames" / "field.json").read_text())["frames"]]


def flux_pulls(field: Path, work: Path) -> tuple[float, float]:
    """Median and width of (fitted - true flux) / error of the reliable sources, all bands together."""
    catalog = pd.read_csv(work / "output_catalog.csv", dtype={"ID": str}, low_memory=False).set_index("ID")
    truth = pd.read_csv(field / "truth.csv", dtype={"ID": str}, low_memory=False).set_index("ID")
    truth = truth[~truth.index.duplicated() & truth.index.notna()]
    both = catalog.index.intersection(truth.index)
    both = both[catalog.loc[both, "fit_is_reliable"].to_numpy(bool)]
    names = [
        name[5:-4] for name in map(str, catalog.columns) if name.startswith("FLUX_") and name.endswith("_fit")
    ]
    pulls = np.concatenate(
        [
            (catalog.loc[both, f"FLUX_{band}_fit"] - truth.loc[both, f"flux_{band}"])
            / catalog.loc[both, f"FLUXERR_{band}_fit"]
            for band in names
        ]
    )
    middle = float(np.nanmedian(pulls))
    return middle, float(1.4826 * np.nanmedian(np.abs(pulls - middle)))


def table(scale: float, workers: int, runs: list[Run]) -> str:
    """The figures as Markdown."""
    head = (
        f"## Tile at scale {scale:g}: {round(WIDTH * scale)} x {round(HEIGHT * scale)} pixels\n\n"
        f"Python {platform.python_version()}, {platform.machine()}, {workers} workers, diagnostic pictures off; "
        f"`make bench-tile SCALE={scale:g}`.\n\n"
        "| bands | sources | wall, s | CPU, s | all but fit and ePSF: CPU, s | the same for 61 Mpix, min (bar 15) "
        "| fit: ms per source and band (bar 1.5) | load and white stack, MB/s "
        "| of a plain read, median of five (bar 0.5) "
        "| all processes, MiB (bar 5120) | not of files | largest process, MiB (bar 2048) | not of files "
        "| disk over frames and payloads (bar 1.5 frames) | pulls: median | width |\n" + "|---" * 16 + "|\n"
    )
    return head + "".join(_row(run) for run in runs)


def _row(run: Run) -> str:
    return "| " + " | ".join(_figures(run).values()) + " |\n"


def _figures(run: Run) -> dict[str, str]:
    """What is said of a run, in the order of the table."""
    counts, curve = run.record["counts"], run.curve
    rest = sum(entry["cpu_s"] for entry in run.record["stages"] if entry["name"] not in SCIENCE)
    rate = run.images_mb / run.load_s
    return {
        "bands": str(run.bands),
        "sources": str(counts["fitted"]),
        "wall": f"{curve.wall:.0f}",
        "cpu": f"{curve.cpu:.0f}",
        "rest": f"{rest:.1f}",
        "rest of a tile": f"{rest * WIDTH * HEIGHT / 1e6 / run.megapixels / 60:.1f}",
        "fit": f"{1e3 * run.stage('run_patches') / counts['fitted'] / run.bands:.2f}",
        "load": f"{rate:.0f}",
        "of a plain read": f"{rate / run.plain_read:.2f}",
        "memory": f"{max(curve.whole):.0f}",
        "memory, not of files": f"{max(curve.anonymous):.0f}",
        "largest": f"{max(curve.largest):.0f}",
        "largest, not of files": f"{max(curve.largest_anonymous):.0f}",
        "disk": f"{(run.work_mb - run.payloads_mb) / run.frames_mb:.2f}",
        "pulls": f"{run.pulls[0]:+.3f}",
        "width": f"{run.pulls[1]:.3f}",
    }


def append_history(path: Path, scale: float, workers: int, runs: list[Run]) -> None:
    """A row a run at the end of a Markdown file; a run that has one gets no other."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    if HISTORY not in old:
        columns = (
            "when", "scale", "workers", "bands", "wall, s", "CPU, s", "fit: ms per source and band",
            "load and white stack, MB/s", "of a plain read", "all processes, MiB", "largest, MiB",
            "disk over frames",
        )  # fmt: skip
        table = "| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|\n"
        old = (
            old.rstrip()
            + f"\n\n{HISTORY}\n\n`make bench-tile`; more of the last ones in RESULTS_tile.md.\n\n{table}"
        )
    for run in runs:
        found = _figures(run)
        when = datetime.fromisoformat(run.record["started"]).strftime("%Y-%m-%d %H:%M")
        names = ("bands", "wall", "cpu", "fit", "load", "of a plain read", "memory", "largest", "disk")
        values = [when, f"{scale:g}", str(workers), *(found[name] for name in names)]
        row = "| " + " | ".join(values) + " |\n"
        old += "" if row in old else row
    path.write_text(old, encoding="utf-8")


def stage_table(run: Run) -> str:
    """Wall and CPU seconds and peak memory of the stages of a run."""
    rows = "".join(
        f"| {entry['name']} | {entry['wall_s']:.1f} | {entry['cpu_s']:.1f} | {entry['peak_rss_mb']:.0f} |\n"
        for entry in run.record["stages"]
    )
    head = "| stage | wall, s | CPU, s | peak of a process, MiB |\n|---|---|---|---|\n"
    return f"\nStages with {run.bands} bands:\n\n{head}{rows}"


def draw_curves(runs: list[Run], scale: float, path: Path) -> None:
    """Memory against time, a panel a run, the stages marked."""
    figure, axes = plt.subplots(len(runs), 1, figsize=(9, 2.4 * len(runs) + 0.6), squeeze=False, sharey=True)
    for axis, run in zip(axes[:, 0], runs, strict=True):
        curve = run.curve
        for values, label, colour in (
            (curve.whole, "all processes", "#0072B2"),
            (curve.anonymous, "all processes, not of files", "#56B4E9"),
            (curve.largest, "largest process", "#D55E00"),
        ):
            axis.plot(curve.seconds, np.array(values) / 1024, color=colour, label=label, lw=1.2)
        begun = datetime.fromisoformat(run.record["started"])
        offset = curve.wall - run.record["wall_s"]  # imports, and the server that the command starts
        told = 0
        for entry in run.record["stages"]:
            at = offset + (datetime.fromisoformat(entry["started"]) - begun).total_seconds()
            axis.axvline(at, color="0.8", lw=0.8, zorder=0)
            if entry["wall_s"] > 0.04 * curve.wall:
                height = (0.98, 0.9, 0.82)[told % 3]  # names of short stages would lie on each other
                told += 1
                axis.text(
                    at, height, f" {entry['name']}", transform=axis.get_xaxis_transform(), va="top", size=7
                )
        axis.set_title(f"{run.bands} bands", loc="left", size=9)
        axis.set_ylabel("memory, GiB")
        axis.set_xlim(0, curve.wall)
        axis.set_ylim(0, 1.35 * max(max(each.curve.whole) for each in runs) / 1024)
    axes[0, 0].legend(frameon=False, fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    axes[-1, 0].set_xlabel("time, s")
    figure.suptitle(f"Tile at scale {scale:g}", x=0.02, ha="left", size=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def put_section(path: Path, text: str) -> None:
    """Replace the section of the same heading in a Markdown file, or append it."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    heading = text.splitlines()[0]
    parts = ("\n" + old).split("\n## ")
    kept = [part for part in parts if f"## {part.splitlines()[0] if part else ''}" != heading]
    path.write_text("\n## ".join(kept).lstrip("\n").rstrip() + "\n\n" + text, encoding="utf-8")


def main() -> None:
    """Simulate, run, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=0.25, help="linear scale of the tile")
    parser.add_argument("--bands", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--folder", type=Path, help="keep the tile here; a temporary folder if not given")
    parser.add_argument(
        "--keep-runs", action="store_true", help="runs that were made before are not made again"
    )
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS_tile.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        print(f"simulating the tile at scale {args.scale:g}", flush=True)
        field = simulate(folder, args.scale, args.seed)
        runs = []
        for bands in args.bands:
            print(f"running {bands} bands", flush=True)
            kept = field / f"run_{bands}.json"
            if not (args.keep_runs and kept.exists()):
                run_tile(field, args.scale, bands, args.workers).write(kept)
            runs.append(Run.read(kept))
        picture = args.out.with_name(f"tile_{args.scale:g}_memory.png")
        draw_curves(runs, args.scale, picture)
        text = table(args.scale, args.workers, runs) + stage_table(runs[-1])
        text += f"\n![Memory over time]({picture.name})\n"
        print(text)
        put_section(args.out, text)
        append_history(args.out.with_name("RESULTS.md"), args.scale, args.workers, runs)


if __name__ == "__main__":
    main()
