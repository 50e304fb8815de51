"""Coverage-guided fuzzing of one reader: ``python tests/fuzz/fuzz.py TARGET [libFuzzer options] [FOLDER ...]``.

Needs atheris (``make fuzz`` installs it). What a run finds lands in the first folder; a crash is written as
``crash-*`` to the current folder (``-artifact_prefix``). An input that led to a fix belongs into
``tests/fuzz/corpus/TARGET``, which the test suite replays.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent))

with atheris.instrument_imports(include=["tract7dt", "yaml", "astropy.io.fits", "csv"]):
    from fuzz_targets import TARGETS


def main() -> None:
    """Fuzz the target that the command line names."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"which target? {', '.join(TARGETS)}")
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
