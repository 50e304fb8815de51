"""Every column of the catalogues, once: name, type, unit, meaning.

The merge takes its columns and their types from here, the writers their units and descriptions, and the
docs their tables. A name is a template: ``{band}`` stands for a band, and ``{set}`` for nothing where all
bands are fitted together, ``_{band}`` where each is fitted alone (``x_pix_white{set}_fit`` is
``x_pix_white_fit`` or ``x_pix_white_g_fit``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

__all__ = [
    "COLUMNS",
    "Column",
    "bands_of",
    "columns_markdown",
    "describe",
    "expand",
    "is_single_band",
    "set_suffix",
]

Maker = Literal["input", "sources", "patch_fit", "merge", "zero_point"]
Dtype = Literal["float64", "int64", "bool", "str"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column, or one family of columns while ``name`` holds a placeholder.

    Attributes
    ----------
    name : str
        Name or template.
    dtype : str
        ``float64`` (missing: NaN), ``int64`` (missing: null), ``bool`` (never missing) or ``str``
        (missing: empty).
    unit : str
        FITS unit, "" where there is none. A flux is in ``count``: image counts brought to ``zp_ref``.
    text : str
        Meaning.
    group : str
        Heading in the docs.
    made_by : str
        Stage that fills it.
    new : bool
        Not in tract7dt 0.6 and 0.7.
    single_only : bool
        Exists only where each band is fitted alone.
    """

    name: str
    dtype: Dtype
    unit: str
    text: str
    group: str
    made_by: Maker
    new: bool = False
    single_only: bool = False

    @property
    def is_family(self) -> bool:
        """Whether the name stands for several columns."""
        return "{" in self.name

    def named(self, band: str | None, suffix: str) -> Column:
        """The column for ``band`` with ``{set}`` replaced by ``suffix``."""
        name = self.name.replace("{set}", suffix).replace("{band}", band or "")
        text = self.text.replace("{band}", band or "")
        if "{set}" in self.name and suffix:
            text = f"{text.removesuffix('.')} (band {band} alone)."
        return replace(self, name=name, text=text)


def _group(group: str, made_by: Maker, *rows: tuple[str, Dtype, str, str] | Column) -> tuple[Column, ...]:
    """Columns of one group; rows are (name, dtype, unit, text), a new column's name with ``+`` before."""
    columns = []
    for row in rows:
        if isinstance(row, Column):
            columns.append(row)
            continue
        name, dtype, unit, text = row
        columns.append(
            Column(name.removeprefix("+"), dtype, unit, text, group, made_by, name.startswith("+"))
        )
    return tuple(columns)


_INPUT = _group(
    "Input",
    "input",
    (
        "ID",
        "str",
        "",
        "Name of the source, as in the input catalogue; gaia_{source_id} for an injected Gaia star.",
    ),
    ("RA", "float64", "deg", "Input right ascension, ICRS."),
    ("DEC", "float64", "deg", "Input declination, ICRS."),
    ("TYPE", "str", "", "Input source type: STAR, EXP, DEV, SERSIC or GAL."),
    ("FLUX_{band}", "float64", "count", "Input flux in {band} at zp_ref."),
    (
        "FLUX_{band}_ERR",
        "float64",
        "count",
        "One-sigma error of the input flux in {band}: width of the prior.",
    ),
    ("ELL", "float64", "", "Input ellipticity, 1 - b/a."),
    ("THETA", "float64", "deg", "Input angle of the major axis, counter-clockwise from the +x image axis."),
    ("Re", "float64", "pix", "Input half-light radius along the major axis."),
    ("SERSIC_n", "float64", "", "Input Sersic index."),
    (
        "POS_ERR",
        "float64",
        "pix",
        "One-sigma error of the input position along x and along y: width of the prior.",
    ),
    ("Re_ERR", "float64", "pix", "One-sigma error of the input Re: width of the prior."),
    ("ELL_ERR", "float64", "", "One-sigma error of the input ELL: width of the prior."),
    ("THETA_ERR", "float64", "deg", "One-sigma error of the input THETA: width of the prior."),
)

