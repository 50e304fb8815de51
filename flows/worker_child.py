"""A Prefect worker that does not outlive its parent: ``python -m flows.worker_child POOL PARENT``."""

from __future__ import annotations

import runpy
import sys
import threading

from flows.server_child import follow

__all__ = ["main"]


def main(pool: str, parent: str) -> None:
    """Take runs of ``pool`` until told to stop or until the process ``parent`` is gone."""
    threading.Thread(target=follow, args=(int(parent),), name="follow-parent", daemon=True).start()
    sys.argv = ["prefect", "worker", "start", "--pool", pool, "--type", "process"]
    runpy.run_module("prefect", run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:3])
