"""Making the paths of a configuration absolute."""

from __future__ import annotations

from pathlib import Path

from tract7dt.settings.root import Settings

__all__ = ["relative_outputs", "resolve_paths"]


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
    return (base_dir / _expanded(path)).resolve()


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # no such user, no home: a folder whose name starts with "~"
        return path


def _inside(path: Path, work_dir: Path) -> Path:
    return path.relative_to(work_dir) if path.is_relative_to(work_dir) and path != work_dir else path