_EXCLUSION = _group(
    "Exclusion",
    "sources",
    ("excluded_crop", "bool", "", "Not fitted: position not finite or not on the working frame."),
    ("excluded_saturation", "bool", "", "Not fitted: too near to a saturated pixel."),
    ("excluded_any", "bool", "", "Not fitted: excluded_crop or excluded_saturation."),
    Column("excluded_reason", "str", "", "Empty, crop, saturation or crop+saturation.", "Exclusion", "merge"),
    ("affected_by_bright_mask", "bool", "", "The input position lies in the mask of a bright source."),
)

_GAIA = _group(
    "Gaia",
    "sources",
    ("gaia_source_id", "str", "", "Gaia DR3 source_id of the matched or injected star; empty where none."),
)

_POSITION = (
    *_group(
        "Position",
        "sources",
        ("x_pix_white", "float64", "pix", "Input position in the working frame, x; 0-based pixel centres."),
        ("y_pix_white", "float64", "pix", "Input position in the working frame, y; 0-based pixel centres."),
    ),
    *_group(
        "Position",
        "patch_fit",
        ("x_pix_patch", "float64", "pix", "Start position in the patch's pixels, x."),
        ("y_pix_patch", "float64", "pix", "Start position in the patch's pixels, y."),
        ("x_pix_patch{set}_fit", "float64", "pix", "Fitted position in the patch's pixels, x."),
        ("y_pix_patch{set}_fit", "float64", "pix", "Fitted position in the patch's pixels, y."),
        (
            "x_pix_white{set}_fit",
            "float64",
            "pix",
            "Fitted position in the working frame, x; 0-based pixel centres.",
        ),
        (
            "y_pix_white{set}_fit",
            "float64",
            "pix",
            "Fitted position in the working frame, y; 0-based pixel centres.",
        ),
        ("+x_pix{set}_fit_err", "float64", "pix", "One-sigma error of the fitted position, x."),
        ("+y_pix{set}_fit_err", "float64", "pix", "One-sigma error of the fitted position, y."),
        ("+xy_pix{set}_fit_cov", "float64", "pix2", "Covariance of the fitted x and y."),
    ),
    *_group(
        "Position",
        "merge",
        ("RA{set}_fit", "float64", "deg", "Fitted right ascension, ICRS."),
        ("DEC{set}_fit", "float64", "deg", "Fitted declination, ICRS."),
        (
            "+RA{set}_fit_err",
            "float64",
            "arcsec",
            "One-sigma error towards east, on the sky (times cos DEC).",
        ),
        ("+DEC{set}_fit_err", "float64", "arcsec", "One-sigma error towards north."),
    ),
)

_FLUX = _group(
    "Flux",
    "patch_fit",
    ("FLUX_{band}_fit", "float64", "count", "Fitted total flux in {band}; may be negative."),
    (
        "FLUXERR_{band}_fit",
        "float64",
        "count",
        "One-sigma error of the flux in {band}: marginal, with photon noise.",
    ),
    (
        "+CHI2_{band}_fit",
        "float64",
        "",
        "Reduced chi-square in {band} over the source's pixels, weighted by its profile.",
    ),
    ("+FRACMASKED_{band}", "float64", "", "Share of the source's profile in {band} on masked pixels."),
    (
        "+FRACFLUX_{band}",
        "float64",
        "",
        "Flux of neighbours under the source's profile in {band} over its own flux there.",
    ),
    ("+SKY_{band}_fit", "float64", "count/pixel", "Fitted sky of the patch in {band}."),
    (
        "+SKYERR_{band}_fit",
        "float64",
        "count/pixel",
        "One-sigma error of the fitted sky of the patch in {band}.",
    ),
)

