"""The workers of a run: who works, who is free, and what becomes of the work of one that died."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from flows.pool.batch import fit_batch
from flows.pool.process import DEATHS, Overdue, WorkerProcess, times, value_of
from flows.pool.wire import name_of
from flows.runners import is_staged, n_workers
from tract7dt.errors import StageError, WorkerLostError
from tract7dt.store import remove_temporaries

if TYPE_CHECKING:
    from tract7dt.settings import Settings
    from tract7dt.types import Ref

__all__ = ["WorkerPool", "current", "pool_for", "started_early"]

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Pause before work that took its worker with it is tried again, s; drawn out at random by up to as much again.
_PAUSE_S = 0.5

_CURRENT: contextvars.ContextVar[WorkerPool | None] = contextvars.ContextVar("pool", default=None)


def current() -> WorkerPool | None:
    """The pool of the run; None where mapped tasks run in this process or on a cluster."""
    return _CURRENT.get()


@contextlib.contextmanager
def pool_for(settings: Settings) -> Iterator[WorkerPool | None]:
    """The pool of a run, known to :func:`current` while the block runs; None for other task runners.

    A run whose payloads are staged has one, too, for its ePSFs.

    Workers are started when they are first needed, and none is left after the block.
    """
    if settings.runtime.task_runner != "process" and not is_staged(settings):
        yield None
        return
    with _early.taken_over(settings) or WorkerPool(settings) as pool:
        token = _CURRENT.set(pool)
        try:
            yield pool
        finally:
            _CURRENT.reset(token)


@contextlib.contextmanager
def started_early(settings: Settings) -> Iterator[None]:
    """Let workers of the run that is about to begin import the library; :func:`pool_for` takes them over.

    None is left after the block.
    """
    if settings.runtime.task_runner != "process":
        yield
        return
    with WorkerPool(settings) as pool:
        pool.start(n_workers(settings, "patches"), n_workers(settings, "bands"))
        _early.pool = pool
        try:
            yield
        finally:
            _early.pool = None


@dataclass(slots=True)
class _Early:
    """The pool that was started before its run, until the run has begun."""

    pool: WorkerPool | None = None

    def taken_over(self, settings: Settings) -> WorkerPool | None:
        """The pool, if it is of a run with these settings; one of another run is closed."""
        pool, self.pool = self.pool, None
        if pool is None:
            return None
        if pool.settings != settings or pool.settings.base_dir != settings.base_dir:
            pool.close()
            return None
        return pool


_early = _Early()


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
    def settings(self) -> Settings:
        """Of the run."""
        return self._settings

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        with self._lock:
            return [worker.pid for worker in self._all if worker.alive]

    # --- workers ---------------------------------------------------------------------------------------

    def start(self, count: int, for_epsf: int = 0) -> None:
        """Start workers up to ``count`` without waiting for them, so that they are warm when they are needed.

        ``for_epsf`` of them, those that are asked first, import what ePSFs need, too.
        """
        with self._lock:
            lacking = count - len(self._all)
        for worker in [self._new_worker(i >= lacking - for_epsf) for i in range(lacking)]:
            self._put_back(worker)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let the workers that wait or start stand still while the block runs, which is to have the cores.

        A worker that is asked for something meanwhile would not answer before the end of the block.
        """
        with self._lock:
            workers = list(self._free)
        for worker in workers:
            worker.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for worker in workers:
                worker.signal(signal.SIGCONT)

    def _new_worker(self, epsf: bool = False) -> WorkerProcess:
        runtime, run_log = self._settings.runtime, self._settings.logging
        hello = {
            "settings": self._settings.model_dump(mode="json"),
            "base_dir": str(self._settings.base_dir),
            "memory_mb": runtime.worker_memory_mb,
            "level": logging.getLogger("tract7dt").getEffectiveLevel(),
            "ignore_warnings": run_log.ignore_warnings,
            "kernels": self._kernels,
            "epsf": epsf,
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
    def worker(self) -> Iterator[WorkerProcess]:
        """A worker that is ready for work; one that is not whole after the block is done away with."""
        worker = self._ready_worker()
        try:
            yield worker
        except (WorkerLostError, Overdue):
            self._discard(worker)
            self._check_open()
            raise
        except BaseException:
            self._discard(worker)
            raise
        self._put_back(worker)

    def _ready_worker(self) -> WorkerProcess:
        """A free worker, or a new one; in the place of one that is killed while it starts another is started.

        Raises
        ------
        StageError
            If workers cannot start.
        """
        deaths = 0
        while True:
            with self._lock:
                worker = self._free.pop() if self._free else None
            if worker is not None and not worker.alive:
                self._discard(worker)  # killed while it had nothing to do
                continue
            worker = worker or self._new_worker()
            try:
                worker.wait_until_ready()
            except WorkerLostError as error:
                self._discard(worker)
                self._check_open()
                deaths += 1
                if deaths == DEATHS:
                    # Not "from error": a lost worker may pass by itself, this does not.
                    raise StageError(f"a worker cannot start: {error}{self._memory_hint()}") from None
                log.warning("a worker was killed while it started (%s); another is started", error)
                self.pause()
            except StageError as error:
                self._discard(worker)
                raise StageError(f"{error}{self._memory_hint()}") from error
            except BaseException:
                self._discard(worker)
                raise
            else:
                return worker

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

    def dismiss(self) -> None:
        """End the workers that have nothing to do; what is asked for later has new ones."""
        with self._lock:
            idle, self._free = self._free, []
        for worker in idle:
            self._discard(worker)

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
        request = {"do": "call", "stage": name_of(stage), "arguments": arguments}
        for death in range(1, DEATHS + 1):
            deadline = None if timeout_s is None else time.monotonic() + timeout_s
            try:
                value: T = self._ask(request, deadline)
            except WorkerLostError as error:
                if death == DEATHS:
                    raise StageError(f"its worker was killed {times(death)}: {error}") from None
                log.warning("%s: its worker was killed (%s); once more, in another", stage.__name__, error)
                self.pause()
            except Overdue as error:
                raise StageError(f"not done in {timeout_s:g} s (runtime.task_timeout_seconds)") from error
            else:
                return value
        raise AssertionError  # pragma: no cover - the last death raises

    def _ask(self, request: dict[str, Any], deadline: float | None) -> Any:
        with self.worker() as worker:
            worker.send(request)
            answer = worker.receive(deadline)
        return value_of(answer)

    def pause(self) -> None:
        """Wait before work that took its worker with it is tried again."""
        self._check_open()
        time.sleep(_PAUSE_S * (1 + random.random()))

    def fit(self, payloads: Sequence[Ref], stage: Callable[..., list[Ref]]) -> list[Ref]:
        """Fits of a batch of patches, in its order; :func:`flows.pool.batch.fit_batch` by workers of this pool."""
        return fit_batch(self, payloads, stage)
