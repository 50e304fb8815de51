"""The stages in order, without Prefect: what ``tract7dt run --direct`` and the step commands do."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tract7dt import stages
from tract7dt.errors import UNIT_FAILURES, ProductError, StageError
from tract7dt.progress import progress_folder, write_plan
from tract7dt.store import WorkDir, ref_to
from tract7dt.types import Ref

if TYPE_CHECKING:
    from tract7dt.run_record import RunRecord
    from tract7dt.settings import Settings

__all__ = ["gaia_skip_reason", "run_steps"]

log = logging.getLogger(__name__)


def gaia_skip_reason(settings: Settings) -> str | None:
    """Why Gaia augmentation and zero point do not run; None if they do."""
    if not settings.zp.enabled:
        return "zp.enabled is false"
    if not settings.inputs.gaiaxp_synphot_csv:
        return "zp.enabled is true, but inputs.gaiaxp_synphot_csv is not set"
    return None


def run_steps(settings: Settings, command: str, record: RunRecord) -> None:
    """Run the stages of one command, in this process.

    Parameters
    ----------
    settings : Settings
    command : {"run", "run-epsf", "build-patches", "build-patch-inputs", "run-patches", "merge", "compute-zp"}
        ``run`` is the whole pipeline. A step that needs the base catalogue loads the inputs and matches
        Gaia again, so that it sees the same rows as a full run.
    record : RunRecord
        Receives status, times and counts of every stage.

    Raises
    ------
    InputError, ProductError
        An input is wrong, or a product of an earlier step is missing.
    """
    if command == "run-patches":
        _fit(settings, record, stages.payload_refs(settings))
        return
    if command == "compute-zp":
        _zero_point(settings, record, _existing(WorkDir.of(settings).merged, "catalog", "merge"))
        return
    field, sources = _load(settings, record)
    if command == "run-epsf":
        _epsf(settings, record, field, sources)
        return
    if command == "build-patches":
        _patches(settings, record, field, sources)
        return
    mask, sources = _mask(settings, record, field, sources)
    work = WorkDir.of(settings)
    if command == "merge":
        _merge(settings, record, field, sources, stages.fit_refs(settings))
        return
    if command == "build-patch-inputs":
        epsf = [
            _existing(work.epsf_band(band), "epsf_band", "run-epsf")
            for band in stages.epsf_bands(settings, field)
        ]
        patches = _existing(work.patches_json, "patches", "build-patches")
        _payloads(settings, record, field, sources, mask, patches, epsf)
        return
    epsf = _epsf(settings, record, field, sources)
    patches = _patches(settings, record, field, sources)
    payloads = _payloads(settings, record, field, sources, mask, patches, epsf)
    catalog = _merge(settings, record, field, sources, _fit(settings, record, payloads))
    _zero_point(settings, record, catalog)


def _existing(path: Path, kind: str, command: str) -> Ref:
    if not path.is_file():
        raise ProductError(f"{path} is not there: run `tract7dt {command}` first")
    return ref_to(path, kind)


def _load(settings: Settings, record: RunRecord) -> tuple[Ref, Ref]:
    with record.stage("load_inputs"):
        field, sources = stages.load_inputs(settings)
    if reason := gaia_skip_reason(settings):
        record.skip("augment_gaia", reason)
    else:
        with record.stage("augment_gaia"):
            sources = stages.augment_gaia(settings, field, sources)
    return field, sources


def _mask(settings: Settings, record: RunRecord, field: Ref, sources: Ref) -> tuple[Ref | None, Ref]:
    if not settings.bright_mask.enabled:
        record.skip("bright_mask", "bright_mask.enabled is false")
        return None, sources
    with record.stage("bright_mask"):
        return stages.bright_mask(settings, field, sources)


def _epsf(settings: Settings, record: RunRecord, field: Ref, sources: Ref) -> list[Ref]:
    with record.stage("build_epsf"):
        bands = stages.epsf_bands(settings, field)
        write_plan(progress_folder(settings.outputs.work_dir), "epsf", bands)
        epsf = [ref for band in bands if (ref := _epsf_band(settings, field, sources, band))]
        if not epsf:
            raise StageError("build_epsf: no band has an ePSF; the log says why of each")
        stages.summarise_epsf(settings, epsf)
    return epsf


def _epsf_band(settings: Settings, field: Ref, sources: Ref, band: str) -> Ref | None:
    """The ePSFs of one band; None, with a warning, where they cannot be built: its patches get fallback PSFs."""
    try:
        return stages.build_epsf_band(settings, field, sources, band)
    except UNIT_FAILURES as error:
        log.warning(
            "band %s has no ePSF, a fallback PSF stands in: %s: %s", band, type(error).__name__, error
        )
        return None


def _patches(settings: Settings, record: RunRecord, field: Ref, sources: Ref) -> Ref:
    with record.stage("build_patches"):
        return stages.build_patches(settings, field, sources)


def _payloads(
    settings: Settings,
    record: RunRecord,
    field: Ref,
    sources: Ref,
    mask: Ref | None,
    patches: Ref,
    epsf: Sequence[Ref],
) -> list[Ref]:
    with record.stage("compose_final_masks"):
        masks = stages.compose_final_masks(settings, field, mask)
    with record.stage("build_patch_inputs"):
        return stages.build_patch_inputs(settings, field, sources, masks, patches, epsf)


def _fit(settings: Settings, record: RunRecord, payloads: Sequence[Ref]) -> list[Ref]:
    with record.stage("run_patches"):
        return stages.fit_patch_batch(settings, payloads)


def _merge(settings: Settings, record: RunRecord, field: Ref, sources: Ref, fits: Sequence[Ref]) -> Ref:
    with record.stage("merge"):
        return stages.merge(settings, field, sources, fits)


def _zero_point(settings: Settings, record: RunRecord, catalog: Ref) -> None:
    if reason := gaia_skip_reason(settings):
        record.skip("compute_zp", reason)
        return
    field = _existing(WorkDir.of(settings).field_manifest, "field", "run")
    with record.stage("compute_zp"):
        stages.compute_zp(settings, field, catalog)
