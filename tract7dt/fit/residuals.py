"""Residual image of one band, its projection on the images, and the local change between two residuals.

Buffers, boxes and columns are those of :mod:`tract7dt.fit.gram`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tract7dt.fit._jit import kernel


@kernel
def residual(
    buffer: Any, offset: Any, box: Any, flux: Any, sky: float, data: Any, sqrt_w: Any, out: Any
) -> float:
    """Whitened data minus sky and sources; returns the sum of squares.

    Parameters
    ----------
    buffer, offset, box
        Whitened images; the first image of a source is its unit-flux model.
    flux : ndarray, float64 (S,)
        Sources of zero flux are skipped.
    sky : float
    data, sqrt_w : ndarray, float32 (ny, nx)
        Whitened data and sqrt(weight).
    out : ndarray, float32 (ny, nx)
        Filled with the residual.
    """
    ny, nx = data.shape
    level = np.float32(sky)
    for y in range(ny):
        d, q, r = data[y], sqrt_w[y], out[y]
        for x in range(nx):
            r[x] = d[x] - level * q[x]
    for s in range(offset.shape[0]):
        f = np.float32(flux[s])
        if f == 0:
            continue
        x0, x1, y0 = box[s, 0], box[s, 1], box[s, 2]
        w = x1 - x0
        for y in range(box[s, 3] - y0):
            start = offset[s] + y * w
            p = buffer[start : start + w]
            r = out[y0 + y, x0:x1]
            for x in range(w):
                r[x] -= f * p[x]
    total = 0.0
    for y in range(ny):
        r = out[y]
        a = np.float32(0)
        for x in range(nx):
            a += r[x] * r[x]
        total += float(a)
    return total


@kernel
def project(
    buffer: Any, offset: Any, box: Any, n_images: Any, column: Any, wanted: Any, image: Any, out: Any
) -> None:
    """Dot product of every image of the wanted sources with a whitened image (the residual).

    Into ``out`` float64 (N,), which keeps what it holds for the other sources.
    """
    for s in range(offset.shape[0]):
        if not wanted[s]:
            continue
        x0, x1, y0 = box[s, 0], box[s, 1], box[s, 2]
        w, h = x1 - x0, box[s, 3] - y0
        for i in range(n_images[s]):
            total = 0.0
            for y in range(h):
                start = offset[s] + (i * h + y) * w
                p = buffer[start : start + w]
                r = image[y0 + y, x0:x1]
                a = np.float32(0)
                for x in range(w):
                    a += p[x] * r[x]
                total += float(a)
            out[column[s] + i] = total


@kernel
def local_gain(before: Any, after: Any, box: Any, gain: Any) -> float:
    """Half the drop of the sum of squares: in every source's box (added to ``gain``), of the image (returned).

    Differences of squares are taken pixel by pixel, so that a small gain is not lost in two large sums.

    Parameters
    ----------
    before, after : ndarray, float32 (ny, nx)
        Whitened residuals.
    box : ndarray, int64 (S, 4)
    gain : ndarray, float64 (S,)
    """
    ny, nx = before.shape
    drop = np.empty((ny, nx), np.float32)
    total = 0.0
    for y in range(ny):
        b, a, d = before[y], after[y], drop[y]
        row = np.float32(0)
        for x in range(nx):
            d[x] = np.float32(0.5) * (b[x] - a[x]) * (b[x] + a[x])
            row += d[x]
        total += float(row)
    for s in range(box.shape[0]):
        x0, x1 = box[s, 0], box[s, 1]
        for y in range(box[s, 2], box[s, 3]):
            d = drop[y, x0:x1]
            row = np.float32(0)
            for x in range(x1 - x0):
                row += d[x]
            gain[s] += float(row)
    return total


@kernel
def gain_of_bands(before: Any, after: Any, box: Any, gain: Any, whole: Any) -> None:
    """:func:`local_gain` of every band, into ``gain`` float64 (nband, S) and ``whole`` float64 (nband,)."""
    for b in range(before.shape[0]):
        whole[b] = local_gain(before[b], after[b], box, gain[b])


@kernel
def sum_of_squares(a: Any, b: Any) -> float:
    """Sum of ``(a b)**2`` over two images float32 (ny, nx)."""
    total = 0.0
    for y in range(a.shape[0]):
        p, q = a[y], b[y]
        row = np.float32(0)
        for x in range(a.shape[1]):
            value = p[x] * q[x]
            row += value * value
        total += float(row)
    return total
