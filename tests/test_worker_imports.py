"""A worker that fits patches does not load what only other stages need."""

from __future__ import annotations

import subprocess
import sys

#: What a worker does until its first patch is fitted and written, pictures off.
_WORKER = """
import sys
import flows.pool_worker, tract7dt.settings, tract7dt.stages, tract7dt.fit.warm, tract7dt.fit_patch
from tract7dt import catalog, patches, psf, sources
patches.read_payload, psf.choose_psfs, sources.model_sources, catalog.patch_table, catalog.write_patch_catalog
print(*sys.modules)
"""
_NOT_NEEDED = {"astropy", "fsspec", "matplotlib", "PIL", "prefect", "scipy.interpolate", "scipy.optimize"}


def test_a_fit_worker_loads_no_more_than_it_needs():
    done = subprocess.run([sys.executable, "-c", _WORKER], capture_output=True, text=True, check=True)
    assert not _NOT_NEEDED & set(done.stdout.split())


def test_names_that_load_on_demand_are_all_there():
    code = """
from tract7dt import catalog, patches, psf, qa, sources
for package in (catalog, patches, psf, qa, sources):
    found = [getattr(package, name) for name in package.__all__]
    assert not any(type(value).__name__ == "module" for value in found), found
    try:
        package.no_such_name
    except AttributeError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"module 'tract7dt.{package}' has no attribute 'no_such_name'"
        for package in ("catalog", "patches", "psf", "qa", "sources")
    ]
