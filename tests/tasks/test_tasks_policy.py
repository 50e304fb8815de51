"""How stages become tasks: what is tried again, what errors survive."""

from __future__ import annotations

import inspect
import logging
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")

from tasks import policy, transient
from tasks import stages as tasks
from tract7dt import stages
from tract7dt.errors import InputError, StageError


class NeedsTwoError(Exception):
    """An exception that cannot be unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


@pytest.fixture
def settings(tmp_path: Path) -> Any:
    return SimpleNamespace(
        outputs=SimpleNamespace(work_dir=tmp_path),
        runtime=SimpleNamespace(retries=4, retry_delay_seconds=7.5, task_timeout_seconds=600.0),
    )


def test_prefect_takes_the_condition_for_a_function() -> None:
    """Its engine calls the condition only if ``inspect.isfunction`` holds, and else takes it as a no."""
    assert inspect.isfunction(tasks.load_inputs.retry_condition_fn)


def test_retries_come_from_the_configuration(settings: Any) -> None:
    task = policy.under(settings, tasks.merge)
    assert task.retries == 4
    assert task.retry_delay_seconds == [7.5, 15.0, 30.0, 60.0]
    assert task.timeout_seconds == 600.0
    assert task.retry_condition_fn is transient.is_transient
    assert tasks.merge.retries == 0
    assert policy.under(settings, tasks.fit_patch_batch).timeout_seconds is None, "each patch has its own"


@pytest.mark.parametrize("name", [n for n in tasks.__all__ if hasattr(stages, n)])
def test_every_task_wraps_the_stage_of_its_name(name: str) -> None:
    task = getattr(tasks, name)
    assert task.name == name
    assert inspect.signature(task.fn) == inspect.signature(getattr(stages, name))
    assert not task.tags  # a tag costs every task a request for a slot


def _raise(error: BaseException) -> Any:
    def stage(settings: Any) -> None:
        raise error

    return policy.task(stage).fn


def test_exit_becomes_an_error(settings: Any) -> None:
    with pytest.raises(StageError, match=r"stage called sys\.exit\(3\)"):
        _raise(SystemExit(3))(settings)


def test_exception_that_would_not_arrive_is_put_into_words(settings: Any) -> None:
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(NeedsTwoError("this", "that")))
    with pytest.raises(StageError, match="NeedsTwoError: this and that"):
        _raise(NeedsTwoError("this", "that"))(settings)

    class LocalError(Exception):
        """Nobody can import it."""

    with pytest.raises(StageError, match="LocalError: here"):
        _raise(LocalError("here"))(settings)
    with pytest.raises(StageError, match="ValueError"):
        _raise(ValueError(object()))(settings)


@pytest.mark.parametrize(
    "error", [InputError("a"), OSError(5, "b", "file"), KeyError("c"), ZeroDivisionError(), MemoryError()]
)
def test_errors_that_arrive_are_left_alone(settings: Any, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        _raise(error)(settings)
    assert caught.value is error
    twin = pickle.loads(pickle.dumps(error))
    assert str(twin) == str(error)


def test_interrupt_passes(settings: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        _raise(KeyboardInterrupt())(settings)


def test_logs_are_forwarded_once(settings: Any) -> None:
    for _ in range(3):
        policy.forward_logs()
    handlers = [h for h in logging.getLogger("tract7dt").handlers if isinstance(h, policy._RunLogHandler)]
    assert len(handlers) == 1
    logging.getLogger("tract7dt.x").info("outside of any run: goes nowhere, and says nothing of it")
