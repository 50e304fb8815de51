"""The parent flow: the table of contents of the pipeline."""

from __future__ import annotations

from typing import Any, TypeVar

from prefect import Task, flow

from flows.epsf import build_epsf
from flows.patches import run_patches
from flows.runners import check_runner, n_workers, task_runner
from flows.session import recorded_run
from tasks import stages as tasks
from tasks.policy import forward_logs, under
from tract7dt.fit.warm import warm_up
from tract7dt.pipeline import gaia_skip_reason
from tract7dt.run_record import RunRecord
from tract7dt.settings import Settings, load_settings
from tract7dt.types import Ref

__all__ = ["photometry"]

T = TypeVar("T")


@flow(name="photometry", log_prints=False)
def photometry(config: str) -> str:
    """Measure the photometry of one field.

    Parameters
    ----------
    config : str
        Configuration file (YAML).

    Returns
    -------
    str
        The final catalogue (CSV).
    """
    settings = load_settings(config).settings
    check_runner(settings)
    forward_logs()
    with recorded_run(settings, "run") as record:
        return _stages_in_order(settings, record).path


def _stages_in_order(settings: Settings, record: RunRecord) -> Ref:
    """The ten stages; what the configuration leaves out is recorded as skipped."""

    def do(name: str, task: Task[..., T], *refs: Any) -> T:
        with record.stage(name):
            return under(settings, task)(settings, *refs)

    no_gaia = gaia_skip_reason(settings)

    field, sources = do("load_inputs", tasks.load_inputs)

    if no_gaia:
        record.skip("augment_gaia", no_gaia)
    else:
        sources = do("augment_gaia", tasks.augment_gaia, field, sources)

    mask: Ref | None = None
    if settings.bright_mask.enabled:
        mask, sources = do("bright_mask", tasks.bright_mask, field, sources)
    else:
        record.skip("bright_mask", "bright_mask.enabled is false")

    with record.stage("build_epsf") as entry:
        epsf = _epsf(settings, field, sources)
        entry.detail["bands"] = len(epsf)

    patches = do("build_patches", tasks.build_patches, field, sources)
    masks = do("compose_final_masks", tasks.compose_final_masks, field, mask)
    payloads = do("build_patch_inputs", tasks.build_patch_inputs, field, sources, masks, patches, epsf)

    with record.stage("run_patches") as entry:
        fits = _fits(settings, payloads)
        entry.detail["patches"] = len(fits)

    catalog = do("merge", tasks.merge, field, sources, fits)

    if no_gaia:
        record.skip("compute_zp", no_gaia)
    else:
        catalog = do("compute_zp", tasks.compute_zp, field, catalog)
    return catalog


def _epsf(settings: Settings, field: Ref, sources: Ref) -> list[Ref]:
    """Build the ePSFs of all bands, on the runner that the configuration asks for."""
    bands = under(settings, tasks.epsf_bands)(settings, field)
    runner = task_runner(settings, "bands", len(bands))
    epsf = build_epsf.with_options(task_runner=runner)(settings, field, sources, bands)
    under(settings, tasks.summarise_epsf)(settings, epsf)
    return epsf


def _fits(settings: Settings, payloads: list[Ref]) -> list[Ref]:
    """Fit all patches, on the runner that the configuration asks for."""
    if not payloads:
        return []
    workers = n_workers(settings, "patches", len(payloads))
    batches = under(settings, tasks.plan_batches)(settings, payloads, workers)
    runner = task_runner(settings, "patches", len(tasks.read_batches(batches)))
    warm_up()  # once here: workers that start on a cold cache would each compile the kernels
    return run_patches.with_options(task_runner=runner)(settings, batches)
