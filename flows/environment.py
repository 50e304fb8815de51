"""What the environment says unless it says otherwise: to be imported before NumPy and before Prefect.

Threads
    Numerical libraries read their number of threads when they are first imported, and it decides the last
    bits of a sum. The command sets it from the configuration; a run that a deployment starts has NumPy
    before it has a configuration, and gets one thread.
Silence
    Prefect and Ray report their use to their makers unless they are told not to.
"""

from __future__ import annotations

import os

from flows.worker import thread_variables

_DEFAULTS = thread_variables(1) | {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}

for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)
