"""Links to published objects for people: presigned where the store is S3, the plain URL elsewhere."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from tract7dt.errors import ConfigError
from tract7dt.store.objects import ObjectStore

__all__ = ["MAX_SECONDS", "Link", "link"]

#: AWS signs for a week at most; with temporary credentials a link ends when they do, whatever it says.
MAX_SECONDS = 604_800


@dataclass(frozen=True, slots=True)
class Link:
    """A link and its end.

    Attributes
    ----------
    url : str
        What a browser opens. A presigned one lets whoever has it read the object: not for logs.
    expires : datetime or None
        UTC; None: it does not expire.
    """

    url: str
    expires: datetime.datetime | None


def link(url: str, expiry_seconds: int = MAX_SECONDS, endpoint_url: str | None = None) -> Link:
    """Link to the object at ``url``.

    Parameters
    ----------
    url : str
        fsspec URL of the object.
    expiry_seconds : int
        Life of a presigned link, 1 s to a week.
    endpoint_url : str, optional
        S3-compatible service; default AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL.

    Raises
    ------
    ConfigError
        The life is out of range, or the URL carries a secret.
    StoreError
        There are no credentials to sign with.
    """
    if not 1 <= expiry_seconds <= MAX_SECONDS:
        raise ConfigError(f"life of a link: expected 1 to {MAX_SECONDS} s, found {expiry_seconds}")
    store = ObjectStore(url, endpoint_url)
    if not store.is_s3:
        return Link(url, None)
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return Link(store.sign("", expiry_seconds), now + datetime.timedelta(seconds=expiry_seconds))
