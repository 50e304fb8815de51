"""What the server has of a run, as the UI would show it."""

from __future__ import annotations

import json
import urllib.request
from typing import Any


def server_logs(url: str, said: str) -> list[dict[str, Any]]:
    """Log entries of the server that hold ``said``, newest first."""
    found: list[dict[str, Any]] = []
    for offset in range(0, 1000, 200):
        query = json.dumps({"limit": 200, "offset": offset, "sort": "TIMESTAMP_DESC"}).encode()
        request = urllib.request.Request(
            f"{url}/logs/filter", data=query, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            found += json.load(answer)
    return [entry for entry in found if said in entry["message"]]
