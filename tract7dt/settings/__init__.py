"""The configuration: one definition per key (type, default, unit, range, sentence), read and checked here."""

from tract7dt.settings.compare import differences_from_default, settings_digest
from tract7dt.settings.describe import KeyInfo, SectionInfo, describe, key_table
from tract7dt.settings.epsf import EpsfSettings, MoffatPsfSettings
from tract7dt.settings.frames import (
    BrightMaskSettings,
    CropSettings,
    OverlaySettings,
    SourceSaturationCutSettings,
)
from tract7dt.settings.inputs import (
    ChecksSettings,
    ImageScalingSettings,
    InputsSettings,
    OutputsSettings,
    WcsToleranceSettings,
)
from tract7dt.settings.legacy import LEGACY_KEYS
from tract7dt.settings.load import (
    LoadedSettings,
    apply_overrides,
    load_settings,
    parse_overrides,
    settings_from_dict,
)
from tract7dt.settings.patches import MergeSettings, PatchesSettings, PatchInputsSettings, PatchRunSettings
from tract7dt.settings.placeholders import fill_placeholders
from tract7dt.settings.render import config_markdown, dump_config_text
from tract7dt.settings.root import Settings
from tract7dt.settings.run import (
    LoggingSettings,
    PerformanceSettings,
    PlottingSettings,
    PublishSettings,
    ReportSettings,
    RuntimeSettings,
)
from tract7dt.settings.zp import ZpSettings

__all__ = [
    "LEGACY_KEYS",
    "BrightMaskSettings",
    "ChecksSettings",
    "CropSettings",
    "EpsfSettings",
    "ImageScalingSettings",
    "InputsSettings",
    "KeyInfo",
    "LoadedSettings",
    "LoggingSettings",
    "MergeSettings",
    "MoffatPsfSettings",
    "OutputsSettings",
    "OverlaySettings",
    "PatchInputsSettings",
    "PatchRunSettings",
    "PatchesSettings",
    "PerformanceSettings",
    "PlottingSettings",
    "PublishSettings",
    "ReportSettings",
    "RuntimeSettings",
    "SectionInfo",
    "Settings",
    "SourceSaturationCutSettings",
    "WcsToleranceSettings",
    "ZpSettings",
    "apply_overrides",
    "config_markdown",
    "describe",
    "differences_from_default",
    "dump_config_text",
    "fill_placeholders",
    "key_table",
    "load_settings",
    "parse_overrides",
    "settings_digest",
    "settings_from_dict",
]
