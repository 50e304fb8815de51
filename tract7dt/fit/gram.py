"""Normal matrix of one band: dot products of whitened images over the overlaps of their boxes.

A box is ``(x0, x1, y0, y1)``, half-open, in the patch. The images of source s (its model and the derivatives)
lie one after the other in a flat buffer from ``offset[s]``, each of the box's size. Where ``zero`` is a float32,
products are summed in float32, which is as exact as the images are and does for the steps of a fit. Errors of
crowds need more: sums in float64, at two or three times the price, with a float64 ``zero``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tract7dt.fit._jit import kernel


@kernel
def whiten(images: Any, box: Any, ax: int, ay: int, sqrt_w: Any, buffer: Any, offset: int) -> None:
    """Copy the part of stamp images that lies in a box, times sqrt(weight), into the buffer.

    Parameters
    ----------
    images : ndarray, float32 (n, m, m)
    box : ndarray, int64 (4,)
    ax, ay : int
        Pixel of the patch on which the stamp's pixel (0, 0) lies.
    sqrt_w : ndarray, float32 (ny, nx)
    buffer : ndarray, float32
    offset : int
        Where the images begin in ``buffer``.
    """
    x0, x1, y0, y1 = box
    w, h = x1 - x0, y1 - y0
    for i in range(images.shape[0]):
        for y in range(h):
            start = offset + (i * h + y) * w
            to = buffer[start : start + w]
            image = images[i, y0 + y - ay, x0 - ax : x0 - ax + w]
            weight = sqrt_w[y0 + y, x0:x1]
            for x in range(w):
                to[x] = image[x] * weight[x]


@kernel
def _block(
    buffer: Any,
    start1: int,
    image1: int,
    row1: int,
    n1: int,
    i: int,
    start2: int,
    image2: int,
    row2: int,
    n2: int,
    j: int,
    h: int,
    w: int,
    zero: Any,
    out: Any,
) -> None:
    """Dot products of images i..i+2 of one source with j..j+2 of another over an h x w overlap, into out (3, 3).

    ``start`` is the buffer index of the overlap's first pixel in image 0, ``image`` and ``row`` the strides. Nine
    sums at a time keep every pixel that was loaded in a register; past the last image the last one is repeated.
    """
    i1, i2 = min(i + 1, n1 - 1), min(i + 2, n1 - 1)
    j1, j2 = min(j + 1, n2 - 1), min(j + 2, n2 - 1)
    a00, a01, a02, a10, a11, a12, a20, a21, a22 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    if row1 == w and row2 == w:
        w, h = w * h, 1
    for y in range(h):
        s1, s2 = start1 + y * row1, start2 + y * row2
        p0 = buffer[s1 + i * image1 : s1 + i * image1 + w]
        p1 = buffer[s1 + i1 * image1 : s1 + i1 * image1 + w]
        p2 = buffer[s1 + i2 * image1 : s1 + i2 * image1 + w]
        q0 = buffer[s2 + j * image2 : s2 + j * image2 + w]
        q1 = buffer[s2 + j1 * image2 : s2 + j1 * image2 + w]
        q2 = buffer[s2 + j2 * image2 : s2 + j2 * image2 + w]
        for x in range(w):
            u0, u1, u2 = zero + p0[x], zero + p1[x], zero + p2[x]  # of the type of ``zero``
            v0, v1, v2 = zero + q0[x], zero + q1[x], zero + q2[x]
            a00 += u0 * v0
            a01 += u0 * v1
            a02 += u0 * v2
            a10 += u1 * v0
            a11 += u1 * v1
            a12 += u1 * v2
            a20 += u2 * v0
            a21 += u2 * v1
            a22 += u2 * v2
    out[0, 0], out[0, 1], out[0, 2] = a00, a01, a02
    out[1, 0], out[1, 1], out[1, 2] = a10, a11, a12
    out[2, 0], out[2, 1], out[2, 2] = a20, a21, a22


@kernel
def gram(
    buffer: Any,
    offset: Any,
    box: Any,
    n_images: Any,
    column: Any,
    live: Any,
    changed: Any,
    data: Any,
    sqrt_w: Any,
    zero: Any,
    matrix: Any,
    rhs: Any,
) -> None:
    """Update the normal matrix and right-hand side of one band for the sources that changed.

    Parameters
    ----------
    buffer, offset, box
        Whitened images, see above; box int64 (S, 4).
    n_images, column : ndarray, int64 (S,)
        Images of a source and the first of its columns; the last column of the matrix is the sky.
    live, changed : ndarray, bool (S,)
        Sources with any pixel in this band; sources whose images changed since the matrix was filled.
    data, sqrt_w : ndarray, float32 (ny, nx)
        Whitened data; sqrt(weight), which is the whitened image of a unit sky.
    zero : float32 or float64
        0 of the type in which to sum.
    matrix : ndarray, float64 (N, N)
        Entries of changed sources are replaced, both triangles; the sky's own entry is left alone.
    rhs : ndarray, float64 (N,)
        Dot products with the data.
    """
    n_sources = offset.shape[0]
    last = rhs.shape[0] - 1
    out = np.empty((3, 3))
    for s in range(n_sources):
        if changed[s]:
            for c in range(column[s], column[s] + n_images[s]):
                rhs[c] = 0.0
                row = matrix[c]
                for j in range(last + 1):
                    if row[j] != 0.0:  # mostly zeros: do not touch what is far away in memory
                        row[j] = 0.0
                        matrix[j, c] = 0.0
    for s in range(n_sources):
        x0, x1, y0, y1 = box[s, 0], box[s, 1], box[s, 2], box[s, 3]
        w, h = x1 - x0, y1 - y0
        if w <= 0 or h <= 0 or not live[s]:
            continue
        for i in range(n_images[s] if changed[s] else 0):
            with_data, with_sky = 0.0, 0.0
            for y in range(h):
                start = offset[s] + (i * h + y) * w
                p = buffer[start : start + w]
                d, q = data[y0 + y, x0:x1], sqrt_w[y0 + y, x0:x1]
                a, b = zero, zero
                for x in range(w):
                    u = zero + p[x]
                    a += u * d[x]
                    b += u * q[x]
                with_data += float(a)
                with_sky += float(b)
            rhs[column[s] + i] = with_data
            matrix[column[s] + i, last] = with_sky
            matrix[last, column[s] + i] = with_sky
        for t in range(s, n_sources):
            if not (changed[s] or changed[t]) or not live[t]:
                continue
            ox0, ox1 = max(x0, box[t, 0]), min(x1, box[t, 1])
            oy0, oy1 = max(y0, box[t, 2]), min(y1, box[t, 3])
            if ox1 <= ox0 or oy1 <= oy0:
                continue
            wt, ht = box[t, 1] - box[t, 0], box[t, 3] - box[t, 2]
            start1 = offset[s] + (oy0 - y0) * w + ox0 - x0
            start2 = offset[t] + (oy0 - box[t, 2]) * wt + ox0 - box[t, 0]
            n1, n2 = n_images[s], n_images[t]
            for i in range(0, n1, 3):
                for j in range(i if s == t else 0, n2, 3):
                    _block(
                        buffer, start1, h * w, w, n1, i, start2, ht * wt, wt, n2, j, oy1 - oy0, ox1 - ox0,
                        zero, out,
                    )  # fmt: skip
                    for a_ in range(min(3, n1 - i)):
                        for b_ in range(min(3, n2 - j)):
                            matrix[column[s] + i + a_, column[t] + j + b_] = out[a_, b_]
                            matrix[column[t] + j + b_, column[s] + i + a_] = out[a_, b_]
