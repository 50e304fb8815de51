"""The stages of the library as tasks, one line each; how they run is :mod:`tasks.policy`'s business."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.policy import task
from tract7dt import stages, staging
from tract7dt.store import WorkDir, ref_to, write_json
from tract7dt.types import Ref

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = [
    "augment_gaia",
    "bright_mask",
    "build_epsf_band",
    "build_patch_inputs",
    "build_patches",
    "compose_final_masks",
    "compute_zp",
    "epsf_bands",
    "fit_patch_batch",
    "fit_staged_batch",
    "load_inputs",
    "merge",
    "plan_batches",
    "read_batches",
    "summarise_epsf",
]

load_inputs = task(stages.load_inputs)
augment_gaia = task(stages.augment_gaia)
bright_mask = task(stages.bright_mask)
epsf_bands = task(stages.epsf_bands)
build_epsf_band = task(stages.build_epsf_band, run_name="build_epsf_band {band}")
summarise_epsf = task(stages.summarise_epsf)
build_patches = task(stages.build_patches)
compose_final_masks = task(stages.compose_final_masks)
build_patch_inputs = task(stages.build_patch_inputs)
fit_patch_batch = task(stages.fit_patch_batch)
fit_staged_batch = task(staging.fit_staged_batch, shares_disk=False)
merge = task(stages.merge)
compute_zp = task(stages.compute_zp)


def _plan_batches(settings: Settings, payloads: Sequence[Ref], n_workers: int) -> Ref:
    """Divide the payloads into batches and write the division down.

    A flow takes at most 512 kB of parameters, which the payloads of a large field exceed: the flow that
    fits them is given this one reference.
    """
    batches = stages.patch_batches(settings, payloads, n_workers)
    path = WorkDir.of(settings).payloads / "batches.json"
    write_json(path, [[dataclasses.asdict(ref) for ref in batch] for batch in batches])
    return ref_to(path, "batches")


plan_batches = task(_plan_batches, name="plan_batches")


def read_batches(batches: Ref) -> list[list[Ref]]:
    """Payloads of every batch of a plan."""
    stored = json.loads(Path(batches.path).read_text(encoding="utf-8"))
    return [[Ref(**ref) for ref in batch] for batch in stored]
