"""Images are read once: by the stage that loads them, which digests them on the way, not by the plan before it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from reuse_runs import Rerun

from tract7dt import frames, reuse, stages
from tract7dt.reuse import digests
from tract7dt.store import sha256_file


@pytest.fixture
def images_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that were read for nothing but their digest."""
    read: list[str] = []
    plain = digests._read

    def noted(file: str) -> str:
        if file.endswith(".fits") and "EPSFs" not in file:
            read.append(Path(file).name)
        return plain(file)

    monkeypatch.setattr(digests, "_read", noted)
    return read


def brighten(path: Path) -> None:
    with fits.open(path, mode="update") as hdus:
        hdus[0].data = hdus[0].data + np.float32(1)
    time.sleep(0.03)  # no longer just written


def load(field: Rerun, refresh: bool = False) -> reuse.Plan:
    """Plan and load; the plan."""
    planned = reuse.plan(stages.load_inputs, field.settings, refresh=refresh)
    reuse.through(stages.load_inputs, field.settings)
    return planned


@pytest.fixture
def fresh(copies: Callable[[str], Rerun]) -> Rerun:
    """A field that was never loaded, and whose images are not of just now."""
    field = copies("fresh")
    shutil.rmtree(field.work.root)
    time.sleep(0.03)
    return field


def test_no_image_is_read_twice(fresh: Rerun, images_read: list[str]) -> None:
    first = load(fresh)
    assert (first.hit, images_read) == (False, [])
    again = load(fresh)
    assert again.hit
    assert again.key == first.key, "an orchestration finds the result where it has put it"
    assert images_read == []
    known = digests.FileDigests(fresh.work.digests).known(fresh.images)
    assert known == [sha256_file(path) for path in fresh.images]
    assert images_read == []


def test_what_is_made_anyway_reads_none(fresh: Rerun, images_read: list[str]) -> None:
    load(fresh)
    fresh.work.digests.unlink()
    fresh.set("crop.margin", 8)
    assert load(fresh).why == "crop.margin changed: 6 -> 8"
    fresh.work.digests.unlink()
    assert load(fresh, refresh=True).why == "a refresh was asked for"
    assert images_read == []
    assert load(fresh).hit


def test_of_other_images_the_first_is_read(fresh: Rerun, images_read: list[str]) -> None:
    load(fresh)
    for path in fresh.images:
        brighten(path)
    listed = frames.read_image_list(fresh.settings.inputs.image_list_file, fresh.settings.base_dir)
    planned = load(fresh)
    assert planned.why == "image 1 is not the same"
    assert images_read == [Path(listed[0]).name]
    assert load(fresh).hit
    assert len(images_read) == 1


def test_the_changed_one_is_found_among_others(fresh: Rerun, images_read: list[str]) -> None:
    load(fresh)
    listed = frames.read_image_list(fresh.settings.inputs.image_list_file, fresh.settings.base_dir)
    brighten(Path(listed[-1]))
    fresh.work.digests.unlink()
    assert load(fresh).why == f"image {len(listed)} is not the same"
    assert sorted(images_read) == sorted(Path(path).name for path in listed)


def test_images_that_were_forgotten_are_read_once_more(fresh: Rerun, images_read: list[str]) -> None:
    first = load(fresh)
    fresh.work.digests.unlink()
    again = load(fresh)
    assert (again.hit, again.key) == (True, first.key)
    assert sorted(images_read) == sorted(path.name for path in fresh.images)


def test_an_image_that_changes_while_it_is_loaded_is_loaded_again(
    fresh: Rerun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its header may be of before and its pixels of after."""
    plain = frames.inspect_images

    def inspect_then_change(paths: list[str], *rest: object) -> object:
        found = plain(paths, *rest)
        brighten(Path(paths[0]))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(frames, "inspect_images", inspect_then_change)
        load(fresh)
    again = load(fresh)
    assert (again.hit, again.why) == (False, "image 1 is not the same")
    assert load(fresh).hit


def test_an_image_of_just_now_is_read_before(fresh: Rerun, images_read: list[str]) -> None:
    """One more write within a tick of the file system's clock would not show in its stamp."""
    path = fresh.images[0]
    path.write_bytes(path.read_bytes())
    reuse.plan(stages.load_inputs, fresh.settings)
    assert images_read in ([path.name], [])  # a slow machine may be past the tick
