"""Every kernel against an obvious naive twin, on generated inputs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.linalg import cholesky as scipy_cholesky
from scipy.linalg import solve_triangular

from tract7dt.fit import (
    errors,
    gram,
    linear,
    measure,
    normal,
    profiles,
    radial,
    residuals,
    shapes,
    spectra,
    stamps,
)
from tract7dt.fit.draw import Stamps, draw_sources, load_tables
from tract7dt.fit.parameters import from_steps, to_steps
from tract7dt.fit.threads import Team
from tract7dt.fit.weights import relative_variance, weights, whiten_pixels

TABLES = load_tables("sersic")
FEW = settings(max_examples=25, deadline=None)
SEEDS = st.integers(0, 2**31)


def random_layout(seed: int, n: int = 4, ny: int = 23, nx: int = 19):
    """Images of n sources in random, partly empty boxes, in one flat buffer with gaps."""
    rng = np.random.default_rng(seed)
    centre = rng.integers(-4, 26, (n, 2))
    box = stamps.boxes(centre, rng.integers(0, 9, n), ny, nx)
    n_images = rng.integers(1, 8, n)
    area = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])
    offset = np.concatenate([[3], 3 + np.cumsum(area * n_images + 5)[:-1]])
    buffer = rng.normal(size=int(offset[-1] + area[-1] * n_images[-1] + 7)).astype(np.float32)
    first = np.concatenate([[0], np.cumsum(n_images)[:-1]])
    live = rng.uniform(size=n) < 0.8
    data, sqrt_w = rng.normal(size=(2, ny, nx)).astype(np.float32)
    sqrt_w = np.abs(sqrt_w)
    sqrt_w[rng.uniform(size=(ny, nx)) < 0.1] = 0
    return rng, box, n_images, offset, buffer, first, live, data, sqrt_w


def full_images(box, n_images, offset, buffer, live, ny, nx):
    """The same images on the whole patch, float64 (N, ny, nx), 0 where a source is not live."""
    out = []
    for s, (x0, x1, y0, y1) in enumerate(box):
        for i in range(n_images[s]):
            image = np.zeros((ny, nx))
            area = (x1 - x0) * (y1 - y0)
            part = buffer[offset[s] + i * area : offset[s] + (i + 1) * area].reshape(y1 - y0, x1 - x0)
            if live is None or live[s]:
                image[y0:y1, x0:x1] = part
            out.append(image)
    return np.array(out)


@pytest.mark.parametrize("zero", [np.float32(0), np.float64(0)])
@FEW
@given(SEEDS)
def test_gram_is_the_matrix_of_dot_products(zero, seed):
    rng, box, n_images, offset, buffer, first, live, data, sqrt_w = random_layout(seed)
    n_columns = int(n_images.sum()) + 1
    matrix, rhs = np.zeros((n_columns, n_columns)), np.zeros(n_columns)
    everything = np.ones(len(box), bool)
    gram.gram(buffer, offset, box, n_images, first, live, everything, data, sqrt_w, zero, matrix, rhs)
    columns = np.concatenate([full_images(box, n_images, offset, buffer, live, *data.shape), sqrt_w[None]])
    flat = columns.reshape(n_columns, -1).astype(float)
    expected, expected_rhs = flat @ flat.T, flat @ data.ravel().astype(float)
    expected[-1, -1], expected_rhs[-1] = 0, 0  # the sky's own entries belong to the caller
    tolerance = 2e-4 if zero.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(matrix, expected, atol=tolerance)
    np.testing.assert_allclose(rhs, expected_rhs, atol=tolerance)

    # only some change: the rest must be as if all had been done again
    changed = rng.uniform(size=len(box)) < 0.5
    for s in np.flatnonzero(changed):
        area = (box[s, 1] - box[s, 0]) * (box[s, 3] - box[s, 2])
        buffer[offset[s] : offset[s] + area * n_images[s]] *= np.float32(1.5)
    gram.gram(buffer, offset, box, n_images, first, live, changed, data, sqrt_w, zero, matrix, rhs)
    again, rhs_again = np.zeros_like(matrix), np.zeros_like(rhs)
    gram.gram(buffer, offset, box, n_images, first, live, everything, data, sqrt_w, zero, again, rhs_again)
    np.testing.assert_array_equal(matrix, again)
    np.testing.assert_array_equal(rhs, rhs_again)


@FEW
@given(SEEDS)
def test_residual_projection_and_local_gain(seed):
    rng, box, n_images, offset, buffer, first, live, data, sqrt_w = random_layout(seed)
    ny, nx = data.shape
    flux = np.where(live, rng.normal(size=len(box)), 0.0)
    images = full_images(box, n_images, offset, buffer, None, ny, nx)
    expected = data - 0.3 * sqrt_w - np.tensordot(flux, images[first], 1)
    out = np.full((ny, nx), 7, np.float32)
    total = residuals.residual(buffer, offset, box, flux, 0.3, data, sqrt_w, out)
    np.testing.assert_allclose(out, expected, atol=2e-5)
    assert total == pytest.approx(np.sum(expected**2), rel=1e-5)

    dots = np.zeros(int(n_images.sum()) + 1)
    residuals.project(buffer, offset, box, n_images, first, live, out, dots)
    shown = full_images(box, n_images, offset, buffer, live, ny, nx)
    np.testing.assert_allclose(dots[:-1], np.tensordot(shown, expected, 2), atol=2e-4)

    gain = np.ones(len(box))
    drop = residuals.local_gain(data, out, box, gain)
    change = 0.5 * (data.astype(float) ** 2 - out.astype(float) ** 2)
    assert drop == pytest.approx(change.sum(), abs=1e-3)
    for s, (x0, x1, y0, y1) in enumerate(box):
        assert gain[s] == pytest.approx(1 + change[y0:y1, x0:x1].sum(), abs=1e-4)


@FEW
@given(SEEDS)
def test_scaling_images_and_profile_sums(seed):
    rng, box, n_images, offset, buffer, _, live, data, sqrt_w = random_layout(seed)
    ny, nx = data.shape
    factor = rng.uniform(0.5, 2, (ny, nx)).astype(np.float32)
    before = full_images(box, n_images, offset, buffer, live, ny, nx)
    after = buffer.copy()
    errors.scale_images(after, offset, box, n_images, live, factor)
    np.testing.assert_allclose(
        full_images(box, n_images, offset, after, live, ny, nx), before * factor, rtol=1e-6
    )

    s = int(np.argmax((box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])))
    x0, x1, y0, y1 = box[s]
    part = (slice(y0, y1), slice(x0, x1))
    model = buffer[offset[s] : offset[s] + (x1 - x0) * (y1 - y0)]
    residual, variance = rng.normal(size=(ny, nx)).astype(np.float32), factor
    sums = np.empty(5)
    measure.profile_sums(model, box[s], 2.0, 0.1, data, sqrt_w, residual, variance, sums)
    q = sqrt_w[part].astype(float)
    good = q > 0
    t = np.maximum(model.reshape(y1 - y0, x1 - x0)[good] / q[good], 0)
    everything = (data - residual)[part][good] / q[good] - 0.1
    expected = [
        t.sum(),
        (t * residual[part][good] ** 2 / variance[part][good]).sum(),
        (t * np.maximum(everything - 2 * t, 0)).sum(),
        (t * 2 * t).sum(),
        (q[good] ** 2 * t**3).sum() / max((q[good] ** 2 * t**2).sum(), 1e-30),
    ]
    np.testing.assert_allclose(sums, expected, rtol=2e-4, atol=1e-4)


@FEW
@given(SEEDS, st.sampled_from(["sky", "total", "lowered"]))
def test_relative_variance(seed, noise):
    """Sky and photons of the model; where the weight says more, that; a total noise model's scatter is no more."""
    rng = np.random.default_rng(seed)
    data = rng.normal(5, 20, (2, 9, 7)).astype(np.float32)
    model = rng.normal(5, 10, data.shape)
    sky, sky_sigma, gain = np.array([0.5, -1.0]), np.array([1.5, 4.0]), np.array([3.0, 0.7])
    bad = (rng.uniform(size=data.shape) < 0.2).astype(np.uint8)
    weight = weights(data, bad, sky_sigma, gain, "total" if noise == "total" else "sky")
    true = (sky_sigma**2)[:, None, None] + np.maximum(model, 0) / gain[:, None, None]
    lowered = np.zeros(data.shape, bool)
    if noise == "lowered":
        lowered = rng.uniform(size=data.shape) < 0.5
        weight *= np.where(lowered, np.float32(0.3), np.float32(1))
        true = np.maximum(true, 1 / np.maximum(weight, 1e-30), where=weight > 0, out=true)
    q = np.sqrt(weight)
    residual = ((data - model - sky[:, None, None]) * q).astype(np.float32)
    out = np.empty_like(data)
    relative_variance(data * q, q, residual, sky, sky_sigma, gain, out)
    # a lowered weight that happens to be the one with the data's photon noise cannot be told from that
    total = weight * ((sky_sigma**2)[:, None, None] + np.maximum(data, 0) / gain[:, None, None])
    told = (np.abs(total - 1) > 1e-3) | ~lowered
    assert told.mean() > 0.9
    np.testing.assert_allclose(out[told], np.where(weight > 0, true * weight, 1)[told], rtol=2e-4)


