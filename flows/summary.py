"""The record of a run as an observer reads it: Markdown for a phone, and rows of tables.

All of it comes from ``run_summary.json`` and ``zp_summary.csv``; nothing here knows of Prefect.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tract7dt.flags import QUALITY_ISSUES

__all__ = [
    "one_line",
    "read_zero_points",
    "reliability_rows",
    "stage_rows",
    "summary_markdown",
    "zero_point_rows",
]

Record = Mapping[str, Any]
Row = dict[str, str | int | float | None]

# Characters that every font has: not all machines have pictures for emoji.
_STAGE_MARKS = {"running": "●", "done": "✓", "cached": "✓", "skipped": "–", "failed": "✗"}
#: Reasons that need not be told.
_PLAIN = ("never made here",)
_MAX_NAMED = 10


# --- tables ----------------------------------------------------------------------------------------------


def stage_rows(record: Record) -> list[Row]:
    """One row a stage: what became of it, its time and memory, what was reused and why not."""
    return [
        {
            "stage": entry["name"],
            "status": entry["status"],
            "wall (s)": round(entry["wall_s"], 1),
            "CPU (s)": round(entry["cpu_s"], 1),
            "memory (MB)": round(entry["peak_rss_mb"]),
            "note": _note(entry),
        }
        for entry in record["stages"]
    ]


def read_zero_points(path: Path) -> list[dict[str, str]]:
    """Rows of ``zp_summary.csv``; none if it is missing."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    except OSError:
        return []


def zero_point_rows(zero_points: Iterable[Mapping[str, str]], method: str) -> list[Row]:
    """One row a band.

    Parameters
    ----------
    zero_points : iterable of mapping
        From :func:`read_zero_points`.
    method : str
        ``zp.zp_err_method``: which scatter the magnitudes carry.
    """
    scatter = "zp_err_std" if method == "bright_std" else "zp_err_mad"
    return [
        {
            "band": row["band"],
            "zero point (mag)": _number(row.get("zp_median"), 4),
            "its error": _number(row.get("zp_err_median"), 4),
            "scatter of the stars": _number(row.get(scatter), 4),
            "stars": _whole(row.get("n_kept")),
            "clipped": _whole(row.get("n_clipped")),
        }
        for row in zero_points
    ]


def reliability_rows(record: Record) -> list[Row]:
    """How many sources there are, were fitted and are reliable, then how many have each issue."""
    counts = record["counts"]
    if "reliable" not in counts:
        return []
    sources = counts["sources"]
    said = {
        "in the catalogue": sources,
        "to be fitted": counts.get("active"),
        "fitted": counts.get("fitted"),
        "reliable": counts["reliable"],
    }
    rows = [_share(name, "", number, sources) for name, number in said.items() if number is not None]
    found = counts.get("issues", {})
    for issue in QUALITY_ISSUES:
        if number := found.get(issue.name):
            rows.append(_share(issue.name, issue.text, number, sources))
    return rows


def _share(name: str, text: str, number: int, total: int) -> Row:
    return {
        "sources": name,
        "number": number,
        "share": f"{number / total:.1%}" if total else "-",
        "meaning": text,
    }


def _number(text: str | None, digits: int) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return round(value, digits) if math.isfinite(value) else None


def _whole(text: str | None) -> int | None:
    value = _number(text, 0)
    return None if value is None else int(value)


# --- Markdown --------------------------------------------------------------------------------------------


