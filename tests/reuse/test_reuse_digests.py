"""Digests of files by content, and what a stage returned as plain data."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tract7dt.errors import ProductError
from tract7dt.reuse import digests
from tract7dt.reuse.digests import MISSING, FileDigests, digest_of
from tract7dt.reuse.values import from_plain, to_plain
from tract7dt.stages import LoadedField, Masked
from tract7dt.types import Ref


def old(path: Path) -> Path:
    """As if written a while ago (the inode's own time cannot be set: wait out the clock's tick)."""
    os.utime(path, (1_000_000_000, 1_000_000_000))
    time.sleep(0.03)
    return path


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    read: list[str] = []
    plain = digests._read
    monkeypatch.setattr(digests, "_read", lambda text: (read.append(text), plain(text))[1])
    return read


def test_file_is_read_once(tmp_path: Path, files: list[str]) -> None:
    path = tmp_path / "image.fits"
    path.write_bytes(b"abc")
    old(path)
    memory = tmp_path / ".reuse" / "digests.json"
    for _ in range(3):
        assert FileDigests(memory).of(path) == hashlib.sha256(b"abc").hexdigest()
    assert files == [str(path)]
    assert FileDigests(memory).of_all([path, path, tmp_path / "none"]) == [
        hashlib.sha256(b"abc").hexdigest(),
        hashlib.sha256(b"abc").hexdigest(),
        MISSING,
    ]


@pytest.mark.parametrize("same_time", [True, False])
def test_changed_file_is_read_again(tmp_path: Path, files: list[str], same_time: bool) -> None:
    path, memory = tmp_path / "cat.csv", tmp_path / "digests.json"
    path.write_bytes(b"abc")
    old(path)
    first = FileDigests(memory).of(path)
    path.write_bytes(b"abd")
    if same_time:
        old(path)
    assert FileDigests(memory).of(path) != first


def test_file_that_was_just_written_is_not_trusted(tmp_path: Path, files: list[str]) -> None:
    """It may be written again within the same tick of the file system's clock."""
    path, memory = tmp_path / "cat.csv", tmp_path / "digests.json"
    path.write_bytes(b"abc")
    FileDigests(memory).of(path)
    path.write_bytes(b"xyz")
    assert FileDigests(memory).of(path) == hashlib.sha256(b"xyz").hexdigest()


def test_url_is_read_once_a_version(
    tmp_path: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACT7DT_CACHE_DIR", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    memory = tmp_path / "digests.json"
    url = "memory://reuse/image.fits"
    for content in (b"one", b"two"):
        system.pipe("/reuse/image.fits", content)
        assert FileDigests(memory).of(url) == hashlib.sha256(content).hexdigest()
        time.sleep(0.03)
        assert FileDigests(memory).of_all([url]) == [hashlib.sha256(content).hexdigest()]
        read = len(files)
        assert FileDigests(memory).of(url) == hashlib.sha256(content).hexdigest()
        assert len(files) == read, "though the cache has noted that the copy was used"
    system.rm("/reuse/image.fits")
    assert FileDigests(memory).of(url) == MISSING


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_digest_does_not_depend_on_order(value: Any) -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: turned(value[name]) for name in reversed(value)}
        return [turned(item) for item in value] if isinstance(value, list) else value

    assert digest_of(value) == digest_of(turned(value))
    assert digest_of([value]) != digest_of(value)


A, B = Ref("/data/run/a.npy", "1" * 64, "field"), Ref("s3://bucket/b", "2" * 64, "sources")


@pytest.mark.parametrize(
    "value", [A, B, LoadedField(A, B), Masked(B, A), [A, [B]], ["m400"], None, 3, "x", True]
)
def test_values_come_back(value: Any) -> None:
    plain = json.loads(json.dumps(to_plain(value, Path("/data/run"))))
    back = from_plain(plain, Path("/data/run"))
    assert back == value
    assert type(back) is type(value)


def test_values_move_with_the_work_dir() -> None:
    plain = to_plain(Masked(A, B), Path("/data/run"))
    moved = from_plain(plain, Path("/archive/field"))
    assert moved.mask.path == "/archive/field/a.npy"
    assert moved.sources.path == B.path


@pytest.mark.parametrize(
    "plain", [{"tuple": "os.system", "of": []}, {"ref": [1, 2, 3]}, {"__class__": "x", "data": 1}, {}]
)
def test_nothing_else_is_made_from_a_file(plain: Any) -> None:
    with pytest.raises(ProductError):
        from_plain(plain, Path("/"))
    with pytest.raises(TypeError):
        to_plain(object(), Path("/"))
