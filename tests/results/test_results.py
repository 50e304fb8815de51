"""Fetching published runs: listing, files, checks, the table; and manifests that somebody has tampered with."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable
from published_run import make_run, write_summary
from s3_server import Proxy, S3Server
from typer.testing import CliRunner

from flows.results_cli import app
from tract7dt import results
from tract7dt.errors import ConfigError, StoreError, StoreUnreachableError
from tract7dt.publish import publish
from tract7dt.store import objects, remote

NIGHTS = ("2026-01-01", "2026-01-02")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACT7DT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(objects, "_FIRST_PAUSE_S", 0.02)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three runs of one field; never written to."""
    home = tmp_path_factory.mktemp("published")
    settings = make_run(home, f"file://{home}/public")
    publish(settings, "aaa-1", NIGHTS[0])
    publish(settings, "aab-2", NIGHTS[1])
    write_summary(settings, "partial", finished="2026-01-03T09:00:00+00:00")
    publish(settings, "abc-3", NIGHTS[1])
    return home / "public"


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A published run that a test may damage, below ``tmp_path / "public"``."""
    publish(make_run(tmp_path, f"file://{tmp_path}/public"), "run-1", NIGHTS[0])
    return tmp_path / "public" / "UDS" / NIGHTS[0] / "run-1"


def cli(*arguments: str) -> tuple[int, str]:
    answer = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    return answer.exit_code, answer.output


def rewrite(run: Path, **changes: Any) -> None:
    """Put something else into a manifest, and let latest.json agree with it."""
    import hashlib

    manifest = json.loads((run / "manifest.json").read_text()) | changes
    (run / "manifest.json").write_text(json.dumps(manifest))
    latest = run.parent.parent / "latest.json"
    pointer = json.loads(latest.read_text())
    pointer["manifest_sha256"] = hashlib.sha256((run / "manifest.json").read_bytes()).hexdigest()
    latest.write_text(json.dumps(pointer))


# --- which run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("night", "run", "expected"),
    [
        (None, "latest", "abc-3"),
        (NIGHTS[0], "latest", "aaa-1"),
        (NIGHTS[1], "latest", "abc-3"),
        (None, "aab", "aab-2"),
        (None, "aaa-1", "aaa-1"),
        (NIGHTS[1], "aa", "aab-2"),
    ],
)
def test_the_run_that_is_asked_for(published: Path, night: str | None, run: str, expected: str) -> None:
    assert results.find_run(str(published), None, night, run).manifest.run_id == expected


def test_runs_that_are_not_there(published: Path, tmp_path: Path) -> None:
    url = f"file://{published}"
    with pytest.raises(StoreError, match="no run of COSMOS is published"):
        results.find_run(url, "COSMOS")
    with pytest.raises(StoreError, match="no run 'zzz'"):
        results.find_run(url, run="zzz")
    with pytest.raises(ConfigError, match=r"fits 2 runs .*aaa-1.*aab-2"):
        results.find_run(url, run="aa")
    with pytest.raises(StoreError, match="no published run"):
        results.find_run(url, night="2025-01-01")
    with pytest.raises(StoreError, match="nothing is published here"):
        results.find_run(f"file://{tmp_path}/empty")
    with pytest.raises(ConfigError, match="names a folder above"):
        results.find_run(url, field="..")


def test_listing(published: Path, run_folder: Path) -> None:
    runs = results.list_runs(f"file://{published}")
    assert [(r.night, r.run_id, r.status, r.is_latest) for r in runs] == [
        (NIGHTS[0], "aaa-1", "done", False),
        (NIGHTS[1], "aab-2", "done", False),
        (NIGHTS[1], "abc-3", "partial", True),
    ]
    assert runs[0].n_objects > 10
    (run_folder / "manifest.json").rename(run_folder / "upload.json")
    url = str(run_folder.parents[2])
    assert [r.status for r in results.list_runs(url)] == ["incomplete"]
    (run_folder / "manifest.json").write_text("{")
    assert [r.status for r in results.list_runs(url)] == ["unreadable"]


# --- files -----------------------------------------------------------------------------------------------


def test_get_verify_and_a_damaged_file(published: Path, tmp_path: Path) -> None:
    run = results.find_run(str(published))
    came: list[int] = []
    paths = results.download(run, tmp_path / "here", on_bytes=lambda entry, n: came.append(n))
    folder = tmp_path / "here" / "UDS" / NIGHTS[1] / "abc-3"
    assert sum(came) == run.manifest.n_bytes
    assert {str(p.relative_to(folder)) for p in paths} == {e.key for e in run.manifest.objects}
    assert not list(folder.rglob(".*"))
    check = results.verify_folder(folder)
    assert (check.n_sound, check.problems, check.unlisted) == (len(paths), (), ())
    (folder / "wcs.fits").write_text("tifs")
    (folder / "output_catalog.csv").unlink()
    (folder / "mine.txt").write_text("")
    code, text = cli("verify", str(folder))
    assert code == 1
    assert "wcs.fits: its SHA-256 is not the manifest's" in text
    assert "output_catalog.csv: missing" in text
    assert "not in the manifest: mine.txt" in text
    assert f"{len(paths) - 2} of {len(paths)} files are sound" in text
    results.download(run, tmp_path / "here")
    assert results.verify_folder(folder).problems == ()


def test_download_goes_on_where_it_was_cut(s3: S3Server, proxy: Proxy, tmp_path: Path) -> None:
    bucket = s3.bucket("results-cut")
    publish(make_run(tmp_path, "s3://results-cut/p", n_rows=500), "run-1", NIGHTS[0])
    gets = 0

    def from_the_fifth(method: str, path: str) -> str | None:
        nonlocal gets
        if method != "GET" or "output_catalog.csv" not in path:
            return None
        gets += 1
        return "503" if gets > 4 else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "CHUNK", 4000)
        run = results.find_run("s3://results-cut/p", "UDS")
        proxy.fault = from_the_fifth
        with pytest.raises(StoreUnreachableError, match="no answer"):
            results.download(run, tmp_path / "here", ["catalogue"])
        folder = tmp_path / "here" / "UDS" / NIGHTS[0] / "run-1"
        assert not (folder / "output_catalog.csv").exists()
        assert [p.stat().st_size for p in folder.glob(".*.part")] == [16_000]
        proxy.fault = lambda method, path: None
        proxy.requests.clear()
        results.download(run, tmp_path / "here", ["catalogue"])
    size = (bucket / "p" / "UDS" / NIGHTS[0] / "run-1" / "output_catalog.csv").stat().st_size
    pieces = sum(method == "GET" and "output_catalog.csv" in path for method, path in proxy.requests)
    assert pieces == -(-(size - 16_000) // 4000)
    check = results.verify_folder(folder)
    assert check.n_sound == 3  # of the kind that was asked for
    assert not list(folder.glob(".*.part"))
    assert results.verify(run).problems == ()


def test_many_that_fetch_the_same_file(published: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        tables = list(pool.map(lambda _: results.load(str(published)), range(6)))
    assert {len(table) for table in tables} == {3}


# --- the table -------------------------------------------------------------------------------------------


def test_table_has_units_and_descriptions(s3: S3Server, tmp_path: Path) -> None:
    s3.bucket("results-load")
    publish(make_run(tmp_path, "s3://results-load/phot"), "run-1", NIGHTS[0])
    table = results.load("s3://results-load/phot", field="UDS")
    assert isinstance(table, QTable)
    assert list(table["ID"]) == ["00000", "00001", "00002"]
    assert table["RA"].unit == u.deg
    assert table["FLUX_m400_fit"].unit == u.count
    assert table["MAG_m400_fit"].unit == u.mag
    assert table["RA"].info.description == "Input right ascension, ICRS."
    np.testing.assert_array_equal(table["MAG_m400_fit"].value, [22.5, np.nan, 23.8])
    assert list(table["opt_niters"].mask) == [False, True, False]
    assert list(table["fit_is_reliable"]) == [True, False, True]
    assert (table.meta["night"], table.meta["status"]) == (NIGHTS[0], "done")


# --- what somebody else has put there --------------------------------------------------------------------


def entry(**changes: Any) -> dict[str, Any]:
    base = {
        "key": "x",
        "size": 1,
        "sha256": "0" * 64,
        "content_type": "text/plain",
        "kind": "plot",
        "stage": "merge",
    }
    return base | changes


@pytest.mark.parametrize(
    ("objects_", "said"),
    [
        ([entry(key="../../x")], "names a folder above"),
        ([entry(key="/etc/passwd")], "is empty"),
        ([entry(key="a/../../x")], "names a folder above"),
        ([entry(key="a\\..\\x")], "slash"),
        ([entry(key="C:/x")], "drive"),
        ([entry(size=-1)], "greater than or equal to 0"),
        ([entry(size="1")], "valid integer"),
        ([entry(size=1e300)], "valid integer"),
        ([entry(sha256="xyz")], "match pattern"),
        ([entry(), entry(key="X")], "comes twice"),
        ([entry(), entry(key="x/y")], "both an object and a folder"),
        ([entry(key="manifest.json")], "name of the manifest"),
        ([{"key": "x"}], "Field required"),
        ("none", "valid array"),
    ],
)
def test_manifests_that_are_refused(run_folder: Path, tmp_path: Path, objects_: Any, said: str) -> None:
    rewrite(run_folder, objects=objects_)
    with pytest.raises(StoreError, match=f"not a manifest of a published run: .*{said}"):
        results.download(results.find_run(str(tmp_path / "public")), tmp_path / "here")
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "Invalid JSON"), ("[]", "all:"), ('{"a":' * 5000, "Invalid JSON"), ("\x00\xff", "Invalid JSON")],
)
def test_manifests_that_are_none(run_folder: Path, tmp_path: Path, text: str, said: str) -> None:
    (run_folder / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(StoreError, match=said):
        results.find_run(str(tmp_path / "public"), run="run-1")


def test_another_runs_manifest_and_one_that_changed(run_folder: Path, tmp_path: Path) -> None:
    rewrite(run_folder, run_id="run-9")
    with pytest.raises(
        StoreError, match=r"expected the manifest of UDS 2026-01-01 run-1, found that of .* run-9"
    ):
        results.find_run(str(tmp_path / "public"))
    rewrite(run_folder, run_id="run-1")
    (run_folder / "manifest.json").write_text((run_folder / "manifest.json").read_text() + " ")
    with pytest.raises(StoreError, match="is being published anew"):
        results.find_run(str(tmp_path / "public"))


def test_sizes_and_digests_that_do_not_agree(run_folder: Path, tmp_path: Path) -> None:
    run = results.find_run(str(tmp_path / "public"))
    (run_folder / "wcs.fits").write_text("tifs")
    with pytest.raises(StoreError, match="SHA-256 is not the manifest's"):
        results.download(run, tmp_path / "here")
    (run_folder / "wcs.fits").write_bytes(bytes(100_000))  # more than is said: nothing of it is fetched
    with pytest.raises(StoreError, match="the manifest says 4 bytes, the store 100000"):
        results.download(run, tmp_path / "here")
    there = {p.name for p in (tmp_path / "here").rglob("*")}
    assert "wcs.fits" not in there
    assert not any(name.endswith(".part") for name in there)


def test_links_in_the_target_folder(run_folder: Path, tmp_path: Path) -> None:
    run = results.find_run(str(tmp_path / "public"))
    target = tmp_path / "here" / "UDS" / NIGHTS[0] / "run-1"
    target.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (target / "ZP").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="leads out of"):
        results.download(run, tmp_path / "here")
    assert not list((tmp_path / "elsewhere").iterdir())


# --- a public web server ---------------------------------------------------------------------------------


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(published: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(published))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_by_a_web_server(web: str, tmp_path: Path) -> None:
    run = results.find_run(web, "UDS")
    assert run.manifest.run_id == "abc-3"
    assert len(results.download(run, tmp_path / "here")) == len(run.manifest.objects)
    assert results.verify(run).problems == ()
    assert len(results.load(web, "UDS", NIGHTS[0], "aaa-1")) == 3
    assert results.open_address(run).url == f"{web}/UDS/{NIGHTS[1]}/abc-3/report.html"


# --- the commands ----------------------------------------------------------------------------------------


def test_commands(published: Path, tmp_path: Path) -> None:
    url = f"file://{published}"
    code, text = cli("list", "--url", url)
    assert code == 0
    assert "abc-3" in text
    assert "partial" in text
    code, text = cli("get", "--url", url, "--kind", "catalogue", "--to", str(tmp_path))
    assert code == 0
    assert str(tmp_path / "UDS" / NIGHTS[1] / "abc-3" / "output_catalog.fits") in text
    assert "is partial" in text
    assert cli("verify", "--url", url)[0] == 0
    code, text = cli("open", "--url", url, "--print")
    assert (code, text.strip()) == (0, f"{url}/UDS/{NIGHTS[1]}/abc-3/report.html")
    code, text = cli("get", "--url", url, "--kind", "payloads")
    assert code == 2
    assert "nothing of kind payloads; it has augmented_catalogue, catalogue" in text
    code, text = cli("get", "--url", url, "--field", "COSMOS")
    assert code == 1
    assert "no run of COSMOS is published" in text
    assert cli("verify")[0] == 2


def test_open_gives_a_presigned_link(s3: S3Server, tmp_path: Path) -> None:
    s3.bucket("results-open")
    publish(make_run(tmp_path, "s3://results-open/p"), "run-1", NIGHTS[0])
    code, text = cli("open", "--url", "s3://results-open/p", "--print", "--expiry", "60")
    assert code == 0
    assert "X-Amz-Signature=" in text
    assert "the link works until" in text
