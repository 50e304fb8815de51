"""Pictures of a fitted patch: after its fit is on disk, from what the fit left there."""

from __future__ import annotations

import dataclasses
import logging
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tract7dt import fit, patches
from tract7dt.errors import UNIT_FAILURES, ProductError
from tract7dt.store import WorkDir, atomic_path
from tract7dt.types import ModelKind, PatchFit, PatchPayload, PatchProblem, Ref

if TYPE_CHECKING:
    import pandas as pd

    from tract7dt.settings import Settings

__all__ = [
    "Fitted",
    "draw_fitted",
    "draw_missing",
    "draw_patch_again",
    "pictures_wanted",
    "read_model",
    "write_model",
]

log = logging.getLogger(__name__)

#: What of a fit its model is drawn from, and what the cutouts say of it.
_STORED = ("kind", "x", "y", "re", "ell", "theta", "sersic_n", "flux", "flux_err", "sky")


class Fitted(NamedTuple):
    """A patch after its fit."""

    payload: PatchPayload
    problem: PatchProblem
    result: PatchFit


def pictures_wanted(settings: Settings) -> bool:
    """Whether a patch is drawn at all."""
    run = settings.patch_run
    return not (run.no_cutouts and run.no_patch_overview) or settings.report.enabled


def write_model(path: Path, result: PatchFit) -> None:
    """Write the fitted parameters of all sources, base and halo (NumPy archive without objects)."""
    arrays = {name: getattr(result, name) for name in _STORED}
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, bands=np.array(result.bands, dtype=str), single_band=result.single_band, **arrays)


def read_model(path: Path, tag: str) -> PatchFit:
    """Fitted parameters of a patch; what is not stored (errors of shapes, counters) is NaN or empty.

    Raises
    ------
    ProductError
        The file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in _STORED}
            bands = tuple(str(band) for band in stored["bands"])
            single = bool(stored["single_band"])
    except FileNotFoundError:
        raise ProductError(f"{path}: missing; fit the patch again") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ProductError(f"{path}: damaged ({error}); fit the patch again") from error
    sets, fluxes = np.full(arrays["x"].shape, np.nan), np.full(arrays["flux"].shape, np.nan)
    none = np.zeros(arrays["x"].shape, bool)
    texts = tuple(("",) * none.shape[1] for _ in range(len(none)))
    return PatchFit(
        tag=tag, bands=bands, single_band=single, **arrays,
        x_err=sets, y_err=sets, xy_cov=sets, re_err=sets, ell_err=sets, theta_err=sets, sersic_n_err=sets,
        chi2=fluxes, frac_masked=fluxes, frac_flux=fluxes, sky_err=np.full(len(bands), np.nan),
        converged=none, hit_max_iters=none, stalled=none, niter=none.astype(np.int64), last_dlnp=sets,
        bound=texts, issues=texts, lnp=np.full(len(none), np.nan), stages=(), status="stored",
    )  # fmt: skip


def draw_fitted(settings: Settings, work: WorkDir, fitted: Fitted) -> None:
    """Overview, cutouts and residual map of a patch, as the settings want them.

    A picture that cannot be drawn costs itself, with a warning, and nothing else.
    """
    if not pictures_wanted(settings):
        return
    tag = fitted.payload.patch.tag
    try:
        _draw(settings, work, fitted)
    except UNIT_FAILURES as error:
        log.warning("patch %s: its pictures could not be drawn: %s: %s", tag, type(error).__name__, error)


def draw_patch_again(settings: Settings, work: WorkDir, payload: Ref) -> None:
    """The same from the products on disk alone: payload and ``model.npz``.

    Raises
    ------
    ProductError
        One of them is missing or damaged.
    """
    from tract7dt.fit_patch import patch_problem

    read = patches.read_payload(payload.path)
    result = read_model(work.patch_model(read.patch.tag), read.patch.tag)
    problem, _ = patch_problem(settings, read)
    draw_fitted(settings, work, Fitted(read, problem, result))


def draw_missing(settings: Settings, work: WorkDir, payloads: Iterable[Ref]) -> int:
    """Draw the pictures of patches that are wanted and not there: switched on after the fit, or deleted.

    Patches without a fit are passed over, and those whose payload was removed. Returns how many were drawn.
    """
    drawn = removed = 0
    for ref in payloads:
        tag = Path(ref.path).name.split(".")[0]
        if not work.patch_model(tag).is_file() or not _lacks_pictures(settings, work, tag):
            continue
        if not Path(ref.path).exists():
            removed += 1
            continue
        try:
            draw_patch_again(settings, work, ref)
        except UNIT_FAILURES as error:
            log.warning("patch %s: cannot be drawn again: %s: %s", tag, type(error).__name__, error)
            continue
        drawn += 1
    if removed:
        log.warning(
            "%d patches are not drawn again: their payloads were removed (patch_run.remove_payloads); "
            "`tract7dt build-patch-inputs` brings them back", removed,
        )  # fmt: skip
    return drawn


def _lacks_pictures(settings: Settings, work: WorkDir, tag: str) -> bool:
    run = settings.patch_run
    wanted = [
        (not run.no_patch_overview, work.patch_dir(tag) / "patch_overview.png"),
        (not run.no_cutouts, work.cutouts(tag)),
        (settings.report.enabled, work.patch_residual(tag)),
    ]
    return any(is_wanted and not path.exists() for is_wanted, path in wanted)


def _draw(settings: Settings, work: WorkDir, fitted: Fitted) -> None:
    from tract7dt import qa  # matplotlib: a second, and 30 MB, that a run without pictures does without

    payload, problem, result = fitted
    run = settings.patch_run
    residual = result.residual
    if not (run.no_patch_overview and run.no_cutouts) or residual is None:
        shown = dataclasses.replace(payload, data=problem.data)
        model = fit.render_model(problem, result)
        table = _sources(payload, result)
        if not run.no_patch_overview:
            qa.draw_patch(settings, work, shown, problem.weight, model, table)
        if not run.no_cutouts:
            qa.draw_cutouts(settings, work, shown, problem.weight, model, table)
        if residual is None:
            with np.errstate(invalid="ignore"):  # data that are not finite have no weight
                residual = (problem.data - model) * np.sqrt(problem.weight)
    if settings.report.enabled:
        qa.write_residual_map(work, payload.patch, problem.weight, residual)


def _sources(payload: PatchPayload, result: PatchFit) -> pd.DataFrame:
    """Sources of a payload, base and halo, with what was fitted of them."""
    import pandas as pd

    columns: dict[str, object] = {"source_index": payload.table["source_index"].to_numpy()}
    for band, row in result.sets():
        suffix = "" if band is None else f"_{band}"
        columns[f"x_pix_patch{suffix}_fit"] = result.x[row]
        columns[f"y_pix_patch{suffix}_fit"] = result.y[row]
    for i, band in enumerate(result.bands):
        columns[f"FLUX_{band}_fit"] = result.flux[i]
        columns[f"FLUXERR_{band}_fit"] = result.flux_err[i]
    columns["stype_fit"] = [ModelKind(int(kind)).name.lower() for kind in result.kind]
    return pd.DataFrame(columns)
