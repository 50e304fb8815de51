"""Work on the bands of a patch shared out among threads.

Bands are independent until their gradients and Hessians are summed, and the kernels release Python's
lock: a thread takes a contiguous slice of them. Whatever the number of threads, a band is computed by the
same code from the same numbers, and sums over bands run in the order of the bands, so results do not
depend on it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Team:
    """Threads that share out a range of numbers; a context manager.

    Parameters
    ----------
    threads : int
        1: everything runs in the caller's thread.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = max(1, threads)
        self._pool = ThreadPoolExecutor(self.threads - 1) if self.threads > 1 else None

    def __enter__(self) -> Team:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def share(
        self, work: Callable[[int, int], None], count: int, cost: NDArray[np.floating[Any]] | None = None
    ) -> None:
        """Call ``work(start, stop)`` on slices that cover ``range(count)``, one a thread.

        Parameters
        ----------
        work : callable
        count : int
        cost : ndarray, float (count,), optional
            What each number costs, if not all cost the same: the slices are to cost the same.
        """
        parts = min(self.threads, count)
        if self._pool is None or parts < 2:
            work(0, count)
            return
        edges = [count * i // parts for i in range(parts + 1)]
        if cost is not None:
            before = np.concatenate([[0.0], np.cumsum(cost)])
            edges = [int(np.argmin(np.abs(before - before[-1] * i / parts))) for i in range(parts)] + [count]
        others = [self._pool.submit(work, edges[i], edges[i + 1]) for i in range(1, parts)]
        work(0, edges[1])
        for other in others:
            other.result()
