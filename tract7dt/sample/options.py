"""What a simulated field is asked to be, and the files that come of it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from tract7dt.errors import SampleError

__all__ = [
    "BAND_NAMES",
    "PIXEL_SCALE_ARCSEC",
    "ZP_REF",
    "Density",
    "SampleField",
    "SampleOptions",
    "random_stream",
]

#: The 20 medium bands, 25 nm apart.
BAND_NAMES = tuple(f"m{wave}" for wave in range(400, 900, 25))
PIXEL_SCALE_ARCSEC = 0.505
#: Zero point of the common scale, mag AB.
ZP_REF = 25.0

Density = Literal["sparse", "normal", "dense", "crowded"]

#: Stars and galaxies per 1000 x 1000 pixels.
_PER_MEGAPIXEL: dict[Density, tuple[int, int]] = {
    "sparse": (50, 90),
    "normal": (125, 250),
    "dense": (350, 700),
    "crowded": (1200, 1200),
}
_FEW_PER_MEGAPIXEL = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOptions:
    """Options of a simulated field.

    Attributes
    ----------
    width, height : int
        Size of the images, pix.
    bands : int or tuple of str
        So many of the 20 medium bands, spread over the range, or the ones that are named.
    seed : int
        Same seed and options: same field.
    density : {"sparse", "normal", "dense", "crowded"}
        Stars and galaxies per area, where ``stars`` or ``galaxies`` is not given.
    stars, galaxies : int or None
        How many.
    saturated, uncatalogued : int or None
        Of the stars, how many are saturated, and how many are bright and in no input file; None: 1.25 per
        megapixel, at least 1.
    exposures : int
        Exposures of each stack; a stack goes 1.25 log10(exposures) deeper than an exposure.
    mag_limit : float or None
        Faintest reference (625 nm) magnitude, mag AB; None: the 5-sigma depth there.
    nan_regions, trail : bool
        NaN column and box in one band each; a satellite trail in one band.
    edge_noise_pix : int
        Width of a noisy edge, as of dithered stacks, pix; 0: none.
    psf_variation : float
        Fractional change of the FWHM from centre to edge.
    sky_residual : float
        Left-over sky, in units of the sky noise.
    flux_columns, shape_columns : bool
        Whether the catalogue has FLUX_{band}, and ELL, THETA, Re.
    position_scatter_arcsec : float
        Position error of the catalogue per axis.
    blank_type : float
        Share of catalogue rows with a blank TYPE.
    gaia_limit : float
        Faintest star of the Gaia table, mag AB.
    gaia_only : float
        Share of Gaia stars that the catalogue does not have.
    proper_motions : bool
        Whether the Gaia table has proper motions, and positions at its own epoch.
    """

    width: int = 1000
    height: int = 1000
    bands: int | tuple[str, ...] = 6
    seed: int = 1
    density: Density = "normal"
    stars: int | None = None
    galaxies: int | None = None
    saturated: int | None = None
    uncatalogued: int | None = None
    exposures: int = 25
    mag_limit: float | None = None
    nan_regions: bool = True
    trail: bool = True
    edge_noise_pix: int = 0
    psf_variation: float = 0.03
    sky_residual: float = 0.05
    flux_columns: bool = False
    shape_columns: bool = True
    position_scatter_arcsec: float = 0.04
    blank_type: float = 0.08
    gaia_limit: float = 17.65
    gaia_only: float = 0.3
    proper_motions: bool = True

    def __post_init__(self) -> None:
        problems = [
            f"{name}: {getattr(self, name)} given; at least {least}"
            for name, least in (("width", 64), ("height", 64), ("exposures", 1), ("seed", 0))
            if getattr(self, name) < least
        ]
        problems += [
            f"{name}: {value} given; not below 0"
            for name in ("stars", "galaxies", "saturated", "uncatalogued", "edge_noise_pix", "psf_variation",
                         "sky_residual", "position_scatter_arcsec")
            if (value := getattr(self, name)) is not None and value < 0
        ]  # fmt: skip
        problems += [
            f"{name}: {getattr(self, name)} given; from 0 to 1"
            for name in ("blank_type", "gaia_only")
            if not 0 <= getattr(self, name) <= 1
        ]
        if self.density not in get_args(Density):
            problems.append(f"density: {self.density!r} given; one of {', '.join(get_args(Density))}")
        if self.mag_limit is not None and not 17 <= self.mag_limit <= 30:
            problems.append(f"mag_limit: {self.mag_limit} given; from 17 to 30")
        if problems:
            raise SampleError("sample field: " + "; ".join(problems))

    @property
    def n_stars(self) -> int:
        """Stars in the field, saturated and uncatalogued ones included."""
        return self._number(self.stars, _PER_MEGAPIXEL[self.density][0])

    @property
    def n_galaxies(self) -> int:
        """Galaxies in the field."""
        return self._number(self.galaxies, _PER_MEGAPIXEL[self.density][1])

    @property
    def n_saturated(self) -> int:
        """Stars that are saturated on purpose."""
        return min(self._few(self.saturated), self.n_stars)

    @property
    def n_uncatalogued(self) -> int:
        """Bright stars that no input file has."""
        return min(self._few(self.uncatalogued), self.n_stars - self.n_saturated)

    def _number(self, given: int | None, per_megapixel: float) -> int:
        return round(per_megapixel * self.width * self.height / 1e6) if given is None else given

    def _few(self, given: int | None) -> int:
        return max(1, self._number(None, _FEW_PER_MEGAPIXEL)) if given is None else given


@dataclass(frozen=True, slots=True)
class SampleField:
    """Files of a simulated field.

    Attributes
    ----------
    directory : Path
    config : Path
        Configuration of a run on it.
    image_list, catalog, gaia : Path
        Inputs of the run.
    truth, truth_bands : Path
        Every source that was drawn; calibration, noise and PSF of every band.
    images : tuple of Path
        One image a band.
    """

    directory: Path
    config: Path
    image_list: Path
    catalog: Path
    gaia: Path
    truth: Path
    truth_bands: Path
    images: tuple[Path, ...]


def random_stream(seed: int, *purpose: str) -> np.random.Generator:
    """Random numbers of a seed for one purpose, independent of any other purpose's.

    Parameters
    ----------
    seed : int
    *purpose : str
        Names of what they are for.
    """
    names = [zlib.crc32(name.encode()) for name in purpose]
    return np.random.default_rng(np.random.SeedSequence([seed, *names]))
