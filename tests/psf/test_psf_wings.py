"""What of a stack's noise gets into the wings of a stamp."""

from __future__ import annotations

import numpy as np
import psf_scenes as scenes

from tract7dt.psf.wings import regularise

K = 61
AXIS = np.arange(K) - K // 2
RADIUS = np.hypot(AXIS[:, None], AXIS[None, :])


def regularised(stack, noise):
    return regularise(stack, np.full((K, K), noise**2), scenes.true_stamp(K), (15.0, 20.0), 27.5)


def test_noise_alone_leaves_the_model():
    """Some ring's scatter is above the noise by chance: without the allowance for that 3 % of it got in."""
    model, noise = scenes.true_stamp(K), 1e-4
    kept = []
    for seed in range(12):
        stack = model + np.random.default_rng(seed).normal(0, noise, (K, K))
        departure = regularised(stack, noise) - model
        kept.append(np.sqrt(np.mean(departure[RADIUS > 5] ** 2)) / noise)
    assert np.mean(kept) < 0.015
    assert np.median(kept) < 0.005


def test_what_stands_out_of_the_noise_stays():
    model, noise = scenes.true_stamp(K), 1e-5
    spikes = 1e-3 * np.exp(-np.abs(AXIS) / 6)[None, :] * (np.abs(AXIS) < 1)[:, None]
    stack = model + spikes + np.random.default_rng(1).normal(0, noise, (K, K))
    departure = regularised(stack, noise) - model
    arm = (RADIUS > 3) & (RADIUS < 15) & (spikes > 0)
    np.testing.assert_allclose(departure[arm], spikes[arm], atol=0.15 * spikes[arm].max())
