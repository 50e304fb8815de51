"""What lies beside a published run: ``manifest.json`` and ``latest.json``, and what a reader may believe of them.

A manifest that comes back from a store is somebody else's text: every key is checked before it becomes a
path, every size and digest before it is relied on.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from tract7dt.errors import StoreError
from tract7dt.store.urls import key_problem, name_problem

__all__ = [
    "LATEST",
    "MANIFEST",
    "MAX_MANIFEST_BYTES",
    "UPLOAD",
    "DroppedObject",
    "InputRecord",
    "Latest",
    "Manifest",
    "PublishedObject",
    "RunPointer",
    "parse",
    "text_of",
]

MANIFEST = "manifest.json"
LATEST = "latest.json"
#: Plan of an upload that is under way: by it the next one knows what is there already.
UPLOAD = "upload.json"
#: A manifest takes 250 bytes an object; nobody needs more than this.
MAX_MANIFEST_BYTES = 64 << 20
_MAX_PROBLEMS = 5

Model = TypeVar("Model", bound="_Stored")


def _checked_key(value: str) -> str:
    if problem := key_problem(value):
        raise ValueError(f"{value!r} {problem}")
    return value


def _checked_name(value: str) -> str:
    if problem := name_problem(value):
        raise ValueError(f"{value!r} {problem}")
    return value


Key = Annotated[str, AfterValidator(_checked_key)]
PartName = Annotated[str, AfterValidator(_checked_name)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Stored(BaseModel):
    """Base of what is stored: frozen, strict; a key of a later version is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class PublishedObject(_Stored):
    """One object of a run.

    Attributes
    ----------
    key : str
        Relative to the run's folder.
    size : int
        Bytes.
    sha256 : str
    content_type : str
    kind : str
        ``catalogue``, ``zero_points``, ``plot``, ... (:data:`tract7dt.publish.contents.RULES`).
    stage : str
        Stage that made it; ``run`` for what concerns all of it.
    """

    key: Key
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256
    content_type: str
    kind: str
    stage: str


class DroppedObject(PublishedObject):
    """An object that lay in the run's folder once and went by ``retention``.

    Attributes
    ----------
    dropped : str
        When, ISO 8601.
    """

    dropped: str


class InputRecord(_Stored):
    """An input of the run and the digest of its bytes ("" where it was not read here)."""

    path: str
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]


class Manifest(_Stored):
    """Everything that is known of a published run; there only when all of it is.

    Attributes
    ----------
    format : int
    field, night, run_id : str
    status : str
        ``done``, or ``partial``: some patches could not be fitted (``counts.failed_patches``).
    started, finished, published : str
        ISO 8601.
    versions : dict
        Of Python and of the packages that the numbers depend on.
    configuration_sha256 : str
    inputs : tuple of InputRecord
    counts : dict
        Sources, fitted, reliable, patches, failed_patches.
    objects : tuple of PublishedObject
        By key; all of them are there.
    dropped : tuple of DroppedObject
        What was there and is no more (:mod:`tract7dt.upkeep.published`).
    """

    format: Literal[1] = 1
    field: PartName
    night: PartName
    run_id: PartName
    status: Literal["done", "partial"]
    started: str
    finished: str
    published: str
    versions: dict[str, str]
    configuration_sha256: str
    inputs: Annotated[tuple[InputRecord, ...], Field(strict=False)]
    counts: dict[str, Any]
    objects: Annotated[tuple[PublishedObject, ...], Field(strict=False)]
    dropped: Annotated[tuple[DroppedObject, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        # A key in two spellings of its case would be one file on some disks.
        folded = [entry.key.casefold() for entry in (*self.objects, *self.dropped)]
        if len(set(folded)) < len(folded):
            raise ValueError("an object comes twice")
        folders = {key.rsplit("/", n)[0] for key in folded for n in range(1, key.count("/") + 1)}
        if folders & set(folded):
            raise ValueError("a name is both an object and a folder")
        if set(folded) & {MANIFEST, UPLOAD}:
            raise ValueError("an object has the name of the manifest")
        return self

    @property
    def n_bytes(self) -> int:
        """Size of all objects."""
        return sum(entry.size for entry in self.objects)

    @property
    def prefix(self) -> str:
        """Folder of the run below the store's URL."""
        return f"{self.field}/{self.night}/{self.run_id}"

    def of_kind(self, *kinds: str) -> list[PublishedObject]:
        """Objects of some kinds, in the manifest's order."""
        return [entry for entry in self.objects if entry.kind in kinds]


class RunPointer(_Stored):
    """Names a published run of a field and says what its manifest holds."""

    night: PartName
    run_id: PartName
    status: str
    manifest_sha256: Sha256


class Latest(RunPointer):
    """``latest.json`` of a field.

    Attributes
    ----------
    field : str
    manifest : str
        Key of the run's manifest, relative to the field's folder.
    switched : str
        When, ISO 8601.
    previous : RunPointer or None
        The run that was the latest before.
    """

    format: Literal[1] = 1
    field: PartName
    manifest: Key
    switched: str
    previous: RunPointer | None = None


def text_of(value: _Stored) -> bytes:
    """A model as the JSON that is stored."""
    return (
        json.dumps(value.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    ).encode()


def parse(kind: type[Model], data: bytes, where: str) -> Model:
    """Read what :func:`text_of` wrote, or what somebody else put in its place.

    Parameters
    ----------
    kind : type
        :class:`Manifest` or :class:`Latest`.
    data : bytes
    where : str
        Address for messages.

    Raises
    ------
    StoreError
        Not JSON, or not such a description; says what is wrong.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        told = [
            f"{'.'.join(map(str, e['loc'])) or 'all'}: {e['msg']}" for e in error.errors()[:_MAX_PROBLEMS]
        ]
        more = error.error_count() - len(told)
        raise StoreError(
            f"{where}: not a {kind.__name__.lower()} of a published run: {'; '.join(told)}"
            + (f" and {more} more" if more > 0 else "")
        ) from None
