"""Kernels that look up a radial table: F on the frequency grid of a stamp, Sersic tables between nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tract7dt.fit._jit import kernel
from tract7dt.fit.profiles import CELL_BITS, CELL_WIDTHS, OCTAVE_HI, OCTAVE_LO

_SHIFT = 23 - CELL_BITS  # float32 has 23 bits of fraction: the upper CELL_BITS of them count the cells
_FIRST_CELL = (OCTAVE_LO + 127) << CELL_BITS  # exponent bias of float32
_FRACTION_MASK = (1 << _SHIFT) - 1
_FRACTION_UNIT = np.float32(1.0 / (1 << _SHIFT))
_S_LO = np.float32(2.0**OCTAVE_LO)
_S_HI = np.float32(2.0**OCTAVE_HI * 0.999)


@kernel
def cells_of_row(cxx: float, cxy: float, cyy: float, ky: float, dk: float, cell: Any, place: Any) -> None:
    """Cell of the table, and place in it (0 to 1), of ``s = cxx kx**2 + 2 cxy kx ky + cyy ky**2``, a row of kx.

    Parameters
    ----------
    cxx, cxy, cyy : float
        pix**2.
    ky, dk : float
        Frequency of the row, and step of kx from 0, rad/pix.
    cell : ndarray, int32 (nx,)
    place : ndarray, float32 (nx,)
        Filled.
    """
    bits_of_s = place.view(np.int32)
    for ix in range(place.shape[0]):
        kx = dk * ix
        s = np.float32(cxx * kx * kx + 2 * cxy * kx * ky + cyy * ky * ky)
        place[ix] = min(max(s, _S_LO), _S_HI)
    for ix in range(place.shape[0]):
        bits = bits_of_s[ix]
        cell[ix] = (bits >> _SHIFT) - _FIRST_CELL
        place[ix] = np.float32(bits & _FRACTION_MASK) * _FRACTION_UNIT


@kernel
def radial_on_grid(table: Any, cxx: float, cxy: float, cyy: float, f: Any, fs: Any, fq: Any) -> None:
    """F, dF/ds and, for a table of four columns, dF/dq at every frequency of a stamp.

    Parameters
    ----------
    table : ndarray, float64 (N_CELLS + 1, 2 or 4)
        F, dF/ds [, dF/dq, d2F/dsdq] at the edges of the cells.
    cxx, cxy, cyy : float
        Matrix C, ``s = cxx kx**2 + 2 cxy kx ky + cyy ky**2``, pix**2.
    f, fs, fq : ndarray, float32 (m, m // 2 + 1)
        Filled; ``fq`` is not touched when the table has two columns.
    """
    m, nx = f.shape
    dk = 2 * np.pi / m
    free_n = table.shape[1] == 4
    cells, places = np.empty(nx, np.int32), np.empty(nx, np.float32)
    one, two, three, six = np.float32(1), np.float32(2), np.float32(3), np.float32(6)
    for iy in range(m):
        cells_of_row(cxx, cxy, cyy, dk * (iy if iy < m - m // 2 else iy - m), dk, cells, places)
        for ix in range(nx):
            cell, t = cells[ix], places[ix]
            h = CELL_WIDTHS[cell]
            u = one - t
            a0 = np.float32(table[cell, 0])
            rise = np.float32(table[cell + 1, 0]) - a0
            b0 = np.float32(table[cell, 1]) * h
            b1 = np.float32(table[cell + 1, 1]) * h
            f[iy, ix] = a0 + t * t * (three - two * t) * rise + t * u * (u * b0 - t * b1)
            fs[iy, ix] = (six * t * u * rise + u * (one - three * t) * b0 + t * (three * t - two) * b1) / h
            if free_n:
                a0 = np.float32(table[cell, 2])
                rise = np.float32(table[cell + 1, 2]) - a0
                b0 = np.float32(table[cell, 3]) * h
                b1 = np.float32(table[cell + 1, 3]) * h
                fq[iy, ix] = a0 + t * t * (three - two * t) * rise + t * u * (u * b0 - t * b1)
    f[0, 0] = 1.0
    if free_n:
        fq[0, 0] = 0.0


@kernel
def radial_curvature(
    table: Any, second: Any, cxx: float, cxy: float, cyy: float, fss: Any, fqs: Any, fqq: Any
) -> None:
    """d2F/ds2 and, for a free Sersic index, d2F/dsdq and d2F/dq2 at every frequency of a stamp.

    Parameters
    ----------
    table : ndarray, float64 (N_CELLS + 1, 2 or 4)
        As in :func:`radial_on_grid`.
    second : ndarray, float64 (N_CELLS + 1,)
        d2F/dq2 at the edges; read only when the table has four columns.
    cxx, cxy, cyy : float
        Matrix C, pix**2.
    fss, fqs, fqq : ndarray, float32 (m, m // 2 + 1)
        Filled; ``fqs`` and ``fqq`` only when the table has four columns.
    """
    m, nx = fss.shape
    dk = 2 * np.pi / m
    free_n = table.shape[1] == 4
    cells, places = np.empty(nx, np.int32), np.empty(nx, np.float32)
    one, two, three, six = np.float32(1), np.float32(2), np.float32(3), np.float32(6)
    for iy in range(m):
        cells_of_row(cxx, cxy, cyy, dk * (iy if iy < m - m // 2 else iy - m), dk, cells, places)
        for ix in range(nx):
            cell, t = cells[ix], places[ix]
            h = CELL_WIDTHS[cell]
            u = one - t
            rise = np.float32(table[cell + 1, 0]) - np.float32(table[cell, 0])
            b0 = np.float32(table[cell, 1]) * h
            b1 = np.float32(table[cell + 1, 1]) * h
            bend = six * (u - t) * rise + (six * t - two * two) * b0 + (six * t - two) * b1
            fss[iy, ix] = bend / (h * h)
            if free_n:
                rise = np.float32(table[cell + 1, 2]) - np.float32(table[cell, 2])
                b0 = np.float32(table[cell, 3]) * h
                b1 = np.float32(table[cell + 1, 3]) * h
                fqs[iy, ix] = (
                    six * t * u * rise + u * (one - three * t) * b0 + t * (three * t - two) * b1
                ) / h
                fqq[iy, ix] = u * np.float32(second[cell]) + t * np.float32(second[cell + 1])
    fss[0, 0] = 0.0
    if free_n:
        fqs[0, 0] = 0.0
        fqq[0, 0] = 0.0


@kernel
def sersic_table_at(first_node: float, spacing: float, tables: Any, q: float, out: Any) -> None:
    """Table of one Sersic index, by cubic Hermite interpolation in q = ln n.

    Parameters
    ----------
    first_node, spacing : float
        Nodes of q.
    tables : ndarray, float64 (nodes, N_CELLS + 1, 4)
        F, dF/ds, dF/dq, d2F/dsdq at the nodes.
    q : float
        ln n.
    out : ndarray, float64 (N_CELLS + 1, 4)
        Filled with the same four columns at q.
    """
    i = min(max(int((q - first_node) / spacing), 0), tables.shape[0] - 2)
    t = (q - first_node) / spacing - i
    u = 1 - t
    a0, a1 = (1 + 2 * t) * u * u, t * t * (3 - 2 * t)
    b0, b1 = t * u * u * spacing, -t * t * u * spacing
    da = 6 * t * u / spacing
    db0, db1 = u * (1 - 3 * t), t * (3 * t - 2)
    left, right = tables[i], tables[i + 1]
    for cell in range(out.shape[0]):
        for k in range(2):
            out[cell, k] = (
                a0 * left[cell, k] + a1 * right[cell, k] + b0 * left[cell, 2 + k] + b1 * right[cell, 2 + k]
            )
            out[cell, 2 + k] = (
                da * (right[cell, k] - left[cell, k]) + db0 * left[cell, 2 + k] + db1 * right[cell, 2 + k]
            )


@kernel
def sersic_second_at(first_node: float, spacing: float, tables: Any, q: float, out: Any) -> None:
    """d2F/dq2 at the edges of the cells: second derivative of the polynomial of :func:`sersic_table_at`.

    Parameters
    ----------
    out : ndarray, float64 (N_CELLS + 1,)
        Filled. The other parameters are those of :func:`sersic_table_at`.
    """
    i = min(max(int((q - first_node) / spacing), 0), tables.shape[0] - 2)
    t = (q - first_node) / spacing - i
    left, right = tables[i], tables[i + 1]
    for cell in range(out.shape[0]):
        out[cell] = (
            6 * (1 - 2 * t) / spacing**2 * (right[cell, 0] - left[cell, 0])
            + ((6 * t - 4) * left[cell, 2] + (6 * t - 2) * right[cell, 2]) / spacing
        )
