"""Publishing to a real S3 server, and to a folder: whole or invisible, resumed, and without secrets."""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from published_run import make_run, write_summary
from s3_server import SECRET, Proxy, S3Server, forget_connections

from tract7dt.errors import ConfigError, ProductError, StoreError, StoreUnreachableError
from tract7dt.publish import link, publish
from tract7dt.publish.manifest import PublishedObject
from tract7dt.settings import Settings
from tract7dt.store import objects

NIGHT = "2026-01-01"
EXPECTED = {
    "EPSFs/epsf_summary.json",
    "EPSFs/m400/r00_c00/epsf.png",
    "ZP/UDS_with_Gaia.csv",
    "ZP/zp_all_bands__per_object.csv",
    "ZP/zp_summary.csv",
    "ZP/zp_vs_mag__m400.png",
    "config_used_20260102_000000.yaml",
    "output_catalog.csv",
    "output_catalog.fits",
    "output_catalog.parquet",
    "outputs/r00_c00_pr00_pc00/cutouts/src_a%2Fb.png",
    "outputs/r00_c00_pr00_pc00/cutouts/src_halo_7.png",
    "outputs/r00_c00_pr00_pc00/patch_overview.png",
    "overlay/white_overlay.png",
    "patches/patches.csv",
    "report.html",
    "run.log",
    "run_summary.json",
    "wcs.fits",
}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_FIRST_PAUSE_S", 0.02)


@pytest.fixture
def settings(s3: S3Server, tmp_path: Path) -> Settings:
    """A run that is to go to a bucket of its own."""
    bucket = tmp_path.name.replace("_", "-").lower()[-60:].strip("-")
    s3.bucket(bucket)
    return make_run(tmp_path, f"s3://{bucket}/phot")


def folder_of(s3: S3Server, settings: Settings) -> Path:
    """Where the server keeps what is published."""
    return s3.folder / str(settings.publish.url).removeprefix("s3://") / "UDS"


