"""Publication as a task."""

from __future__ import annotations

import copy
from pathlib import Path

from published_run import make_run

from tasks.publish import publish


def test_task_publishes_and_its_result_travels(tmp_path: Path) -> None:
    settings = make_run(tmp_path, f"file://{tmp_path}/public")
    result = publish.fn(settings, "run-1", "2026-01-01")
    assert (tmp_path / "public" / "UDS" / "latest.json").is_file()
    assert copy.deepcopy(result) == result
    assert result.status == "done"
