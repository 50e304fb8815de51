"""The parent flow: the table of contents of the pipeline."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Iterator
from typing import Any, TypeVar

import flows.environment  # noqa: F401  -- before anything that imports NumPy or Prefect

# isort: split
from prefect import State, Task, flow
from prefect.runtime import deployment, flow_run

from flows import cancel
from flows.artifacts import reported
from flows.epsf import build_epsf
from flows.notices import look_for_jumps
from flows.parameters import (
    ConfigParameter,
    FieldParameter,
    Given,
    NightParameter,
    OnlyParameter,
    OverridesParameter,
    PublishParameter,
    RefreshParameter,
    read_given,
    read_template,
)
from flows.patches import run_patches
from flows.patience import be_patient, no_heartbeat
from flows.pool import WorkerPool, pool_for
from flows.publication import clear_cache, publish_run, store_address
from flows.runners import check_runner, n_workers, task_runner
from flows.session import claimed, recorded_run
from flows.tonight import nothing_to_do, of_its_night
from tasks import stages as tasks
from tasks.policy import forward_logs, under
from tasks.publish import publish as publish_task
from tract7dt import reuse, stages
from tract7dt.errors import ConfigError
from tract7dt.nights import evening_before
from tract7dt.pipeline import gaia_skip_reason, note_plans, note_work
from tract7dt.resources import worker_count
from tract7dt.run_record import RunRecord
from tract7dt.run_report import report_of_run
from tract7dt.selection import divide_work, parse_selection, selected_tags
from tract7dt.settings import Settings, load_settings
from tract7dt.types import Ref

__all__ = ["photometry"]

log = logging.getLogger(__name__)

T = TypeVar("T")

# Cores that reading the images keeps busy, at least.
_READING_THREADS = 2

# Pixels of all bands from which the fits last so long that the start of fresh workers for them does not count.
_LARGE = 30e6

_DESCRIPTION = """\
Forced multi-band photometry of one field: from images, catalogue and Gaia table to the calibrated catalogue.

