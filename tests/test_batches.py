"""Batches of patches: each patch once, dearest first, and workers that end together."""

from __future__ import annotations

import heapq
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tract7dt.batches import LONGEST_S, SHORTEST_S, by_number, by_share

#: Of 116 patches of a simulated tile at half scale, 20 bands: predicted and real CPU seconds, by tag.
RECORDED = json.loads(Path(__file__).with_name("recorded_patch_costs.json").read_text(encoding="utf-8"))
PREDICTED = {tag: cost[0] for tag, cost in RECORDED.items()}
REAL = {tag: cost[1] for tag, cost in RECORDED.items()}
#: CPU seconds that a task costs besides its patches (benchmarks/RESULTS_flow.md).
TASK_S = 0.035


def ends(batches: list[list[str]], n_workers: int, cost: dict[str, float]) -> list[float]:
    """When each worker ends if the next batch goes to whoever is free first."""
    workers = [0.0] * n_workers
    heapq.heapify(workers)
    for batch in batches:
        heapq.heapreplace(workers, workers[0] + TASK_S + sum(cost[name] for name in batch))
    return sorted(workers)


@pytest.mark.parametrize("n_workers", [2, 4, 8])
def test_workers_end_within_a_tenth_of_each_other_at_real_costs(n_workers: int) -> None:
    batches = by_share(PREDICTED, n_workers)
    found = ends(batches, n_workers, REAL)
    assert found[0] >= 0.9 * found[-1]
    assert len(batches) * TASK_S < 0.05 * sum(REAL.values())


@pytest.mark.parametrize("n_workers", [2, 8, 64])
def test_the_same_for_as_many_patches_as_a_tile_has(n_workers: int) -> None:
    several = range(15)
    predicted = {f"{tag} {i}": cost for tag, cost in PREDICTED.items() for i in several}
    real = {f"{tag} {i}": cost for tag, cost in REAL.items() for i in several}
    batches = by_share(predicted, n_workers)
    found = ends(batches, n_workers, real)
    assert found[0] >= 0.9 * found[-1]
    assert len(batches) * TASK_S < 0.05 * sum(real.values())


def test_what_was_predicted_is_worth_something() -> None:
    ratio = sorted(REAL[tag] / PREDICTED[tag] for tag in RECORDED)
    low, high = ratio[len(ratio) // 10], ratio[-len(ratio) // 10]
    assert high / low < 4, "nine patches of ten within a factor of two of the typical ratio"


costs = st.dictionaries(st.text("abcdef", min_size=1, max_size=6), st.floats(0.001, 60.0), max_size=60)


@given(cost=costs, n_workers=st.integers(1, 12))
def test_every_patch_is_in_one_batch_and_batches_are_bounded(cost: dict[str, float], n_workers: int) -> None:
    batches = by_share(cost, n_workers)
    flat = [name for batch in batches for name in batch]
    assert sorted(flat) == sorted(cost)
    assert flat == sorted(cost, key=lambda name: (-cost[name], name)), "the dearest first"
    assert all(batches)
    loads = [sum(cost[name] for name in batch) for batch in batches]
    dearest = [max(cost[name] for name in batch) for batch in batches]
    assert all(load <= LONGEST_S + one for load, one in zip(loads, dearest))
    if sum(cost.values()) > n_workers * SHORTEST_S:
        assert all(load >= SHORTEST_S * (1 - 1e-6) for load in loads[:-1])


@given(cost=costs, per_batch=st.integers(1, 9))
def test_batches_by_number(cost: dict[str, float], per_batch: int) -> None:
    batches = by_number(cost, per_batch)
    assert sorted(name for batch in batches for name in batch) == sorted(cost)
    assert len(batches) == -(-len(cost) // per_batch)
