"""Which objects of a cell are PSF stars: one list, one set of checks, a reason for each refusal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import sep
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tract7dt.psf.companions import find_companions
from tract7dt.psf.cutouts import StarStamps, cutout, fit_radius
from tract7dt.psf.detection import CellImage, stamp_width
from tract7dt.psf.known import KnownSources, detected_widths, objects_beside
from tract7dt.psf.locus import stellar_locus
from tract7dt.psf.neighbours import neighbour_light

if TYPE_CHECKING:
    import pandas as pd

    from tract7dt.settings import EpsfSettings

__all__ = ["Candidate", "Selection", "after_stack", "select_stars"]

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
Bool = NDArray[np.bool_]

Origin = Literal["sep", "gaia"]
#: A neighbour's share of the star's flux within the fit radius above which the star is refused.
MAX_NEIGHBOUR_SHARE = 0.01
#: Share up to which the neighbour can be fitted with the star: it still tells how the PSF varies.
MAX_FITTED_SHARE = 0.3
#: With fewer stars those serve, too, that have a source of the catalogue so near that its flux is not known.
FEW_STARS = 5
#: Tolerance about the stellar locus of half-light radii: relative, and in sigma of the locus.
LOCUS_TOLERANCE, LOCUS_SIGMA = 0.06, 4.0
#: Share of a cutout's pixels that may be unusable.
MAX_BAD_SHARE = 0.3
#: Margin about the fit radius that a star near the edge must have, pix.
SPARE_EDGE = 3
#: Width of stars where neither the header nor a detection tells it, pix.
DEFAULT_FWHM = 4.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate star of a cell and what became of it.

    Attributes
    ----------
    x, y : float
        Working-frame position, pix.
    origin : str
        ``gaia`` (also when SEP found it too) or ``sep``.
    snr : float
        Flux over error in the forced aperture.
    half_light_pix : float
        Half-light radius, pix; NaN if not measured.
    used : bool
        Part of the final stack.
    reason : str
        Why not: ``snr``, ``edge``, ``nonfinite``, ``saturated``, ``roundness``, ``size``, ``neighbour``,
        ``min_sep``, ``max_stars`` (good but not needed), ``outlier``, ``fit_failed``; "" if used.
    """

    x: float
    y: float
    origin: Origin
    snr: float
    half_light_pix: float
    used: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Candidates of a cell, and the chosen stars as cutouts.

    Attributes
    ----------
    candidates : tuple of Candidate
        Chosen ones have ``used`` True until the stack says otherwise.
    chosen : ndarray, int64 (n,)
        Index of each cutout's candidate.
    stamps : StarStamps
    fwhm : float
        Width of the stellar locus, pix.
    spare : StarStamps
        Stars as good as those, but for the stack too near to the edge (reason ``edge``) or to another star
        (``min_sep``), with a neighbour at a place that is known (``neighbour``), or not needed
        (``max_stars``): they tell how the PSF varies over the frame. Pixels beyond the frame are not good.
    """

    candidates: tuple[Candidate, ...]
    chosen: I8
    stamps: StarStamps
    fwhm: float
    spare: StarStamps


@dataclass(frozen=True, slots=True)
class _Table:
    """Candidates as columns, window coordinates."""

    x: F8
    y: F8
    gaia: Bool
    ratio: F8
    detection: I8  # index into the cell's objects, -1: none


@dataclass(frozen=True, slots=True)
class _Cutout:
    """Pixels of one star, which of them count, and what lies beside it (m, 3)."""

    data: F8
    good: Bool
    beside: F8


def select_stars(
    image: CellImage,
    gaia: pd.DataFrame | None,
    epsf: EpsfSettings,
    fwhm_header: float | None,
    known: KnownSources | None = None,
) -> Selection:
    """Choose the PSF stars of a cell.

    Parameters
    ----------
    image : CellImage
    gaia : DataFrame or None
        Columns ``x_pix_white``, ``y_pix_white`` (working frame, pix), ``phot_g_mean_mag``.
    epsf : EpsfSettings
    fwhm_header : float or None
        Width from the header, pix: the aperture's until the stars' own is known.
    known : KnownSources, optional
        The catalogue's sources, working frame: what lies beside a star, whether or not it was detected.
    """
    table = _candidates(image, gaia, epsf)
    n = len(table.x)
    width = stamp_width(epsf)
    reason = np.full(n, "", dtype=object)
    guess = fwhm_header if fwhm_header is not None else np.nan
    guess = guess if np.isfinite(guess) else _width_of_objects(image)
    guess = guess if np.isfinite(guess) else DEFAULT_FWHM
    snr, flux = _forced(image, table, float(guess), epsf)
    _refuse(reason, ~(snr >= epsf.gaia_snr_min), "snr")
    # a star whose core is complete still tells the PSF's width there, though it is no use for the stack
    _refuse(reason, ~_fits(image, table, int(np.ceil(fit_radius(float(guess)))) + SPARE_EDGE), "edge")
    near_edge = ~_fits(image, table, width // 2 + epsf.edge_pad)
    _check_pixels(reason, image, table, epsf, width, fit_radius(float(guess)))
    low, high = epsf.q_range
    _refuse(reason, (table.ratio < low) | (table.ratio > high), "roundness")
    size = np.full(n, np.nan)
    open_ = np.flatnonzero(reason == "")
    size[open_] = _half_light(image, table.x[open_], table.y[open_], float(guess))
    locus, spread = stellar_locus(size[open_], snr[open_], table.gaia[open_])
    fwhm = float(guess)
    if np.isfinite(locus):
        tolerance = locus * LOCUS_TOLERANCE + LOCUS_SIGMA * spread + 1.5 * locus / np.maximum(snr, 1)
        _refuse(reason, ~(np.abs(size - locus) <= tolerance), "size")
        # the relation of a Moffat profile of beta 3.3 truncated at the measuring aperture
        fwhm = float(np.clip(1.72 * locus, 1.5, 30.0))
    chosen, stamps, spare = _choose(
        reason, near_edge, image, known or KnownSources.none(), table, snr, flux, fwhm, epsf
    )
    candidates = tuple(
        Candidate(
            float(table.x[i]) + image.window.x0,
            float(table.y[i]) + image.window.y0,
            "gaia" if table.gaia[i] else "sep",
            float(snr[i]),
            float(size[i]),
            reason[i] == "",
            str(reason[i]),
        )
        for i in range(n)
    )
    return Selection(candidates, np.array(chosen, np.int64), stamps, fwhm, spare)


def after_stack(selection: Selection, reasons: tuple[str, ...]) -> tuple[Candidate, ...]:
    """The candidates with the stack's verdicts on those that were chosen."""
    candidates = list(selection.candidates)
    for index, reason in zip(selection.chosen, reasons, strict=True):
        candidates[index] = replace(candidates[index], used=reason == "", reason=reason)
    return tuple(candidates)


