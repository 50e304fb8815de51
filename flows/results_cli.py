"""``tract7dt results``: what observers do with published runs, from the shell.

Exit codes: 0 done; 1 no such run, the store refuses, a check failed; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from flows.outcome import Outcome

if TYPE_CHECKING:
    from rich.console import Console

    from tract7dt.publish.manifest import PublishedObject
    from tract7dt.results import Check

__all__ = ["app"]

app = typer.Typer(
    name="results",
    help="Published runs: list them, get their files, verify them, open the report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Typer reads the annotations at run time, and Optional[...] is what it understands in all versions.
Url = Annotated[
    str,
    typer.Option(
        envvar="TRACT7DT_RESULTS_URL", help="Where the runs are published: publish.url of their runs."
    ),
]
Endpoint = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--endpoint-url", envvar="AWS_ENDPOINT_URL", help="Address of an S3-compatible service."),
]
Field = Annotated[Optional[str], typer.Option(help="Field (tile name).")]  # noqa: UP045
Night = Annotated[Optional[str], typer.Option(metavar="YYYY-MM-DD", help="Night.")]  # noqa: UP045
Run = Annotated[str, typer.Option(help="Run id, its beginning, or latest.")]
Kind = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(help="Only files of this kind (catalogue, zero_points, plot, ...). Repeatable."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


@app.command("list")
def list_(
    url: Url, field: Field = None, night: Night = None, endpoint: Endpoint = None, debug: Debug = False
) -> None:
    """List the published runs."""
    with Outcome(debug):
        from rich.table import Table

        from tract7dt.results import list_runs

        runs = list_runs(url, field, night, endpoint)
        console = _console()
        if not runs:
            console.print("no run is published here")
            return
        table = Table()
        for name in ("field", "night", "run", "status", "finished", "files", "size", "latest"):
            right = name in ("files", "size")
            table.add_column(name, justify="right" if right else "left", overflow="fold")
        for run in runs:
            size, files = (_size(run.n_bytes), str(run.n_objects)) if run.n_objects else ("", "")
            latest = "latest" if run.is_latest else ""
            table.add_row(run.field, run.night, run.run_id, run.status, run.finished, files, size, latest)
        console.print(table)


@app.command()
def get(
    url: Url,
    field: Field = None,
    night: Night = None,
    run: Run = "latest",
    kind: Kind = None,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder to put the files in.")] = Path(),
    endpoint: Endpoint = None,
    debug: Debug = False,
) -> None:
    """Fetch a run; a download that was cut off goes on, every file is checked by its SHA-256."""
    with Outcome(debug):
        from tract7dt.results import download, find_run

        found = find_run(url, field, night, run, endpoint)
        wanted = found.chosen(tuple(kind or ()))
        with _progress(f"{found.manifest.field} {found.manifest.night}", sum(e.size for e in wanted)) as told:
            paths = download(found, to, kind or (), told)
        console = _console()
        for path in paths:
            console.print(str(path), soft_wrap=True, markup=False, highlight=False)
        if found.manifest.status == "partial":
            _warn(f"{found.name} is partial: some patches could not be fitted")


@app.command()
def verify(
    folder: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(
            metavar="[DIR]", help="Folder of a fetched run; without it the run is read where it is."
        ),
    ] = None,
    url: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(envvar="TRACT7DT_RESULTS_URL", help="Where the runs are published."),
    ] = None,
    field: Field = None,
    night: Night = None,
    run: Run = "latest",
    endpoint: Endpoint = None,
    debug: Debug = False,
) -> None:
    """Compare every file of a run with the sizes and digests of its manifest."""
    with Outcome(debug):
        from tract7dt.errors import ConfigError
        from tract7dt.results import find_run, verify, verify_folder

        if folder is not None:
            with _progress(folder.name, None) as told:
                check = verify_folder(folder, told)
        elif url:
            found = find_run(url, field, night, run, endpoint)
            with _progress(f"{found.manifest.field} {found.manifest.night}", found.manifest.n_bytes) as told:
                check = verify(found, told)
        else:
            raise ConfigError("expected a folder, or --url")
        _tell(check)


@app.command("open")
def open_(
    url: Url,
    field: Field = None,
    night: Night = None,
    run: Run = "latest",
    kind: Annotated[str, typer.Option(help="What to open: report, plot, log, ...")] = "report",
    expiry: Annotated[int, typer.Option(metavar="SECONDS", help="Life of the link.")] = 3600,
    show: Annotated[bool, typer.Option("--print", help="Print the link, open nothing.")] = False,
    endpoint: Endpoint = None,
    debug: Debug = False,
) -> None:
    """Open the report of a run in the browser, by a presigned link where the store is private."""
    with Outcome(debug):
        from tract7dt.results import find_run, open_address

        found = find_run(url, field, night, run, endpoint)
        link = open_address(found, kind, expiry, endpoint)
        if show:
            typer.echo(link.url)
        else:
            typer.launch(link.url)
        if link.expires is not None:
            typer.echo(f"the link works until {link.expires:%Y-%m-%d %H:%M:%S} UTC", err=True)


def _console() -> Console:
    from rich.console import Console

    return Console()


def _warn(text: str) -> None:
    typer.echo(f"tract7dt: {text}", err=True)


def _size(n_bytes: int) -> str:
    size, units = float(n_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


@contextlib.contextmanager
def _progress(title: str, total: int | None) -> Iterator[Callable[[PublishedObject, int], None]]:
    """A progress bar on the terminal; nothing where there is none."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    lock = threading.Lock()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=total)

        def told(entry: PublishedObject, n: int) -> None:
            with lock:
                bar.advance(task, n)

        yield told


def _tell(check: Check) -> None:
    """Print what a check found; a problem ends the command with exit code 1."""
    console = _console()
    for line in check.problems:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    for name in check.unlisted:
        console.print(f"not in the manifest: {name}", soft_wrap=True, markup=False, highlight=False)
    console.print(
        f"{check.n_sound} of {len(check.manifest.objects)} files are sound", markup=False, highlight=False
    )
    for line in _dropped(check):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    if check.problems:
        raise typer.Exit(1)


def _dropped(check: Check) -> list[str]:
    """What the retention of the field has removed, a line a day and kind."""
    found: dict[tuple[str, str], list[int]] = {}
    for entry in check.manifest.dropped:
        found.setdefault((entry.dropped[:10], entry.kind), []).append(entry.size)
    return [
        f"dropped on {day}: {len(sizes)} of kind {kind}, {_size(sum(sizes))}"
        for (day, kind), sizes in sorted(found.items())
    ]
