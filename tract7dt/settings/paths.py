"""Making the paths of a configuration absolute."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tract7dt.settings.root import Settings

__all__ = ["output_problems", "overwrites", "relative_outputs", "resolve_paths"]


def resolve_paths(settings: Settings, base_dir: Path) -> Settings:
    """Settings with absolute paths.

    Inputs and ``outputs.work_dir`` are relative to ``base_dir``, the other outputs and ``logging.file``
    to ``work_dir``. ``~`` expands; absolute paths and URLs stay.

    Parameters
    ----------
    settings : Settings
    base_dir : Path
        Folder of the YAML file.
    """
    base_dir = base_dir.absolute()
    inputs = {
        name: value if value is None or name == "tile_name" else _input(value, base_dir)
        for name, value in settings.inputs
    }
    work_dir = _local(settings.outputs.work_dir, base_dir)
    outputs = {name: _local(value, work_dir) for name, value in settings.outputs if name != "work_dir"}
    log = settings.logging.file
    resolved = settings.model_copy(
        update={
            "inputs": settings.inputs.model_copy(update=inputs),
            "outputs": settings.outputs.model_copy(update={**outputs, "work_dir": work_dir}),
            "logging": settings.logging.model_copy(
                update={"file": _local(log, work_dir) if isinstance(log, Path) else log}
            ),
        }
    )
    return resolved.with_base_dir(base_dir)


def output_problems(settings: Settings) -> list[tuple[tuple[str, str], str]]:
    """Outputs that cannot be written where ``settings`` (paths resolved) say, as path of the key and message."""
    problems = []
    catalogue = settings.outputs.final_catalog
    if catalogue.suffix in (".parquet", ".fits"):
        problems.append(
            (
                ("outputs", "final_catalog"),
                f"{catalogue} names the CSV catalogue, so it ends in .csv; Parquet and FITS are written beside it",
            )
        )
    for name in ("input_catalog", "image_list_file", "gaiaxp_synphot_csv"):
        given = getattr(settings.inputs, name)
        if given is not None and overwrites(settings, given):
            problems.append(
                (
                    ("inputs", name),
                    f"{given} would be overwritten by the run, which writes a file of this name",
                )
            )
    return problems


def overwrites(settings: Settings, given: str) -> bool:
    """Whether the input ``given`` (path or URL) is a file that a run with ``settings`` writes."""
    from tract7dt.store.layout import WorkDir  # importing the settings stays light

    if "://" in given and not given.startswith("file://"):
        return False
    path = _real(Path(unquote(urlsplit(given).path) if "://" in given else given))
    work, catalogue = WorkDir.of(settings), settings.outputs.final_catalog
    tables = [catalogue, catalogue.with_suffix(".parquet"), catalogue.with_suffix(".fits")]
    tables += [work.augmented_catalog, work.merged, work.zp_summary, work.zp_per_object]
    tables += [work.sources(stage) for stage in ("loaded", "gaia", "bright")]
    return path in [_real(table) for table in (*tables, work.wcs, work.bright_mask, work.report)]


def relative_outputs(settings: Settings) -> Settings:
    """Settings whose outputs inside ``work_dir`` are relative to it again, as a user would write them."""
    work_dir = settings.outputs.work_dir
    outputs = {name: _inside(value, work_dir) for name, value in settings.outputs if name != "work_dir"}
    log = settings.logging.file
    return settings.model_copy(
        update={
            "outputs": settings.outputs.model_copy(update=outputs),
            "logging": settings.logging.model_copy(
                update={"file": _inside(log, work_dir) if isinstance(log, Path) else log}
            ),
        }
    )


def _input(value: str, base_dir: Path) -> str:
    return value if "://" in value else str(_local(Path(value), base_dir))


def _local(path: Path, base_dir: Path) -> Path:
    # Resolved, so that one file has one name, whatever "..", links and working folder it was named through.
    return _real(base_dir / _expanded(path))


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises where links lead in a circle


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # no such user, no home: a folder whose name starts with "~"
        return path


def _inside(path: Path, work_dir: Path) -> Path:
    return path.relative_to(work_dir) if path.is_relative_to(work_dir) and path != work_dir else path
