"""Keys of earlier versions that no longer do anything: accepted, with one warning each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["LEGACY_KEYS", "without_legacy_keys"]

#: Key -> what to do instead.
LEGACY_KEYS: dict[str, str] = {
    "epsf.gaia_seed_sat_r": "use epsf.star_sat_check_r and source_saturation_cut.saturation_divisor",
    "epsf.gaia_seed_sat_div": "use epsf.star_sat_check_r and source_saturation_cut.saturation_divisor",
    "patch_inputs.include_wcs_in_payload": "remove it",
    "patch_inputs.keep_payloads_in_memory": "remove it",
    "patch_run.python_exe": "remove it: patches are fitted by workers of this Python",
    "moffat_psf.fwhm_default_pix": "use patch_run.fallback_default_fwhm_pix",
    "moffat_psf.module_path": "remove it",
}


def without_legacy_keys(values: Mapping[Any, Any]) -> tuple[dict[Any, Any], list[str]]:
    """Copy of a configuration without legacy keys, and a warning for each that it held."""
    cleaned = {name: dict(part) if isinstance(part, Mapping) else part for name, part in values.items()}
    warnings = []
    for path, advice in LEGACY_KEYS.items():
        section, name = path.split(".")
        part = cleaned.get(section)
        if isinstance(part, dict) and name in part:
            del part[name]
            warnings.append(f"{path} no longer does anything: {advice}")
    return cleaned, warnings
