"""Neighbours that only the catalogue knows of: refused for the stack, fitted beside the star for its width."""

from __future__ import annotations

import numpy as np
import pandas as pd
import psf_scenes as scenes
import pytest

from tract7dt.psf import build_band
from tract7dt.psf.companions import find_companions
from tract7dt.psf.cutouts import StarStamps, fit_radius
from tract7dt.psf.detection import Detections
from tract7dt.psf.fine_light import FineLight
from tract7dt.psf.known import KnownSources, detected_widths, objects_beside
from tract7dt.psf.shapes import measure_shapes
from tract7dt.psf.wings import MoffatProfile
from tract7dt.settings import EpsfSettings

SHAPE = (620, 620)
FWHM = 3.3
K = 61


def catalogue(x, y, **columns) -> pd.DataFrame:
    return pd.DataFrame({"x_pix_white": x, "y_pix_white": y, **columns})


def detections(x, y, rms_size=1.4) -> Detections:
    ones = np.ones(len(x))
    return Detections(
        np.asarray(x, float),
        np.asarray(y, float),
        100 * ones,
        ones,
        rms_size * ones,
        ones.astype(np.int64) * 20,
        ones.astype(np.int64) * 20,
    )


@pytest.fixture(scope="module")
def scene():
    """Stars on a grid; beside the first six one of 3 % at 2 FWHM, too faint and too near for a detection."""
    x, y = scenes.grid_positions(SHAPE, step=90)
    flux = np.full(len(x), 1000.0)
    angle = np.linspace(0, 5, 6)
    near = x[:6] + 6.6 * np.cos(angle), y[:6] + 6.6 * np.sin(angle)
    image = scenes.draw_stars(SHAPE, x, y, flux) + scenes.draw_stars(SHAPE, *near, 0.03 * flux[:6])
    return scenes.make_field(image), x, y, near


def reasons(field, x, y, sources, **options):
    settings = EpsfSettings(epsf_ngrid=1, max_stars=60).model_copy(update=options)
    meta = build_band(field, "m500", [(0, 0)], None, settings, sources=sources).meta["r00_c00"]
    return [min(meta.candidates, key=lambda c: np.hypot(c.x - a, c.y - b)).reason for a, b in zip(x, y)]


def test_a_neighbour_that_only_the_catalogue_knows(scene):
    field, x, y, near = scene
    rows = np.append(x, near[0]), np.append(y, near[1])
    blind, told = reasons(field, x, y, None), reasons(field, x, y, catalogue(*rows))
    assert blind[:6].count("neighbour") <= 1
    assert told[:6].count("neighbour") >= 5
    assert told[6:].count("") >= len(x) - 6 - 2


def test_rows_without_light_cost_few_stars(scene):
    """Sources that are far too faint for the band: 16 % of them lie one sigma above zero."""
    field, x, y, _ = scene
    rng = np.random.default_rng(5)
    radius, angle = rng.uniform(5, 8, len(x)), rng.uniform(0, 6.28, len(x))
    rows = np.append(x, x + radius * np.cos(angle)), np.append(y, y + radius * np.sin(angle))
    assert reasons(field, x, y, catalogue(*rows))[6:].count("") > 0.7 * (len(x) - 6)


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_a_star_is_not_its_own_neighbour(scene, offset):
    """A catalogue that has each star twice, or lies some pixels off."""
    field, x, y, _ = scene
    rows = np.append(x, x + 0.3) + offset, np.append(y, y)
    expected = reasons(field, x, y, None)
    found = reasons(field, x, y, catalogue(*rows) if offset == 0 else catalogue(x + offset, y))
    assert found == expected


def test_a_source_too_near_to_be_told_counts_while_stars_are_many(scene):
    field, x, y, _ = scene
    rows = np.append(x, x + 3.0), np.append(y, y)
    # all but the few best stars are left with a doubt, so the doubt has to go
    assert reasons(field, x, y, catalogue(*rows))[6:].count("") > 0.7 * (len(x) - 6)
    some = np.append(x, x[6:16] + 3.0), np.append(y, y[6:16])
    assert reasons(field, x, y, catalogue(*some))[6:16].count("neighbour") >= 8


def test_what_the_catalogue_says_of_sizes():
    table = catalogue([1.0, 2.0, np.nan, 4.0], [1.0, 2.0, 3.0, 4.0])
    assert len(KnownSources.of_table(table).x) == 3
    table["Re"], table["ELL"] = [4.0, 4.0, 4.0, np.nan], [0.0, 0.75, 0.0, 0.0]
    table["TYPE"] = ["EXP", "", "EXP", "EXP"]
    np.testing.assert_allclose(KnownSources.of_table(table).re, [4.0, 2.0, 0.0])
    table["TYPE"] = ["star", "", "EXP", "EXP"]
    np.testing.assert_allclose(KnownSources.of_table(table).re, [0.0, 2.0, 0.0])


