from __future__ import annotations

import json
import os
import stat

import numpy as np
import pytest

from tract7dt.store import atomic_path, ref_to, sha256_bytes, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a" / "product.fits.gz"
    write_text(target, "old")

    def die_half_way() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        die_half_way()
    assert target.read_text() == "old"
    assert [p.name for p in target.parent.iterdir()] == ["product.fits.gz"]


def test_the_temporary_name_keeps_the_suffix_and_is_hidden(tmp_path):
    with atomic_path(tmp_path / "x.fits.gz") as temporary:
        assert temporary.name.startswith(".")
        assert temporary.name.endswith(".fits.gz")


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "x", "")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_json_has_plain_numbers_only(tmp_path):
    write_json(
        tmp_path / "x.json",
        {"a": np.float32(0.5), "b": np.nan, "c": np.arange(2), "d": tmp_path, "e": (True,)},
    )
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text) == {"a": 0.5, "b": None, "c": [0, 1], "d": str(tmp_path), "e": [True]}


def test_a_ref_follows_the_content(tmp_path):
    write_text(tmp_path / "x", "one")
    first = ref_to(tmp_path / "x", "k")
    (tmp_path / "x").touch()
    assert ref_to(tmp_path / "x", "k") == first
    assert first.sha256 == sha256_bytes(b"one")
    write_text(tmp_path / "x", "two")
    assert ref_to(tmp_path / "x", "k").sha256 != first.sha256
