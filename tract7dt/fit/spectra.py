"""Spectra of a source's model and its derivatives in one band, ready for an inverse real FFT.

With frequencies kx, ky in rad/pix, s = kvec^T C kvec, and P the transform of the PSF stamp::

    T^ = F(s) X(kx) Y(ky) P        X = exp(-i kx dx)        Y = exp(-i ky dy)
    dT^/dx = F X' Y P      dT^/dp = F'(s) (kvec^T dC/dp kvec) X Y P      dT^/dq = F_q X Y P

where p is one of log re, ee1, ee2 and q = ln n. At the Nyquist frequency of an even stamp X is the real
cosine and its derivative zero, as a real image demands.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tract7dt.fit._jit import kernel


@kernel
def shift_factor(m: int, shift: float, out: Any, row: int) -> None:
    """One-dimensional transfer function of a sub-pixel shift and its derivative.

    Parameters
    ----------
    m : int
        Pixels of the stamp.
    shift : float
        pix.
    out : ndarray, float32 (8, m)
        Rows ``row`` .. ``row + 3`` are filled with Re X, Im X, Re dX/dshift, Im dX/dshift.
    row : int
    """
    for i in range(m):
        k = 2 * math.pi / m * (i if i < m - m // 2 else i - m)
        cos = math.cos(k * shift)
        sin = -math.sin(k * shift)
        if 2 * i == m:
            sin, k = 0.0, 0.0
        out[row, i] = cos
        out[row + 1, i] = sin
        out[row + 2, i] = k * sin
        out[row + 3, i] = -k * cos


@kernel
def fill_spectra(
    f: Any,
    fs: Any,
    fq: Any,
    psf: Any,
    shifts: Any,
    jacobian: Any,
    pos: bool,
    shape: bool,
    free_n: bool,
    out: Any,
) -> None:
    """Spectra of [T, dT/dx, dT/dy, dT/dlogre, dT/dee1, dT/dee2, dT/dq], those that are wanted, in this order.

    Parameters
    ----------
    f, fs, fq : ndarray, float32 (m, nx)
        Radial functions (:func:`radial.radial_on_grid`), ``nx = m // 2 + 1``.
    psf : ndarray, float32 (m, nx, 2)
        Transform of the PSF stamp centred on pixel ``m // 2``.
    shifts : ndarray, float32 (8, m)
        :func:`shift_factor` of x (rows 0-3) and y (rows 4-7).
    jacobian : ndarray, float64 (3, 3)
        d(Cxx, Cxy, Cyy) / d(log re, ee1, ee2).
    pos, shape, free_n : bool
        Which derivatives to fill: the two positions, the three shape parameters, q.
    out : ndarray, float32 (1 + 2 pos + 3 shape + free_n, m, nx, 2)
        Real and imaginary parts.
    """
    m, nx = out.shape[1], out.shape[2]
    dk = np.float32(2 * np.pi / m)
    a0, a1, a2 = np.float32(jacobian[0, 0]), np.float32(2 * jacobian[1, 0]), np.float32(jacobian[2, 0])
    b0, b1, b2 = np.float32(jacobian[0, 1]), np.float32(2 * jacobian[1, 1]), np.float32(jacobian[2, 1])
    c0, c1, c2 = np.float32(jacobian[0, 2]), np.float32(2 * jacobian[1, 2]), np.float32(jacobian[2, 2])
    at_shape = 3 if pos else 1
    at_n = at_shape + 3 if shape else at_shape
    for iy in range(m):
        ky = dk * np.float32(iy if iy < m - m // 2 else iy - m)
        yy = ky * ky
        yr, yi, dyr, dyi = shifts[4, iy], shifts[5, iy], shifts[6, iy], shifts[7, iy]
        for ix in range(nx):
            pr, pi = psf[iy, ix, 0], psf[iy, ix, 1]
            ypr, ypi = yr * pr - yi * pi, yr * pi + yi * pr
            xr, xi = shifts[0, ix], shifts[1, ix]
            ur, ui = ypr * xr - ypi * xi, ypr * xi + ypi * xr  # X Y P
            v = f[iy, ix]
            out[0, iy, ix, 0] = v * ur
            out[0, iy, ix, 1] = v * ui
            if pos:
                dr, di = shifts[2, ix], shifts[3, ix]
                qr, qi = dyr * pr - dyi * pi, dyr * pi + dyi * pr  # Y' P
                out[1, iy, ix, 0] = v * (ypr * dr - ypi * di)
                out[1, iy, ix, 1] = v * (ypr * di + ypi * dr)
                out[2, iy, ix, 0] = v * (qr * xr - qi * xi)
                out[2, iy, ix, 1] = v * (qr * xi + qi * xr)
            if shape:
                kx = dk * np.float32(ix)
                xx, xy = kx * kx, kx * ky
                g = fs[iy, ix]
                ga = g * (a0 * xx + a1 * xy + a2 * yy)
                gb = g * (b0 * xx + b1 * xy + b2 * yy)
                gc = g * (c0 * xx + c1 * xy + c2 * yy)
                out[at_shape, iy, ix, 0] = ga * ur
                out[at_shape, iy, ix, 1] = ga * ui
                out[at_shape + 1, iy, ix, 0] = gb * ur
                out[at_shape + 1, iy, ix, 1] = gb * ui
                out[at_shape + 2, iy, ix, 0] = gc * ur
                out[at_shape + 2, iy, ix, 1] = gc * ui
            if free_n:
                w = fq[iy, ix]
                out[at_n, iy, ix, 0] = w * ur
                out[at_n, iy, ix, 1] = w * ui
