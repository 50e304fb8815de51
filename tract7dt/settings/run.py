"""Sections of how a run goes: log, pictures, workers, task runner, publishing, report."""

from __future__ import annotations

from typing import Annotated, Literal

from tract7dt.settings.fields import (
    AutoCount,
    Count,
    Flag,
    LinkSeconds,
    LogFile,
    LogFormat,
    LowerCase,
    NonNegative,
    Options,
    Positive,
    Retries,
    Section,
    TimeZone,
    UpperCase,
    Url,
    WebUrl,
    WholeNumber,
    key,
)

__all__ = [
    "LoggingSettings",
    "NightSettings",
    "PerformanceSettings",
    "PlottingSettings",
    "PublishSettings",
    "ReportSettings",
    "RetentionSettings",
    "RuntimeSettings",
    "WatchSettings",
]


class LoggingSettings(Section):
    """The log."""

    ignore_warnings: Flag = key(True, "Suppress Python warnings.")
    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], UpperCase] = key(
        "INFO", "Messages below this level are not logged."
    )
    file: LogFile = key(
        "auto",
        "Log file, appended to: auto is {work_dir}/{command}.log, a path is relative to work_dir, "
        "null logs to the console only.",
    )
    format: LogFormat = key(
        "%(asctime)s | %(name)s | %(levelname)s | %(message)s", "Form of a line of the log."
    )


class PlottingSettings(Section):
    """Pictures."""

    dpi: Count = key(300, "Resolution of the pictures.", unit="dots/inch")


class PerformanceSettings(Section):
    """Workers of the loading stage."""

    frame_prep_workers: AutoCount = key("auto", "Workers that read and scale images.")
    white_stack_workers: AutoCount = key("auto", "Workers that stack the white image.")


class RuntimeSettings(Section):
    """Where mapped tasks run."""

    task_runner: Annotated[Literal["process", "thread", "sequential", "dask", "ray"], LowerCase] = key(
        "process", "What runs the mapped tasks; sequential: this process, one task at a time."
    )
    max_workers: AutoCount = key("auto", "Workers of the task runner; auto is the number of cores.")
    patches_per_task: AutoCount = key(
        "auto", "Patches that one mapped task fits; auto balances them by predicted cost."
    )
    retries: Retries = key(
        2,
        "How often a task is tried again after a trouble that may pass by itself (connection, I/O, object "
        "store); wrong input never is.",
    )
    retry_delay_seconds: NonNegative = key(
        10.0, "Pause before the first further try; each later one takes twice as long.", unit="s"
    )
    patch_timeout_seconds: Positive | None = key(
        900.0,
        "Longest time of the fit of one patch; its worker is then killed and the patch recorded as failed. "
        "null: no limit. Task runner process only.",
        unit="s",
    )
    task_timeout_seconds: Positive | None = key(
        None,
        "Longest time of any other task (a stage, the ePSF of a band), which then fails; null: no limit.",
        unit="s",
    )
    worker_memory_mb: Count | None = key(
        None,
        "Most memory that a worker may take; a patch or band that needs more is recorded as failed. null: as "
        "much as the machine has. Task runner process only.",
        unit="MiB",
    )
    input_cache_days: Positive | None = key(
        30.0,
        "Local copies of inputs that were given by URL are removed when no run has used them for so long; null "
        "keeps them.",
        unit="d",
    )
    cluster: Options | None = key(
        None, "Address or options handed to the Dask or Ray runner; null starts a local one."
    )
    staging_url: Url | None = key(
        None,
        "Folder of an object store by which payloads go to workers of Dask or Ray, and fits come back; null: they "
        "share the disk of work_dir.",
    )


class NightSettings(Section):
    """Runs of deployments: which night they are of, and what they do before its images are there."""

    timezone: TimeZone = key(
        "America/Santiago", "Time zone of the telescope: the night is the date of its last evening (18 h)."
    )
    quiet_seconds: NonNegative = key(
        60.0, "An image that was written to within this time counts as still being written.", unit="s"
    )
    retry_minutes: Positive = key(
        5.0, "Pause before a run looks again for images that were still being written.", unit="min"
    )
    wait_minutes: NonNegative = key(
        180.0, "How long a run waits for them in all; then it fails and names them.", unit="min"
    )
    catch_up: WholeNumber = key(
        3,
        "Earlier nights that a scheduled run makes up for if nothing has been made of their images; a run that "
        "is later than that ends as skipped.",
        unit="nights",
    )


class PublishSettings(Section):
    """Publishing of the results."""

    url: Url | None = key(
        None,
        "Where results are published, any fsspec URL (s3://bucket/prefix, file:///folder); "
        "null keeps them in work_dir only.",
    )
    endpoint_url: WebUrl | None = key(None, "Address of an S3-compatible service.")
    link_expiry_seconds: LinkSeconds = key(604800, "Life of presigned links in UI artifacts.", unit="s")
    cutouts: Flag = key(True, "Publish the cutouts of every source, too; the published report shows them.")


class RetentionSettings(Section):
    """What of a night goes after a while. Catalogues, zero points, configuration, record and log always stay."""

    payloads_days: Positive | None = key(
        None,
        "Payloads of the patches (outputs.patch_inputs_dir) go so long after the night; null keeps them.",
        unit="d",
    )
    cutouts_days: Positive | None = key(
        None,
        "Cutouts of the sources go so long after the night, in work_dir and where it is published; null keeps "
        "them.",
        unit="d",
    )
    frames_days: Positive | None = key(
        None,
        "Scaled frames and masks ({work_dir}/frames) go so long after the night; null keeps them.",
        unit="d",
    )
    plots_days: Positive | None = key(
        None,
        "Plots of patches and ePSF cells go so long after the night, in work_dir and where it is published; "
        "null keeps them.",
        unit="d",
    )


class WatchSettings(Section):
    """What is told of a field that is observed night after night."""

    zp_jump_mag: Positive | None = key(
        0.1,
        "A zero point that differs by more than this from its median over the last nights is told; null: never.",
        unit="mag",
    )
    nights: Count = key(
        10, "Nights that it is compared with, and that the table of the field's health shows."
    )
    late_hours: Positive = key(
        3.0,
        "A field whose run has not begun so long after its schedule counts as one that did not run.",
        unit="h",
    )


class ReportSettings(Section):
    """The HTML report."""

    enabled: Flag = key(True, "Write report.html into work_dir.")
