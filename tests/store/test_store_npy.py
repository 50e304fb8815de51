"""Arrays as .npy files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tract7dt.store.npy import write_array


def test_array_is_written_as_numpy_does(tmp_path: Path) -> None:
    for array in (np.arange(12, dtype=np.float32).reshape(3, 4), np.zeros((2, 0), np.int8), np.float64(3)):
        with (tmp_path / "ours.npy").open("wb") as stream:
            write_array(stream, array)
        np.save(tmp_path / "theirs.npy", array)
        assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()


def test_full_disk_is_told_as_one() -> None:
    with Path("/dev/full").open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space left"):
        write_array(stream, np.zeros(100_000))
