"""Fits by URL: what goes to the store and comes back, without a cluster."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tract7dt import stages, staging
from tract7dt.errors import StoreError
from tract7dt.progress import progress_folder
from tract7dt.settings import Settings, settings_from_dict
from tract7dt.store import WorkDir, ref_to, sha256_bytes, sha256_file, write_json, write_text
from tract7dt.types import Ref

TAGS = ("r00_c00_pr00_pc00", "r00_c00_pr00_pc01")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    given = {
        "inputs": {"tile_name": "T1", "input_catalog": "c.csv", "image_list_file": "l.txt"},
        "outputs": {"work_dir": str(tmp_path / "work")},
        "runtime": {"task_runner": "dask", "staging_url": f"file://{tmp_path / 'area'}"},
    }
    return settings_from_dict(given, tmp_path).settings


@pytest.fixture
def payloads(settings: Settings) -> list[Ref]:
    work = WorkDir.of(settings)
    for tag in TAGS:
        write_text(work.payload(tag, compressed=False), f"payload of {tag}")
    return [ref_to(work.payload(tag, compressed=False), "payload") for tag in TAGS]


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A fit that copies its payload; the work_dirs that it was called in."""
    folders: list[Path] = []

    def fit(here: Any, refs: Sequence[Ref], on_patch: Any = None) -> list[Ref]:
        work = WorkDir.of(here)
        folders.append(work.root)
        for ref in refs:
            tag = stages.payload_tag(ref)
            write_text(work.patch_catalog(tag), Path(ref.path).read_text())
            write_text(work.cutouts(tag) / "src_1.png", "a picture")
            write_json(work.patch_meta(tag), {"payload_sha256": ref.sha256})
        return [ref_to(work.patch_meta(stages.payload_tag(ref)), "patch_fit") for ref in refs]

    monkeypatch.setattr(stages, "fit_patch_batch", fit)
    return folders


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_batch_there_and_back(
    settings: Settings, payloads: list[Ref], seen: list[Path], tmp_path: Path
) -> None:
    work, before = WorkDir.of(settings), files(tmp_path / "work")
    sent = staging.stage_payloads(settings, payloads)
    assert [(ref.sha256, "://" in ref.path) for ref in sent] == [(ref.sha256, True) for ref in payloads]
    archive = staging.fit_staged_batch(settings, sent)
    assert files(tmp_path / "work") == before, "the worker writes nothing where the run works"
    assert work.root not in seen
    assert not seen[0].exists(), "and leaves nothing where it worked"
    fits = staging.bring_fits(settings, archive, payloads)
    assert fits == [ref_to(work.patch_meta(tag), "patch_fit") for tag in TAGS]
    for tag in TAGS:
        assert work.patch_catalog(tag).read_text() == f"payload of {tag}"
        assert (work.cutouts(tag) / "src_1.png").read_text() == "a picture"
    assert files(tmp_path / "area") == []
    assert all(Path(ref.path).exists() for ref in payloads)


def test_usage_of_workers_is_told_while_the_run_shows_its_progress(
    settings: Settings, payloads: list[Ref], tmp_path: Path
) -> None:
    folder = progress_folder(tmp_path / "work")
    folder.mkdir()
    archive = staging.fit_staged_batch(settings, staging.stage_payloads(settings, payloads))
    staging.bring_fits(settings, archive, payloads)
    assert len(list(folder.glob("*.usage.json"))) == 1


def test_payloads_of_fitted_patches_go_if_they_are_to(settings: Settings, payloads: list[Ref]) -> None:
    run = settings.patch_run.model_copy(update={"remove_payloads": True})
    settings = settings.model_copy(update={"patch_run": run})
    archive = staging.fit_staged_batch(settings, staging.stage_payloads(settings, payloads))
    assert all(Path(ref.path).exists() for ref in payloads), "until their fits are here"
    staging.bring_fits(settings, archive, payloads)
    assert not any(Path(ref.path).exists() for ref in payloads)


def test_another_payload_is_not_fitted(settings: Settings, payloads: list[Ref], seen: list[Path]) -> None:
    sent = staging.stage_payloads(settings, payloads)
    Path(sent[1].path.removeprefix("file://")).write_text("something else")
    with pytest.raises(StoreError, match=f"expected sha256 {payloads[1].sha256}, found"):
        staging.fit_staged_batch(settings, sent)
    assert seen == []


@pytest.mark.parametrize(
    "name",
    [
        "fits/../../evil",
        "/etc/evil",
        "fits/r09_c09_pr00_pc00/meta.json",
        "fits/meta.json",
        "usage/../x.usage.json",
        "other/x",
    ],
)
def test_an_archive_holds_nothing_else(
    settings: Settings, payloads: list[Ref], tmp_path: Path, name: str
) -> None:
    before = files(tmp_path / "work")
    archive = tmp_path / "area" / "evil.tar"
    archive.parent.mkdir()
    with tarfile.open(archive, "w") as packed:
        packed.addfile(member := tarfile.TarInfo(name), io.BytesIO(b""))
        assert member.name == name
    ref = Ref(f"file://{archive}", sha256_file(archive), "fits")
    with pytest.raises(StoreError, match="not a file of the patches that were asked for"):
        staging.bring_fits(settings, ref, payloads)
    with pytest.raises(StoreError, match="expected sha256"):
        staging.bring_fits(settings, Ref(ref.path, sha256_bytes(b""), "fits"), payloads)
    assert files(tmp_path / "work") == before


def test_what_a_run_that_gave_up_has_staged_goes(
    settings: Settings, payloads: list[Ref], tmp_path: Path
) -> None:
    staging.fit_staged_batch(settings, staging.stage_payloads(settings, payloads))
    assert len(files(tmp_path / "area")) == 3
    staging.clear(settings)
    assert files(tmp_path / "area") == []
