"""Stages that cost nothing and fail on demand, for the tests of the orchestration.

FAKE_TROUBLE is a JSON mapping of stage (or ``stage:item``) to a kind of trouble. Workers of a pool import
this module by its name, so its folder must be on PYTHONPATH.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tract7dt.errors import InputError, ProductError
from tract7dt.progress import ProgressWriter
from tract7dt.stages import LoadedField, Masked
from tract7dt.store import WorkDir, ref_to, sha256_file, write_json, write_text
from tract7dt.types import Ref

log = logging.getLogger("tract7dt.fake")

BANDS = ("m400", "m425", "m450", "m475")
N_PATCHES = 12


class TwoArgumentsError(Exception):
    """Does not survive pickling."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def _called(settings: Any, stage: str, item: str = "") -> None:
    """Note the call, then meet the trouble that the test asked for."""
    root = Path(settings.outputs.work_dir)
    with (root / "calls.txt").open("a") as stream:
        stream.write(f"{stage} {item or '-'} {os.getpid()}\n")
    log.info("fake %s %s", stage, item)
    troubles = json.loads(os.environ.get("FAKE_TROUBLE", "{}"))
    kind = troubles.get(f"{stage}:{item}") or troubles.get(stage)
    if kind == "input":
        raise InputError(f"{item or stage}: expected a good input, found a bad one")
    if kind == "product":
        raise ProductError(f"{item or stage}: the product is gone")
    if kind == "bug":
        raise ZeroDivisionError("1/0 in the middle of things")
    if kind == "unpicklable":
        raise TwoArgumentsError("this", "that")
    if kind == "exit":
        sys.exit(3)
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "kill once" and not (mark := root / f"killed-{stage}-{item}").exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "os._exit":
        os._exit(7)
    if kind == "memory":
        taken = []
        while (
            True
        ):  # asked for and not touched: on a loaded machine the pages would take longer than the limit
            taken.append(np.empty(2**26, np.uint8))
    if kind == "hang":
        [time.sleep(0.1) for _ in range(6000)]
    if kind == "once" and not (mark := root / f"once-{stage}-{item}").exists():
        mark.touch()
        raise ConnectionResetError("the mount went away")


def _write(settings: Any, name: str, kind: str, text: str) -> Ref:
    path = Path(settings.outputs.work_dir) / "products" / name
    write_text(path, text)
    return ref_to(path, kind)


def check_inputs(settings: Any) -> None:
    _called(settings, "check_inputs")


def load_inputs(settings: Any) -> LoadedField:
    from tract7dt.frames import read_image_list

    _called(settings, "load_inputs")
    work = WorkDir.of(settings)
    given = settings.inputs
    images = read_image_list(given.image_list_file, settings.base_dir, settings.names)
    read = [{"path": path, "sha256": sha256_file(path)} for path in images if Path(path).is_file()]
    write_json(work.field_manifest, {"frames": read})
    return LoadedField(ref_to(work.field_manifest, "field"), _write(settings, "sources", "sources", "rows"))


def augment_gaia(settings: Any, field: Ref, sources: Ref) -> Ref:
    _called(settings, "augment_gaia")
    return _write(settings, "sources_gaia", "sources", Path(sources.path).read_text() + " gaia")


def bright_mask(settings: Any, field: Ref, sources: Ref) -> Masked:
    _called(settings, "bright_mask")
    return Masked(
        _write(settings, "mask", "bright_mask", "mask"),
        _write(settings, "sources_bright", "sources", Path(sources.path).read_text() + " bright"),
    )


def epsf_bands(settings: Any, field: Ref) -> list[str]:
    return list(BANDS)


def build_epsf_band(settings: Any, field: Ref, sources: Ref, band: str) -> Ref:
    with ProgressWriter.of(settings.outputs.work_dir, "epsf", band) as progress:
        for cell in range(4):
            progress.update(cell, 4)
            time.sleep(float(os.environ.get("FAKE_CELL_S", "0.01")))
        _called(settings, "build_epsf_band", band)
        progress.update(4, 4)
    return _write(settings, f"epsf_{band}", "epsf_band", band)


def summarise_epsf(settings: Any, bands: Sequence[Ref]) -> Ref:
    return _write(settings, "epsf_summary", "epsf_summary", " ".join(b.sha256 for b in bands))


