"""Arrays as .npy files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tract7dt.errors import ProductError
from tract7dt.store import quick_digest
from tract7dt.store.npy import RowReader, RowWriter, row_chunks, write_array


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


def test_rows_are_read_into_what_is_there(tmp_path: Path) -> None:
    data = np.random.default_rng(6).normal(size=(31, 17)).astype("<f4")
    path = tmp_path / "frame.npy"
    np.save(path, data)
    out = np.empty((7, 17), np.float32)
    with RowReader(path, data.shape, np.float32) as reader:
        for y0 in (24, 0, 11):
            reader.read(y0, out)
            np.testing.assert_array_equal(out, data[y0 : y0 + 7])
        reader.read(30, out[:1])
        np.testing.assert_array_equal(out[0], data[30])


def test_a_file_that_is_cut_off_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "frame.npy"
    np.save(path, np.zeros((31, 17), np.float32))
    with RowReader(path, (31, 17), np.float32) as reader:
        os.truncate(path, path.stat().st_size - 5)
        with pytest.raises(ProductError, match=r"frame\.npy: damaged \(cut off while it was read\)"):
            reader.read(30, np.empty((1, 17), np.float32))
    with pytest.raises(ProductError, match="--refresh load_inputs"):
        RowReader(path, (31, 17), np.float32)
