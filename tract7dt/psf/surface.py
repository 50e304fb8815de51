"""A smooth surface over the frame through noisy values of few stars, no rougher than they show.

Polynomials with a Gaussian prior on each degree's coefficients. How strong each degree is, and how far the
stars scatter beyond their errors, is unknown: a grid of answers is tried and averaged by evidence (Bayesian
model averaging; MacKay 1992). Few or faint stars thus give a constant, more a plane, many a curved surface.

What curves the size of a PSF is, before all else, the curved focal surface of a centred system: a bowl, the
same in all directions, which a tilted detector moves by a plane (Born & Wolf 1999, Principles of Optics, ch. 5).
So for the size a bowl alone is among the answers: one number instead of three, until the stars show that it is
not enough.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Surface", "basis", "fit_surface", "n_terms"]

F8 = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: Highest degree, and strengths (0 first) that are tried for planes, curvature, and all that is rougher.
MAX_DEGREE = 4
LINEAR = (0.0, 0.003, 0.01, 0.03)
CURVED = (0.0, 0.003, 0.01, 0.03)
ROUGH = (0.0, 0.003, 0.01)
#: Scatter of stars beyond their errors that is tried, and how much each is believed beforehand.
SCATTER = ((0.0005, 1.0), (0.002, 1.0), (0.006, 0.5), (0.02, 0.2))
#: Prior of the constant: hardly any.
CONSTANT = 0.2
#: Stars farther than this from the surface, in sigma, are left out.
CLIP_SIGMA = 4.0
MAX_CLIPS = 5


def n_terms(degree: int) -> int:
    """Number of terms of a polynomial in two variables."""
    return (degree + 1) * (degree + 2) // 2


def _powers() -> list[tuple[int, int]]:
    return [(i, d - i) for d in range(MAX_DEGREE + 1) for i in range(d, -1, -1)]


def basis(u: F8, v: F8) -> F8:
    """Products of Legendre polynomials, by degree, in coordinates that run from -1 to 1 over the frame.

    Returns
    -------
    ndarray (n, n_terms(MAX_DEGREE))
    """
    legendre = np.polynomial.legendre.legvander
    in_u, in_v = legendre(np.asarray(u, float), MAX_DEGREE), legendre(np.asarray(v, float), MAX_DEGREE)
    return np.stack([in_u[:, i] * in_v[:, j] for i, j in _powers()], axis=1)


@dataclass(frozen=True, slots=True)
class Surface:
    """A fitted surface.

    Attributes
    ----------
    coefficients : ndarray (n_terms,)
    covariance : ndarray (n_terms, n_terms)
    scatter : float
        Of the stars about it beyond their errors.
    used : ndarray, bool (n,)
        Stars that were not clipped.
    """

    coefficients: F8
    covariance: F8
    scatter: float
    used: Bool


def _bowl_and_saddle() -> F8:
    """Rotation of the coefficients: the two squares become their sum, a bowl, and their difference."""
    turned = np.eye(n_terms(MAX_DEGREE))
    squares = [_powers().index((2, 0)), _powers().index((0, 2))]
    turned[np.ix_(squares, squares)] = np.array([[1, 1], [1, -1]]) / math.sqrt(2)
    return turned


def fit_surface(u: F8, v: F8, value: F8, error: F8, *, bowls: bool = False) -> Surface:
    """Surface through ``value`` +- ``error`` at places ``u``, ``v``.

    Parameters
    ----------
    u, v : ndarray (n,)
        -1 to 1 over the frame.
    value, error : ndarray (n,)
    bowls : bool
        Whether a curvature that is the same in all directions is among the answers.
    """
    turned = _bowl_and_saddle()
    design = basis(u, v) @ turned.T
    used = np.ones(len(value), bool)
    for _ in range(MAX_CLIPS):
        mean, covariance, scatter = _average(design[used], value[used], error[used], bowls)
        expected = design @ mean
        spread = np.sqrt(error**2 + scatter**2 + np.einsum("ni,ij,nj->n", design, covariance, design))
        kept = np.abs(value - expected) <= CLIP_SIGMA * spread
        if kept.sum() < max(3, 0.6 * len(value)) or (kept == used).all():
            break
        used = kept
    return Surface(turned.T @ mean, turned.T @ covariance @ turned, scatter, used)


def _strengths(n_stars: int, bowls: bool) -> F8:
    """Prior sigma of each turned coefficient in each answer that is tried, ndarray (n_answers, n_terms)."""
    # a surface with far more freedom than there are stars costs time and is never chosen
    rough = ROUGH if n_stars >= 2 * n_terms(3) else ROUGH[:1]
    degree = np.array([i + j for i, j in _powers()])
    tried = [
        (CONSTANT, linear, curved, wild, wild)
        for linear, curved, wild in itertools.product(LINEAR, CURVED, rough)
    ]
    strengths = np.array(tried)[:, degree]
    if bowls:
        only = strengths[[row[2] > 0 for row in tried]].copy()
        only[:, [i for i, powers in enumerate(_powers()) if powers in ((1, 1), (0, 2))]] = 0.0
        strengths = np.concatenate([strengths, only])
    return strengths


def _average(design: F8, value: F8, error: F8, bowls: bool) -> tuple[F8, F8, float]:
    """Turned coefficients, their covariance and the scatter, averaged over all strengths by evidence."""
    strengths = _strengths(len(value), bowls)
    means, covariances, evidence = [], [], []
    for scatter, share in SCATTER:
        weight = 1 / (error**2 + scatter**2)
        normal = (design * weight[:, None]).T @ design
        right = design.T @ (weight * value)
        # in units of the prior sigma: the curvature is at least 1, also where the prior allows nothing
        inner = np.eye(len(right)) + strengths[:, :, None] * normal * strengths[:, None, :]
        covariance = strengths[:, :, None] * np.linalg.inv(inner) * strengths[:, None, :]
        mean = covariance @ right
        misfit = float(weight @ value**2) - mean @ right
        penalty = np.linalg.slogdet(inner)[1] - float(np.log(weight).sum())
        evidence.append(math.log(share) - 0.5 * (misfit + penalty))
        means.append(mean)
        covariances.append(covariance)
    share = np.exp(np.array(evidence) - np.max(evidence))  # (n_scatter, n_answers)
    share /= share.sum()
    mean = np.einsum("sa,sai->i", share, np.array(means))
    apart = np.array(means) - mean
    covariance = np.einsum("sa,saij->ij", share, np.array(covariances))
    covariance += np.einsum("sa,sai,saj->ij", share, apart, apart)
    return mean, covariance, float(share.sum(1) @ np.array(SCATTER)[:, 0])