def stored(folder: Path) -> dict[str, Path]:
    """What the server shows of a folder; parts of an upload that was given up are its own affair."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".rclone_temp_")]
    return {str(p.relative_to(folder)): p for p in files}


def check_whole(run: Path) -> dict[str, object]:
    """The manifest of a run in the store, of which every object is what it says."""
    manifest: dict[str, object] = json.loads((run / "manifest.json").read_text())
    objects_ = manifest["objects"]
    assert isinstance(objects_, list)
    for entry in objects_:
        data = (run / entry["key"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["size"], entry["sha256"])
    assert {e["key"] for e in objects_} == set(stored(run)) - {"manifest.json"}
    return manifest


def test_everything_that_belongs_to_a_run_is_up_and_described(s3: S3Server, settings: Settings) -> None:
    told: list[str] = []
    result = publish(settings, "run-1", NIGHT, on_object=lambda entry: told.append(entry.key))
    run = folder_of(s3, settings) / NIGHT / "run-1"
    manifest = check_whole(run)
    assert set(stored(run)) == EXPECTED | {"manifest.json"}
    assert sorted(told) == sorted(EXPECTED)
    assert result.url == f"{settings.publish.url}/UDS/{NIGHT}/run-1"
    assert result.manifest_url == f"{result.url}/manifest.json"
    assert (result.n_objects, result.n_uploaded, result.status) == (len(EXPECTED), len(EXPECTED), "done")
    assert manifest["versions"] == {"python": "3.11.9", "numpy": "2.4.6"}
    assert manifest["inputs"] == [{"path": "s3://raw/UDS.fits", "sha256": "0" * 64}]
    kinds = {e["key"]: (e["kind"], e["stage"]) for e in manifest["objects"]}  # type: ignore[attr-defined]
    assert kinds["output_catalog.fits"] == ("catalogue", "compute_zp")
    assert kinds["EPSFs/m400/r00_c00/epsf.png"] == ("epsf_plot", "build_epsf")
    latest = json.loads((folder_of(s3, settings) / "latest.json").read_text())
    assert (latest["night"], latest["run_id"], latest["manifest"]) == (
        NIGHT,
        "run-1",
        f"{NIGHT}/run-1/manifest.json",
    )
    assert latest["manifest_sha256"] == hashlib.sha256((run / "manifest.json").read_bytes()).hexdigest()
    assert not (Path(settings.outputs.work_dir) / ".publish").exists()


def test_cutouts_lie_where_the_report_looks_for_them(s3: S3Server, settings: Settings) -> None:
    """The folder of the fits may have another name; the report in the store links to it by that name."""
    root = Path(settings.outputs.work_dir)
    (root / "outputs").rename(root / "fits")
    outputs = settings.outputs.model_copy(update={"tractor_out_dir": root / "fits"})
    moved = settings.model_copy(update={"outputs": outputs})
    publish(moved, "run-1", NIGHT)
    kept = moved.model_copy(update={"publish": settings.publish.model_copy(update={"cutouts": False})})
    publish(kept, "run-2", NIGHT)
    night = folder_of(s3, settings) / NIGHT
    with_cutouts, without = set(stored(night / "run-1")), set(stored(night / "run-2"))
    assert {key for key in with_cutouts if "cutouts/" in key} == with_cutouts - without
    assert "fits/r00_c00_pr00_pc00/cutouts/src_a%2Fb.png" in with_cutouts
    manifest = check_whole(night / "run-1")
    kinds = {e["kind"] for e in manifest["objects"] if "/cutouts/" in e["key"]}  # type: ignore[attr-defined]
    assert kinds == {"cutout"}


@pytest.mark.parametrize(
    ("key", "media"),
    [
        ("report.html", "text/html; charset=utf-8"),
        ("overlay/white_overlay.png", "image/png"),
        ("output_catalog.csv", "text/csv; charset=utf-8"),
        ("output_catalog.fits", "application/fits"),
        ("output_catalog.parquet", "application/vnd.apache.parquet"),
        ("manifest.json", "application/json"),
    ],
)
def test_content_types_reach_the_server(settings: Settings, proxy: Proxy, key: str, media: str) -> None:
    """What the server is told; rclone itself answers with the type that the suffix has for it."""
    seen: dict[str, str] = {}
    real = http.client.HTTPConnection.request

    def spy(self, method, url, body=None, headers=None, **more):  # type: ignore[no-untyped-def]
        if method == "PUT":
            seen[url.split("/run-1/")[-1]] = {k.lower(): v for k, v in headers.items()}["content-type"]
        return real(self, method, url, body, headers, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http.client.HTTPConnection, "request", spy)
        publish(settings, "run-1", NIGHT)
    assert seen[key] == media


def test_presigned_links_open_and_expire(s3: S3Server, settings: Settings) -> None:
    result = publish(settings, "run-1", NIGHT)
    made = link(f"{result.url}/report.html", 2)
    assert made.expires is not None
    with urllib.request.urlopen(made.url) as answer:
        assert answer.read() == b"<h1>UDS</h1>"
        assert answer.headers["Content-Type"].startswith("text/html")
    time.sleep(3.1)
    with pytest.raises(urllib.error.HTTPError, match=r"HTTP Error 40[03]"):
        urllib.request.urlopen(made.url)
    with pytest.raises(ConfigError, match="expected 1 to 604800 s"):
        link(result.url, 700_000)


def test_plain_link_where_nothing_is_signed(tmp_path: Path) -> None:
    made = link(f"file://{tmp_path}/report.html")
    assert (made.url, made.expires) == (f"file://{tmp_path}/report.html", None)


def test_second_publication_brings_up_what_differs(s3: S3Server, settings: Settings, proxy: Proxy) -> None:
    publish(settings, "run-1", NIGHT)
    proxy.requests.clear()
    again = publish(settings, "run-1", NIGHT)
    assert again.n_uploaded == 0
    assert again.is_latest
    assert not [r for r in proxy.requests if r[0] in ("PUT", "POST", "DELETE")]
    work = Path(settings.outputs.work_dir)
    (work / "ZP" / "zp_vs_mag__m400.png").write_text("gnp")  # as long as before
    (work / "overlay" / "white_overlay.png").unlink()
    third = publish(settings, "run-1", NIGHT)
    assert third.n_uploaded == 1
    run = folder_of(s3, settings) / NIGHT / "run-1"
    check_whole(run)
    assert set(stored(run)) == EXPECTED - {"overlay/white_overlay.png"} | {"manifest.json"}


def test_latest_steps_back_while_its_run_changes(s3: S3Server, settings: Settings, proxy: Proxy) -> None:
    """A run that is published anew is out of sight from its first change to its last."""
    publish(settings, "run-1", "2025-12-31")
    publish(settings, "run-2", NIGHT)
    field = folder_of(s3, settings)
    (Path(settings.outputs.work_dir) / "ZP" / "zp_summary.csv").write_text("band,zp_median\nm400,99.99\n")
    seen: list[tuple[str, bool]] = []

    def watch(method: str, path: str) -> None:
        if method in ("PUT", "DELETE") and "/run-2/" in path and "manifest.json" not in path:
            named = json.loads((field / "latest.json").read_text())["run_id"]
            seen.append((named, (field / NIGHT / "run-2" / "manifest.json").exists()))

    proxy.fault = watch  # type: ignore[assignment]
    publish(settings, "run-2", NIGHT)
    assert seen[:-1]
    assert set(seen[:-1]) == {("run-1", False)}  # the last one removes the plan, when the manifest is there
    assert json.loads((field / "latest.json").read_text())["run_id"] == "run-2"


def test_an_older_night_does_not_become_the_latest(s3: S3Server, settings: Settings) -> None:
    publish(settings, "run-1", NIGHT)
    late = publish(settings, "run-0", "2025-12-31")
    assert not late.is_latest
    assert json.loads((folder_of(s3, settings) / "latest.json").read_text())["run_id"] == "run-1"
    assert publish(settings, "run-2", NIGHT).is_latest


@pytest.mark.parametrize("fault", ["503", "500", "cut"])
def test_passing_troubles_are_ridden_out(settings: Settings, proxy: Proxy, s3: S3Server, fault: str) -> None:
    """Each object's first request of each kind fails.

    Not "every fourth request": uploads run at once, and the four attempts of one object can then all be
    such a fourth, which is trouble that lasts.
    """
    asked: set[tuple[str, str]] = set()

    def the_first_time(method: str, path: str) -> str | None:
        known = (method, path) in asked
        asked.add((method, path))
        return None if known else fault

    proxy.fault = the_first_time
    publish(settings, "run-1", NIGHT)
    check_whole(folder_of(s3, settings) / NIGHT / "run-1")


def test_what_the_store_shows_late_is_waited_for(settings: Settings, proxy: Proxy, s3: S3Server) -> None:
    """An object that has just been written is not there yet, for a moment."""
    heads: Counter[str] = Counter()

    def late(method: str, path: str) -> str | None:
        heads[path] += method == "HEAD"
        return "404" if method == "HEAD" and heads[path] < 3 else None

    proxy.fault = late
    publish(settings, "run-1", NIGHT)
    check_whole(folder_of(s3, settings) / NIGHT / "run-1")
    puts = Counter(path for method, path in proxy.requests if method == "PUT")
    sent_again = [
        p for p, n in puts.items() if n > 1 and not any(t[:2] == ("PUT", p) for t in proxy.troubles)
    ]
    assert not sent_again


@pytest.mark.parametrize("times", [1, 9])
def test_what_the_store_loses_is_sent_again(
    settings: Settings, proxy: Proxy, s3: S3Server, times: int
) -> None:
    """The store says that it has taken an object, and has not; once passes, always is an error."""
    lost: Counter[str] = Counter()

    def forgets(method: str, path: str) -> str | None:
        if method != "PUT" or not path.endswith("/patches/patches.csv"):
            return None
        lost[path] += 1
        return "lost" if lost[path] <= times else None

    proxy.fault = forgets
    if times == 1:
        publish(settings, "run-1", NIGHT)
        check_whole(folder_of(s3, settings) / NIGHT / "run-1")
        return
    with pytest.raises(StoreError, match=r"patches.csv: sent \d+ bytes, the store holds None"):
        publish(settings, "run-1", NIGHT)
    assert sum(lost.values()) == 2
    assert not (folder_of(s3, settings) / "latest.json").exists()
    assert not (folder_of(s3, settings) / NIGHT / "run-1" / "manifest.json").exists()


def test_what_goes_after_it_was_seen_is_sent_again(s3: S3Server, settings: Settings) -> None:
    """An object was there when it was asked for, and is not when the manifest is about to be written."""
    run = folder_of(s3, settings) / NIGHT / "run-1"
    told: list[str] = []

    def undo_the_first(entry: PublishedObject) -> None:
        told.append(entry.key)
        if len(told) == 2:
            (run / told[0]).unlink()

    result = publish(settings, "run-1", NIGHT, on_object=undo_the_first)
    assert result.n_uploaded == len(told) == len(EXPECTED)
    check_whole(run)


def test_slow_server(settings: Settings, proxy: Proxy, s3: S3Server) -> None:
    proxy.fault = lambda method, path: 0.1
    publish(settings, "run-1", NIGHT)
    check_whole(folder_of(s3, settings) / NIGHT / "run-1")


def test_lasting_trouble_ends_and_the_next_attempt_goes_on(
    settings: Settings, proxy: Proxy, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store fails half-way: an error soon, nothing visible, and only the rest on the second attempt."""
    puts = 0

    def half_way(method: str, path: str) -> str | None:
        nonlocal puts
        puts += method == "PUT"
        return "503" if puts > 8 else None

    proxy.fault = half_way
    with pytest.raises(StoreUnreachableError, match=r"no answer .*503"):
        publish(settings, "run-1", NIGHT, jobs=1)
    assert len(proxy.requests) < 80  # nothing is retried for ever
    field = folder_of(s3, settings)
    assert not (field / "latest.json").exists()
    assert not (field / NIGHT / "run-1" / "manifest.json").exists()
    there = set(stored(field / NIGHT / "run-1"))
    assert 5 <= len(there) < len(EXPECTED)
    proxy.fault = lambda method, path: None
    result = publish(settings, "run-1", NIGHT)
    assert result.n_uploaded == len(EXPECTED) - len(there - {"upload.json"})
    check_whole(field / NIGHT / "run-1")


