"""The sample fields on the command line: progress while they are made, and what to type next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from tract7dt.errors import SampleError

__all__ = ["download", "make"]


def _bar(what: str, *columns: ProgressColumn) -> tuple[Progress, Callable[[int, int | None], None]]:
    """A progress bar on a terminal (nothing elsewhere), and the function that moves it."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task(what, total=None)

    def move(done: int, total: int | None) -> None:
        bar.update(task, completed=done, total=total)

    return bar, move


def make(directory: Path, force: bool, **options: Any) -> None:
    """Simulate a field in ``directory`` and say how to run it.

    Parameters
    ----------
    directory : Path
    force : bool
        Replace a sample field that is there.
    **options
        Of :class:`tract7dt.sample.SampleOptions`; None: its default.
    """
    from tract7dt.sample import SampleOptions, make_sample

    try:
        asked = SampleOptions(**{name: value for name, value in options.items() if value is not None})
    except SampleError as error:
        raise typer.BadParameter(str(error)) from None
    bar, move = _bar("simulating bands", MofNCompleteColumn())
    with bar:
        made = make_sample(directory, asked, force, move)
    typer.echo(f"{len(made.images)} bands in {made.directory}, truth in {made.truth.name}")
    typer.echo(f"run it: tract7dt run --config {made.config}")


def download(directory: Path | None, force: bool) -> None:
    """Download the sample field into ``directory`` and say where it is."""
    from tract7dt.sample import download_sample

    bar, move = _bar("downloading", DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with bar:
        got = download_sample(directory, force, move)
    typer.echo(f"{len(got.images)} images in {got.directory}")
    typer.echo(
        f"list them in a configuration (`tract7dt dump-config`): inputs.image_list_file: {got.image_list}"
    )
