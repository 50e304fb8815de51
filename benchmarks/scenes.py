"""Patches with known truth, drawn by GalSim: the scenes of the benchmark and of the tests of the fit.

Nothing here comes from the engine: positions, shapes and fluxes are GalSim's. Sersic profiles end at 8 half-light
radii (untruncated ones), and the flux is that of what is drawn; the PSF of a band is a sheared Moffat profile
convolved with the pixel, of which the fit gets a stamp.
"""

from __future__ import annotations

from dataclasses import dataclass

import galsim
import numpy as np
from numpy.typing import NDArray

from tract7dt.types import ModelKind, ModelSources, PatchProblem

F8 = NDArray[np.float64]
STAR, EXP, DEV, SERSIC = ModelKind.STAR, ModelKind.EXP, ModelKind.DEV, ModelKind.SERSIC
GS_PARAMS = galsim.GSParams(maximum_fft_size=16384, folding_threshold=1e-3, kvalue_accuracy=1e-6)


@dataclass(frozen=True)
class Truth:
    """Sources as they are drawn: angles in degrees from +x towards +y, ``flux`` (nband, n) in scaled counts."""

    kind: NDArray[np.int64]
    x: F8
    y: F8
    re: F8
    ell: F8
    theta: F8
    sersic_n: F8
    flux: F8

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True)
class Bands:
    """Noise and PSFs: ``sky_sigma``, ``gain``, ``sky`` (nband,); PSFs as GalSim objects and as stamps."""

    sky_sigma: F8
    gain: F8
    sky: F8
    objects: tuple[galsim.GSObject, ...]
    stamps: tuple[F8, ...]

    def __len__(self) -> int:
        return len(self.sky_sigma)


def make_bands(
    n: int, rng: np.random.Generator, stamp: int = 55, gain: float = 1e9, spread: float = 0.3
) -> Bands:
    """Bands of FWHM 3 to 4.2 pix, a little elongated, with sky noise around 1."""
    fwhm, beta = rng.uniform(3.0, 4.2, n), rng.uniform(2.8, 4.0, n)
    shears = rng.normal(0, 0.02, (n, 2))
    pixel = galsim.Pixel(1.0)
    objects = tuple(
        galsim.Convolve(galsim.Moffat(beta=b, fwhm=f).shear(g1=g[0], g2=g[1]), pixel, gsparams=GS_PARAMS)
        for f, b, g in zip(fwhm, beta, shears)
    )
    sigma = np.exp(rng.normal(0, spread, n))
    stamps = tuple(psf_stamp(psf, stamp) for psf in objects)
    return Bands(sigma, np.full(n, gain), rng.normal(0, 0.05, n) * sigma, objects, stamps)


def psf_stamp(psf: galsim.GSObject, side: int) -> F8:
    """Unit-sum stamp of an effective PSF."""
    image = psf.drawImage(nx=side, ny=side, scale=1.0, method="no_pixel", dtype=np.float64).array
    return np.asarray(image / image.sum())


def galaxy(kind: int, re: float, ell: float, theta: float, n: float) -> galsim.GSObject:
    """Unit-flux galaxy; ``re`` along the major axis, pix."""
    index = {EXP: 1.0, DEV: 4.0}.get(ModelKind(kind), n)
    radius = re * np.sqrt(1 - ell)
    profile = galsim.Sersic(
        n=index, half_light_radius=radius, trunc=8 * radius, flux_untruncated=True, gsparams=GS_PARAMS
    )
    return profile.withFlux(1.0).shear(q=1 - ell, beta=theta * galsim.degrees)


def draw(truth: Truth, bands: Bands, b: int, ny: int, nx: int, exact_psf: bool = True) -> F8:
    """Noiseless image of one band without sky, float64 (ny, nx).

    With ``exact_psf`` False the PSF is the stamp, interpolated, so that nothing lies beyond its edge.
    """
    image = galsim.ImageD(nx, ny, xmin=0, ymin=0)
    psf = bands.objects[b]
    if not exact_psf:
        psf = galsim.InterpolatedImage(
            galsim.ImageD(bands.stamps[b], scale=1.0), x_interpolant="lanczos31", normalization="sb"
        )
    for s in range(len(truth)):
        star = truth.kind[s] == STAR
        source = psf
        if not star:
            shape = (truth.re[s], truth.ell[s], truth.theta[s], truth.sersic_n[s])
            source = galsim.Convolve(galaxy(int(truth.kind[s]), *shape), psf, gsparams=GS_PARAMS)
        half = 60 if star else int(max(60, 10 * truth.re[s]))
        ix, iy = round(truth.x[s]), round(truth.y[s])
        box = galsim.BoundsI(ix - half, ix + half, iy - half, iy + half)
        stamp = source.withFlux(truth.flux[b, s]).drawImage(
            bounds=box,
            scale=1.0,
            method="no_pixel",
            dtype=np.float64,
            center=galsim.PositionD(truth.x[s], truth.y[s]),
        )
        overlap = box & image.bounds
        if overlap.isDefined():
            image[overlap] += stamp[overlap]
    return np.asarray(image.array)


