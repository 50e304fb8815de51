"""Curvature of the models: the part of the second derivative of the log-posterior that Gauss-Newton leaves out.

With the whitened residual r and Z = sqrt(w) r, the term is ``sum_b f_b <Z_b, d2T_b / dp dp'>``, for two parameters
of one source. By Parseval it is a sum over the frequencies of a stamp; since the bands share everything but
flux, residual and PSF, the bands are summed first, ``V = sum_b f_b conj(Z^_b) P_b``, at the price of one forward
FFT a band, and the rest is a few moments of ``V X Y`` in kx and ky. A Newton step so informed converges
quadratically where Gauss-Newton creeps: on faint sources, whose residual is as large as themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import rocket_fft  # noqa: F401 - makes scipy.fft callable in compiled code
import scipy.fft

from tract7dt.fit._jit import kernel
from tract7dt.fit.draw import SERSIC, STAR
from tract7dt.fit.radial import radial_curvature, radial_on_grid, sersic_second_at, sersic_table_at
from tract7dt.fit.shapes import ellipse, ellipse_curvature
from tract7dt.fit.spectra import shift_factor


@kernel
def _moments(
    v: Any, shifts: Any, f: Any, fs: Any, fss: Any, fq: Any, fqs: Any, fqq: Any, gal: bool, out: Any
) -> None:
    """Moments of ``a + ib = V X Y``, times ``1 / m**2``, over all frequencies of the full plane.

    ``out`` (21,): a F (kx2, kxky, ky2) | b F' (kx3, kx2ky, kxky2, ky3) | a F' (kx2, kxky, ky2) |
    a F'' (kx4, kx3ky, kx2ky2, kxky3, ky4) | b F_q (kx, ky) | a F_qs (kx2, kxky, ky2) | a F_qq. Without ``gal``
    only the first three.
    """
    m, nx = v.shape[0], v.shape[1]
    dk = np.float32(2 * np.pi / m)
    row_a = np.empty(nx, np.float32)
    row_b = np.empty(nx, np.float32)
    out[:] = 0.0
    for iy in range(m):
        ky = float(dk * np.float32(iy if iy < m - m // 2 else iy - m))
        yr, yi = shifts[4, iy], shifts[5, iy]
        for ix in range(nx):
            twice = np.float32(1) if ix == 0 or 2 * ix == m else np.float32(2)
            xr, xi = shifts[0, ix], shifts[1, ix]
            pr, pi = xr * yr - xi * yi, xr * yi + xi * yr
            vr, vi = v[iy, ix, 0], v[iy, ix, 1]
            row_a[ix] = twice * (vr * pr - vi * pi)
            row_b[ix] = twice * (vr * pi + vi * pr)
        z = np.float32(0)
        f0, f1, f2 = z, z, z
        g0, g1, g2, g3 = z, z, z, z
        p0, p1, p2 = z, z, z
        s0, s1, s2, s3, s4 = z, z, z, z, z
        n0, n1, q0, q1, q2, w0 = z, z, z, z, z, z
        for ix in range(nx):
            kx = dk * np.float32(ix)
            a = row_a[ix] * f[iy, ix]
            f0 += a
            f1 += a * kx
            f2 += a * kx * kx
        if gal:
            for ix in range(nx):
                kx = dk * np.float32(ix)
                k2 = kx * kx
                b = row_b[ix] * fs[iy, ix]
                g0 += b
                g1 += b * kx
                g2 += b * k2
                g3 += b * k2 * kx
                a = row_a[ix] * fs[iy, ix]
                p0 += a
                p1 += a * kx
                p2 += a * k2
                c = row_a[ix] * fss[iy, ix]
                s0 += c
                s1 += c * kx
                s2 += c * k2
                s3 += c * k2 * kx
                s4 += c * k2 * k2
            for ix in range(nx):
                kx = dk * np.float32(ix)
                b = row_b[ix] * fq[iy, ix]
                n0 += b
                n1 += b * kx
                a = row_a[ix] * fqs[iy, ix]
                q0 += a
                q1 += a * kx
                q2 += a * kx * kx
                w0 += row_a[ix] * fqq[iy, ix]
        y2, y3, y4 = ky * ky, ky**3, ky**4
        out[0] += f2
        out[1] += f1 * ky
        out[2] += f0 * y2
        out[3] += g3
        out[4] += g2 * ky
        out[5] += g1 * y2
        out[6] += g0 * y3
        out[7] += p2
        out[8] += p1 * ky
        out[9] += p0 * y2
        out[10] += s4
        out[11] += s3 * ky
        out[12] += s2 * y2
        out[13] += s1 * y3
        out[14] += s0 * y4
        out[15] += n1
        out[16] += n0 * ky
        out[17] += q2
        out[18] += q1 * ky
        out[19] += q0 * y2
        out[20] += w0
    out /= float(m) * float(m)


@kernel
def _second_derivatives(mom: Any, jacobian: Any, second: Any, kind: int, out: Any) -> None:
    """Combine moments to the (6, 6) matrix of ``<Z, d2T / dp dp'>`` in x, y, m, ee1, ee2, ln n."""
    out[0, 0], out[0, 1], out[1, 1] = -mom[0], -mom[1], -mom[2]
    if kind != STAR:
        for j in range(3):
            cxx, cxy, cyy = jacobian[0, j], 2 * jacobian[1, j], jacobian[2, j]
            out[0, 2 + j] = cxx * mom[3] + cxy * mom[4] + cyy * mom[5]
            out[1, 2 + j] = cxx * mom[4] + cxy * mom[5] + cyy * mom[6]
            for i in range(j, 3):
                dxx, dxy, dyy = jacobian[0, i], 2 * jacobian[1, i], jacobian[2, i]
                value = second[0, j, i] * mom[7] + 2 * second[1, j, i] * mom[8] + second[2, j, i] * mom[9]
                value += cxx * dxx * mom[10] + (cxx * dxy + cxy * dxx) * mom[11]
                value += (cxx * dyy + cyy * dxx + cxy * dxy) * mom[12]
                value += (cxy * dyy + cyy * dxy) * mom[13] + cyy * dyy * mom[14]
                out[2 + j, 2 + i] = value
            if kind == SERSIC:
                out[2 + j, 5] = cxx * mom[17] + cxy * mom[18] + cyy * mom[19]
    if kind == SERSIC:
        out[0, 5], out[1, 5], out[5, 5] = mom[15], mom[16], mom[20]
    for i in range(6):
        for j in range(i):
            out[i, j] = out[j, i]