def test_what_lies_beside_a_star():
    known = KnownSources(
        np.array([50.2, 50.4, 57.0, 90.0]), np.array([50.0, 50.1, 50.0, 50.0]), np.array([0.0, 0.0, 3.0, 0.0])
    )
    seen = detections([50.1, 57.2, 50.0], [50.1, 50.1, 58.0])
    widths = detected_widths(known, seen, FWHM)
    np.testing.assert_allclose(widths, [FWHM, np.hypot(FWHM, 6.0), FWHM])
    rows = objects_beside(known, seen, widths, 0, 50.0, 50.0, FWHM, 12.0)
    # the catalogue's galaxy once, as the catalogue has it, and the detection that it lacks
    np.testing.assert_allclose(rows, [[7.0, 0.0, np.hypot(FWHM, 6.0)], [0.0, 8.0, FWHM]])


def stars_of(flux, n, beside=None, share=0.0, seed=1, beta=3.2):
    """Stars of the profile at random fractions of a pixel, with one of ``share`` of their flux beside each."""
    rng = np.random.default_rng(seed)
    profile = MoffatProfile.of_width(FWHM, beta)
    dx, dy = rng.uniform(-0.5, 0.5, (2, n))
    axis = np.arange(K) - K // 2.0

    def drawn(x, y):
        return profile.image(axis[None, None, :] - x[:, None, None], axis[None, :, None] - y[:, None, None])

    light = flux * drawn(dx, dy)
    rows: tuple[np.ndarray, ...] = ()
    if beside is not None:
        light += share * flux * drawn(dx + beside[0], dy + beside[1])
        rows = tuple(np.array([[a + beside[0], b + beside[1], FWHM]]) for a, b in zip(dx, dy))
    data = rng.poisson(light * 4) / 4 + rng.normal(0, 1, light.shape)
    zero = np.zeros(n, np.int64)
    return StarStamps(zero, zero, data, np.ones(data.shape, bool), np.ones(n), 4.0, rows), profile


def sizes_of(stars, profile, flux):
    n = len(stars)
    model = np.broadcast_to(profile.resolved(K), stars.data.shape)
    unresolved = 0.3 * profile.unresolved_size(K)
    start = np.full(n, float(flux)), np.zeros(n), np.zeros(n)
    sky = np.zeros(n), np.full(n, 0.03)
    shapes = measure_shapes(
        stars, model, unresolved, FineLight(profile, K), start, *sky, radius=fit_radius(FWHM)
    )
    assert shapes.valid.mean() > 0.99
    return shapes.value[shapes.valid, 0], shapes.error[shapes.valid, 0]


def test_faint_stars_are_not_measured_too_narrow():
    """Signal to noise 21: least squares alone finds them narrower by 3 / 21**2, 0.7 %."""
    stars, profile = stars_of(200, 1200)
    size, error = sizes_of(stars, profile, 200)
    assert abs(size.mean()) < 3 * size.std() / np.sqrt(len(size)) < 0.005
    assert size.std() == pytest.approx(np.median(error), rel=0.1)


def test_a_known_neighbour_is_not_taken_for_width():
    stars, profile = stars_of(4000, 200, beside=(5.5, 3.0), share=0.06)
    together, error = sizes_of(stars, profile, 4000)
    alone, _ = sizes_of(
        StarStamps(stars.x, stars.y, stars.data, stars.good, stars.noise, stars.gain), profile, 4000
    )
    assert alone.mean() > 0.01
    assert abs(together.mean()) < 0.002
    assert together.std() == pytest.approx(np.median(error), rel=0.15)


@pytest.mark.parametrize("distance", [2.6, 4.5, 7.0])
def test_fluxes_from_the_difference_of_two_sides(distance):
    """What is found at a known place is its flux, also where it has drawn the star's centre to itself."""
    stars, _ = stars_of(2e4, 40, beside=(0.8 * distance, 0.6 * distance), share=0.05)
    lone, _ = stars_of(2e4, 9, seed=7)
    shares = []
    for i in range(len(stars)):
        one = stars.subset(np.array([i]))
        both = StarStamps(
            np.append(one.x, lone.x),
            np.append(one.y, lone.y),
            np.concatenate([one.data, lone.data]),
            np.concatenate([one.good, lone.good]),
            np.append(one.noise, lone.noise),
            4.0,
            (one.beside[0], *[np.zeros((0, 3))] * len(lone)),
        )
        shares.append(find_companions(both, FWHM, fit_radius(FWHM)).known[0])
    inside = {2.6: 0.96, 4.5: 0.92, 7.0: 0.7}[distance]  # of its light within the fit radius
    assert np.mean(shares) == pytest.approx(0.05 * inside, rel=0.15)
