"""The ten stages as functions ``(settings, refs) -> refs``: read what was written, call the science, write.

No array crosses a stage's border: what passes is a :class:`~tract7dt.types.Ref` to a product in
``work_dir``. Each stage can be called alone once its inputs are there, in any process.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tract7dt import geometry
from tract7dt.batches import by_number, by_share
from tract7dt.errors import InputError, ProductError
from tract7dt.progress import ProgressWriter
from tract7dt.resources import worker_count
from tract7dt.settings.paths import overwrites
from tract7dt.store import WorkDir, ref_to, with_recording, write_json
from tract7dt.types import Field, Patch, Ref, Sources, ZeroPoint

if TYPE_CHECKING:
    import pandas as pd

    from tract7dt.frames import ImageInfo
    from tract7dt.settings import Settings

__all__ = [
    "LoadedField",
    "Masked",
    "augment_gaia",
    "bright_mask",
    "build_epsf_band",
    "build_patch_inputs",
    "build_patches",
    "check_inputs",
    "compose_final_masks",
    "compute_zp",
    "draw_gaia",
    "epsf_bands",
    "fit_patch_batch",
    "fit_refs",
    "gaia_skip_reason",
    "load_inputs",
    "measured_zero_points",
    "merge",
    "patch_batches",
    "payload_refs",
    "payload_tag",
    "summarise_epsf",
]

log = logging.getLogger(__name__)


class LoadedField(NamedTuple):
    """What ``load_inputs`` made."""

    field: Ref
    sources: Ref


class Masked(NamedTuple):
    """What ``bright_mask`` made: the mask, and the sources with ``affected_by_bright_mask``."""

    mask: Ref
    sources: Ref


# --- inputs --------------------------------------------------------------------------------------------


def check_inputs(settings: Settings) -> None:
    """Everything that can be known of the inputs without reading a pixel.

    Raises
    ------
    ConfigError
        The fit engine is not installed.
    InputError
        A file is missing, a header keyword or catalogue column is missing or wrong, bands do not agree,
        identifiers repeat.
    """
    _inspect_inputs(settings)


def _inspect_inputs(settings: Settings) -> tuple[list[ImageInfo], Sources]:
    from tract7dt import frames, sources

    if settings.patch_run.engine != "native":  # is it there? To be known before hours of work, not after
        from tract7dt import fit

        fit.check_engine(settings.patch_run.engine)
    catalogue = sources.read_catalogue(settings.inputs.input_catalog)
    paths = frames.read_image_list(settings.inputs.image_list_file, settings.base_dir, settings.names)
    if lost := [path for path in paths if overwrites(settings, path)]:
        raise InputError(
            f"the run would overwrite {', '.join(lost)}, an image of its own; expected another name"
        )
    images = frames.inspect_images(paths, settings)
    bands = [image.band for image in images]
    sources.check_bands(catalogue, bands)
    if settings.zp.enabled and settings.inputs.gaiaxp_synphot_csv:
        sources.read_gaia(settings.inputs.gaiaxp_synphot_csv, bands, need_magnitudes=True)
    return images, catalogue


def load_inputs(settings: Settings) -> LoadedField:
    """Read and check all inputs; write scaled frames, white stack, WCS and the flagged base catalogue."""
    from tract7dt import frames, sources

    work = WorkDir.of(settings)
    images, catalogue = _inspect_inputs(settings)
    with frames.built_field(images, settings, work) as field:  # its images are digested meanwhile
        base = sources.place(catalogue, field)
        cut = settings.source_saturation_cut
        if cut.enabled:
            x, y = (base.table[c].to_numpy(float) for c in ("x_pix_white", "y_pix_white"))
            near = frames.near_saturation(field, x, y, cut.radius_pix, cut.require_all_bands)
            base = sources.with_saturation(base, near)
        n_active = int((~base.table["excluded_any"]).sum())
        log.info("%d sources, %d active, %d bands", len(base), n_active, len(field.bands))
        if n_active == 0:
            log.warning(
                "no source is left to fit: all %d lie off the working frame or near saturation", len(base)
            )
        sources.write_sources(base, work.sources("loaded"))
    _draw_field(settings, work, field, base)
    return LoadedField(ref_to(work.field_manifest, "field"), ref_to(work.sources("loaded"), "sources"))


def _draw_field(settings: Settings, work: WorkDir, field: Field, base: Sources) -> None:
    """The pictures of the load stage: before and after the crop, sources by type on the white stack."""
    from tract7dt import qa

    qa.draw_crop(settings, work, field)
    qa.draw_overlays(settings, work, field, base.table)


def augment_gaia(settings: Settings, field: Ref, sources: Ref) -> Ref:
    """Match Gaia XP stars to the base catalogue, backfill their fluxes, add the unmatched ones."""
    from tract7dt import frames
    from tract7dt import sources as src

    work, opened = WorkDir.of(settings), frames.open_field(field.path)
    base = src.read_sources(sources.path)
    gaia = src.place_gaia(src.read_gaia(_gaia_path(settings), opened.bands, need_magnitudes=True), opened)
    cut = settings.source_saturation_cut

    def saturated(x: Any, y: Any) -> Any:
        return frames.near_saturation(opened, x, y, cut.radius_pix, cut.require_all_bands)

    augmented = src.augment(base, gaia, opened, settings, saturated if cut.enabled else None)
    src.write_augmented_csv(augmented, work.augmented_catalog)
    src.write_sources(augmented, work.sources("gaia"))
    draw_gaia(settings, opened, augmented.table, len(base))
    return ref_to(work.sources("gaia"), "sources")


def draw_gaia(settings: Settings, field: Field, table: pd.DataFrame, n_input: int) -> None:
    """The picture of the match: the augmented catalogue, the first ``n_input`` rows being the user's."""
    from tract7dt import qa
    from tract7dt import sources as src

    active = table.iloc[:n_input]
    active = active.loc[~active["excluded_any"].to_numpy(bool)]
    x, y = active["x_pix_white"].to_numpy(float), active["y_pix_white"].to_numpy(float)
    box = src.selection_box(x, y, settings.zp.min_box_size_pix, field.box)
    if "gaia_source_id" not in table:  # no star on the frame
        table = table.assign(gaia_source_id="")
    qa.draw_gaia(settings, WorkDir.of(settings), field, table, n_input, box)


