"""Where mapped tasks run: the task runner that ``runtime.task_runner`` asks for, and its workers."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any, Literal

from tract7dt.errors import ConfigError
from tract7dt.resources import worker_count

if TYPE_CHECKING:
    from prefect.task_runners import TaskRunner

    from tract7dt.settings import Settings

__all__ = ["check_runner", "is_staged", "n_workers", "task_runner", "tasks_at_once"]

Work = Literal["bands", "patches"]

#: Optional runners: module, class and extra that brings it.
_EXTRAS = {"dask": ("prefect_dask", "DaskTaskRunner"), "ray": ("prefect_ray", "RayTaskRunner")}


def n_workers(settings: Settings, work: Work, n_tasks: int | None = None) -> int:
    """Workers for ``work``: the stage's own number or, where that is "auto", the runtime's.

    Never more than there are cores (on a cluster at an address: than are asked for) or tasks; one at a time
    if the runner is ``sequential``, and one band at a time with ``epsf.parallel_bands`` off.
    """
    if settings.runtime.task_runner == "sequential" or (work == "bands" and not settings.epsf.parallel_bands):
        return 1
    own = settings.epsf.max_workers if work == "bands" else settings.patch_run.max_workers
    wanted = settings.runtime.max_workers if own == "auto" else own
    if _is_elsewhere(settings, work) and wanted != "auto":
        return wanted if n_tasks is None else max(1, min(wanted, n_tasks))
    return worker_count(wanted, n_tasks)


def is_staged(settings: Settings) -> bool:
    """Whether payloads go to the workers of a cluster by URL."""
    return settings.runtime.task_runner in _EXTRAS and settings.runtime.staging_url is not None


def _is_on_cluster(settings: Settings, work: Work) -> bool:
    """Whether Dask or Ray does the work; a band's frames are not staged, so that bands stay here then."""
    return settings.runtime.task_runner in _EXTRAS and not (work == "bands" and is_staged(settings))


def _is_elsewhere(settings: Settings, work: Work) -> bool:
    """Whether the workers are of a cluster that is there: its cores are not those of this machine."""
    return _is_on_cluster(settings, work) and "address" in (settings.runtime.cluster or {})


def check_runner(settings: Settings) -> None:
    """Refuse a runner that is not installed, before anything is started.

    Raises
    ------
    ConfigError
    """
    name = settings.runtime.task_runner
    if name in _EXTRAS and importlib.util.find_spec(_EXTRAS[name][0]) is None:
        raise ConfigError(
            f"runtime.task_runner is {name}, but {_EXTRAS[name][0].replace('_', '-')} is not installed: "
            f"`pip install 'tract7dt-flow[{name}]'`, or set it to process, thread or sequential"
        )


def tasks_at_once(settings: Settings, work: Work, workers: int) -> int | None:
    """Most tasks to have submitted at once: one waits for each that runs; None (all of them) on a cluster."""
    return None if _is_on_cluster(settings, work) else 2 * workers


def task_runner(settings: Settings, work: Work, n_tasks: int | None = None) -> TaskRunner[Any]:
    """The runner of a subflow that maps ``n_tasks`` tasks.

    With ``process``, as with ``thread``, tasks are threads of this process, one a worker: they hand their work
    to the processes of :mod:`flows.pool` and wait. A task of Prefect's own pool of processes costs 0.1 s, and
    a worker of it that dies takes all other tasks with it.
    """
    from prefect.task_runners import ThreadPoolTaskRunner

    name, count = settings.runtime.task_runner, n_workers(settings, work, n_tasks)
    if _is_on_cluster(settings, work):
        return _cluster_runner(settings, name, count)
    return ThreadPoolTaskRunner(max_workers=count)


def _cluster_runner(settings: Settings, name: str, count: int) -> TaskRunner[Any]:
    """A Dask or Ray runner: a cluster that is there (``address``), or a local one of ``count`` workers."""
    check_runner(settings)
    module, kind = _EXTRAS[name]
    runner = getattr(importlib.import_module(module), kind)
    options = dict(settings.runtime.cluster or {})
    if "address" in options:
        return runner(**options)  # type: ignore[no-any-return]
    if name == "ray":
        # Its dashboard costs a dozen processes; the run is watched in Prefect's.
        return runner(init_kwargs={"num_cpus": count, "include_dashboard": False} | options)  # type: ignore[no-any-return]
    local = {"n_workers": count, "threads_per_worker": settings.patch_run.threads_per_process}
    return runner(cluster_kwargs=local | options)  # type: ignore[no-any-return]
