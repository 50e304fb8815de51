"""Memory of a command and all its processes over time, from /proc (Linux)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PROC = Path("/proc")
_MB = 1024.0  # /proc counts in KiB


@dataclass
class MemoryCurve:
    """Samples of a command's memory.

    Attributes
    ----------
    seconds : list of float
        Time since the start.
    whole : list of float
        Proportional set size of all processes together, MiB: a page that several share counts once.
    anonymous : list of float
        The part of it that is no file's, MiB: what the system cannot take back when it needs room.
    largest : list of float
        Resident set of the largest process, MiB; pages of mapped files that it has touched are in it.
    largest_anonymous : list of float
        The largest part of a process that is no file's, MiB.
    disk : list of float
        Size of the files below a folder, MB, looked at every tenth time.
    wall, cpu : float
        Seconds of the command, its children included.
    """

    seconds: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    anonymous: list[float] = field(default_factory=list)
    largest: list[float] = field(default_factory=list)
    largest_anonymous: list[float] = field(default_factory=list)
    disk: list[float] = field(default_factory=list)
    wall: float = 0.0
    cpu: float = 0.0


def _family(root: int) -> list[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _memory(pid: int) -> dict[str, float]:
    with contextlib.suppress(OSError):
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
        return {line.split(":")[0]: int(line.split()[1]) / _MB for line in lines}
    return {}


def megabytes(folder: Path) -> float:
    """Room that the files below a folder take, MB; files that go meanwhile do not count."""
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_blocks * 512 if path.is_file() else 0
    return size / 1e6


def watch(command: Sequence[str], log: Path, folder: Path, interval: float = 0.5) -> MemoryCurve:
    """Run a command, its output into ``log``, and watch its memory, and what it writes below ``folder``.

    Raises
    ------
    SystemExit
        The command failed.
    """
    curve = MemoryCurve()
    begun = time.perf_counter()
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(interval):
            found = [_memory(pid) for pid in _family(process.pid)]
            curve.seconds.append(time.perf_counter() - begun)
            curve.whole.append(sum(memory.get("Pss", 0.0) for memory in found))
            curve.anonymous.append(sum(memory.get("Pss_Anon", 0.0) for memory in found))
            curve.largest.append(max((memory.get("Rss", 0.0) for memory in found), default=0.0))
            curve.largest_anonymous.append(
                max((memory.get("Pss_Anon", 0.0) for memory in found), default=0.0)
            )
            if len(curve.seconds) % 10 == 1:
                curve.disk.append(megabytes(folder))

    watcher = threading.Thread(target=sample)
    watcher.start()
    _, status, used = _wait(process)
    ended.set()
    watcher.join()
    curve.wall, curve.cpu = time.perf_counter() - begun, used
    if status:
        raise SystemExit(f"{' '.join(command)} failed, see {log}:\n{log.read_text()[-2000:]}")
    return curve


def _wait(process: subprocess.Popen[bytes]) -> tuple[int, int, float]:
    pid, status, used = os.wait4(process.pid, 0)
    return pid, status, used.ru_utime + used.ru_stime