def gaia_skip_reason(settings: Settings) -> str | None:
    """Why Gaia augmentation and zero point do not run; None if they do."""
    if not settings.zp.enabled:
        return "zp.enabled is false"
    if not settings.inputs.gaiaxp_synphot_csv:
        return "zp.enabled is true, but inputs.gaiaxp_synphot_csv is not set"
    return None


def _gaia_path(settings: Settings) -> str:
    if not settings.inputs.gaiaxp_synphot_csv:
        raise InputError(
            "inputs.gaiaxp_synphot_csv is not set; it is needed for Gaia stars and the zero point"
        )
    return settings.inputs.gaiaxp_synphot_csv


def bright_mask(settings: Settings, field: Ref, sources: Ref) -> Masked:
    """Mask bright sources of the white stack that are in no catalogue row."""
    from tract7dt import brightmask, frames, qa
    from tract7dt import sources as src

    work, opened = WorkDir.of(settings), frames.open_field(field.path)
    base = src.read_sources(sources.path)
    found = brightmask.find_bright(opened, base, settings.bright_mask)
    brightmask.write_bright_mask(found, opened, work.bright_mask)
    flagged = brightmask.flag_affected(base, found.mask)
    src.write_sources(flagged, work.sources("bright"))
    qa.draw_bright_mask(settings, work, opened, found.mask, found.detections, flagged.table)
    return Masked(ref_to(work.bright_mask, "bright_mask"), ref_to(work.sources("bright"), "sources"))


# --- PSF -----------------------------------------------------------------------------------------------


def epsf_bands(settings: Settings, field: Ref) -> list[str]:
    """Bands of the field, each one unit of work of the ePSF stage."""
    from tract7dt import frames

    return list(frames.open_field(field.path).bands)


def _cells(settings: Settings, field: Field, base: Sources) -> list[tuple[int, int]]:
    """EPSF cells to build: all of them, or those that hold an active source."""
    boxes = geometry.cell_boxes(field.box, settings.epsf.epsf_ngrid)
    if not settings.epsf.skip_empty_epsf_patches:
        return list(boxes)
    active = base.table.loc[~base.table["excluded_any"].to_numpy(bool)]
    x, y = active["x_pix_white"].to_numpy(float), active["y_pix_white"].to_numpy(float)
    return [cell for cell, box in boxes.items() if box.contains(x, y).any()]


