"""What this process uses, and gives back."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from tract7dt.resources import give_back_memory


def _anonymous_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to give memory back")
def test_memory_that_lies_between_blocks_in_use_is_given_back() -> None:
    blocks = [bytearray(2000) for _ in range(50_000)]
    kept = blocks[::100]  # or the top of the heap would go by itself
    del blocks
    before = _anonymous_mb()
    give_back_memory()
    assert _anonymous_mb() < before - 40
    assert len(kept) == 500
