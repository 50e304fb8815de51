"""From input images to the working frame: scale, crop, white stack; all by rows, all on disk."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from astropy.wcs import WCS
from numpy.typing import NDArray

from tract7dt.errors import ProductError
from tract7dt.frames.inspection import ImageInfo, working_box
from tract7dt.frames.manifest import FrameEntry, Manifest, field_of, open_field, write_manifest
from tract7dt.frames.stream import FileRead, PixelReader
from tract7dt.resources import worker_count
from tract7dt.store import WorkDir, atomic_path, note_written, quick_digest, with_recording
from tract7dt.store.npy import RowReader, RowWriter, row_chunks, write_array
from tract7dt.types import F4, F8, Bool, Box, Field

if TYPE_CHECKING:
    from tract7dt.settings import Settings

__all__ = ["build_field", "built_field", "cropped_wcs"]

log = logging.getLogger(__name__)

#: Longest side of the preview of the full frame; a finer one would only cost memory.
MAX_PREVIEW_SIDE = 3000
#: A frame whose preview would be smaller is averaged less than ``crop.display_downsample`` says.
MIN_PREVIEW_SIDE = 700
#: Pixels that are converted at a time: more leave the caches, with fewer the calls themselves count.
BLOCK_PIXELS = 1 << 18
#: Pixels of all bands together that a thread stacks at a time, in blocks of ``BLOCK_PIXELS``.
_STACK_BLOCKS = 4
#: More threads than this gain nothing: reading is bound by the disk or by one decompressor a file.
MAX_AUTO_WORKERS = 4
#: No field has more saturated pixels than this share; with a SATURATE below the sky all are.
MAX_SATURATED_SHARE = 0.2
#: SKYSIG is doubted where it and the scatter of the pixels differ by more than this factor.
MAX_SKYSIG_RATIO = 3.0
#: Sky whose noise is fewer electrons than this was seen by no detector.
MIN_SKY_ELECTRONS = 0.1
#: A pixel of more SKYSIG than this is no count of anything; its round-off would be seen all over a patch.
MAX_PIXEL_SIGMA = 1e9
#: Pixels of a frame that are looked at for their scatter, in whole rows from all over it.
_SCATTER_PIXELS = 10_000


def build_field(images: Sequence[ImageInfo], settings: Settings, work: WorkDir) -> Field:
    """Scale and crop all images, stack them, write everything under ``work.frames``.

    ``data = image * 10**(-0.4 (ZP_AUTO - zp_ref))``, NaN where the image is not finite. The white stack is
    ``sum(w data) / sum(w)`` with ``w = 1 / sky_sigma**2`` over the bands that are finite at a pixel, its
    noise ``sqrt(1 / sum(w))``. Memory stays at a few row chunks a worker, whatever the size and number of
    images.

    Parameters
    ----------
    images : sequence of ImageInfo
        As :func:`inspect_images` returned them.
    settings : Settings
    work : WorkDir
        Layout of the run; ``field.json`` is written last.

    Returns
    -------
    Field
        Opened from what was written.

    Raises
    ------
    InputError
        An image is truncated or damaged.
    ProductError
        ``wcs.fits`` cannot be written.
    """
    with built_field(images, settings, work):
        pass
    return open_field(work.field_manifest)


@contextlib.contextmanager
def built_field(images: Sequence[ImageInfo], settings: Settings, work: WorkDir) -> Iterator[Field]:
    """The field of :func:`build_field` for a block that can begin with it while the images are digested.

    Its frames have no ``sha256`` yet. ``field.json`` is written when the block has ended well. Parameters and
    errors are those of :func:`build_field`.
    """
    start = time.perf_counter()
    work.frames.mkdir(parents=True, exist_ok=True)
    work.field_manifest.unlink(missing_ok=True)  # from here on the old frames are being overwritten
    box, shape = working_box(images[0].shape, settings), images[0].shape
    preview = _Preview.of(shape, settings.crop.display_downsample)

    def prepare(image: ImageInfo) -> tuple[FrameEntry, FileRead]:
        return _write_frame(image, _entry(image, settings), box, preview, work)

    workers = _workers(settings.performance.frame_prep_workers, len(images))
    with ThreadPoolExecutor(workers) as pool:
        entries, files = zip(*pool.map(with_recording(prepare), images))
    prepared = time.perf_counter()
    white = _write_white(entries, box.shape, work, _workers(settings.performance.white_stack_workers))
    _write_preview(preview, work)
    stacked = time.perf_counter()
    wcs = cropped_wcs(images[0].wcs, box)
    _write_wcs(wcs, work)
    epochs = [image.epoch for image in images if image.epoch is not None]
    manifest = Manifest(
        frames=entries,
        shape=box.shape,
        full_shape=shape,
        crop=box,
        epoch=math.fsum(epochs) / len(epochs) if epochs else None,
        zp_ref=settings.image_scaling.zp_ref,
        pixel_scale_arcsec=images[0].pixel_scale_arcsec,
        saturation_divisor=settings.source_saturation_cut.saturation_divisor,
        preview_step=preview.step,
        wcs=wcs,
        white_digest=white[0],
        white_sigma_digest=white[1],
    )
    log.info(
        "load_inputs timing [s]: prep=%.2f white=%.2f total=%.2f (%d images of %d x %d pixels, %d workers)",
        prepared - start, stacked - prepared, time.perf_counter() - start,
        len(images), shape[1], shape[0], workers,
    )  # fmt: skip
    with _digested(files, workers) as digests:
        yield field_of(manifest, work.field_manifest)
    frames = []
    for entry, digest in zip(entries, digests, strict=True):
        if not digest:
            log.warning("%s was written to while it was read; the next run reads it again", entry.path)
        frames.append(replace(entry, sha256=digest))
    write_manifest(replace(manifest, frames=tuple(frames)), work.field_manifest)


@contextlib.contextmanager
def _digested(files: Sequence[FileRead], workers: int) -> Iterator[list[str]]:
    """SHA-256 of the files, taken while the block runs: half as much work as all the rest of reading them."""
    found: list[str] = []
    with ThreadPoolExecutor(workers) as pool:
        waited_for = [pool.submit(file.sha256) for file in files]
        try:
            yield found
            found += [digest.result() for digest in waited_for]
        finally:
            pool.shutdown(cancel_futures=True)


def cropped_wcs(wcs: WCS, box: Box) -> WCS:
    """WCS of the pixels in ``box``: CRPIX (and the origin of SIP) shifted, everything else as it was."""
    cropped = wcs.slice((slice(box.y0, box.y1), slice(box.x0, box.x1)))
    cropped.array_shape = box.shape
    return cropped


def _workers(asked: int | str, most: int | None = None) -> int:
    if asked == "auto":
        most = MAX_AUTO_WORKERS if most is None else min(most, MAX_AUTO_WORKERS)
    return worker_count(asked, most)


def _entry(image: ImageInfo, settings: Settings) -> FrameEntry:
    scale = 10.0 ** (-0.4 * (image.zp_auto - settings.image_scaling.zp_ref))
    divisor = settings.source_saturation_cut.saturation_divisor
    return FrameEntry(
        band=image.band,
        path=image.path,
        sha256="",
        pixels_digest="",
        sky_sigma=image.sky_sigma * scale,
        gain=image.gain / scale,
        scale=scale,
        zp_auto=image.zp_auto,
        saturation=None if image.saturate is None else image.saturate / divisor * scale,
        fwhm_pix=image.fwhm_pix,
    )


@dataclass
class _Preview:
    """Block means of the white stack of the full frame, summed band by band and chunk by chunk."""

    step: int
    width: NDArray[np.int64]
    total: F4
    weight: F4
    lock: Lock

    @classmethod
    def of(cls, shape: tuple[int, int], step: int) -> _Preview:
        step = min(step, max(1, max(shape) // MIN_PREVIEW_SIDE))
        step = max(step, math.ceil(max(shape) / MAX_PREVIEW_SIDE))
        blocks = (math.ceil(shape[0] / step), math.ceil(shape[1] / step))
        width = np.minimum(step, shape[1] - step * np.arange(blocks[1]))
        return cls(step, width, np.zeros(blocks, np.float32), np.zeros(blocks, np.float32), Lock())

    def add(self, y0: int, rows: F4, finite: Bool | None, weight: float) -> None:
        """Add ``rows`` (n, nx) that start at row ``y0`` of the full frame; None: all of them are finite."""
        if finite is None:
            total = self._sums(y0, rows)
            edges = [0, *range(self.step - y0 % self.step, len(rows), self.step), len(rows)]
            count = np.outer(np.diff(edges), self.width).astype(np.float32)
        else:
            total = self._sums(y0, np.where(finite, rows, np.float32(0)))
            count = self._sums(y0, finite.astype(np.float32))
        blocks = slice(y0 // self.step, y0 // self.step + len(total))
        with self.lock:
            self.total[blocks] += np.float32(weight) * total
            self.weight[blocks] += np.float32(weight) * count

    def _sums(self, y0: int, values: F4) -> F4:
        """Sums over blocks of ``step`` x ``step`` pixels, fewer at the edges of the frame and of ``values``."""
        # Rows first, then columns, filled up with zeros, as a product with ones: several times as fast as sums of
        # ``step`` neighbours each, or as reduceat.
        n, width = values.shape
        first = min(-y0 % self.step, n)  # rows of a block that began before
        whole = (n - first) // self.step
        last = first + whole * self.step
        ny, nx = (first > 0) + whole + (last < n), -(-width // self.step)
        by_row = np.zeros((ny, nx * self.step), np.float32)
        sums = by_row[:, :width]
        if first:
            np.add.reduce(values[:first], axis=0, out=sums[0])
        if whole:
            blocks = values[first:last].reshape(whole, self.step, width)
            np.add.reduce(blocks, axis=1, out=sums[(first > 0) : (first > 0) + whole])
        if last < n:
            np.add.reduce(values[last:], axis=0, out=sums[-1])
        return (by_row.reshape(-1, self.step) @ np.ones(self.step, np.float32)).reshape(ny, nx)

    def mean(self) -> F4:
        """White stack by blocks, NaN where no band is finite."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.weight > 0, self.total / self.weight, np.nan).astype(np.float32)


