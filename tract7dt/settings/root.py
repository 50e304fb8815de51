"""The whole configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import PrivateAttr

from tract7dt.settings.epsf import EpsfSettings, MoffatPsfSettings
from tract7dt.settings.fields import Section, key
from tract7dt.settings.frames import (
    BrightMaskSettings,
    CropSettings,
    OverlaySettings,
    SourceSaturationCutSettings,
)
from tract7dt.settings.inputs import ChecksSettings, ImageScalingSettings, InputsSettings, OutputsSettings
from tract7dt.settings.patches import MergeSettings, PatchesSettings, PatchInputsSettings, PatchRunSettings
from tract7dt.settings.run import (
    LoggingSettings,
    NightSettings,
    PerformanceSettings,
    PlottingSettings,
    PublishSettings,
    ReportSettings,
    RetentionSettings,
    RuntimeSettings,
    WatchSettings,
)
from tract7dt.settings.zp import ZpSettings

__all__ = ["Settings"]


class Settings(Section):
    """Everything that a run is told; sections and keys are named as in the YAML file."""

    inputs: InputsSettings = key(..., "Files that a run reads.")
    outputs: OutputsSettings = key(..., "Where a run writes.")
    image_scaling: ImageScalingSettings = key(ImageScalingSettings(), "Common scale of the images.")
    crop: CropSettings = key(CropSettings(), "Cropping of the noisy edges.")
    overlay: OverlaySettings = key(OverlaySettings(), "Pictures with the catalogue on the white stack.")
    checks: ChecksSettings = key(ChecksSettings(), "Checks that the images lie on one pixel frame.")
    source_saturation_cut: SourceSaturationCutSettings = key(
        SourceSaturationCutSettings(), "Exclusion of sources near saturated pixels."
    )
    bright_mask: BrightMaskSettings = key(
        BrightMaskSettings(), "Mask of bright sources that the catalogue does not have."
    )
    logging: LoggingSettings = key(LoggingSettings(), "The log.")
    plotting: PlottingSettings = key(PlottingSettings(), "Pictures.")
    performance: PerformanceSettings = key(PerformanceSettings(), "Workers of the loading stage.")
    epsf: EpsfSettings = key(EpsfSettings(), "Empirical PSFs: one per band and cell, built from stars.")
    patches: PatchesSettings = key(PatchesSettings(), "Geometry of the patches.")
    patch_inputs: PatchInputsSettings = key(PatchInputsSettings(), "Payloads of the patches.")
    patch_run: PatchRunSettings = key(PatchRunSettings(), "The fit of the patches.")
    moffat_psf: MoffatPsfSettings = key(MoffatPsfSettings(), "The Moffat PSF that stands in for an ePSF.")
    merge: MergeSettings = key(MergeSettings(), "The merge of the patch catalogues.")
    zp: ZpSettings = key(ZpSettings(), "Zero point from Gaia XP synthetic photometry.")
    runtime: RuntimeSettings = key(RuntimeSettings(), "Where mapped tasks run.")
    night: NightSettings = key(NightSettings(), "Runs of deployments, night by night.")
    publish: PublishSettings = key(PublishSettings(), "Publishing of the results.")
    retention: RetentionSettings = key(RetentionSettings(), "What of a night goes after a while.")
    watch: WatchSettings = key(WatchSettings(), "What is told of a field over its nights.")
    report: ReportSettings = key(ReportSettings(), "The HTML report.")

    # Not a key: where the configuration came from. Relative entries of the image list start there.
    _base_dir: Path = PrivateAttr(default_factory=Path.cwd)
    # Neither: what {tile_name} and {night} stand for, in the lines of the image list as in the paths.
    _names: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def base_dir(self) -> Path:
        """Folder of the configuration file."""
        return self._base_dir

    @property
    def names(self) -> dict[str, str]:
        """What is put in for the placeholders of paths; empty if nothing has been put in."""
        return dict(self._names)

    def with_names(self, names: Mapping[str, str]) -> Settings:
        """The same settings, with ``names`` for the placeholders in the image list."""
        copy = self.model_copy()
        copy._names = dict(names)
        return copy

    def with_base_dir(self, folder: Path) -> Settings:
        """The same settings, as if their file lay in ``folder``."""
        copy = self.model_copy()
        copy._base_dir = folder
        return copy
