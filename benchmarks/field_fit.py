"""CPU time of the fit stage on a field: ``python benchmarks/field_fit.py SETTINGS.yaml``.

The settings of a run that has made its payloads (``tract7dt make-sample DIR``, then ``tract7dt run`` in it). All
payloads are fitted again as a worker does it, payloads read and catalogues written, into a temporary folder, after
one patch that does not count. Cost is per source that is reported (halo sources are not) and band.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from tract7dt import fit, fit_patch, patches  # noqa: E402 - after the thread counts
from tract7dt.settings import Settings, load_settings  # noqa: E402
from tract7dt.store import WorkDir, sha256_file  # noqa: E402
from tract7dt.types import Ref  # noqa: E402


@dataclass(frozen=True)
class FieldCost:
    """Patches, reported sources and bands of a field, CPU seconds of the whole stage and of the fits alone."""

    patches: int
    sources: int
    bands: int
    seconds: float
    fit_seconds: float

    @property
    def ms(self) -> float:
        """Milliseconds per source and band."""
        return 1e3 * self.seconds / (self.sources * self.bands)


def field_cost(path: Path) -> FieldCost:
    """Fit all payloads of a run."""
    settings: Settings = load_settings(path).settings
    run = settings.patch_run.model_copy(
        update={"resume": False, "no_patch_overview": True, "no_cutouts": True}
    )
    settings = settings.model_copy(update={"patch_run": run})
    stored = sorted(Path(settings.outputs.patch_inputs_dir).glob("*.fits*"))
    references = [Ref(path=str(each), sha256=sha256_file(each), kind="payload") for each in stored]
    payloads = [patches.read_payload(each.path) for each in references]
    n_sources = sum(int((~each.table["_is_halo_source"].astype(bool)).sum()) for each in payloads)
    problems = [fit_patch.patch_problem(settings, each)[0] for each in payloads]
    with tempfile.TemporaryDirectory() as folder:
        work = replace(WorkDir.of(settings), fits=Path(folder))
        fit_patch.fit_payload(settings, work, references[0])
        start = time.process_time()
        for reference in references:
            fit_patch.fit_payload(settings, work, reference)
        seconds = time.process_time() - start
    start = time.process_time()
    for problem in problems:
        fit.fit_patch(problem, run)
    alone = time.process_time() - start
    return FieldCost(len(stored), n_sources, len(payloads[0].bands), seconds, alone)


if __name__ == "__main__":
    cost = field_cost(Path(sys.argv[1]))
    print(
        f"{cost.patches} patches, {cost.sources} sources, {cost.bands} bands: {cost.seconds:.2f} s "
        f"({cost.fit_seconds:.2f} s in fits), {cost.ms:.2f} ms per source and band"
    )
