"""One patch from payload to files: what a worker does for each patch of its batch."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tract7dt import catalog, fit, patches, psf, sources
from tract7dt.bright_stars import WING_RADIUS, without_bright_stars
from tract7dt.errors import UNIT_FAILURES
from tract7dt.patch_pictures import Fitted, draw_fitted, write_model
from tract7dt.reuse.fits import fit_digest, sealed, why_not_fitted
from tract7dt.reuse.needs import FIT_KEYS
from tract7dt.store import WorkDir, ref_to, sha256_file, write_json, write_text
from tract7dt.types import F8, Epsf, PatchFit, PatchPayload, PatchProblem, PsfAudit, Ref

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["FIT_KEYS", "fit_payload", "patch_problem", "record_failure"]

log = logging.getLogger(__name__)


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


def _wings(payload: PatchPayload, stamps: tuple[F8, ...]) -> Iterator[F8]:
    """PSF of each band, continued to the reach of a saturated star; one at a time, each larger than a patch."""
    for epsf, stamp in zip(payload.psfs, stamps, strict=True):
        chosen = epsf
        if chosen is None or np.shape(chosen.stamp) != stamp.shape:
            chosen = Epsf(stamp.astype(np.float32), 0, "moffat")
        yield psf.wing_stamp(chosen, WING_RADIUS)


def fit_payload(settings: Settings, work: WorkDir, ref: Ref) -> tuple[Ref, bool]:
    """Fit one patch and write its catalogue, model, meta.json and log; then draw it.

    Returns
    -------
    fit : Ref
        The patch's meta.json. Its ``status`` is ``failed``, with the reason and the rows concerned, if
        the patch could not be fitted; the run goes on.
    ok : bool
    """
    tag = ref.path.rsplit("/", 1)[-1].split(".")[0]
    digest = fit_digest(settings)
    # A worker that was killed after its last word to the disk has removed the payload of a fit that is whole.
    kept = settings.patch_run.resume or (settings.patch_run.remove_payloads and not Path(ref.path).exists())
    if kept and not why_not_fitted(work, tag, ref, digest):
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
        write_model(work.patch_model(tag), result)
    except UNIT_FAILURES as error:
        reason = f"{type(error).__name__}: {error}"
        log.warning("patch %s failed: %s", tag, reason, exc_info=log.isEnabledFor(logging.DEBUG))
        return record_failure(settings, work, ref, reason, rows), False
    spent = {"wall_s": time.perf_counter() - clock, "cpu_s": time.process_time() - cpu}
    write_text(work.patch_log(tag), _log_text(result, spent))
    files = {
        "catalog_sha256": sha256_file(work.patch_catalog(tag)),
        "log_sha256": sha256_file(work.patch_log(tag)),
    }
    # Last, since it vouches for the others.
    write_json(work.patch_meta(tag), sealed(base | _meta(result, rows) | spent | files))
    draw_fitted(settings, work, Fitted(payload, problem, result))
    if settings.patch_run.remove_payloads:
        Path(ref.path).unlink(missing_ok=True)
    return ref_to(work.patch_meta(tag), "patch_fit"), True


def record_failure(settings: Settings, work: WorkDir, ref: Ref, reason: str, rows: Sequence[int] = ()) -> Ref:
    """Record that the patch of a payload could not be fitted; a fit that was there before is no more.

    Parameters
    ----------
    settings : Settings
    work : WorkDir
    ref : Ref
        The payload.
    reason : str
    rows : sequence of int
        Its catalogue rows, as far as they are known; the merge knows them from the list of payloads.

    Returns
    -------
    Ref
        The patch's meta.json, ``status`` ``failed``.
    """
    tag = ref.path.rsplit("/", 1)[-1].split(".")[0]
    meta = {
        "patch_tag": tag,
        "payload_sha256": ref.sha256,
        "settings_digest": fit_digest(settings),
        "status": "failed",
        "reason": reason,
        "source_index": list(rows),
    }
    work.patch_catalog(tag).unlink(missing_ok=True)
    write_text(work.patch_log(tag), f"{tag}: failed\n{reason}\n")
    write_json(work.patch_meta(tag), sealed(meta))
    return ref_to(work.patch_meta(tag), "patch_fit")


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
