"""What the subflows that map tasks share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tract7dt.errors import StageError
from tract7dt.progress import request_stop

__all__ = ["give_up_on_error"]


@contextlib.contextmanager
def give_up_on_error(folder: Path) -> Iterator[None]:
    """Tell the workers to stop when the block ends with an error (or an interrupt).

    Without it a pool finishes what it has begun before the error is heard of. A worker that died takes
    the whole pool with it: that is said in words.
    """
    try:
        yield
    except BrokenProcessPool as error:
        request_stop(folder)
        raise StageError(
            "a worker process died (killed, or out of memory), and its pool with it; fewer workers "
            "(runtime.max_workers) need less memory"
        ) from error
    except BaseException:
        request_stop(folder)
        raise
