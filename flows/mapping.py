"""What the subflows that map tasks share: where the work is done, and how many tasks are under way at once."""

from __future__ import annotations

import contextlib
import functools
import inspect
import queue
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prefect import Task
from prefect.futures import PrefectFuture

from flows import pool
from tasks.policy import forward_logs
from tract7dt.progress import request_stop

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["give_up_on_error", "in_pool", "mapped"]

K = TypeVar("K")


@contextlib.contextmanager
def give_up_on_error(folder: Path) -> Iterator[None]:
    """End the workers when the block ends with an error (or an interrupt).

    Without it what is under way would be finished before the error is heard of. Worker processes are
    killed; a thread, which nobody can kill, and a worker of a cluster end at their next step.
    """
    try:
        yield
    except BaseException:
        request_stop(folder)
        if workers := pool.current():
            workers.close()
        raise


def in_pool(task: Task[..., Any], work: Callable[..., Any]) -> Task[..., Any]:
    """The task, its work done by ``work(stage, *arguments)``, which hands it to a worker and waits.

    Name, retries, errors and results of the task stay as they are. Its time is for ``work`` to limit: Prefect
    would only leave the worker alone with what it is at.
    """
    stage = inspect.unwrap(task.fn)

    @functools.wraps(stage)
    def elsewhere(settings: Settings, *arguments: Any) -> Any:
        forward_logs()
        return work(stage, *arguments)

    twin = task.with_options()
    twin.fn = elsewhere
    return twin


def mapped(
    submit: Callable[[K], PrefectFuture[Any]], items: Iterable[K], at_once: int | None
) -> Iterator[tuple[K, PrefectFuture[Any]]]:
    """Submit a task an item, and yield each with its future when it has ended.

    Parameters
    ----------
    submit : callable
    items : iterable
    at_once : int or None
        Most tasks that are submitted and have not ended: what is not yet begun need not be called off when
        the run gives up, and the server is not flooded. None: no limit.
    """
    ended: queue.SimpleQueue[tuple[K, PrefectFuture[Any]]] = queue.SimpleQueue()
    running = 0
    waiting = iter(items)
    more = True
    while more or running:
        while more and (at_once is None or running < at_once):
            try:
                item = next(waiting)
            except StopIteration:
                more = False
                break
            future = submit(item)
            running += 1
            future.add_done_callback(functools.partial(_put, ended, item))
        if running:
            yield ended.get()
            running -= 1


def _put(ended: queue.SimpleQueue[tuple[K, PrefectFuture[Any]]], item: K, future: PrefectFuture[Any]) -> None:
    ended.put((item, future))
