from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from regression_runs import Run, configuration, execute, read_rows, write_config, write_rows

from tract7dt.sample import SampleField, SampleOptions, make_sample

#: Texts that software likes to improve: each must come out as it went in.
AWKWARD = [
    "00019",
    "1.500",
    "NaN",
    "None",
    "",
    " padded ",
    'a "quoted", word',
    "1e3",
    "True",
    "é",
    "-0",
    "+1",
    "0x10",
]


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleField:
    """320 x 320 pixels, 3 bands: NaN regions, a trail, a saturated star, one that no catalogue has."""
    return make_sample(
        tmp_path_factory.mktemp("field") / "small",
        SampleOptions(
            width=320,
            height=320,
            bands=3,
            seed=4,
            stars=26,
            galaxies=12,
            saturated=1,
            uncatalogued=1,
            mag_limit=19.0,
        ),
    )


@pytest.fixture(scope="session")
def rough_catalogue(sample: SampleField) -> Path:
    """The sample's catalogue with rows that cannot be fitted, awkward names and columns of the user's own."""
    header, rows = read_rows(sample.catalog)
    for _ in range(2):  # a blank and a written NaN
        rows.insert(3, [f"{900 + len(rows):06d}", "nan" if len(rows) % 2 else "", rows[0][2], *rows[0][3:]])
    rows.insert(7, ["far away", "34.9", *rows[5][2:]])
    rows.insert(0, ["no, declination", rows[2][1], "inf", *rows[2][3:]])
    notes = [AWKWARD[i % len(AWKWARD)] for i in range(len(rows))]
    header = ["first", *header[:2], "my note", *header[2:], "z_phot"]
    rows = [
        [str(i), *row[:2], note, *row[2:], f"{0.01 * i:.3f}"]
        for i, (row, note) in enumerate(zip(rows, notes))
    ]
    return write_rows(sample.directory / "rough.csv", header, rows)


Runner = Callable[..., Run]


@pytest.fixture(scope="session")
def runner(sample: SampleField, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Runs the pipeline on the sample, in a folder of its own."""

    def run(command: str = "run", pictures: bool = False, **changes: dict[str, Any]) -> Run:
        folder = tmp_path_factory.mktemp("run")
        values = configuration(sample, folder / "work", **changes)
        return execute(write_config(folder / "config.yaml", values), command, pictures)

    return run


@pytest.fixture(scope="session")
def whole(runner: Runner, rough_catalogue: Path) -> Run:
    """One ordinary run on the rough catalogue. Nobody may write to its folder."""
    return runner(
        pictures=True,
        inputs={"input_catalog": str(rough_catalogue)},
        performance={"frame_prep_workers": 32, "white_stack_workers": 32},
    )
