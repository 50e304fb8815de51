"""A stage whose result changes has its number raised: else fields would go on with the old products."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import regenerate
from golden_field import differences, golden, stored, summaries

from tract7dt.reuse import STAGE_VERSIONS

REGENERATE = "run `make golden`"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return summaries(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("stage", STAGE_VERSIONS)
def test_golden_output_is_of_this_version(stage: str) -> None:
    kept = stored(stage)
    assert kept, f"there is no golden output of {stage}: {REGENERATE}"
    now = golden(stage, {})
    assert kept["version"] == now["version"], (
        f"the number of {stage} is {now['version']}, its golden output is of {kept['version']}: {REGENERATE}"
    )
    assert kept["upstream"] == now["upstream"], f"a stage before {stage} has another number: {REGENERATE}"


@pytest.mark.parametrize("stage", STAGE_VERSIONS)
def test_result_has_not_changed_without_its_number(found: dict[str, dict[str, Any]], stage: str) -> None:
    kept, now = stored(stage), golden(stage, {})
    if (kept["version"], kept["upstream"]) != (now["version"], now["upstream"]):
        pytest.skip(f"another version: {REGENERATE}")
    changed = differences(kept["summary"], found[stage])
    assert not changed, (
        f"the result of {stage} changed and its number did not: raise it in tract7dt/reuse/versions.py "
        f"(if it is {stage} that changed, not a stage before it) and {REGENERATE}.\n"
        + "\n".join(changed[:10])
    )


def test_differences_are_seen() -> None:
    kept = stored("merge")["summary"]
    assert differences(kept, copy.deepcopy(kept)) == []
    name = next(n for n, v in kept["merged"].items() if n.startswith("FLUX_") and n.endswith("_fit"))
    for factor, seen in ((1 + 1e-7, False), (1.05, True)):
        other = copy.deepcopy(kept)
        quantiles = other["merged"][name]["quantiles"]
        other["merged"][name]["quantiles"] = [q * factor for q in quantiles]
        assert bool(differences(kept, other)) is seen
    other = copy.deepcopy(kept)
    other["merged"]["columns"].append("more")
    other["merged"][name]["n"] -= 1
    assert len(differences(kept, other)) == 2


def test_regenerating_refuses_a_change_without_a_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = copy.deepcopy(stored("bright_mask"))
    changed["summary"]["bright"] += 1
    monkeypatch.setattr("golden_field.summaries", lambda folder: {"bright_mask": changed["summary"]})
    assert regenerate.main() == 1
    assert "bright_mask: its result changed (/bright: " in capsys.readouterr().out
    assert stored("bright_mask") != changed