def build_patches(settings: Any, field: Ref, sources: Ref) -> Ref:
    _called(settings, "build_patches")
    return _write(settings, "patches", "patches", str(N_PATCHES))


def compose_final_masks(settings: Any, field: Ref, mask: Ref | None) -> Ref:
    _called(settings, "compose_final_masks")
    return _write(settings, "masks", "masks", "none" if mask is None else "bright")


def build_patch_inputs(
    settings: Any, field: Ref, sources: Ref, masks: Ref, patches: Ref, epsf: Sequence[Ref]
) -> list[Ref]:
    _called(settings, "build_patch_inputs")
    known = ",".join(Path(ref.path).name for ref in epsf)
    refs = []
    work = WorkDir.of(settings)
    for i in range(N_PATCHES):
        path = work.payloads / f"p{i:02d}.fits"
        write_text(path, f"{i} {known} {Path(sources.path).read_text()}")
        refs.append(ref_to(path, "payload"))
    write_json(
        work.payloads / "payloads.json", {Path(r.path).stem: {"ref": dataclasses.asdict(r)} for r in refs}
    )
    return refs


def payload_refs(settings: Any) -> list[Ref]:
    folder = WorkDir.of(settings).payloads
    return [ref_to(path, "payload") for path in sorted(folder.glob("p*.fits"))]


def patch_batches(settings: Any, payloads: Sequence[Ref], n_workers: int) -> list[list[Ref]]:
    return [list(payloads[i : i + 3]) for i in range(0, len(payloads), 3)]


def fit_patch_batch(settings: Any, payloads: Sequence[Ref], on_patch: Any = None) -> list[Ref]:
    work = WorkDir.of(settings)
    fits, failed = [], 0
    with ProgressWriter.of(work.root, "patches", Path(payloads[0].path).stem) as progress:
        for done, ref in enumerate(payloads, 1):
            tag = Path(ref.path).stem
            if on_patch:
                on_patch(tag)
            time.sleep(float(os.environ.get("FAKE_PATCH_S", "0.01")))
            status: dict[str, str] = {"status": "converged"}
            if json.loads(os.environ.get("FAKE_TROUBLE", "{}")).get(f"patch:{tag}"):
                status = {"status": "failed", "reason": "ValueError: no good pixel"}
                failed += 1
            try:
                _called(settings, "fit_patch_batch", tag)
            except MemoryError as error:  # as the library does
                status = {"status": "failed", "reason": f"MemoryError: {error}"}
                failed += 1
            told = {"patch_tag": tag, "payload_sha256": ref.sha256, "text": Path(ref.path).read_text()}
            write_json(work.patch_meta(tag), told | status)
            fits.append(ref_to(work.patch_meta(tag), "patch_fit"))
            progress.update(done, len(payloads), failed)
    return fits


def fit_refs(settings: Any) -> list[Ref]:
    return [ref_to(path, "patch_fit") for path in sorted(WorkDir.of(settings).fits.glob("*/meta.json"))]


def merge(settings: Any, field: Ref, sources: Ref, fits: Sequence[Ref]) -> Ref:
    _called(settings, "merge")
    metas = [json.loads(Path(ref.path).read_text()) for ref in fits]
    rows = [meta.get("text", f"{meta['patch_tag']} has no fit") for meta in metas]
    work = WorkDir.of(settings)
    write_text(work.merged, "\n".join(rows) + "\n")
    write_text(work.final_catalog, "\n".join(rows) + "\n")
    return ref_to(work.merged, "catalog")


def compute_zp(settings: Any, field: Ref, catalog: Ref) -> Ref:
    _called(settings, "compute_zp")
    work = WorkDir.of(settings)
    for kind in (".csv", ".parquet", ".fits"):
        path = work.final_catalog.with_suffix(kind)
        write_text(path, Path(catalog.path).read_text() + "calibrated\n")
    write_text(
        work.zp_summary,
        "band,n_raw,n_kept,n_clipped,zp_median,zp_err_mad,zp_err_std,zp_err_median\nm400,9,8,1,25.01,0.01,0.02,0.004\n",
    )
    return ref_to(work.final_catalog, "catalog")


def install() -> None:
    """Put these stages in the place of the library's; before anything imports ``tasks.stages``."""
    from tract7dt import stages

    for name in stages.__all__ + ["payload_refs", "fit_refs"]:
        if name in globals() and name not in ("LoadedField", "Masked"):
            setattr(stages, name, globals()[name])
