"""Subflow: the fits of all patches, batches of patches mapped on the task runner."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from prefect import Task, flow

from flows import pool
from flows.mapping import give_up_on_error, in_pool, mapped
from flows.runners import is_staged, n_workers, tasks_at_once
from tasks import stages as tasks
from tasks.policy import under
from tract7dt import staging
from tract7dt.progress import progress_folder, write_plan
from tract7dt.types import Ref

if TYPE_CHECKING:
    from tract7dt.settings import Settings
else:
    Settings = Any  # Prefect describes a flow's parameters: all settings, for a form that a subflow has not

__all__ = ["run_patches"]


@flow(name="run-patches", flow_run_name="run-patches", validate_parameters=False)
def run_patches(settings: Settings, batches: Ref) -> list[Ref]:
    """Fit the batches of a plan, one task a batch.

    A patch that fails is a result that says so, and so is one that kills its worker twice or takes too
    long; a batch that fails (I/O, a wrong configuration) fails the stage.

    Returns
    -------
    list of Ref
        One fit a patch, sorted by patch.
    """
    folder = progress_folder(settings.outputs.work_dir)
    payloads = tasks.read_batches(batches)
    workers = n_workers(settings, "patches", len(payloads))
    write_plan(folder, "patches", [], total=sum(map(len, payloads)), workers=workers)
    staged = is_staged(settings)
    # A batch has no time limit; its patches have theirs.
    task: Task[..., Any] = tasks.fit_staged_batch if staged else _fit_in(pool.current())
    fit = under(settings, task).with_options(timeout_seconds=0)
    fits: list[Ref] = []

    def submit(number: int) -> Any:
        named = fit.with_options(task_run_name=f"fit_patch_batch {number + 1}/{len(payloads)}")
        return named.submit(settings, _sent(settings, payloads[number], staged))

    with give_up_on_error(folder), _cleared(settings, staged):
        at_once = tasks_at_once(settings, "patches", workers)
        for number, future in mapped(submit, range(len(payloads)), at_once):
            result: Any = future.result()
            fits += staging.bring_fits(settings, result, payloads[number]) if staged else result
    return sorted(fits, key=lambda ref: ref.path)


def _sent(settings: Settings, payloads: list[Ref], staged: bool) -> list[Ref]:
    """The payloads as a worker is told of them."""
    return staging.stage_payloads(settings, payloads) if staged else payloads


@contextlib.contextmanager
def _cleared(settings: Settings, staged: bool) -> Iterator[None]:
    """Leave nothing of the block in the staging area."""
    try:
        yield
    finally:
        if staged:
            staging.clear(settings)


def _fit_in(workers: pool.WorkerPool | None) -> Task[..., list[Ref]]:
    """The task of a batch, done by a worker process if there are such.

    Other runners find compiled kernels, which are made here: each of them would compile its own.
    """
    if workers is None:
        from tract7dt.fit.warm import warm_up  # with workers this process has no use for the engine

        warm_up()
        return tasks.fit_patch_batch

    def fit(stage: Callable[..., list[Ref]], payloads: list[Ref], on_patch: None = None) -> list[Ref]:
        return workers.fit(payloads, stage)

    return in_pool(tasks.fit_patch_batch, fit)
