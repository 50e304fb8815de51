"""A run as a whole: its record, its progress folder, what its workers log."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tract7dt.progress import MessageReader, open_folder
from tract7dt.run_record import RunRecord

if TYPE_CHECKING:
    from pathlib import Path

    from tract7dt.settings import Settings

__all__ = ["recorded_run"]

#: Seconds between two looks at what workers have logged.
_TAKE_UP_S = 0.5


@contextlib.contextmanager
def recorded_run(settings: Settings, command: str) -> Iterator[RunRecord]:
    """Keep the record of a run, with Prefect or without: times, counts, the outcome, workers' messages."""
    with (
        RunRecord(settings, command) as record,
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
