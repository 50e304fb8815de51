"""The free parameters of a patch: start values, box bounds, priors, and which are free in a stage.

A source has up to six shared parameters, always in the order of ``NAMES``; fluxes and skies are linear and
follow from them. The Sersic index moves as its logarithm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tract7dt.fit.options import EngineOptions
from tract7dt.fit.profiles import N_MAX, N_MIN
from tract7dt.fit.shapes import soft_covariance, soft_from_shape, stretch, stretch_slopes
from tract7dt.types import ModelKind, ModelSources

F8 = NDArray[np.float64]
I8 = NDArray[np.int64]
Bool = NDArray[np.bool_]

#: Parameters of a source, as they are named in bound flags.
NAMES = ("pos.x", "pos.y", "shape.logre", "shape.ee1", "shape.ee2", "sersicindex")
N_SHARED = 6
LOG_RE, EE1, EE2, LOG_N = 2, 3, 4, 5


@dataclass
class Parameters:
    """Start, bounds and priors of the shared parameters of ``S`` sources.

    Attributes
    ----------
    kind : ndarray, int64 (S,)
    start, lower, upper, prior_mean : ndarray, float64 (S, 6)
    prior_precision : ndarray, float64 (S, 6, 6)
        Inverse covariance of the Gaussian prior, 0 where there is none.
    weak_precision : ndarray, float64 (S, 6)
        Of the weak priors, one by one, on the coordinates of steps: a prior on re would have a cone at zero
        ellipticity, on the tip of which a faint galaxy gets stuck.
    flux_prior_mean, flux_prior_precision : ndarray, float64 (nband, S)
    held : ndarray, bool (S,)
        Sources whose shared parameters stay at the start.
    idle : ndarray, bool (S,)
        Of these, the halo sources that matter to none of the patch's own (:mod:`tract7dt.fit.halo`).
    """

    kind: I8
    start: F8
    lower: F8
    upper: F8
    prior_mean: F8
    prior_precision: F8
    weak_precision: F8
    flux_prior_mean: F8
    flux_prior_precision: F8
    held: Bool
    idle: Bool

    def has(self) -> Bool:
        """Which parameters a source's kind has: bool (S, 6)."""
        galaxy = (self.kind != ModelKind.STAR)[:, None]
        index = (self.kind == ModelKind.SERSIC)[:, None]
        yes = np.ones_like(galaxy)
        return np.concatenate([yes, yes, galaxy, galaxy, galaxy, index], axis=1)

    def log_prior(self, theta: F8) -> F8:
        """Logarithm of the prior of every source's parameters, without its constant, float64 (S,)."""
        weak = to_steps(theta) - to_steps(self.prior_mean)
        value: F8 = -0.5 * (self.weak_precision * weak**2).sum(axis=1)
        if self.prior_precision.any():
            off = theta - self.prior_mean
            value -= 0.5 * np.einsum("si,sij,sj->s", off, self.prior_precision, off)
        return value

    def prior_derivatives(self, theta: F8) -> tuple[F8, F8]:
        """Gradient (S, 6) and negative Hessian (S, 6, 6) of :meth:`log_prior` in the coordinates of steps."""
        weak = to_steps(theta) - to_steps(self.prior_mean)
        gradient: F8 = -self.weak_precision * weak
        precision = self.weak_precision[:, :, None] * np.eye(N_SHARED)
        if self.prior_precision.any():  # most catalogues have no errors
            turn = step_jacobian(theta)
            back = turn.transpose(0, 2, 1) @ self.prior_precision
            gradient -= (back @ (theta - self.prior_mean)[:, :, None])[:, :, 0]
            precision += back @ turn
        return gradient, precision


def to_steps(theta: F8) -> F8:
    """Parameters (S, 6) in the coordinates of steps: the mean radius for re (:mod:`tract7dt.fit.shapes`)."""
    out = theta.copy()
    out[:, LOG_RE] -= stretch(theta[:, EE1], theta[:, EE2])
    return out


def from_steps(coordinates: F8) -> F8:
    """The inverse of :func:`to_steps`."""
    out = coordinates.copy()
    out[:, LOG_RE] += stretch(coordinates[:, EE1], coordinates[:, EE2])
    return out


def step_jacobian(theta: F8) -> F8:
    """Derivatives of the parameters by the coordinates of steps, float64 (S, 6, 6)."""
    jacobian = np.tile(np.eye(N_SHARED), (len(theta), 1, 1))
    jacobian[:, LOG_RE, EE1], jacobian[:, LOG_RE, EE2] = stretch_slopes(theta[:, EE1], theta[:, EE2])
    return jacobian


