"""Sections of what a run reads and writes: inputs, outputs, image scale and the checks of the images."""

from __future__ import annotations

from pathlib import Path

from tract7dt.settings.fields import Flag, InputPath, Name, NonNegative, OutputPath, Real, Section, key

__all__ = [
    "ChecksSettings",
    "ImageScalingSettings",
    "InputsSettings",
    "OutputsSettings",
    "WcsToleranceSettings",
]


class InputsSettings(Section):
    """Files that a run reads; relative paths are relative to the folder of the YAML file."""

    tile_name: Name = key("your_tile_name", "Field name, used in logs, artifact keys and object-store keys.")
    input_catalog: InputPath = key(
        ..., "Source catalogue: CSV, Parquet or FITS table, by suffix.", example="path/to/input_catalog.csv"
    )
    image_list_file: InputPath = key(
        ...,
        "Text file with one FITS path or URL per line; blank lines and # comments are skipped.",
        example="path/to/image_list.txt",
    )
    gaiaxp_synphot_csv: InputPath | None = key(
        None, "Gaia XP synthetic photometry: stars for the ePSF and for the zero point."
    )


class OutputsSettings(Section):
    """Where a run writes; every path but work_dir is relative to work_dir."""

    work_dir: OutputPath = key(
        ..., "Folder of the run, relative to the folder of the YAML file.", example="path/to/work_dir"
    )
    epsf_dir: OutputPath = key(Path("EPSFs"), "Folder of the ePSFs.")
    patches_dir: OutputPath = key(Path("patches"), "Folder of the patch definitions.")
    patch_inputs_dir: OutputPath = key(Path("patch_payloads"), "Folder of the patch payloads.")
    tractor_out_dir: OutputPath = key(Path("outputs"), "Folder of the patch fits.")
    final_catalog: OutputPath = key(
        Path("output_catalog.csv"),
        "Final catalogue; the same table is also written as Parquet and FITS beside it.",
    )
    cropped_images_dir: OutputPath = key(Path("cropped_images"), "Folder of the pictures of the crop.")
    overlay_dir: OutputPath = key(Path("overlay"), "Folder of the pictures with the catalogue on the image.")


class ImageScalingSettings(Section):
    """Common scale of the images."""

    zp_ref: Real = key(
        25.0, "Zero point that all images are scaled to; fluxes are counts at it.", unit="mag AB"
    )


class WcsToleranceSettings(Section):
    """Largest differences at which two images still count as aligned."""

    crval: NonNegative = key(1e-6, "Largest difference of CRVAL.", unit="deg")
    crpix: NonNegative = key(1e-6, "Largest difference of CRPIX.", unit="pix")
    cd: NonNegative = key(1e-9, "Largest difference of an element of the CD or PC matrix.")
    cdelt: NonNegative = key(1e-9, "Largest difference of CDELT.", unit="deg/pix")


class ChecksSettings(Section):
    """Checks that the images lie on one pixel frame."""

    require_wcs_alignment: Flag = key(True, "Stop when the WCS of an image differs from the first one's.")
    require_same_shape: Flag = key(True, "Stop when the images differ in shape.")
    wcs_tolerance: WcsToleranceSettings = key(
        WcsToleranceSettings(), "Largest differences at which two images still count as aligned."
    )
