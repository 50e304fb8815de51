"""Payloads that travel by URL: fits on machines that share no disk with the run.

Below ``runtime.staging_url`` a run has a folder of its own. There it puts the payloads of a batch; a worker,
which is given their URLs and the settings and nothing else, fits them in a folder of its own disk and puts all
that the fits left into one archive; the run brings that into its work_dir and removes both. What passes is
checked by its digest.
"""

from __future__ import annotations

import hashlib
import logging
import socket
import tarfile
import tempfile
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tract7dt import stages
from tract7dt.errors import StoreError
from tract7dt.progress import progress_folder
from tract7dt.resources import report_usage
from tract7dt.store import WorkDir, atomic_path, ref_to, sha256_bytes, sha256_file
from tract7dt.store.objects import ObjectStore
from tract7dt.store.remote import fetch
from tract7dt.store.urls import key_problem
from tract7dt.types import Ref

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["bring_fits", "clear", "fit_staged_batch", "stage_payloads"]

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
#: Payloads that are on their way to the store at once.
_UPLOADS = 8
#: Folders of an archive: fits by patch, and what the worker says of its CPU time and memory.
_FITS, _USAGE = "fits", "usage"
_META = "meta.json"


def _folder(settings: Settings) -> str:
    """URL of what a run stages: of the field, and of this work_dir on this machine."""
    where = f"{socket.gethostname()}:{settings.outputs.work_dir}"
    mine = hashlib.sha256(where.encode()).hexdigest()[:12]
    return f"{str(settings.runtime.staging_url).rstrip('/')}/{settings.inputs.tile_name}/{mine}"


def _store(settings: Settings, url: str) -> ObjectStore:
    return ObjectStore(url, settings.publish.endpoint_url)


# --- the run ---------------------------------------------------------------------------------------------


def stage_payloads(settings: Settings, payloads: Sequence[Ref]) -> list[Ref]:
    """Put payloads where workers find them; the same references with URLs as paths.

    Raises
    ------
    StoreUnreachableError
        The store does not answer; worth another try later.
    StoreError
        It refuses.
    """
    store = _store(settings, _folder(settings))

    def put(ref: Ref) -> Ref:
        key = f"payloads/{Path(ref.path).name}"
        store.upload(Path(ref.path), key, "application/fits")
        return Ref(f"{store.url}/{key}", ref.sha256, ref.kind)

    # One after the other they would feed no more than a dozen workers.
    with ThreadPoolExecutor(_UPLOADS) as threads:
        return list(threads.map(put, payloads))


def bring_fits(settings: Settings, archive: Ref, payloads: Sequence[Ref]) -> list[Ref]:
    """Bring the fits of a batch into the work_dir, and remove what was staged for it.

    Parameters
    ----------
    settings : Settings
    archive : Ref
        From :func:`fit_staged_batch`.
    payloads : sequence of Ref
        Of the batch, in the work_dir; with ``patch_run.remove_payloads`` those of fitted patches go.

    Returns
    -------
    list of Ref
        ``meta.json`` of each patch, in the order of ``payloads``.

    Raises
    ------
    StoreError
        The archive is not what the worker put there, or holds something that is not of these patches.
    """
    work, store = WorkDir.of(settings), _store(settings, archive.path)
    tags = [stages.payload_tag(ref) for ref in payloads]
    with tempfile.TemporaryDirectory(prefix=".staged.", dir=work.root) as name:
        part = Path(name) / "fits.tar"
        about = store.info()
        if about is None:
            raise StoreError(f"{store.address()}: no such object")
        fetch(store, "", part, about)
        found = sha256_file(part)
        if found != archive.sha256:
            raise StoreError(f"{store.address()}: expected sha256 {archive.sha256}, found {found}")
        _unpack(part, store.address(), set(tags), work)
    staged = _store(settings, _folder(settings))
    for key in [f"payloads/{Path(ref.path).name}" for ref in payloads]:
        staged.delete(key)
    staged.delete(archive.path.removeprefix(f"{staged.url}/"))
    fits = [ref_to(work.patch_meta(tag), "patch_fit") for tag in tags]
    if settings.patch_run.remove_payloads:
        for ref, tag in zip(payloads, tags):
            if work.patch_catalog(tag).exists():  # a patch that failed has none
                Path(ref.path).unlink(missing_ok=True)
    return fits


