"""What a stage made, written down: ``.reuse/{stage}.json``. It describes what is in the work_dir now."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tract7dt.reuse.digests import file_stamp
from tract7dt.store import has_digest, sha256_file, write_json

__all__ = [
    "Part",
    "Product",
    "Record",
    "drop_record",
    "examine",
    "products_of",
    "read_record",
    "write_record",
]

_FORMAT = 2


@dataclass(frozen=True, slots=True)
class Product:
    """A file that a stage wrote.

    Attributes
    ----------
    path : str
        Relative to the work_dir.
    stamp : list of int
        Size and times, ns, when it was last seen whole.
    digest : str
        Of its bytes: a quick one, or the SHA-256 where its writer knew that.
    """

    path: str
    stamp: list[int]
    digest: str


@dataclass(frozen=True, slots=True)
class Part:
    """What a part of a stage's work depended on, and the files that it made.

    Attributes
    ----------
    inputs : dict of str to str
        Digests by name.
    settings : dict
        Values by dotted key.
    products : tuple of Product
    """

    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    products: tuple[Product, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """One unit of a stage that has ended well.

    Attributes
    ----------
    stage, unit : str, str or None
    version : int
        Code version of the stage.
    parts : dict of str to Part
        ``result``, ``pictures``, ``checks``.
    value : object
        What the stage returned, as plain data.
    made_by, made_at : str
        Run and local time.
    refresh : bool
        It was asked to be made again, and has not been yet.
    key : str
        Of the plan that it was made by. Files that nobody had read then stand in it by their stamps.
    """

    stage: str
    unit: str | None
    version: int
    parts: Mapping[str, Part]
    value: Any
    made_by: str
    made_at: str
    refresh: bool = False
    key: str = ""
    format: int = field(default=_FORMAT)


def read_record(path: Path) -> Record | None:
    """The record at ``path``; None where there is none that can be read: then the stage is made again."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["format"] != _FORMAT:
            return None
        parts = {
            name: Part(part["inputs"], part["settings"], tuple(Product(**p) for p in part["products"]))
            for name, part in stored["parts"].items()
        }
        return Record(**(stored | {"parts": parts}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_record(path: Path, record: Record) -> None:
    """Write ``record``, whole or not at all."""
    write_json(path, asdict(record))


def drop_record(path: Path) -> None:
    """Forget what was made, before it is made again: a kill from here on leaves no record of it."""
    path.unlink(missing_ok=True)


def products_of(written: Mapping[Path, str | None], root: Path, but: Iterable[Path] = ()) -> list[Product]:
    """The files of ``written`` that are there, digested where their writer has not done it.

    Parameters
    ----------
    written : mapping of Path to str or None
        From :func:`tract7dt.store.recorded_writes`.
    root : Path
        The work_dir; files outside of it are named absolutely.
    but : iterable of Path
        Files that a later stage writes again.
    """
    left_out = set(but)
    products = []
    for path, digest in written.items():
        if path in left_out or not path.is_file():
            continue
        name = str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
        # The stamp first: a file that changes while it is digested must look changed.
        products.append(Product(name, file_stamp(path), digest or sha256_file(path)))
    return products


def examine(products: Iterable[Product], root: Path) -> tuple[str, dict[str, Product]]:
    """Whether all of ``products`` are there and whole.

    A file with the stamp of the record is trusted; another is digested.

    Returns
    -------
    problem : str
        What is wrong with the first that is not whole; "" if none.
    touched : dict of str to Product
        Whole ones with a new stamp, by path.
    """
    touched: dict[str, Product] = {}
    for product in products:
        path = root / product.path
        try:
            stamp = file_stamp(path)
        except OSError:
            return f"product {product.path} is missing", {}
        if stamp == product.stamp:
            continue
        made = product.stamp[0]
        if stamp[0] != made:
            return f"product {product.path} is damaged or written over ({stamp[0]} bytes, made {made})", {}
        with contextlib.suppress(OSError):
            if has_digest(path, product.digest):
                touched[product.path] = replace(product, stamp=stamp)
                continue
        return f"product {product.path} is damaged or written over (other bytes)", {}
    return "", touched