def no_priors(truth: Truth, n_bands: int, **start: F8) -> ModelSources:
    """Start values at the truth (or at what is given), no priors, all owned."""
    n = len(truth)
    free = np.full(n, np.inf)
    values = {name: getattr(truth, name) for name in ("x", "y", "re", "ell", "theta", "sersic_n", "flux")}
    values.update(start)
    return ModelSources(
        kind=np.asarray(truth.kind, np.int64),
        **values,
        pos_err=free,
        re_err=free,
        ell_err=free,
        theta_err=free,
        flux_err=np.full((n_bands, n), np.inf),
        owned=np.ones(n, bool),
    )


def make_problem(
    truth: Truth,
    bands: Bands,
    ny: int,
    nx: int,
    rng: np.random.Generator | None,
    sources: ModelSources | None = None,
    masked: float = 0.0,
    exact_psf: bool = True,
) -> PatchProblem:
    """Pixels of a scene: sky and photon noise if ``rng`` is given, a share of masked pixels with nonsense in
    them."""
    n_bands = len(bands)
    data = np.zeros((n_bands, ny, nx))
    weight = np.zeros((n_bands, ny, nx))
    for b in range(n_bands):
        model = draw(truth, bands, b, ny, nx, exact_psf)
        data[b] = model + bands.sky[b]
        weight[b] = bands.sky_sigma[b] ** -2
        if rng is not None:
            photons = rng.normal(size=(ny, nx)) * np.sqrt(np.maximum(model, 0) / bands.gain[b])
            data[b] += rng.normal(0, bands.sky_sigma[b], (ny, nx)) + photons
            bad = rng.uniform(size=(ny, nx)) < masked * 0.3
            bad[:, rng.integers(nx, size=int(masked * nx))] = True
            data[b][bad] = np.nan
            weight[b][bad] = 0
    return PatchProblem(
        tag="scene",
        bands=tuple(f"b{b}" for b in range(n_bands)),
        data=data.astype(np.float32),
        weight=weight.astype(np.float32),
        sky_sigma=bands.sky_sigma,
        gain=bands.gain,
        psf=bands.stamps,
        psf_extended=None,
        sources=no_priors(truth, n_bands) if sources is None else sources,
    )


def random_truth(
    n: int,
    n_bands: int,
    size: int,
    rng: np.random.Generator,
    snr: float = 12.0,
    snr_spread: float = 0.9,
    blended: float = 0.35,
    shares: tuple[float, float, float, float] = (0.25, 0.45, 0.15, 0.15),
) -> Truth:
    """Mixed types, a share of them 3.5 to 9 pix from another one; S/N per band around ``snr``, for unit sky
    noise."""
    kind = rng.choice([int(k) for k in ModelKind], size=n, p=shares).astype(np.int64)
    x, y = np.zeros(n), np.zeros(n)
    i = 0
    while i < n:
        px, py = rng.uniform(4, size - 5, 2)
        if i and rng.uniform() < blended:
            j, d, a = rng.integers(i), rng.uniform(3.5, 9), rng.uniform(0, 2 * np.pi)
            px, py = x[j] + d * np.cos(a), y[j] + d * np.sin(a)
        inside = 2 < px < size - 3 and 2 < py < size - 3
        if inside and (i == 0 or np.min(np.hypot(x[:i] - px, y[:i] - py)) >= 3.0):
            x[i], y[i] = px, py
            i += 1
    re = np.exp(rng.normal(np.log(2.5), 0.45, n))
    signal = np.exp(rng.normal(np.log(snr), snr_spread, n)) * np.exp(rng.normal(0, 0.35, (n_bands, n)))
    area = 4 * np.pi * (np.where(kind == STAR, 0, re) ** 2 + 2.3)
    return Truth(
        kind=kind,
        x=x,
        y=y,
        re=re,
        ell=1 - rng.uniform(0.3, 0.95, n),
        theta=rng.uniform(-90, 90, n),
        sersic_n=0.25 * rng.integers(3, 19, n),
        flux=signal * np.sqrt(area),
    )


