"""The real field: magnitudes of one star from two nights, three years and many pixels of dithering apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from regression_runs import PICTURES, Run, execute, merged, write_config

#: Relative error of a flux above which a star says nothing: faint, or two rows of the catalogue share it.
MAX_ERROR = 0.05


@pytest.fixture(scope="module")
def run(bundled_field: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Both epochs in one run, ten bands, as the demonstration has them."""
    folder = tmp_path_factory.mktemp("epochs")
    values = yaml.safe_load((bundled_field / "config.yaml").read_text(encoding="utf-8"))
    for name, path in values["inputs"].items():
        if isinstance(path, str) and (bundled_field / path).is_file():
            values["inputs"][name] = str(bundled_field / path)
    values["outputs"]["work_dir"] = str(folder / "work")
    return execute(write_config(folder / "config.yaml", merged(values, PICTURES)))


@pytest.mark.parametrize("band", ["g", "r", "i"])
def test_star_magnitudes_of_the_two_epochs_agree(run: Run, band: str) -> None:
    """MAD of the differences at most 0.02 mag, their median at most 0.01 mag."""
    table = run.table
    stars = table[(table["gaia_source_id"] != "") & table["fit_is_reliable"]]
    errors = pd.DataFrame({e: stars[f"FLUXERR_{band}{e}_fit"] / stars[f"FLUX_{band}{e}_fit"] for e in "AB"})
    stars = stars[((errors > 0) & (errors < MAX_ERROR)).all(axis=1)]
    difference = (stars[f"MAG_{band}A_fit"] - stars[f"MAG_{band}B_fit"]).to_numpy()
    assert len(difference) >= 5
    middle = np.median(difference)
    assert np.median(np.abs(difference - middle)) <= 0.02
    assert abs(middle) <= 0.01
