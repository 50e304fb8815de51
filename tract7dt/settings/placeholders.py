"""Paths that name the field and the night: ``{tile_name}`` and ``{night}`` in inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tract7dt.errors import ConfigError
from tract7dt.settings.root import Settings

__all__ = ["fill_placeholders"]


def fill_placeholders(settings: Settings, night: str | None) -> Settings:
    """Settings with ``{tile_name}`` and ``{night}`` in their paths replaced (the image list comes later).

    Parameters
    ----------
    settings : Settings
        With absolute paths.
    night : str or None
        Night of the run, YYYY-MM-DD; None if it was not given.

    Raises
    ------
    ConfigError
        If a path names the night and it was not given.
    """
    values = {"tile_name": settings.inputs.tile_name} | ({"night": night} if night else {})
    lacking: list[str] = []

    def fill(key: str, text: str) -> str:
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", value)
        if "{night}" in text:
            lacking.append(f"{key}: {text}: which night? Give it (--night, or the parameter night)")
        return text

    inputs = _filled("inputs", settings.inputs, fill)
    outputs = _filled("outputs", settings.outputs, fill)
    log = settings.logging.file
    if isinstance(log, Path):
        log = Path(fill("logging.file", str(log)))
    if lacking:
        raise ConfigError("\n".join(lacking))
    filled = settings.model_copy(
        update={
            "inputs": settings.inputs.model_copy(update=inputs),
            "outputs": settings.outputs.model_copy(update=outputs),
            "logging": settings.logging.model_copy(update={"file": log}),
        }
    )
    return filled.with_base_dir(settings.base_dir).with_names(values)


def _filled(section: str, model: Any, fill: Callable[[str, str], str]) -> dict[str, Any]:
    return {
        name: type(value)(fill(f"{section}.{name}", str(value)))
        for name, value in model
        if value is not None and name != "tile_name"
    }