@FEW
@given(SEEDS, st.integers(1, 12))
def test_cholesky(seed, n):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, n + 3))
    a = root @ root.T
    factor = a.copy()
    linear.cholesky(factor, normal.RIDGE)
    np.testing.assert_allclose(factor, scipy_cholesky(a, lower=True), atol=1e-8 * np.abs(a).max())


@FEW
@given(st.integers(2, 12), st.floats(0, 5), st.floats(-0.2, 0.2))
def test_extent(half, distance, noise):
    m = 2 * half
    y, x = np.mgrid[:m, :m]
    image = (np.maximum(abs(x - half), abs(y - half)) <= distance).astype(np.float32) + np.float32(noise)
    above = np.abs(image) > 0.5
    expected = np.maximum(abs(x - half), abs(y - half))[above].max(initial=0)
    assert stamps.extent(image, half, 0.5) == expected


def test_stamps_serve_their_radius():
    for radius in range(1, 500):
        size = stamps.stamp_size(radius)
        assert stamps.usable_radius(size) >= radius
        smaller = stamps.FFT_SIZES[size > stamps.FFT_SIZES]
        assert len(smaller) == 0 or stamps.usable_radius(int(smaller[-1])) < radius


@FEW
@given(st.sampled_from([16, 24, 40]), st.floats(-0.8, 0.8))
def test_shift_factor_moves_a_band_limited_signal(m, shift):
    out = np.zeros((8, m), np.float32)
    spectra.shift_factor(m, shift, out, 4)
    assert not out[:4].any()
    factor = (out[4] + 1j * out[5])[: m // 2 + 1]
    slope = (out[6] + 1j * out[7])[: m // 2 + 1]
    x = np.arange(m)

    def wave(at):
        return sum(np.exp(-0.5 * ((x - m / 2 - at + period) / 1.7) ** 2) for period in (-m, 0, m))

    moved = np.fft.irfft(np.fft.rfft(wave(0)) * factor, m)
    np.testing.assert_allclose(moved, wave(shift), atol=2e-5)
    moving = np.fft.irfft(np.fft.rfft(wave(0)) * slope, m)
    np.testing.assert_allclose(moving, (wave(shift + 1e-4) - wave(shift - 1e-4)) / 2e-4, atol=2e-4)


ELLIPSES = st.tuples(st.floats(-1, 3), st.floats(-2.5, 2.5), st.floats(-2.5, 2.5))


@FEW
@given(ELLIPSES)
def test_ellipse_and_its_jacobian(soft):
    jacobian = np.empty((3, 3))
    cxx, cxy, cyy = shapes.ellipse(*soft, jacobian)
    re, ell, theta = shapes.shape_from_soft(*(np.array([v]) for v in soft))
    major, minor, beta = re[0], re[0] * (1 - ell[0]), np.deg2rad(theta[0])
    turn = np.array([[np.cos(beta), -np.sin(beta)], [np.sin(beta), np.cos(beta)]])
    expected = turn @ np.diag([major**2, minor**2]) @ turn.T
    np.testing.assert_allclose([cxx, cxy, cyy], expected[[0, 0, 1], [0, 1, 1]], atol=1e-9 * major**2)
    mean = np.array([np.log((major + minor) / 2), soft[1], soft[2]])

    def of_mean(m, ee1, ee2):
        return np.array(shapes.ellipse(m + float(shapes.stretch(ee1, ee2)), ee1, ee2, np.empty((3, 3))))

    # the derivatives are those at fixed mean radius, which has no corner where the ellipse is round
    for k in range(3):
        h = np.zeros(3)
        h[k] = 1e-6
        slope = (of_mean(*(mean + h)) - of_mean(*(mean - h))) / 2e-6
        np.testing.assert_allclose(jacobian[:, k], slope, atol=1e-6 * major**2)


@FEW
@given(ELLIPSES, st.floats(np.log(0.3), np.log(6.2)))
@example((0.46875, 0.0, 2.0), -0.7854940300928429)
def test_radial_functions_on_the_grid(soft, q):
    m = 24
    table, second = np.empty((profiles.N_CELLS + 1, 4)), np.empty(profiles.N_CELLS + 1)
    radial.sersic_table_at(TABLES.first_node, TABLES.spacing, TABLES.sersic, q, table)
    radial.sersic_second_at(TABLES.first_node, TABLES.spacing, TABLES.sersic, q, second)
    cxx, cxy, cyy = shapes.ellipse(*soft, np.empty((3, 3)))
    f, fs, fq, fss, fqs, fqq = np.empty((6, m, m // 2 + 1), np.float32)
    radial.radial_on_grid(table, cxx, cxy, cyy, f, fs, fq)
    radial.radial_curvature(table, second, cxx, cxy, cyy, fss, fqs, fqq)
    ky, kx = 2 * np.pi * np.fft.fftfreq(m)[:, None], 2 * np.pi * np.fft.rfftfreq(m)
    ky = np.where(np.arange(m)[:, None] == m // 2, -np.pi, ky)
    s = np.clip(
        cxx * kx**2 + 2 * cxy * kx * ky + cyy * ky**2, profiles.S_EDGES[0], profiles.S_EDGES[-1] * 0.999
    )
    from scipy.interpolate import CubicHermiteSpline

    spline = CubicHermiteSpline(profiles.S_EDGES, table[:, 0], table[:, 1])
    np.testing.assert_allclose(f.ravel()[1:], spline(s).ravel()[1:], atol=3e-6)
    # what matters is s F', s^2 F''; the latter jumps from cell to cell of the table, on either side of which s in
    # single precision may be
    np.testing.assert_allclose((fs * s).ravel()[1:], (spline(s, 1) * s).ravel()[1:], atol=1e-5)
    np.testing.assert_allclose((fss * s * s).ravel()[1:], (spline(s, 2) * s * s).ravel()[1:], atol=6e-4)
    by_q = CubicHermiteSpline(profiles.S_EDGES, table[:, 2], table[:, 3])
    np.testing.assert_allclose(fq.ravel()[1:], by_q(s).ravel()[1:], atol=3e-6)
    np.testing.assert_allclose((fqs * s).ravel()[1:], (by_q(s, 1) * s).ravel()[1:], atol=3e-5)
    assert f[0, 0] == 1
    assert fq[0, 0] == 0


@FEW
@given(st.floats(np.log(0.31), np.log(6.1)))
def test_sersic_tables_between_nodes(q):
    def at(value):
        table = np.empty((profiles.N_CELLS + 1, 4))
        radial.sersic_table_at(TABLES.first_node, TABLES.spacing, TABLES.sersic, value, table)
        return table

    f, fs = profiles.sersic_transform(float(np.exp(q)))
    table, h = at(q), 1e-5
    np.testing.assert_allclose(table[:, 0], f, atol=2e-6)
    np.testing.assert_allclose(table[:, 1] * profiles.S_EDGES, fs * profiles.S_EDGES, atol=2e-5)
    np.testing.assert_allclose(table[:, 2], (at(q + h)[:, 0] - at(q - h)[:, 0]) / (2 * h), atol=1e-4)
    second = np.empty(profiles.N_CELLS + 1)
    radial.sersic_second_at(TABLES.first_node, TABLES.spacing, TABLES.sersic, q, second)
    node = (q - TABLES.first_node) / TABLES.spacing
    if 0.01 < node % 1 < 0.99:  # the second derivative jumps at a node
        np.testing.assert_allclose(second, (at(q + h)[:, 2] - at(q - h)[:, 2]) / (2 * h), atol=1e-3)


def drawn(kind, theta, size=48, ny=40, nx=44, psf=None, sqrt_w=None):
    """All images of one source, float32 (n, h, w), and its box."""
    m = size
    centre = np.floor(theta[:2] + 0.5).astype(int)[None]
    box = stamps.boxes(centre, np.array([stamps.usable_radius(m)]), ny, nx)
    transform = np.fft.rfft2(psf).astype(np.complex64).view(np.float32).reshape(1, -1)
    where = Stamps(np.array([m]), centre, box, np.array([0]), transform, np.array([0]))
    n_images = {0: 3, 1: 6, 2: 6, 3: 7}[kind]
    area = int((box[0, 1] - box[0, 0]) * (box[0, 3] - box[0, 2]))
    buffer = np.zeros((1, n_images * area), np.float32)
    yes, no = np.ones(1, bool), np.zeros(1, bool)
    needed = np.zeros(1, np.int64)
    sqrt_w = np.ones((1, ny, nx), np.float32) if sqrt_w is None else sqrt_w
    draw_sources(
        theta[None], np.array([kind]), True, True, no, yes, yes[None], where, TABLES, sqrt_w, buffer,
        np.full((1, 1), 1e-4), needed,
    )  # fmt: skip
    return (
        buffer.reshape(n_images, box[0, 3] - box[0, 2], box[0, 1] - box[0, 0]),
        box[0],
        where,
        int(needed[0]),
    )


def stepped(theta, step):
    """Parameters after a step in its own coordinates."""
    return from_steps(to_steps(theta[None]) + step)[0]


def gaussian_psf(m, sigma=1.4):
    y, x = np.mgrid[:m, :m] - m // 2
    psf = np.exp(-0.5 * (x**2 + 1.2 * y**2 + 0.3 * x * y) / sigma**2)
    return psf / psf.sum()


SOFT = st.tuples(st.floats(0.3, 1.5), st.floats(0.2, 1.2), st.floats(-1, 1), st.floats(0.0, 1.5))


@FEW
@given(st.sampled_from([0, 1, 2, 3]), st.floats(-0.5, 0.49), st.floats(-0.5, 0.49), SOFT)
def test_drawn_derivatives_are_those_of_the_drawn_model(kind, dx, dy, soft):
    theta = np.array([22 + dx, 19 + dy, *soft])
    psf = gaussian_psf(48)
    images, box, _, needed = drawn(kind, theta, psf=psf)
    assert images[0].sum() == pytest.approx(1, abs=0.03)
    far = np.argwhere(np.abs(images[0]) > 1e-4) + [box[2], box[0]] - np.floor(theta[1::-1] + 0.5)
    assert needed >= np.abs(far).max()  # a stamp is larger than what is left of it on the patch
    for k in range(images.shape[0] - 1):
        h = np.zeros(6)
        h[k] = 1e-2
        up, down = (drawn(kind, stepped(theta, step), psf=psf) for step in (h, -h))
        if not (np.array_equal(up[1], box) and np.array_equal(down[1], box)):
            continue  # the stamp moved on to the next pixel
        numeric = (up[0][0].astype(float) - down[0][0]) / 2e-2
        np.testing.assert_allclose(images[1 + k], numeric, atol=2e-3 * np.abs(numeric).max() + 2e-5)


@pytest.mark.parametrize("kind", [0, 1, 2, 3])
def test_model_curvature_is_the_second_derivative(kind):
    from tract7dt.fit.curvature import model_curvature

    rng = np.random.default_rng(kind)
    theta = np.array([22.2, 19.3, 0.9, 0.6, -0.4, 0.7])
    psf, sqrt_w = gaussian_psf(48), rng.uniform(0.5, 1, (1, 40, 44)).astype(np.float32)
    residual = rng.normal(size=(1, 40, 44)).astype(np.float32)
    images, box, where, _ = drawn(kind, theta, psf=psf, sqrt_w=sqrt_w)
    r = residual[0, box[2] : box[3], box[0] : box[1]].astype(float)
    out = np.zeros((1, 6, 6))
    yes = np.ones(1, bool)
    model_curvature(
        theta[None],
        np.array([kind]),
        yes,
        yes[None],
        where,
        TABLES,
        sqrt_w,
        residual,
        np.full((1, 1), 2.5),
        out,
    )
    n = images.shape[0] - 1
    for k in range(n):
        h = np.zeros(6)
        h[k] = 2e-3
        up, down = (drawn(kind, stepped(theta, step), psf=psf, sqrt_w=sqrt_w) for step in (h, -h))
        numeric = 2.5 * np.tensordot((up[0][1:].astype(float) - down[0][1:]) / 4e-3, r, 2)
        np.testing.assert_allclose(out[0, k, :n], numeric, atol=0.01 * np.abs(out).max() + 2e-3)


@FEW
@given(SEEDS)
def test_normal_equations_against_dense_linear_algebra(seed):
    rng, box, n_images, offset, buffer, first, live, data, sqrt_w = random_layout(seed, n=3)
    box[:] = [[0, 10, 0, 9], [5, 16, 4, 14], [8, 19, 11, 22]]
    area = (box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2])
    offset = np.concatenate([[0], np.cumsum(area * n_images)[:-1]])
    buffer = rng.normal(size=(1, int((area * n_images).sum()))).astype(np.float32)
    n, n_columns = 3, int(n_images.sum()) + 1
    live = live[None]
    columns = np.concatenate(
        [full_images(box, n_images, offset, buffer[0], live[0], *data.shape), sqrt_w[None]]
    )
    flat = columns.reshape(n_columns, -1).astype(float)
    flux_columns = np.append(first, n_columns - 1)
    owner = np.repeat(np.arange(n), n_images - 1)
    theta_columns = np.setdiff1d(np.arange(n_columns), flux_columns)
    prior_mean, prior_precision = rng.normal(size=(1, n)), rng.uniform(0, 2, (1, n)) * live
    shape = (1, n_columns, n_columns)
    matrix, rhs = np.zeros(shape), np.zeros(shape[:2])
    factor, scale, flux = np.empty((1, n + 1, n + 1)), np.empty((1, n + 1)), np.empty((1, n))
    sky, chi2, projection = np.empty(1), np.empty(1), np.empty((1, n_columns))
    residual = np.empty((1, *data.shape), np.float32)
    sums = (np.array([np.sum(sqrt_w.astype(float) ** 2)]), np.array([np.sum(sqrt_w.astype(float) * data)]))
    normal.solve_bands(
        data[None], sqrt_w[None], buffer, offset, box, n_images, first, flux_columns, live, np.ones(n, bool),
        np.ones(n, bool), prior_mean, prior_precision, *sums, np.zeros(shape), np.zeros(shape[:2]), matrix, rhs,
        factor, scale, flux, sky, chi2, residual, projection,
    )  # fmt: skip
    use = np.append(live[0], True)
    model = flat[flux_columns][use]
    extra = np.diag(np.append(prior_precision[0], 0)[use])
    a = model @ model.T + extra
    b = model @ data.ravel().astype(float) + np.append(prior_precision * prior_mean, 0)[use]
    expected = np.zeros(n + 1)
    expected[use] = np.linalg.solve(a, b)
    np.testing.assert_allclose(np.append(flux[0], sky), expected, atol=1e-3)
    r = data.ravel() - expected[use] @ model
    np.testing.assert_allclose(residual[0].ravel(), r, atol=2e-3)

    n_theta = len(owner)
    gradient, hessian = np.empty(n_theta), np.empty((n_theta, n_theta))
    eliminated = np.empty((n_theta, n + 1))
    newton = rng.uniform(size=n) < 0.5
    normal.eliminate_bands(
        matrix, factor, scale, flux, projection, owner, flux_columns, theta_columns, newton, eliminated
    )
    n_blocks = -(-n_theta // normal.BLOCK)
    some = min(1, n_blocks)  # without any derivatives there is nothing to share out
    for blocks in ((0, some), (some, n_blocks)):
        normal.reduce_bands(
            matrix, flux, projection, eliminated, owner, theta_columns, *blocks, gradient, hessian
        )
    hessian = np.tril(hessian) + np.tril(hessian, -1).T
    j = flat[theta_columns] * flux[0][owner][:, None]
    c = model @ j.T
    for t in range(n_theta):
        if newton[owner[t]] and live[0][owner[t]]:
            c[np.flatnonzero(np.flatnonzero(use) == owner[t])[0], t] -= flat[theta_columns[t]] @ r
    exact = flat[:-1] @ r  # of the images of the sources
    exact[~np.repeat(live[0], n_images)] = 0
    np.testing.assert_allclose(projection[0, :-1], exact, atol=2e-2)
    expected_h = j @ j.T - c.T @ np.linalg.solve(a, c)
    np.testing.assert_allclose(hessian, expected_h, atol=2e-3 * np.abs(expected_h).max(initial=1))
    np.testing.assert_allclose(gradient, j @ r, atol=2e-2)


@FEW
@given(SEEDS)
def test_projection_by_the_matrix_is_that_of_the_residual_image(seed):
    """And where it is a small difference of large numbers, that is said."""
    rng, box, n_images, offset, buffer, first, live, data, sqrt_w = random_layout(seed)
    n, n_columns = len(box), int(n_images.sum()) + 1
    flux, sky = rng.normal(size=n) * live, 0.3
    matrix, rhs = np.zeros((n_columns, n_columns)), np.zeros(n_columns)
    gram.gram(
        buffer, offset, box, n_images, first, live, np.ones(n, bool), data, sqrt_w, np.float32(0), matrix, rhs
    )
    image, expected, found = np.empty_like(data), np.zeros(n_columns), np.full(n_columns, 7.0)
    residuals.residual(buffer, offset, box, flux, sky, data, sqrt_w, image)
    residuals.project(buffer, offset, box, n_images, first, live, image, expected)
    columns = np.append(first, n_columns - 1)

    def project(scale):
        return normal.project_by_matrix(
            matrix, scale * rhs, columns, scale * flux, scale * sky, n_images, first, live, found
        )

    assert not project(1.0).any()
    np.testing.assert_allclose(found[:-1], expected[:-1], atol=1e-3)
    assert found[-1] == 7
    shown = live & (box[:, 1] > box[:, 0]) & (box[:, 3] > box[:, 2])
    np.testing.assert_array_equal(project(1e9), shown)


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf])
def test_whitened_pixels(nothing):
    rng = np.random.default_rng(1)
    data = rng.normal(size=(20, 30)).astype(np.float32)
    weight = rng.uniform(0.1, 2, size=(20, 30)).astype(np.float32)
    data[3, 4] = nothing
    weight[5, :] = 0
    weight[6, 7] = nothing
    weight[8, 9] = -1
    good = np.isfinite(data) & np.isfinite(weight) & (weight > 0)
    root = np.sqrt(np.where(good, weight, 0))
    whitened, sqrt_w = np.empty_like(data), np.empty_like(data)
    sums = whiten_pixels(data, weight, whitened, sqrt_w)
    np.testing.assert_allclose(sqrt_w, root, rtol=1e-6)
    np.testing.assert_allclose(whitened, np.where(good, data, 0) * root, rtol=1e-6)
    np.testing.assert_allclose(sums, (weight[good].sum(), (weight * data)[good].sum()), rtol=1e-5)


def test_sum_of_squares():
    a, b = np.random.default_rng(2).normal(size=(2, 17, 23)).astype(np.float32)
    assert residuals.sum_of_squares(a, b) == pytest.approx(np.sum((a.astype(float) * b) ** 2), rel=1e-5)


def test_excess_factor_and_gathered_matrices():
    rng = np.random.default_rng(4)
    variance = rng.uniform(0.8, 3, (13, 19)).astype(np.float32)
    sqrt_w = rng.uniform(0, 2, (13, 19)).astype(np.float32)
    sqrt_w[rng.uniform(size=sqrt_w.shape) < 0.2] = 0
    variance[np.unravel_index(np.argmin(sqrt_w), sqrt_w.shape)] = 0.1  # of a pixel that is not used
    factor, weighed = np.empty_like(variance), np.empty_like(variance)
    least, power = errors.excess_factor(variance, sqrt_w, factor, weighed)
    assert least == pytest.approx(variance[sqrt_w > 0].min())
    expected = np.where(sqrt_w > 0, np.sqrt(np.maximum(variance - np.float32(least), 0)), 0)
    np.testing.assert_allclose(factor, expected, atol=1e-6)
    np.testing.assert_allclose(weighed, expected * sqrt_w, atol=1e-6)
    assert power == pytest.approx(np.sum((expected * sqrt_w) ** 2), rel=1e-5)

    matrix, rows, columns = rng.normal(size=(9, 9)), np.array([8, 0, 3]), np.array([1, 1, 7, 2])
    left, right = rng.normal(size=3), rng.normal(size=4)
    expected = left[:, None] * matrix[np.ix_(rows, columns)] * right
    found = np.empty((3, 4))
    linear.gather(matrix, rows, columns, left, right, found)
    np.testing.assert_allclose(found, expected)


def test_triangular_systems_against_scipy():
    rng = np.random.default_rng(5)
    square = rng.normal(size=(7, 7))
    a, right = square @ square.T + np.eye(7), rng.normal(size=(7, 4))
    low = a.copy()
    assert linear.cholesky(low, 0.0)
    exact = scipy_cholesky(a, lower=True)
    np.testing.assert_allclose(low, exact, rtol=1e-12)
    solved = right.copy()
    linear.forward(low, solved)
    np.testing.assert_allclose(solved, solve_triangular(exact, right, lower=True), rtol=1e-10)
    linear.backward(low, solved)
    np.testing.assert_allclose(a @ solved, right, atol=1e-12)
    a[3, 3] = -1.0
    assert not linear.cholesky(a, 0.0)


def test_sources_that_look_alike_are_marked():
    vectors = np.array([[1.0, 0, 0], [0.9, 0.4359, 0], [0, 0, 1], [0, 1, 0.1]])
    matrix = np.eye(5)
    matrix[:4, :4] = vectors @ vectors.T
    scale = np.append(1 / np.sqrt(np.diagonal(matrix)[:4]), 1.0)
    found = np.zeros(4, bool)
    linear.alike(matrix, scale, np.arange(5), 0.5, found)
    assert found.tolist() == [True, True, False, False]
    linear.alike(matrix, scale, np.arange(5), 0.4, found)
    assert found.tolist() == [True, True, False, True]


@FEW
@given(SEEDS, st.integers(1, 5))
def test_threads_get_slices_of_the_same_cost(seed, threads):
    rng = np.random.default_rng(seed)
    cost = rng.uniform(0, 1, 20)
    slices = []
    with Team(threads) as team:
        team.share(lambda start, stop: slices.append((start, stop)), 20, cost)
    slices.sort()
    assert slices[0][0] == 0
    assert slices[-1][1] == 20
    assert all(one[1] == other[0] for one, other in itertools.pairwise(slices))
    assert all(cost[a:b].sum() <= cost.sum() / threads + 1.01 for a, b in slices)
