"""How the kernels are compiled: once per machine, single-threaded, free to reorder sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def kernel(function: Kernel) -> Kernel:
    """Compile a kernel; arrays must be finite (``fastmath`` assumes so), divisions by zero give inf."""
    compiled: Kernel = njit(cache=True, fastmath=True, nogil=True, error_model="numpy")(function)
    return compiled
