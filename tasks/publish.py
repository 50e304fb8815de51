"""Publication as a task: tried again only while the store does not answer, and then it goes on where it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.policy import task
from tract7dt import publish as library

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["publish"]


def _publish(settings: Settings, run_id: str, night: str) -> library.Published:
    """Publish the run in ``outputs.work_dir`` to ``publish.url``."""
    return library.publish(settings, run_id, night)


publish = task(_publish, name="publish", run_name="publish {night}")
