"""What Prefect keeps of a task's result: references as JSON, under our own key, in the work_dir.

Prefect's cache only shows in the UI what :mod:`tract7dt.reuse` has found out: a task whose products are there and
whole ends as ``Cached``, with the value that it had. Where Prefect has lost it (another server home, a work_dir
that moved), the task runs and :func:`tract7dt.reuse.through` returns at once what the record says. A result that
nobody vouches for is never taken.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.serializers import Serializer
from pydantic import Field

from tract7dt.errors import StageError
from tract7dt.reuse.values import from_plain, to_plain
from tract7dt.store import WorkDir

__all__ = ["ContentKey", "RefSerializer", "drop_damaged"]

_ROOT = Path("/")


class RefSerializer(Serializer):
    """References, lists and named tuples of them as JSON; nothing else is ever made from what a file says."""

    type: str = Field(default="tract7dt-refs", frozen=True)

    def dumps(self, obj: Any) -> bytes:
        """JSON of a stage's result, or the message of the error that it ended with."""
        if isinstance(obj, BaseException):
            return json.dumps({"error": f"{type(obj).__name__}: {obj}"}).encode()
        return json.dumps({"value": to_plain(obj, _ROOT)}).encode()

    def loads(self, blob: bytes) -> Any:
        """What :meth:`dumps` was given; an error comes back as a :class:`~tract7dt.errors.StageError`."""
        stored = json.loads(blob)
        if "error" in stored:
            return StageError(str(stored["error"]))
        return from_plain(stored["value"], _ROOT)


@dataclass
class ContentKey(CachePolicy):
    """A cache policy whose key is given: the one that :func:`tract7dt.reuse.plan` made of the contents."""

    key: str = ""

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The key, whatever the arguments are: it has been made of them."""
        return self.key


def drop_damaged(work: WorkDir, key: str) -> None:
    """Remove a stored result that a kill has left half written: Prefect would fail over it."""
    path = work.task_results / key
    with contextlib.suppress(FileNotFoundError):
        try:
            json.loads(path.read_bytes())
        except ValueError:
            path.unlink()