def test_killed_in_the_middle_and_resumed(
    settings: Settings, proxy: Proxy, s3: S3Server, tmp_path: Path
) -> None:
    """SIGKILL of the process that publishes, within a large file that goes up in parts."""
    big = Path(settings.outputs.work_dir) / "overlay" / "big.png"
    with big.open("wb") as out:
        for _ in range(104):
            out.write(os.urandom(1 << 20))
    reached = False

    def slow_parts(method: str, path: str) -> float | None:
        nonlocal reached
        if "partNumber=3" in path:
            reached = True
            return 5.0
        return None

    proxy.fault = slow_parts
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    code = (
        "import sys; from pathlib import Path; from tract7dt.settings import Settings; "
        "from tract7dt.publish import publish; "
        f"publish(Settings.model_validate_json(Path(sys.argv[1]).read_text()), 'run-1', {NIGHT!r}, jobs=1)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "settings.json")])
    end = time.monotonic() + 60
    while not reached and child.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert reached
    proxy.fault = lambda method, path: None
    field = folder_of(s3, settings)
    assert not (field / "latest.json").exists()
    assert "overlay/big.png" not in stored(field / NIGHT / "run-1")
    publish(settings, "run-1", NIGHT)
    manifest = check_whole(field / NIGHT / "run-1")
    assert "overlay/big.png" in {e["key"] for e in manifest["objects"]}  # type: ignore[attr-defined]
    assert not (Path(settings.outputs.work_dir) / ".publish").exists()


def test_wrong_credentials(
    settings: Settings, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "wr0ngwr0ngwr0ngwr0ng"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", wrong)
    forget_connections()
    with pytest.raises(
        StoreError, match=r"access refused .*SignatureDoesNotMatch.*AWS_ACCESS_KEY_ID"
    ) as caught:
        publish(settings, "run-1", NIGHT)
    assert not isinstance(caught.value, ConnectionError)
    assert len(proxy.requests) == 1
    assert wrong not in caplog.text + str(caught.value)


def test_no_credentials_no_bucket_no_server(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def at(url: str, endpoint: str | None = None) -> Settings:
        publishing = settings.publish.model_copy(update={"url": url, "endpoint_url": endpoint})
        return settings.model_copy(update={"publish": publishing})

    with pytest.raises(StoreError, match="no such bucket"):
        publish(at("s3://nobodys-bucket/x"), "run-1", NIGHT)
    with pytest.raises(StoreUnreachableError, match=r"no answer at http://127.0.0.1:1 "):
        publish(at("s3://b/x", "http://127.0.0.1:1"), "run-1", NIGHT)
    with pytest.raises(ConfigError, match=r"ends up in logs") as caught:
        publish(at("s3://KEYID:hushhush@bucket/x"), "run-1", NIGHT)
    assert "hushhush" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be written to"):
        publish(at("https://example.org/x"), "run-1", NIGHT)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    forget_connections()
    with pytest.raises(StoreError, match="no credentials found; set AWS_ACCESS_KEY_ID"):
        publish(settings, "run-1", NIGHT)


def test_planted_secrets_reach_nobody(
    s3: S3Server, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "tract7dt")
    monkeypatch.setenv("SITE_DB_PASSWORD", "pl4nted-in-env")
    work = Path(settings.outputs.work_dir)
    (work / "run.log").write_text(
        f"the key is {SECRET}\nfetching s3://KEY:pl4nted-in-url@bucket/a.fits\n"
        "GET https://host/x?X-Amz-Signature=pl4nted-sig&X-Amz-Date=1\nlogin with pl4nted-in-env\n"
    )
    (work / "config_used_20260102_000000.yaml").write_text(
        "runtime:\n  cluster: {security: {password: pl4nted-in-yaml, port: 8786}}\n"
        "publish: {url: 's3://bucket/phot'}\n"
    )
    (work / "report.html").write_text('<a href="https://u:pl4nted-in-html@h/x">link</a>')
    write_summary(settings, counts={"failed_patches": {"p": "HTTP https://u:pl4nted-in-json@h/ failed"}})
    publish(settings, "run-1", NIGHT)
    everything = b"".join(p.read_bytes() for p in stored(folder_of(s3, settings)).values())
    assert b"pl4nted" not in everything
    assert SECRET.encode() not in everything
    assert SECRET not in caplog.text
    run = folder_of(s3, settings) / NIGHT / "run-1"
    config = (run / "config_used_20260102_000000.yaml").read_text()
    assert "port: 8786" in config
    assert "url: 's3://bucket/phot'" in config
    assert "s3://***@bucket/a.fits" in (run / "run.log").read_text()


def test_failed_and_half_runs_are_not_published(settings: Settings, s3: S3Server) -> None:
    failed = [{"name": "load_inputs", "status": "done"}, {"name": "build_epsf", "status": "failed"}]
    write_summary(settings, "failed", stages=failed, error={"stage": "build_epsf", "message": "disk full"})
    with pytest.raises(ProductError, match=r"did not end well, stage build_epsf \(disk full\)"):
        publish(settings, "run-1", NIGHT)
    write_summary(settings, stages=[{"name": "load_inputs", "status": "done"}])
    with pytest.raises(ProductError, match=r"catalogue: its stage .merge. is not done"):
        publish(settings, "run-1", NIGHT)
    write_summary(settings)
    Path(settings.outputs.final_catalog).with_suffix(".fits").unlink()
    with pytest.raises(ProductError, match=r"output_catalog.fits: missing"):
        publish(settings, "run-1", NIGHT)
    assert not folder_of(s3, settings).exists()


def test_partial_run_says_so(settings: Settings, s3: S3Server) -> None:
    write_summary(settings, "partial", counts={"failed_patches": {"r00_c00_pr00_pc00": "killed"}})
    assert publish(settings, "run-1", NIGHT).status == "partial"
    manifest = json.loads((folder_of(s3, settings) / NIGHT / "run-1" / "manifest.json").read_text())
    assert manifest["status"] == "partial"
    assert manifest["counts"]["failed_patches"] == {"r00_c00_pr00_pc00": "killed"}
    assert json.loads((folder_of(s3, settings) / "latest.json").read_text())["status"] == "partial"


def test_products_of_another_run_are_not_taken_for_this_ones(settings: Settings, s3: S3Server) -> None:
    """Zero points that an earlier run with ``zp.enabled`` left in the work_dir."""
    stages = [{"name": "merge", "status": "cached"}, {"name": "compute_zp", "status": "skipped"}]
    write_summary(settings, stages=stages)
    publish(settings, "run-1", NIGHT)
    run = folder_of(s3, settings) / NIGHT / "run-1"
    assert {k for k in stored(run) if "/" in k} == set()
    manifest = check_whole(run)
    stages_of = {e["key"]: e["stage"] for e in manifest["objects"]}  # type: ignore[attr-defined]
    assert stages_of["output_catalog.csv"] == "merge"


# --- a local folder, and what tries to leave it ----------------------------------------------------------


def test_publishing_to_a_folder(tmp_path: Path) -> None:
    settings = make_run(tmp_path, f"file://{tmp_path}/public")
    result = publish(settings, "run-1", NIGHT)
    run = tmp_path / "public" / "UDS" / NIGHT / "run-1"
    check_whole(run)
    assert publish(settings, "run-1", NIGHT).n_uploaded == 0
    (run / "wcs.fits").write_text("tifs")  # damaged where it lies, the same length
    assert publish(settings, "run-1", NIGHT).n_uploaded == 1
    check_whole(run)
    assert result.manifest_url == f"file://{run}/manifest.json"


@pytest.mark.parametrize("name", ["..", ".", "a\\b", "a\nb", " a", "x" * 300])
def test_names_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    settings = make_run(tmp_path, f"file://{tmp_path}/public")
    tile = settings.model_copy(update={"inputs": settings.inputs.model_copy(update={"tile_name": name})})
    with pytest.raises(ConfigError, match=r"inputs.tile_name: .* names a folder of the store"):
        publish(tile, "run-1", NIGHT)
    for run_id, night in ((name, NIGHT), ("run-1", name), ("a/b", NIGHT), ("run-1", "../2026")):
        with pytest.raises(ConfigError, match="names a folder of the store"):
            publish(settings, run_id, night)
    assert not (tmp_path / "public").exists()


def test_links_out_of_the_work_dir_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = make_run(tmp_path, f"file://{tmp_path}/public")
    work = Path(settings.outputs.work_dir)
    (tmp_path / "private.png").write_text("private")
    (work / "overlay" / "leak.png").symlink_to(tmp_path / "private.png")
    (work / "report.html").unlink()
    (work / "report.html").symlink_to("/etc/hostname")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.png").write_text("private")
    (work / "cropped_images").symlink_to(outside)
    publish(settings, "run-1", NIGHT)
    run = tmp_path / "public" / "UDS" / NIGHT / "run-1"
    assert set(stored(run)) == EXPECTED - {"report.html"} | {"manifest.json"}
    assert caplog.text.count("not published") == 3


def test_file_that_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_run(tmp_path, f"file://{tmp_path}/public")
    real = objects.ObjectStore.upload

    def and_write(self: objects.ObjectStore, source: Path, key: str, content_type: str) -> None:
        if source.name == "output_catalog.csv":
            source.write_text(source.read_text() + "\n")
        real(self, source, key, content_type)

    monkeypatch.setattr(objects.ObjectStore, "upload", and_write)
    with pytest.raises(ProductError, match="changed while it was published"):
        publish(settings, "run-1", NIGHT)
    assert not (tmp_path / "public" / "UDS" / "latest.json").exists()
