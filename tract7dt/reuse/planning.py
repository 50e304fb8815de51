"""Whether a stage has to run, and running it so that the next run knows."""

from __future__ import annotations

import datetime
import inspect
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tract7dt import stages
from tract7dt.reuse.digests import FileDigests, digest_of
from tract7dt.reuse.fits import still_wanted
from tract7dt.reuse.inputs import INPUTS, check_inputs_of, read_by
from tract7dt.reuse.needs import NEEDS, values_of
from tract7dt.reuse.records import (
    Part,
    Product,
    Record,
    drop_record,
    examine,
    products_of,
    read_record,
    write_record,
)
from tract7dt.reuse.values import from_plain, to_plain
from tract7dt.reuse.versions import STAGE_VERSIONS
from tract7dt.store import WorkDir, recorded_writes

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["Plan", "plan", "task_key", "through"]

log = logging.getLogger(__name__)

T = TypeVar("T")

#: A changed setting is told with its values up to this length of them.
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is to do for one unit of a stage.

    Attributes
    ----------
    stage : str
        Name of the stage function.
    unit : str or None
        The band, for a stage that works on one.
    key : str
        SHA-256 of all that the result depends on: contents of inputs, settings, code version. Where it has to be
        made whatever is in files that the stage reads whole, these count by their stamps.
    hit : bool
        The result is there, whole, and of this key: nothing has to be done.
    why : str
        Why not, in words; "" for a hit.
    made_by : str or None
        Run that made what is there; None where nothing is.
    action : {"reuse", "make", "draw", "check"}
        What has to be done: nothing, everything, the pictures alone, the checks of the inputs alone.
    """

    stage: str
    unit: str | None
    key: str
    hit: bool
    why: str
    made_by: str | None
    action: Literal["reuse", "make", "draw", "check"] = "make"


def plan(
    stage: Callable[..., Any], settings: Settings, *refs: Any, refresh: bool = False, **named: Any
) -> Plan:
    """Whether ``stage(settings, *refs, **named)`` has to run.

    Parameters
    ----------
    stage : callable
        Function of :mod:`tract7dt.stages`.
    settings : Settings
    *refs, **named
        Its other arguments.
    refresh : bool
        Make it again in any case. That is written down: it holds for the next :func:`through`, in
        whatever process, and stays asked for if the run ends before it.

    Raises
    ------
    InputError
        The list of images cannot be read.
    """
    if stage.__name__ not in INPUTS:
        return Plan(stage.__name__, None, digest_of(stage.__name__), False, "never recorded", None)
    return _Unit(stage, settings, refs, named).plan(refresh)


def through(
    stage: Callable[..., T], settings: Settings, *refs: Any, refresh: bool = False, **named: Any
) -> T:
    """Result of ``stage(settings, *refs, **named)``: the recorded one where it is whole and of the same key.

    Otherwise the stage runs, and what it made is written down when it has ended well; where only the
    pictures or the checks of the inputs are not up to date, only these are done. Parameters as for :func:`plan`.
    """
    if stage.__name__ not in INPUTS:
        return stage(settings, *refs, **named)
    unit = _Unit(stage, settings, refs, named)
    value: T = unit.bring_up_to_date(unit.plan(refresh))
    return value


def task_key(key: str, work: WorkDir) -> str:
    """Key under which an orchestration keeps the result of a plan: results name the work_dir's place."""
    return digest_of([key, str(work.root)])