def clear(settings: Settings) -> None:
    """Remove all that the run has staged; a store that does not let it is told, and left as it is."""
    store = _store(settings, _folder(settings))
    try:
        for key in store.find():
            store.delete(key)
    except StoreError as error:
        log.warning("what was staged is not removed: %s", error)


def _unpack(path: Path, address: str, tags: set[str], work: WorkDir) -> None:
    """Files of an archive to their places; each patch's meta.json last, since it vouches for the others."""
    with tarfile.open(path, "r:") as archive:
        members = [(m, _place(m, address, tags, work)) for m in archive if not m.isdir()]
        for member, target in sorted(members, key=lambda entry: entry[1].name == _META):
            content = archive.extractfile(member)
            assert content is not None
            if target.parent.is_dir() or member.name.split("/")[0] == _FITS:
                with atomic_path(target) as temporary, temporary.open("wb") as out:
                    _copy(content, out)


def _place(member: tarfile.TarInfo, address: str, tags: set[str], work: WorkDir) -> Path:
    """Where a member of an archive belongs.

    Raises
    ------
    StoreError
        It is not a plain file, or not of one of ``tags``.
    """
    kind, *rest = member.name.split("/")
    if member.isfile() and not key_problem(member.name):
        if kind == _FITS and len(rest) > 1 and rest[0] in tags:
            return work.fits.joinpath(*rest)
        if kind == _USAGE and len(rest) == 1 and rest[0].endswith(".usage.json"):
            return progress_folder(work.root) / rest[0]
    raise StoreError(f"{address}: {member.name!r} is not a file of the patches that were asked for")


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    while data := source.read(_CHUNK):
        target.write(data)


# --- the worker ------------------------------------------------------------------------------------------


def fit_staged_batch(settings: Settings, payloads: Sequence[Ref]) -> Ref:
    """Fit the patches of a batch with nothing but the URLs of their payloads.

    Works in a temporary folder of this machine (``TMPDIR``), of which nothing stays.

    Returns
    -------
    Ref
        The archive of all that the fits left, beside the payloads' folder.

    Raises
    ------
    StoreUnreachableError
        The store does not answer.
    StoreError
        A payload is not there, or not the one that was put there.
    """
    folder = payloads[0].path.rsplit("/", 2)[0]
    with tempfile.TemporaryDirectory(prefix="tract7dt-") as name:
        here = _settings_at(settings, Path(name) / "work")
        work, archive = WorkDir.of(here), Path(name) / "fits.tar"
        usage = progress_folder(work.root)
        usage.mkdir(parents=True)
        stages.fit_patch_batch(here, [_local(here, ref, work) for ref in payloads])
        report_usage(usage)
        with tarfile.open(archive, "w") as packed:
            for ref in payloads:
                tag = stages.payload_tag(ref)
                packed.add(work.patch_dir(tag), f"{_FITS}/{tag}", filter=_files_only)
            for path in usage.glob("*.usage.json"):
                packed.add(path, f"{_USAGE}/{path.name}")
        key = f"fits/{stages.payload_tag(payloads[0])}-{uuid.uuid4().hex}.tar"
        _store(settings, folder).upload(archive, key, "application/x-tar")
        return Ref(f"{folder}/{key}", sha256_file(archive), "fits")


def _files_only(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    hidden = member.name.rsplit("/", 1)[-1].startswith(".")
    return member if (member.isfile() or member.isdir()) and not hidden else None


def _settings_at(settings: Settings, root: Path) -> Settings:
    """The settings with all outputs below ``root``."""
    was = Path(settings.outputs.work_dir)
    places = {"work_dir": root}
    for name in type(settings.outputs).model_fields:
        if name != "work_dir":
            path = Path(getattr(settings.outputs, name))
            places[name] = root / (path.relative_to(was) if path.is_relative_to(was) else path.name)
    return settings.model_copy(update={"outputs": settings.outputs.model_copy(update=places)})


def _local(settings: Settings, ref: Ref, work: WorkDir) -> Ref:
    """The payload on the disk of this machine."""
    store = _store(settings, ref.path)
    data = store.read(limit=4 << 30)
    if (found := sha256_bytes(data)) != ref.sha256:
        raise StoreError(f"{store.address()}: expected sha256 {ref.sha256}, found {found}")
    path = work.payloads / Path(ref.path).name
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return Ref(str(path), ref.sha256, ref.kind)
