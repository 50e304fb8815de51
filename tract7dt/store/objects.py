"""Objects below one URL: S3, a local folder, whatever else fsspec opens, with errors that say what is wrong.

Credentials come from where every AWS tool looks for them (environment, ``~/.aws``, the role of the machine),
never from a URL or a configuration. A passing trouble is tried again a few times, with growing pauses;
everything else at once becomes a :class:`~tract7dt.errors.StoreError`.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import fsspec

from tract7dt.errors import ConfigError, StoreError, StoreUnreachableError
from tract7dt.store.atomic import atomic_path
from tract7dt.store.failures import (
    NO_CREDENTIALS,
    code_of,
    failures,
    is_missing,
    is_passing,
    is_refusal,
    with_code,
)
from tract7dt.store.urls import has_secret, redacted

__all__ = ["ObjectInfo", "ObjectStore", "endpoint_for"]

log = logging.getLogger(__name__)

T = TypeVar("T")

ATTEMPTS = 4
_FIRST_PAUSE_S = 0.5
_CONNECT_S = 10
_READ_S = 30
#: Tries of one request within s3fs; the pauses between whole tries are ours.
_S3_TRIES = 2

_WHERE_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE with ~/.aws/credentials"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says of an object without its content.

    Attributes
    ----------
    size : int or None
        Bytes; None where the store does not say.
    version : str
        Changes with the content: the ETag, else the time of the last change; "" where there is neither.
    by_range : bool
        Whether a part of the object can be asked for.
    """

    size: int | None
    version: str
    by_range: bool = True


def endpoint_for(endpoint_url: str | None = None) -> str | None:
    """Address of the S3 service: the one given, else that of the environment, else None (AWS itself)."""
    return endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