class _Unit:
    """One unit of a stage: its arguments, its record, its files."""

    def __init__(
        self,
        stage: Callable[..., Any],
        settings: Settings,
        refs: tuple[Any, ...],
        named: Mapping[str, Any],
    ) -> None:
        self._stage, self._settings, self._refs, self._named = stage, settings, refs, named
        self._name = stage.__name__
        self._work = WorkDir.of(settings)
        self._given = inspect.signature(stage).bind(settings, *refs, **named).arguments
        self._unit: str | None = self._given.get("band")
        self._path = self._work.reuse_record(self._name, self._unit)
        self._files = FileDigests(self._work.digests)
        self._record: Record | None = None
        self._wanted: dict[str, Part] = {}
        self._key = ""

    def __str__(self) -> str:
        return self._name if self._unit is None else f"{self._name} {self._unit}"

    # --- what is wanted, what is there -------------------------------------------------------------
    def plan(self, refresh: bool) -> Plan:
        self._wanted = self._parts()
        self._record = read_record(self._path)
        if refresh and self._record is not None and not self._record.refresh:
            self._record = replace(self._record, refresh=True)
            write_record(self._path, self._record)
        action, why = self._judge()
        key = digest_of(
            [self._name, self._unit, STAGE_VERSIONS[self._name]]
            + [[name, part.inputs, part.settings] for name, part in sorted(self._wanted.items())]
        )
        if action == "reuse" and self._record is not None:
            key = self._record.key or key  # an orchestration has the result under the key that it was made by
        self._key = key
        made_by = None if self._record is None else self._record.made_by
        return Plan(self._name, self._unit, key, action == "reuse", why, made_by, action)

    def _parts(self) -> dict[str, Part]:
        needs, settings = NEEDS[self._name], self._settings
        self._files.unread.clear()
        parts = {
            "result": Part(
                INPUTS[self._name](settings, self._files, self._given), values_of(settings, needs.result)
            ),
            "pictures": Part({}, values_of(settings, needs.pictures)),
        }
        if needs.checks:
            checked = check_inputs_of(settings, self._files)
            parts["checks"] = Part(checked, values_of(settings, needs.checks))
        return parts

    def _judge(self) -> tuple[Literal["reuse", "make", "draw", "check"], str]:
        record = self._record
        if record is None:
            return "make", "never made here"
        if record.refresh:
            return "make", "a refresh was asked for"
        version = STAGE_VERSIONS[self._name]
        if record.version != version:
            return "make", f"stage version {record.version} -> {version}"
        if why := self._other_inputs(record):
            return "make", why
        touched: dict[str, Product] = {}
        for name in ("result", "pictures"):
            problem, seen = examine(self._wanted_products(record.parts[name]), self._work.root)
            touched |= seen
            if problem:
                return ("make" if name == "result" else "draw"), problem
        if touched:
            self._record = _with_stamps(record, touched)
            write_record(self._path, self._record)
        if why := _difference(record.parts.get("pictures"), self._wanted["pictures"]):
            return "draw", f"pictures: {why}"
        if "checks" in self._wanted and (
            why := _difference(record.parts.get("checks"), self._wanted["checks"])
        ):
            return "check", f"checks: {why}"
        return "reuse", ""

    def _other_inputs(self, record: Record) -> str:
        """What is not as it was of settings and inputs; files are read only as far as it takes to tell."""
        made, unread = record.parts.get("result"), self._files.unread
        for most in (1, None):  # of the images of another night the first tells
            if not unread or _difference(made, _with_inputs(self._wanted["result"], made, unread)):
                break
            self._files.of_all([entry.given for entry in unread.values()][:most])
            self._wanted = self._parts()
        wanted = self._wanted["result"]
        return _difference(made, _with_inputs(wanted, made, unread)) or _difference(made, wanted)

    def _wanted_products(self, part: Part) -> Sequence[Product]:
        """The products of a part that are meant to be there now."""
        if self._name == "build_patch_inputs":
            return still_wanted(self._settings, part.products)
        return part.products

    # --- doing it ----------------------------------------------------------------------------------
    def bring_up_to_date(self, planned: Plan) -> Any:
        if planned.hit and self._record is not None:
            log.info("%s: reused, made by run %s", self, planned.made_by)
            return from_plain(self._record.value, self._work.root)
        log.info("%s: %s: %s", self, _WORDS[planned.action], planned.why)
        if planned.action == "make" or self._record is None:
            return self._make()
        value = from_plain(self._record.value, self._work.root)
        parts = dict(self._record.parts)
        if planned.action == "draw":
            parts["pictures"] = self._draw(value)
        # Pictures and checks may both be out of date; checking costs next to nothing.
        if "checks" in self._wanted:
            stages.check_inputs(self._settings)
            parts["checks"] = self._wanted["checks"]
        self._write(replace(self._record, parts=parts, key=self._key))
        return value

    def _make(self) -> Any:
        drop_record(self._path)
        before = self._record.key if self._record is not None else ""
        for key in {self._key, before} - {""}:  # of one content, but of files with other stamps
            (self._work.task_results / task_key(key, self._work)).unlink(missing_ok=True)
        with recorded_writes() as written:
            value = self._stage(self._settings, *self._refs, **self._named)
        products = products_of(written, self._work.root, self._rewritten_later())
        memory = FileDigests(self._work.digests)
        read = memory.learn(self._files.unread, read_by(self._name, value)) if self._files.unread else {}
        parts = {
            name: replace(
                part,
                # what was written to meanwhile keeps what stood for it, and is loaded again by the next run
                inputs={key: read.get(digest, digest) for key, digest in part.inputs.items()},
                products=tuple(p for p in products if _belongs(p, name)),
            )
            for name, part in self._wanted.items()
        }
        self._write(
            Record(
                self._name,
                self._unit,
                STAGE_VERSIONS[self._name],
                parts,
                to_plain(value, self._work.root),
                _run_id(self._work),
                datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
                key=self._key,
            )
        )
        return value

    def _draw(self, value: Any) -> Part:
        from tract7dt import redraw

        with recorded_writes() as written:
            redraw.REDRAW[self._name](self._settings, value, **self._arguments())
        products = products_of(written, self._work.root)
        return replace(self._wanted["pictures"], products=tuple(products))

    def _arguments(self) -> dict[str, Any]:
        return {name: value for name, value in self._given.items() if name != "settings"}

    def _rewritten_later(self) -> tuple[Path, ...]:
        """The final catalogue is the merge's only where no zero point follows."""
        if self._name != "merge" or stages.gaia_skip_reason(self._settings):
            return ()
        csv = self._work.final_catalog
        return csv, csv.with_suffix(".parquet"), csv.with_suffix(".fits")

    def _write(self, record: Record) -> None:
        self._record = record
        write_record(self._path, record)


