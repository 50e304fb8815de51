"""What the commands that run stages do, from the configuration to the report.

NumPy and what builds on it read their number of threads when they are first imported, and the number
decides the last bits of a sum. It is therefore set here, from the configuration, before anything imports
NumPy (which is why this module imports late): a run gives the same bits with and without workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from rich.console import Console

from flows.display import Display
from flows.logs import FILE_ONLY, configure_logging
from flows.parameters import Given, read_given
from flows.worker import thread_variables
from tract7dt.errors import InputError, StageError
from tract7dt.settings import LoadedSettings, Settings

__all__ = ["run_direct", "run_flow"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Command:
    """A command that is about to run stages."""

    name: str
    given: Given
    loaded: LoadedSettings
    console: Console

    @property
    def settings(self) -> Settings:
        """What it works with."""
        return self.loaded.settings

    @property
    def title(self) -> str:
        return f"tract7dt {self.name}: {self.settings.inputs.tile_name}"


def run_direct(given: Given, command: str, debug: bool) -> None:
    """Run the stages of ``command`` in this process, without Prefect."""
    with _prepared(given, command, debug) as run:
        from flows.publication import clear_cache, publish_run
        from flows.session import claimed, recorded_run
        from tract7dt import pipeline
        from tract7dt.publish import publish
        from tract7dt.selection import parse_selection

        if command == "run":
            _check_inputs(run.settings)
        run_id = str(uuid.uuid4())
        with (
            claimed(run.loaded, command, run_id, given.overrides),
            Display(run.settings.outputs.work_dir, run.console, run.title),
        ):
            with recorded_run(run.settings, command, run_id, given.as_dict()) as record:
                pipeline.run_steps(run.settings, command, record, given.refresh, parse_selection(given.only))
            if command == "run":
                publish_run(run.settings, given, run_id, publish)
            clear_cache(run.settings)
        _report(run)


def run_flow(given: Given, command: str, debug: bool) -> None:
    """Run the whole pipeline as a flow, on the configured Prefect server or on one of the run's own."""
    with _prepared(given, command, debug) as run, contextlib.ExitStack() as stack:
        from flows import server
        from flows.pool import started_early
        from flows.runners import check_runner
        from tract7dt.store import WorkDir

        check_runner(run.settings)
        asked = stack.enter_context(contextlib.closing(server.ConfiguredUrl()))
        own = server.LocalServer(run.settings.outputs.work_dir / "prefect_server.log")
        if asked.is_nowhere:  # it loads while the inputs are looked at, and does nothing if they are wrong
            stack.enter_context(own.running(held=True))
        _check_inputs(run.settings)
        if not WorkDir.of(run.settings).field_manifest.exists():
            # A first run is sure to need its workers: they import the library while server and Prefect load.
            stack.enter_context(started_early(run.settings))
        os.environ.update(server.quiet_environment())
        url = asked.url()
        if url:
            server.check_reachable(url)
        elif asked.is_nowhere:
            own.release()
        else:
            stack.enter_context(own.running())
        os.environ["PREFECT_API_URL"] = url or own.url

        from flows.photometry import photometry  # imports Prefect, while the server starts

        stack.callback(server.drain)
        if not url:
            own.wait_until_ready()
            log.info("Prefect UI at %s while the run lasts", own.ui_url)
            # Nobody but this command looks after the run.
            from flows.patience import no_heartbeat

            stack.enter_context(no_heartbeat())
        stack.enter_context(Display(run.settings.outputs.work_dir, run.console, run.title))
        name = " ".join(part for part in (run.settings.inputs.tile_name, given.night) if part)
        photometry.with_options(flow_run_name=name)(**run.given.as_parameters())
        stack.close()
        _report(run)


@contextlib.contextmanager
def _prepared(given: Given, command: str, debug: bool) -> Iterator[_Command]:
    """Read and check what was given, set up the log; nothing is written if it is wrong."""
    loaded = read_given(given)
    settings = loaded.settings
    os.environ.update(thread_variables(settings.patch_run.threads_per_process))
    console = Console(stderr=True, log_time=False)
    try:
        settings.outputs.work_dir.mkdir(parents=True, exist_ok=True)
        configure_logging(settings, command, console, debug)
    except OSError as error:
        raise InputError(
            f"outputs.work_dir: {settings.outputs.work_dir} cannot be written to: {error}"
        ) from error
    for warning in loaded.warnings:
        log.warning("%s: %s", given.config, warning)
    from flows.publication import store_address

    with _sigterm_as_interrupt(), store_address(settings):
        try:
            yield _Command(command, _absolute(given, loaded), loaded, console)
        except BaseException as error:
            log.error(
                "%s failed: %s",
                command,
                "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}",
                exc_info=not _expected(error),
                extra=FILE_ONLY,  # the user is told once, at the end
            )
            raise


def _absolute(given: Given, loaded: LoadedSettings) -> Given:
    """The same, with a path that means the same in every folder."""
    return dataclasses.replace(given, config=str(loaded.path)) if loaded.path else given


def _expected(error: BaseException) -> bool:
    from tract7dt.errors import Tract7dtError

    return isinstance(error, (Tract7dtError, KeyboardInterrupt))


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C while the block runs: servers, workers and half files are cleared away."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_inputs(settings: Settings) -> None:
    """Refuse wrong inputs before a server or a worker is started."""
    from tract7dt import stages

    stages.check_inputs(settings)


def _report(run: _Command) -> None:
    """Say what came out; patches that could not be fitted make the run a failed one."""
    from flows.report import failed_patches, print_report
    from tract7dt.store import WorkDir

    if run.name == "run":
        print_report(run.settings, Console(file=sys.stdout))
    if failures := failed_patches(WorkDir.of(run.settings)):
        raise StageError(failures)
