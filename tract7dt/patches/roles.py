"""What a source is to a patch: the values of the payload column ``halo_kind``."""

from __future__ import annotations

__all__ = ["BASE", "BESIDE", "HALO", "OUTSIDE", "SATURATED"]

BASE, HALO, OUTSIDE, SATURATED, BESIDE = "", "halo", "outside", "saturated", "beside"
