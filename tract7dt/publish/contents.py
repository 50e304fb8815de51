"""What of a run is published: one table, and the search that goes by it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tract7dt.errors import ProductError
from tract7dt.store import WorkDir
from tract7dt.store.urls import key_problem

__all__ = ["RULES", "Candidate", "Rule", "collect", "content_type"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rule:
    """Which files are published as what.

    Attributes
    ----------
    kind : str
        What an observer asks for: ``tract7dt results get --kind``.
    stages : tuple of str
        Stages that make the file, the last first; it is published only if one of them is done (an older
        run's file may lie there otherwise) and counts as made by the first of these that is.
        ``run``: of no stage.
    folder : callable
        Folder on disk.
    pattern : str
        Glob below it.
    prefix : str
        Folder in the store.
    text : bool
        Secrets are looked for in it.
    needed : bool
        Without it nothing is published.
    """

    kind: str
    stages: tuple[str, ...]
    folder: Callable[[WorkDir], Path]
    pattern: str
    prefix: str = ""
    text: bool = False
    needed: bool = False


def _root(work: WorkDir) -> Path:
    return work.root


def _catalog(work: WorkDir) -> Path:
    return work.final_catalog.parent


_LAST = ("compute_zp", "merge")

#: ``{catalog}``, ``{name}``, ``{command}`` stand for the catalogue's name, the field's, the command's; ``{fits}``
#: for the folder of the fits.
RULES = (
    Rule("catalogue", _LAST, _catalog, "{catalog}.csv", needed=True),
    Rule("catalogue", _LAST, _catalog, "{catalog}.parquet", needed=True),
    Rule("catalogue", _LAST, _catalog, "{catalog}.fits", needed=True),
    Rule("zero_points", ("compute_zp",), lambda w: w.zp, "zp_summary.csv", "ZP/"),
    Rule("zero_points_per_object", ("compute_zp",), lambda w: w.zp, "zp_all_bands__per_object.csv", "ZP/"),
    Rule("augmented_catalogue", ("augment_gaia",), lambda w: w.zp, "{name}_with_Gaia.csv", "ZP/"),
    Rule("plot", ("compute_zp",), lambda w: w.zp, "zp_vs_mag__*.png", "ZP/"),
    Rule("plot", ("augment_gaia",), lambda w: w.zp, "gaia_augmentation_overlay.png", "ZP/"),
    Rule("plot", ("load_inputs",), lambda w: w.overlay, "*.png", "overlay/"),
    Rule("plot", ("load_inputs",), lambda w: w.cropped, "*.png", "cropped_images/"),
    Rule("plot", ("bright_mask",), lambda w: w.bright_mask.parent, "*.png", "bright_mask/"),
    Rule("epsf_plot", ("build_epsf",), lambda w: w.epsf, "*/*/*.png", "EPSFs/"),
    Rule("epsf_summary", ("build_epsf",), lambda w: w.epsf, "epsf_summary.json", "EPSFs/"),
    Rule("patch_plot", ("run_patches",), lambda w: w.fits, "*/patch_overview.png", "outputs/"),
    # beside the report as they are in work_dir: it shows them when a source is looked at
    Rule("cutout", ("run_patches",), lambda w: w.fits, "*/cutouts/src_*.png", "{fits}/"),
    Rule("patches", ("build_patches",), lambda w: w.patches, "patches.csv", "patches/"),
    Rule("wcs", ("load_inputs",), _root, "wcs.fits"),
    Rule("report", ("run",), _root, "report.html", text=True),
    Rule("config", ("run",), _root, "config_used_*.yaml", text=True),
    Rule("log", ("run",), _root, "{command}.log", text=True),
    Rule("run_summary", ("run",), _root, "run_summary.json", text=True, needed=True),
)

_TYPES = {
    ".csv": "text/csv; charset=utf-8",
    ".fits": "application/fits",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".log": "text/plain; charset=utf-8",
    ".parquet": "application/vnd.apache.parquet",
    ".png": "image/png",
    ".yaml": "text/plain; charset=utf-8",  # a browser shows it, and would save application/yaml
}


def content_type(name: str) -> str:
    """Content type by suffix, so that a browser shows plots, tables and the report."""
    return _TYPES.get(Path(name).suffix.lower(), "application/octet-stream")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that is to be published under ``key``."""

    path: Path
    key: str
    rule: Rule
    stage: str


def collect(work: WorkDir, summary: dict[str, Any], *, cutouts: bool = True) -> list[Candidate]:
    """Files of a run that are published, by key.

    A link that leads out of the folder that the configuration names is passed over with a warning.

    Parameters
    ----------
    work : WorkDir
    summary : dict
        ``run_summary.json``.
    cutouts : bool
        Whether the cutouts of sources are among them (``publish.cutouts``).

    Raises
    ------
    ProductError
        A file that every published run has is missing, or a file's name cannot be a key.
    """
    done = {"run"} | {e["name"] for e in summary["stages"] if e["status"] in ("done", "cached")}
    names = {"catalog": work.final_catalog.stem, "name": work.name, "command": str(summary["command"])}
    found: dict[str, Candidate] = {}
    problems: list[str] = []
    for rule in RULES:
        if rule.kind == "cutout" and not cutouts:
            continue
        stage = next((stage for stage in rule.stages if stage in done), None)
        if stage is None:
            if rule.needed:
                problems.append(f"{rule.kind}: its stage ({rule.stages[-1]}) is not done")
            continue
        files = list(_files(rule, work, names))
        if rule.kind == "config":
            files = files[-1:]  # its name carries the time: the newest is this run's
        if rule.needed and not files:
            problems.append(f"{rule.folder(work) / _pattern(rule, names)}: missing")
        for path, name in files:
            key = rule.prefix.replace("{fits}", _fits_folder(work)) + name
            if problem := key_problem(key):
                problems.append(f"{path}: its name {problem}")
            else:
                found[key] = Candidate(path, key, rule, stage)
    if problems:
        raise ProductError("\n  ".join(["the run cannot be published:", *problems]))
    return [found[key] for key in sorted(found)]


def _fits_folder(work: WorkDir) -> str:
    """Folder of the fits relative to the report, which links to what is in it."""
    return work.fits.relative_to(work.root).as_posix() if work.fits.is_relative_to(work.root) else "outputs"


def _pattern(rule: Rule, names: dict[str, str]) -> str:
    for name, value in names.items():
        rule_part = "{" + name + "}"
        if rule_part in rule.pattern:
            return rule.pattern.replace(rule_part, value)
    return rule.pattern


def _files(rule: Rule, work: WorkDir, names: dict[str, str]) -> Iterator[tuple[Path, str]]:
    """Files of a rule with their names below its folder, sorted; only what truly lies there."""
    folder = rule.folder(work)
    pattern = _pattern(rule, names)
    fixed = pattern != rule.pattern or not any(c in pattern for c in "*?[")
    paths: Collection[Path] = [folder / pattern] if fixed else sorted(folder.glob(pattern))
    inside = folder.resolve()
    if folder.is_relative_to(work.root):  # a folder of the run must not be a link out of it
        inside = work.root.resolve() / folder.relative_to(work.root)
    for path in paths:
        if not path.is_file():
            continue
        if not path.resolve().is_relative_to(inside):
            log.warning("%s: a link that leads out of %s; not published", path, inside)
            continue
        yield path, path.relative_to(folder).as_posix()