def _refuse(reason: NDArray[np.object_], bad: Bool, word: str) -> None:
    """Give ``word`` as reason to those that are bad and have none yet."""
    reason[bad & (reason == "")] = word


def _candidates(image: CellImage, gaia: pd.DataFrame | None, epsf: EpsfSettings) -> _Table:
    """SEP detections that reach the threshold, and Gaia stars, of this cell; each object once."""
    objects = image.objects
    window = image.window
    own = image.cell.contains(objects.x + window.x0, objects.y + window.y0)
    seeds = _gaia_positions(image, gaia, epsf)
    detection = np.full(len(seeds), -1)
    if len(seeds) and len(objects):
        distance, nearest = cKDTree(np.column_stack([objects.x, objects.y])).query(seeds)
        detection = np.where(distance <= epsf.gaia_match_r_pix, nearest, -1)
        # two Gaia stars on one detection: the nearer one has it
        order = np.argsort(distance, kind="stable")
        _, first = np.unique(detection[order], return_index=True)
        keep = np.zeros(len(seeds), bool)
        keep[order[first]] = True
        seeds, detection = seeds[keep | (detection < 0)], detection[keep | (detection < 0)]
    matched = detection >= 0
    x, y = seeds[:, 0].copy(), seeds[:, 1].copy()
    if epsf.gaia_snap_to_sep:
        x[matched], y[matched] = objects.x[detection[matched]], objects.y[detection[matched]]
    inside = image.cell.contains(x + window.x0, y + window.y0)  # snapped: each star is in one cell only
    x, y, detection, matched = x[inside], y[inside], detection[inside], matched[inside]
    ratio = np.full(len(x), np.nan)
    ratio[matched] = objects.ratio[detection[matched]]
    from_sep = np.zeros(0, int)
    if epsf.psfstar_mode != "gaia":
        from_sep = np.setdiff1d(np.flatnonzero(own & (objects.n_bright >= epsf.minarea)), detection[matched])
    return _Table(
        np.append(x, objects.x[from_sep]),
        np.append(y, objects.y[from_sep]),
        np.append(np.ones(len(x), bool), np.zeros(len(from_sep), bool)),
        np.append(ratio, objects.ratio[from_sep]),
        np.append(detection, from_sep).astype(np.int64),
    )


