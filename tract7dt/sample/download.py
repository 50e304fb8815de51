"""Downloading the sample field: a release asset, checked, unpacked and brought into the usual form."""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import logging
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tract7dt._version import __version__
from tract7dt.errors import SampleError
from tract7dt.sample.archive import unpack
from tract7dt.sample.folder import new_folder
from tract7dt.sample.images import standardise_images
from tract7dt.sample.tables import write_image_list

__all__ = ["DownloadedSample", "SampleSource", "download_sample"]

log = logging.getLogger(__name__)

_DEFAULT_BASE_URL = "https://github.com"
_TIMEOUT_S = 60.0
_CHUNK = 1 << 20
_VARIABLES = {
    "TRACT7DT_SAMPLE_REPO": "repository, owner/name",
    "TRACT7DT_SAMPLE_TAG": "release tag",
    "TRACT7DT_SAMPLE_ASSET": "file of the release",
    "TRACT7DT_SAMPLE_SHA256": "SHA-256 of that file, which the download is checked against",
}


@dataclass(frozen=True, slots=True)
class SampleSource:
    """A release asset.

    Attributes
    ----------
    repo : str
        ``owner/name``.
    tag, asset : str
    sha256 : str
        Digest of the asset, 64 hexadecimal digits.
    base_url : str
        Where releases are served.
    """

    repo: str
    tag: str
    asset: str
    sha256: str
    base_url: str = _DEFAULT_BASE_URL

    def __post_init__(self) -> None:
        problems = []
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repo):
            problems.append(f"TRACT7DT_SAMPLE_REPO is {self.repo!r}, not of the form owner/name")
        if not re.fullmatch(r"[\w.+-]+", self.asset) or self.asset.strip(".") == "":
            problems.append(f"TRACT7DT_SAMPLE_ASSET is {self.asset!r}, not a file name")
        if not re.fullmatch(r"[0-9a-fA-F]{64}", self.sha256):
            problems.append(f"TRACT7DT_SAMPLE_SHA256 is {self.sha256!r}, not 64 hexadecimal digits")
        if not _is_safe(self.base_url):
            problems.append(f"TRACT7DT_SAMPLE_BASE_URL is {self.base_url!r}, not an https address")
        if problems:
            raise SampleError("sample download: " + "; ".join(problems))

    @property
    def url(self) -> str:
        """Address of the asset."""
        tag, asset = urllib.parse.quote(self.tag, safe=""), urllib.parse.quote(self.asset)
        return f"{self.base_url.rstrip('/')}/{self.repo}/releases/download/{tag}/{asset}"

    @property
    def folder_name(self) -> str:
        """Name of a folder for it: the asset's without what says how it is packed."""
        return re.sub(r"\.(tar(\.\w+)?|tgz|zip)$", "", self.asset)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> SampleSource:
        """Source that TRACT7DT_SAMPLE_REPO, _TAG, _ASSET, _SHA256 and, optionally, _BASE_URL name.

        Raises
        ------
        SampleError
            If variables are missing or malformed.
        """
        environment = os.environ if environment is None else environment
        values = {name: environment.get(name, "").strip() for name in _VARIABLES}
        missing = [f"{name} ({what})" for name, what in _VARIABLES.items() if not values[name]]
        if missing:
            raise SampleError(
                "the sample field to download is named by environment variables; set " + ", ".join(missing)
            )
        base_url = environment.get("TRACT7DT_SAMPLE_BASE_URL", "").strip() or _DEFAULT_BASE_URL
        repo, tag, asset, sha256 = values.values()
        return cls(repo, tag, asset, sha256, base_url)


@dataclass(frozen=True, slots=True)
class DownloadedSample:
    """Files of a downloaded field.

    Attributes
    ----------
    directory : Path
    image_list : Path
    images : tuple of Path
        In the order of the list.
    """

    directory: Path
    image_list: Path
    images: tuple[Path, ...]


def download_sample(
    directory: str | Path | None = None,
    force: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
    source: SampleSource | None = None,
    timeout: float = _TIMEOUT_S,
) -> DownloadedSample:
    """Download a sample field, check it, unpack it and write its image list.

    Images are renamed to ``images/7DT_UDS_{band}.fits``. The folder appears when it is complete; the
    archive is not kept.

    Parameters
    ----------
    directory : str or Path, optional
        Folder of the field; named after the asset, in the working directory, if not given.
    force : bool, optional
        Replace a sample field that is there.
    progress : callable, optional
        Called with (bytes so far, bytes in all or None).
    source : SampleSource, optional
        What to download; from the environment if not given.
    timeout : float, optional
        Longest wait for the server, s.

    Raises
    ------
    SampleError
        If the source is not named, the server does not deliver, the digest is wrong, or the archive is
        damaged or would write outside of the folder.
    """
    source = source or SampleSource.from_environment()
    target = Path(directory if directory is not None else source.folder_name).expanduser().absolute()
    with new_folder(target, force) as folder:
        archive = folder.parent / "archive"  # beside the new folder: goes with the staging area
        _fetch(source, archive, progress, timeout)
        unpack(archive, folder)
        images = standardise_images(folder)
        write_image_list(folder / "image_list.txt", images)
        names = [image.relative_to(folder) for image in images]
    log.info("sample field of %d images in %s", len(names), target)
    return DownloadedSample(target, target / "image_list.txt", tuple(target / name for name in names))


def _is_safe(url: str) -> bool:
    """Whether a download from ``url`` cannot be read or changed on its way: https, or this machine."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return False
    if not parts.hostname:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects (release assets are served by another host), but never off https."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not _is_safe(newurl) or (req.type == "https" and not newurl.lower().startswith("https:")):
            raise SampleError(f"{req.full_url}: refused a redirect to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch(
    source: SampleSource, path: Path, progress: Callable[[int, int | None], None] | None, timeout: float
) -> None:
    """Download to ``path`` and check the digest."""
    request = urllib.request.Request(source.url, headers={"User-Agent": f"tract7dt/{__version__}"})  # noqa: S310 -- see _is_safe
    opener = urllib.request.build_opener(_SafeRedirects)
    try:
        with opener.open(request, timeout=timeout) as response, path.open("wb") as stream:
            digest = _copy(response, stream, progress)
    except urllib.error.HTTPError as error:
        raise SampleError(f"{source.url}: the server answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise SampleError(f"{source.url}: cannot download: {error.reason}") from None
    except (TimeoutError, http.client.HTTPException, ConnectionError) as error:
        raise SampleError(f"{source.url}: the download broke off: {error or type(error).__name__}") from None
    except OSError as error:
        raise SampleError(f"cannot write the download to {path.parent}: {error.strerror}") from None
    if digest != source.sha256.lower():
        raise SampleError(
            f"{source.url}: its SHA-256 is {digest}, expected {source.sha256.lower()}: damaged or replaced"
        )


def _copy(
    response: http.client.HTTPResponse,
    stream: IO[bytes],
    progress: Callable[[int, int | None], None] | None,
) -> str:
    """Copy a response; its SHA-256."""
    length = response.headers.get("Content-Length")
    total = int(length) if length and length.isdigit() else None
    digest, done = hashlib.sha256(), 0
    while chunk := response.read(_CHUNK):
        stream.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        if progress is not None:
            progress(done, total)
    if total is not None and done < total:
        raise http.client.IncompleteRead(b"", total - done)
    return digest.hexdigest()
