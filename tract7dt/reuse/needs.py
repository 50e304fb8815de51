"""Which settings each stage reads, and what for. A test traces the stages and fails when one reads more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tract7dt.settings import BrightMaskSettings, EpsfSettings, PatchRunSettings
from tract7dt.settings.paths import relative_outputs

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["FIT_KEYS", "NEEDS", "Needs", "values_of"]

_NOT_OF_THE_FIT = {
    "resume",
    "remove_payloads",
    "max_workers",
    "threads_per_process",
    "no_cutouts",
    "no_patch_overview",
}

#: Settings that a fit depends on, besides its payload: all but where it runs, and what is drawn of it.
FIT_KEYS = (
    "moffat_psf",
    *(
        f"patch_run.{name}"
        for name in PatchRunSettings.model_fields
        if name not in _NOT_OF_THE_FIT and not name.startswith("cutout_")
    ),
)


@dataclass(frozen=True, slots=True)
class Needs:
    """Dotted keys that a stage reads.

    Attributes
    ----------
    result : tuple of str
        Its result depends on them.
    pictures : tuple of str
        Only its pictures do: a change draws them again.
    checks : tuple of str
        They decide whether the inputs are accepted: a change checks them again.
    free : tuple of str
        Nothing depends on them: workers, and the names of input files, whose content counts instead.
    """

    result: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    free: tuple[str, ...] = ()


def _all_of(section: str, names: Iterable[str], but: Iterable[str]) -> tuple[str, ...]:
    left_out = set(but)
    return tuple(f"{section}.{name}" for name in names if name not in left_out)


_ZP_PICTURES = ("zp.plot_mag_lo", "zp.plot_mag_hi", "zp.plot_zp_offset")
_DRAWN = ("plotting.dpi", "inputs.tile_name")
_GAIA = "inputs.gaiaxp_synphot_csv"
_CUT = ("enabled", "radius_pix", "require_all_bands")
_ACTIVE_CELLS = ("epsf.epsf_ngrid", "epsf.skip_empty_epsf_patches")

#: By name of the stage function. What is not in the settings (files, products) is in :mod:`.inputs`.
NEEDS: Mapping[str, Needs] = MappingProxyType(
    {
        "load_inputs": Needs(
            result=(
                "crop.enabled",
                "crop.margin",
                "crop.display_downsample",
                "image_scaling.zp_ref",
                "source_saturation_cut",
            ),
            pictures=(
                *_DRAWN,
                "crop.plot_pre_crop",
                "crop.plot_post_crop",
                "crop.post_crop_display_downsample",
                "overlay",
                "patch_run.gal_model",
                "outputs.cropped_images_dir",
                "outputs.overlay_dir",
            ),
            checks=(
                "checks",
                "epsf.epsf_ngrid",
                "epsf.ngrid",
                "inputs.tile_name",
                "outputs.final_catalog",
                "patch_run.engine",
                "zp.enabled",
            ),
            free=(
                "inputs.input_catalog",
                "inputs.image_list_file",
                _GAIA,
                "performance.frame_prep_workers",
                "performance.white_stack_workers",
            ),
        ),
        "augment_gaia": Needs(
            result=(
                "inputs.tile_name",  # it names the table
                "zp.inject_gaia_sources",
                "zp.gaia_mag_min",
                "zp.gaia_mag_max",
                "zp.match_radius_arcsec",
                "zp.min_box_size_pix",
                "zp.gaia_pos_err_pix",
                *(f"source_saturation_cut.{name}" for name in _CUT),
            ),
            pictures=("plotting.dpi", "overlay.downsample_full"),
            free=(_GAIA,),
        ),
        "bright_mask": Needs(
            result=_all_of("bright_mask", BrightMaskSettings.model_fields, ("enabled",)),
            pictures=(*_DRAWN, "overlay.downsample_full"),
        ),
        "build_epsf_band": Needs(
            result=(
                *_all_of(
                    "epsf",
                    EpsfSettings.model_fields,
                    (
                        "ngrid",
                        "skip_empty_epsf_patches",  # the active cells count, whatever makes them so
                        "parallel_bands",
                        "max_workers",
                        "diagnostics_show_colorbar",
                        "residual_diag_max_stars",
                        *(name for name in EpsfSettings.model_fields if name.startswith("save_")),
                    ),
                ),
                "outputs.epsf_dir",
            ),
            pictures=(
                "plotting.dpi",
                "epsf.diagnostics_show_colorbar",
                "epsf.residual_diag_max_stars",
                *(f"epsf.{name}" for name in EpsfSettings.model_fields if name.startswith("save_")),
            ),
            free=("epsf.skip_empty_epsf_patches", _GAIA),
        ),
        "summarise_epsf": Needs(result=("outputs.epsf_dir",)),
        "build_patches": Needs(
            result=(
                "epsf.epsf_ngrid",
                "epsf.ngrid",
                "epsf.final_psf_size",
                "patches.halo_pix_min",
                "outputs.patches_dir",
            ),
            free=("epsf.skip_empty_epsf_patches",),
        ),
        "compose_final_masks": Needs(),
        "build_patch_inputs": Needs(
            result=(
                "epsf.epsf_ngrid",
                "epsf.final_psf_size",
                "epsf.spatial",
                "moffat_psf.beta",
                "patch_inputs.skip_empty_patch",
                "patch_inputs.gzip_compresslevel",
                "patch_run.r_ap",
                "patch_run.gal_model",
                "patch_run.re_fallback_pix",
                "patch_run.sersic_n_init",
                "patch_run.fallback_default_fwhm_pix",
                "outputs.patch_inputs_dir",
            ),
            free=("patch_inputs.max_workers",),
        ),
        "fit_patch_batch": Needs(
            result=FIT_KEYS,
            pictures=(
                "patch_run.no_patch_overview",
                "patch_run.no_cutouts",
                *(
                    f"patch_run.{name}"
                    for name in PatchRunSettings.model_fields
                    if name.startswith("cutout_")
                ),
                "plotting.dpi",
                "report.enabled",
            ),
            free=(
                "patch_run.resume",
                "patch_run.remove_payloads",
                "patch_run.threads_per_process",
                "outputs.tractor_out_dir",
            ),
        ),
        "merge": Needs(
            result=(
                "patch_run.enable_multi_band_simultaneous_fitting",
                "inputs.tile_name",
                "outputs.final_catalog",
            ),
            free=("outputs.tractor_out_dir", "outputs.patch_inputs_dir"),
        ),
        "compute_zp": Needs(
            result=(
                "inputs.tile_name",
                "zp.clip_sigma",
                "zp.clip_max_iters",
                "zp.zp_err_method",
                "zp.zp_err_snr_min",
                "outputs.final_catalog",
            ),
            pictures=("plotting.dpi", *_ZP_PICTURES),
            free=(_GAIA,),
        ),
    }
)


def values_of(settings: Settings, keys: Iterable[str]) -> dict[str, Any]:
    """Values of single keys (a section stands for all its keys) as plain data, by dotted path.

    Outputs are relative to ``work_dir``: a work_dir that moves is the same.
    """
    dumped = relative_outputs(settings).model_dump(mode="json")
    found: dict[str, Any] = {}
    for path in keys:
        value: Any = dumped
        for name in path.split("."):
            value = value[name]
        found |= _leaves(path, value)
    return found


def _leaves(path: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {path: value}
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found |= _leaves(f"{path}.{name}", inner)
    return found
