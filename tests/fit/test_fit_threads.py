"""Threads share out the work of a fit; what comes out does not depend on their number."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import scenes

from tract7dt import fit
from tract7dt.settings import PatchRunSettings


@pytest.mark.parametrize("together", [True, False])
def test_any_number_of_threads_gives_the_same_bits(together: bool) -> None:
    problem, _ = scenes.random_problem(10, 3, 110, 5)
    results = [
        fit.fit_patch(
            problem,
            PatchRunSettings(threads_per_process=threads, enable_multi_band_simultaneous_fitting=together),
        )
        for threads in (1, 2, 3, 5)
    ]
    for field in fields(results[0]):
        first = getattr(results[0], field.name)
        for other in results[1:]:
            if isinstance(first, np.ndarray):
                np.testing.assert_array_equal(getattr(other, field.name), first, err_msg=field.name)
            else:
                assert getattr(other, field.name) == first, field.name
