"""Sections of the frames: crop, overlay pictures, saturation and the mask of bright sources."""

from __future__ import annotations

from typing import Annotated

from tract7dt.settings.fields import (
    Count,
    Flag,
    Fraction,
    Integer,
    NonNegative,
    Positive,
    Rising,
    Section,
    WholeNumber,
    key,
)

__all__ = ["BrightMaskSettings", "CropSettings", "OverlaySettings", "SourceSaturationCutSettings"]


class CropSettings(Section):
    """Cropping of the noisy edges."""

    enabled: Flag = key(True, "Work on the images without their edges.")
    margin: WholeNumber = key(500, "Width that is cut from every edge.", unit="pix")
    plot_pre_crop: Flag = key(True, "Write a picture of the white stack with the crop box.")
    plot_post_crop: Flag = key(True, "Write a picture of the cropped white stack.")
    display_downsample: Count = key(4, "Every n-th pixel is shown in the picture before the crop.")
    post_crop_display_downsample: Count = key(4, "Every n-th pixel is shown in the picture after the crop.")


class OverlaySettings(Section):
    """Pictures of the white stack with the catalogue drawn on it."""

    enabled: Flag = key(True, "Write the picture of the whole frame.")
    zoom_enabled: Flag = key(True, "Also write a picture of the zoom box.")
    downsample_full: Count = key(4, "Every n-th pixel is shown in the picture of the whole frame.")
    zoom_box: Annotated[tuple[Integer, Integer, Integer, Integer], Rising] = key(
        (4000, 5000, 4000, 5000),
        "Box of the zoom, x0, x1, y0, y1 in the working frame, x0 < x1 and y0 < y1.",
        unit="pix",
    )


class SourceSaturationCutSettings(Section):
    """Exclusion of sources near saturated pixels."""

    enabled: Flag = key(True, "Flag sources near saturated pixels and leave them out of the fit.")
    radius_pix: NonNegative = key(20.0, "Radius around a source that is searched for them.", unit="pix")
    require_all_bands: Flag = key(False, "Flag only where all bands are saturated, not any one.")
    saturation_divisor: Positive = key(1.3, "A pixel counts as saturated at SATURATE / divisor.")


class BrightMaskSettings(Section):
    """Mask of bright sources that the catalogue does not have."""

    enabled: Flag = key(True, "Mask bright detections on the white stack that match no catalogue source.")
    thresh_sigma: Positive = key(5.0, "Detection threshold.", unit="sigma")
    minarea: Count = key(20, "Smallest area of a detection.", unit="pix")
    deblend_nthresh: Count = key(32, "Number of deblending thresholds.")
    deblend_cont: Fraction = key(0.005, "Smallest contrast of a deblended part; 1 switches deblending off.")
    clean: Flag = key(True, "Remove spurious detections in the wings of bright sources.")
    clean_param: Positive = key(1.0, "Strength of that cleaning.")
    match_radius_pix: NonNegative = key(
        3.0, "A detection within this distance of a source that is fitted is not masked.", unit="pix"
    )
    ellipse_scale: Positive = key(3.0, "Size of the masked ellipse in units of the detection's a and b.")
    min_radius_pix: NonNegative = key(6.0, "Smallest radius that is masked.", unit="pix")
    dilate_pix: WholeNumber = key(1, "The mask is grown by this.", unit="pix")