def scattered_start(truth: Truth, n_bands: int, rng: np.random.Generator, scale: float = 1.0) -> ModelSources:
    """Start values 0.3 pix, 25 % in flux and re and about 0.05 in ellipticity off the truth (times ``scale``)."""
    n = len(truth)

    def off(sigma: float, *shape: int) -> F8:
        return rng.normal(0, sigma * scale, shape or (n,))

    return no_priors(
        truth,
        n_bands,
        x=truth.x + off(0.3),
        y=truth.y + off(0.3),
        re=truth.re * np.exp(off(0.25)),
        ell=np.clip(truth.ell + off(0.05), 0.0, 0.9),
        theta=truth.theta + off(10.0),
        sersic_n=np.full(n, 3.0),
        flux=np.maximum(truth.flux * np.exp(off(0.25, n_bands, n)), 1e-4),
    )


def random_problem(
    n: int,
    n_bands: int,
    size: int,
    seed: int,
    gain: float = 1e9,
    masked: float = 0.01,
    scale: float = 1.0,
    **kwargs: float,
) -> tuple[PatchProblem, Truth]:
    """A random patch with noise, masked pixels and a scattered start."""
    rng = np.random.default_rng(seed)
    bands = make_bands(n_bands, rng, gain=gain)
    truth = random_truth(n, n_bands, size, rng, **kwargs)
    truth = Truth(
        **{
            **{k: getattr(truth, k) for k in Truth.__dataclass_fields__},
            "flux": truth.flux * bands.sky_sigma[:, None],
        }
    )
    start = scattered_start(truth, n_bands, rng, scale)
    return make_problem(truth, bands, size, size, rng, start, masked), truth


def few_sources(n_bands: int, *rows: tuple[int, float, float, float, float, float, float, float]) -> Truth:
    """Truth from rows of kind, x, y, re, ell, theta, n, flux; the flux differs a little from band to band."""
    columns = [np.array(column, float) for column in zip(*rows)]
    factor = np.resize([1.0, 0.8, 1.2, 0.6], n_bands)[:, None]
    return Truth(columns[0].astype(np.int64), *columns[1:7], flux=columns[7] * factor)


def hard_cases(n_bands: int = 4, size: int = 96, seed: int = 11) -> dict[str, tuple[PatchProblem, Truth]]:
    """Small scenes, each with one nasty thing in it."""
    other = (EXP, 30.0, 60.0, 2.0, 0.3, 70.0, 1.0, 400.0)
    rows = {
        "two_galaxies_1pix": [
            (EXP, 48.2, 47.7, 2, 0.3, 70, 1, 800),
            (EXP, 49.2, 47.7, 3, 0.4, 20, 1, 900),
            other,
        ],
        "two_stars_1pix": [(STAR, 48.2, 47.7, 1, 0, 0, 1, 500), (STAR, 49.2, 47.9, 1, 0, 0, 1, 300)],
        "zero_flux": [other, (SERSIC, 60.0, 30.0, 2, 0.3, 70, 2, 0.0)],
        "star_as_galaxy": [(STAR, 48.0, 48.0, 1, 0, 0, 1, 400), (STAR, 30.0, 60.0, 1, 0, 0, 1, 200)],
        "masked": [other, (EXP, 60.0, 60.0, 2, 0.3, 70, 1, 400)],
        "edge": [other, (EXP, 1.0, 30.0, 3, 0.3, 70, 1, 900)],
        "large": [(EXP, 48.0, 48.0, 25, 0.4, 30, 1, 20000), (EXP, 20.0, 75.0, 2, 0.3, 70, 1, 400)],
        "two_pix_off": [other, (EXP, 60.0, 30.0, 2.5, 0.4, 30, 1, 400)],
        "bright": [other, (STAR, 60.0, 30.0, 1, 0, 0, 1, 300000)],
    }
    out = {}
    for name, sources in rows.items():
        rng = np.random.default_rng(seed)
        bands = make_bands(n_bands, rng)
        truth = few_sources(n_bands, *sources)
        start = scattered_start(truth, n_bands, rng)
        if name == "two_pix_off":
            start = no_priors(truth, n_bands, x=truth.x + 2.0)
        if name == "star_as_galaxy":
            start.kind[:] = (EXP, DEV)
            start.re[:] = 1.5
        problem = make_problem(truth, bands, size, size, rng, start)
        if name == "masked":
            problem.weight[:, 40:80, 40:80] = 0
        out[name] = (problem, truth)
    return out
