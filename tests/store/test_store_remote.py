"""Inputs from object stores and web servers: fetched once, whole or not at all, gone on with after a break."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
from astropy.io import fits
from s3_server import Proxy, S3Server, forget_connections

from tract7dt.errors import InputError, StoreError, StoreUnreachableError
from tract7dt.frames.image_list import read_image_list
from tract7dt.frames.stream import PixelReader, read_header
from tract7dt.run_counts import field_inputs
from tract7dt.settings import settings_from_dict
from tract7dt.sources.raw_table import read_raw_table
from tract7dt.store import WorkDir, objects, remote
from tract7dt.store.remote import local_copy, prune_cache
from tract7dt.store.urls import Redactor, has_secret, key_problem, redacted


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, short pauses, small pieces."""
    monkeypatch.setenv("TRACT7DT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(objects, "_FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(remote, "CHUNK", 1000)
    return tmp_path / "cache"


@pytest.fixture
def raw(s3: S3Server, tmp_path: Path) -> Path:
    """Folder of a bucket with the inputs of a field."""
    name = "raw-" + str(abs(hash(str(tmp_path))))
    return s3.bucket(name)


def image(path: Path, band: str = "m400", tiled: bool = False) -> None:
    hdu = fits.CompImageHDU if tiled else fits.PrimaryHDU
    made = hdu(np.arange(1200, dtype="f4").reshape(30, 40))
    made.header["FILTER"] = band
    made.writeto(path)


@pytest.mark.parametrize("address", ["{}", "file://{}"])
def test_what_may_never_end_is_not_read(tmp_path: Path, address: str) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", Path("/dev/zero")):
        for read in (read_raw_table, read_header, lambda name: read_image_list(name, tmp_path)):
            with pytest.raises(InputError, match=f"{path.name}: expected a file, found a pipe"):
                read(address.format(path))


def test_every_input_of_a_field_by_s3(raw: Path, proxy: Proxy) -> None:
    image(raw / "a.fits")
    image(raw / "plain.fits", "m500")
    (raw / "b.fits.gz").write_bytes(gzip.compress((raw / "plain.fits").read_bytes()))
    image(raw / "c.fits.fz", "m600", tiled=True)
    (raw / "list.txt").write_text("a.fits\nb.fits.gz\n# none\nc.fits.fz\n")
    (raw / "cat.csv").write_text("RA,DEC\n1,2\n")
    url = f"s3://{raw.name}"
    paths = read_image_list(f"{url}/list.txt", "/nowhere")
    assert paths == [f"{url}/a.fits", f"{url}/b.fits.gz", f"{url}/c.fits.fz"]
    assert [read_header(path).get("FILTER") for path in paths] == ["m400", "m500", "m600"]
    for path in paths:
        rows = np.concatenate([values.copy() for _, values in PixelReader(path, raw).rows(100)])
        np.testing.assert_allclose(rows, np.arange(1200).reshape(30, 40), atol=0.2)
    assert read_raw_table(f"{url}/cat.csv").names == ("RA", "DEC")
    got = [path for method, path in proxy.requests if method == "GET"]
    assert len(got) == len(set(got)) + sum(
        -(-p.stat().st_size // 1000) - 1 for p in raw.iterdir() if p.name in str(got)
    )


def test_the_record_has_the_digests_of_tables_that_are_urls(raw: Path, s3: S3Server, tmp_path: Path) -> None:
    (raw / "cat.csv").write_text("RA,DEC\n1,2\n")
    given = {"input_catalog": f"s3://{raw.name}/cat.csv", "image_list_file": f"s3://{raw.name}/none.txt"}
    settings = settings_from_dict({"inputs": given, "outputs": {"work_dir": "run"}}, tmp_path).settings
    found = {entry["path"]: entry["sha256"] for entry in field_inputs(WorkDir.of(settings), settings)}
    assert found == {
        given["input_catalog"]: hashlib.sha256(b"RA,DEC\n1,2\n").hexdigest(),
        given["image_list_file"]: "",
    }


def test_etag_decides(raw: Path, proxy: Proxy, cache: Path) -> None:
    (raw / "x.bin").write_bytes(b"first")
    url = f"s3://{raw.name}/x.bin"
    first = local_copy(url)
    assert first.read_bytes() == b"first"
    assert first.is_relative_to(cache)
    proxy.requests.clear()
    assert local_copy(url) == first
    assert [method for method, _ in proxy.requests] == ["HEAD"]
    (raw / "x.bin").write_bytes(b"other")
    second = local_copy(url)
    assert second != first
    assert (first.read_bytes(), second.read_bytes()) == (b"first", b"other")


def test_download_that_was_cut_goes_on(raw: Path, proxy: Proxy) -> None:
    data = np.random.default_rng(1).bytes(10_500)
    (raw / "x.bin").write_bytes(data)
    count = 0

    def third(method: str, path: str) -> str | None:
        nonlocal count
        count += method == "GET"
        return "503" if method == "GET" and count > 4 else None

    proxy.fault = third
    url = f"s3://{raw.name}/x.bin"
    with pytest.raises(StoreUnreachableError, match="no answer"):
        local_copy(url)
    proxy.fault = lambda method, path: (
        "cut answer" if method == "GET" and len(proxy.requests) % 3 == 0 else None
    )
    proxy.requests.clear()
    assert local_copy(url).read_bytes() == data
    passed = sum(method == "GET" for method, _ in proxy.requests)
    assert 7 <= passed < 7 * 3  # seven of eleven pieces were missing


def test_many_at_once_fetch_once(raw: Path, proxy: Proxy) -> None:
    (raw / "x.bin").write_bytes(bytes(5000))
    proxy.fault = lambda method, path: 0.02
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(local_copy, [f"s3://{raw.name}/x.bin"] * 8))
    assert len(found) == 1
    assert found.pop().read_bytes() == bytes(5000)
    assert sum(method == "GET" for method, _ in proxy.requests) == 5


def test_object_that_is_still_being_written(raw: Path, proxy: Proxy) -> None:
    (raw / "x.bin").write_bytes(bytes(5000))

    def grow(method: str, path: str) -> None:
        if method == "GET":
            with (raw / "x.bin").open("ab") as out:
                out.write(b"more")

    proxy.fault = grow  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"changed while it was read|expected 5000 bytes"):
        local_copy(f"s3://{raw.name}/x.bin")