def build_epsf_band(settings: Settings, field: Ref, sources: Ref, band: str) -> Ref:
    """Build the ePSF of one band in every active cell."""
    from tract7dt import frames, psf, qa
    from tract7dt import sources as src

    work, opened = WorkDir.of(settings), frames.open_field(field.path)
    base = src.read_sources(sources.path)
    cells = _cells(settings, opened, base)
    gaia = None
    if settings.epsf.use_gaiaxp and settings.inputs.gaiaxp_synphot_csv:
        table = src.read_gaia(settings.inputs.gaiaxp_synphot_csv, opened.bands, need_magnitudes=False)
        gaia = src.place_gaia(table, opened)
    with ProgressWriter.of(work.root, "epsf", band) as progress:
        built = psf.build_band(opened, band, cells, gaia, settings.epsf, progress.update, sources=base.table)
    psf.write_band(built, work)
    qa.draw_epsf_band(settings, work, opened, built)
    return ref_to(work.epsf_band(band), "epsf_band")


def summarise_epsf(settings: Settings, bands: Sequence[Ref]) -> Ref:
    """Collect the manifests of all bands into epsf_summary.json."""
    work = WorkDir.of(settings)
    summary = [json.loads(Path(ref.path).read_text(encoding="utf-8")) for ref in bands]
    write_json(work.epsf_summary, {"bands": summary})
    return ref_to(work.epsf_summary, "epsf_summary")


# --- patches -------------------------------------------------------------------------------------------


def build_patches(settings: Settings, field: Ref, sources: Ref) -> Ref:
    """Divide the active cells of the working frame into fitting patches."""
    from tract7dt import frames, patches
    from tract7dt import sources as src

    work, opened = WorkDir.of(settings), frames.open_field(field.path)
    cells = _cells(settings, opened, src.read_sources(sources.path))
    patches.write_patches(patches.build_patches(opened.box, cells, settings), work)
    return ref_to(work.patches_json, "patches")


def compose_final_masks(settings: Settings, field: Ref, mask: Ref | None) -> Ref:
    """Combine non-finite, saturated and bright pixels into the mask that the fit sees, band by band."""
    from tract7dt import brightmask, frames

    work, opened = WorkDir.of(settings), frames.open_field(field.path)
    bright = None if mask is None else brightmask.read_bright_mask(mask.path)
    return ref_to(frames.compose_masks(opened, bright, work), "masks")


def build_patch_inputs(
    settings: Settings, field: Ref, sources: Ref, masks: Ref, patches: Ref, epsf: Sequence[Ref]
) -> list[Ref]:
    """Write one self-contained payload a patch; a band without a ref in ``epsf`` gets a fallback PSF."""
    from tract7dt import frames, psf
    from tract7dt import patches as pt
    from tract7dt import sources as src

    work, opened = WorkDir.of(settings), frames.open_field(field.path)
    builder = pt.PayloadBuilder(
        opened,
        {band: frames.open_mask(masks.path, band) for band in opened.bands},
        src.read_sources(sources.path),
        {grid.band: grid for grid in (psf.read_band(Path(ref.path)) for ref in epsf)},
        settings,
        psf.psf_at if settings.epsf.spatial == "interpolated" else None,
    )
    level = settings.patch_inputs.gzip_compresslevel

    def write(patch: Patch) -> tuple[str, dict[str, Any]] | None:
        payload = builder.build(patch)
        if payload is None:
            return None
        path = work.payload(patch.tag, compressed=level > 0)
        pt.write_payload(payload, path, level)
        halo = payload.table["_is_halo_source"].to_numpy(bool)
        return patch.tag, {
            "ref": dataclasses.asdict(dataclasses.replace(ref_to(path, "payload"), path=path.name)),
            "n_sources": int((~halo).sum()),
            "n_halo_sources": int(halo.sum()),
            "source_index": payload.table.loc[~halo, "source_index"].tolist(),
            "cost": pt.predicted_cost(payload),
        }

    # Threads: most of the time goes into compression and digests, which release the interpreter.
    with ThreadPoolExecutor(worker_count(settings.patch_inputs.max_workers)) as pool:
        written = dict(
            entry for entry in pool.map(with_recording(write), pt.read_patches(patches.path)) if entry
        )
    _drop_stale(work.payloads, {Path(entry["ref"]["path"]).name for entry in written.values()})
    write_json(_payload_index(work), written)
    log.info("%d payloads, %d sources", len(written), sum(e["n_sources"] for e in written.values()))
    return payload_refs(settings)


def _payload_index(work: WorkDir) -> Path:
    return work.payloads / "payloads.json"


