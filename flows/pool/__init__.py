"""Worker processes of a run: subprocesses of our own, which Prefect's tasks hand their work to and wait for.

A worker is ``python -m flows.pool_worker``; it and this process exchange lines of JSON over pipes that nobody
else writes to. There is no pickle, no multiprocessing and hence no condition on ``__main__``. A worker imports
the library and loads the compiled kernels once, then works for all stages of the run that map tasks; one that
dies (killed, out of memory, a crash of compiled code) costs what it was at, no more.

``with pool_for(settings) as pool`` around the stages of a run makes the pool known to the subflows through
:func:`current`; it is None where tasks run in this process or on a cluster. Nothing is started before the first
:meth:`WorkerPool.call`, :meth:`WorkerPool.fit` or :meth:`WorkerPool.start`; a command that is about to begin a
run does the last early (:func:`started_early`).
"""

from flows.pool.manager import WorkerPool, current, pool_for, started_early
from flows.pool.process import Overdue, WorkerProcess

__all__ = ["Overdue", "WorkerPool", "WorkerProcess", "current", "pool_for", "started_early"]
