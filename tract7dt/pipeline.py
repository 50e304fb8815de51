"""The stages in order, without Prefect: what ``tract7dt run --direct`` and the step commands do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tract7dt import reuse, stages
from tract7dt.errors import UNIT_FAILURES, ProductError, StageError
from tract7dt.progress import progress_folder, write_plan
from tract7dt.run_report import report_of_run
from tract7dt.selection import divide_work, selected_tags
from tract7dt.stages import gaia_skip_reason
from tract7dt.store import WorkDir, ref_to
from tract7dt.types import Ref

if TYPE_CHECKING:
    from tract7dt.run_record import RunRecord, StageEntry
    from tract7dt.selection import Selection, Work
    from tract7dt.settings import Settings

__all__ = ["STEPS", "gaia_skip_reason", "note_plans", "note_work", "run_steps"]

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Stages that a step command is about. It always does them; what goes before is reused where it is whole.
STEPS = {
    "run": (),
    "run-epsf": ("build_epsf",),
    "build-patches": ("build_patches",),
    "build-patch-inputs": ("compose_final_masks", "build_patch_inputs"),
    "run-patches": ("run_patches",),
    "merge": ("merge",),
    "compute-zp": ("compute_zp",),
}

#: Commands after which there is a new catalogue to report of.
_REPORTED = ("run", "merge", "compute-zp")


def run_steps(
    settings: Settings,
    command: str,
    record: RunRecord,
    refresh: Collection[str] = (),
    only: Selection | None = None,
) -> None:
    """Run the stages of one command, in this process; what is there, whole and up to date is reused.

    Parameters
    ----------
    settings : Settings
    command : {"run", "run-epsf", "build-patches", "build-patch-inputs", "run-patches", "merge", "compute-zp"}
        ``run`` is the whole pipeline. A step always does its own stage. One that needs the base catalogue
        brings inputs and Gaia match up to date, so that it sees the same rows as a full run.
    record : RunRecord
        Receives status, times and counts of every stage.
    refresh : collection of str
        Stages (names of the record) that are made again in any case. What follows them is made again only
        if what they made is not the same as before.
    only : Selection, optional
        Of ``run``: the patches to fit; the others keep the fits that they have. All by default.

    Raises
    ------
    InputError, ProductError
        An input is wrong, or a product of an earlier step is missing.
    """
    _Steps(settings, record, {*refresh, *STEPS[command]}, only).run(command)
    if command in _REPORTED:
        report_of_run(settings, record)


class _Steps:
    """The stages of one command on one work_dir."""

    def __init__(
        self, settings: Settings, record: RunRecord, refresh: set[str], only: Selection | None
    ) -> None:
        self._settings, self._record, self._only = settings, record, only
        self._refresh = reuse.with_payloads(settings, refresh)
        self._work = WorkDir.of(settings)

    def run(self, command: str) -> None:
        settings = self._settings
        if command == "run-patches":
            self._fit(stages.payload_refs(settings), None, resume=settings.patch_run.resume)
            return
        if command == "compute-zp":
            self._zero_point(_existing(self._work.merged, "catalog", "merge"))
            return
        field, sources = self._load()
        if command == "run-epsf":
            self._epsf(field, sources)
            return
        if command == "build-patches":
            self._do("build_patches", stages.build_patches, field, sources)
            return
        mask, sources = self._mask(field, sources)
        if command == "merge":
            self._do("merge", stages.merge, field, sources, stages.fit_refs(settings))
            return
        if command == "build-patch-inputs":
            epsf = [
                _existing(self._work.epsf_band(band), "epsf_band", "run-epsf")
                for band in stages.epsf_bands(settings, field)
            ]
            patches = _existing(self._work.patches_json, "patches", "build-patches")
            self._payloads(field, sources, mask, patches, epsf)
            return
        epsf = self._epsf(field, sources)
        patches = self._do("build_patches", stages.build_patches, field, sources)
        chosen = selected_tags(self._only, field, patches) if self._only else None
        fits = self._fit(self._payloads(field, sources, mask, patches, epsf), chosen)
        self._zero_point(self._do("merge", stages.merge, field, sources, fits))

    def _do(self, name: str, stage: Callable[..., T], *refs: Any) -> T:
        """One stage, and what the record says of it."""
        with self._record.stage(name) as entry:
            planned = reuse.plan(stage, self._settings, *refs, refresh=name in self._refresh)
            note_plans(entry, [planned])
            return reuse.through(stage, self._settings, *refs)

    def _load(self) -> tuple[Ref, Ref]:
        field, sources = self._do("load_inputs", stages.load_inputs)
        if reason := gaia_skip_reason(self._settings):
            self._record.skip("augment_gaia", reason)
        else:
            sources = self._do("augment_gaia", stages.augment_gaia, field, sources)
        return field, sources

    def _mask(self, field: Ref, sources: Ref) -> tuple[Ref | None, Ref]:
        if not self._settings.bright_mask.enabled:
            self._record.skip("bright_mask", "bright_mask.enabled is false")
            return None, sources
        return self._do("bright_mask", stages.bright_mask, field, sources)

    def _epsf(self, field: Ref, sources: Ref) -> list[Ref]:
        settings = self._settings
        with self._record.stage("build_epsf") as entry:
            bands = stages.epsf_bands(settings, field)
            write_plan(progress_folder(settings.outputs.work_dir), "epsf", bands)
            again = "build_epsf" in self._refresh
            build = stages.build_epsf_band
            note_plans(
                entry, [reuse.plan(build, settings, field, sources, band, refresh=again) for band in bands]
            )
            epsf = [ref for band in bands if (ref := _epsf_band(settings, field, sources, band))]
            if not epsf:
                raise StageError("build_epsf: no band has an ePSF; the log says why of each")
            reuse.through(stages.summarise_epsf, settings, epsf)
        return epsf

    def _payloads(
        self, field: Ref, sources: Ref, mask: Ref | None, patches: Ref, epsf: Sequence[Ref]
    ) -> list[Ref]:
        masks = self._do("compose_final_masks", stages.compose_final_masks, field, mask)
        build = stages.build_patch_inputs
        return self._do("build_patch_inputs", build, field, sources, masks, patches, epsf)

    def _fit(self, payloads: Sequence[Ref], chosen: frozenset[str] | None, resume: bool = False) -> list[Ref]:
        with self._record.stage("run_patches") as entry:
            again = "run_patches" in self._refresh and not resume
            work = divide_work(self._settings, payloads, chosen, again)
            note_work(self._record, entry, work)
            if not work.to_fit:
                return work.done
            fits = work.done + stages.fit_patch_batch(self._settings, work.to_fit)
            return sorted(fits, key=lambda ref: ref.path)

    def _zero_point(self, catalog: Ref) -> None:
        if reason := gaia_skip_reason(self._settings):
            self._record.skip("compute_zp", reason)
            return
        field = _existing(self._work.field_manifest, "field", "run")
        self._do("compute_zp", stages.compute_zp, field, catalog)


def note_plans(entry: StageEntry, plans: Sequence[reuse.Plan]) -> None:
    """Say in the record of a stage what is reused and from which runs, and why the rest is not."""
    made_by = sorted({plan.made_by for plan in plans if plan.hit and plan.made_by})
    if made_by:
        entry.detail["reused_from"] = made_by
    why = {plan.unit or plan.stage: plan.why for plan in plans if not plan.hit}
    if why:
        entry.detail["why"] = next(iter(why.values())) if len(plans) == 1 else why
    elif plans:
        entry.status = "cached"


def note_work(record: RunRecord, entry: StageEntry, work: Work) -> None:
    """Say in the record how many patches there are, which are reused and which are left out."""
    total = len(work.to_fit) + len(work.done) + len(work.left_out)
    entry.detail |= {"patches": total, "reused": len(work.done)}
    if made_by := reuse.note_makers(record.work, record.run_id, work.to_fit, work.done):
        entry.detail["reused_from"] = made_by
    if work.left_out:
        entry.detail["left_out"] = len(work.left_out)
    if not work.to_fit:
        entry.status = "cached"
    record.count(patches_not_fitted=work.left_out)


def _existing(path: Path, kind: str, command: str) -> Ref:
    if not path.is_file():
        raise ProductError(f"{path} is not there: run `tract7dt {command}` first")
    return ref_to(path, kind)


def _epsf_band(settings: Settings, field: Ref, sources: Ref, band: str) -> Ref | None:
    """The ePSFs of one band; None, with a warning, where they cannot be built: its patches get fallback PSFs."""
    try:
        return reuse.through(stages.build_epsf_band, settings, field, sources, band)
    except UNIT_FAILURES as error:
        log.warning(
            "band %s has no ePSF, a fallback PSF stands in: %s: %s", band, type(error).__name__, error
        )
        return None
