"""Windows of memory maps: the right pixels, and no pages that stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tract7dt.mapped import drop_pages, read_part
from tract7dt.store.npy import open_array
from tract7dt.types import Box, Frame

SHAPE = (2000, 3000)


@pytest.fixture
def mapped(tmp_path: Path) -> np.ndarray:
    path = tmp_path / "frame.npy"
    np.save(path, np.random.default_rng(1).normal(size=SHAPE).astype(np.float32))
    return open_array(path, SHAPE, np.float32)


def resident_kib(array: np.ndarray) -> int:
    """Resident part of the map of the array's file, KiB, from /proc/self/smaps."""
    smaps = Path("/proc/self/smaps")
    if not smaps.is_file():
        pytest.skip("no /proc/self/smaps here")
    found, ours = 0, False
    for line in smaps.read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            ours = line.endswith(str(array.filename))
        elif ours and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


def test_windows_of_a_whole_frame_leave_no_pages(mapped: np.ndarray) -> None:
    frame = Frame("r", mapped, 1.0, 1.0, 1.0, 25.0, None, 3.0, "x")
    whole = np.fromfile(mapped.filename, np.float32, offset=mapped.offset).reshape(SHAPE)
    for y0 in range(0, SHAPE[0], 250):
        for x0 in range(0, SHAPE[1], 500):
            box = Box(x0, min(x0 + 520, SHAPE[1]), max(y0 - 20, 0), y0 + 250)
            np.testing.assert_array_equal(frame.window(box), whole[box.slices])
    assert resident_kib(mapped) < 100  # of 24000
    mapped.sum()
    assert resident_kib(mapped) > 20000
    drop_pages(mapped, 0, SHAPE[0])
    assert resident_kib(mapped) < 100


def test_a_window_is_a_copy_of_any_array(mapped: np.ndarray) -> None:
    plain = np.arange(12.0).reshape(3, 4)
    part = read_part(plain, (slice(1, 3), slice(1, 3)))
    part[:] = 0
    assert plain[1, 1] == 5
    assert read_part(mapped[10:20], (slice(0, 2), slice(0, 2))).tolist() == mapped[10:12, :2].tolist()
    assert read_part(mapped, (slice(5, 5), slice(0, 3))).shape == (0, 3)
