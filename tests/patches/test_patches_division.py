from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tract7dt.errors import ConfigError, ProductError
from tract7dt.patches import build_patches, read_patches, write_patches
from tract7dt.patches.division import COLUMNS, halo_width
from tract7dt.store import WorkDir
from tract7dt.types import Box


def settings_of(
    epsf_ngrid: int, ngrid: int, size: int = 55, halo: int = 20, skip: bool = True
) -> SimpleNamespace:
    epsf = SimpleNamespace(
        epsf_ngrid=epsf_ngrid, ngrid=ngrid, final_psf_size=size, skip_empty_epsf_patches=skip
    )
    return SimpleNamespace(epsf=epsf, patches=SimpleNamespace(halo_pix_min=halo))


def work_in(folder: Path) -> WorkDir:
    return WorkDir(
        *[folder / part for part in ("", "e", "patches", "p", "f", "o", "c", "final.csv")], name="t"
    )


@given(
    shape=st.tuples(st.integers(12, 90), st.integers(12, 90)),
    origin=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    epsf_ngrid=st.integers(1, 4),
    ngrid=st.integers(1, 3),
    size=st.integers(0, 20).map(lambda k: 2 * k + 1),
    seed=st.integers(0, 1000),
)
def test_every_position_of_the_frame_has_exactly_one_patch(shape, origin, epsf_ngrid, ngrid, size, seed):
    frame = Box(origin[1], origin[1] + shape[1], origin[0], origin[0] + shape[0])
    patches = build_patches(frame, [], settings_of(epsf_ngrid, ngrid, size, 3, skip=False))
    owner = np.zeros((frame.y1, frame.x1), int)
    for patch in patches:
        owner[patch.base.slices] += 1
        assert patch.roi == patch.base.expanded(patch.halo_pix, frame)
    assert (owner[frame.slices] == 1).all()
    assert owner.sum() == shape[0] * shape[1]
    rng = np.random.default_rng(seed)
    x = np.append(rng.uniform(frame.x0 - 0.5, frame.x1 - 0.5, 50), frame.x0 - 0.5)
    y = np.append(rng.uniform(frame.y0 - 0.5, frame.y1 - 0.5, 50), frame.y0 - 0.5)
    # pixel borders, where an open or closed end on the wrong side would show
    x[:25], y[:25] = np.floor(x[:25]) + 0.5, np.floor(y[:25]) + 0.5
    inside = frame.contains(x, y)
    assert (np.sum([patch.base.contains(x, y) for patch in patches], axis=0) == inside).all()
    assert len({patch.tag for patch in patches}) == len(patches) == (epsf_ngrid * ngrid) ** 2


def test_only_the_cells_given_are_divided_when_empty_ones_are_skipped():
    patches = build_patches(Box(0, 100, 0, 100), [(0, 1), (2, 2)], settings_of(3, 2))
    assert [patch.epsf_tag for patch in patches] == ["r00_c01"] * 4 + ["r02_c02"] * 4
    assert [patch.tag for patch in patches[:2]] == ["r00_c01_pr00_pc00", "r00_c01_pr00_pc01"]
    # width // n, the last takes the rest: cells start at 0, 33, 66; the last is 34 wide
    assert patches[-1].base == Box(83, 100, 83, 100)


@pytest.mark.parametrize(("size", "least", "halo"), [(55, 20, 29), (25, 20, 20), (25, 3, 14), (1, 0, 2)])
def test_halo_is_half_a_stamp_plus_two_or_the_minimum(size, least, halo):
    assert halo_width(size, least) == halo


def test_a_frame_too_small_for_the_division_names_the_keys():
    with pytest.raises(ConfigError, match=r"40 x 30 pixels.*epsf\.epsf_ngrid = 7.*epsf\.ngrid = 6"):
        build_patches(Box(0, 40, 0, 30), [], settings_of(7, 6))


def test_files_give_the_patches_back_and_have_the_columns_of_the_contract(tmp_path):
    work = work_in(tmp_path)
    patches = build_patches(Box(0, 301, 0, 203), [], settings_of(2, 3, skip=False))
    write_patches(patches, work)
    assert read_patches(work.patches_json) == patches
    table = pd.read_csv(work.patches_csv)
    assert tuple(table.columns) == COLUMNS
    assert table.loc[7, "patch_tag"] == patches[7].tag
    assert table.loc[7, ["x0_base", "x1_base", "y0_base", "y1_base"]].tolist() == [
        patches[7].base.x0,
        patches[7].base.x1,
        patches[7].base.y0,
        patches[7].base.y1,
    ]


def test_no_patches_at_all_round_trip(tmp_path):
    work = work_in(tmp_path)
    write_patches([], work)
    assert read_patches(work.patches_json) == []
    assert tuple(pd.read_csv(work.patches_csv).columns) == COLUMNS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[0].pop("x0_roi"), "entry 0: missing.*x0_roi"),
        (lambda rows: rows[1].update(y1_base="7"), "entry 1: missing or not of its type: y1_base"),
        (lambda rows: rows[0].update(x0_base=True), "x0_base"),
        (lambda rows: rows[0].update(halo_pix=-1), "halo_pix"),
        (lambda rows: rows[0].update(x1_roi=3), "not within roi"),
        (lambda rows: rows[0].update(patch_tag="r09_c09_pr00_pc00"), "do not belong"),
        (lambda rows: rows.append(rows[0]), "overlap"),
        (lambda rows: rows.insert(0, 5), "entry 0: expected a mapping"),
    ],
)
def test_a_damaged_file_is_told(tmp_path, change, message):
    work = work_in(tmp_path)
    write_patches(build_patches(Box(0, 60, 0, 60), [], settings_of(1, 2, skip=False)), work)
    rows = json.loads(work.patches_json.read_text())
    change(rows)
    work.patches_json.write_text(json.dumps(rows))
    with pytest.raises(ProductError, match=message):
        read_patches(work.patches_json)


def test_a_missing_or_unreadable_file_is_told(tmp_path):
    with pytest.raises(ProductError, match="missing"):
        read_patches(tmp_path / "patches.json")
    (tmp_path / "patches.json").write_text('[{"epsf_r": 1')
    with pytest.raises(ProductError, match="cannot be read"):
        read_patches(tmp_path / "patches.json")
    (tmp_path / "patches.json").write_text("{}")
    with pytest.raises(ProductError, match="expected a list"):
        read_patches(tmp_path / "patches.json")
