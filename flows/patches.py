"""Subflow: the fits of all patches, batches of patches mapped on the task runner."""

from __future__ import annotations

from prefect import flow
from prefect.futures import as_completed

from flows.mapping import give_up_on_error
from flows.runners import n_workers
from tasks import stages as tasks
from tasks.policy import under
from tract7dt.progress import progress_folder, write_plan
from tract7dt.settings import Settings
from tract7dt.types import Ref

__all__ = ["run_patches"]


@flow(name="run-patches", flow_run_name="run-patches", validate_parameters=False)
def run_patches(settings: Settings, batches: Ref) -> list[Ref]:
    """Fit the batches of a plan, one task a batch.

    A patch that fails is a result that says so; a batch that fails (I/O, a killed worker) fails the stage.

    Returns
    -------
    list of Ref
        One fit a patch, sorted by patch.
    """
    folder = progress_folder(settings.outputs.work_dir)
    payloads = tasks.read_batches(batches)
    workers = n_workers(settings, "patches", len(payloads))
    write_plan(folder, "patches", [], total=sum(map(len, payloads)), workers=workers)
    fit = under(settings, tasks.fit_patch_batch)
    with give_up_on_error(folder):
        futures = [
            fit.with_options(task_run_name=f"fit_patch_batch {i}/{len(payloads)}").submit(settings, batch)
            for i, batch in enumerate(payloads, 1)
        ]
        fits = [ref for future in as_completed(futures) for ref in future.result()]
    return sorted(fits, key=lambda ref: ref.path)
