"""Large arrays that a thread keeps from patch to patch.

Fresh memory is handed out by the system page by page, at a price (about 1 ms a megabyte) that would be a tenth of
a fit; the arrays of one patch serve the next one as well.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_NOTHING: NDArray[Any] = np.empty(0)


class Workspace:
    """Named arrays that grow when more is asked for and are never given back.

    Only one evaluator may use a workspace at a time.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def empty(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """An array with anything in it; the one handed out under this name before is void."""
        count = math.prod(shape)
        held = self._arrays.get(name)
        if held is None or held.size < count or held.dtype != np.dtype(dtype):
            held = self._arrays[name] = _NOTHING  # let the old one go before there is a new one
            held = self._arrays[name] = np.empty(count, dtype)
        return held[:count].reshape(shape)

    def zeros(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """The same, filled with 0."""
        array = self.empty(name, shape, dtype)
        array[...] = 0
        return array

    def rows(self, name: str, count: int, dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """All that is held under a name as ``count`` rows, as long as they get; anything may be in them."""
        held = self._arrays.get(name)
        if held is None or held.dtype != np.dtype(dtype):
            return np.empty((count, 0), dtype)
        width = held.size // count
        return held[: count * width].reshape(count, width)

    def keep(self, name: str, array: NDArray[Any]) -> None:
        """Hold an array from now on, in place of what was held under its name."""
        self._arrays[name] = array.reshape(-1)


class _Kept(threading.local):
    """One workspace a thread."""

    def __init__(self) -> None:
        self.workspace = Workspace()


_KEPT = _Kept()


def kept_workspace() -> Workspace:
    """The workspace of the calling thread."""
    return _KEPT.workspace