def test_what_is_wrong_is_said(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"s3://{raw.name}"
    with pytest.raises(InputError, match=f"{url}/none.csv: no such file"):
        read_raw_table(f"{url}/none.csv")
    with pytest.raises(InputError, match=r"image list s3://.*: no such file"):
        read_image_list(f"{url}/none.txt", "/")
    with pytest.raises(InputError, match=r"no such bucket|no such file"):
        read_header("s3://nobodys-bucket/x.fits")
    with pytest.raises(InputError, match=r"ends up in logs") as caught:
        local_copy("s3://KEY:hush/hush@bucket/x.fits")
    assert "hush" not in str(caught.value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wr0ngwr0ng")
    forget_connections()
    started = time.monotonic()
    with pytest.raises(InputError, match=r"access refused .*403"):
        read_header(f"{url}/a.fits")
    assert time.monotonic() - started < 5
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StoreUnreachableError, match=r"no answer at http://127.0.0.1:1"):
        read_header(f"{url}/a.fits")


def test_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object, **kwargs: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(InputError, match=r"pip install 'tract7dt-flow\[s3\]'"):
        local_copy("s3://bucket/x")


def test_memory_file_and_plain_paths(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe(f"/{tmp_path.name}/x y.csv", b"RA,DEC\n1,2\n")
    assert len(read_raw_table(f"memory:///{tmp_path.name}/x y.csv")) == 1
    assert local_copy(str(tmp_path / "a")) == tmp_path / "a"
    assert local_copy(f"file://{tmp_path}/a.fits") == tmp_path / "a.fits"


def test_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRACT7DT_CACHE_DIR", str(tmp_path / "file"))
    fsspec.filesystem("memory").pipe("/x.csv", b"RA\n")
    with pytest.raises(StoreError, match="TRACT7DT_CACHE_DIR names another folder"):
        local_copy("memory://x.csv")


def test_prune_takes_what_nobody_uses(cache: Path) -> None:
    import os

    memory = fsspec.filesystem("memory")
    memory.pipe("/old.csv", b"12345")
    memory.pipe("/new.csv", b"12345")
    old, new = local_copy("memory://old.csv"), local_copy("memory://new.csv")
    month_ago = time.time() - 30 * 86400
    os.utime(old, (month_ago, month_ago))
    assert prune_cache(14) == 5
    assert not old.exists()
    assert new.exists()
    assert local_copy("memory://old.csv").read_bytes() == b"12345"


# --- web servers -----------------------------------------------------------------------------------------


class _Web(http.server.SimpleHTTPRequestHandler):
    """Knows no ranges; answers 403 and 500 by name, and gives no time of the last change if asked so."""

    def do_GET(self) -> None:
        if self.path.strip("/").isdigit():
            self.send_error(int(self.path.strip("/")))
            return
        super().do_GET()

    do_HEAD = do_GET  # noqa: N815

    def send_header(self, keyword: str, value: str) -> None:
        if not (keyword == "Last-Modified" and "unversioned" in self.path):
            super().send_header(keyword, value)

    def copyfile(self, source, outputfile) -> None:  # type: ignore[no-untyped-def]
        if self.command == "GET":
            super().copyfile(source, outputfile)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server's address and its folder."""
    folder = tmp_path / "web"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Web, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", folder
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["a.fits", "unversioned.fits"])
def test_web_server_without_ranges(web: tuple[str, Path], name: str) -> None:
    url, folder = web
    image(folder / name)
    copy = local_copy(f"{url}/{name}")
    assert copy.read_bytes() == (folder / name).read_bytes()
    assert local_copy(f"{url}/{name}") == copy
    assert read_header(f"{url}/{name}").shape == (30, 40)


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (404, InputError, "no such file"),
        (403, InputError, "access refused"),
        (500, StoreUnreachableError, "no answer"),
    ],
)
def test_web_server_that_refuses(web: tuple[str, Path], status: int, kind: type, said: str) -> None:
    with pytest.raises(kind, match=said):
        local_copy(f"{web[0]}/{status}")


