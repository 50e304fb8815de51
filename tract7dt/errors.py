"""Exceptions of the library: every error that a user can cause or meet has a class, a cause and a cure.

All take plain strings, so that they survive pickling between processes (an exception with a custom
constructor arrives from a worker as an unrelated ``TypeError``).
"""

__all__ = [
    "UNIT_FAILURES",
    "ConfigError",
    "InputError",
    "PatchError",
    "ProductError",
    "PublishError",
    "RunLocked",
    "SampleError",
    "StageError",
    "StoreError",
    "StoreUnreachableError",
    "Tract7dtError",
    "WorkerLostError",
]


class Tract7dtError(Exception):
    """Base of every error that the project raises on purpose."""


class ConfigError(Tract7dtError):
    """The configuration is wrong: unknown key, wrong type, value out of range, unreadable file. Exit code 2."""


class InputError(Tract7dtError):
    """An input (image, catalogue, image list, Gaia table) is missing, malformed or inconsistent. Never retried."""


class ProductError(Tract7dtError):
    """A product of an earlier stage is missing, damaged or not of this run."""


class PatchError(Tract7dtError):
    """A patch could not be fitted; recorded as failed, the rest of the field goes on."""


class RunLocked(Tract7dtError):  # noqa: N818 - a state of the work_dir, not a fault
    """Another run works in the same work_dir; the message names it. Exit code 1."""


class PublishError(Tract7dtError):
    """The run is complete and on disk, but could not be brought to ``publish.url``. Exit code 1."""


class SampleError(Tract7dtError):
    """The sample field could not be downloaded, checked or unpacked."""


class StageError(Tract7dtError):
    """A stage of a run failed; the message names the stage, the cause and what to do. Exit code 1."""


class WorkerLostError(StageError):
    """A worker process ended in the middle of its work: killed, out of memory, crashed. May pass by itself."""


class StoreError(Tract7dtError):
    """An object store refuses, or holds something else than expected. Never retried."""


class StoreUnreachableError(StoreError, ConnectionError):
    """An object store does not answer, or says that it cannot now; worth another try later."""


#: What one unit of work (a patch, a band) can die of without the run being at fault: recorded, the rest goes on.
#: OSError is not here: a full disk or a lost mount concerns every unit, and the orchestration retries it.
UNIT_FAILURES = (
    PatchError,
    ProductError,
    ArithmeticError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
