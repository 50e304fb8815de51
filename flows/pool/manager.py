"""The workers of a run: who works, who is free, and what becomes of the work of one that died."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import inspect
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from flows.pool.process import Overdue, WorkerProcess
from flows.pool.wire import decode, error_of
from tract7dt.errors import StageError, WorkerLostError
from tract7dt.progress import ProgressWriter
from tract7dt.store import WorkDir, ref_to, remove_temporaries
from tract7dt.types import Ref

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["WorkerPool", "current", "pool_for"]

log = logging.getLogger(__name__)

T = TypeVar("T")

#: How often work may take its worker with it before it is given up.
_DEATHS = 2
#: Pause before work that took its worker with it is tried again, s; drawn out at random by up to as much again.
_PAUSE_S = 0.5

_CURRENT: contextvars.ContextVar[WorkerPool | None] = contextvars.ContextVar("pool", default=None)


def current() -> WorkerPool | None:
    """The pool of the run; None where mapped tasks run in this process or on a cluster."""
    return _CURRENT.get()


@contextlib.contextmanager
def pool_for(settings: Settings) -> Iterator[WorkerPool | None]:
    """The pool of a run, known to :func:`current` while the block runs; None for other task runners.

    Workers are started when they are first needed, and none is left after the block.
    """
    if settings.runtime.task_runner != "process":
        yield None
        return
    with WorkerPool(settings) as pool:
        token = _CURRENT.set(pool)
        try:
            yield pool
        finally:
            _CURRENT.reset(token)


@dataclass(frozen=True, slots=True)
class _Stop:
    """Why a batch came to its end before its last patch."""

    patch: Ref | None
    how: str
    overdue: bool


class WorkerPool:
    """Worker processes that threads hand work to; each call waits for a free worker or starts one.

    Threads are to be no more than workers are wanted: the task runner sees to it.

    Parameters
    ----------
    settings : Settings
        Of the run; workers are given them once.
    kernels : bool
        Workers load the compiled kernels of the fit before they begin.
    """

    def __init__(self, settings: Settings, kernels: bool = True) -> None:
        self._settings, self._kernels = settings, kernels
        self._free: list[WorkerProcess] = []
        self._all: set[WorkerProcess] = set()
        self._lock = threading.Lock()
        self._closed = False
        # A worker ends with the thread that started it, if all else fails: one that lives as long as the pool.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="start-workers")

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        with self._lock:
            return [worker.pid for worker in self._all if worker.alive]

    # --- workers ---------------------------------------------------------------------------------------

    def start(self, count: int) -> None:
        """Start workers up to ``count`` without waiting for them, so that they are warm when they are needed."""
        with self._lock:
            lacking = count - len(self._all)
        for worker in [self._new_worker() for _ in range(lacking)]:
            self._put_back(worker)

    def _new_worker(self) -> WorkerProcess:
        runtime, run_log = self._settings.runtime, self._settings.logging
        hello = {
            "settings": self._settings.model_dump(mode="json"),
            "base_dir": str(self._settings.base_dir),
            "memory_mb": runtime.worker_memory_mb,
            "level": logging.getLogger("tract7dt").getEffectiveLevel(),
            "ignore_warnings": run_log.ignore_warnings,
            "kernels": self._kernels,
        }
        threads = self._settings.patch_run.threads_per_process
        self._check_open()
        try:
            worker = self._starter.submit(WorkerProcess, hello, threads).result()
        except RuntimeError:  # the pool was closed meanwhile
            self._check_open()
            raise
        with self._lock:
            self._all.add(worker)
            closed = self._closed
        if closed:
            worker.kill()
            self._check_open()
        return worker

    def _check_open(self) -> None:
        if self._closed:
            raise StageError("not finished, since the run has given up")

    @contextlib.contextmanager
    def _worker(self) -> Iterator[WorkerProcess]:
        """A worker that is ready for work; one that is not whole after the block is done away with."""
        with self._lock:
            worker = self._free.pop() if self._free else None
        if worker is not None and not worker.alive:
            self._discard(worker)
            worker = None
        worker = worker or self._new_worker()
        try:
            self._wait_until_ready(worker)
            yield worker
        except (WorkerLostError, Overdue):
            self._discard(worker)
            self._check_open()
            raise
        except BaseException:
            self._discard(worker)
            raise
        self._put_back(worker)

    def _wait_until_ready(self, worker: WorkerProcess) -> None:
        try:
            worker.wait_until_ready()
        except WorkerLostError as error:
            self._check_open()
            # Not "from error": a lost worker may pass by itself, this does not.
            raise StageError(f"a worker cannot start: {error}{self._memory_hint()}") from None
        except StageError as error:
            raise StageError(f"{error}{self._memory_hint()}") from error

    def _memory_hint(self) -> str:
        limit = self._settings.runtime.worker_memory_mb
        if limit is None:
            return ""
        return f"; runtime.worker_memory_mb is {limit}: a worker needs several hundred MiB to begin with"

    def _put_back(self, worker: WorkerProcess) -> None:
        with self._lock:
            self._free.append(worker)

    def _discard(self, worker: WorkerProcess) -> None:
        """End a worker and clear away what it had half written."""
        worker.close()
        remove_temporaries(self._settings.outputs.work_dir, worker.pid)
        with self._lock:
            self._all.discard(worker)

    def close(self) -> None:
        """End all workers at once. Threads that wait for one get an error."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            workers, idle = list(self._all), list(self._free)
            self._free.clear()
        for worker in workers:
            worker.kill()
            remove_temporaries(self._settings.outputs.work_dir, worker.pid)
        for worker in idle:
            worker.close()
        self._starter.shutdown(wait=False, cancel_futures=True)

    # --- one call --------------------------------------------------------------------------------------

    def call(self, stage: Callable[..., T], *arguments: Any, timeout_s: float | None = None) -> T:
        """Result of ``stage(settings, *arguments)`` by way of the record of what is there, in a worker.

        Parameters
        ----------
        stage : callable
            Function of a module that a worker can import.
        *arguments : object
            References and plain values.
        timeout_s : float, optional
            The worker is killed after it, s.

        Raises
        ------
        StageError
            The work took its worker with it twice, was not done in time, or the run has given up.
        Exception
            What the stage raised.
        """
        request = {"do": "call", "stage": _name(stage), "arguments": arguments}
        for death in range(1, _DEATHS + 1):
            deadline = None if timeout_s is None else time.monotonic() + timeout_s
            try:
                value: T = self._ask(request, deadline)
            except WorkerLostError as error:
                if death == _DEATHS:
                    raise StageError(f"its worker was killed {_times(death)}: {error}") from None
                log.warning("%s: its worker was killed (%s); once more, in another", stage.__name__, error)
                self._pause()
            except Overdue as error:
                raise StageError(f"not done in {timeout_s:g} s (runtime.task_timeout_seconds)") from error
            else:
                return value
        raise AssertionError  # pragma: no cover - the last death raises

    def _ask(self, request: dict[str, Any], deadline: float | None) -> Any:
        with self._worker() as worker:
            worker.send(request)
            answer = worker.receive(deadline)
        return _value(answer)

    def _pause(self) -> None:
        self._check_open()
        time.sleep(_PAUSE_S * (1 + random.random()))

    # --- patches ---------------------------------------------------------------------------------------

    def fit(self, payloads: Sequence[Ref], stage: Callable[..., list[Ref]]) -> list[Ref]:
        """Fits of a batch of patches, in its order, by ``stage(settings, payloads, on_patch)`` in a worker.

        A patch whose worker dies is put aside, the rest of the batch goes on in another worker, and the
        patch is tried once more, alone. It is recorded as failed if that one dies too, or if a fit takes
        longer than ``runtime.patch_timeout_seconds``.

        Raises
        ------
        StageError
            Workers die without having a patch at hand, or the run has given up.
        Exception
            What the stage raised.
        """
        found: dict[Ref, Ref] = {}
        deaths: collections.Counter[Ref | None] = collections.Counter()
        waiting, aside = list(payloads), list[Ref]()
        while batch := waiting or aside[:1]:
            stop = self._fit_some(batch, stage, found)
            waiting = [ref for ref in waiting if ref not in found]
            aside = [ref for ref in aside if ref not in found]
            if stop is None:
                continue
            deaths[stop.patch] += 1
            given_up = stop.overdue or deaths[stop.patch] >= _DEATHS
            if stop.patch is None:
                if deaths[None] > _DEATHS:
                    raise StageError(f"workers die between patches: {stop.how}")
            elif given_up:
                found[stop.patch] = self._record(stop, deaths[stop.patch])
                aside = [ref for ref in aside if ref != stop.patch]
            else:
                aside.append(stop.patch)
                log.warning(
                    "patch %s: its worker was killed (%s); once more, alone", _tag(stop.patch), stop.how
                )
                self._pause()
            waiting = [ref for ref in waiting if ref != stop.patch]
            self._report(batch, found, stop.patch if given_up else None)
        return [found[ref] for ref in payloads]

    def _fit_some(
        self, batch: Sequence[Ref], stage: Callable[..., list[Ref]], found: dict[Ref, Ref]
    ) -> _Stop | None:
        """Fit a batch as far as it goes; fits are added to ``found``."""
        limit = self._settings.runtime.patch_timeout_seconds
        by_tag = {_tag(ref): ref for ref in batch}
        begun: list[Ref] = []
        try:
            with self._worker() as worker:
                worker.send({"do": "fit", "stage": _name(stage), "arguments": [batch]})
                while True:
                    answer = worker.receive(None if limit is None else time.monotonic() + limit)
                    if "patch" not in answer:
                        break
                    begun.append(by_tag[answer["patch"]])
        except (WorkerLostError, Overdue) as error:
            found |= {ref: self._fit_of(ref) for ref in begun[:-1]}
            return _Stop(begun[-1] if begun else None, str(error), isinstance(error, Overdue))
        found |= zip(batch, _value(answer), strict=True)
        return None

    def _fit_of(self, ref: Ref) -> Ref:
        return ref_to(WorkDir.of(self._settings).patch_meta(_tag(ref)), "patch_fit")

    def _report(self, batch: Sequence[Ref], found: dict[Ref, Ref], failed: Ref | None) -> None:
        """Put the progress of a batch right whose worker can no longer do it."""
        done = sum(ref in found for ref in batch)
        with ProgressWriter.of(self._settings.outputs.work_dir, "patches", _tag(batch[0])) as progress:
            progress.update(done, done, int(failed is not None))

    def _record(self, stop: _Stop, deaths: int) -> Ref:
        """Record a patch as failed, as the fit would have."""
        from tract7dt.fit_patch import record_failure

        assert stop.patch is not None
        limit = self._settings.runtime.patch_timeout_seconds
        reason = (
            f"not fitted in {limit:g} s (runtime.patch_timeout_seconds)"
            if stop.overdue
            else f"its worker was killed {_times(deaths)}: {stop.how}"
        )
        return record_failure(self._settings, WorkDir.of(self._settings), stop.patch, reason)


def _name(stage: Callable[..., Any]) -> str:
    stage = inspect.unwrap(stage)
    return f"{stage.__module__}:{stage.__qualname__}"


def _tag(ref: Ref) -> str:
    return ref.path.rsplit("/", 1)[-1].split(".")[0]


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _value(answer: dict[str, Any]) -> Any:
    if "error" in answer:
        raise error_of(answer["error"])
    return decode(answer["value"])
