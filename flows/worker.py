"""What the processes of a run are started with."""

from __future__ import annotations

__all__ = ["thread_variables"]

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def thread_variables(threads: int) -> dict[str, str]:
    """Environment that keeps numerical libraries to ``threads`` threads; they read it when first imported."""
    return dict.fromkeys(_THREAD_VARIABLES, str(threads))
