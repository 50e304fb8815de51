"""The readers of what comes from outside, each as a function of bytes.

Each takes any bytes, hands them to the reader as the file that it reads, and lets nothing through but an
exception that is not ours. What a reader accepts is looked at: it must be what the reader promises.
"""

from __future__ import annotations

import re
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tract7dt.errors import ConfigError, InputError, ProductError, StoreError
from tract7dt.frames import inspect_images, read_image_list
from tract7dt.frames.stream import PixelReader
from tract7dt.patches import read_payload
from tract7dt.publish.manifest import Latest, Manifest, parse, text_of
from tract7dt.settings import Settings, dump_config_text, load_settings, parse_overrides, settings_from_dict
from tract7dt.sources import read_catalogue, read_gaia

__all__ = ["TARGETS"]

BANDS = ("m450", "m650")
#: Pixels of an image that are read at most: a header may promise more than anybody's memory.
_MOST_PIXELS = 1 << 20

_folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
_settings: list[Settings] = []


def _settings_of_nothing() -> Settings:
    if not _settings:
        given = {"inputs": {"input_catalog": "c", "image_list_file": "i"}, "outputs": {"work_dir": "w"}}
        division = {"epsf": {"epsf_ngrid": 1, "ngrid": 1}, "crop": {"enabled": False}}
        _settings.append(settings_from_dict(given | division, _folder).settings)
    return _settings[0]


def _file(name: str, data: bytes) -> Path:
    path = _folder / name
    path.write_bytes(data)
    return path


def _catalogue(name: str, data: bytes) -> None:
    try:
        sources = read_catalogue(_file(name, data))
    except InputError:
        return
    table = sources.table
    ra, dec = table["RA"].to_numpy(), table["DEC"].to_numpy()
    assert len(table) > 0
    assert ra.dtype == dec.dtype == np.float64
    assert not ((ra < 0) | (ra > 360) | (abs(dec) > 90) | np.isinf(ra) | np.isinf(dec)).any()
    assert list(table.columns) == [str(column) for column in dict.fromkeys(table.columns)]
    if sources.has_id:
        assert table["ID"].is_unique
        assert all(isinstance(text, str) and text.strip() for text in table["ID"])


def catalogue_csv(data: bytes) -> None:
    """Source catalogue, CSV."""
    _catalogue("catalogue.csv", data)


def catalogue_fits(data: bytes) -> None:
    """Source catalogue, FITS table."""
    _catalogue("catalogue.fits", data)


def catalogue_parquet(data: bytes) -> None:
    """Source catalogue, Parquet."""
    _catalogue("catalogue.parquet", data)


def gaia(data: bytes) -> None:
    """Gaia table."""
    try:
        table = read_gaia(str(_file("gaia.csv", data)), BANDS, need_magnitudes=True)
    except InputError:
        return
    assert np.isfinite(table["ra"]).all()
    assert (table["dec"].abs() <= 90).all()
    assert table["source_id"].is_unique
    assert not np.isinf(table[[name for name in table if name != "source_id"]].to_numpy(float)).any()


def image_list(data: bytes) -> None:
    """List of the images."""
    try:
        entries = read_image_list(str(_file("images.txt", data)), _folder)
    except InputError:
        return
    assert entries
    assert len(set(entries)) == len(entries)
    assert all("://" in entry or Path(entry).is_absolute() for entry in entries)


def image(data: bytes) -> None:
    """Image: header, checks, pixels."""
    path = str(_file("image.fits", data))
    try:
        (about,) = inspect_images([path], _settings_of_nothing())
        if about.shape[0] * about.shape[1] > _MOST_PIXELS:
            return
        rows = 0
        for y0, values in PixelReader(path, _folder).rows(1 << 16):
            assert y0 == rows
            assert values.dtype in (np.dtype("f8"), np.dtype(">f4"))
            assert values.shape[1] == about.shape[1]
            rows += len(values)
        assert rows == about.shape[0]
    except InputError:
        return
    assert about.sky_sigma > 0
    assert about.gain > 0
    assert np.isfinite(about.zp_auto)


def configuration(data: bytes) -> None:
    """Configuration file."""
    try:
        loaded = load_settings(_file("config.yaml", data))
    except ConfigError:
        return
    again = load_settings(_file("again.yaml", dump_config_text(loaded.settings).encode()))
    assert again.settings.model_dump() == loaded.settings.model_dump()


def overrides(data: bytes) -> None:
    """Options ``--override KEY=VALUE``, one a line."""
    try:
        parse_overrides(data.decode("utf-8", "surrogateescape").splitlines())
    except ConfigError:
        return


def payload(data: bytes) -> None:
    """Payload of a patch; its checksum is made to agree, or nothing else would ever be looked at."""
    try:
        read = read_payload(_file("payload.fits", _with_right_crc(data)))
    except ProductError:
        return
    n_bands = len(read.bands)
    assert read.data.shape == read.bad.shape == (n_bands, *read.patch.roi.shape)
    assert len(read.psfs) == n_bands
    assert (read.sky_sigma > 0).all()
    assert np.isfinite(read.table[["x_pix_patch", "y_pix_patch"]].to_numpy()).all()


_CRC = re.compile(rb"DATACRC = '[0-9a-f]{8}'")
_END = re.compile(rb"END {77}")


def _with_right_crc(data: bytes) -> bytes:
    card, end = _CRC.search(data), _END.search(data)
    if card is None or end is None or card.start() > end.start():
        return data
    body = -(-end.end() // 2880) * 2880
    text = b"DATACRC = '%08x'" % zlib.crc32(data[body:])
    return data[: card.start()] + text + data[card.end() :]


def _stored(kind: type[Manifest] | type[Latest], data: bytes) -> None:
    try:
        value = parse(kind, data, "somewhere")
    except StoreError:
        return
    keys = [entry.key for entry in value.objects] if isinstance(value, Manifest) else [value.manifest]
    for key in keys:
        inside = (_folder / "run" / key).resolve()
        assert inside.is_relative_to(_folder / "run")
        assert inside != _folder / "run"
    assert parse(kind, text_of(value), "somewhere") == value


def manifest(data: bytes) -> None:
    """``manifest.json`` of a published run."""
    _stored(Manifest, data)


def latest(data: bytes) -> None:
    """``latest.json`` of a field."""
    _stored(Latest, data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        catalogue_csv,
        catalogue_fits,
        catalogue_parquet,
        gaia,
        image_list,
        image,
        configuration,
        overrides,
        payload,
        manifest,
        latest,
    )
}
