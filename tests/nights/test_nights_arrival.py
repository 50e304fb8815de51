"""Images of a night that are not there, still being written, whole, or the same as before."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from tract7dt.arrival import look, same_as_last_run
from tract7dt.frames.whole import what_is_missing
from tract7dt.run_record import RunRecord
from tract7dt.settings import Settings, fill_placeholders, settings_from_dict
from tract7dt.store import WorkDir

NIGHT = "2026-11-20"
HOUR = 3600.0


def image(path: Path, age: float = HOUR, kind: str = "plain") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made: Any = fits.CompImageHDU if kind == "tiled" else fits.PrimaryHDU
    if kind == "zipped":
        plain = path.with_suffix(".plain")
        fits.PrimaryHDU(np.arange(12000, dtype="f4").reshape(100, 120)).writeto(plain)
        path.write_bytes(gzip.compress(plain.read_bytes()))
    else:
        made(np.arange(12000, dtype="f4").reshape(100, 120)).writeto(path)
    return aged(path, age)


def aged(path: Path, age: float) -> Path:
    os.utime(path, (time.time() - age,) * 2)
    return path


def cut(path: Path, share: float, age: float = HOUR) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return aged(path, age)


@pytest.fixture
def nightly(tmp_path: Path) -> Settings:
    values = {
        "inputs": {
            "tile_name": "UDS",
            "input_catalog": "c.csv",
            "image_list_file": "{night}/list.txt",
        },
        "outputs": {"work_dir": "runs/{tile_name}/{night}"},
    }
    return fill_placeholders(settings_from_dict(values, tmp_path).settings, NIGHT)


def list_of(settings: Settings, *lines: str) -> None:
    path = Path(settings.inputs.image_list_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", ["plain", "zipped", "tiled"])
def test_a_file_that_is_cut_off_is_not_whole(tmp_path: Path, kind: str) -> None:
    path = image(tmp_path / "a.fits", kind=kind)
    assert what_is_missing(path) is None
    for share in (0.95, 0.5, 0.1, 0.0):
        assert what_is_missing(cut(path, share)), share


def test_zeros_behind_the_last_extension_are_no_damage(tmp_path: Path) -> None:
    path = image(tmp_path / "a.fits")
    path.write_bytes(path.read_bytes() + bytes(2880))
    assert what_is_missing(path) is None
    (tmp_path / "b.fits").write_bytes(bytes(28800))  # a copy has reserved its space
    assert "does not begin" in str(what_is_missing(tmp_path / "b.fits"))


def test_no_list_no_images(nightly: Settings, tmp_path: Path) -> None:
    assert look(nightly, of_night=True).state == "none"
    list_of(nightly, "")
    assert look(nightly, of_night=True).state == "none"
    list_of(nightly, f"{NIGHT}/a.fits", f"{NIGHT}/b.fits")
    found = look(nightly, of_night=True)
    assert found.state == "none"
    assert "none of the 2 images" in found.why[0]
    # Where the list is the same every night, a missing image is an error of the list: no run waits for it.
    assert look(nightly, of_night=False).state == "there"


def test_images_that_are_still_being_written(nightly: Settings, tmp_path: Path) -> None:
    folder = tmp_path / NIGHT
    list_of(nightly, f"{NIGHT}/a.fits", f"{NIGHT}/b.fits")
    image(folder / "a.fits")
    missing = look(nightly, of_night=True)
    assert missing.state == "arriving"
    assert missing.why == (f"{folder}/b.fits: not there yet",)

    image(folder / "b.fits", age=5)
    fresh = look(nightly, of_night=True)
    assert (fresh.state, len(fresh.why)) == ("arriving", 1)
    assert "written to 5 s ago" in fresh.why[0] or "written to 6 s ago" in fresh.why[0]

    whole = folder.joinpath("b.fits").read_bytes()
    cut(folder / "b.fits", 0.5, age=90)  # long enough ago, but cut off
    half = look(nightly, of_night=True)
    assert half.state == "arriving"
    assert "expected" in half.why[0]

    (folder / "b.fits").write_bytes(whole)
    aged(folder / "b.fits", 90)
    grown = look(nightly, of_night=True, before=half.sizes)
    assert grown.state == "arriving"
    assert "it has changed" in grown.why[0]
    assert look(nightly, of_night=True, before=grown.sizes).state == "there"


def test_nobody_waits_for_an_old_file_that_is_cut_off(nightly: Settings, tmp_path: Path) -> None:
    list_of(nightly, f"{NIGHT}/a.fits")
    cut(image(tmp_path / NIGHT / "a.fits"), 0.5, age=4 * HOUR)
    assert look(nightly, of_night=True).state == "there"  # the run refuses it with its name


def _run(settings: Settings, run_id: str = "run-1", **parameters: Any) -> None:
    work = WorkDir.of(settings)
    with RunRecord(settings, "run", run_id, parameters) as record:
        with record.stage("load_inputs"):
            frames = []
            for path in sorted(Path(settings.inputs.image_list_file).parent.glob("*.fits")):
                frames.append({"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
            work.field_manifest.parent.mkdir(parents=True, exist_ok=True)
            work.field_manifest.write_text(json.dumps({"frames": frames}))
        work.final_catalog.write_text("ID\n")


def test_the_same_images_once_more(nightly: Settings, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("RA,DEC\n")
    list_of(nightly, f"{NIGHT}/a.fits")
    path = image(tmp_path / NIGHT / "a.fits")
    assert same_as_last_run(nightly) is None  # there is no last run
    _run(nightly)
    assert "no new images since run run-1" in str(same_as_last_run(nightly))
    aged(path, 10)  # touched, the same bytes
    assert same_as_last_run(nightly) is not None

    other = nightly.model_copy(update={"zp": nightly.zp.model_copy(update={"clip_sigma": 2.5})})
    assert same_as_last_run(other.with_base_dir(nightly.base_dir)) is None
    _run(nightly, only=["r00_c00"])
    assert same_as_last_run(nightly) is None
    _run(nightly)
    path.write_bytes(path.read_bytes() + bytes(2880))
    assert same_as_last_run(nightly) is None  # another image
    _run(nightly)
    assert same_as_last_run(nightly) is not None
    (tmp_path / "c.csv").write_text("RA,DEC\n1,2\n")
    assert same_as_last_run(nightly) is None


def test_a_run_that_could_not_publish_is_not_done(nightly: Settings, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("RA,DEC\n")
    list_of(nightly, f"{NIGHT}/a.fits")
    image(tmp_path / NIGHT / "a.fits")
    publish = nightly.publish.model_copy(update={"url": f"file://{tmp_path}/public"})
    settings = nightly.model_copy(update={"publish": publish})
    _run(settings)
    note = {"run_id": "run-1", "status": "failed"}
    WorkDir.of(settings).publication.write_text(json.dumps(note))
    assert same_as_last_run(settings) is None
    WorkDir.of(settings).publication.write_text(json.dumps(note | {"status": "published"}))
    assert same_as_last_run(settings) is not None
