"""Writing of a payload as a file (:mod:`tract7dt.patches.payload_file` says how it is made up)."""

from __future__ import annotations

import functools
import gzip
import io
import json
import os
import zlib

import numpy as np
from astropy.io import fits
from isal import isal_zlib

from tract7dt.errors import ProductError
from tract7dt.patches import payload_file
from tract7dt.patches.division import patch_row
from tract7dt.patches.payload_file import FORMAT, VERSION
from tract7dt.patches.source_table import escape, table_columns, table_extension
from tract7dt.store import atomic_path
from tract7dt.store.atomic import plain
from tract7dt.types import PatchPayload

__all__ = ["write_payload"]

_BLOCK = 2880


def write_payload(payload: PatchPayload, path: str | os.PathLike[str], compresslevel: int) -> None:
    """Write ``payload`` to a local file; the same payload always gives the same bytes.

    Parameters
    ----------
    payload : PatchPayload
    path : path
        ``.fits.gz`` where compressed, else ``.fits``.
    compresslevel : int
        Of gzip, 1-9; 0 for no compression.

    Raises
    ------
    ProductError
        If the payload cannot be written: a column that is neither text, number nor boolean, or more
        than ``payload_file.MAX_BYTES``.
    """
    content = _content(payload)
    if len(content) > payload_file.MAX_BYTES:
        raise ProductError(
            f"payload {payload.patch.tag} would have {len(content)} bytes: make patches smaller "
            "(raise epsf.ngrid or epsf.epsf_ngrid)"
        )
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        if compresslevel == 0:
            stream.write(content)
        elif compresslevel == 1:
            stream.write(isal_zlib.compress(content, 1, wbits=31))
        else:
            with gzip.GzipFile("", "wb", compresslevel, stream, mtime=0) as packed:
                packed.write(content)


def _content(payload: PatchPayload) -> memoryview:
    """Bytes of the FITS file."""
    columns = table_columns(payload.table)
    primary = fits.PrimaryHDU(header=_primary_header(payload)).header
    primary.set("EXTEND", True, after="NAXIS")
    stream = io.BytesIO()
    stream.write(primary.tostring().encode("ascii"))
    length = stream.tell()
    _write_meta(stream, payload, columns)
    for number, band in enumerate(payload.bands):
        _write_image(stream, np.asarray(payload.data[number], ">f4"), _band_cards(payload, number))
        _write_image(stream, np.asarray(payload.bad[number], np.uint8), _named(f"{band}_BAD", band))
        psf = payload.psfs[number]
        if psf is not None:
            cards = _named(f"{band}_PSF", band)
            cards += _card("NSTARS", psf.n_stars, "stars in the stack") + _card("KIND", psf.kind, "PSF model")
            _write_image(stream, np.asarray(psf.stamp, ">f4"), cards)
    _write_extension(stream, *table_extension(payload.table, columns))
    content = stream.getbuffer()
    primary["DATACRC"] = f"{zlib.crc32(content[length:]):08x}"
    content[:length] = primary.tostring().encode("ascii")
    return content


@functools.lru_cache(maxsize=4096)
def _card(keyword: str, value: str | float, comment: str = "") -> str:
    """A card as astropy writes it; most are the same from patch to patch."""
    return str(fits.Card(keyword, value, comment).image)


def _write_image(stream: io.BytesIO, pixels: np.ndarray, more: str) -> None:
    """An image extension, the same bytes as astropy's, which looks at every card several times.

    ``pixels`` are (ny, nx) in the byte order of FITS (4.0, 3.3 and 7.1), ``more`` the cards behind those of
    the image.
    """
    ny, nx = pixels.shape
    bits = 8 * pixels.itemsize * (-1 if pixels.dtype.kind == "f" else 1)
    cards = "XTENSION= 'IMAGE   '           / Image extension".ljust(80)
    for name, value, comment in (
        ("BITPIX", bits, "array data type"),
        ("NAXIS", 2, "number of array dimensions"),
        ("NAXIS1", nx, ""),
        ("NAXIS2", ny, ""),
        ("PCOUNT", 0, "number of parameters"),
        ("GCOUNT", 1, "number of groups"),
    ):
        cards += (f"{name:8s}= {value:>20d}" + (f" / {comment}" if comment else "")).ljust(80)
    _write_extension(stream, cards + more, pixels.tobytes())