def summary_markdown(
    record: Record,
    zero_points: Sequence[Mapping[str, str]],
    method: str,
    now: Sequence[str] = (),
    warnings: Sequence[str] = (),
    results: Sequence[str] = (),
) -> str:
    """The run on one narrow page.

    Parameters
    ----------
    record : mapping
        ``run_summary.json``.
    zero_points : sequence of mapping
        From :func:`read_zero_points`.
    method : str
        ``zp.zp_err_method``.
    now : sequence of str
        What is going on, while the run lasts.
    warnings, results : sequence of str
        What was logged as a warning; files of the run.
    """
    parts = [
        _headline(record),
        *([_bullets("Now", now)] if now else []),
        _error(record),
        _counts(record),
        _failed(record),
        _zero_points(zero_point_rows(zero_points, method)),
        _bullets("Warnings", [_cell(text) for text in warnings]),
        _given(record),
        _times(record),
        _bullets("Results", [f"`{path}`" for path in results]),
        f"Run `{record['run_id']}`, started {record['started']}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def one_line(record: Record) -> str:
    """What a card has room for: how it ended and what came out."""
    counts, error = record["counts"], record.get("error")
    parts = [f"in stage {error['stage']}"] if error and error["stage"] else []
    if "reliable" in counts:
        parts.append(f"{counts.get('fitted', '?')} sources fitted, {counts['reliable']} reliable")
    if failed := counts.get("failed_patches"):
        parts.append(f"{len(failed)} of {counts['patches']} patches failed")
    return ": ".join(part for part in (f"Run {record['status']}", ", ".join(parts)) if part)


def _headline(record: Record) -> str:
    night = record["parameters"].get("night")
    name = " · ".join(_cell(str(p)) for p in (record["field"], night) if p)
    return f"## {name}: {record['status']}"


def _error(record: Record) -> str:
    error = record.get("error")
    if not error:
        return ""
    where = f"in stage **{error['stage']}**" if error["stage"] else "before the first stage"
    text = "\n".join(f"> {_cell(line)}" for line in str(error["message"]).splitlines())
    return f"It ended {where}:\n\n{text}"


def _counts(record: Record) -> str:
    counts = record["counts"]
    if "sources" not in counts:
        return ""
    lines = [f"**{counts['sources']}** sources"]
    if "reliable" in counts:
        share = f" ({counts['reliable'] / counts['fitted']:.0%})" if counts.get("fitted") else ""
        lines.append(f"**{counts.get('fitted', '?')}** fitted, **{counts['reliable']}** reliable{share}")
    if "patches" in counts:
        failed, left = counts.get("failed_patches") or {}, counts.get("patches_not_fitted") or []
        lines.append(
            f"**{counts['patches']}** patches: "
            + (f"**{len(failed)} failed**" if failed else "none failed")
            + (f", **{len(left)} not fitted** (the run was of a part of the field)" if left else "")
        )
    return "\n".join(f"- {line}" for line in lines)


def _failed(record: Record) -> str:
    failed = record["counts"].get("failed_patches") or {}
    return _bullets("Patches that failed", [f"`{tag}`: {_cell(why)}" for tag, why in failed.items()])


def _zero_points(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    lines = ["### Zero points", "", "| band | zero point | error | stars |", "|---|--:|--:|--:|"]
    for row in rows:
        zp, error = row["zero point (mag)"], row["its error"]
        numbers = [f"{v:.3f}" if isinstance(v, float) else "**none**" for v in (zp, error)]
        lines.append(f"| {_cell(str(row['band']))} | {' | '.join(numbers)} | {row['stars'] or 0} |")
    return "\n".join(lines)


def _given(record: Record) -> str:
    given = record["parameters"]
    lines = [f"`{key}` = `{json.dumps(value)}`" for key, value in (given.get("overrides") or {}).items()]
    lines += [f"only {_cell(item)}" for item in given.get("only") or ()]
    if given.get("refresh"):
        lines.append(f"computed anew: {', '.join(given['refresh'])}")
    return _bullets("Asked for", lines)


def _times(record: Record) -> str:
    lines = [f"### Stages ({duration(record['wall_s'])})", "", "| stage | time | |", "|---|--:|---|"]
    for entry in record["stages"]:
        mark = _STAGE_MARKS.get(entry["status"], "?")
        spent = duration(entry["wall_s"]) if entry["wall_s"] else ""
        lines.append(f"| {mark} {entry['name'].replace('_', ' ')} | {spent} | {_cell(_note(entry))} |")
    return "\n".join(lines)


def _note(entry: Mapping[str, Any]) -> str:
    """What is worth a remark: why a stage was skipped or made, and which run it was reused from."""
    detail = entry["detail"]
    if entry["status"] in ("skipped", "failed"):
        return str(detail.get("reason") or detail.get("error") or "")
    parts = []
    units = next(((detail[kind], kind) for kind in ("bands", "patches") if kind in detail), None)
    if units and detail.get("reused") and entry["status"] != "cached":
        parts.append(f"{detail['reused']} of {units[0]} {units[1]} reused")
    elif entry["status"] == "cached":
        made_by = detail.get("reused_from", ())
        runs = ", ".join(str(run)[:8] for run in made_by[:3]) + (", ..." if len(made_by) > 3 else "")
        parts.append(f"reused from {runs}" if runs else "reused")
    if detail.get("left_out"):
        parts.append(f"{detail['left_out']} left out")
    if why := detail.get("why"):
        causes = sorted(set(why.values()) if isinstance(why, Mapping) else {why})
        parts += [cause for cause in causes if cause not in _PLAIN][:3]
    return "; ".join(parts)


def _bullets(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    shown = [f"- {item}" for item in items[:_MAX_NAMED]]
    if len(items) > _MAX_NAMED:
        shown.append(f"- and {len(items) - _MAX_NAMED} more")
    return "\n".join([f"### {title}", "", *shown])


def _cell(text: str) -> str:
    """``text`` so that it ends no cell and starts no markup."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("_", "\\_")


def duration(seconds: float) -> str:
    """``3.2 s``, ``4 min 05 s``, ``1 h 02 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
