"""``patch_run.remove_payloads``: payloads go as patches are fitted, and come back when they are needed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from reuse_runs import Rerun, copied

from tract7dt import stages
from tract7dt.errors import ProductError
from tract7dt.fit_patch import fit_payload


def payloads(field: Rerun) -> list[str]:
    return sorted(path.name for path in field.work.payloads.glob("*.fits.gz"))


@pytest.fixture(scope="module")
def fitted(first: Rerun, tmp_path_factory: pytest.TempPathFactory) -> Rerun:
    """The field with its fits made again and the payloads gone. Nobody may run it again."""
    field = copied(first, tmp_path_factory.mktemp("removed") / "field")
    field.set("patch_run.remove_payloads", True)
    field.set("patch_run.n_opt_iters", 7)
    assert set(field.run()) == {"run_patches", "merge", "compute_zp"}
    assert payloads(field) == []
    return field


@pytest.fixture
def removed(fitted: Rerun, tmp_path: Path) -> Rerun:
    return copied(fitted, tmp_path / "removed")


def test_a_run_of_an_unchanged_field_needs_no_payloads(removed: Rerun) -> None:
    before = removed.catalogue()
    assert removed.run() == {}
    assert payloads(removed) == []
    removed.set("zp.clip_sigma", 2.5)
    assert set(removed.run()) == {"compute_zp"}
    removed.set("zp.clip_sigma", 3.0)
    removed.run()
    assert removed.catalogue() == before


def test_a_lost_fit_brings_the_payloads_back(removed: Rerun) -> None:
    before, tags = removed.catalogue(), stages.payload_refs(removed.settings)
    tag = stages.payload_tag(tags[1])
    removed.work.patch_meta(tag).unlink()
    done = removed.run()
    assert set(done) == {"build_patch_inputs", "run_patches"}
    assert f"{tag}.fits.gz is missing" in done["build_patch_inputs"]["why"]
    assert done["run_patches"]["reused"] == len(tags) - 1
    assert removed.catalogue() == before
    assert payloads(removed) == [], "those of the other patches go again, too"


def test_a_refresh_or_a_changed_fit_makes_them_anew(removed: Rerun) -> None:
    before = removed.catalogue()
    assert {"build_patch_inputs", "run_patches"} <= set(removed.run("run_patches"))
    assert removed.catalogue() == before
    removed.set("patch_run.n_opt_iters", 6)
    assert {"build_patch_inputs", "run_patches"} <= set(removed.run())
    assert payloads(removed) == []


def test_switched_off_the_payloads_are_there_again(removed: Rerun) -> None:
    removed.set("patch_run.remove_payloads", False)
    assert set(removed.run()) == {"build_patch_inputs"}
    assert len(payloads(removed)) == len(stages.payload_refs(removed.settings))


def test_the_step_command_says_what_to_do_and_forgets_nothing(removed: Rerun) -> None:
    with pytest.raises(ProductError, match="run `tract7dt build-patch-inputs` first"):
        removed.run(command="run-patches")
    assert removed.run() == {}


def test_a_worker_killed_after_the_removal_has_fitted_its_patch(
    removed: Rerun, caplog: pytest.LogCaptureFixture
) -> None:
    settings, ref = removed.settings, stages.payload_refs(removed.settings)[0]
    before = removed.work.patch_meta(stages.payload_tag(ref)).read_bytes()
    with caplog.at_level(logging.WARNING):
        _, ok = fit_payload(settings, removed.work, ref)
    assert ok
    assert removed.work.patch_meta(stages.payload_tag(ref)).read_bytes() == before
    assert caplog.text == ""
