"""``tract7dt check-field``: would this field run tonight, and if not, why."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flows.fields import given_of
from flows.parameters import Given, read_given
from flows.publication import store_address
from tract7dt.errors import Tract7dtError
from tract7dt.nights import evening_before
from tract7dt.settings import apply_overrides, fill_placeholders, load_settings
from tract7dt.store import WorkDir

if TYPE_CHECKING:
    from tract7dt.frames import ImageInfo
    from tract7dt.settings import Settings

__all__ = ["Finding", "check_field"]

#: Bytes of products for each pixel and band (frames, masks, payloads), and of pictures for each band.
_PIXEL_BYTES, _PICTURE_BYTES = 14.0, 20e6
#: CPU seconds for each million pixels and band, and for each source and band: fields of 0.8 Mpix, 2 cores.
_MPIX_S, _SOURCE_S = 2.0, 0.0025
_START_S = 20.0
_GB = 1e9


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer.

    Attributes
    ----------
    level : str
        ``ok``; ``warn``: it would run, or end as skipped; ``fail``: it would fail.
    what : str
    said : str
    """

    level: Literal["ok", "warn", "fail"]
    what: str
    said: str


def check_field(path: Path, night: str | None = None) -> list[Finding]:
    """Check a field as if it were to run now.

    Parameters
    ----------
    path : Path
        File of the field, ``fields/NAME.yaml`` of a site, or a configuration.
    night : str, optional
        YYYY-MM-DD; the last evening's by default.

    Raises
    ------
    ConfigError
        The file or the configuration is wrong.
    """
    given = _given(path, night)
    settings = read_given(given).settings
    found = [Finding("ok", "configuration", f"{given.config}, night {given.night}")]
    with store_address(settings):
        images, sources, looked = _inputs(settings, given)
        found += looked
        found.append(_work_dir(settings))
        if images:
            found += [_disk(settings, images), _time(settings, given, images, sources)]
        found.append(_publication(settings))
    return found


def _given(path: Path, night: str | None) -> Given:
    given = given_of(path)
    zone = load_settings(given.config).settings.night.timezone
    return replace(given, night=night or evening_before(datetime.datetime.now(datetime.UTC), zone))


def _inputs(settings: Settings, given: Given) -> tuple[list[ImageInfo], int, list[Finding]]:
    """Images with their headers, number of sources, and what is wrong with either."""
    from tract7dt import frames, sources
    from tract7dt.arrival import look

    found: list[Finding] = []
    images: list[ImageInfo] = []
    n_sources = 0

    def catalogue() -> str:
        nonlocal n_sources
        table = sources.read_catalogue(settings.inputs.input_catalog)
        n_sources = len(table)
        sources.check_bands(table, [image.band for image in images] or table_bands(table))
        return f"{n_sources} sources"

    def table_bands(table: Any) -> list[str]:
        return [
            name[5:] for name in table.table.columns if name.startswith("FLUX_") and not name.endswith("_ERR")
        ]

    def headers() -> str:
        paths = frames.read_image_list(settings.inputs.image_list_file, settings.base_dir, settings.names)
        images.extend(frames.inspect_images(paths, settings))
        ny, nx = images[0].shape
        return f"{len(images)} bands ({', '.join(image.band for image in images)}), {nx} x {ny} pix"

    def gaia() -> str:
        assert settings.inputs.gaiaxp_synphot_csv is not None
        bands = [image.band for image in images]
        sources.read_gaia(
            settings.inputs.gaiaxp_synphot_csv, bands, need_magnitudes=bool(images) and settings.zp.enabled
        )
        return str(settings.inputs.gaiaxp_synphot_csv)

    nightly = _is_nightly(given)
    arrival = look(settings, nightly)
    if arrival.state == "none":
        found.append(Finding("warn", "images", f"none yet: {arrival.why[0]}; the run would end as skipped"))
    elif arrival.state == "arriving":
        found.append(Finding("warn", "images", f"still arriving, the run would wait: {arrival.why[0]}"))
    else:
        found.append(_tried("images", headers))
    found.append(_tried("catalogue", catalogue))
    if settings.inputs.gaiaxp_synphot_csv:
        found.append(_tried("Gaia table", gaia))
    return images, n_sources, found


def _is_nightly(given: Given) -> bool:
    from flows.tonight import is_nightly  # imports Prefect

    return is_nightly(given)


def _tried(what: str, action: Callable[[], str]) -> Finding:
    try:
        return Finding("ok", what, action())
    except (Tract7dtError, OSError) as error:
        return Finding("fail", what, str(error) or type(error).__name__)


def _work_dir(settings: Settings) -> Finding:
    work = settings.outputs.work_dir
    there = next(folder for folder in (work, *work.parents) if folder.exists())
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".check-field-"):
            return Finding("ok", "work_dir", str(work))
    except OSError as error:
        return Finding("fail", "work_dir", f"{work}: {there} cannot be written to ({error.strerror})")


def _disk(settings: Settings, images: list[ImageInfo]) -> Finding:
    work = settings.outputs.work_dir
    ny, nx = images[0].shape
    need = len(images) * (ny * nx * _PIXEL_BYTES + _PICTURE_BYTES)
    free = shutil.disk_usage(next(folder for folder in (work, *work.parents) if folder.exists())).free
    said = f"about {need / _GB:.1f} GB needed, {free / _GB:.1f} GB free"
    return Finding("ok" if free > need else "fail", "disk", said)


def _time(settings: Settings, given: Given, images: list[ImageInfo], n_sources: int) -> Finding:
    """From the last complete run of the field, else by the size of the field."""
    if (last := _last_time(given)) is not None:
        return Finding("ok", "time", f"about {_minutes(last)}, as the last complete run")
    ny, nx = images[0].shape
    cpu = len(images) * (ny * nx / 1e6 * _MPIX_S + n_sources * _SOURCE_S)
    workers = settings.runtime.max_workers
    cores = os.cpu_count() or 1
    wall = _START_S + cpu / (cores if workers == "auto" else min(workers, cores))
    return Finding("ok", "time", f"about {_minutes(wall)}, guessed from the size of the field")


def _last_time(given: Given) -> float | None:
    """Wall time of the last run of the field that computed everything."""
    template = load_settings(given.config).settings
    if given.overrides:
        template = apply_overrides(template, given.overrides, template.base_dir)
    pattern = str(WorkDir.of(fill_placeholders(template, "*")).run_summary)
    root = Path(pattern.split("*", 1)[0] if "*" in pattern else pattern).parent
    files = root.glob(str(Path(pattern).relative_to(root))) if "*" in pattern else [Path(pattern)]
    times: list[tuple[str, float]] = []
    for file in files:
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            whole = all(entry["status"] in ("done", "skipped") for entry in record["stages"])
            if record["status"] in ("done", "partial") and whole:
                times.append((str(record["finished"]), float(record["wall_s"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return max(times)[1] if times else None


def _publication(settings: Settings) -> Finding:
    url = settings.publish.url
    if url is None:
        return Finding("ok", "publication", "none (publish.url is null)")

    def reach() -> str:
        from tract7dt.store.objects import ObjectStore

        ObjectStore(url, settings.publish.endpoint_url).folders(settings.inputs.tile_name)
        return url

    return _tried("publication", reach)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