@kernel
def model_curvature(
    theta: Any,
    kind: Any,
    wanted: Any,
    live: Any,
    stamps: Any,
    tables: Any,
    sqrt_w: Any,
    residual: Any,
    flux: Any,
    out: Any,
) -> None:
    """``sum_b f_b <Z_b, d2T_b / dp dp'>`` of the wanted sources, p the coordinates of steps.

    Parameters
    ----------
    theta, kind, live, stamps, tables, sqrt_w
        As in :func:`tract7dt.fit.draw.draw_sources`.
    wanted : ndarray, bool (S,)
    residual : ndarray, float32 (nband, ny, nx)
        Whitened residuals.
    flux : ndarray, float64 (nband, S)
    out : ndarray, float64 (S, 6, 6)
        Filled for wanted sources.
    """
    n_bands = sqrt_w.shape[0]
    jacobian, second, moments = np.zeros((3, 3)), np.zeros((3, 3, 3)), np.zeros(21)
    n_edges = tables.fixed.shape[1]
    free_table, free_second = np.empty((n_edges, 4)), np.empty(n_edges)
    for s in range(theta.shape[0]):
        if not wanted[s]:
            continue
        m = stamps.size[s]
        nx = m // 2 + 1
        x0, x1, y0, y1 = stamps.box[s, 0], stamps.box[s, 1], stamps.box[s, 2], stamps.box[s, 3]
        ax, ay = stamps.centre[s, 0] - m // 2, stamps.centre[s, 1] - m // 2
        v = np.zeros((m, nx, 2), np.float32)
        stamp = np.zeros((m, m), np.float32)
        for b in range(n_bands):
            if not live[b, s]:
                continue
            for y in range(y0, y1):
                to, r, q = stamp[y - ay, x0 - ax : x1 - ax], residual[b, y, x0:x1], sqrt_w[b, y, x0:x1]
                for x in range(x1 - x0):
                    to[x] = r[x] * q[x]
            transform = scipy.fft.rfft2(stamp)
            psf = stamps.psf[b, stamps.psf_offset[s] : stamps.psf_offset[s] + m * nx * 2].reshape((m, nx, 2))
            f = np.float32(flux[b, s])
            for y in range(m):
                for x in range(nx):
                    zr, zi = f * transform[y, x].real, -f * transform[y, x].imag
                    pr, pi = psf[y, x, 0], psf[y, x, 1]
                    v[y, x, 0] += zr * pr - zi * pi
                    v[y, x, 1] += zr * pi + zi * pr
        shifts = np.empty((8, m), np.float32)
        shift_factor(m, theta[s, 0] - stamps.centre[s, 0], shifts, 0)
        shift_factor(m, theta[s, 1] - stamps.centre[s, 1], shifts, 4)
        f_grid = np.ones((m, nx), np.float32)
        fs, fss, fq, fqs, fqq = f_grid, f_grid, f_grid, f_grid, f_grid
        if kind[s] != STAR:
            cxx, cxy, cyy = ellipse(theta[s, 2], theta[s, 3], theta[s, 4], jacobian)
            ellipse_curvature(theta[s, 2], theta[s, 3], theta[s, 4], second)
            fs, fss = np.empty((m, nx), np.float32), np.empty((m, nx), np.float32)
            fq, fqs, fqq = fs, fs, fs
            if kind[s] == SERSIC:
                fq, fqs = np.empty((m, nx), np.float32), np.empty((m, nx), np.float32)
                fqq = np.empty((m, nx), np.float32)
                q = theta[s, 5]
                sersic_table_at(tables.first_node, tables.spacing, tables.sersic, q, free_table)
                sersic_second_at(tables.first_node, tables.spacing, tables.sersic, q, free_second)
                radial_on_grid(free_table, cxx, cxy, cyy, f_grid, fs, fq)
                radial_curvature(free_table, free_second, cxx, cxy, cyy, fss, fqs, fqq)
            else:
                table = tables.fixed[kind[s] - 1]
                radial_on_grid(table, cxx, cxy, cyy, f_grid, fs, fq)
                radial_curvature(table, free_second, cxx, cxy, cyy, fss, fqs, fqq)
        _moments(v, shifts, f_grid, fs, fss, fq, fqs, fqq, kind[s] != STAR, moments)
        _second_derivatives(moments, jacobian, second, kind[s], out[s])
