"""Subflow: the fits of all patches, batches of patches mapped on the task runner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import Task, flow

from flows import pool
from flows.mapping import give_up_on_error, in_pool, mapped
from flows.runners import n_workers, tasks_at_once
from tasks import stages as tasks
from tasks.policy import under
from tract7dt.progress import progress_folder, write_plan
from tract7dt.settings import Settings
from tract7dt.types import Ref

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
    # A batch has no time limit; its patches have theirs.
    fit = under(settings, _fit_in(pool.current())).with_options(timeout_seconds=0)
    fits: list[Ref] = []

    def submit(number: int) -> Any:
        named = fit.with_options(task_run_name=f"fit_patch_batch {number + 1}/{len(payloads)}")
        return named.submit(settings, payloads[number])

    with give_up_on_error(folder):
        for _, future in mapped(submit, range(len(payloads)), tasks_at_once(settings, workers)):
            fits += future.result()
    return sorted(fits, key=lambda ref: ref.path)


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