def _drop_stale(folder: Path, current: set[str]) -> None:
    """Remove payloads of an earlier run with another division: nobody must fit or merge them by mistake."""
    for path in folder.glob("*.fits*"):
        if path.name not in current and not path.name.startswith("."):
            path.unlink()


def payload_refs(settings: Settings) -> list[Ref]:
    """Payloads that ``build_patch_inputs`` left in ``work_dir``.

    Raises
    ------
    ProductError
        If there are none.
    """
    return [_payload_ref(settings, entry) for entry in _read_payload_index(settings).values()]


def _payload_ref(settings: Settings, entry: Mapping[str, Any]) -> Ref:
    """A payload of the index, which names it by its file name: a work_dir may move."""
    ref = Ref(**entry["ref"])
    return dataclasses.replace(ref, path=str(WorkDir.of(settings).payloads / ref.path))


def _read_payload_index(settings: Settings) -> dict[str, dict[str, Any]]:
    index = _payload_index(WorkDir.of(settings))
    if not index.is_file():
        raise ProductError(f"no payloads in {index.parent}: run `tract7dt build-patch-inputs` first")
    return dict(json.loads(index.read_text(encoding="utf-8")))


# --- fit -----------------------------------------------------------------------------------------------


def patch_batches(settings: Settings, payloads: Sequence[Ref], n_workers: int) -> list[list[Ref]]:
    """Divide the payloads into batches by predicted cost, the dearest first.

    Parameters
    ----------
    settings : Settings
        ``runtime.patches_per_task``: patches a batch, or "auto": see :func:`tract7dt.batches.by_share`.
    payloads : sequence of Ref
    n_workers : int
    """
    from tract7dt.patches import SECONDS_PER_COST

    entries = _read_payload_index(settings).values()
    index = {_payload_ref(settings, entry).path: float(entry["cost"]) for entry in entries}
    cost = {ref.path: index.get(ref.path, 1.0) * SECONDS_PER_COST for ref in payloads}
    per_task = settings.runtime.patches_per_task
    divided = by_share(cost, n_workers) if per_task == "auto" else by_number(cost, per_task)
    by_path = {ref.path: ref for ref in payloads}
    return [[by_path[path] for path in batch] for batch in divided]


def payload_tag(ref: Ref) -> str:
    """Tag of the patch that a payload is of."""
    return Path(ref.path).name.split(".")[0]


def fit_patch_batch(
    settings: Settings, payloads: Sequence[Ref], on_patch: Callable[[str], None] | None = None
) -> list[Ref]:
    """Fit the patches of one batch; a patch that fails leaves a meta.json that says why.

    Parameters
    ----------
    settings : Settings
    payloads : sequence of Ref
    on_patch : callable, optional
        Called with the tag of each patch before it is begun, so that whoever started this process knows
        which patch it died of.
    """
    from tract7dt.fit_patch import fit_payload

    work = WorkDir.of(settings)
    fits: list[Ref] = []
    failed = 0
    name = payload_tag(payloads[0]) if payloads else "empty"
    with ProgressWriter.of(work.root, "patches", name) as progress:
        progress.update(0, len(payloads))
        for done, ref in enumerate(payloads, 1):
            if on_patch is not None:
                on_patch(payload_tag(ref))
            fit, ok = fit_payload(settings, work, ref)
            failed += not ok
            fits.append(fit)
            progress.update(done, len(payloads), failed)
    return fits


def fit_refs(settings: Settings) -> list[Ref]:
    """Fits in ``work_dir`` of the payloads that are there; a patch without one is left out with a warning.

    A fit of another payload (an earlier division has patches of the same name) is none.

    Raises
    ------
    ProductError
        If no payload has a fit.
    """
    work = WorkDir.of(settings)
    index = _read_payload_index(settings)
    there = [
        tag for tag, entry in index.items() if _fitted_payload(work.patch_meta(tag)) == entry["ref"]["sha256"]
    ]
    if index and not there:
        raise ProductError(
            f"no fit of the payloads of {work.payloads} in {work.fits}: run `tract7dt run-patches` first"
        )
    if len(there) < len(index):
        lacking = [tag for tag in index if tag not in set(there)]
        log.warning(
            "%d of %d patches have no fit of their payload in %s (%s%s)",
            len(lacking),
            len(index),
            work.fits,
            ", ".join(lacking[:5]),
            ", ..." if len(lacking) > 5 else "",
        )
    return [ref_to(work.patch_meta(tag), "patch_fit") for tag in there]


