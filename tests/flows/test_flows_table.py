"""The table of docs/orchestration.md, row by row: what is changed, and which stages the flow then computes.

On a real server (SQLite), with the real stages on a tiny field.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from astropy.io import fits
from rerun_field import Field

from tract7dt import fit_patch

PAGE = Path(__file__).resolve().parents[2] / "docs" / "orchestration.md"
FITS = ("run_patches", "merge", "compute_zp")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, server_url: str) -> Field:
    """A run from nothing. Nobody may write to its folder."""
    return Field.made(tmp_path_factory.mktemp("table") / "first", server_url)


def _nothing(field: Field) -> None:
    pass


def _touch(field: Field) -> None:
    for path in (field.folder / "field").rglob("*.*"):
        path.write_bytes(path.read_bytes())
        os.utime(path, (1.0, 1.0))


def _pixel(field: Field) -> None:
    with fits.open(field.image, mode="update") as hdus:
        hdus[0].data[12, 12] += 1.0


def _catalogue_row(field: Field) -> None:
    path = field.folder / "field" / "input_catalog.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[len(table)] = table.iloc[0].to_dict() | {"ID": "another"}
    table.to_csv(path, index=False)


def _lose_catalogue(field: Field) -> None:
    field.catalogue.unlink()


def _damage_fit(field: Field) -> None:
    path = min((field.folder / "work" / "outputs").glob("*/*_cat_fit.csv"))
    path.write_text(path.read_text()[:-20])


def _lose_epsf(field: Field) -> None:
    min((field.folder / "work" / "EPSFs").rglob("epsf.npy")).unlink()


def _bands_reused(field: Field) -> int:
    return int(field.detail("build_epsf")["reused"])


def _patches_fitted(field: Field) -> int:
    return int(field.summary["counts"]["patches"]) - int(field.detail("run_patches")["reused"])


def _no_fit(*_: Any) -> None:
    raise AssertionError("a patch was fitted")


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes
    ----------
    change : str
        As the table says it.
    computed : tuple of str
        Stages, in their order.
    do : callable
        The change.
    given : dict
        Parameters of the flow.
    same : bool or None
        The catalogue comes out the same; None: it may.
    also : callable
        What else must be true.
    """

    change: str
    computed: tuple[str, ...] = ()
    do: Callable[[Field], None] = _nothing
    given: dict[str, Any] = field(default_factory=dict)
    same: bool | None = True
    also: Callable[[Field], bool] = lambda field: True


LATER = ("augment_gaia", "bright_mask", "compose_final_masks", "build_patch_inputs", *FITS)
ROWS = (
    Row("nothing"),
    Row("files touched or copied, same bytes", do=_touch),
    Row("`zp.clip_sigma`", ("compute_zp",), given={"overrides": {"zp.clip_sigma": 2.5}}, same=None),
    Row("`patch_run.n_opt_iters`", FITS, given={"overrides": {"patch_run.n_opt_iters": 5}}, same=False),
    Row("`runtime.max_workers`", given={"overrides": {"runtime.max_workers": 1}}),
    Row(
        "one image",
        ("load_inputs", "augment_gaia", "bright_mask", "build_epsf", *LATER[2:]),
        _pixel,
        same=False,
        also=lambda field: _bands_reused(field) == 1,
    ),
    Row(
        "the catalogue (a row more)",
        ("load_inputs", "augment_gaia", "bright_mask", "build_epsf", *LATER[2:]),
        _catalogue_row,
        same=False,
    ),
    Row("`output_catalog.csv` is missing", ("compute_zp",), _lose_catalogue),
    Row(
        "the fit of a patch is damaged",
        ("run_patches",),
        _damage_fit,
        also=lambda field: _patches_fitted(field) == 1,
    ),
    Row("an ePSF is missing", ("build_epsf",), _lose_epsf, also=lambda field: _bands_reused(field) == 1),
    Row("`refresh: [merge]`", ("merge", "compute_zp"), given={"refresh": ["merge"]}),
    Row("`refresh: [build_epsf]`", ("build_epsf",), given={"refresh": ["build_epsf"]}),
)


def test_the_page_shows_these_rows() -> None:
    [table] = re.findall(
        r"\| change \| stages that are computed \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE.read_text()
    )
    shown = [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in table.splitlines()]
    assert shown == [(row.change, ", ".join(row.computed) or "none") for row in ROWS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.change)
def test_what_is_changed_is_what_is_computed(
    first: Field, tmp_path: Path, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(first.folder, tmp_path / "field")
    field = Field(tmp_path / "field", first.server_url)
    before, maker = field.catalogue.read_bytes(), field.summary["run_id"]
    row.do(field)
    if "run_patches" not in row.computed:
        monkeypatch.setattr(fit_patch, "fit_payload", _no_fit)
    assert field.run(**row.given) == set(row.computed)
    assert field.summary["status"] == "done"
    assert row.same in (None, field.catalogue.read_bytes() == before)
    assert row.also(field)
    cached = [entry for entry in field.summary["stages"] if entry["status"] == "cached"]
    assert all(entry["detail"]["reused_from"] == [maker] for entry in cached)
