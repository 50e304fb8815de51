"""Images: reading, checks, scaling to one zero point, crop, white stack, saturation, final masks."""

from tract7dt.frames.build import build_field, built_field
from tract7dt.frames.image_list import read_image_list
from tract7dt.frames.inspection import ImageInfo, inspect_images
from tract7dt.frames.manifest import open_field
from tract7dt.frames.masks import compose_masks, open_mask
from tract7dt.frames.saturation import near_saturation

__all__ = [
    "ImageInfo",
    "build_field",
    "built_field",
    "compose_masks",
    "inspect_images",
    "near_saturation",
    "open_field",
    "open_mask",
    "read_image_list",
]