def usable_start(sources: ModelSources) -> Bool:
    """Sources with a finite position and, for galaxies, a finite shape and index."""
    ok = np.isfinite(sources.x) & np.isfinite(sources.y)
    with np.errstate(invalid="ignore"):
        shape = np.isfinite(sources.re) & (sources.re > 0) & np.isfinite(sources.theta)
        shape &= np.isfinite(sources.ell) & (sources.ell < 1)
        index = np.isfinite(sources.sersic_n) & (sources.sersic_n > 0)
    kind = np.asarray(sources.kind)
    return ok & ((kind == ModelKind.STAR) | shape) & ((kind != ModelKind.SERSIC) | index)


def filled(flux: F8) -> F8:
    """Fluxes with 0 for what is not finite, in C order.

    A patch file holds them by source: as bands x sources they come in Fortran order, and the kernels, which
    are compiled by layout, would be compiled a second time in the first worker that meets one.
    """
    return np.ascontiguousarray(np.where(np.isfinite(flux), flux, 0.0))


def largest_re(sources_re: F8, ny: int, nx: int, options: EngineOptions) -> F8:
    """Upper bound of re of each source, pix: a profile wider than the patch cannot be told from the sky."""
    of_patch = np.maximum(options.re_max_of_patch * max(ny, nx), 2 * sources_re)
    return np.clip(of_patch, 10 * options.re_min, options.re_max)


def build_parameters(
    sources: ModelSources, ny: int, nx: int, pos_max_shift_pix: float | None, options: EngineOptions
) -> Parameters:
    """Parameters of sources whose start is usable (:func:`usable_start`).

    Parameters
    ----------
    sources : ModelSources
    ny, nx : int
        Shape of the patch.
    pos_max_shift_pix : float or None
        Half-width of the position box.
    options : EngineOptions
    """
    n = len(sources)
    kind = np.asarray(sources.kind, np.int64)
    star = kind == ModelKind.STAR
    re = np.where(star, 1.0, sources.re)
    ell, theta = np.where(star, 0.0, sources.ell), np.where(star, 0.0, sources.theta)
    log_re, ee1, ee2 = soft_from_shape(re, np.maximum(ell, 0.0), theta)
    index = np.where(kind == ModelKind.SERSIC, sources.sersic_n, 1.0)
    start = np.stack([sources.x, sources.y, log_re, ee1, ee2, np.log(index)], axis=1)
    lower, upper = np.empty((n, N_SHARED)), np.empty((n, N_SHARED))
    shift = np.inf if pos_max_shift_pix is None else float(pos_max_shift_pix)
    lower[:, :2], upper[:, :2] = start[:, :2] - shift, start[:, :2] + shift
    lower[:, LOG_RE] = np.log(options.re_min)
    upper[:, LOG_RE] = np.log(largest_re(re, ny, nx, options))
    lower[:, EE1:LOG_N], upper[:, EE1:LOG_N] = -options.ee_max, options.ee_max
    lower[:, LOG_N], upper[:, LOG_N] = np.log(N_MIN), np.log(N_MAX)
    start = np.clip(start, lower, upper)
    flux_precision = _precision(sources.flux_err)
    far = options.outside_pix + 0.5
    held = (
        (start[:, 0] < -far)
        | (start[:, 0] > nx - 1 + far)
        | (start[:, 1] < -far)
        | (start[:, 1] > ny - 1 + far)
    )
    return Parameters(
        kind=kind,
        start=start,
        lower=lower,
        upper=upper,
        prior_mean=start.copy(),
        prior_precision=_shared_precision(sources, start, star),
        weak_precision=np.zeros((n, N_SHARED)),
        flux_prior_mean=filled(sources.flux),
        flux_prior_precision=np.ascontiguousarray(np.where(np.isfinite(sources.flux), flux_precision, 0.0)),
        held=held,
        idle=np.zeros(n, bool),
    )


def _precision(error: F8) -> F8:
    """1 / error**2, 0 where the error is no positive finite number."""
    error = np.asarray(error, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.isfinite(error) & (error > 0), error**-2.0, 0.0)