_SHAPE = _group(
    "Shape (missing for stars)",
    "patch_fit",
    ("stype_fit", "str", "", "Model that was fitted: star, exp, dev or sersic."),
    ("sersic_n{set}_fit", "float64", "", "Sersic index: fitted for sersic, 1 for exp, 4 for dev."),
    ("+sersic_n{set}_fit_err", "float64", "", "One-sigma error of a fitted Sersic index."),
    ("re_pix{set}_fit", "float64", "pix", "Half-light radius along the major axis; the same as Re_fit."),
    ("ab{set}_fit", "float64", "", "Axis ratio b/a."),
    (
        "phi_deg{set}_fit",
        "float64",
        "deg",
        "Angle of the major axis, counter-clockwise from +y, in [0, 180).",
    ),
    ("Re{set}_fit", "float64", "pix", "Half-light radius along the major axis."),
    ("+Re{set}_fit_err", "float64", "pix", "One-sigma error of the half-light radius."),
    ("ELL{set}_fit", "float64", "", "Ellipticity, 1 - b/a."),
    ("+ELL{set}_fit_err", "float64", "", "One-sigma error of the ellipticity, at most 1: nothing is known."),
    ("THETA{set}_fit", "float64", "deg", "Angle of the major axis, counter-clockwise from +x, in [-90, 90)."),
    ("+THETA{set}_fit_err", "float64", "deg", "One-sigma error of the angle."),
)

_OPTIMISER = _group(
    "Optimiser",
    "patch_fit",
    ("opt_converged{set}", "bool", "", "The fit of the source converged."),
    ("opt_hit_max_iters{set}", "bool", "", "The fit used up its iterations."),
    ("+opt_stalled{set}", "bool", "", "The fit stopped without convergence, with iterations left."),
    ("opt_niters{set}", "int64", "", "Iterations."),
    ("opt_last_dlnp{set}", "float64", "", "Last gain of the log-posterior."),
    ("flag_bound_stalled{set}", "bool", "", "A parameter ended at its bound."),
    (
        "flag_bound_stalled_which_parameter{set}",
        "str",
        "",
        "Those parameters, e.g. pos.x@upper,shape.logre@lower.",
    ),
    ("+opt_issues{set}", "str", "", "The engine's reasons for values that are missing or doubtful."),
)

_AUDIT = _group(
    "Audit",
    "patch_fit",
    ("patch_tag", "str", "", "Patch whose base box holds the source."),
    ("epsf_tag", "str", "", "ePSF cell of the patch."),
    ("psf_min_epsf_nstars_for_use", "int64", "", "Stars that an ePSF needed to be used."),
    ("psf_used_epsf_band_count", "int64", "", "Bands fitted with an ePSF."),
    ("psf_fallback_band_count", "int64", "", "Bands fitted with an analytic model."),
    ("psf_low_star_band_count", "int64", "", "Bands whose ePSF had too few stars."),
    ("psf_fallback_bands", "str", "", "Bands fitted with an analytic model."),
    ("psf_low_star_bands", "str", "", "Bands whose ePSF had too few stars."),
    (
        "psf_frozen_bands_for_optimizer",
        "str",
        "",
        "Bands with a Gaussian-mixture PSF, which is held fixed in the fit.",
    ),
    ("psf_fallback_reasons_json", "str", "", "Why, by band, as JSON."),
)

_RELIABILITY = (
    *_group(
        "Reliability",
        "merge",
        ("fit_is_reliable", "bool", "", "No hard issue (in any band, where bands are fitted alone)."),
        ("fit_quality_issues", "str", "", "Issues, hard and soft, joined by commas."),
    ),
    Column(
        "fit_is_reliable_{band}", "bool", "", "No hard issue in {band}.", "Reliability", "merge", True, True
    ),
    Column(
        "fit_quality_issues_{band}",
        "str",
        "",
        "Issues in {band}, hard and soft, joined by commas.",
        "Reliability",
        "merge",
        True,
        True,
    ),
)

_MAGNITUDE = _group(
    "Magnitude (zp.enabled)",
    "zero_point",
    ("MAG_{band}_fit", "float64", "mag", "AB magnitude in {band}; missing where the flux is not positive."),
    (
        "MAGERR_{band}_fit",
        "float64",
        "mag",
        "One-sigma error of the magnitude in {band}, with that of the zero point.",
    ),
)