def _write_extension(stream: io.BytesIO, cards: str, data: bytes) -> None:
    """Cards but for END, and data."""
    cards += "END".ljust(80)
    stream.write(cards.encode("ascii").ljust(-(-len(cards) // _BLOCK) * _BLOCK))
    stream.write(data)
    stream.write(bytes(-len(data) % _BLOCK))


def _primary_header(payload: PatchPayload) -> fits.Header:
    patch, halo = payload.patch, payload.table["_is_halo_source"].to_numpy(bool)
    header = fits.Header()
    header["FORMAT"] = (FORMAT, "payload of a fitting patch")
    header["FORMATV"] = (VERSION, "version of the format")
    header["DATACRC"] = ("00000000", "CRC-32 of all bytes behind this header")
    header["PATCH"] = (patch.tag, "name of the patch")
    header["EPSFCELL"] = (patch.epsf_tag, "name of the ePSF cell")
    for name, box in (("BASE", patch.base), ("ROI", patch.roi)):
        for edge in ("X0", "X1", "Y0", "Y1"):
            header[f"{edge}{name}"] = (
                getattr(box, edge.lower()),
                f"{name.lower()} box, 0-based, half-open [pix]",
            )
    header["HALOPIX"] = (patch.halo_pix, "width of the halo [pix]")
    header["NBAND"] = (len(payload.bands), "number of bands")
    header["NBASE"] = (int((~halo).sum()), "sources that are reported")
    header["NHALO"] = (int(halo.sum()), "sources that are fitted alongside")
    return header


def _named(name: str, band: str) -> str:
    return _card("EXTNAME", _ascii(name)) + _card("FILTER", _ascii(band))


def _band_cards(payload: PatchPayload, number: int) -> str:
    cards = _named(payload.bands[number], payload.bands[number])
    cards += _card("SKYSIG", float(payload.sky_sigma[number]), "sky noise of a pixel [scaled counts]")
    cards += _card("EGAIN", float(payload.gain[number]), "electrons per scaled count")
    cards += _card("SCALE", float(payload.scale[number]), "scaled counts per ADU")
    if np.isfinite(payload.fwhm_pix[number]):
        cards += _card("FWHMPIX", float(payload.fwhm_pix[number]), "FWHM of the input image [pix]")
    # full-frame pixel (x, y) = patch pixel + box corner: lets a viewer show working-frame coordinates
    cards += _card("LTV1", -payload.patch.roi.x0) + _card("LTV2", -payload.patch.roi.y0)
    if payload.paths:
        cards += _card("IMAGE", _ascii(payload.paths[number]))
    return cards


def _ascii(text: str) -> str:
    return escape(text).decode("ascii")


def _write_meta(stream: io.BytesIO, payload: PatchPayload, columns: list[dict[str, str]]) -> None:
    """Extension META, one row of JSON: a float is written so that reading gives the same one, NaN as null."""
    bands = [
        {
            "band": band,
            "sky_sigma": float(payload.sky_sigma[number]),
            "gain": float(payload.gain[number]),
            "scale": float(payload.scale[number]),
            "fwhm_pix": float(payload.fwhm_pix[number]),
            "path": payload.paths[number] if payload.paths else None,
            "psf": None
            if psf is None
            else {"n_stars": psf.n_stars, "kind": psf.kind, "quality": psf.quality},
        }
        for number, (band, psf) in enumerate(zip(payload.bands, payload.psfs, strict=True))
    ]
    meta = {"patch": patch_row(payload.patch), "bands": bands, "columns": columns}
    text = json.dumps(plain(meta), ensure_ascii=True, allow_nan=False, sort_keys=True).encode("ascii")
    # The text goes behind the header as it is: astropy would look through it several times.
    table = fits.BinTableHDU(np.array([(text,)], dtype=[("JSON", f"S{len(text)}")]), name="META")
    stream.write(table.header.tostring().encode("ascii") + text + bytes(-len(text) % _BLOCK))