def _fitted_payload(path: Path) -> str | None:
    """Digest of the payload that a patch's meta.json is about; None if there is no such file, or no digest."""
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    digest = meta.get("payload_sha256") if isinstance(meta, dict) else None
    return digest if isinstance(digest, str) else None


# --- catalogue -----------------------------------------------------------------------------------------


def merge(settings: Settings, field: Ref, sources: Ref, fits: Sequence[Ref]) -> Ref:
    """Join the fits to the base catalogue: every row, in order, exactly once; patches without one are flagged."""
    from tract7dt import catalog, frames
    from tract7dt import sources as src

    work, opened = WorkDir.of(settings), frames.open_field(field.path)
    tables: list[pd.DataFrame] = []
    failed: dict[str, tuple[str, list[int]]] = {}
    fitted: set[str] = set()
    index = _read_payload_index(settings)
    for ref in fits:
        meta = json.loads(Path(ref.path).read_text(encoding="utf-8"))
        tag = meta["patch_tag"]
        fitted.add(tag)
        if meta["status"] == "failed":
            # A payload that could not be read did not say whose it was.
            failed[tag] = (meta["reason"], index[tag]["source_index"])
        else:
            tables.append(catalog.read_patch_catalog(work.patch_catalog(tag)))
    merged = catalog.merge(
        src.read_sources(sources.path),
        tables,
        opened.wcs,
        opened.bands,
        single_band=not settings.patch_run.enable_multi_band_simultaneous_fitting,
        failed=failed,
        not_fitted={tag: entry["source_index"] for tag, entry in index.items() if tag not in fitted},
    )
    catalog.write_merged(merged, work.merged)
    catalog.write_catalog(merged, work.final_catalog, opened.bands, _provenance(settings, opened))
    return ref_to(work.merged, "catalog")


#: Aperture and neighbours move a ZP_AUTO by less than this, mag.
_MAX_ZP_DIFFERENCE = 0.5


def _doubt_zero_points(zero_points: list[ZeroPoint], field: Field) -> None:
    """Say where Gaia and the headers contradict each other: by ZP_AUTO every image has the zero point zp_ref."""
    for zp in zero_points:
        difference = zp.value - field.zp_ref
        if abs(difference) > _MAX_ZP_DIFFERENCE:
            frame = field.frames[zp.band]
            log.warning(
                "%s: the zero point from Gaia differs by %+.2f mag from ZP_AUTO = %g of %s; one of them is wrong",
                zp.band, difference, frame.zp_auto, frame.path,
            )  # fmt: skip


def compute_zp(settings: Settings, field: Ref, catalog: Ref) -> Ref:
    """Measure the zero point of every band from Gaia stars and write magnitudes into the final catalogue."""
    from tract7dt import catalog as cat
    from tract7dt import frames, qa

    work, opened = WorkDir.of(settings), frames.open_field(field.path)
    merged = cat.read_merged(Path(catalog.path))
    zero_points, per_object = measured_zero_points(settings, opened, merged)
    cat.write_zp(zero_points, per_object, work)
    _doubt_zero_points(zero_points, opened)
    calibrated = cat.apply_zero_points(merged, zero_points)
    cat.write_catalog(calibrated, work.final_catalog, opened.bands, _provenance(settings, opened))
    qa.draw_zero_points(settings, work, zero_points, per_object)
    return ref_to(work.final_catalog, "catalog")


def measured_zero_points(
    settings: Settings, field: Field, merged: pd.DataFrame
) -> tuple[list[ZeroPoint], pd.DataFrame]:
    """Zero point of every band, and the stars behind it; nothing is written."""
    from tract7dt import catalog as cat
    from tract7dt import sources as src

    gaia = src.read_gaia(_gaia_path(settings), field.bands, need_magnitudes=True)
    magnitudes = src.gaia_magnitudes(gaia, merged["gaia_source_id"], field.bands)
    zero_points, per_object = cat.measure_zero_points(merged, magnitudes, field.bands, settings.zp)
    return list(zero_points), per_object


def _provenance(settings: Settings, field: Field) -> Mapping[str, str]:
    """What a catalogue file says of its own origin: no dates, so that two runs write the same bytes."""
    from tract7dt import __version__

    return {
        "field": settings.inputs.tile_name,
        "zp_ref": f"{field.zp_ref:g}",
        "software": f"tract7dt-flow {__version__}",
    }
