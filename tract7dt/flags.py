"""Reasons and issues that a catalogue row can carry: one definition for merge, docs and file comments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "EXCLUSION_REASONS",
    "QUALITY_ISSUES",
    "ExclusionReason",
    "QualityIssue",
    "excluded_reason",
    "flags_markdown",
    "reliability",
]

Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ExclusionReason:
    """Why a source was not fitted.

    Attributes
    ----------
    name : str
        As it stands in ``excluded_reason``.
    column : str
        The boolean column that holds it.
    text : str
        One sentence.
    """

    name: str
    column: str
    text: str


@dataclass(frozen=True, slots=True)
class QualityIssue:
    """What can be said against a fit.

    Attributes
    ----------
    name : str
        As it stands in ``fit_quality_issues``.
    hard : bool
        A hard issue makes the source unreliable; a soft one is a remark.
    text : str
        One sentence.
    """

    name: str
    hard: bool
    text: str


#: In the order in which they are joined by "+".
EXCLUSION_REASONS = (
    ExclusionReason(
        "crop",
        "excluded_crop",
        "Position not finite, or not on the working frame (outside the image or crop).",
    ),
    ExclusionReason(
        "saturation",
        "excluded_saturation",
        "A saturated pixel lies within source_saturation_cut.radius_pix of the input position.",
    ),
)

#: In the order in which they are joined by ",".
QUALITY_ISSUES = (
    QualityIssue("excluded", True, "The source was not fitted: see excluded_reason."),
    QualityIssue(
        "no_fit_result",
        True,
        "The source was to be fitted but has no fitted position, or no flux in any band.",
    ),
    QualityIssue(
        "patch_failed",
        True,
        "The fit of the source's patch ended in an error (see the run summary); comes with no_fit_result.",
    ),
    QualityIssue(
        "patch_not_fitted",
        True,
        "The source's patch was left out of this run (a run of a part of the field) and has no earlier fit; "
        "comes with no_fit_result.",
    ),
    QualityIssue("hit_max_iters", True, "The optimiser used up its iterations."),
    QualityIssue(
        "bound_stalled",
        True,
        "A parameter ended at its bound: see flag_bound_stalled_which_parameter.",
    ),
    QualityIssue(
        "bright_mask", True, "The input position lies in the mask of an uncatalogued bright source."
    ),
    QualityIssue(
        "not_converged",
        False,
        "The optimiser stopped before convergence, with iterations left (a stall).",
    ),
    QualityIssue("all_psf_fallback", False, "No band had a usable ePSF: all used an analytic model."),
)


def excluded_reason(crop: Bool, saturation: Bool) -> NDArray[np.object_]:
    """Reasons of each row joined by "+": ``""``, ``crop``, ``saturation`` or ``crop+saturation``.

    Parameters
    ----------
    crop, saturation : ndarray, bool (n,)
        The columns ``excluded_crop`` and ``excluded_saturation``.

    Returns
    -------
    ndarray of str, object (n,)
    """
    return _joined({"crop": crop, "saturation": saturation}, tuple(r.name for r in EXCLUSION_REASONS), "+")


def reliability(issues: Mapping[str, Bool]) -> tuple[Bool, NDArray[np.object_]]:
    """Columns ``fit_is_reliable`` and ``fit_quality_issues``.

    Parameters
    ----------
    issues : mapping of str to ndarray, bool (n,)
        Which rows have each issue, for every name of :data:`QUALITY_ISSUES`.

    Returns
    -------
    reliable : ndarray, bool (n,)
        No hard issue.
    text : ndarray of str, object (n,)
        Names of the row's issues joined by ",".

    Raises
    ------
    ValueError
        If the names are not exactly those of :data:`QUALITY_ISSUES`.
    """
    names = tuple(q.name for q in QUALITY_ISSUES)
    if set(issues) != set(names):
        raise ValueError(f"expected the issues {sorted(names)}, found {sorted(issues)}")
    hard = np.array([issues[q.name] for q in QUALITY_ISSUES if q.hard], dtype=bool)
    reliable: Bool = np.logical_not(np.any(hard, axis=0))
    return reliable, _joined(issues, names, ",")


def flags_markdown() -> str:
    """Both lists as Markdown tables, for the docs."""
    lines = ["| reason | column | meaning |", "|---|---|---|"]
    lines += [f"| `{r.name}` | `{r.column}` | {r.text} |" for r in EXCLUSION_REASONS]
    lines += ["", "| issue | makes the source unreliable | meaning |", "|---|---|---|"]
    lines += [f"| `{q.name}` | {'yes' if q.hard else 'no'} | {q.text} |" for q in QUALITY_ISSUES]
    return "\n".join(lines) + "\n"


def _joined(masks: Mapping[str, Bool], names: tuple[str, ...], separator: str) -> NDArray[np.object_]:
    """Names of the masks that are set in each row."""
    # A row's combination is a number; only the few combinations that occur are spelled out.
    code = np.zeros(len(next(iter(masks.values()))), dtype=np.int64)
    for bit, name in enumerate(names):
        code |= np.asarray(masks[name], dtype=bool).astype(np.int64) << bit
    found, where = np.unique(code, return_inverse=True)
    text = [separator.join(n for bit, n in enumerate(names) if int(c) >> bit & 1) for c in found]
    return np.array(text, dtype=object)[where] if len(text) else np.empty(0, dtype=object)
