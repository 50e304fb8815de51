"""Content digests: what a cache key and a manifest are made of."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tract7dt.types import Ref

__all__ = ["ref_to", "sha256_bytes", "sha256_file"]


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a local file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def ref_to(path: str | os.PathLike[str], kind: str) -> Ref:
    """Reference to a local product: absolute path and digest of its content."""
    path = Path(path).absolute()
    return Ref(str(path), sha256_file(path), kind)