class ObjectStore:
    """The objects below ``url``; keys are relative to it, "" is the object at ``url`` itself.

    Parameters
    ----------
    url : str
        Any fsspec URL (``s3://bucket/prefix``, ``file:///folder``, ``memory://x``, ``https://...``), or a local
        path.
    endpoint_url : str, optional
        Address of an S3-compatible service; default AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL.
    attempts : int
        How often a request is made at most while the trouble may pass.

    Raises
    ------
    ConfigError
        The URL carries a secret, or no protocol that is known here.
    """

    def __init__(self, url: str, endpoint_url: str | None = None, attempts: int = ATTEMPTS) -> None:
        if has_secret(url) or (endpoint_url and has_secret(endpoint_url)):
            raise ConfigError(
                f"{redacted(url)}: a password or signature in a URL ends up in logs; expected a URL without, and "
                f"credentials in the environment or ~/.aws"
            )
        self.url = url.rstrip("/") or url
        self.endpoint = endpoint_for(endpoint_url)
        self._attempts = attempts
        self._fs, self._root = _file_system(url, self.endpoint)
        protocol = self._fs.protocol
        self.protocol: str = protocol if isinstance(protocol, str) else protocol[0]

    # --- what it is --------------------------------------------------------------------------------
    @property
    def is_local(self) -> bool:
        """Whether the objects are files of this machine."""
        return self.protocol in ("file", "local")

    @property
    def is_s3(self) -> bool:
        """Whether the store speaks S3."""
        return self.protocol in ("s3", "s3a")

    @property
    def is_web(self) -> bool:
        """Whether the store is a web server: read only, no listing."""
        return self.protocol in ("http", "https")

    def path(self, key: str = "") -> str:
        """Path of ``key`` within the file system."""
        if not key:
            return self._root
        return f"{self._root.rstrip('/')}/{quote(key) if self.is_web else key}"

    def address(self, key: str = "") -> str:
        """URL of ``key``, without secrets."""
        return redacted(f"{self.url}/{key}" if key else self.url)

    # --- reading -----------------------------------------------------------------------------------
    def info(self, key: str = "") -> ObjectInfo | None:
        """Size and version of an object; None where there is none (or only a folder)."""

        def ask() -> dict[str, Any] | None:
            try:
                return dict(self._fs.info(self.path(key)))
            except FileNotFoundError as error:
                if is_missing(error):
                    return None
                raise

        found = self._tried(key, ask)
        return None if found is None or found["type"] != "file" else _object_info(found)

    def find(self, prefix: str = "") -> dict[str, ObjectInfo]:
        """All objects below ``prefix``, by key."""

        def ask() -> dict[str, Any]:
            try:
                return dict(self._fs.find(self.path(prefix), detail=True))
            except FileNotFoundError as error:
                if is_missing(error):
                    return {}
                raise

        start = len(self._root.rstrip("/")) + 1
        return {name[start:]: _object_info(about) for name, about in self._tried(prefix, ask).items()}

    def folders(self, prefix: str = "") -> list[str]:
        """Names of the folders directly below ``prefix``, sorted."""

        def ask() -> list[dict[str, Any]]:
            try:
                return list(self._fs.ls(self.path(prefix), detail=True))
            except (FileNotFoundError, NotADirectoryError) as error:
                if isinstance(error, NotADirectoryError) or is_missing(error):
                    return []
                raise

        entries = self._tried(prefix, ask)
        names = {e["name"].rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] == "directory"}
        return sorted(names)

    def read(self, key: str = "", limit: int = 64 << 20) -> bytes:
        """The whole of a small object.

        Raises
        ------
        StoreError
            There is none, or it is larger than ``limit`` bytes.
        """
        about = self.info(key)
        if about is None:
            raise StoreError(f"{self.address(key)}: no such object")
        if about.size is not None and about.size > limit:
            raise StoreError(f"{self.address(key)}: expected at most {limit} bytes, found {about.size}")
        if about.size is not None:
            data = self.read_range(0, about.size, key) if about.size else b""
        else:
            with self.stream(key) as stream:
                data = self.once(key, lambda: bytes(stream.read(limit + 1)))
        if len(data) > limit:
            raise StoreError(f"{self.address(key)}: expected at most {limit} bytes, found more")
        return data

    def read_range(self, start: int, end: int, key: str = "") -> bytes:
        """Bytes ``[start, end)`` of an object."""

        def ask() -> bytes:
            return bytes(self._fs.cat_file(self.path(key), start=start, end=end))

        return self._tried(key, ask)

    @contextmanager
    def stream(self, key: str = "") -> Iterator[Any]:
        """The object as a file to read from its beginning."""
        options = {"block_size": 0} if self.is_web else {}
        stream = self._tried(key, lambda: self._fs.open(self.path(key), "rb", **options))
        with stream:
            yield stream

    # --- writing -----------------------------------------------------------------------------------
    def upload(self, source: Path, key: str, content_type: str) -> None:
        """Copy a local file to ``key``; S3 takes large ones in parts, several at a time."""
        if self.is_local:
            self._tried(key, lambda: _copy_file(source, Path(self.path(key))))
            return

        def put() -> None:
            self._make_folder(key)
            self._fs.put_file(str(source), self.path(key), **self._typed(content_type))

        self._tried(key, put)

    def write(self, data: bytes, key: str, content_type: str) -> None:
        """Put ``data`` at ``key``, in one piece: a reader sees the old object or the new one."""
        if self.is_local:
            self._tried(key, lambda: _write_file(data, Path(self.path(key))))
            return

        def put() -> None:
            self._make_folder(key)
            self._fs.pipe_file(self.path(key), data, **self._typed(content_type))

        self._tried(key, put)

    def arrived(self, key: str, size: int) -> int | None:
        """Bytes that the store holds of an object just written; None if there is none.

        A store of several machines, or one that keeps its folders in memory, may show what was there before for
        a moment: while it is not ``size``, it is asked again, a few times.
        """
        for attempt in range(1, self._attempts + 1):
            about = self.info(key)
            held = None if about is None else about.size
            if held == size or attempt == self._attempts or self.is_local:
                break
            pause = _pause_s(attempt)
            log.info(
                "%s: sent %d bytes, found %s; asked again in %.1f s", self.address(key), size, held, pause
            )
            time.sleep(pause)
        return held

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""

        def remove() -> None:
            try:
                self._fs.rm_file(self.path(key))
            except FileNotFoundError as error:
                if not is_missing(error):
                    raise

        self._tried(key, remove)

    def sign(self, key: str, seconds: int) -> str:
        """Presigned link to an object of an S3 store."""

        def ask() -> str:
            return str(self._fs.sign(self.path(key), expiration=seconds))

        return self._tried(key, ask)

    def _typed(self, content_type: str) -> dict[str, str]:
        if self.is_s3:
            return {"ContentType": content_type}
        return {"content_type": content_type} if self.protocol in ("gs", "gcs") else {}

    def _make_folder(self, key: str) -> None:
        if not (self.is_s3 or self.protocol in ("gs", "gcs", "abfs", "az")):
            self._fs.makedirs(self.path(key).rsplit("/", 1)[0], exist_ok=True)

    # --- errors ------------------------------------------------------------------------------------
    def once(self, key: str, action: Callable[[], T]) -> T:
        """Result of ``action``, tried once: a stream that broke off cannot be read again."""
        try:
            return action()
        except failures() as error:
            trouble = self._said(key, error)
        raise trouble

    def _tried(self, key: str, action: Callable[[], T]) -> T:
        """Result of ``action``, which is tried again while the trouble may pass."""
        for attempt in range(1, self._attempts + 1):
            try:
                return action()
            except failures() as error:
                trouble = self._said(key, error)
            if attempt == self._attempts or not isinstance(trouble, StoreUnreachableError):
                break
            pause = _pause_s(attempt)
            log.warning("%s; try %d of %d in %.1f s", trouble, attempt + 1, self._attempts, pause)
            time.sleep(pause)
        raise trouble

    def _said(self, key: str, error: BaseException) -> StoreError:
        """``error`` in our words: what, where, what to do; nothing of it is a secret."""
        where, code = self.address(key), code_of(error)
        names = {kind.__name__ for kind in type(error).__mro__}
        at = f" at {redacted(self.endpoint)}" if self.is_s3 and self.endpoint else ""
        if names & NO_CREDENTIALS:
            return StoreError(f"{where}: no credentials found; {_WHERE_CREDENTIALS}")
        if code == "NoSuchBucket":
            return StoreError(f"{where}: no such bucket{at}; create it first, or correct the name")
        if isinstance(error, FileNotFoundError) and is_missing(error):
            return StoreError(f"{where}: no such object{at}")
        if is_refusal(error, code):
            cure = _WHERE_CREDENTIALS if self.is_s3 else "check the rights"
            return StoreError(f"{where}: access refused{at} ({with_code(error, code)}); {cure}")
        if is_passing(error, code, names):
            return StoreUnreachableError(f"{where}: no answer{at} ({with_code(error, code)})")
        return StoreError(f"{where}: {with_code(error, code)}")


