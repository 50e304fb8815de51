"""How a command ends: the exit code, and a message that says stage, cause and cure."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType

import typer

from tract7dt import errors

__all__ = ["Outcome"]

_CURES: dict[type[BaseException], str] = {
    errors.ConfigError: "correct the configuration; `tract7dt dump-config` lists every key",
    errors.InputError: "correct the input and run again",
    errors.ProductError: "run the step that writes the product again",
    errors.RunLocked: "wait until that run has ended, or end it",
    MemoryError: "use fewer workers (runtime.max_workers) or a machine with more memory",
    OSError: "check the disk, the mount or the connection, then run again",
}


class Outcome:
    """Turns what leaves the block into an exit code and a message.

    0 done; 1 a stage failed; 2 wrong usage or configuration; 130 interrupted.

    Parameters
    ----------
    debug : bool
        Print the traceback, too.
    """

    def __init__(self, debug: bool = False) -> None:
        self._debug = debug

    def __enter__(self) -> Outcome:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, (SystemExit, typer.Exit, typer.Abort, typer.BadParameter)):
            return
        if self._debug:
            traceback.print_exception(error)
        if isinstance(error, KeyboardInterrupt):
            print("tract7dt: interrupted; what was finished is kept", file=sys.stderr)
            raise typer.Exit(130) from error
        if not isinstance(error, Exception):
            print(f"tract7dt: ended by {_said(error)}", file=sys.stderr)
            raise typer.Exit(1) from error
        print(_message(error), file=sys.stderr)
        raise typer.Exit(2 if isinstance(error, errors.ConfigError) else 1) from error


def _said(error: BaseException) -> str:
    text = str(error) or "no message"
    if isinstance(error, errors.Tract7dtError):
        return text
    return f"{type(error).__name__}: {text}"


def _message(error: Exception) -> str:
    from tasks.transient import is_passing
    from tract7dt.run_record import failed_stage

    stage = failed_stage(error)
    cure = next((text for kind, text in _CURES.items() if isinstance(error, kind)), None)
    if cure is None and not isinstance(error, errors.Tract7dtError) and is_passing(error):
        cure = "a server or a mount is away: bring it back, then run again; what was finished is kept"
    if cure is None and not isinstance(error, errors.Tract7dtError):
        cure = "this looks like a defect: run again with --debug and report the traceback"
    lines = [f"tract7dt: {f'stage {stage} failed' if stage else 'failed'}: {_said(error)}"]
    return "\n".join(lines + ([f"what to do: {cure}"] if cure else []))
