"""Content digests: what a cache key and a manifest are made of.

Whatever others are to check, such as inputs, references and what is published, has its SHA-256. A product of
pixels that is only ever compared with what it was itself has a quick digest, which takes a thirtieth of the time.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from xxhash import xxh3_128

from tract7dt.types import Ref

__all__ = ["QuickDigest", "has_digest", "quick_digest", "ref_to", "sha256_bytes", "sha256_file"]

#: What a quick digest begins with, so that no other is ever taken for one.
_QUICK = "xxh3:"


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a local file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class QuickDigest:
    """A digest that shows whether bytes are those of before, at the speed of memory: XXH3 of 128 bits.

    It is no proof against one who wants two contents to look the same.
    """

    def __init__(self) -> None:
        self._state = xxh3_128()

    def update(self, data: bytes | memoryview) -> None:
        """Add ``data``."""
        self._state.update(data)

    def text(self) -> str:
        """Digest of all that was added: ``xxh3:`` and 32 hexadecimal digits."""
        return _QUICK + self._state.hexdigest()


def quick_digest(path: str | os.PathLike[str]) -> str:
    """Quick digest of a local file's bytes, as :class:`QuickDigest` gives it."""
    digest, block = QuickDigest(), memoryview(bytearray(1 << 18))
    with Path(path).open("rb", buffering=0) as stream:
        while n := stream.readinto(block):
            digest.update(block[:n])
    return digest.text()


def has_digest(path: str | os.PathLike[str], digest: str) -> bool:
    """Whether a local file has the bytes of ``digest``, a quick one or a SHA-256."""
    return (quick_digest(path) if digest.startswith(_QUICK) else sha256_file(path)) == digest


def ref_to(path: str | os.PathLike[str], kind: str) -> Ref:
    """Reference to a local product: absolute path and digest of its content."""
    path = Path(path).absolute()
    return Ref(str(path), sha256_file(path), kind)
