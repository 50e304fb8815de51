"""Shapes there and back, their Jacobians, and the weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tract7dt.errors import ConfigError, PatchError
from tract7dt.fit import shapes, weights

ELL = st.floats(0.01, 0.95)
THETA = st.floats(-90, 89.9)


@given(st.floats(0.1, 100), ELL, THETA)
def test_there_and_back(re, ell, theta):
    soft = shapes.soft_from_shape(np.array([re]), np.array([ell]), np.array([theta]))
    back = shapes.shape_from_soft(*soft)
    assert back[0][0] == pytest.approx(re)
    assert back[1][0] == pytest.approx(ell)
    assert (back[2][0] - theta + 90) % 180 - 90 == pytest.approx(0, abs=1e-6)
    assert -90 <= back[2][0] < 90


def test_definition():
    # q = 1/2 along +x: e = 1/3, ee = -ln(2/3)
    log_re, ee1, ee2 = shapes.soft_from_shape(np.array([2.0]), np.array([0.5]), np.array([0.0]))
    assert log_re[0] == pytest.approx(np.log(2))
    assert ee1[0] == pytest.approx(np.log(2 / 3))
    assert ee2[0] == pytest.approx(0)
    # along +y ee1 changes its sign; at 45 degrees only ee2 is left
    assert shapes.soft_from_shape(np.array([2.0]), np.array([0.5]), np.array([90.0]))[1][0] == pytest.approx(
        -np.log(2 / 3)
    )
    assert shapes.soft_from_shape(np.array([2.0]), np.array([0.5]), np.array([45.0]))[2][0] == pytest.approx(
        -np.log(2 / 3)
    )


@given(ELL, THETA, st.floats(1e-3, 0.1), st.floats(0.1, 10))
def test_errors_go_through_the_jacobian_and_back(ell, theta, ell_err, theta_err):
    covariance = shapes.soft_covariance(ell, theta, ell_err, theta_err)

    def soft(e, t):
        return np.array(shapes.soft_from_shape(np.ones(1), np.array([e]), np.array([t])))[1:, 0]

    h = 1e-6
    jacobian = np.stack(
        [
            (soft(ell + h, theta) - soft(ell - h, theta)) / (2 * h),
            (soft(ell, theta + h) - soft(ell, theta - h)) / (2 * h),
        ],
        1,
    )
    ee = np.hypot(*soft(ell, theta))
    if ee > ell_err / ((1 - ell) * (2 - ell)):
        expected = jacobian @ np.diag([ell_err**2, theta_err**2]) @ jacobian.T
        np.testing.assert_allclose(covariance, expected, atol=1e-5 * np.abs(expected).max())
        found = shapes.shape_errors(*soft(ell, theta), covariance)
        np.testing.assert_allclose(found, [ell_err, min(theta_err, 90)], rtol=1e-5)
    assert np.all(np.linalg.eigvalsh(covariance) > 0)


def test_a_round_source_has_no_angle():
    assert shapes.shape_errors(0.0, 0.0, np.eye(2) * 0.01)[1] == 90


@pytest.mark.parametrize("ell", [0.0, 0.4, 0.9])
def test_errors_are_no_wider_than_the_range(ell):
    soft = np.array(shapes.soft_from_shape(np.ones(1), np.array([ell]), np.array([20.0])))[1:, 0]
    assert shapes.shape_errors(*soft, np.eye(2) * 1e8) == (1.0, 90.0)
    assert shapes.shape_errors(*soft, np.eye(2) * 1e-4)[0] < 0.021


def test_weights():
    data = np.array([[[1.0, np.nan], [-3.0, 8.0]]], np.float32)
    bad = np.array([[[0, 0], [0, 4]]], np.uint8)
    sky = weights(data, bad, np.array([2.0]), np.array([4.0]), "sky")
    np.testing.assert_allclose(sky, [[[0.25, 0], [0.25, 0]]])
    assert sky.dtype == np.float32
    total = weights(data, bad, np.array([2.0]), np.array([4.0]), "total")
    np.testing.assert_allclose(total, [[[1 / 4.25, 0], [0.25, 0]]])


def test_weights_refuse_nonsense():
    data, bad = np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 2), np.uint8)
    with pytest.raises(ConfigError, match="noise_model"):
        weights(data, bad, np.ones(1), np.ones(1), "photon")
    with pytest.raises(PatchError, match=r"sky_sigma\[0\] = 0"):
        weights(data, bad, np.zeros(1), np.ones(1), "sky")
    with pytest.raises(PatchError, match=r"gain\[0\] = nan"):
        weights(data, bad, np.ones(1), np.array([np.nan]), "total")
    with pytest.raises(PatchError, match="mask"):
        weights(data, bad[0], np.ones(1), np.ones(1), "sky")
