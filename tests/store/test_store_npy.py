"""Arrays as .npy files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tract7dt.store import quick_digest
from tract7dt.store.npy import RowWriter, row_chunks, write_array


def test_array_is_written_as_numpy_does(tmp_path: Path) -> None:
    for array in (np.arange(12, dtype=np.float32).reshape(3, 4), np.zeros((2, 0), np.int8), np.float64(3)):
        with (tmp_path / "ours.npy").open("wb") as stream:
            write_array(stream, array)
        np.save(tmp_path / "theirs.npy", array)
        assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()


def test_full_disk_is_told_as_one() -> None:
    with Path("/dev/full").open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space left"):
        write_array(stream, np.zeros(100_000))


@pytest.mark.parametrize("shape", [(3, 5), (40, 4096), (97, 1013), (300, 9576)])
@pytest.mark.parametrize("share", [0.0, 1e-4, 0.5])
def test_a_file_with_holes_is_the_same_array(tmp_path: Path, shape: tuple[int, int], share: float) -> None:
    rng = np.random.default_rng(5)
    data = (rng.random(shape) < share).astype(np.uint8) * 4
    plain, holes = tmp_path / "plain.npy", tmp_path / "holes.npy"
    with (
        RowWriter(plain, shape, np.uint8) as whole,
        RowWriter(holes, shape, np.uint8, digest=True, holes=True) as writer,
    ):
        for y0, y1 in row_chunks(*shape, 7 * shape[1]):
            whole.write(y0, data[y0:y1])
            writer.write(y0, data[y0:y1])
    np.testing.assert_array_equal(np.load(holes), data)
    assert plain.read_bytes() == holes.read_bytes()
    assert writer.digest() == quick_digest(holes)
    if share == 0 and plain.stat().st_size > 4 * 4096:
        assert holes.stat().st_blocks * 512 <= 2 * 4096
