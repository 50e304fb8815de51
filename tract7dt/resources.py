"""CPU time and memory of a run: of this process, of its children, of workers elsewhere."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import resource
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Usage",
    "cpu_seconds",
    "give_back_memory",
    "machine_memory_mb",
    "peak_rss_mb",
    "read_usage",
    "report_usage",
    "reset_peak_rss",
    "worker_count",
]

log = logging.getLogger(__name__)

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process has used since it started.

    Attributes
    ----------
    cpu_s : float
        User and system time, its ended children included, s.
    peak_rss_mb : float
        Largest resident memory, MiB.
    """

    cpu_s: float
    peak_rss_mb: float


def cpu_seconds() -> tuple[float, float]:
    """CPU seconds of this process and of its ended children."""
    times = os.times()
    return times.user + times.system, times.children_user + times.children_system


def reset_peak_rss() -> None:
    """Start the peak of this process's memory anew, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")


def peak_rss_mb() -> float:
    """Largest resident memory of this process since :func:`reset_peak_rss`, MiB."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss: bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def give_back_memory() -> None:
    """Give memory that this process has freed back to the system, where the C library can (glibc).

    It keeps what lies between blocks in use for the next ones: after a stage often more than the next one needs.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _me() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def report_usage(folder: Path) -> None:
    """Leave this process's usage in the progress folder, for the process that keeps the record.

    Does nothing where the folder is not there; a report that cannot be written is lost.
    """
    if not folder.is_dir():
        return
    own, children = cpu_seconds()
    path = folder / f"{_me()}.usage.json"
    temporary = folder / f".{path.name}"
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps({"cpu_s": own + children, "peak_rss_mb": peak_rss_mb()}))
        temporary.replace(path)


def read_usage(folder: Path) -> dict[str, Usage]:
    """Last reports of all processes but this one, by host and process id."""
    reports: dict[str, Usage] = {}
    for path in folder.glob("*.usage.json"):
        name = path.name.removesuffix(".usage.json")
        if name != _me():
            with contextlib.suppress(OSError, ValueError):
                reports[name] = Usage(**json.loads(path.read_text()))
    return reports


def machine_memory_mb() -> int | None:
    """Memory of the machine or of the container that this process runs in, MiB; None if it does not say."""
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            found.append(int(path.read_text(encoding="ascii")))
    return min(found) // 2**20 if found else None


def worker_count(wanted: int | str, n_tasks: int | None = None) -> int:
    """Workers to start: ``wanted`` or, for "auto", one a core; never more than cores or tasks."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = cores if wanted == "auto" else int(wanted)
    if count > cores:
        log.info("%d workers were asked for, %d cores are there: using %d", count, cores, cores)
        count = cores
    return max(1, count if n_tasks is None else min(count, n_tasks))