def _gaia_positions(image: CellImage, gaia: pd.DataFrame | None, epsf: EpsfSettings) -> F8:
    """Window positions (n, 2) of Gaia stars in or just beyond the cell, within the magnitude limits."""
    if gaia is None or not epsf.use_gaiaxp or epsf.psfstar_mode == "sep" or len(gaia) == 0:
        return np.zeros((0, 2))
    x = gaia["x_pix_white"].to_numpy(float)
    y = gaia["y_pix_white"].to_numpy(float)
    magnitude = gaia["phot_g_mean_mag"].to_numpy(float)
    reach = int(np.ceil(epsf.gaia_match_r_pix))
    near = image.cell.expanded(reach, image.frame_box).contains(x, y)
    use = near & (magnitude >= epsf.gaia_mag_min) & (magnitude <= epsf.gaia_mag_max)
    return np.column_stack([x[use] - image.window.x0, y[use] - image.window.y0])


def _width_of_objects(image: CellImage) -> float:
    """FWHM from the moments of the brighter round detections, pix; NaN where there are none."""
    objects = image.objects
    good = (objects.n_bright >= 9) & (objects.ratio < 1.4)
    if not good.any():
        return np.nan
    return float(np.clip(2.3548 * np.percentile(objects.rms_size[good], 30), 1.5, 15.0))


