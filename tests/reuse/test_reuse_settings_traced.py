"""What each stage reads of the settings while it runs, against what it declares.

Sections are replaced by twins that note every key that is read. What a stage reads and does not declare would
not be part of its key: a changed value would be answered with the old result.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reuse_runs import Rerun

from tract7dt import fit_patch, stages
from tract7dt.reuse.needs import NEEDS, values_of
from tract7dt.settings import Settings, key_table
from tract7dt.store import WorkDir

#: Where everything lies: no result depends on it, every record belongs to it.
PLACE = {"outputs.work_dir"}

#: The attribute of a WorkDir, and the key that it comes from.
OF_LAYOUT = {
    "epsf": "outputs.epsf_dir",
    "patches": "outputs.patches_dir",
    "payloads": "outputs.patch_inputs_dir",
    "fits": "outputs.tractor_out_dir",
    "overlay": "outputs.overlay_dir",
    "cropped": "outputs.cropped_images_dir",
    "final_catalog": "outputs.final_catalog",
    "name": "inputs.tile_name",
}


def traced(section: Any, prefix: str, read: set[str]) -> Any:
    """A copy of ``section`` (of its class, for ``isinstance``) that notes what is read of it."""
    fields = type(section).model_fields

    class Traced(type(section)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            if name in fields:
                path = f"{prefix}{name}"
                if hasattr(type(value), "model_fields"):
                    return traced(value, f"{path}.", read)
                read.add(path)
            elif name in ("model_dump", "model_dump_json", "model_copy"):
                raise AssertionError(f"{prefix or 'settings'}.{name}: a stage reads the keys that it needs")
            return value

    twin = Traced.model_construct(**{name: getattr(section, name) for name in fields})
    if isinstance(section, Settings):
        object.__setattr__(twin, "__pydantic_private__", section.__pydantic_private__)
    return twin


@pytest.fixture(scope="module")
def reads(first: Rerun, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Keys that each stage read, by its name, in one run with every picture."""
    folder = tmp_path_factory.mktemp("traced") / "run"
    shutil.copytree(first.folder, folder)
    field = Rerun(folder, {name: dict(section) for name, section in first.values.items()})
    field.set("crop.plot_pre_crop", True)
    field.set("overlay.zoom_enabled", True)
    field.set("overlay.zoom_box", [20, 120, 20, 120])
    field.set("patch_run.no_patch_overview", False)
    field.set("patch_run.no_cutouts", False)
    field.set("patch_run.resume", True)
    settings = field.settings
    found: dict[str, set[str]] = {}
    now: set[str] = set()

    class TracedLayout(WorkDir):
        def __getattribute__(self, name: str) -> Any:
            if name in OF_LAYOUT:
                now.add(OF_LAYOUT[name])
            return super().__getattribute__(name)

    plain_layout = WorkDir.of(settings)
    layout = TracedLayout(**{f.name: getattr(plain_layout, f.name) for f in dataclasses.fields(WorkDir)})
    twin = traced(settings, "", now)

    def run(stage: Callable[..., Any], *refs: Any) -> Any:
        now.clear()
        value = stage(twin, *refs)
        found.setdefault(stage.__name__, set()).update(now)
        return value

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(WorkDir, "of", classmethod(lambda cls, settings: layout))
        patched.setattr(fit_patch, "fit_digest", lambda settings: "")  # reads all that is declared
        loaded = run(stages.load_inputs)
        sources = run(stages.augment_gaia, loaded.field, loaded.sources)
        mask, sources = run(stages.bright_mask, loaded.field, sources)
        bands = stages.epsf_bands(settings, loaded.field)
        epsf = [run(stages.build_epsf_band, loaded.field, sources, band) for band in bands]
        run(stages.summarise_epsf, epsf)
        patches = run(stages.build_patches, loaded.field, sources)
        masks = run(stages.compose_final_masks, loaded.field, mask)
        payloads = run(stages.build_patch_inputs, loaded.field, sources, masks, patches, epsf)
        for path in Path(settings.outputs.tractor_out_dir).glob("*/meta.json"):
            path.unlink()
        for key, value in [
            ("psf_model", "hybrid"),
            ("psf_model", "gaussian_mixture_from_stamp"),
            ("psf_fallback_model", "ncircular_gaussian"),
            ("psf_model", "pixelized"),
        ]:
            # With an ePSF only for patches of many stars, the fallbacks are read, too.
            changed = settings.patch_run.model_copy(
                update={key: value, "min_epsf_nstars_for_use": 0 if key == "psf_model" else 999}
            )
            twin = traced(settings.model_copy(update={"patch_run": changed}), "", now)
            fits = run(stages.fit_patch_batch, payloads)
        twin = traced(settings, "", now)
        merged = run(stages.merge, loaded.field, sources, fits)
        run(stages.compute_zp, loaded.field, merged)
    return found


def _declared(stage: str) -> set[str]:
    needs = NEEDS[stage]
    return {
        path
        for path in key_table()
        for key in (*needs.result, *needs.pictures, *needs.checks, *needs.free)
        if path == key or path.startswith(f"{key}.")
    }


@pytest.mark.parametrize("stage", NEEDS)
def test_stage_declares_what_it_reads(reads: dict[str, set[str]], stage: str) -> None:
    undeclared = reads[stage] - _declared(stage) - PLACE
    assert not undeclared, f"declare these keys of {stage} in tract7dt/reuse/needs.py: {sorted(undeclared)}"


@pytest.mark.parametrize("stage", [name for name in NEEDS if name not in ("fit_patch_batch",)])
def test_stage_reads_what_it_declares(reads: dict[str, set[str]], stage: str, first: Rerun) -> None:
    """A key that is declared and not read would cost runs for nothing."""
    unread = set(values_of(first.settings, NEEDS[stage].result)) - reads[stage]
    assert unread <= RARELY.get(stage, set()), f"{stage} does not read {sorted(unread)}"


#: Declared, and read only where the field or another setting brings it about.
RARELY: dict[str, set[str]] = {
    "build_patch_inputs": {"patch_run.fallback_default_fwhm_pix"},  # images without PEEING and SEEING
}


def test_trace_sees_a_key_that_is_not_declared(first: Rerun) -> None:
    read: set[str] = set()
    twin = traced(first.settings, "", read)
    assert twin.checks.wcs_tolerance.cd > 0
    assert twin.epsf.max_stars > 0
    assert read == {"checks.wcs_tolerance.cd", "epsf.max_stars"}
    with pytest.raises(AssertionError, match="model_dump"):
        twin.epsf.model_dump()
    assert isinstance(twin.epsf, type(first.settings.epsf))
