"""Prefect's cache on top of the records: what the UI shows, and what comes back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")

from prefect import flow
from prefect.states import State
from prefect.testing.utilities import prefect_test_harness

from tasks import stages as tasks
from tasks.policy import under
from tasks.results import RefSerializer
from tract7dt import reuse, stages
from tract7dt.errors import InputError, StageError
from tract7dt.sample import SampleOptions, make_sample
from tract7dt.settings import Settings, settings_from_dict
from tract7dt.stages import LoadedField
from tract7dt.store import WorkDir
from tract7dt.types import Ref


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("tasks")
    sample = make_sample(
        folder / "sample", SampleOptions(width=220, height=220, bands=1, seed=2, stars=12, galaxies=3)
    )
    values = {
        "inputs": {"input_catalog": str(sample.catalog), "image_list_file": str(sample.image_list)},
        "outputs": {"work_dir": str(folder / "work")},
        "crop": {"margin": 4, "plot_pre_crop": False, "plot_post_crop": False},
        "overlay": {"enabled": False},
        "epsf": {"epsf_ngrid": 1, "ngrid": 2},
        "runtime": {"retries": 0},
    }
    return settings_from_dict(values, folder).settings


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages that did their work."""
    made: list[str] = []
    for name in ("load_inputs", "build_patches"):
        inner = getattr(stages, name)

        def counted(*args: Any, _inner: Callable[..., Any] = inner) -> Any:
            made.append(_inner.__name__)
            return _inner(*args)

        counted.__name__ = name
        counted.__wrapped__ = inner  # type: ignore[attr-defined]
        monkeypatch.setattr(stages, name, counted)
        monkeypatch.setattr(tasks, name, tasks.task(counted))
    return made


@flow(name="reuse", validate_parameters=False)
def _flow(settings: Settings, refresh: tuple[str, ...]) -> list[State[Any]]:
    states: list[State[Any]] = []

    def do(name: str, *refs: Ref) -> Any:
        stage = getattr(stages, name)
        plan = reuse.plan(stage, settings, *refs, refresh=name in refresh)
        state = under(settings, getattr(tasks, name), plan, name in refresh)(
            settings, *refs, return_state=True
        )
        states.append(state)
        return state.result()

    loaded = do("load_inputs")
    assert type(loaded) is LoadedField
    assert type(loaded.field) is Ref
    patches = do("build_patches", *loaded)
    assert type(patches) is Ref
    _flow.states = [state.name for state in states]  # type: ignore[attr-defined]
    return [loaded, patches]  # type: ignore[list-item]


def run(settings: Settings, *refresh: str) -> tuple[list[str], Any]:
    values = _flow(settings, refresh)
    return _flow.states, values  # type: ignore[attr-defined]


def test_states_of_one_field(server: None, settings: Settings, runs: list[str]) -> None:
    """From nothing; again; with results lost; half written; moved by a refresh."""
    states, first = run(settings)
    assert states == ["Completed", "Completed"]
    assert runs == ["load_inputs", "build_patches"]
    states, again = run(settings)
    assert states == ["Cached", "Cached"]
    assert again == first
    assert len(runs) == 2

    kept = sorted(WorkDir.of(settings).task_results.iterdir())
    assert len(kept) == 2
    for path in kept:
        text = path.read_text()
        assert "tract7dt-refs" in text
        assert "pickle" not in text
        json.loads(text)
        path.unlink()
    states, again = run(settings)
    assert states == ["Completed", "Completed"], "Prefect has lost them, the records have not"
    assert again == first
    assert len(runs) == 2

    for path in kept:
        path.write_text(path.read_text()[:40])
    states, again = run(settings)
    assert states == ["Completed", "Completed"]
    assert again == first
    assert len(runs) == 2

    states, again = run(settings, "load_inputs")
    assert states == ["Completed", "Cached"], "the same came out"
    assert runs[2:] == ["load_inputs"]
    states, _ = run(settings)
    assert states == ["Cached", "Cached"]


@pytest.mark.slow
def test_cache_of_another_server(server: None, settings: Settings, runs: list[str]) -> None:
    """The results lie in the work_dir: a restart, a new home and another deployment find them."""
    run(settings)
    done = len(runs)
    with prefect_test_harness(server_startup_timeout=120):
        states, _ = run(settings)
    assert states == ["Cached", "Cached"]
    assert len(runs) == done


def test_product_made_by_hand_drops_what_prefect_kept(
    server: None, settings: Settings, runs: list[str]
) -> None:
    run(settings)
    WorkDir.of(settings).patches_json.unlink()
    field, sources = reuse.through(stages.load_inputs, settings)
    reuse.through(stages.build_patches, settings, field, sources)
    assert len(list(WorkDir.of(settings).task_results.iterdir())) == 1
    assert run(settings)[0] == ["Cached", "Completed"]


def test_without_a_plan_nothing_is_kept(settings: Settings) -> None:
    task = under(settings, tasks.merge)
    assert task.persist_result is False
    assert task.result_storage is None


def test_serializer_makes_nothing_but_references(tmp_path: Path) -> None:
    serializer = RefSerializer()
    value = LoadedField(Ref("/a/b", "0" * 64, "field"), Ref("s3://c/d", "1" * 64, "sources"))
    assert serializer.loads(serializer.dumps(value)) == value
    error = serializer.loads(serializer.dumps(InputError("no such file")))
    assert isinstance(error, StageError)
    assert str(error) == "InputError: no such file"
    with pytest.raises(TypeError):
        serializer.dumps(tmp_path)
