"""Digests: which is which, and what they are of."""

from __future__ import annotations

from pathlib import Path

import pytest
from xxhash import xxh3_128_hexdigest

from tract7dt.store import QuickDigest, has_digest, quick_digest, sha256_file


@pytest.mark.parametrize("size", [0, 1, 4096, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 3_000_000])
def test_quick_digest_is_that_of_the_whole_file(tmp_path: Path, size: int) -> None:
    data = bytes(i % 251 for i in range(997)) * (size // 997 + 1)
    data = data[:size]
    path = tmp_path / "file"
    path.write_bytes(data)
    assert quick_digest(path) == "xxh3:" + xxh3_128_hexdigest(data)
    digest = QuickDigest()
    for start in range(0, size, 70_001):
        digest.update(memoryview(data)[start : start + 70_001])
    assert digest.text() == quick_digest(path)


def test_a_file_is_compared_by_the_kind_of_its_digest(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"pixels")
    other.write_bytes(b"pixelS")
    for digest in (quick_digest(path), sha256_file(path)):
        assert has_digest(path, digest)
        assert not has_digest(other, digest)
    assert not has_digest(path, quick_digest(path).removeprefix("xxh3:"))
