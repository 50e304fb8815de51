"""Kernel that draws sources: unit-flux models and derivatives, whitened, into the boxes of their stamps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import rocket_fft  # noqa: F401 - makes scipy.fft callable in compiled code
import scipy.fft
from numpy.typing import NDArray

from tract7dt.fit._jit import kernel
from tract7dt.fit.gram import whiten
from tract7dt.fit.profiles import fixed_tables, sersic_tables
from tract7dt.fit.radial import radial_on_grid, sersic_table_at
from tract7dt.fit.shapes import ellipse
from tract7dt.fit.spectra import fill_spectra, shift_factor
from tract7dt.fit.stamps import extent

F4 = NDArray[np.float32]
F8 = NDArray[np.float64]
I8 = NDArray[np.int64]

# Values of types.ModelKind, as the kernels need plain numbers.
STAR, EXP, DEV, SERSIC = 0, 1, 2, 3


class Tables(NamedTuple):
    """Radial tables of all profiles (:mod:`tract7dt.fit.profiles`)."""

    fixed: F8
    first_node: float
    spacing: float
    sersic: F8


class Stamps(NamedTuple):
    """Where sources are drawn.

    Attributes
    ----------
    size : ndarray, int64 (S,)
        Side m of the stamp.
    centre : ndarray, int64 (S, 2)
        Pixel (x, y) of the patch under the stamp's pixel ``m // 2``.
    box : ndarray, int64 (S, 4)
        Part of the patch that is drawn, x0, x1, y0, y1.
    offset : ndarray, int64 (S,)
        Where the source's images begin in a band's buffer.
    psf : ndarray, float32 (nband, ...)
        PSF transforms of all sizes in use, flat.
    psf_offset : ndarray, int64 (S,)
        Where the source's transform (m, m // 2 + 1, 2) begins.
    """

    size: I8
    centre: I8
    box: I8
    offset: I8
    psf: F4
    psf_offset: I8


def load_tables(profiles: Any) -> Tables:
    """Tables of the chosen profiles; see :class:`tract7dt.fit.options.EngineOptions`."""
    nodes, sersic = sersic_tables()
    return Tables(fixed_tables(profiles), float(nodes[0]), float(nodes[1] - nodes[0]), sersic)


@kernel
def draw_sources(
    theta: Any,
    kind: Any,
    pos: bool,
    shape: bool,
    held: Any,
    changed: Any,
    live: Any,
    stamps: Any,
    tables: Any,
    sqrt_w: Any,
    buffer: Any,
    level: Any,
    needed: Any,
) -> None:
    """Draw the changed sources in every band, and their derivatives by the coordinates of steps.

    Parameters
    ----------
    theta : ndarray, float64 (S, 6)
        x, y, log re, ee1, ee2, ln n; what a kind has not is ignored.
    kind : ndarray, int64 (S,)
    pos, shape : bool
        Whether to draw the derivatives by position, and by shape (:func:`tract7dt.fit.shapes.ellipse`) and index.
    held, changed : ndarray, bool (S,)
        Sources without derivatives; sources to draw.
    live : ndarray, bool (nband, S)
        Bands in which a source has pixels.
    stamps : Stamps
    tables : Tables
    sqrt_w : ndarray, float32 (nband, ny, nx)
    buffer : ndarray, float32 (nband, ...)
        Filled from ``stamps.offset``.
    level : ndarray, float64 (nband, S)
        Model values above which a pixel is needed; 0: do not look.
    needed : ndarray, int64 (S,)
        Filled with the radius that is needed.
    """
    n_bands = sqrt_w.shape[0]
    jacobian = np.zeros((3, 3))
    free_table = np.empty((tables.fixed.shape[1], 4))
    for s in range(theta.shape[0]):
        if not changed[s]:
            continue
        m = stamps.size[s]
        nx = m // 2 + 1
        with_pos = pos and not held[s]
        with_shape = shape and not held[s] and kind[s] != STAR
        with_n = with_shape and kind[s] == SERSIC
        shifts = np.empty((8, m), np.float32)
        shift_factor(m, theta[s, 0] - stamps.centre[s, 0], shifts, 0)
        shift_factor(m, theta[s, 1] - stamps.centre[s, 1], shifts, 4)
        f = np.empty((m, nx), np.float32)
        fs = f
        fq = f
        if kind[s] == STAR:
            f[:, :] = 1
        else:
            cxx, cxy, cyy = ellipse(theta[s, 2], theta[s, 3], theta[s, 4], jacobian)
            fs = np.empty((m, nx), np.float32)
            if kind[s] == SERSIC:
                fq = np.empty((m, nx), np.float32)
                sersic_table_at(tables.first_node, tables.spacing, tables.sersic, theta[s, 5], free_table)
                radial_on_grid(free_table, cxx, cxy, cyy, f, fs, fq)
            else:
                radial_on_grid(tables.fixed[kind[s] - 1], cxx, cxy, cyy, f, fs, fq)
        n_images = 1 + (2 if with_pos else 0) + (3 if with_shape else 0) + (1 if with_n else 0)
        spectra = np.empty((n_images, m, nx, 2), np.float32)
        as_complex = spectra.reshape(-1).view(np.complex64).reshape((n_images, m, nx))
        needed[s] = 0
        for b in range(n_bands):
            if not live[b, s]:
                continue
            psf = stamps.psf[b, stamps.psf_offset[s] : stamps.psf_offset[s] + m * nx * 2].reshape((m, nx, 2))
            fill_spectra(f, fs, fq, psf, shifts, jacobian, with_pos, with_shape, with_n, spectra)
            images = scipy.fft.irfft2(as_complex, (m, m))
            ax, ay = stamps.centre[s, 0] - m // 2, stamps.centre[s, 1] - m // 2
            whiten(images, stamps.box[s], ax, ay, sqrt_w[b], buffer[b], stamps.offset[s])
            if level[b, s] > 0:
                needed[s] = max(needed[s], extent(images[0], m // 2, level[b, s]))