def _shared_precision(sources: ModelSources, start: F8, star: Bool) -> F8:
    """Inverse covariances of the priors on position, log re and (ee1, ee2), float64 (S, 6, 6)."""
    n = len(sources)
    precision = np.zeros((n, N_SHARED, N_SHARED))
    precision[:, 0, 0] = precision[:, 1, 1] = _precision(sources.pos_err)
    precision[:, LOG_RE, LOG_RE] = np.where(star, 0.0, _precision(sources.re_err / np.exp(start[:, LOG_RE])))
    both = (_precision(sources.ell_err) > 0) & (_precision(sources.theta_err) > 0) & ~star
    for s in np.flatnonzero(both):
        covariance = soft_covariance(
            float(sources.ell[s]),
            float(sources.theta[s]),
            float(sources.ell_err[s]),
            float(sources.theta_err[s]),
        )
        # a floor keeps the inverse finite where the two errors differ by many orders
        precision[s, EE1:LOG_N, EE1:LOG_N] = np.linalg.inv(covariance + 1e-12 * np.eye(2))
    return precision


def add_weak_priors(parameters: Parameters, total_snr: F8, options: EngineOptions) -> Bool:
    """Add the weak priors to sources of low total S/N; returns which got them.

    The widths around the start (a pixel, a factor 2 in re) are next to nothing where the data know better, and
    enough to keep a faint source from wandering off, from turning into sky or into a needle, and from taking
    over the light that its neighbour's model does not describe.

    Parameters
    ----------
    parameters : Parameters
        Changed in place.
    total_snr : ndarray, float64 (S,)
        Signal to noise over all bands at the start.
    options : EngineOptions
    """
    if not options.weak_priors:
        return np.zeros(len(total_snr), bool)
    faint = (total_snr < options.weak_prior_snr) & ~parameters.held
    for component in (0, 1):
        parameters.weak_precision[faint, component] = options.weak_prior_pos**-2
    galaxy = faint & (parameters.kind != ModelKind.STAR)
    widest = np.maximum(
        parameters.start[:, LOG_RE] + np.log(options.weak_prior_growth), np.log(options.weak_prior_re)
    )
    parameters.upper[galaxy, LOG_RE] = np.minimum(parameters.upper[:, LOG_RE], widest)[galaxy]
    parameters.weak_precision[galaxy, LOG_RE] = options.weak_prior_log_re**-2
    for component in (EE1, EE2):
        parameters.weak_precision[galaxy, component] = options.weak_prior_ee**-2
    free_n = faint & (parameters.kind == ModelKind.SERSIC)
    parameters.weak_precision[free_n, LOG_N] = options.weak_prior_log_n**-2
    return faint


@dataclass(frozen=True)
class Layout:
    """Which parameters are free in a stage and where they stand.

    Attributes
    ----------
    pos, shape : bool
        Whether positions, and shapes and indices, are free.
    owner, column : ndarray, int64 (nT,)
        Source and place in ``NAMES`` of every free parameter.
    n_images, first : ndarray, int64 (S,)
        Images of a source (model and derivatives) and the first of its columns in the normal matrix.
    flux_columns : ndarray, int64 (S + 1,)
        Columns of the models, and of the sky (the last).
    theta_columns : ndarray, int64 (nT,)
        Columns of the derivatives.
    pairs : tuple of two ndarray, int64
        All pairs of free parameters that belong to one source, itself and both orders included.
    """

    pos: bool
    shape: bool
    owner: I8
    column: I8
    n_images: I8
    first: I8
    flux_columns: I8
    theta_columns: I8
    pairs: tuple[I8, I8]


def build_layout(parameters: Parameters, pos: bool, shape: bool) -> Layout:
    """Layout of a stage in which positions and/or shapes are free."""
    free = parameters.has() & ~parameters.held[:, None]
    free[:, :2] &= pos
    free[:, 2:] &= shape
    n_images = 1 + free.sum(axis=1).astype(np.int64)
    first = np.concatenate([[0], np.cumsum(n_images)[:-1]]).astype(np.int64)
    if len(n_images) == 0:
        first = np.zeros(0, np.int64)
    owner, column = (index.astype(np.int64) for index in np.nonzero(free))
    rank = (np.cumsum(free, axis=1) - 1)[owner, column] if len(owner) else np.zeros(0, np.int64)
    rows, columns = np.nonzero(owner[:, None] == owner)
    return Layout(
        pos=pos,
        shape=shape,
        owner=owner,
        column=column,
        n_images=n_images,
        first=first,
        flux_columns=np.append(first, n_images.sum()).astype(np.int64),
        theta_columns=(first[owner] + 1 + rank).astype(np.int64),
        pairs=(rows.astype(np.int64), columns.astype(np.int64)),
    )
