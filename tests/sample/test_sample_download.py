"""Downloading a field from a server of this test: good, and all that can be wrong with it."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import os
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from tract7dt.errors import SampleError
from tract7dt.sample import SampleSource, download_sample

REPO, TAG = "owner/sample-data", "v1.0"
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class Server:
    """Serves prepared answers by path."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = outer.answers.get(self.path)
                if answer is None:
                    self.send_error(404)
                else:
                    answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def put(self, asset: str, content: bytes, claimed: int | None = None, stall: float = 0.0) -> SampleSource:
        def answer(request: http.server.BaseHTTPRequestHandler) -> None:
            request.send_response(200)
            request.send_header("Content-Length", str(len(content) if claimed is None else claimed))
            request.end_headers()
            request.wfile.write(content)
            request.wfile.flush()
            time.sleep(stall)

        self.answers[f"/{REPO}/releases/download/{TAG}/{asset}"] = answer
        return self.source(asset, hashlib.sha256(content).hexdigest())

    def source(self, asset: str, sha256: str = "0" * 64) -> SampleSource:
        return SampleSource(REPO, TAG, asset, sha256, self.url)


@pytest.fixture
def server(monkeypatch: Any) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


@functools.cache
def image(band: str | None) -> bytes:
    header = fits.Header({"FILTER": band} if band else {})
    stream = io.BytesIO()
    fits.PrimaryHDU(np.zeros((4, 4), np.float32), header).writeto(stream)
    return stream.getvalue()


GOOD = {
    "data/images/calib_T01_b.fits": image("m550"),
    "data/images/calib_m425_T01.fits": image(None),
    "data/images/calib_T01_a.fits": image("m400"),
    "data/input_catalog.csv": b"ID,RA,DEC\n1,2,3\n",
    "data/aux/psf.fits": image(None),
}


def tar(
    files: dict[str, bytes], mode: str = "w:gz", extra: Callable[[tarfile.TarFile], None] | None = None
) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as packed:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
        if extra is not None:
            extra(packed)
    return stream.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return stream.getvalue()


def tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


def refused(tmp_path: Path, source: SampleSource, message: str, **kwargs: Any) -> None:
    """The download fails with the message and leaves nothing behind, not even beside the folder."""
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(SampleError, match=message):
        download_sample(work / "field", source=source, **kwargs)
    assert list(tmp_path.rglob("*")) == [work]


@pytest.mark.parametrize("kind", ["tar.gz", "tar", "tar.xz", "zip"])
def test_a_good_archive_becomes_a_field(server: Server, tmp_path: Path, kind: str) -> None:
    packed = zipped(GOOD) if kind == "zip" else tar(GOOD, {"tar": "w"}.get(kind, f"w:{kind[4:]}"))
    seen: list[tuple[int, int | None]] = []
    source = server.put(f"field.{kind}", packed)
    assert source.folder_name == "field"
    found = download_sample(tmp_path / "f", source=source, progress=lambda a, b: seen.append((a, b)))
    names = ["7DT_UDS_m400.fits", "7DT_UDS_m425.fits", "7DT_UDS_m550.fits"]
    assert tree(tmp_path / "f") == [
        "aux/psf.fits",
        "image_list.txt",
        *(f"images/{n}" for n in names),
        "input_catalog.csv",
    ]
    assert [p.name for p in found.images] == names
    assert fits.getheader(found.images[2])["FILTER"] == "m550"
    listed = [line for line in found.image_list.read_text().splitlines() if not line.startswith("#")]
    assert listed == [f"images/{n}" for n in names]
    assert seen[-1] == (len(packed), len(packed))
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_an_archive_without_a_top_folder(server: Server, tmp_path: Path) -> None:
    files = {"7DT_m400.fits": image("m400"), "notes/readme.txt": b"x"}
    download_sample(tmp_path / "f", source=server.put("f.zip", zipped(files)))
    assert tree(tmp_path / "f") == ["image_list.txt", "images/7DT_UDS_m400.fits", "notes/readme.txt"]
    only = {"images/a_m400.fits": image("m400"), "images/b_m425.fits": image("m425")}
    download_sample(tmp_path / "g", source=server.put("g.tar", tar(only, "w")))
    assert tree(tmp_path / "g") == ["image_list.txt", "images/7DT_UDS_m400.fits", "images/7DT_UDS_m425.fits"]


