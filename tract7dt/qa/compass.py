"""Where north is and how long an arcsecond: read from the WCS, whatever its handedness and axis order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from astropy.wcs import WcsError

if TYPE_CHECKING:
    from astropy.wcs import WCS

__all__ = ["SkyGeometry", "angle_label", "scale_bar_arcsec", "sky_geometry"]

_ROUND_ARCSEC = [
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30),
    *(60.0 * m for m in (1, 2, 5, 10, 20, 30)),
    *(3600.0 * d for d in (1, 2, 5, 10, 20, 50)),
]


@dataclass(frozen=True, slots=True)
class SkyGeometry:
    """The sky at one point of an image.

    Attributes
    ----------
    pixel_scale_arcsec : float
        Geometric mean of the two axes.
    north, east : (float, float)
        Unit vectors in the pixel frame (x to the right, y up).
    names : (str, str)
        What the two vectors are called: N and E, or the names of another system's latitude and longitude.
    centre : str
        The point, for a caption.
    """

    pixel_scale_arcsec: float
    north: tuple[float, float]
    east: tuple[float, float]
    names: tuple[str, str]
    centre: str


def sky_geometry(wcs: WCS | None, x: float, y: float) -> SkyGeometry | None:
    """Directions and scale at pixel ``(x, y)``; None where the WCS cannot tell them.

    It cannot if there is none, if it is not celestial, and at a pole. The directions come from the
    Jacobian of the pixel-to-sky mapping by central differences of one pixel, longitude times
    cos(latitude).
    """
    if wcs is None or wcs.naxis != 2:
        return None
    points = np.array([[x, y], [x + 0.5, y], [x - 0.5, y], [x, y + 0.5], [x, y - 0.5]])
    try:
        if not wcs.has_celestial:
            return None
        lng, lat = wcs.wcs.lng, wcs.wcs.lat
        world = np.asarray(wcs.all_pix2world(points, 0), dtype=float)
    except WcsError:
        return None
    lon, latitude = world[:, lng], world[:, lat]
    cosine = np.cos(np.deg2rad(latitude[0]))
    d_lon = ((np.array([lon[1] - lon[2], lon[3] - lon[4]]) + 180.0) % 360.0 - 180.0) * cosine
    d_lat = np.array([latitude[1] - latitude[2], latitude[3] - latitude[4]])
    jacobian = np.array([d_lon, d_lat])  # rows: east, north in degrees; columns: per pixel in x, in y
    determinant = np.linalg.det(jacobian)
    if not np.isfinite(jacobian).all() or abs(cosine) < 1e-6 or abs(determinant) < 1e-20:
        return None
    inverse = np.linalg.inv(jacobian)
    east, north = (inverse[:, i] / np.hypot(*inverse[:, i]) for i in (0, 1))
    equatorial = wcs.wcs.lngtyp.strip() == "RA"
    names = ("N", "E") if equatorial else (wcs.wcs.lattyp.strip(), wcs.wcs.lngtyp.strip())
    return SkyGeometry(
        pixel_scale_arcsec=3600.0 * float(np.sqrt(abs(determinant))),
        north=(float(north[0]), float(north[1])),
        east=(float(east[0]), float(east[1])),
        names=names,
        centre=_position(float(lon[0]) % 360.0, float(latitude[0]), equatorial),
    )


def _position(lon: float, lat: float, equatorial: bool) -> str:
    if not equatorial:
        return f"{lon:.4f}°, {lat:+.4f}°"
    seconds = round(lon * 240.0 * 10.0) / 10.0 % 86400.0
    arcseconds = round(abs(lat) * 3600.0)
    sign = "−" if lat < 0 else "+"
    return (
        f"{int(seconds // 3600):02d}ʰ{int(seconds % 3600 // 60):02d}ᵐ{seconds % 60:04.1f}ˢ "
        f"{sign}{arcseconds // 3600:02d}°{arcseconds % 3600 // 60:02d}′{arcseconds % 60:02d}″"
    )


def scale_bar_arcsec(width_arcsec: float) -> float:
    """Longest round length that is at most ``width_arcsec``."""
    fitting = [length for length in _ROUND_ARCSEC if length <= width_arcsec]
    return float(fitting[-1] if fitting else _ROUND_ARCSEC[0])


def angle_label(arcsec: float) -> str:
    """``30″``, ``2′``, ``1°``."""
    if arcsec >= 3600:
        return f"{arcsec / 3600:g}°"
    return f"{arcsec / 60:g}′" if arcsec >= 60 else f"{arcsec:g}″"
