"""Threads share out the work of a fit, and images what memory there is; what comes out depends on neither."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import scenes

from tract7dt import fit
from tract7dt.fit import EngineOptions, fit_native
from tract7dt.fit.places import Places
from tract7dt.settings import PatchRunSettings
from tract7dt.types import PatchFit


def assert_same_bits(results: list[PatchFit]) -> None:
    for field in fields(results[0]):
        first = getattr(results[0], field.name)
        for other in results[1:]:
            if isinstance(first, np.ndarray):
                np.testing.assert_array_equal(getattr(other, field.name), first, err_msg=field.name)
            else:
                assert getattr(other, field.name) == first, field.name


@pytest.mark.parametrize("together", [True, False])
def test_any_number_of_threads_gives_the_same_bits(together: bool) -> None:
    problem, _ = scenes.random_problem(10, 3, 110, 5)
    assert_same_bits(
        [
            fit.fit_patch(
                problem,
                PatchRunSettings(
                    threads_per_process=threads, enable_multi_band_simultaneous_fitting=together
                ),
            )
            for threads in (1, 2, 3, 5)
        ]
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("together", [True, False])
def test_the_same_bits_where_memory_for_images_does_not_last(
    threads: int, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, _ = scenes.random_problem(10, 6, 110, 5)
    divide = Places._divide
    kept: set[int] = set()
    moved: list[bool] = []

    def divided(places: Places, least: int) -> None:
        divide(places, least)
        kept.add(places.kept)
        moved.append(places.moved and places.kept > 0)

    monkeypatch.setattr(Places, "_divide", divided)
    settings = PatchRunSettings(threads_per_process=threads, enable_multi_band_simultaneous_fitting=together)
    results, seen = [], []
    for memory in (32, 1, 0):
        kept.clear()
        results.append(fit_native(problem, settings, EngineOptions(image_memory_mb=memory)))
        seen.append(kept.copy())
    assert_same_bits(results)
    if together:
        assert seen[0] == {6}
        assert len(seen[1]) > 2  # fewer as stamps grow
        assert seen[2] == {0}
        assert any(moved)