def test_the_environment_names_the_source(server: Server, tmp_path: Path, monkeypatch: Any) -> None:
    source = server.put("uds-field.tar.gz", tar(GOOD))
    monkeypatch.setenv("TRACT7DT_SAMPLE_REPO", REPO)
    monkeypatch.setenv("TRACT7DT_SAMPLE_TAG", TAG)
    monkeypatch.setenv("TRACT7DT_SAMPLE_ASSET", "uds-field.tar.gz")
    monkeypatch.setenv("TRACT7DT_SAMPLE_SHA256", source.sha256.upper())
    monkeypatch.setenv("TRACT7DT_SAMPLE_BASE_URL", server.url + "/")
    monkeypatch.chdir(tmp_path)
    found = download_sample()
    assert found.directory == tmp_path / "uds-field"
    assert len(found.images) == 3


def test_missing_and_malformed_variables_are_named() -> None:
    with pytest.raises(SampleError) as caught:
        SampleSource.from_environment({"TRACT7DT_SAMPLE_TAG": "v1", "TRACT7DT_SAMPLE_ASSET": " "})
    text = str(caught.value)
    assert all(f"TRACT7DT_SAMPLE_{n} (" in text for n in ("REPO", "ASSET", "SHA256"))
    assert "TRACT7DT_SAMPLE_TAG" not in text
    with pytest.raises(SampleError) as caught:
        SampleSource("owner", "v1", "../x", "abc", "http://example.org")
    assert all(
        f"TRACT7DT_SAMPLE_{n} is" in str(caught.value) for n in ("REPO", "ASSET", "SHA256", "BASE_URL")
    )
    assert (
        SampleSource("a/b", "v/1", "c.zip", "0" * 64).url
        == "https://github.com/a/b/releases/download/v%2F1/c.zip"
    )


@pytest.mark.parametrize(
    ("url", "accepted"),
    [
        ("https://example.org", True),
        ("http://127.0.0.1:80", True),
        ("http://[::1]:80", True),
        ("http://localhost", True),
        ("http://example.org", False),
        ("http://127.0.0.1.example.org", False),
        ("http://localhost.example.org", False),
        ("ftp://127.0.0.1", False),
        ("file:///etc", False),
        ("https://", False),
        ("http://[", False),
    ],
)
def test_only_https_or_this_machine(url: str, accepted: bool) -> None:
    if accepted:
        SampleSource("a/b", "v", "c.zip", "0" * 64, url)
    else:
        with pytest.raises(SampleError, match="not an https address"):
            SampleSource("a/b", "v", "c.zip", "0" * 64, url)


def test_wrong_digest(server: Server, tmp_path: Path) -> None:
    server.put("f.tar.gz", tar(GOOD))
    refused(tmp_path, server.source("f.tar.gz", "1" * 64), "SHA-256 is .*, expected 1111")


def test_no_such_asset(server: Server, tmp_path: Path) -> None:
    refused(tmp_path, server.source("f.tar.gz"), r"f\.tar\.gz: the server answers 404 Not Found")


def test_truncated_download(server: Server, tmp_path: Path) -> None:
    content = tar(GOOD)
    refused(tmp_path, server.put("f.tar.gz", content, claimed=len(content) + 10), "the download broke off")


def test_server_that_stalls(server: Server, tmp_path: Path) -> None:
    source = server.put("f.tar.gz", b"abc", claimed=1000, stall=1.0)
    refused(tmp_path, source, "the download broke off: .*timed out", timeout=0.2)


def test_no_server(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    source = SampleSource(REPO, TAG, "f.zip", "0" * 64, "http://127.0.0.1:9")
    refused(tmp_path, source, "cannot download: .*refused")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("http://example.org/f.zip", "refused a redirect to http://example.org"),
        ("file:///etc/passwd", "refused a redirect|not allowed"),
    ],
)
def test_redirect_off_https(server: Server, tmp_path: Path, target: str, message: str) -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", target)
        request.send_header("Content-Length", "0")
        request.end_headers()

    server.answers[f"/{REPO}/releases/download/{TAG}/f.zip"] = answer
    refused(tmp_path, server.source("f.zip"), message)