def _pause_s(attempt: int) -> float:
    return _FIRST_PAUSE_S * 2.0 ** (attempt - 1) * random.uniform(0.8, 1.2)


def _file_system(url: str, endpoint: str | None) -> tuple[Any, str]:
    """File system of ``url`` and the path of ``url`` in it."""
    options: dict[str, Any] = {}
    if url.startswith(("s3://", "s3a://")):
        options = _s3_options(endpoint)
    elif url.startswith(("http://", "https://")):
        options = {"client_kwargs": {"timeout": _web_timeout()}}
    try:
        fs, root = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        raise _missing_package(url) from error
    except ValueError as error:
        raise ConfigError(f"{redacted(url)}: cannot be read or written ({redacted(str(error))})") from error
    if options and "config_kwargs" in options:
        fs.retries = _S3_TRIES
    return fs, root if root == "/" else root.rstrip("/")


def _missing_package(url: str) -> ConfigError:
    return ConfigError(
        f"{redacted(url)}: this kind of URL needs a package that is not installed; "
        "pip install 'tract7dt-flow[s3]' brings what s3:// and https:// need"
    )


def _web_timeout() -> Any:
    try:
        import aiohttp
    except ImportError:
        raise _missing_package("https://...") from None
    return aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S)


def _s3_options(endpoint: str | None) -> dict[str, Any]:
    config: dict[str, Any] = {
        "signature_version": "s3v4",
        "connect_timeout": _CONNECT_S,
        "read_timeout": _READ_S,
        "retries": {"total_max_attempts": 1, "mode": "standard"},
    }
    if endpoint:
        # Services beside AWS rarely have a host name for each bucket, or know AWS's newer checksums.
        config |= {
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    client = {"region_name": region} if region else {}
    return {
        "endpoint_url": endpoint,
        "config_kwargs": config,
        "client_kwargs": client,
        "use_listings_cache": False,
    }


def _object_info(about: dict[str, Any]) -> ObjectInfo:
    for name in (
        "ETag",
        "etag",
        "Content-MD5",
        "md5Hash",
        "Last-Modified",
        "LastModified",
        "mtime",
        "created",
    ):
        if value := about.get(name):
            version = str(value).strip('"')  # S3 quotes it in one answer and not in another
            return ObjectInfo(about.get("size"), f"{name} {version}", about.get("partial") is not False)
    return ObjectInfo(about.get("size"), "", about.get("partial") is not False)


def _copy_file(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _write_file(data: bytes, target: Path) -> None:
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)
