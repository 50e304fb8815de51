"""Every product that passes between stages: its fields, their shapes and units.

Arrays are indexed ``[y, x]``; positions are 0-based with pixel centres at integers, so pixel ``i``
covers ``[i - 0.5, i + 0.5)``. Boxes are half-open in whole pixels. Fluxes are *scaled counts*: image
counts (ADU) brought to the common zero point ``zp_ref``. All products are frozen: a stage returns a
new one, it never changes what it was given.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tract7dt.mapped import read_part

if TYPE_CHECKING:
    import pandas as pd
    from astropy.wcs import WCS

__all__ = [
    "BAD_BRIGHT",
    "BAD_NONFINITE",
    "BAD_SATURATED",
    "Box",
    "Epsf",
    "EpsfGrid",
    "Field",
    "Frame",
    "ModelKind",
    "ModelSources",
    "Patch",
    "PatchFit",
    "PatchPayload",
    "PatchProblem",
    "PsfAudit",
    "PsfDiagnosis",
    "Ref",
    "Sources",
    "SpatialPsf",
    "ZeroPoint",
]

F4 = NDArray[np.float32]
F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
U1 = NDArray[np.uint8]
Bool = NDArray[np.bool_]

#: Bits of a final mask; a pixel is used by the fit where the mask is 0.
BAD_NONFINITE = 1
BAD_SATURATED = 2
BAD_BRIGHT = 4


@dataclass(frozen=True, slots=True)
class Ref:
    """A product on disk or in an object store: the only thing that passes between tasks.

    Attributes
    ----------
    path : str
        Absolute path or URL.
    sha256 : str
        Digest of the content (of the manifest, for a product of several files).
    kind : str
        What it is: ``field``, ``sources``, ``bright_mask``, ``epsf_band``, ``patches``, ``masks``,
        ``payload``, ``patch_fit``, ``catalog``, ``zero_points``.
    """

    path: str
    sha256: str
    kind: str


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open box of whole pixels, ``x0 <= x < x1``, ``y0 <= y < y1``."""

    x0: int
    x1: int
    y0: int
    y1: int

    @property
    def nx(self) -> int:
        """Width in pixels."""
        return self.x1 - self.x0

    @property
    def ny(self) -> int:
        """Height in pixels."""
        return self.y1 - self.y0

    @property
    def shape(self) -> tuple[int, int]:
        """``(ny, nx)``."""
        return self.ny, self.nx

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the box in an ``[y, x]`` array."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def contains(self, x: F8, y: F8) -> Bool:
        """Which positions fall on a pixel of the box (NaN: none).

        Parameters
        ----------
        x, y : ndarray
            Positions in the box's own frame, pix.
        """
        x, y = np.asarray(x, float), np.asarray(y, float)
        return (x >= self.x0 - 0.5) & (x < self.x1 - 0.5) & (y >= self.y0 - 0.5) & (y < self.y1 - 0.5)

    def expanded(self, halo: int, within: Box) -> Box:
        """The box grown by ``halo`` pixels on each side, clamped to ``within``."""
        return Box(
            max(self.x0 - halo, within.x0),
            min(self.x1 + halo, within.x1),
            max(self.y0 - halo, within.y0),
            min(self.y1 + halo, within.y1),
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """One band's image in the working frame, scaled to ``zp_ref``; memory-mapped, read by window.

    Noise is derived where it is needed and never stored: the sky sigma is one number per band, the
    photon noise of a source is ``flux / gain``.

    Attributes
    ----------
    band : str
        The image's FILTER.
    data : ndarray, float32 (ny, nx)
        Scaled counts, NaN where the input was not finite. Usually a read-only memory map.
    sky_sigma : float
        Sky noise per pixel, scaled counts.
    gain : float
        Electrons per scaled count.
    scale : float
        Scaled counts per ADU, ``10**(-0.4 (ZP_AUTO - zp_ref))``.
    zp_auto : float
        ZP_AUTO of the header, mag AB.
    saturation : float or None
        Scaled counts at and above which a pixel counts as saturated (SATURATE / divisor); None if unknown.
    fwhm_pix : float or None
        FWHM from PEEING, else SEEING / pixel scale, pix; None if the header has neither.
    path : str
        The input image.
    sha256 : str
        Digest of the input image's bytes.
    """

    band: str
    data: F4
    sky_sigma: float
    gain: float
    scale: float
    zp_auto: float
    saturation: float | None
    fwhm_pix: float | None
    path: str
    sha256: str = ""

    def window(self, box: Box) -> F4:
        """Copy of the pixels in ``box``: float32 (ny, nx), C-contiguous, NaN where not finite."""
        return np.asarray(read_part(self.data, box.slices), dtype=np.float32)

    def bad_bits(self, box: Box) -> U1:
        """``BAD_NONFINITE`` and ``BAD_SATURATED`` bits of the pixels in ``box``, uint8 (ny, nx)."""
        data = self.window(box)
        bits = np.where(np.isfinite(data), 0, BAD_NONFINITE).astype(np.uint8)
        if self.saturation is not None:
            with np.errstate(invalid="ignore"):
                bits |= np.where(data >= self.saturation, BAD_SATURATED, 0).astype(np.uint8)
        return bits


@dataclass(frozen=True, slots=True)
class Field:
    """All bands of one field on one working pixel frame (cropped when ``crop.enabled``).

    Attributes
    ----------
    frames : mapping of str to Frame
        By band, in the order of the image list.
    white, white_sigma : ndarray, float32 (ny, nx)
        Inverse-variance weighted stack of all bands and its noise; NaN and inf where no band is finite.
    wcs : astropy.wcs.WCS
        Celestial WCS of the working frame.
    crop : Box
        The working frame within the full input frame.
    pixel_scale_arcsec : float
        Geometric mean pixel scale.
    epoch : float or None
        Mean epoch of the images (Julian year), from DATE-OBS or MJD-OBS.
    zp_ref : float
        Common zero point of the scaled counts, mag AB.
    """

    frames: Mapping[str, Frame]
    white: F4
    white_sigma: F4
    wcs: WCS
    crop: Box
    pixel_scale_arcsec: float
    epoch: float | None
    zp_ref: float

    @property
    def bands(self) -> tuple[str, ...]:
        """Band names, in the order of the image list."""
        return tuple(self.frames)

    @property
    def shape(self) -> tuple[int, int]:
        """``(ny, nx)`` of the working frame."""
        return self.white.shape[0], self.white.shape[1]

    @property
    def box(self) -> Box:
        """The whole working frame."""
        return Box(0, self.shape[1], 0, self.shape[0])


@dataclass(frozen=True, slots=True)
class Sources:
    """The base catalogue: every input row, in order, with position and flags.

    Attributes
    ----------
    table : pandas.DataFrame
        The input columns in their order (names of known columns in canonical case: RA, DEC, ID, TYPE,
        FLUX_{band}, ELL, THETA, Re, SERSIC_n and their ``_ERR``; ID text, known numbers float64, any
        other column as the text that the file held), followed by

        - ``x_pix_white``, ``y_pix_white``: position in the working frame, pix; NaN if RA or DEC is not finite
        - ``excluded_crop``, ``excluded_saturation``, ``excluded_any``: bool
        - ``gaia_source_id``: text, "" where none (after Gaia augmentation; present as "" before)
        - ``affected_by_bright_mask``: bool
    has_id : bool
        Whether the input had an ID column; otherwise the merge key is (RA, DEC).
    """

    table: pd.DataFrame
    has_id: bool

    def __len__(self) -> int:
        return len(self.table)


PsfKind = Literal["epsf", "borrowed", "moffat", "gaussian_mixture", "ncircular_gaussian"]


@dataclass(frozen=True, slots=True)
class Epsf:
    """The PSF of one band in one cell.

    Attributes
    ----------
    stamp : ndarray, float32 (k, k)
        Unit sum, k odd, centred on pixel ``k // 2``. It is the *effective* PSF: the pixel response is
        included, so a value is the flux that falls on a pixel whose centre is that far from the source.
    n_stars : int
        Stars that the stack used; 0 for an analytic model.
    kind : str
        ``epsf`` or the model that stands in for it.
    quality : mapping
        Plain numbers for meta.json: fwhm_pix, ellipticity, n_candidates, residual scatter, ...
    """

    stamp: F4
    n_stars: int
    kind: PsfKind
    quality: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SpatialPsf:
    """How the PSF of one band varies over the frame: a stamp, and its deformation as a function of place.

    Attributes
    ----------
    stamp : ndarray, float32 (k, k)
        The PSF without deformation, k odd; its central ``size`` by ``size`` pixels sum to 1.
    profile : tuple of 5 floats
        Moffat fit of the stamp: amplitude, alpha (pix), beta, e1, e2.
    coefficients : ndarray, float64 (3, n)
        Of ln size and the elongations along x and along the diagonal, on the polynomials of
        :func:`tract7dt.psf.surface.basis` over ``box``.
    limits : ndarray, float64 (3, 2)
        Smallest and largest value of each that the stars vouch for: no extrapolation beyond.
    box : Box
        The frame: its edges are -1 and 1 of the polynomials.
    size : int
        Width of the stamps that are handed out, odd.
    n_stars : int
        Stars whose stacks the stamp is made of.
    quality : mapping
        Plain numbers for the record.
    """

    stamp: F4
    profile: tuple[float, float, float, float, float]
    coefficients: F8
    limits: F8
    box: Box
    size: int
    n_stars: int
    quality: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EpsfGrid:
    """All cells of one band, ``cell tag (r00_c00) -> Epsf``; a cell that could not be built is absent.

    ``spatial``, where there is one, is the band's PSF as a function of place.
    """

    band: str
    cells: Mapping[str, Epsf]
    spatial: SpatialPsf | None = None


@dataclass(frozen=True, slots=True)
class PsfDiagnosis:
    """What was found in a cell on the way to its PSF, for pictures; it is never written.

    Attributes
    ----------
    background : ndarray, float32 (ny, nx)
        Background map of the cell, mean over blocks of ``step`` pixels, scaled counts.
    step : int
    x, y : ndarray (n,)
        Places of the stars that were cut out, working-frame pix.
    snr : ndarray (n,)
        Signal to noise in the forced aperture.
    used : ndarray, bool (n,)
    reason : tuple of str
        Why not used; "" if it was.
    data : ndarray, float32 (n, k, k)
        Cutouts around the pixel nearest to the place, map subtracted; NaN where not finite or saturated.
    good : ndarray, bool (n, k, k)
        Finite, not saturated, not a neighbour's.
    sky : ndarray (n,)
        Local sky of each star, scaled counts per pixel; 0 where none is subtracted.
    noise : ndarray (n,)
        Sky sigma per pixel at the star, scaled counts.
    gain : float
        Electrons per scaled count.
    """

    background: F4
    step: int
    x: F8
    y: F8
    snr: F8
    used: Bool
    reason: tuple[str, ...]
    data: F4
    good: Bool
    sky: F8
    noise: F8
    gain: float


@dataclass(frozen=True, slots=True)
class Patch:
    """One fitting patch: sources in ``base`` are reported, pixels in ``roi`` are fitted.

    Rows run along y, columns along x; base boxes tile the working frame.
    """

    epsf_row: int
    epsf_col: int
    row: int
    col: int
    base: Box
    roi: Box
    halo_pix: int

    @property
    def epsf_tag(self) -> str:
        """Name of the ePSF cell, ``r00_c00``."""
        return f"r{self.epsf_row:02d}_c{self.epsf_col:02d}"

    @property
    def tag(self) -> str:
        """Name of the patch, ``r00_c00_pr00_pc00``."""
        return f"{self.epsf_tag}_pr{self.row:02d}_pc{self.col:02d}"


@dataclass(frozen=True, slots=True)
class PatchPayload:
    """Everything that a fit of one patch needs, as it is written to disk: pixels, masks, PSFs, table.

    Attributes
    ----------
    patch : Patch
    bands : tuple of str
    data : ndarray, float32 (nband, ny, nx)
        Scaled counts of the roi, NaN where not finite.
    bad : ndarray, uint8 (nband, ny, nx)
        Bits ``BAD_*``; 0 where the pixel is used.
    sky_sigma, gain, scale : ndarray, float64 (nband,)
        As in :class:`Frame`.
    fwhm_pix : ndarray, float64 (nband,)
        FWHM of the header, NaN if unknown.
    psfs : tuple of (Epsf or None)
        One per band; None where the cell has no ePSF.
    table : pandas.DataFrame
        Rows of the base catalogue (all columns) of base and halo sources, plus ``source_index`` (int64
        row number in the base catalogue, the merge key inside a run), ``x_pix_patch``, ``y_pix_patch``
        (``x_pix_white - roi.x0``) and ``_is_halo_source`` (bool).
    paths : tuple of str
        Input images, for the record.
    """

    patch: Patch
    bands: tuple[str, ...]
    data: F4
    bad: U1
    sky_sigma: F8
    gain: F8
    scale: F8
    fwhm_pix: F8
    psfs: tuple[Epsf | None, ...]
    table: pd.DataFrame
    paths: tuple[str, ...] = ()


class ModelKind(enum.IntEnum):
    """Source models of the fit; the name in lower case is ``stype_fit``."""

    STAR = 0
    EXP = 1
    DEV = 2
    SERSIC = 3

    @classmethod
    def of(cls, text: str, unknown: ModelKind) -> ModelKind:
        """Model for a catalogue ``TYPE`` in any case; ``unknown`` for GAL, blank and anything else."""
        return cls.__members__.get(text.strip().upper(), unknown)


@dataclass(frozen=True, slots=True)
class ModelSources:
    """Start values, priors and ownership of the sources of one patch; one entry a source.

    An ``_err`` is the one-sigma width of a Gaussian prior around the start value; ``inf`` means no prior.

    Attributes
    ----------
    kind : ndarray, int64 (n,)
        :class:`ModelKind`.
    x, y : ndarray, float64 (n,)
        Position in the roi, pix; may lie outside of it (a neighbour whose light reaches in).
    re : ndarray, float64 (n,)
        Semi-major-axis half-light radius, pix (ignored for stars).
    ell, theta : ndarray, float64 (n,)
        1 - b/a; angle of the major axis, degrees counter-clockwise from +x towards +y.
    sersic_n : ndarray, float64 (n,)
    flux : ndarray, float64 (nband, n)
        Start flux, scaled counts.
    pos_err, re_err, ell_err, theta_err : ndarray, float64 (n,)
        Priors; ``re_err`` in pix, ``theta_err`` in degrees.
    flux_err : ndarray, float64 (nband, n)
    owned : ndarray, bool (n,)
        Base sources (True) are reported; halo sources are fitted alongside and dropped.
    """

    kind: I8
    x: F8
    y: F8
    re: F8
    ell: F8
    theta: F8
    sersic_n: F8
    flux: F8
    pos_err: F8
    re_err: F8
    ell_err: F8
    theta_err: F8
    flux_err: F8
    owned: Bool

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True, slots=True)
class PsfAudit:
    """How the PSFs of a patch were chosen; the ``psf_*`` audit columns are made from it.

    Attributes
    ----------
    min_nstars : int
        ``patch_run.min_epsf_nstars_for_use``.
    kinds : tuple of str
        Kind of PSF used, per band.
    n_stars : tuple of int
        Stars of the ePSF that was there, per band (0: none there).
    reasons : mapping of str to str
        Band -> why a fallback model was used; empty when none was.
    low_star_bands : tuple of str
        Bands whose ePSF had fewer than ``min_nstars`` stars.
    mixture_bands : tuple of str
        Bands in which a Gaussian mixture stands for the PSF of all sources: one made from the ePSF
        (``psf_model: gaussian_mixture_from_stamp``) or the fallback ``gaussian_mixture``.
    """

    min_nstars: int
    kinds: tuple[str, ...]
    n_stars: tuple[int, ...]
    reasons: Mapping[str, str]
    low_star_bands: tuple[str, ...]
    mixture_bands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PatchProblem:
    """What the fit engine is given: numbers only.

    Attributes
    ----------
    tag : str
    bands : tuple of str
    data : ndarray, float32 (nband, ny, nx)
        Scaled counts; may hold NaN where ``weight`` is 0.
    weight : ndarray, float32 (nband, ny, nx)
        1 / sigma**2 of the likelihood, 0 where masked.
    sky_sigma, gain : ndarray, float64 (nband,)
        For the photon noise of the error estimate.
    psf : tuple of ndarray, float64 (k, k)
        Unit-sum stamp per band for point sources, k odd.
    psf_extended : tuple of ndarray or None
        Stamp per band for galaxies; None: the same as ``psf``.
    sources : ModelSources
    """

    tag: str
    bands: tuple[str, ...]
    data: F4
    weight: F4
    sky_sigma: F8
    gain: F8
    psf: tuple[F8, ...]
    psf_extended: tuple[F8, ...] | None
    sources: ModelSources


