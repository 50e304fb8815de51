"""What a site's own flows do, in a process that is told which server there is: ``python watched.py WHAT ...``."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path


def jump(folder: str) -> None:
    """A night whose zero point is 0.3 mag off, after three that are not."""
    from prefect import flow
    from test_upkeep_history import night_of, template_of

    from flows.notices import look_for_jumps
    from tract7dt.settings import fill_placeholders

    for n, value in enumerate((25.01, 25.02, 25.0, 25.31), 1):
        night_of(Path(folder), f"2026-01-0{n}", {"m400": value})
    template = template_of(Path(folder))

    @flow
    def measured() -> int:
        settings = fill_placeholders(template, "2026-01-04")
        return len(look_for_jumps(template, settings, "2026-01-04", "run-4"))

    print(measured())


def watch() -> None:
    """Look at the fields."""
    from flows.watch import watch as flow

    flow()


def silence(seconds: str) -> None:
    """Let the automation that waits for a sign of the watch wait for seconds only."""
    from prefect.client.orchestration import get_client

    from flows.automations import BLOCK, Target, automations

    with get_client(sync_client=True) as client:
        block = client.read_block_document_by_name(BLOCK, "webhook").id
        wanted = automations(Target(block, is_webhook=True), timedelta(seconds=float(seconds)))[-1]
        (found,) = client.read_automations_by_name(wanted.name)
        client.update_automation(found.id, wanted)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent / "upkeep"))
    {"jump": jump, "watch": watch, "silence": silence}[sys.argv[1]](*sys.argv[2:])