def _forced(image: CellImage, table: _Table, fwhm: float, epsf: EpsfSettings) -> tuple[F8, F8]:
    """Signal to noise and flux in the forced aperture at each candidate."""
    radius = float(
        np.clip(epsf.gaia_forced_k_fwhm * fwhm, epsf.gaia_forced_rmin_pix, epsf.gaia_forced_rmax_pix)
    )
    if len(table.x) == 0:
        return np.zeros(0), np.zeros(0)
    flux, error, _ = sep.sum_circle(
        image.data, table.x, table.y, radius, err=image.noise, mask=image.nonfinite, gain=image.gain
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.where(error > 0, flux / error, 0.0)
    return np.where(np.isfinite(snr), snr, 0.0), flux


def _fits(image: CellImage, table: _Table, margin: int) -> Bool:
    """Whether the box of half-size ``margin`` about each candidate lies in the frame."""
    x = np.rint(table.x) + image.window.x0
    y = np.rint(table.y) + image.window.y0
    box = image.frame_box
    inside_x = (x - margin >= box.x0) & (x + margin < box.x1)
    return inside_x & (y - margin >= box.y0) & (y + margin < box.y1)


def _check_pixels(
    reason: NDArray[np.object_], image: CellImage, table: _Table, epsf: EpsfSettings, width: int, core: float
) -> None:
    """Saturation in the box of ``star_sat_check_r``; pixels that are not finite near the core or many."""
    half = epsf.cutout_size // 2 if epsf.star_sat_check_r == "auto" else int(epsf.star_sat_check_r)
    for i in np.flatnonzero(reason == ""):
        x, y = round(float(table.x[i])), round(float(table.y[i]))
        if image.saturated[_around(x, y, half)].any():
            reason[i] = "saturated"
        elif (
            image.nonfinite[_around(x, y, int(np.ceil(core)))].any()
            or image.nonfinite[_around(x, y, width // 2)].mean() > MAX_BAD_SHARE
        ):
            reason[i] = "nonfinite"


def _around(x: int, y: int, half: int) -> tuple[slice, slice]:
    return slice(max(y - half, 0), y + half + 1), slice(max(x - half, 0), x + half + 1)


def _half_light(image: CellImage, x: F8, y: F8, fwhm: float) -> F8:
    """Half-light radius within an aperture of 2.5 FWHM, pix."""
    if len(x) == 0:
        return np.zeros(0)
    aperture = np.full(len(x), float(np.clip(2.5 * fwhm, 6.0, 20.0)))
    radius, _ = sep.flux_radius(image.data, x, y, aperture, 0.5, mask=image.nonfinite, subpix=5)
    return np.where(np.isfinite(radius) & (radius > 0), radius, np.nan)


def _choose(
    reason: NDArray[np.object_],
    near_edge: Bool,
    image: CellImage,
    known: KnownSources,
    table: _Table,
    snr: F8,
    flux: F8,
    fwhm: float,
    epsf: EpsfSettings,
) -> tuple[list[int], StarStamps, StarStamps]:
    """Best first: separation, neighbours, number; and the cutouts of the chosen and of the spare."""
    taken: list[int] = []
    apart: list[int] = []
    cutouts: dict[int, _Cutout] = {}
    half, fit_pix = stamp_width(epsf) // 2, fit_radius(fwhm)
    catalogue = known.within(image.window)
    widths = detected_widths(catalogue, image.objects, fwhm)
    for i in sorted(map(int, np.flatnonzero(reason == "")), key=lambda j: -snr[j]):
        if np.count_nonzero(~near_edge[taken]) >= 2 * epsf.max_stars:
            reason[i] = "max_stars"
            continue
        x, y = round(float(table.x[i])), round(float(table.y[i]))
        own = int(table.detection[i])
        share, foreign = neighbour_light(image, widths, x, y, own, half, float(flux[i]), fwhm, fit_pix)
        good = ~(foreign | cutout(image.nonfinite | image.saturated, x, y, half, True))
        clean = good.mean() >= 1 - 2 * MAX_BAD_SHARE or near_edge[i]
        if share > MAX_FITTED_SHARE or not clean:
            reason[i] = "neighbour"
            continue
        place = float(table.x[i]), float(table.y[i])
        others = objects_beside(catalogue, image.objects, widths, own, *place, fwhm, fit_pix + fwhm)
        others[:, :2] += table.x[i] - x, table.y[i] - y
        data = np.where(good, cutout(image.data, x, y, half, 0.0), 0.0).astype(float)
        cutouts[i] = _Cutout(data, good, others)
        near = np.hypot(table.x[taken] - table.x[i], table.y[taken] - table.y[i])
        if share > MAX_NEIGHBOUR_SHARE:
            reason[i] = "neighbour"
            apart.append(i)
        elif (near < epsf.min_sep).any():
            reason[i] = "min_sep"
            apart.append(i)
        else:
            taken.append(i)
    beside = find_companions(_stamps(taken, cutouts, image, table, half), fwhm, fit_pix)
    told = np.maximum(beside.elsewhere, beside.known) <= MAX_NEIGHBOUR_SHARE
    alone = told & (beside.unsure <= MAX_NEIGHBOUR_SHARE)
    if np.count_nonzero(alone & ~near_edge[taken]) < FEW_STARS:
        alone = told
    chosen: list[int] = []
    spare: list[int] = []
    for i, clean, elsewhere in zip(taken, alone, beside.elsewhere, strict=True):
        if not clean:
            reason[i] = "neighbour"
            if elsewhere <= MAX_NEIGHBOUR_SHARE:
                spare.append(i)
        elif near_edge[i] or len(chosen) == epsf.max_stars:
            reason[i] = "edge" if near_edge[i] else "max_stars"
            spare.append(i)
        else:
            chosen.append(i)
    spare += apart
    return chosen, _stamps(chosen, cutouts, image, table, half), _stamps(spare, cutouts, image, table, half)


def _stamps(
    which: list[int], cutouts: dict[int, _Cutout], image: CellImage, table: _Table, half: int
) -> StarStamps:
    width = 2 * half + 1
    xs, ys = np.rint(table.x[which]).astype(np.int64), np.rint(table.y[which]).astype(np.int64)
    return StarStamps(
        xs + image.window.x0,
        ys + image.window.y0,
        np.array([cutouts[i].data for i in which]).reshape(-1, width, width),
        np.array([cutouts[i].good for i in which], bool).reshape(-1, width, width),
        image.noise[ys, xs].astype(float),
        image.gain,
        tuple(cutouts[i].beside for i in which),
    )
