"""A run as a whole: its work_dir, its record, its progress folder, what its workers log."""

from __future__ import annotations

import contextlib
import datetime
import json
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from flows.logs import logged_to_file
from tract7dt.errors import InputError
from tract7dt.progress import MessageReader, open_folder
from tract7dt.reuse import locked
from tract7dt.run_record import RunRecord
from tract7dt.store import write_text
from tract7dt.store.atomic import remove_temporaries

if TYPE_CHECKING:
    from pathlib import Path

    from tract7dt.settings import LoadedSettings, Settings

__all__ = ["claimed", "recorded_run"]

#: Seconds between two looks at what workers have logged.
_TAKE_UP_S = 0.5


@contextlib.contextmanager
def claimed(
    loaded: LoadedSettings, command: str, run_id: str, overrides: Mapping[str, Any] | None = None
) -> Iterator[str | None]:
    """Have the work_dir for this run alone, with a copy of the configuration and the log in it.

    Yields
    ------
    str or None
        The run that had it before and ended without a word, if one did.

    Raises
    ------
    RunLocked
        Another run works there.
    InputError
        The folder cannot be written to.
    """
    settings = loaded.settings
    stamp = datetime.datetime.now().strftime("%Y%m%d_%H%M%S")
    with contextlib.ExitStack() as stack:
        try:
            settings.outputs.work_dir.mkdir(parents=True, exist_ok=True)
            dead = stack.enter_context(locked(settings, run_id))
            remove_temporaries(settings.outputs.work_dir)  # of a run that was killed: here is nobody else now
            write_text(
                settings.outputs.work_dir / f"config_used_{stamp}.yaml",
                "".join(f"# override: {k} = {json.dumps(v)}\n" for k, v in (overrides or {}).items())
                + loaded.source,
            )
            stack.enter_context(logged_to_file(settings, command))
        except OSError as error:
            raise InputError(
                f"outputs.work_dir: {settings.outputs.work_dir} cannot be written to: {error}"
            ) from error
        yield dead


@contextlib.contextmanager
def recorded_run(
    settings: Settings, command: str, run_id: str, parameters: Mapping[str, Any]
) -> Iterator[RunRecord]:
    """Keep the record of a run, with Prefect or without: times, counts, the outcome, workers' messages."""
    with (
        RunRecord(settings, command, run_id, parameters) as record,
        open_folder(settings.outputs.work_dir) as folder,
        _messages_of_workers(folder),
    ):
        yield record


@contextlib.contextmanager
def _messages_of_workers(folder: Path) -> Iterator[None]:
    """Log here what workers log elsewhere, while the block runs."""
    reader, over = MessageReader(folder), threading.Event()

    def take_up() -> None:
        while not over.wait(_TAKE_UP_S):
            reader.take_up()

    thread = threading.Thread(target=take_up, name="worker-messages", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        reader.take_up()
