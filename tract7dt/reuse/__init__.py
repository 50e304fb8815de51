"""Reuse of what an earlier run made: keys of content, records of products, the lock of a work_dir.

A stage runs through :func:`through`. Its key is made of the contents of its inputs (:mod:`.inputs`), of the
settings that it reads (:mod:`.needs`) and of its code version (:mod:`.versions`). Its record (:mod:`.records`)
says what it made; only products that are there and whole are taken.
"""

from tract7dt.reuse.field import pixels_of
from tract7dt.reuse.fits import note_makers, remaining_payloads, with_payloads
from tract7dt.reuse.lock import locked
from tract7dt.reuse.planning import Plan, plan, task_key, through
from tract7dt.reuse.versions import STAGE_VERSIONS

__all__ = [
    "STAGE_VERSIONS",
    "Plan",
    "locked",
    "note_makers",
    "pixels_of",
    "plan",
    "remaining_payloads",
    "task_key",
    "through",
    "with_payloads",
]
