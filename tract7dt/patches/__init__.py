"""Patches: division of the frame, assignment of sources, payloads and their files."""

from tract7dt.patches.assignment import SATURATED
from tract7dt.patches.division import build_patches, read_patches, write_patches
from tract7dt.patches.payload import SECONDS_PER_COST, PayloadBuilder, build_payload, predicted_cost
from tract7dt.patches.payload_file import read_payload, write_payload

__all__ = [
    "SATURATED",
    "SECONDS_PER_COST",
    "PayloadBuilder",
    "build_patches",
    "build_payload",
    "predicted_cost",
    "read_patches",
    "read_payload",
    "write_patches",
    "write_payload",
]
