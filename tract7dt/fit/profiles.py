"""Radial Fourier transforms of galaxy profiles, tabulated once per process.

A profile of half-light radius 1 and unit flux has the two-dimensional Fourier transform F(k). An
elliptical one with covariance-like matrix C (``shapes.ellipse``) has F at ``k = sqrt(s)``,
``s = kvec^T C kvec``, so one table of F against s serves every size, axis ratio and angle.

Sersic profiles end at ``CUT_RADIUS`` half-light radii of the *untruncated* profile, and unit flux is the
flux of what is left: the convention of SDSS and The Tractor. The cut is the error function
``erfc((r - 8) / (sqrt(2) 0.35)) / 2``: the width displaces about 1e-4 of the flux across the cut, and without
it F would ring faster than the table resolves. The transform is a Hankel transform on a logarithmic
grid (FFTLog: Hamilton 2000, MNRAS 312, 257; ``scipy.fft.fht``).

The grid of s divides every octave into 16 equal cells, so the number of a cell and the place in it are bits
of the float32 number s (no logarithm, no search); inside a cell F is a cubic Hermite polynomial.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fht, fhtoffset
from scipy.linalg import solve_banded
from scipy.special import erfc, gammaincinv

F8 = NDArray[np.float64]

#: Binary logarithm of the cells in an octave of s.
CELL_BITS = 4
#: s runs over [2**OCTAVE_LO, 2**OCTAVE_HI).
OCTAVE_LO, OCTAVE_HI = -26, 21
N_CELLS = (OCTAVE_HI - OCTAVE_LO) << CELL_BITS

_octave, _cell = np.divmod(np.arange(N_CELLS + 1), 1 << CELL_BITS)
#: Edges of the cells.
S_EDGES: F8 = 2.0 ** (_octave + OCTAVE_LO) * (1 + _cell / (1 << CELL_BITS))
#: Widths of the cells (one more entry than cells, for the last edge).
CELL_WIDTHS = (2.0 ** (np.minimum(_octave, OCTAVE_HI - OCTAVE_LO - 1) + OCTAVE_LO) / (1 << CELL_BITS)).astype(
    np.float32
)

#: Range of the Sersic index that may be fitted; the tables reach a little farther.
N_MIN, N_MAX = 0.3, 6.2
_N_NODES = 64
_LN_N_NODES: F8 = np.linspace(np.log(0.285), np.log(6.45), _N_NODES)

#: Where profiles end, and over what width (sigma), in half-light radii.
CUT_RADIUS, CUT_SIGMA = 8.0, 0.35

# Hogg & Lang (2013, PASP 125, 719), the mixtures "lux" (exponential) and "luv" (de Vaucouleurs): amplitudes and
# variances in units of re**2. The Tractor adds an unresolved core to the latter.
_LUX_AMPLITUDES = (
    2.34853813e-03,
    3.07995260e-02,
    2.23364214e-01,
    1.17949102e00,
    4.33873750e00,
    5.99820770e00,
)
_LUX_VARIANCES = (
    1.20078965e-03,
    8.84526493e-03,
    3.91463084e-02,
    1.39976817e-01,
    4.60962500e-01,
    1.50159566e00,
)
_LUV_AMPLITUDES = (
    4.26347652e-02,
    2.40127183e-01,
    6.85907632e-01,
    1.51937350e00,
    2.83627243e00,
    4.46467501e00,
    5.72440830e00,
    5.60989349e00,
)
_LUV_VARIANCES = (
    2.23759216e-04,
    1.00220099e-03,
    4.18731126e-03,
    1.69432589e-02,
    6.84850479e-02,
    2.87207080e-01,
    1.33320254e00,
    8.40215071e00,
)
_LUV_CORE = 0.010233


def sersic_profile(r: F8, n: float) -> F8:
    """Surface brightness of the cut Sersic profile of half-light radius 1, relative to its centre.

    Parameters
    ----------
    r : ndarray
        Radius in half-light radii of the untruncated profile.
    n : float
        Sersic index.
    """
    b = gammaincinv(2 * n, 0.5)
    taper = 0.5 * erfc((r - CUT_RADIUS) / (np.sqrt(2) * CUT_SIGMA))
    return np.asarray(np.exp(-b * r ** (1 / n)) * taper)


def spline_slopes(values: F8, step: float) -> F8:
    """Slopes at the knots of the cubic spline through values on an even grid, third derivative without a break
    at the second and the last knot but one (de Boor 1978, ch. IV).

    What ``scipy.interpolate.CubicSpline`` gives; importing that costs a process a fifth of a second and 20 MB.

    Parameters
    ----------
    values : ndarray, float64 (n, ...)
        At least four knots along the first axis.
    step : float
        Distance of the knots.
    """
    rise = np.diff(values, axis=0) / step
    right = np.empty_like(values)
    right[1:-1] = 3 * (rise[:-1] + rise[1:])
    right[0], right[-1] = (5 * rise[0] + rise[1]) / 2, (5 * rise[-1] + rise[-2]) / 2
    bands = np.ones((3, len(values)))
    bands[1, 1:-1] = 4
    bands[0, 1] = bands[2, -2] = 2
    flat = solve_banded((1, 1), bands, right.reshape(len(values), -1))
    return np.asarray(flat.reshape(values.shape), float)


def spline_at(x: F8, first: float, step: float, values: F8) -> tuple[F8, F8]:
    """Value and slope at ``x`` of the spline of :func:`spline_slopes` on an even grid from ``first``."""
    slopes = spline_slopes(values, step) * step
    cell = np.clip(((x - first) / step).astype(np.int64), 0, len(values) - 2)
    t = (x - first) / step - cell
    low, rise = values[cell], values[cell + 1] - values[cell]
    m0, m1 = slopes[cell], slopes[cell + 1]
    curve, twist = 3 * rise - 2 * m0 - m1, m0 + m1 - 2 * rise
    return low + t * (m0 + t * (curve + t * twist)), (m0 + t * (2 * curve + 3 * t * twist)) / step


def sersic_transform(n: float, n_grid: int = 8192) -> tuple[F8, F8]:
    """F and dF/ds of the unit-flux Sersic profile at ``S_EDGES``, by FFTLog.

    Parameters
    ----------
    n : float
        Sersic index.
    n_grid : int
        Points of the logarithmic grid of radii from 1e-9 to 1e7 half-light radii.
    """
    ln_r = np.linspace(np.log(1e-9), np.log(1e7), n_grid)
    step = ln_r[1] - ln_r[0]
    r = np.exp(ln_r)
    profile = sersic_profile(r, n)
    total = 2 * np.pi * np.sum(r * r * profile) * step  # the trapezium rule is exact here: both ends vanish
    bias = -0.4
    offset = fhtoffset(step, mu=0.0, initial=0.0, bias=bias)
    hankel = fht(r * profile, step, mu=0.0, offset=offset, bias=bias)
    ln_k = offset + (np.arange(n_grid) - (n_grid - 1) / 2) * step - (ln_r[0] + ln_r[-1]) / 2
    near = (ln_k > np.log(S_EDGES[0]) / 2 - 2) & (ln_k < np.log(S_EDGES[-1]) / 2 + 2)
    f = 2 * np.pi * hankel[near] / np.exp(ln_k[near]) / total
    value, slope = spline_at(np.log(S_EDGES), 2 * ln_k[near][0], 2 * step, f)
    return value, slope / S_EDGES


def mixture_transform(amplitudes: F8, variances: F8, core: float = 0.0) -> tuple[F8, F8]:
    """F and dF/ds of a sum of round Gaussians and an unresolved core, at ``S_EDGES``.

    Parameters
    ----------
    amplitudes, variances : ndarray
        Relative fluxes; variances per axis in units of re**2.
    core : float
        Share of the flux in the core.
    """
    parts = np.exp(-0.5 * S_EDGES[:, None] * variances) * (amplitudes / amplitudes.sum() * (1 - core))
    return parts.sum(1) + core, -(0.5 * variances * parts).sum(1)


@cache
def fixed_tables(profiles: Literal["sersic", "mixture"]) -> F8:
    """Tables of the two profiles without a free index, float64 (2, N_CELLS + 1, 2): EXP and DEV; F, dF/ds."""
    if profiles == "sersic":
        pairs = [sersic_transform(1.0), sersic_transform(4.0)]
    else:
        pairs = [
            mixture_transform(np.array(_LUX_AMPLITUDES), np.array(_LUX_VARIANCES)),
            mixture_transform(np.array(_LUV_AMPLITUDES), np.array(_LUV_VARIANCES), _LUV_CORE),
        ]
    tables = np.ascontiguousarray(np.stack([np.stack(pair, axis=1) for pair in pairs]))
    tables.flags.writeable = False
    return tables


@cache
def sersic_tables() -> tuple[F8, F8]:
    """Tables for the free Sersic index q = ln n.

    Returns
    -------
    nodes : ndarray, float64 (64,)
        Values of q, equally spaced.
    tables : ndarray, float64 (64, N_CELLS + 1, 4)
        F, dF/ds, dF/dq, d2F/dsdq at every node and edge.
    """
    transforms = np.array([sersic_transform(float(np.exp(q))) for q in _LN_N_NODES])
    by_q = spline_slopes(transforms, _LN_N_NODES[1] - _LN_N_NODES[0])
    tables = np.ascontiguousarray(
        np.stack([transforms[:, 0], transforms[:, 1], by_q[:, 0], by_q[:, 1]], axis=-1)
    )
    tables.flags.writeable = False
    return _LN_N_NODES, tables