@dataclass
class _Seen:
    """What the pixels of a frame are: their count and range, and every ``step``-th row of them."""

    step: int
    finite: int = 0
    saturated: int = 0
    low: float = math.inf
    high: float = -math.inf
    some: list[F4] = field(default_factory=list)

    @classmethod
    def of(cls, shape: tuple[int, int]) -> _Seen:
        ny, nx = shape
        return cls(math.ceil(ny / max(_SCATTER_PIXELS // nx, 5)))

    def add(self, y0: int, rows: F4, finite: Bool | None, saturation: float | None) -> None:
        """Add ``rows`` (n, nx) that start at row ``y0`` of the frame; None: all of them are finite."""
        values = rows if finite is None else rows[finite]
        self.finite += values.size
        if values.size:
            low, high = values.min(), values.max()
            self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
            if saturation is not None and high >= saturation:
                self.saturated += int(np.count_nonzero(values >= saturation))
        self.some += [row.copy() for row in rows[-y0 % self.step :: self.step]]

    def scatter(self) -> tuple[float, float]:
        """Robust scatter of the pixels about their median, and that of neighbours about each other over sqrt 2.

        Correlated noise makes the second too small, whatever varies across the frame the first too large.
        """
        values = np.concatenate(self.some)
        steps = np.concatenate([np.diff(row) for row in self.some])
        values, steps = values[np.isfinite(values)], steps[np.isfinite(steps)]
        if not steps.size:
            return 0.0, 0.0
        about_median = float(np.median(np.abs(values - np.median(values))))
        return 1.4826 * about_median, 1.4826 * float(np.median(np.abs(steps))) / math.sqrt(2.0)

    def log(self, entry: FrameEntry, image: ImageInfo, box: Box) -> None:
        """Say how much of the frame there is, and what no image of the sky looks like."""
        band, path, share = entry.band, image.path, self.finite / (box.nx * box.ny)
        log.info("%s: scale %.6g, %.2f %% of the pixels finite (%s)", band, entry.scale, 100 * share, path)
        if self.finite == 0:
            log.warning("%s: no finite pixel in the working frame of %s", band, path)
            return
        if self.low == self.high:
            log.warning(
                "%s: every finite pixel in the working frame of %s has the value %g", band, path, self.low
            )
        if self.saturated > MAX_SATURATED_SHARE * self.finite:
            log.warning(
                "%s: %.1f %% of the pixels in the working frame of %s count as saturated; is SATURATE = %g right?",
                band, 100 * self.saturated / self.finite, path, image.saturate,
            )  # fmt: skip
        worst = max(self.high, -self.low)
        if worst > MAX_PIXEL_SIGMA * entry.sky_sigma:
            log.warning(
                "%s: a pixel of %s is %.2g, which no count of light is: fluxes far from it may be wrong; "
                "set it to NaN",
                band, path, worst / entry.scale,
            )  # fmt: skip
        wide, near = self.scatter()
        most, least = MAX_SKYSIG_RATIO * max(wide, near), near / MAX_SKYSIG_RATIO
        if near > 0 and not least <= entry.sky_sigma <= most:
            log.warning(
                "%s: SKYSIG = %g in %s, but its pixels scatter by %.3g: weights and errors will be wrong",
                band, image.sky_sigma, path, near / entry.scale,
            )  # fmt: skip
        electrons = image.sky_sigma * image.gain
        if electrons < MIN_SKY_ELECTRONS:
            log.warning(
                "%s: by SKYSIG * EGAIN = %g * %g the sky in %s has a noise of %.2g electrons; are both of ADU?",
                band, image.sky_sigma, image.gain, path, electrons,
            )  # fmt: skip


def _write_frame(
    image: ImageInfo, entry: FrameEntry, box: Box, preview: _Preview, work: WorkDir
) -> tuple[FrameEntry, FileRead]:
    """Scale and crop an image; its entry with the digest of what was written, and the file that was read."""
    reader = PixelReader(image.path, work.frames)
    seen = _Seen.of(box.shape)
    with (
        atomic_path(work.frame(image.band)) as temporary,
        RowWriter(temporary, box.shape, "<f4", digest=True) as writer,
        np.errstate(over="ignore", invalid="ignore"),
    ):
        scaled, scale = np.empty((0, 0), np.float32), np.float64(entry.scale)
        for y0, values in reader.rows(BLOCK_PIXELS, preview.step):
            if len(values) > len(scaled):
                scaled, mask = np.empty(values.shape, np.float32), np.empty(values.shape, bool)
            rows, finite = scaled[: len(values)], mask[: len(values)]
            # In one pass: other byte order, product in double precision, float32.
            np.multiply(values, scale, out=rows, dtype=np.float64, casting="unsafe")
            np.isfinite(rows, out=finite)
            whole = bool(finite.all())  # nearly always
            if not whole:
                rows[~finite] = np.nan
            preview.add(y0, rows, None if whole else finite, entry.sky_sigma**-2)
            lo, hi = max(y0, box.y0), min(y0 + len(rows), box.y1)
            if lo < hi:
                part = slice(lo - y0, hi - y0), slice(box.x0, box.x1)
                inside = np.ascontiguousarray(rows[part])
                seen.add(lo - box.y0, inside, None if whole else finite[part], entry.saturation)
                writer.write(lo - box.y0, inside)
    pixels_digest = writer.digest()
    note_written(work.frame(image.band), pixels_digest)
    seen.log(entry, image, box)
    return replace(entry, pixels_digest=pixels_digest), reader.file


def _write_white(
    entries: Sequence[FrameEntry], shape: tuple[int, int], work: WorkDir, workers: int
) -> tuple[str, str]:
    """Write the white stack and its noise; the digests of the two files."""
    weights = [entry.sky_sigma**-2 for entry in entries]
    targets = work.frames / "white.npy", work.frames / "white_sigma.npy"
    with (
        atomic_path(targets[0]) as white_path,
        atomic_path(targets[1]) as sigma_path,
        RowWriter(white_path, shape, "<f4") as white,
        RowWriter(sigma_path, shape, "<f4") as sigma,
        contextlib.ExitStack() as opened,  # before the pool, so that no thread reads a file that is closed
        ThreadPoolExecutor(workers) as pool,
    ):
        frames = [
            opened.enter_context(RowReader(work.frame(each.band), shape, np.float32)) for each in entries
        ]

        chunks = list(row_chunks(*shape, max(1, _STACK_BLOCKS * BLOCK_PIXELS // len(frames))))
        room = max((y1 - y0 for y0, y1 in chunks), default=0) * shape[1]

        def stack(some: Sequence[tuple[int, int]]) -> None:
            buffer = np.empty((len(frames), room), np.float32)
            for y0, y1 in some:
                values = buffer[:, : (y1 - y0) * shape[1]]
                for frame, data in zip(frames, values):
                    frame.read(y0, data)
                total, weight = _weighted_sum(values, weights)
                with np.errstate(invalid="ignore", divide="ignore"):
                    white.write(y0, (total / weight).reshape(-1, shape[1]))  # 0 / 0: NaN
                    noise = 1.0 / np.sqrt(weight)  # 1 / 0: inf
                    sigma.write(y0, np.broadcast_to(noise, total.shape).reshape(-1, shape[1]))

        list(pool.map(stack, [chunks[i::workers] for i in range(workers)]))
    # The rows came in any order, so that the files are read again: two, however many bands there are.
    with ThreadPoolExecutor(len(targets)) as pool:
        white_digest, sigma_digest = pool.map(quick_digest, targets)
    note_written(targets[0], white_digest)
    note_written(targets[1], sigma_digest)
    return white_digest, sigma_digest


def _weighted_sum(values: F4, weights: Sequence[float]) -> tuple[F4, F8 | float]:
    """``sum(w v)`` and ``sum(w)`` over the bands that are finite at a pixel; ``values`` (nband, n) is spent.

    The second is one number where every band is finite everywhere, which the first of the sums shows.
    """
    factor = np.asarray(weights, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        total = factor @ values
        if np.isfinite(total).all():
            return total, sum(weights)
        weight = np.full(total.shape, sum(weights))
        count = np.full(total.shape, len(weights), np.int16)
        for data, band_weight in zip(values, weights):
            missing = ~np.isfinite(data)
            if missing.any():
                data[missing] = 0.0
                np.subtract(weight, band_weight, out=weight, where=missing)
                np.subtract(count, 1, out=count, where=missing)
        weight[count == 0] = 0.0  # not what rounding leaves
        return factor @ values, weight


def _write_preview(preview: _Preview, work: WorkDir) -> None:
    with atomic_path(work.frames / "white_full_preview.npy") as temporary, temporary.open("wb") as stream:
        write_array(stream, preview.mean())


def _write_wcs(wcs: WCS, work: WorkDir) -> None:
    hdus = wcs.to_fits(relax=True)
    ny, nx = wcs.array_shape
    hdus[0].header["IMAGEW"] = (nx, "width of the working frame, pix")
    hdus[0].header["IMAGEH"] = (ny, "height of the working frame, pix")
    try:
        with atomic_path(work.wcs) as temporary:
            hdus.writeto(temporary, overwrite=True)
    except OSError as error:
        raise ProductError(f"{work.wcs}: cannot be written ({error})") from error
