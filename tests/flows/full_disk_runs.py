"""Runs of the flow on a disk with little room: ``full_disk_runs.py FOLDER SERVER_URL``; one JSON object a case.

FOLDER is a file system of its own. The first line is of the run with all the room.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from test_flows_faults_everywhere import Night, environment_of_now, night

#: Room beside the field, as a share of what a healthy run takes.
SHARES = (0.1, 0.35, 0.6, 0.85)


def kilobytes(folder: Path) -> int:
    return sum(path.stat().st_blocks // 2 for path in folder.rglob("*"))


def ended(made: Night, code: int, said: str, before: str | None) -> dict[str, Any]:
    """How a run ended; ``before`` is the run that the record was of."""
    summary = made.tiny.work / "run_summary.json"
    run_id = made.summary["run_id"] if summary.exists() and summary.stat().st_size else None
    state = made.state(run_id) if run_id and run_id != before else None
    return {"code": code, "said": said[-3000:], "state": state, "run_id": run_id}


def case(folder: Path, url: str, room_kb: int) -> dict[str, Any]:
    made = night(folder, environment_of_now(), url)
    filler, disk = folder / "filler", os.statvfs(folder)
    with filler.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, disk.f_bavail * disk.f_frsize - room_kb * 1024)
    first = ended(made, *made.run(), None)
    fits = made.fits()
    filler.unlink()
    second = ended(made, *made.run(), first["run_id"])
    now = made.fits()
    return first | {
        "room_kb": room_kb,
        "again": second["code"],
        "state_again": second["state"],
        "said_again": second["said"],
        "catalogue": made.catalogue if second["code"] == 0 else "",
        "refitted": [tag for tag, identity in fits.items() if now.get(tag) != identity],
        "temporaries": [str(path) for path in made.temporaries()],
    }


def main() -> None:
    """All cases, one after the other: there is room for one field."""
    folder, url = Path(sys.argv[1]), sys.argv[2]
    made = night(folder / "healthy", environment_of_now(), url)
    healthy = ended(made, *made.run(), None)
    size = kilobytes(made.tiny.work)
    print(json.dumps(healthy | {"catalogue": made.catalogue, "kilobytes": size}), flush=True)
    shutil.rmtree(folder / "healthy")
    for share in SHARES:
        place = folder / f"room_{share}"
        place.mkdir()
        print(json.dumps(case(place, url, int(share * size))), flush=True)
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
