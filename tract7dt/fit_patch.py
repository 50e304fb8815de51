"""One patch from payload to files: what a worker does for each patch of its batch."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from tract7dt import catalog, fit, patches, psf, qa, sources
from tract7dt.bright_stars import WING_RADIUS, without_bright_stars
from tract7dt.errors import UNIT_FAILURES
from tract7dt.settings import PatchRunSettings, settings_digest
from tract7dt.store import WorkDir, ref_to, sha256_file, write_json, write_text
from tract7dt.types import F8, Epsf, PatchFit, PatchPayload, PatchProblem, PsfAudit, Ref

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["FIT_KEYS", "fit_payload", "patch_problem"]

log = logging.getLogger(__name__)

_NOT_OF_THE_FIT = {"resume", "max_workers", "threads_per_process", "no_cutouts", "no_patch_overview"}

#: Settings that a fit depends on, besides its payload: all but where it runs, and what is drawn of it.
FIT_KEYS = (
    "moffat_psf",
    *(
        f"patch_run.{name}"
        for name in PatchRunSettings.model_fields
        if name not in _NOT_OF_THE_FIT and not name.startswith("cutout_")
    ),
)


def patch_problem(settings: Settings, payload: PatchPayload) -> tuple[PatchProblem, PsfAudit]:
    """The engine's view of a payload: weights, one PSF a band, start values and priors."""
    run = settings.patch_run
    stamps, extended, audit = psf.choose_psfs(payload, settings)
    models = sources.model_sources(payload, run)
    data, weight = (
        payload.data,
        fit.weights(payload.data, payload.bad, payload.sky_sigma, payload.gain, run.noise_model),
    )
    saturated = (payload.table["halo_kind"] == patches.SATURATED).to_numpy(bool)
    if saturated.any():
        data, weight = without_bright_stars(
            data,
            weight,
            payload.sky_sigma,
            [len(stamp) for stamp in stamps],
            _wings(payload, stamps),
            models.x[saturated],
            models.y[saturated],
            models.flux[:, saturated],
        )
    problem = PatchProblem(
        tag=payload.patch.tag,
        bands=payload.bands,
        data=data,
        weight=weight,
        sky_sigma=payload.sky_sigma,
        gain=payload.gain,
        psf=stamps,
        psf_extended=extended,
        sources=models,
    )
    return problem, audit


def _wings(payload: PatchPayload, stamps: tuple[F8, ...]) -> list[F8]:
    """PSF of each band, continued to the reach of a saturated star."""
    chosen = [
        epsf
        if epsf is not None and np.shape(epsf.stamp) == stamp.shape
        else Epsf(stamp.astype(np.float32), 0, "moffat")
        for epsf, stamp in zip(payload.psfs, stamps, strict=True)
    ]
    return [psf.wing_stamp(epsf, WING_RADIUS) for epsf in chosen]


def fit_payload(settings: Settings, work: WorkDir, ref: Ref) -> tuple[Ref, bool]:
    """Fit one patch and write its catalogue, meta.json, log and overview.

    Returns
    -------
    fit : Ref
        The patch's meta.json. Its ``status`` is ``failed``, with the reason and the rows concerned, if
        the patch could not be fitted; the run goes on.
    ok : bool
    """
    tag = ref.path.rsplit("/", 1)[-1].split(".")[0]
    digest = settings_digest(settings, FIT_KEYS)
    if settings.patch_run.resume and _is_done(work, tag, ref, digest):
        return ref_to(work.patch_meta(tag), "patch_fit"), True
    clock, cpu = time.perf_counter(), time.process_time()
    base = {"patch_tag": tag, "payload_sha256": ref.sha256, "settings_digest": digest}
    rows: list[int] = []
    try:
        payload = patches.read_payload(ref.path)
        rows = payload.table.loc[~payload.table["_is_halo_source"].astype(bool), "source_index"].tolist()
        problem, audit = patch_problem(settings, payload)
        result = fit.fit_patch(problem, settings.patch_run)
        table = catalog.patch_table(payload, result, audit)
        catalog.write_patch_catalog(table, work.patch_catalog(tag))
        if not settings.patch_run.no_patch_overview:
            shown = dataclasses.replace(payload, data=problem.data)
            qa.draw_patch(settings, work, shown, problem.weight, fit.render_model(problem, result), table)
    except UNIT_FAILURES as error:
        reason = f"{type(error).__name__}: {error}"
        log.warning("patch %s failed: %s", tag, reason, exc_info=log.isEnabledFor(logging.DEBUG))
        meta = base | {"status": "failed", "reason": reason, "source_index": rows}
        work.patch_catalog(tag).unlink(missing_ok=True)
        write_text(work.patch_log(tag), f"{tag}: failed\n{reason}\n")
        write_json(work.patch_meta(tag), meta)
        return ref_to(work.patch_meta(tag), "patch_fit"), False
    spent = {"wall_s": time.perf_counter() - clock, "cpu_s": time.process_time() - cpu}
    meta = base | _meta(result, rows) | spent | {"catalog_sha256": sha256_file(work.patch_catalog(tag))}
    write_text(work.patch_log(tag), _log_text(result, spent))
    write_json(work.patch_meta(tag), meta)
    return ref_to(work.patch_meta(tag), "patch_fit"), True


def _is_done(work: WorkDir, tag: str, ref: Ref, digest: str) -> bool:
    """Whether ``patch_run.resume`` may take the fit that is there: same payload, same settings, whole."""
    meta_path, table_path = work.patch_meta(tag), work.patch_catalog(tag)
    if not (meta_path.is_file() and table_path.is_file()):
        return False
    meta = json.loads(meta_path.read_text(encoding="utf-8"))
    return (
        meta.get("status") not in (None, "failed")
        and meta.get("payload_sha256") == ref.sha256
        and meta.get("settings_digest") == digest
        and meta.get("catalog_sha256") == sha256_file(table_path)
    )


def _meta(result: PatchFit, rows: list[int]) -> dict[str, Any]:
    return {
        "status": result.status,
        "bands": result.bands,
        "single_band": result.single_band,
        "n_sources": len(rows),
        "n_model_sources": len(result),
        "source_index": rows,
        "n_converged": int(result.converged.all(axis=0).sum()),
        "lnp": result.lnp,
        "sky": dict(zip(result.bands, result.sky.tolist())),
        "stages": result.stages,
    }


def _log_text(result: PatchFit, spent: dict[str, float]) -> str:
    lines = [f"{result.tag}: {result.status}, {len(result)} sources, {len(result.bands)} bands"]
    lines += ["  " + ", ".join(f"{k} {v}" for k, v in stage.items()) for stage in result.stages]
    lines.append(f"  {spent['wall_s']:.2f} s wall, {spent['cpu_s']:.2f} s CPU")
    return "\n".join(lines) + "\n"