@dataclass(frozen=True, slots=True)
class PatchFit:
    """Result of one patch, every source of the problem (base and halo), in its order.

    With all bands fitted at once ``nset`` is 1; in single-band mode it is the number of bands, and every
    quantity of a set belongs to that band. A value that does not exist (shape of a star, a source without a
    good pixel) is NaN; a failure is a flag, never a missing row.

    Attributes
    ----------
    tag : str
    bands : tuple of str
    single_band : bool
    kind : ndarray, int64 (n,)
    x, y, x_err, y_err : ndarray, float64 (nset, n)
        Position in the roi, pix.
    xy_cov : ndarray, float64 (nset, n)
        Covariance of x and y, pix**2.
    re, ell, theta, sersic_n and their _err : ndarray, float64 (nset, n)
        Conventions of :class:`ModelSources`; ``theta`` in [-90, 90).
    flux, flux_err : ndarray, float64 (nband, n)
        Scaled counts; errors are marginal and include photon noise.
    chi2 : ndarray, float64 (nband, n)
        Profile-weighted reduced chi-square over the source's own pixels.
    frac_masked, frac_flux : ndarray, float64 (nband, n)
        Profile-weighted share of masked pixels, and of neighbours' flux.
    sky, sky_err : ndarray, float64 (nband,)
        Fitted constant sky, scaled counts per pixel.
    converged, hit_max_iters, stalled : ndarray, bool (nset, n)
    niter : ndarray, int64 (nset, n)
        Iterations in which the source was moved or the patch's total (documented by the engine).
    last_dlnp : ndarray, float64 (nset, n)
        Last gain of log-posterior.
    bound : tuple of tuple of str, (nset)(n)
        ``"pos.x@upper,shape.logre@lower"`` or "".
    issues : tuple of tuple of str, (nset)(n)
        Reasons for NaN, e.g. ``no_good_pixel``; "" if none.
    lnp : ndarray, float64 (nset,)
        Log-posterior at the solution.
    stages : tuple of mapping
        Per stage (and set): name, niter, converged, lnp; goes into meta.json.
    status : str
        Outcome of the patch: ``converged``, ``stalled``, ``max_iters``, ``empty``.
    residual : ndarray, float32 (nband, ny, nx), or None
        Data minus model, times sqrt(weight), at the solution; None for a fit that was read from disk.
    """

    tag: str
    bands: tuple[str, ...]
    single_band: bool
    kind: I8
    x: F8
    y: F8
    x_err: F8
    y_err: F8
    xy_cov: F8
    re: F8
    re_err: F8
    ell: F8
    ell_err: F8
    theta: F8
    theta_err: F8
    sersic_n: F8
    sersic_n_err: F8
    flux: F8
    flux_err: F8
    chi2: F8
    frac_masked: F8
    frac_flux: F8
    sky: F8
    sky_err: F8
    converged: Bool
    hit_max_iters: Bool
    stalled: Bool
    niter: I8
    last_dlnp: F8
    bound: tuple[tuple[str, ...], ...]
    issues: tuple[tuple[str, ...], ...]
    lnp: F8
    stages: tuple[Mapping[str, Any], ...]
    status: str
    residual: F4 | None = None

    def __len__(self) -> int:
        return len(self.kind)

    def sets(self) -> Iterator[tuple[str | None, int]]:
        """``(band or None, row of the nset axis)``: one pair in multi-band mode, one a band otherwise."""
        if self.single_band:
            yield from ((band, i) for i, band in enumerate(self.bands))
        else:
            yield None, 0


@dataclass(frozen=True, slots=True)
class ZeroPoint:
    """Zero point of one band and what it rests on (a row of zp_summary.csv).

    Attributes
    ----------
    band : str
    n_raw, n_kept, n_clipped, n_unreliable : int
        Stars with a magnitude and a positive flux; kept; clipped; left out as unreliable.
    clip_sigma : float
    value : float
        Weighted median, mag AB of one scaled count; NaN without stars.
    err_mad, err_std, err_median : float
        Scatter of the stars (MAD, unscaled; standard deviation of bright ones), error of the median.
    n_err_src : int
        Stars behind ``err_std``.
    err_snr_used : float
        S/N limit behind ``err_std``; NaN where the MAD stands in.
    err : float
        The active error (``zp.zp_err_method``).
    """

    band: str
    n_raw: int
    n_kept: int
    n_clipped: int
    n_unreliable: int
    clip_sigma: float
    value: float
    err_mad: float
    err_std: float
    err_median: float
    n_err_src: int
    err_snr_used: float
    err: float
