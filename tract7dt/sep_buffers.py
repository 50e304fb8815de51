"""SEP's buffers: their sizes belong to the process, so that whoever needs larger ones gives them back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import sep

__all__ = ["sep_buffers"]

_LOCK = threading.RLock()


@contextlib.contextmanager
def sep_buffers(pixstack: int, sub_objects: int | None = None) -> Iterator[None]:
    """Let the block extract with these limits, at least the present ones; other threads wait for it.

    Parameters
    ----------
    pixstack : int
        Pixels above the threshold that SEP can hold.
    sub_objects : int, optional
        Objects that a blend may fall into.
    """
    with _LOCK:
        before = sep.get_extract_pixstack(), sep.get_sub_object_limit()
        sep.set_extract_pixstack(max(pixstack, before[0]))
        sep.set_sub_object_limit(max(sub_objects or 0, before[1]))
        try:
            yield
        finally:
            sep.set_extract_pixstack(before[0])
            sep.set_sub_object_limit(before[1])