_WORDS = {"make": "made", "draw": "only its pictures are drawn", "check": "only the inputs are checked"}


def _belongs(product: Product, part: str) -> bool:
    is_picture = product.path.endswith(".png")
    return part == "pictures" if is_picture else part == "result"


def _with_inputs(wanted: Part, made: Part | None, unread: Mapping[str, Any]) -> Part:
    """``wanted`` as it is if the files that were not read are those that it was made from."""
    before = made.inputs if made is not None else {}
    return replace(
        wanted,
        inputs={
            k: before.get(k, digest) if digest in unread else digest for k, digest in wanted.inputs.items()
        },
    )


def _difference(made: Part | None, wanted: Part) -> str:
    """What is not as it was when it was made; "" if all is."""
    if made is None:
        return "never made here"
    for key, value in wanted.settings.items():
        if key not in made.settings:
            return f"{key} counts now"
        if made.settings[key] != value:
            before, now = json.dumps(made.settings[key]), json.dumps(value)
            shown = f": {before} -> {now}" if len(before) + len(now) <= _SHOWN else ""
            return f"{key} changed{shown}"
    changed = [name for name, digest in wanted.inputs.items() if made.inputs.get(name) != digest]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        verb = "is" if len(changed) == 1 else "are"
        return f"{', '.join(changed[:3])}{more} {verb} not the same"
    gone = [name for name in made.inputs if name not in wanted.inputs]
    if gone:
        return f"{', '.join(gone[:3])} no longer there"
    gone = [key for key in made.settings if key not in wanted.settings]
    return f"{', '.join(gone[:3])} no longer counts" if gone else ""


def _with_stamps(record: Record, touched: Mapping[str, Product]) -> Record:
    parts = {
        name: replace(part, products=tuple(touched.get(p.path, p) for p in part.products))
        for name, part in record.parts.items()
    }
    return replace(record, parts=parts)


def _run_id(work: WorkDir) -> str:
    """The run that goes on in this work_dir."""
    try:
        return str(json.loads(work.run_summary.read_text(encoding="utf-8"))["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"
