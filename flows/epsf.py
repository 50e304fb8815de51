"""Subflow: the ePSF of every band, bands mapped on the task runner."""

from __future__ import annotations

import logging
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from prefect import flow
from prefect.futures import as_completed

from flows.mapping import give_up_on_error
from flows.runners import n_workers
from tasks import stages as tasks
from tasks.policy import under
from tract7dt.errors import ConfigError, InputError, StageError
from tract7dt.progress import progress_folder, write_plan
from tract7dt.settings import Settings
from tract7dt.types import Ref

__all__ = ["build_epsf"]

log = logging.getLogger(__name__)

# A band that ends like this says something about the run, not about itself.
_NOT_THE_BANDS_FAULT = (InputError, ConfigError, BrokenProcessPool)


@flow(name="build-epsf", flow_run_name="build-epsf", validate_parameters=False)
def build_epsf(settings: Settings, field: Ref, sources: Ref, bands: list[str]) -> list[Ref]:
    """Build the ePSFs, one task a band.

    A band that fails is left out, and its fits use the analytic PSF; the others go on. If every band
    fails, so does the stage.

    Returns
    -------
    list of Ref
        Manifests of the bands that were built, in the order of ``bands``.
    """
    folder = progress_folder(settings.outputs.work_dir)
    write_plan(folder, "epsf", bands, workers=n_workers(settings, "bands", len(bands)))
    build = under(settings, tasks.build_epsf_band)
    built: dict[str, Ref] = {}
    failed: dict[str, str] = {}
    with give_up_on_error(folder):
        futures = {build.submit(settings, field, sources, band): band for band in bands}
        for future in as_completed(list(futures)):
            band = futures[future]
            result: Any = future.result(raise_on_failure=False)  # a failure is a value here
            if isinstance(result, Ref):
                built[band] = result
            elif isinstance(result, _NOT_THE_BANDS_FAULT):
                raise result
            else:
                failed[band] = f"{type(result).__name__}: {result}"
                log.warning("ePSF of %s failed, the analytic PSF stands in: %s", band, failed[band])
    if failed and not built:
        causes = "; ".join(f"{band}: {cause}" for band, cause in failed.items())
        raise StageError(f"the ePSF of every band failed: {causes}")
    return [built[band] for band in bands if band in built]
