"""One number a stage: raised by hand when the stage's result changes for equal inputs and settings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["STAGE_VERSIONS"]

#: Code version of each stage function of :mod:`tract7dt.stages`. Part of its key, so that a raised number
#: rebuilds the stage's products. ``tests/golden`` fails when a result changes and its number does not.
STAGE_VERSIONS: Mapping[str, int] = MappingProxyType(
    {
        "load_inputs": 3,
        "augment_gaia": 1,
        "bright_mask": 2,
        "build_epsf_band": 4,
        "summarise_epsf": 1,
        "build_patches": 1,
        "compose_final_masks": 3,
        "build_patch_inputs": 1,
        "fit_patch_batch": 8,
        "merge": 1,
        "compute_zp": 1,
    }
)
