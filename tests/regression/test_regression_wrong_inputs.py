"""The command refuses what is wrong at once: exit code, culprit, and nothing written over."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from astropy.io import fits
from regression_runs import configuration, merged, read_rows, start, write_config, write_rows

from tract7dt.sample import SampleField

#: CPU seconds that an error may take beyond importing what reads the inputs.
SECONDS = 2.5


@pytest.fixture(scope="module")
def imports_s() -> float:
    """CPU seconds of the imports alone."""
    return start("-c", "import flows.cli, tract7dt.frames, tract7dt.sources, tract7dt.stages").cpu_s


@dataclass
class Inputs:
    """Copies of the sample's small files, to be spoilt."""

    folder: Path
    sample: SampleField

    @property
    def catalogue(self) -> Path:
        return self.folder / "catalogue.csv"

    @property
    def images(self) -> list[str]:
        return (self.folder / "images.txt").read_text().split()

    def set_images(self, paths: list[str]) -> None:
        (self.folder / "images.txt").write_text("".join(f"{path}\n" for path in paths))

    def config(self, **changes: dict[str, object]) -> Path:
        inputs = {"input_catalog": str(self.catalogue), "image_list_file": str(self.folder / "images.txt")}
        values = configuration(self.sample, self.folder / "work", inputs=inputs)
        return write_config(self.folder / "config.yaml", merged(values, changes))


@pytest.fixture
def inputs(sample: SampleField, tmp_path: Path) -> Inputs:
    given = Inputs(tmp_path, sample)
    shutil.copy(sample.catalog, given.catalogue)
    given.set_images([str(path) for path in sample.images])
    return given


# --- what can be wrong: each spoils the inputs and gives the configuration, code and words of the message ------


Spoilt = tuple[Path, int, list[str]]


def wrong_value(inputs: Inputs) -> Spoilt:
    return inputs.config(epsf={"ngrid": "many"}), 2, ["epsf.ngrid", "many"]


def unknown_key(inputs: Inputs) -> Spoilt:
    config = inputs.config(patch_run={"n_opt_iter": 5}, bright_mask={"minarea": -3})
    return config, 2, ["patch_run.n_opt_iter", "n_opt_iters", "bright_mask.minarea"]


def no_work_dir(inputs: Inputs) -> Spoilt:
    config = inputs.config()
    config.write_text(config.read_text().replace("work_dir", "workdir"))
    return config, 2, ["outputs.work_dir"]


def no_configuration(inputs: Inputs) -> Spoilt:
    return inputs.folder / "nothing.yaml", 2, ["nothing.yaml"]


def not_yaml(inputs: Inputs) -> Spoilt:
    config = inputs.config()
    config.write_text(config.read_text() + "\nzp: {enabled: [}\n")
    return config, 2, ["config.yaml:", "not valid YAML"]


def missing_image(inputs: Inputs) -> Spoilt:
    inputs.set_images([*inputs.images[:2], str(inputs.folder / "gone.fits")])
    return inputs.config(), 1, ["gone.fits", "no such file"]


def missing_image_list(inputs: Inputs) -> Spoilt:
    config = inputs.config(inputs={"image_list_file": str(inputs.folder / "list_gone.txt")})
    return config, 1, ["list_gone.txt", "no such file"]


def missing_catalogue(inputs: Inputs) -> Spoilt:
    inputs.catalogue.unlink()
    return inputs.config(), 1, ["catalogue.csv", "no such file"]


def missing_gaia(inputs: Inputs) -> Spoilt:
    config = inputs.config(inputs={"gaiaxp_synphot_csv": str(inputs.folder / "gaia_gone.csv")})
    return config, 1, ["gaia_gone.csv", "no such file"]


def missing_keywords(inputs: Inputs) -> Spoilt:
    spoilt = []
    for name, keyword in (("a.fits", "ZP_AUTO"), ("b.fits", "SKYSIG"), ("c.fits", "FILTER")):
        spoilt.append(shutil.copy(inputs.images[len(spoilt)], inputs.folder / name))
        fits.delval(spoilt[-1], keyword)
    inputs.set_images([str(path) for path in spoilt])
    return inputs.config(), 1, ["a.fits", "ZP_AUTO", "b.fits", "SKYSIG", "c.fits", "FILTER"]


def band_mismatch(inputs: Inputs) -> Spoilt:
    header, rows = read_rows(inputs.catalogue)
    names = [*header, "FLUX_m400", "FLUX_m400_ERR", "FLUX_m650", "FLUX_r"]
    write_rows(inputs.catalogue, names, [[*row, "1", "1", "1", "1"] for row in rows])
    return inputs.config(), 1, ["FLUX_r", "FLUX_m875"]


def duplicate_ids(inputs: Inputs) -> Spoilt:
    header, rows = read_rows(inputs.catalogue)
    write_rows(inputs.catalogue, header, [*rows, rows[2]])
    return inputs.config(), 1, ["'000003'", "row 3", f"row {len(rows) + 1}"]


def no_ra(inputs: Inputs) -> Spoilt:
    header, rows = read_rows(inputs.catalogue)
    write_rows(inputs.catalogue, ["LON" if name == "RA" else name for name in header], rows)
    return inputs.config(), 1, ["catalogue.csv", "RA missing", "LON"]


def broken_image(inputs: Inputs) -> Spoilt:
    broken = inputs.folder / "broken.fits"
    broken.write_bytes(b"SIMPLE  = nothing of the kind")
    inputs.set_images([str(broken), *inputs.images[1:]])
    return inputs.config(), 1, ["broken.fits"]


def truncated_image(inputs: Inputs) -> Spoilt:
    short = inputs.folder / "short.fits"
    short.write_bytes(Path(inputs.images[1]).read_bytes()[:200_000])
    inputs.set_images([inputs.images[0], str(short), inputs.images[2]])
    return inputs.config(), 1, ["short.fits"]


WRONG: list[Callable[[Inputs], Spoilt]] = [
    wrong_value,
    unknown_key,
    no_work_dir,
    no_configuration,
    not_yaml,
    missing_image,
    missing_image_list,
    missing_catalogue,
    missing_gaia,
    missing_keywords,
    band_mismatch,
    duplicate_ids,
    no_ra,
    broken_image,
    truncated_image,
]


@pytest.mark.parametrize("spoil", WRONG, ids=lambda spoil: spoil.__name__)
def test_refused_at_once_and_nothing_written_over(
    inputs: Inputs, imports_s: float, spoil: Callable[[Inputs], Spoilt]
) -> None:
    config, code, words = spoil(inputs)
    earlier = [
        inputs.folder / "work" / name
        for name in (
            "output_catalog.csv",
            "output_catalog.parquet",
            "run_summary.json",
            "frames/field.json",
            "EPSFs/m650/cells.json",
            "ZP/zp_summary.csv",
        )
    ]
    for path in earlier:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path.name} of an earlier run\n")
    times = [path.stat().st_mtime_ns for path in earlier]

    ended = start("-m", "flows.cli", "run", "--direct", "--config", str(config))

    assert ended.code == code, ended.err
    for word in words:
        assert word in ended.err
    assert "Traceback" not in ended.err
    assert "what to do:" in ended.err
    assert [path.read_text() for path in earlier] == [f"{path.name} of an earlier run\n" for path in earlier]
    assert [path.stat().st_mtime_ns for path in earlier] == times
    assert ended.cpu_s < imports_s + SECONDS
