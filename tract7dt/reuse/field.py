"""Digests of the parts of a field, so that a stage depends on those that it reads and on no other."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from tract7dt.reuse.digests import MISSING, digest_of
from tract7dt.types import Ref

__all__ = ["FieldParts", "pixels_of"]

#: What a frame is, besides its pixels. Not: which file it came from.
_NUMBERS = ("sky_sigma", "gain", "scale", "zp_auto", "saturation", "fwhm_pix")


class FieldParts:
    """The manifest of a field, taken apart.

    Parameters
    ----------
    manifest : str
        ``frames/field.json``. Where it cannot be read, each part is :data:`~.digests.MISSING`.
    """

    def __init__(self, manifest: str) -> None:
        self._manifest = Path(manifest)

    @cached_property
    def _content(self) -> dict[str, Any]:
        try:
            content = json.loads(self._manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def part(self, *names: str) -> str:
        """Digest of entries of the manifest."""
        if not self._content:
            return MISSING
        return digest_of({name: self._content.get(name) for name in names})

    @property
    def bands(self) -> list[str]:
        """Bands in the order of the image list."""
        return list(self._content.get("bands", []))

    @property
    def shape(self) -> tuple[int, int]:
        """``(ny, nx)`` of the working frame; nothing where there is none."""
        ny, nx = self._content.get("shape", (0, 0))
        return int(ny), int(nx)

    @property
    def images(self) -> dict[str, str]:
        """SHA-256 of the images, as they were read, by path or URL."""
        return {str(entry.get("path")): str(entry.get("sha256")) for entry in self._content.get("frames", [])}

    def frame(self, band: str) -> str:
        """Digest of one band's scaled pixels and of the numbers that go with them."""
        for entry in self._content.get("frames", []):
            if entry.get("band") == band:
                pixels = entry.get("pixels_digest") or entry.get("sha256")
                return digest_of([pixels, *(entry.get(name) for name in _NUMBERS)])
        return MISSING

    def frames(self, bands: Iterable[str] | None = None) -> dict[str, str]:
        """Digest of each band, by a name for messages."""
        return {f"frame of {band}": self.frame(band) for band in (self.bands if bands is None else bands)}


def pixels_of(field: Ref) -> int:
    """Pixels of all bands of a field together; 0 where its manifest cannot be read."""
    parts = FieldParts(field.path)
    ny, nx = parts.shape
    return ny * nx * len(parts.bands)
