"""A batch of patches in a worker: what becomes of it when the worker dies or one patch takes for ever."""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.pool.process import DEATHS, Overdue, times, value_of
from flows.pool.wire import name_of
from tract7dt.errors import StageError, WorkerLostError
from tract7dt.progress import ProgressWriter
from tract7dt.store import WorkDir, ref_to
from tract7dt.types import Ref

if TYPE_CHECKING:
    from flows.pool.manager import WorkerPool

__all__ = ["fit_batch"]

log = logging.getLogger(__name__)

Stage = Callable[..., list[Ref]]


@dataclass(frozen=True, slots=True)
class _Stop:
    """Why a batch came to its end before its last patch."""

    patch: Ref | None
    how: str
    overdue: bool


def fit_batch(pool: WorkerPool, payloads: Sequence[Ref], stage: Stage) -> list[Ref]:
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
        stop = _fit_some(pool, batch, stage, found)
        waiting = [ref for ref in waiting if ref not in found]
        aside = [ref for ref in aside if ref not in found]
        if stop is None:
            continue
        deaths[stop.patch] += 1
        given_up = stop.overdue or deaths[stop.patch] >= DEATHS
        if stop.patch is None:
            if deaths[None] > DEATHS:
                raise StageError(f"workers die between patches: {stop.how}")
        elif given_up:
            found[stop.patch] = _record(pool, stop, deaths[stop.patch])
            aside = [ref for ref in aside if ref != stop.patch]
        else:
            aside.append(stop.patch)
            log.warning("patch %s: its worker was killed (%s); once more, alone", _tag(stop.patch), stop.how)
            pool.pause()
        waiting = [ref for ref in waiting if ref != stop.patch]
        _report(pool, batch, found, stop.patch if given_up else None)
    return [found[ref] for ref in payloads]


def _fit_some(pool: WorkerPool, batch: Sequence[Ref], stage: Stage, found: dict[Ref, Ref]) -> _Stop | None:
    """Fit a batch as far as it goes; fits are added to ``found``."""
    limit = pool.settings.runtime.patch_timeout_seconds
    by_tag = {_tag(ref): ref for ref in batch}
    begun: list[Ref] = []
    try:
        with pool.worker() as worker:
            worker.send({"do": "fit", "stage": name_of(stage), "arguments": [batch]})
            while True:
                answer = worker.receive(None if limit is None else time.monotonic() + limit)
                if "patch" not in answer:
                    break
                begun.append(by_tag[answer["patch"]])
    except (WorkerLostError, Overdue) as error:
        work = WorkDir.of(pool.settings)
        found |= {ref: ref_to(work.patch_meta(_tag(ref)), "patch_fit") for ref in begun[:-1]}
        return _Stop(begun[-1] if begun else None, str(error), isinstance(error, Overdue))
    found |= zip(batch, value_of(answer), strict=True)
    return None


def _report(pool: WorkerPool, batch: Sequence[Ref], found: dict[Ref, Ref], failed: Ref | None) -> None:
    """Put the progress of a batch right whose worker can no longer do it."""
    done = sum(ref in found for ref in batch)
    with ProgressWriter.of(pool.settings.outputs.work_dir, "patches", _tag(batch[0])) as progress:
        progress.update(done, done, int(failed is not None))


def _record(pool: WorkerPool, stop: _Stop, deaths: int) -> Ref:
    """Record a patch as failed, as the fit would have."""
    from tract7dt.fit_patch import record_failure

    assert stop.patch is not None
    limit = pool.settings.runtime.patch_timeout_seconds
    reason = (
        f"not fitted in {limit:g} s (runtime.patch_timeout_seconds)"
        if stop.overdue
        else f"its worker was killed {times(deaths)}: {stop.how}"
    )
    return record_failure(pool.settings, WorkDir.of(pool.settings), stop.patch, reason)


def _tag(ref: Ref) -> str:
    return ref.path.rsplit("/", 1)[-1].split(".")[0]