# --- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://bucket/a@b.fits", "s3://bucket/a@b.fits"),
        ("http://host:9000/a@b", "http://host:9000/a@b"),
        ("s3://KEY:SE/CRET@bucket/x", "s3://***@bucket/x"),
        ("https://u:p@h/x y https://token@h", "https://***@h/x y https://***@h"),
        ("https://h/x?X-Amz-Signature=ab12&X-Amz-Date=3", "https://h/x?X-Amz-Signature=***&X-Amz-Date=3"),
        ("https://h/x?a=1&token=ab", "https://h/x?a=1&token=***"),
    ],
)
def test_redaction(url: str, expected: str) -> None:
    assert redacted(url) == expected
    assert has_secret(url) == (url != expected)
    assert redacted(expected) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("password: hunter22", "password: ***"),
        ('"secret_key": "abc", "port": 1', '"secret_key": ***, "port": 1'),
        ("AWS_SECRET_ACCESS_KEY=abc x", "AWS_SECRET_ACCESS_KEY=*** x"),
        ("deep-value in text", "*** in text"),
        ("monkey: banana", "monkey: banana"),
        ("merge_key: [RA, DEC]", "merge_key: [RA, DEC]"),
    ],
)
def test_redactor(text: str, expected: str) -> None:
    assert Redactor({"X": "deep-value", "SHORT": "a"}).assignments(text) == expected


@pytest.mark.parametrize(
    "key", ["../x", "/x", "a/../b", "a//b", "a/./b", "", "a\\b", "C:/x", "a/b\0", "a\n", "é" * 600]
)
def test_keys_that_are_refused(key: str) -> None:
    assert key_problem(key)


@pytest.mark.parametrize("key", ["a", "a/b.c", "ZP/ü *?[x].png", "..a/b..", "-x"])
def test_keys_that_are_taken(key: str) -> None:
    assert key_problem(key) is None
