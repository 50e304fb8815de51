"""Bookkeeping of the stages that needs no field: batches, products of earlier steps, workers."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tract7dt import pipeline, resources, stages
from tract7dt.errors import ProductError
from tract7dt.patches import SECONDS_PER_COST
from tract7dt.settings import Settings, settings_from_dict
from tract7dt.store import WorkDir, write_json
from tract7dt.types import Ref

INPUTS = {"input_catalog": "cat.csv", "image_list_file": "list.txt", "gaiaxp_synphot_csv": "gaia.csv"}


def configured(folder: Path, **sections: Any) -> Settings:
    values = {"inputs": INPUTS | sections.pop("inputs", {}), "outputs": {"work_dir": str(folder / "work")}}
    return settings_from_dict(values | sections, folder).settings


def payloads(settings: Settings, seconds: list[float]) -> list[Ref]:
    """An index of payloads of so many predicted seconds each."""
    work = WorkDir.of(settings)
    refs = [
        Ref(str(work.payloads / f"p{i:03d}.fits.gz"), f"{i:064d}", "payload") for i in range(len(seconds))
    ]
    index = {
        Path(ref.path).name.split(".")[0]: {"ref": dataclasses.asdict(ref), "cost": s / SECONDS_PER_COST}
        for ref, s in zip(refs, seconds)
    }
    write_json(work.payloads / "payloads.json", index)
    return refs


# --- batches -------------------------------------------------------------------------------------------


@given(
    seconds=st.lists(st.floats(0.01, 60.0), max_size=40),
    workers=st.integers(1, 8),
    per_task=st.one_of(st.just("auto"), st.integers(1, 9)),
)
def test_batches_hold_every_payload_once(
    tmp_path_factory: pytest.TempPathFactory, seconds: list[float], workers: int, per_task: int | str
) -> None:
    settings = configured(tmp_path_factory.getbasetemp() / "batches", runtime={"patches_per_task": per_task})
    refs = payloads(settings, seconds)
    batches = stages.patch_batches(settings, refs, workers)
    assert sorted(ref.path for batch in batches for ref in batch) == [ref.path for ref in refs]
    assert all(batches), "no batch is empty"
    if per_task != "auto":
        assert len(batches) == -(-len(refs) // per_task)
    assert stages.patch_batches(settings, refs[::-1], workers) == batches, "the order given does not count"


def test_batches_are_even_and_the_dearest_comes_first(tmp_path: Path) -> None:
    settings = configured(tmp_path)
    seconds = [40.0, 1.0, 1.0, 20.0, 20.0, 1.0, 1.0, 36.0]
    refs = payloads(settings, seconds)
    of = {ref.path: s for ref, s in zip(refs, seconds)}
    batches = stages.patch_batches(settings, refs, 3)
    assert len(batches) == len(refs), "120 s of work in tasks of 8 s would be 15, but there are 8 patches"
    few = stages.patch_batches(configured(tmp_path, runtime={"patches_per_task": 4}), refs, 3)
    spent = [sum(of[ref.path] for ref in batch) for batch in few]
    assert len(few) == 2
    assert max(spent) - min(spent) <= 2.0
    for batch in few:
        assert [of[ref.path] for ref in batch] == sorted((of[ref.path] for ref in batch), reverse=True)


def test_little_work_still_gives_every_worker_a_batch(tmp_path: Path) -> None:
    settings = configured(tmp_path)
    refs = payloads(settings, [0.1] * 10)
    assert [len(batch) for batch in stages.patch_batches(settings, refs, 2)] == [5, 5]
    assert len(stages.patch_batches(settings, refs[:1], 4)) == 1
    assert stages.patch_batches(settings, [], 4) == []


# --- products of earlier steps -------------------------------------------------------------------------


def test_payloads_come_from_the_index(tmp_path: Path) -> None:
    settings = configured(tmp_path)
    with pytest.raises(ProductError, match="run `tract7dt build-patch-inputs` first"):
        stages.payload_refs(settings)
    refs = payloads(settings, [1.0, 2.0])
    assert stages.payload_refs(settings) == refs


def write_meta(settings: Settings, tag: str, payload_sha256: str) -> None:
    write_json(WorkDir.of(settings).patch_meta(tag), {"patch_tag": tag, "payload_sha256": payload_sha256})


def test_fits_of_other_payloads_are_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = configured(tmp_path)
    refs = payloads(settings, [1.0] * 4)
    with pytest.raises(ProductError, match="run `tract7dt run-patches` first"):
        stages.fit_refs(settings)
    write_meta(settings, "p001", "f" * 64)
    write_meta(settings, "p099", refs[3].sha256)  # a patch that is no more
    with pytest.raises(ProductError, match="run `tract7dt run-patches` first"):
        stages.fit_refs(settings)
    write_meta(settings, "p000", refs[0].sha256)
    write_meta(settings, "p003", refs[3].sha256)
    WorkDir.of(settings).patch_meta("p002").parent.mkdir()
    WorkDir.of(settings).patch_meta("p002").write_text("{ half a fi")
    found = stages.fit_refs(settings)
    assert [json.loads(Path(ref.path).read_text())["patch_tag"] for ref in found] == ["p000", "p003"]
    assert "2 of 4 patches have no fit of their payload" in caplog.text
    assert "(p001, p002)" in caplog.text


def test_no_payload_is_no_error(tmp_path: Path) -> None:
    settings = configured(tmp_path)
    payloads(settings, [])
    assert stages.fit_refs(settings) == []


# --- what runs -----------------------------------------------------------------------------------------


def test_reason_to_skip_gaia(tmp_path: Path) -> None:
    assert pipeline.gaia_skip_reason(configured(tmp_path)) is None
    assert pipeline.gaia_skip_reason(configured(tmp_path, zp={"enabled": False})) == "zp.enabled is false"
    reason = pipeline.gaia_skip_reason(configured(tmp_path, inputs={"gaiaxp_synphot_csv": None}))
    assert reason is not None
    assert "inputs.gaiaxp_synphot_csv is not set" in reason


@pytest.mark.parametrize(
    ("wanted", "tasks", "count"), [("auto", None, 4), (2, None, 2), (32, None, 4), (3, 1, 1), (3, 0, 1)]
)
def test_workers(monkeypatch: pytest.MonkeyPatch, wanted: int | str, tasks: int | None, count: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    assert resources.worker_count(wanted, tasks) == count
