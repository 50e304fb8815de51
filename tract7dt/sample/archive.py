"""Unpacking an archive that nobody needs to trust: plain files and folders, inside of one folder."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

from tract7dt.errors import SampleError

__all__ = ["unpack"]

_Member = TypeVar("_Member")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar (also compressed) or zip archive into ``folder``.

    A single folder that holds everything is left out. Nothing is written before every member is checked.

    Parameters
    ----------
    archive : Path
    folder : Path
        Empty.

    Raises
    ------
    SampleError
        If the archive is damaged or of another kind, or has a member that is neither a file nor a folder,
        or lies outside of the folder.
    """
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, folder)
        elif tarfile.is_tarfile(archive):
            _unpack_tar(archive, folder)
        else:
            raise SampleError("the sample archive is neither a tar nor a zip file, or is damaged")
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        RuntimeError,
    ) as error:
        # RuntimeError: what zipfile raises for an encrypted member
        raise SampleError(f"the sample archive is damaged: {error}") from None
    except OSError as error:
        raise SampleError(f"cannot unpack the sample archive: {error}") from None


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        files = []
        for member in packed.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise SampleError(
                    f"the sample archive holds {member.filename!r}, which is a link or a device"
                )
            path = _inside(member.filename)
            if not member.is_dir():
                files.append((member, path))
        for member, path in _without_top(files):
            with packed.open(member) as content:
                _write(content, folder / path)


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as packed:
        files = []
        for member in packed.getmembers():
            if not (member.isreg() or member.isdir()):
                raise SampleError(f"the sample archive holds {member.name!r}, which is a link or a device")
            path = _inside(member.name)
            if member.isreg():
                files.append((member, path))
        for member, path in _without_top(files):
            content = packed.extractfile(member)
            if content is not None:
                with content:
                    _write(content, folder / path)


def _inside(name: str) -> PurePosixPath:
    """Path of a member; it must not climb out of the folder or start at the root."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise SampleError(f"the sample archive holds {name!r}, which lies outside of the folder")
    return path


def _without_top(
    files: list[tuple[_Member, PurePosixPath]],
) -> Iterator[tuple[_Member, PurePosixPath]]:
    """Members with the folder that holds all of them left out of their paths."""
    if not files:
        raise SampleError("the sample archive holds no files")
    tops = {path.parts[0] for _, path in files}
    strip = len(tops) == 1 and all(len(path.parts) > 1 for _, path in files) and tops != {"images"}
    for member, path in files:
        yield member, PurePosixPath(*path.parts[1:]) if strip else path


def _write(content: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as stream:
        shutil.copyfileobj(content, stream, 1 << 20)