What an earlier run of the field has made and is still right is reused, so a rerun with a changed setting does
only what depends on it. The run's **artifacts** show its progress and, at the end, a summary.
"""


def _run_name() -> str:
    """Name of a run in the UI: field and night."""
    given = flow_run.parameters
    config, night = str(given.get("config", "")), given.get("night")
    try:
        settings = load_settings(config).settings
    except ConfigError:  # the run will say so
        return " ".join(str(part) for part in (config.rsplit("/", 1)[-1], night) if part)
    if night is None and deployment.id:
        night = evening_before(flow_run.scheduled_start_time, settings.night.timezone)
    name = given.get("field") or settings.inputs.tile_name
    return " ".join(str(part) for part in (name, night) if part)


@flow(
    name="photometry",
    description=_DESCRIPTION,
    flow_run_name=_run_name,
    persist_result=False,
    on_crashed=[cancel.say_so],
)
def photometry(
    config: ConfigParameter,
    # The form sends back what it was given: defaults must be of the type that it is told, which None is not.
    field: FieldParameter = "",
    night: NightParameter = "",
    overrides: OverridesParameter = {},  # noqa: B006 -- the form shows it; nobody changes it
    refresh: RefreshParameter = [],  # noqa: B006
    only: OnlyParameter = [],  # noqa: B006
    publish: PublishParameter = True,
) -> str | State[None]:
    """Measure the photometry of one field.

    Parameters
    ----------
    config : str
        Configuration file (YAML), path or URL.
    field : str, optional
        Name of the field; must be that of the configuration.
    night : str, optional
        Night of the images, YYYY-MM-DD.
    overrides : dict, optional
        Dotted key -> value.
    refresh : list of str, optional
        Stages to compute anew.
    only : list of str, optional
        Patches or sky boxes to fit; see :func:`tract7dt.selection.parse_selection`.
    publish : bool
        Bring the results to ``publish.url``, if it is set. A failure of that fails the run after its end:
        record and catalogue are there.

    Returns
    -------
    str or State
        The final catalogue (CSV); of a run that had nothing to do, a state that says why.
    """
    be_patient()
    given = of_its_night(
        Given(
            config,
            field or None,
            night or None,
            overrides or {},
            tuple(refresh or ()),
            tuple(only or ()),
            publish,
        )
    )
    loaded = read_given(given)
    settings, run_id = loaded.settings, str(flow_run.id)
    check_runner(settings)
    forward_logs()
    with store_address(settings):
        if early := nothing_to_do(settings, given):
            return early
    with (
        store_address(settings),
        claimed(loaded, "run", run_id, given.overrides) as dead,
        cancel.obeyed(run_id),
        reported(settings, run_id),
    ):
        cancel.say_that_it_crashed(dead if dead != run_id else None)
        with recorded_run(settings, "run", run_id, given.as_dict()) as record, pool_for(settings) as pool:
            for warning in loaded.warnings:
                log.warning("%s: %s", config, warning)
            catalog = _Run(settings, record, given, pool).stages_in_order()
            report_of_run(settings, record)
        look_for_jumps(read_template(given), settings, given.night, run_id)
        publish_run(settings, given, run_id, under(settings, publish_task))
        clear_cache(settings)
    return catalog.path


@contextlib.contextmanager
def warming(pool: WorkerPool, settings: Settings) -> Iterator[None]:
    """Let workers import the library: while the block reads the images if there are cores for both, else after it.

    New images are new ePSFs, so that workers will be needed. The stages between have one thread: nothing is
    lost by waiting, and the images are read as fast as the disk gives them.
    """
    patches, bands = n_workers(settings, "patches"), n_workers(settings, "bands")
    if worker_count("auto") >= max(patches, bands) + _READING_THREADS:
        pool.start(patches, bands)
        yield
        return
    with pool.held():
        yield
    pool.start(patches, bands)


@contextlib.contextmanager
def renewed(pool: WorkerPool, settings: Settings, field: Ref) -> Iterator[None]:
    """End the workers that have built the ePSFs of a large field; others begin to start after the block.

    Half of what a worker takes before its first fit is what it imported for ePSFs and pictures of them. The stages
    of the block have one thread, and one of them takes more memory than any other.
    """
    if settings.runtime.task_runner != "process" or reuse.pixels_of(field) < _LARGE:
        yield
        return
    pool.dismiss()
    yield
    pool.start(n_workers(settings, "patches"))


class _Run:
    """The stages of one run; what is there, whole and up to date is reused."""

    def __init__(self, settings: Settings, record: RunRecord, given: Given, pool: WorkerPool | None) -> None:
        self._settings, self._record, self._pool = settings, record, pool
        self._refresh = reuse.with_payloads(settings, given.refresh)
        self._only = parse_selection(given.only)
        self._has_built_epsfs = False

    def stages_in_order(self) -> Ref:
        """The ten stages; what the configuration leaves out is recorded as skipped."""
        record, no_gaia = self._record, gaia_skip_reason(self._settings)

        field, sources = self._do("load_inputs", tasks.load_inputs)

        if no_gaia:
            record.skip("augment_gaia", no_gaia)
        else:
            sources = self._do("augment_gaia", tasks.augment_gaia, field, sources)

        mask: Ref | None = None
        if self._settings.bright_mask.enabled:
            mask, sources = self._do("bright_mask", tasks.bright_mask, field, sources)
        else:
            record.skip("bright_mask", "bright_mask.enabled is false")

        epsf = self._epsf(field, sources)
        pool = self._pool if self._has_built_epsfs else None
        with renewed(pool, self._settings, field) if pool else contextlib.nullcontext():
            patches = self._do("build_patches", tasks.build_patches, field, sources)
            chosen = selected_tags(self._only, field, patches) if self._only else None
            masks = self._do("compose_final_masks", tasks.compose_final_masks, field, mask)
        payloads = self._do(
            "build_patch_inputs", tasks.build_patch_inputs, field, sources, masks, patches, epsf
        )
        fits = self._fits(payloads, chosen)
        if self._pool:
            self._pool.close()  # idle workers keep the memory that the merge can do with
        catalog = self._do("merge", tasks.merge, field, sources, fits)

        if no_gaia:
            record.skip("compute_zp", no_gaia)
            return catalog
        return self._do("compute_zp", tasks.compute_zp, field, catalog)

    def _do(self, name: str, task: Task[..., T], *refs: Any) -> T:
        """One stage as a task, and what the record says of it."""
        again = name in self._refresh
        with self._record.stage(name) as entry:
            plan = reuse.plan(inspect.unwrap(task.fn), self._settings, *refs, refresh=again)
            note_plans(entry, [plan])
            pool = self._pool if name == "load_inputs" and not plan.hit else None
            with warming(pool, self._settings) if pool else contextlib.nullcontext():
                return under(self._settings, task, plan, again)(self._settings, *refs)

    def _epsf(self, field: Ref, sources: Ref) -> list[Ref]:
        """The ePSFs of all bands, on the runner that the configuration asks for."""
        settings, again = self._settings, "build_epsf" in self._refresh
        with self._record.stage("build_epsf") as entry:
            bands = stages.epsf_bands(settings, field)
            build = stages.build_epsf_band
            plans = [reuse.plan(build, settings, field, sources, band, refresh=again) for band in bands]
            note_plans(entry, plans)
            reused = sum(plan.hit for plan in plans)
            entry.detail |= {"bands": len(bands), "reused": reused}
            if reused == len(bands):
                epsf = [reuse.through(build, settings, field, sources, band) for band in bands]
            else:
                runner = task_runner(settings, "bands", len(bands) - reused)
                subflow = build_epsf.with_options(task_runner=runner)
                with no_heartbeat():
                    epsf = subflow(settings, field, sources, bands, again)
                self._has_built_epsfs = True
                entry.detail["bands"] = len(epsf)
            plan = reuse.plan(stages.summarise_epsf, settings, epsf)
            under(settings, tasks.summarise_epsf, plan)(settings, epsf)
        return epsf

    def _fits(self, payloads: list[Ref], chosen: frozenset[str] | None) -> list[Ref]:
        """Fits of all patches (those that were chosen), on the runner that the configuration asks for."""
        settings = self._settings
        with self._record.stage("run_patches") as entry:
            work = divide_work(settings, payloads, chosen, "run_patches" in self._refresh)
            note_work(self._record, entry, work)
            if not work.to_fit:
                return work.done
            workers = n_workers(settings, "patches", len(work.to_fit))
            batches = under(settings, tasks.plan_batches)(settings, work.to_fit, workers)
            runner = task_runner(settings, "patches", len(tasks.read_batches(batches)))
            subflow = run_patches.with_options(task_runner=runner)
            with no_heartbeat():
                made = subflow(settings, batches)
            return sorted(work.done + made, key=lambda ref: ref.path)
