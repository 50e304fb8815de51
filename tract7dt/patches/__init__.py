"""Patches: division of the frame, assignment of sources, payloads and their files.

A worker that fits patches reads payloads only; names load when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tract7dt.on_demand import names_on_demand

if TYPE_CHECKING:
    from tract7dt.patches.division import build_patches, read_patches, write_patches
    from tract7dt.patches.payload import SECONDS_PER_COST, PayloadBuilder, build_payload, predicted_cost
    from tract7dt.patches.payload_file import read_payload
    from tract7dt.patches.payload_writer import write_payload
    from tract7dt.patches.roles import SATURATED

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

__getattr__ = names_on_demand(
    __name__,
    {
        "division": ["build_patches", "read_patches", "write_patches"],
        "payload": ["SECONDS_PER_COST", "PayloadBuilder", "build_payload", "predicted_cost"],
        "payload_file": ["read_payload"],
        "payload_writer": ["write_payload"],
        "roles": ["SATURATED"],
    },
)
