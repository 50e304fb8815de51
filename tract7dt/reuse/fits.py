"""Which fits of patches are there and whole: each patch's meta.json is its record."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tract7dt.errors import ProductError
from tract7dt.reuse.digests import digest_of
from tract7dt.reuse.needs import FIT_KEYS, values_of
from tract7dt.reuse.records import Product
from tract7dt.reuse.versions import STAGE_VERSIONS
from tract7dt.store import WorkDir, ref_to, sha256_file, write_json
from tract7dt.types import Ref

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = [
    "fit_digest",
    "note_makers",
    "remaining_payloads",
    "sealed",
    "still_wanted",
    "why_not_fitted",
    "with_payloads",
]

log = logging.getLogger(__name__)

_SEAL = "meta_sha256"


def remaining_payloads(
    settings: Settings, payloads: Sequence[Ref], refresh: bool = False
) -> tuple[list[Ref], list[Ref]]:
    """Payloads that are to be fitted, and the fits of the others.

    A fit is there if it is of this payload, of these settings and of this code version, and if its files
    are whole. A patch that failed is tried again. ``patch_run.resume`` does not count here.

    Parameters
    ----------
    settings : Settings
    payloads : sequence of Ref
    refresh : bool
        Fit all of them again; what is there is forgotten at once, so that a run that is killed in the
        middle does not take it up again.

    Returns
    -------
    to_fit, done : list of Ref
        Payloads, and ``meta.json`` of the patches that have been fitted, in the order given.

    Raises
    ------
    ProductError
        Payloads that are to be fitted are not there; nothing has been forgotten then.
    """
    if refresh:
        _check_there(payloads)
    work, digest = WorkDir.of(settings), fit_digest(settings)
    to_fit: list[Ref] = []
    done: list[Ref] = []
    causes: dict[str, list[str]] = {}
    for ref in payloads:
        tag = Path(ref.path).name.split(".")[0]
        if refresh:
            work.patch_meta(tag).unlink(missing_ok=True)
        why = why_not_fitted(work, tag, ref, digest) if not refresh else "a refresh was asked for"
        if why:
            to_fit.append(ref)
            causes.setdefault(why, []).append(tag)
        else:
            done.append(ref_to(work.patch_meta(tag), "patch_fit"))
            if settings.patch_run.remove_payloads:
                Path(ref.path).unlink(missing_ok=True)
    _check_there(to_fit)
    for why, tags in causes.items():
        more = ", ..." if len(tags) > 3 else ""
        log.info("fits: %d of %d made: %s (%s%s)", len(tags), len(payloads), why, ", ".join(tags[:3]), more)
    if done:
        log.info("fits: %d of %d reused", len(done), len(payloads))
    return to_fit, done


def _check_there(payloads: Sequence[Ref]) -> None:
    gone = [Path(ref.path) for ref in payloads if not Path(ref.path).is_file()]
    if gone:
        raise ProductError(
            f"{len(gone)} of {len(payloads)} payloads are not in {gone[0].parent} (patch_run.remove_payloads "
            f"removes those of fitted patches): run `tract7dt build-patch-inputs` first"
        )


def with_payloads(settings: Settings, refresh: Collection[str]) -> set[str]:
    """Stages to make again: where fits are, the payloads that were removed after them are, too."""
    more = (
        {"build_patch_inputs"} if settings.patch_run.remove_payloads and "run_patches" in refresh else set()
    )
    return {*refresh, *more}


def still_wanted(settings: Settings, products: Sequence[Product]) -> list[Product]:
    """``products`` of the payloads' stage without those that ``patch_run.remove_payloads`` has removed.

    A payload that is not there counts as removed if the fit of it, as the settings are now, is there and whole.
    """
    work, digest = WorkDir.of(settings), fit_digest(settings)
    if not settings.patch_run.remove_payloads:
        return list(products)

    def removed(product: Product) -> bool:
        path = work.root / product.path
        if path.exists() or path.suffix == ".json":
            return False
        payload = Ref(str(path), product.digest, "payload")
        return not why_not_fitted(work, path.name.split(".")[0], payload, digest)

    return [product for product in products if not removed(product)]


def note_makers(work: WorkDir, run_id: str, to_fit: Sequence[Ref], done: Sequence[Ref]) -> list[str]:
    """Note that the run ``run_id`` is about to fit some patches; the runs that fitted the others, sorted.

    It stands apart from the fits: the same fit of another run is the same file.

    Parameters
    ----------
    work : WorkDir
    run_id : str
    to_fit, done : sequence of Ref
        From :func:`remaining_payloads`.
    """
    try:
        known = json.loads(work.fit_makers.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if to_fit:
        write_json(work.fit_makers, known | {Path(ref.path).name.split(".")[0]: run_id for ref in to_fit})
    return sorted({known[tag] for ref in done if (tag := Path(ref.path).parent.name) in known})


def fit_digest(settings: Settings) -> str:
    """Digest of all that a fit depends on besides its payload: settings and code version."""
    return digest_of([STAGE_VERSIONS["fit_patch_batch"], values_of(settings, FIT_KEYS)])


def why_not_fitted(work: WorkDir, tag: str, payload: Ref, digest: str) -> str:
    """Why the fit of a patch that is in ``work`` cannot be taken; "" if it can.

    Parameters
    ----------
    work : WorkDir
    tag : str
    payload : Ref
    digest : str
        From :func:`fit_digest`.
    """
    try:
        meta = json.loads(work.patch_meta(tag).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "never fitted here"
    except (OSError, ValueError):
        return "its meta.json is damaged"
    if isinstance(meta, dict) and meta.get("status") == "failed":
        return "it failed before"
    if not isinstance(meta, dict) or meta.get(_SEAL) != sealed(meta)[_SEAL]:
        return "its meta.json is damaged, or of an earlier program"
    if meta.get("payload_sha256") != payload.sha256:
        return "its payload changed"
    if meta.get("settings_digest") != digest:
        return "settings or code version of the fit changed"
    for path, name in ((work.patch_catalog(tag), "catalog_sha256"), (work.patch_log(tag), "log_sha256")):
        try:
            whole = sha256_file(path) == meta.get(name)
        except OSError:
            return f"its {_kind(path)} is missing"
        if not whole:
            return f"its {_kind(path)} is damaged"
    return ""


def _kind(path: Path) -> str:
    return "log" if path.suffix == ".log" else "catalogue"


def sealed(meta: Mapping[str, Any]) -> dict[str, Any]:
    """``meta`` with the digest of the rest of it: a meta.json that was changed is none.

    The digest is of the values as JSON gives them back.
    """
    from tract7dt.store.atomic import plain

    rest = json.loads(json.dumps(plain({name: value for name, value in meta.items() if name != _SEAL})))
    return {**rest, _SEAL: digest_of(rest)}
