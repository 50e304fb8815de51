"""Writing of a payload as a file (:mod:`tract7dt.patches.payload_file` says how it is made up)."""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from typing import Any

import numpy as np
from astropy.io import fits

from tract7dt.errors import ProductError
from tract7dt.patches import payload_file
from tract7dt.patches.division import patch_row
from tract7dt.patches.payload_file import FORMAT, VERSION
from tract7dt.patches.source_table import escape, table_columns, table_hdu
from tract7dt.store import atomic_path
from tract7dt.store.atomic import plain
from tract7dt.types import PatchPayload

__all__ = ["write_payload"]


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
        else:
            with gzip.GzipFile("", "wb", compresslevel, stream, mtime=0) as packed:
                packed.write(content)


def _content(payload: PatchPayload) -> memoryview:
    """Bytes of the FITS file."""
    columns = table_columns(payload.table)
    hdus: list[Any] = [fits.PrimaryHDU(header=_primary_header(payload)), _meta_hdu(payload, columns)]
    for number, band in enumerate(payload.bands):
        header = _band_header(payload, number)
        hdus += [
            fits.ImageHDU(np.asarray(payload.data[number], np.float32), header),
            fits.ImageHDU(np.asarray(payload.bad[number], np.uint8), _named(f"{band}_BAD", band)),
        ]
        psf = payload.psfs[number]
        if psf is not None:
            card = _named(f"{band}_PSF", band)
            card["NSTARS"] = (psf.n_stars, "stars in the stack")
            card["KIND"] = (psf.kind, "PSF model")
            hdus.append(fits.ImageHDU(np.asarray(psf.stamp, np.float32), card))
    hdus.append(table_hdu(payload.table, columns))
    stream = io.BytesIO()
    fits.HDUList(hdus).writeto(
        stream, output_verify="ignore"
    )  # the tests verify; here it would be a third of the time
    content = stream.getbuffer()
    header = hdus[0].header
    length = len(header.tostring())
    header["DATACRC"] = f"{zlib.crc32(content[length:]):08x}"
    content[:length] = header.tostring().encode("ascii")
    return content


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


def _named(name: str, band: str) -> fits.Header:
    header = fits.Header()
    header["EXTNAME"] = _ascii(name)
    header["FILTER"] = _ascii(band)
    return header


def _band_header(payload: PatchPayload, number: int) -> fits.Header:
    header = _named(payload.bands[number], payload.bands[number])
    header["SKYSIG"] = (float(payload.sky_sigma[number]), "sky noise of a pixel [scaled counts]")
    header["EGAIN"] = (float(payload.gain[number]), "electrons per scaled count")
    header["SCALE"] = (float(payload.scale[number]), "scaled counts per ADU")
    if np.isfinite(payload.fwhm_pix[number]):
        header["FWHMPIX"] = (float(payload.fwhm_pix[number]), "FWHM of the input image [pix]")
    # full-frame pixel (x, y) = patch pixel + box corner: lets a viewer show working-frame coordinates
    header["LTV1"] = -payload.patch.roi.x0
    header["LTV2"] = -payload.patch.roi.y0
    if payload.paths:
        header["IMAGE"] = _ascii(payload.paths[number])
    return header


def _ascii(text: str) -> str:
    return escape(text).decode("ascii")


def _meta_hdu(payload: PatchPayload, columns: list[dict[str, str]]) -> fits.BinTableHDU:
    """One row of JSON. Python writes a float so that reading gives the same one; NaN becomes null."""
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
    column = fits.Column("JSON", f"{len(text)}A", array=np.array([text]))
    return fits.BinTableHDU.from_columns([column], name="META")
