from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tract7dt.errors import ProductError
from tract7dt.psf import read_band, write_band
from tract7dt.store import WorkDir


@pytest.fixture
def work(tmp_path: Path) -> WorkDir:
    parts = {name: tmp_path / name for name in ("epsf", "patches", "payloads", "fits", "overlay", "cropped")}
    return WorkDir(root=tmp_path, final_catalog=tmp_path / "c.csv", name="t", **parts)


def test_round_trip_and_contract_files(star_result, work):
    manifest = write_band(star_result, work)
    assert manifest == work.epsf_band("m500")
    folder = work.epsf_cell("m500", "r00_c00")
    stamp = np.load(folder / "epsf.npy", allow_pickle=False)
    assert stamp.dtype == np.float32
    assert float(stamp.sum(dtype=float)) == pytest.approx(1, abs=1e-6)
    grid = read_band(manifest)
    epsf, original = grid.cells["r00_c00"], star_result.grid.cells["r00_c00"]
    assert grid.band == "m500"
    assert (epsf.kind, epsf.n_stars) == (original.kind, original.n_stars)
    np.testing.assert_array_equal(epsf.stamp, original.stamp)
    assert epsf.quality["fwhm_pix"] == original.quality["fwhm_pix"]
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["nstars_used"] == original.n_stars
    assert {"x", "y", "origin", "snr", "used", "reason"} <= set(meta["candidates"][0])
    assert sum(c["used"] for c in meta["candidates"]) == original.n_stars
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("name", ["r00_c00/epsf.npy", "r00_c00/meta.json", "cells.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_damage_is_a_product_error(star_result, work, name, damage):
    manifest = write_band(star_result, work)
    victim = manifest.parent / name
    data = victim.read_bytes()
    if damage == "missing":
        victim.unlink()
    elif damage == "truncated":
        victim.write_bytes(data[: len(data) // 2])
    elif name == "cells.json":
        victim.write_text(json.dumps({"format": "another"}))
    else:
        victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ProductError, match=str(victim.name).replace(".", r"\.")):
        read_band(manifest)


def test_a_stamp_that_does_not_sum_to_one_is_refused(star_result, work):
    manifest = write_band(star_result, work)
    target = manifest.parent / "r00_c00/epsf.npy"
    np.save(target, np.ones((55, 55), np.float32), allow_pickle=False)
    record = json.loads(manifest.read_text())
    import hashlib

    record["cells"]["r00_c00"]["epsf_sha256"] = hashlib.sha256(target.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(record))
    with pytest.raises(ProductError, match="unit sum"):
        read_band(manifest)


def test_a_stale_stamp_goes_away(star_result, work):
    write_band(star_result, work)
    from dataclasses import replace

    from tract7dt.psf import BandEpsf
    from tract7dt.types import EpsfGrid

    gone = replace(star_result.meta["r00_c00"], status="absent", reason="no candidate", n_used=0)
    manifest = write_band(BandEpsf(EpsfGrid("m500", {}), {"r00_c00": gone}), work)
    assert read_band(manifest).cells == {}
    assert not (work.epsf_cell("m500", "r00_c00") / "epsf.npy").exists()
    assert json.loads(manifest.read_text())["cells"]["r00_c00"]["reason"] == "no candidate"
