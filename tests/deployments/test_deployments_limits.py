"""Runs of one field never overlap; the machine takes no more runs at once than it was told. Minutes."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest
from nightly_site import Site

pytestmark = pytest.mark.slow

FIELDS = ("SIM6", "SIM7")


#: Computed anew: a run that reuses all is over before another can meet it.
ANEW = {"refresh": ["load_inputs", "build_epsf", "run_patches"]}


def start(site: Site, name: str, parameters: dict[str, Any]) -> str:
    (deployment,) = site.post("/deployments/filter", {"deployments": {"name": {"any_": [name]}}})
    made = site.post(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})
    return str(made["id"])


def spans(site: Site, ids: Sequence[str]) -> dict[str, tuple[datetime, datetime]]:
    """From when to when each run was running, once all have ended well."""
    end = time.monotonic() + 600
    asked = {"flow_runs": {"id": {"any_": list(ids)}}}
    while not all(
        run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED")
        for run in site.post("/flow_runs/filter", asked)
    ):
        assert time.monotonic() < end, site.log[-3000:]
        time.sleep(2)
    found: dict[str, tuple[datetime, datetime]] = {}
    for run_id in ids:
        states = site.request("GET", f"/flow_run_states/?flow_run_id={run_id}", None)
        assert states[-1]["type"] == "COMPLETED", states
        moments = {state["type"]: datetime.fromisoformat(state["timestamp"]) for state in states}
        found[run_id] = (moments["RUNNING"], moments["COMPLETED"])
    return found


def overlap(one: tuple[datetime, datetime], other: tuple[datetime, datetime]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def states_of(site: Site, run_id: str) -> list[str]:
    states: list[dict[str, Any]] = site.request("GET", f"/flow_run_states/?flow_run_id={run_id}", None)
    return [state["name"] for state in states]


def test_runs_of_one_field_wait_for_each_other_and_others_do_not(site: Site) -> None:
    for seed, name in enumerate(FIELDS, 6):
        site.add(name, seed, None)
    site.serve(runs=3)
    first, second, other = (start(site, name, ANEW) for name in ("SIM6", "SIM6", "SIM7"))
    found = spans(site, [first, second, other])
    assert not overlap(found[first], found[second])
    assert overlap(found[other], found[first]) or overlap(found[other], found[second])
    waited = states_of(site, max((first, second), key=lambda run: found[run][0]))
    assert "AwaitingConcurrencySlot" in waited
    assert site.stop() == 0


def test_the_machine_takes_one_run_at_a_time(site: Site) -> None:
    for seed, name in enumerate(FIELDS, 6):
        site.add(name, seed, None)
    site.serve(runs=1)
    ids = [start(site, name, ANEW) for name in FIELDS]
    # The site's own runs do not wait for them.
    seen = start(site, "hourly", {})
    found = spans(site, [*ids, seen])
    assert not any(overlap(found[a], found[b]) for a, b in itertools.combinations(ids, 2))
    assert found[seen][0] < max(found[run][0] for run in ids)

    # The health of the fields, now that there is something to tell.
    spans(site, [start(site, "hourly", {})])
    tables = {artifact["key"]: artifact["data"] for artifact in site.post("/artifacts/latest/filter", {})}
    for name, run_id in zip(FIELDS, ids):
        (row,) = json.loads(tables[f"{name.lower()}-health"])
        assert row["status"] == "Completed"
        assert row["run"] == f"[{run_id[:8]}]({site.ui}/runs/flow-run/{run_id})"
        assert row["fitted"] >= row["reliable"] > 0
        assert row["zero points (mag)"].count("m") == 2
    assert site.stop() == 0
