"""The command on a field, in this process: what it says and how it ends."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from unittest import mock

from badinput_field import TinyField
from typer.testing import CliRunner

from flows.cli import app
from tract7dt import qa

__all__ = ["Ended", "run_command"]

#: Drawn in every run and of no concern here; pictures of sources, whose names come from the catalogue, are.
_NOT_DRAWN = ("draw_epsf_band", "draw_bright_mask", "draw_zero_points")


@dataclass
class Ended:
    """A command that has ended: exit code, what it wrote to the terminal, and that with its log."""

    code: int
    terminal: str
    said: str


def run_command(tiny: TinyField, *options: str) -> Ended:
    """``tract7dt run --direct`` on the configuration of the field."""
    logger, before = logging.getLogger("tract7dt"), dict(os.environ)
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    try:
        with mock.patch.multiple(qa, **dict.fromkeys(_NOT_DRAWN, mock.DEFAULT)):
            result = CliRunner().invoke(
                app, ["run", "--direct", "--config", str(tiny.folder / "config.yaml"), *options]
            )
    finally:
        os.environ.clear()
        os.environ.update(before)
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
        logger.setLevel(logging.NOTSET)
    logs = [path.read_text(encoding="utf-8") for path in tiny.folder.glob("work/*.log")]
    return Ended(result.exit_code, result.output, "\n".join([result.output, *logs]))