#: Every column, in the order of the final catalogue.
COLUMNS: tuple[Column, ...] = (
    *_INPUT,
    *_EXCLUSION,
    *_GAIA,
    *_POSITION,
    *_FLUX,
    *_SHAPE,
    *_OPTIMISER,
    *_AUDIT,
    *_RELIABILITY,
    *_MAGNITUDE,
)


def set_suffix(band: str | None) -> str:
    """What ``{set}`` stands for: "" for all bands together, else ``_{band}``."""
    return "" if band is None else f"_{band}"


def expand(
    bands: Sequence[str], single_band: bool, made_by: Iterable[Maker] | None = None
) -> tuple[Column, ...]:
    """The columns of a run, in catalogue order, placeholders replaced.

    Columns of one band that follow each other in the definition stay together, band after band.

    Parameters
    ----------
    bands : sequence of str
    single_band : bool
        Whether each band is fitted alone.
    made_by : iterable of str, optional
        Only columns of these stages; default all.

    Raises
    ------
    ValueError
        If two columns get one name.
    """
    return _expanded(tuple(bands), single_band, None if made_by is None else frozenset(made_by))


@cache
def _expanded(
    bands: tuple[str, ...], single_band: bool, made_by: frozenset[Maker] | None
) -> tuple[Column, ...]:
    """Columns of :func:`expand`, made once in a process: every patch asks for them."""
    chosen = [
        c for c in COLUMNS if (made_by is None or c.made_by in made_by) and (single_band or not c.single_only)
    ]
    result: list[Column] = []
    start = 0
    while start < len(chosen):
        stop = start + 1
        if _by_band(chosen[start], single_band):
            while stop < len(chosen) and _by_band(chosen[stop], single_band):
                stop += 1
            result += [c.named(b, set_suffix(b)) for b in bands for c in chosen[start:stop]]
        else:
            result.append(chosen[start].named(None, ""))
        start = stop
    counts = Counter(c.name for c in result)
    double = sorted(name for name, n in counts.items() if n > 1)
    if double:
        raise ValueError(f"the bands {list(bands)} give several columns the same name: {double}")
    return tuple(result)


def describe(name: str, bands: Sequence[str]) -> Column | None:
    """The definition of column ``name`` in a catalogue of ``bands``; None for any other column.

    Both modes are known at once, since no name of one means something else in the other.
    """
    return _by_name(tuple(bands)).get(name)


def bands_of(names: Iterable[str]) -> tuple[str, ...]:
    """Fitted bands of a catalogue, from its columns ``FLUXERR_{band}_fit``."""
    found = (re.fullmatch(r"FLUXERR_(.+)_fit", name) for name in names)
    return tuple(m.group(1) for m in found if m)


def is_single_band(names: Iterable[str]) -> bool:
    """Whether these are columns of bands fitted alone."""
    known = set(names)
    return "x_pix_white_fit" not in known and any(f"x_pix_white_{b}_fit" in known for b in bands_of(known))


def columns_markdown() -> str:
    """All columns as Markdown, a table per group, for the docs."""
    lines: list[str] = []
    group = ""
    for column in COLUMNS:
        if column.group != group:
            group = column.group
            lines += ["", f"### {group}", "", "| column | type | unit | meaning |", "|---|---|---|---|"]
        names = f"`{column.name.replace('{set}', '')}`"
        if "{set}" in column.name:
            names += f"<br>single-band: `{column.name.replace('{set}', '_{band}')}`"
        if column.single_only:
            names += "<br>single-band only"
        text = column.text + (" **New.**" if column.new else "")
        lines.append(f"| {names} | {column.dtype} | {column.unit or '-'} | {text} |")
    return "\n".join(lines).lstrip("\n") + "\n"


def _by_band(column: Column, single_band: bool) -> bool:
    """Whether the column comes once per band."""
    return "{band}" in column.name or (single_band and "{set}" in column.name)


@cache
def _by_name(bands: tuple[str, ...]) -> dict[str, Column]:
    """Columns of both modes by name."""
    both = (*expand(bands, True), *expand(bands, False))
    return {c.name: c for c in both}
