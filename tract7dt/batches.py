"""The division of patches into batches: dearest first, and smaller towards the end, so that workers end together.

Patches differ by a hundred times in cost, and what is predicted of one is right within a factor of two. Batches of
equal size leave the last worker alone with up to a whole one; so each holds a share of what is left (guided
self-scheduling, Polychronopoulos and Kuck 1987), between two bounds: a task costs 0.02 to 0.1 s, and progress is
told, and work lost with a worker, by the batch.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["LONGEST_S", "by_number", "by_share"]

#: Predicted CPU seconds of a batch, at least and at most (a single patch may take longer).
SHORTEST_S, LONGEST_S = 0.5, 8.0
#: A batch is what is left divided by so many times the number of workers.
_SHARES = 3.0
_ROUNDING = 1e-9


def by_share(cost: Mapping[str, float], n_workers: int) -> list[list[str]]:
    """Batches of names, the dearest first, for workers that each take the next one when they are free.

    Parameters
    ----------
    cost : mapping of str to float
        Predicted CPU seconds by name.
    n_workers : int
        Little work is divided among them evenly.
    """
    names = sorted(cost, key=lambda name: (-cost[name], name))
    left = sum(cost.values())
    shortest = min(SHORTEST_S, left / max(n_workers, 1))
    batches: list[list[str]] = []
    load, wanted = 0.0, 0.0
    for name in names:
        if load >= wanted * (1 - _ROUNDING):
            left -= load
            load, wanted = 0.0, min(max(left / (_SHARES * n_workers), shortest), LONGEST_S)
            batches.append([])
        batches[-1].append(name)
        load += cost[name]
    return batches


def by_number(cost: Mapping[str, float], per_batch: int) -> list[list[str]]:
    """As many batches as ``per_batch`` names in each make, of even predicted cost, the dearest first."""
    batches: list[list[str]] = [[] for _ in range(-(-len(cost) // per_batch))]
    load = [0.0] * len(batches)
    for name in sorted(cost, key=lambda name: (-cost[name], name)):
        lightest = load.index(min(load))
        batches[lightest].append(name)
        load[lightest] += cost[name]
    return batches
