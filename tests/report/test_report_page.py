"""What the report holds, without a browser; and that it never costs a run."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from report_runs import SmallRun, large_run
from typer.testing import CliRunner

from flows.cli import app
from tract7dt import run_report
from tract7dt.errors import ProductError
from tract7dt.qa.passbands import passband, passbands_in_order
from tract7dt.qa.report.pack import json_text, packed
from tract7dt.qa.report.products import read_warnings
from tract7dt.qa.report.sources import LIMIT, MAG_STEP, NOTHING, number_counts, spectral_points
from tract7dt.run_record import RunRecord
from tract7dt.settings import Settings, settings_from_dict


def made_settings(folder: Path) -> Settings:
    given = {
        "inputs": {"input_catalog": "c.csv", "image_list_file": "i.txt", "tile_name": "BIG"},
        "outputs": {"work_dir": str(folder / "work")},
    }
    loaded = settings_from_dict(given, folder)
    return getattr(loaded, "settings", loaded)


def data_of(path: Path) -> dict:
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def test_run_writes_the_report_with_what_it_did(run: SmallRun) -> None:
    data = data_of(run.work.report)
    assert data["run"]["field"] == "REP"
    assert data["run"]["status"] == "done"
    assert data["run"]["counts"]["fitted"] > 0
    assert [s["name"] for s in data["run"]["stages"]] == [s["name"] for s in run.record["stages"]]
    assert all(len(file["sha256"]) == 64 for file in data["run"]["inputs"])
    assert ["crop.margin", 6, 500] in data["run"]["differences"]
    pivots = [band["nm"] for band in data["bands"]]
    assert pivots == sorted(pivots)
    assert {zp["band"] for zp in data["zero_points"]} == {band["name"] for band in data["bands"]}
    stars = data["zero_points"][0]["stars"]
    assert sum(star[3] == 0 for star in stars) == data["zero_points"][0]["n_kept"]
    assert data["reliability"]["n"] == len(run.catalog)
    assert run.work.report.stat().st_size < 2_000_000


def test_what_is_of_others_bears_its_licence(run: SmallRun) -> None:
    text = run.work.report.read_text(encoding="utf-8")
    for words in (
        "d3-zoom 3.0.0",
        "d3-ease 3.0",
        "Mike Bostock",
        "Permission to use, copy, modify",
        "Robert Penner",
    ):
        assert words in text


def test_report_asks_for_nothing_elsewhere(run: SmallRun) -> None:
    text = run.work.report.read_text(encoding="utf-8")
    names = {
        "1999/xhtml",
        "1999/xlink",
        "2000/svg",
        "2000/xmlns/",
        "XML/1998/namespace",
    }  # names, no addresses
    found = set(re.findall(r"https?://[^\s\"'<)]+", text))
    assert found <= {f"http://www.w3.org/{name}" for name in names}
    assert "default-src 'none'" in text


def test_same_run_same_report(copy: SmallRun) -> None:
    run_report.make_report(copy.settings, copy.record)
    before = copy.work.report.read_bytes()
    run_report.make_report(copy.settings, copy.record)
    assert copy.work.report.read_bytes() == before


def test_report_command(copy: SmallRun) -> None:
    copy.work.report.unlink()
    done = CliRunner().invoke(app, ["report", "--config", str(copy.config)])
    assert done.exit_code == 0, done.output
    assert copy.work.report.is_file()
    small = copy.work.report.stat().st_size
    done = CliRunner().invoke(app, ["report", "--config", str(copy.config), "--with-cutouts"])
    assert done.exit_code == 0, done.output
    assert copy.work.report.stat().st_size > small + 100_000
    copy.work.final_catalog.with_suffix(".parquet").unlink()
    done = CliRunner().invoke(app, ["report", "--config", str(copy.config)])
    assert done.exit_code == 1
    assert "run the pipeline first" in done.output


def test_pictures_that_are_missing_are_drawn_again_from_the_products_the_same(copy: SmallRun) -> None:
    """Without the fit: payload and model.npz are enough."""
    tag = sorted(path.parent.name for path in copy.work.fits.glob("*/model.npz"))[0]
    folder = copy.work.patch_dir(tag)
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    assert len(before) > 3
    residual = np.load(copy.work.patch_residual(tag))
    shutil.rmtree(copy.work.cutouts(tag))
    (folder / "patch_overview.png").unlink()
    copy.work.patch_residual(tag).unlink()
    others = {path: path.stat().st_mtime_ns for path in copy.work.fits.rglob("*.png")}
    done = CliRunner().invoke(app, ["report", "--config", str(copy.config)])
    assert done.exit_code == 0, done.output
    assert {path: path.read_bytes() for path in before} == before
    # that of the fit, or drawn anew: a block that lies between two steps may be rounded to the other one
    off = np.abs(np.load(copy.work.patch_residual(tag)).astype(int) - residual)
    assert off.max() <= 1
    assert np.count_nonzero(off) <= 0.01 * off.size
    assert {path: path.stat().st_mtime_ns for path in others} == others, "only what was missing"


def test_a_fit_that_cannot_be_drawn_again_costs_its_pictures_alone(copy: SmallRun) -> None:
    tag = sorted(path.parent.name for path in copy.work.fits.glob("*/model.npz"))[0]
    shutil.rmtree(copy.work.cutouts(tag))
    copy.work.patch_model(tag).write_bytes(b"not an archive")
    done = CliRunner().invoke(app, ["report", "--config", str(copy.config)])
    assert done.exit_code == 0, done.output
    assert not copy.work.cutouts(tag).exists()


@pytest.mark.parametrize("enabled", [True, False])
def test_a_report_that_fails_costs_itself_alone(
    copy: SmallRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, enabled: bool
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ProductError("no room on the page")

    monkeypatch.setattr(run_report, "make_report", broken)
    settings = copy.settings
    settings = settings.model_copy(update={"report": settings.report.model_copy(update={"enabled": enabled})})
    with caplog.at_level(logging.WARNING), RunRecord(settings, "run", "r") as record:
        assert run_report.report_of_run(settings, record) is None
    assert ("no room on the page" in caplog.text) is enabled


def test_damaged_products_cost_their_own_place(copy: SmallRun) -> None:
    for path in copy.work.fits.glob("*/residual.npy"):
        path.write_bytes(b"not an array")
    for path in copy.work.epsf.glob("*/*/meta.json"):
        path.write_text("{")
    copy.work.zp_per_object.unlink()
    copy.work.patches_json.write_text("[]")
    run_report.make_report(copy.settings, copy.record)
    data = data_of(copy.work.report)
    assert data["maps"] == {}
    assert data["cells"] == []
    assert data["zero_points"][0]["stars"] == []


def test_packed_arrays_come_back() -> None:
    arrays = {"a": np.array([1.5, -2.0]), "b": np.arange(5, dtype=np.uint16)}
    text = packed(arrays, {"id": ["</script>", "é"]})
    raw = gzip.decompress(base64.b64decode(text))
    length = int.from_bytes(raw[:4], "little")
    header = json.loads(raw[4 : 4 + length])
    assert header["text"]["id"] == ["</script>", "é"]
    kind, offset, size = header["arrays"]["b"]
    assert kind == "Uint16Array"
    body = raw[4 + length :]
    np.testing.assert_array_equal(np.frombuffer(body[offset : offset + size], "<u2"), np.arange(5))
    assert packed(arrays, {"id": ["</script>", "é"]}) == text
    assert "<" not in json_text({"x": "</script>"})


def test_spectral_points_detections_limits_and_nothing() -> None:
    run = large_run(4, ("m400",), (30, 30))
    run.catalog["FLUX_m400_fit"] = [100.0, 5.0, np.nan, -3.0]
    run.catalog["FLUXERR_m400_fit"] = [1.0, 2.0, 1.0, 2.0]
    mag, err = spectral_points(run, ["m400"])
    value = mag[:, 0] * MAG_STEP
    assert value[0] == pytest.approx(25 - 2.5 * np.log10(100), abs=MAG_STEP)
    assert 10 ** (err[0, 0] / 253 * 4 - 4) == pytest.approx(0.010857, rel=0.04)
    for i in (1, 3):  # below three sigma, and negative: the limit is three sigma
        assert err[i, 0] == LIMIT
        assert value[i] == pytest.approx(25 - 2.5 * np.log10(6), abs=MAG_STEP)
    assert mag[2, 0] == NOTHING
    counts = number_counts(run, ["m400"])
    assert sum(counts["all"]["m400"]) == 1, "limits are no detections"


def test_bands_lie_where_the_telescope_has_them_unknown_ones_in_order() -> None:
    m400 = passband("m400")
    assert m400 is not None
    assert (m400.pivot_nm, m400.low_nm, m400.high_nm) == (401.4, 388.4, 412.6)
    assert passband("white") is None
    odd = passband("V")
    assert odd is not None
    assert odd.low_nm is None
    names = [name for name, _ in passbands_in_order(["odd", "m700", "clear", "r", "m400"])]
    assert names == ["m400", "r", "m700", "odd", "clear"]


def test_every_band_of_the_filter_table_is_known(shared: Path) -> None:
    text = (shared / "data" / "7dt_filters" / "7dt_filters_summary.csv").read_text()
    rows = [line.split(",") for line in text.splitlines()[1:] if ",ezphot" in line]
    assert len(rows) == 46
    for row in rows:
        found = passband(row[0])
        assert found is not None
        assert found.pivot_nm == pytest.approx(float(row[-7]), abs=0.06), row[0]
        assert (found.low_nm, found.high_nm) == (float(row[-5]), float(row[-4]))


def test_warnings_of_this_run_each_once(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_text(
        "2026-01-01 00:00:00,000 | a | WARNING | old\n"
        "2026-01-02 00:00:01,000 | a | WARNING | /data/x.fits: odd\n"
        "2026-01-02 00:00:02,000 | a | INFO | fine\n"
        "2026-01-02 00:00:03,000 | a | WARNING | /data/x.fits: odd\n"
    )
    assert read_warnings(log, "2026-01-02T00:00:00+00:00") == ("/data/x.fits: odd (2 times)",)
    assert read_warnings(tmp_path / "none.log", "") == ()
