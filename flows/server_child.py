"""A Prefect server that ends with its parent: ``python -m flows.server_child PORT PARENT [HOST [held]]``."""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import sys
import threading
import time

__all__ = ["follow", "main"]

_WATCH_S = 0.5
_GRACE_S = 8.0


def follow(parent: int) -> None:
    """End with the process ``parent``: a SIGKILL gives it no chance to stop its server itself."""
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(1)


def main(port: str, parent: str, host: str = "127.0.0.1", held: str = "") -> None:
    """Serve on ``port`` until told to stop or until the process ``parent`` is gone.

    With ``held`` load what that needs, and wait for a line on stdin before anything is opened or written.
    """
    threading.Thread(target=follow, args=(int(parent),), name="follow-parent", daemon=True).start()
    if held:
        importlib.import_module("prefect.cli.server")
        importlib.import_module("prefect.server.api.server")
        if not sys.stdin.readline():
            return
    sys.argv = ["prefect", "server", "start", "--host", host, "--port", port, "--log-level", "WARNING"]
    runpy.run_module("prefect", run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:5])
