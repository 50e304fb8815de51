"""``frames/field.json``: what the frames on disk are. Its digest stands for the whole field."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from tract7dt.errors import ProductError
from tract7dt.store import write_json
from tract7dt.store.npy import open_array
from tract7dt.types import Box, Field, Frame

__all__ = ["FrameEntry", "Manifest", "field_of", "open_field", "write_manifest"]

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class FrameEntry:
    """One band: everything of :class:`tract7dt.types.Frame` but the pixels.

    ``sha256`` is that of the input image, "" where it is not known; ``pixels_digest`` the quick digest of the file
    with its scaled pixels.
    """

    band: str
    path: str
    sha256: str
    pixels_digest: str
    sky_sigma: float
    gain: float
    scale: float
    zp_auto: float
    saturation: float | None
    fwhm_pix: float | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """Content of ``field.json``.

    Attributes
    ----------
    frames : tuple of FrameEntry
        In the order of the image list; the pixels of each are in ``{band}.npy`` beside the manifest.
    shape, full_shape : (int, int)
        ``(ny, nx)`` of the working frame and of the input images.
    crop : Box
        The working frame within the input frame.
    epoch : float or None
        Julian year.
    zp_ref, pixel_scale_arcsec, saturation_divisor : float
    preview_step : int
        Input pixels per pixel of ``white_full_preview.npy`` (block means of the full frame).
    wcs : astropy.wcs.WCS
        Of the working frame.
    white_digest, white_sigma_digest : str
        Quick digests of the files of the white stack and its noise.
    """

    frames: tuple[FrameEntry, ...]
    shape: tuple[int, int]
    full_shape: tuple[int, int]
    crop: Box
    epoch: float | None
    zp_ref: float
    pixel_scale_arcsec: float
    saturation_divisor: float
    preview_step: int
    wcs: WCS
    white_digest: str
    white_sigma_digest: str


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write ``manifest`` to ``path``; holds nothing that changes when the same input is loaded again."""
    write_json(path, _content(manifest))


def _content(manifest: Manifest) -> dict[str, Any]:
    header = manifest.wcs.to_header(relax=True)
    return {
        "format": _FORMAT,
        "bands": [frame.band for frame in manifest.frames],
        "frames": [{"file": f"{f.band}.npy", **asdict(f)} for f in manifest.frames],
        "images": [frame.path for frame in manifest.frames],
        "white": "white.npy",
        "white_sigma": "white_sigma.npy",
        "white_digest": manifest.white_digest,
        "white_sigma_digest": manifest.white_sigma_digest,
        "preview": {"file": "white_full_preview.npy", "step": manifest.preview_step},
        "shape": manifest.shape,
        "full_shape": manifest.full_shape,
        "crop": asdict(manifest.crop),
        "epoch": manifest.epoch,
        "zp_ref": manifest.zp_ref,
        "pixel_scale_arcsec": manifest.pixel_scale_arcsec,
        "saturation_divisor": manifest.saturation_divisor,
        "wcs": [card.image.rstrip() for card in header.cards],
    }


def field_of(manifest: Manifest, path: Path) -> Field:
    """The field that :func:`open_field` will give once ``manifest`` is written to ``path``; its arrays are there.

    Raises
    ------
    ProductError
        One of its arrays is missing, damaged, or not of the shape that it should be.
    """
    return _field(json.loads(json.dumps(_content(manifest))), path)


def open_field(manifest: str | Path) -> Field:
    """The field that ``manifest`` (``frames/field.json``) describes; pixels stay on disk until they are read.

    Raises
    ------
    ProductError
        The manifest or one of its arrays is missing, damaged, or not of the shape that it should be.
    """
    path = Path(manifest)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ProductError(f"{path}: expected format {_FORMAT}, found {content['format']}")
    except FileNotFoundError:
        raise ProductError(f"{path}: missing; tract7dt run makes it") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    return _field(content, path)


def _damaged(path: Path, error: Exception) -> ProductError:
    return ProductError(f"{path}: damaged ({error!r}); tract7dt run --refresh load_inputs makes it again")


def _field(content: dict[str, Any], path: Path) -> Field:
    """The field of a manifest's content; ``path`` is that of the manifest."""
    try:
        ny, nx = content["shape"]
        shape = (int(ny), int(nx))
        frames = {entry["band"]: _frame(path.parent, entry, shape) for entry in content["frames"]}
        return Field(
            frames=frames,
            white=open_array(path.parent / content["white"], shape, np.float32),
            white_sigma=open_array(path.parent / content["white_sigma"], shape, np.float32),
            wcs=_wcs(content["wcs"], shape),
            crop=Box(**content["crop"]),
            pixel_scale_arcsec=float(content["pixel_scale_arcsec"]),
            epoch=content["epoch"],
            zp_ref=float(content["zp_ref"]),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _frame(folder: Path, entry: dict[str, Any], shape: tuple[int, int]) -> Frame:
    numbers = {name: entry[name] for name in FrameEntry.__slots__ if name != "pixels_digest"}
    return Frame(data=open_array(folder / entry["file"], shape, np.float32), **numbers)


def _wcs(cards: list[str], shape: tuple[int, int]) -> WCS:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FITSFixedWarning)
        wcs = WCS(fits.Header.fromstring("\n".join(cards), sep="\n"))
    wcs.array_shape = shape
    return wcs
