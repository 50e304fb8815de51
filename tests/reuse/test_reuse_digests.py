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


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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


def test_a_file_is_left_to_the_stage_that_reads_it(tmp_path: Path, files: list[str]) -> None:
    paths, memory = [tmp_path / "a.fits", tmp_path / "b.fits"], tmp_path / "digests.json"
    for path in paths:
        path.write_bytes(path.name.encode())
        old(path)
    found = FileDigests(memory)
    known = found.known([*paths, tmp_path / "none"])
    assert known[2] == MISSING
    assert set(found.unread) == set(known[:2])
    assert not any(text in known for text in map(sha256, paths))
    unread = dict(found.unread)
    assert FileDigests(memory).known(paths) == known[:2], "the same as long as the file is"
    learned = FileDigests(memory).learn(unread, {str(path): sha256(path) for path in paths})
    assert learned == dict(zip(known, map(sha256, paths)))
    assert FileDigests(memory).known(paths) == FileDigests(memory).of_all(paths) == [*map(sha256, paths)]
    assert files == [str(tmp_path / "none")]


def test_what_a_stage_read_of_a_file_that_changed_is_not_believed(tmp_path: Path, files: list[str]) -> None:
    changed, unnamed, memory = tmp_path / "a.fits", tmp_path / "b.fits", tmp_path / "digests.json"
    for path in (changed, unnamed):
        path.write_bytes(b"abc")
        old(path)
    found = FileDigests(memory)
    before = found.known([changed, unnamed])
    changed.write_bytes(b"abd")
    old(changed)
    assert FileDigests(memory).learn(found.unread, {str(changed): sha256(changed)}) == {}
    assert FileDigests(memory).known([changed])[0] != before[0]
    assert FileDigests(memory).of(changed) == sha256(changed)
    assert str(changed) in files


def test_a_file_of_just_now_is_read_at_once(tmp_path: Path, files: list[str], monkeypatch: Any) -> None:
    path = tmp_path / "a.fits"
    path.write_bytes(b"abc")
    monkeypatch.setattr(digests, "_RACY_NS", 60 * 10**9)
    found = FileDigests(tmp_path / "digests.json")
    assert found.known([path]) == [sha256(path)]
    assert (files, found.unread) == ([str(path)], {})