def test_redirect_to_a_safe_place_is_followed(server: Server, tmp_path: Path) -> None:
    source = server.put("f.zip", zipped(GOOD))
    path = f"/{REPO}/releases/download/{TAG}/f.zip"
    server.answers["/elsewhere"] = server.answers[path]

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", f"{server.url}/elsewhere")
        request.send_header("Content-Length", "0")
        request.end_headers()

    server.answers[path] = answer
    assert len(download_sample(tmp_path / "f", source=source).images) == 3


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Callable[[tarfile.TarFile], None]:
    def add(packed: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        packed.addfile(member)

    return add


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither a tar nor a zip"),
        (b"not an archive", "neither a tar nor a zip"),
        (tar(GOOD)[:-200], "damaged|cannot unpack"),
        (tar(GOOD, "w:xz")[:-200], "damaged|cannot unpack|neither"),
        (zipped(GOOD)[:-200], "damaged|neither"),
        (tar({}), "holds no files"),
        (tar({"../evil.fits": b"x"}), "'../evil.fits', which lies outside"),
        (tar({"data/../../evil.fits": b"x"}), "lies outside"),
        (tar({"/tmp/evil.fits": b"x"}), "'/tmp/evil.fits', which lies outside"),
        (zipped({"../evil.fits": b"x"}), "lies outside"),
        (zipped({"/evil.fits": b"x"}), "lies outside"),
        (zipped({"..\\evil.fits": b"x"}), "lies outside"),
        (tar(GOOD, extra=link("data/l", "/etc")), "'data/l', which is a link or a device"),
        (tar(GOOD, extra=link("data/l", "data/input_catalog.csv", tarfile.LNKTYPE)), "a link or a device"),
        (tar(GOOD, extra=link("data/d", "", tarfile.CHRTYPE)), "a link or a device"),
        (tar(GOOD, extra=link("data/p", "", tarfile.FIFOTYPE)), "a link or a device"),
        (tar({"data/a.txt": b"x"}), "no FITS image of a band"),
        (tar({"a_m400.fits": image("m400"), "b.fits": image("m400")}), "two images of m400"),
        (tar({"a_m400.fits": b"no fits"}), "a_m400.fits of the sample archive is no FITS file"),
        (tar({"a": b"x", "a/b_m400.fits": image("m400")}), "cannot unpack"),
    ],
    # Not the bytes: an archive holds the second at which it was packed, and each test process packs its own.
    ids=lambda value: value if isinstance(value, str) else "archive",
)
def test_archives_that_are_refused(server: Server, tmp_path: Path, content: bytes, message: str) -> None:
    refused(tmp_path, server.put("f.tar.gz", content), message)


def test_a_link_in_a_zip_is_refused(server: Server, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        member = zipfile.ZipInfo("data/l")
        member.external_attr = 0o120777 << 16
        packed.writestr(member, "/etc/passwd")
    refused(tmp_path, server.put("f.zip", stream.getvalue()), "a link or a device")


def test_what_is_there_stays_until_the_new_one_is_whole(server: Server, tmp_path: Path) -> None:
    good, target = server.put("f.tar.gz", tar(GOOD)), tmp_path / "f"
    download_sample(target, source=good)
    (target / "mine.txt").write_text("x")
    with pytest.raises(SampleError, match="is there and not empty"):
        download_sample(target, source=good)
    with pytest.raises(SampleError, match="SHA-256"):
        download_sample(target, force=True, source=server.source("f.tar.gz", "1" * 64))
    assert (target / "mine.txt").is_file()
    download_sample(target, force=True, source=good)
    assert not (target / "mine.txt").exists()
    assert len(tree(target)) == 6
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_foreign_folder_is_not_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("x")
    source = server.put("f.tar.gz", tar(GOOD))
    with pytest.raises(SampleError, match="does not look like a sample field"):
        download_sample(tmp_path / "home", force=True, source=source)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(SampleError, match="cannot write to"):
        download_sample(tmp_path / "locked" / "f", source=server.put("f.tar.gz", tar(GOOD)))
