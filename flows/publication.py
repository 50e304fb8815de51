"""What follows a run that ended well: its publication, and the house-keeping of the copies of inputs."""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tract7dt.errors import PublishError, Tract7dtError
from tract7dt.nights import evening_before
from tract7dt.store import WorkDir, write_json
from tract7dt.store.urls import redacted

if TYPE_CHECKING:
    from flows.parameters import Given
    from tract7dt.publish import Published
    from tract7dt.settings import Settings

__all__ = ["clear_cache", "publish_run", "store_address"]

log = logging.getLogger(__name__)

_ENDPOINT = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


@contextlib.contextmanager
def store_address(settings: Settings) -> Iterator[None]:
    """Let inputs come from the store that results go to, unless the environment names another."""
    endpoint = settings.publish.endpoint_url
    if endpoint is None or any(os.environ.get(name) for name in _ENDPOINT):
        yield
        return
    os.environ[_ENDPOINT[0]] = endpoint
    try:
        yield
    finally:
        del os.environ[_ENDPOINT[0]]


def publish_run(
    settings: Settings, given: Given, run_id: str, publish: Callable[[Settings, str, str], Published]
) -> Published | None:
    """Publish a run that has ended well, and note in ``publication.json`` what became of it.

    Parameters
    ----------
    settings : Settings
    given : Given
        Of the run. One of a part of the field is not published: its catalogue is not the field's.
    run_id : str
    publish : callable
        The library's function, or the task of it.

    Returns
    -------
    Published or None
        None if nothing was to be published.

    Raises
    ------
    PublishError
        The catalogue is there, but not published.
    """
    url = settings.publish.url
    if url is None or not given.publish:
        return None
    if given.only:
        log.info("a run of a part of the field is not published")
        return None
    work = WorkDir.of(settings)
    night = given.night or evening_before(datetime.datetime.now(datetime.UTC), settings.night.timezone)
    note = {"run_id": run_id, "field": work.name, "night": night}
    try:
        done = publish(settings, run_id, night)
    except (Tract7dtError, OSError) as error:
        said = redacted(f"{type(error).__name__}: {error}")
        write_json(work.publication, note | {"status": "failed", "url": url, "error": said})
        raise PublishError(
            f"the catalogue is complete ({work.final_catalog}), but not published: {said}\n"
            "run again when that is cured: all else is reused"
        ) from error
    write_json(
        work.publication,
        note | {"status": "published", "url": done.url, "manifest_sha256": done.manifest_sha256},
    )
    return done


def clear_cache(settings: Settings) -> None:
    """Remove copies of inputs that no run has used for ``runtime.input_cache_days``."""
    days = settings.runtime.input_cache_days
    if days is None:
        return
    from tract7dt.store.remote import cache_folder, prune_cache

    try:
        if freed := prune_cache(days):
            log.info(
                "%s: %d bytes of copies that no run has used for %g days removed", cache_folder(), freed, days
            )
    except OSError as error:  # another run removes the same, or another user's copies
        log.warning("%s cannot be tidied up: %s", cache_folder(), error)
