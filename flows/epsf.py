"""Subflow: the ePSF of every band, bands mapped on the task runner."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from prefect import Task, flow

from flows import pool
from flows.mapping import give_up_on_error, in_pool, mapped
from flows.runners import n_workers, tasks_at_once
from tasks import stages as tasks
from tasks.policy import under
from tract7dt import reuse, stages
from tract7dt.errors import ConfigError, InputError, StageError
from tract7dt.progress import progress_folder, write_plan
from tract7dt.types import Ref

if TYPE_CHECKING:
    from tract7dt.settings import Settings
else:
    Settings = Any  # Prefect describes a flow's parameters: all settings, for a form that a subflow has not

__all__ = ["build_epsf"]

log = logging.getLogger(__name__)

# A band that ends like this says something about the run, not about itself.
_NOT_THE_BANDS_FAULT = (InputError, ConfigError)


@flow(name="build-epsf", flow_run_name="build-epsf", validate_parameters=False)
def build_epsf(
    settings: Settings, field: Ref, sources: Ref, bands: list[str], refresh: bool = False
) -> list[Ref]:
    """Build the ePSFs, one task a band.

    A band that fails is left out, and its fits use the analytic PSF; the others go on. If every band
    fails, so does the stage.

    Parameters
    ----------
    settings : Settings
    field, sources : Ref
    bands : list of str
    refresh : bool
        Build those anew that are there.

    Returns
    -------
    list of Ref
        Manifests of the bands that were built, in the order of ``bands``.
    """
    folder = progress_folder(settings.outputs.work_dir)
    workers = n_workers(settings, "bands", len(bands))
    write_plan(folder, "epsf", bands, workers=workers)
    built: dict[str, Ref] = {}
    failed: dict[str, str] = {}

    def submit(band: str) -> Any:
        plan = reuse.plan(stages.build_epsf_band, settings, field, sources, band, refresh=refresh)
        workers = None if plan.hit else pool.current()
        build = under(settings, _build_in(workers, settings), plan, refresh)
        if workers:
            build = build.with_options(timeout_seconds=0)  # the pool ends the worker
        return build.submit(settings, field, sources, band)

    with give_up_on_error(folder):
        for band, future in mapped(submit, bands, tasks_at_once(settings, "bands", workers)):
            result: Any = future.result(raise_on_failure=False)  # a failure is a value here
            if isinstance(result, Ref):
                built[band] = result
            elif isinstance(result, _NOT_THE_BANDS_FAULT):
                raise result
            else:
                failed[band] = f"{type(result).__name__}: {result}"
                log.warning("ePSF of %s failed, the analytic PSF stands in: %s", band, failed[band])
    if failed and not built:
        causes = "; ".join(f"{band}: {cause}" for band, cause in failed.items())
        raise StageError(f"the ePSF of every band failed: {causes}")
    return [built[band] for band in bands if band in built]


def _build_in(workers: pool.WorkerPool | None, settings: Settings) -> Task[..., Ref]:
    """The task of a band, done by a worker process if there are such."""
    if workers is None:
        return tasks.build_epsf_band
    limit = settings.runtime.task_timeout_seconds
    return in_pool(tasks.build_epsf_band, functools.partial(workers.call, timeout_s=limit))
