"""The pixels and PSFs of a patch as the kernels want them: whitened, finite, float32."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from tract7dt.errors import PatchError
from tract7dt.fit.threads import Team
from tract7dt.fit.weights import relative_variance, typical_value, whiten_pixels
from tract7dt.types import PatchProblem

F4 = NDArray[np.float32]
F8 = NDArray[np.float64]
Bool = NDArray[np.bool_]


def check_problem(problem: PatchProblem) -> None:
    """Raise PatchError with everything that is wrong with the arrays of a problem."""
    n_bands, n = len(problem.bands), len(problem.sources)
    wrong: list[str] = []
    shape = np.shape(problem.data)
    if len(shape) != 3 or shape[0] != n_bands or 0 in shape[1:]:
        wrong.append(f"data: expected shape ({n_bands}, ny, nx), found {shape}")
    if np.shape(problem.weight) != shape:
        wrong.append(f"weight: expected the shape of data {shape}, found {np.shape(problem.weight)}")
    elif not np.all(np.isfinite(problem.weight)) or np.any(np.asarray(problem.weight) < 0):
        wrong.append("weight: expected finite values >= 0")
    for name in ("sky_sigma", "gain"):
        values = np.asarray(getattr(problem, name), float)
        if values.shape != (n_bands,) or not np.all(np.isfinite(values) & (values > 0)):
            wrong.append(f"{name}: expected {n_bands} positive numbers, found {values}")
    stamps = [("psf", problem.psf)]
    if problem.psf_extended is not None:
        stamps.append(("psf_extended", problem.psf_extended))
    for name, psfs in stamps:
        if len(psfs) != n_bands:
            wrong.append(f"{name}: expected {n_bands} stamps, found {len(psfs)}")
        wrong += [fault for band, psf in zip(problem.bands, psfs) if (fault := _psf_fault(name, band, psf))]
    for name in ("flux", "flux_err"):
        found = np.shape(getattr(problem.sources, name))
        if found != (n_bands, n):
            wrong.append(f"sources.{name}: expected shape {(n_bands, n)}, found {found}")
    if wrong:
        raise PatchError(f"patch {problem.tag}: {'; '.join(wrong)}")


def _psf_fault(name: str, band: str, psf: F8) -> str:
    """What is wrong with a PSF stamp, or ""."""
    psf = np.asarray(psf)
    where = f"{name} of band {band}"
    if psf.ndim != 2 or psf.shape[0] != psf.shape[1] or psf.shape[0] % 2 == 0:
        return f"{where}: expected a square stamp with an odd side, found shape {psf.shape}"
    if not np.all(np.isfinite(psf)):
        return f"{where}: the stamp holds values that are not finite"
    if abs(float(psf.sum(dtype=np.float64)) - 1) > 0.01:
        return f"{where}: expected unit sum (within 0.01), found {float(psf.sum(dtype=np.float64)):.4g}"
    return ""


class Scene:
    """Whitened pixels, PSF transforms and a few sums of one patch.

    Parameters
    ----------
    data, weight : ndarray, float32 (nband, ny, nx)
        Pixels count where the weight is positive and the data finite.
    psf, psf_extended : sequence of ndarray (k, k)
        Stamps for point sources and for galaxies; the same object where there is no difference.
    team : Team, optional
        Threads that share out the bands.

    Attributes
    ----------
    data, sqrt_w : ndarray, float32 (nband, ny, nx)
        Data times sqrt(weight), and sqrt(weight); both 0 where a pixel is not used.
    typical_sqrt_w : ndarray, float64 (nband,)
        Median of sqrt(weight) over used pixels, or a few thousand of them; 0 in a band without any.
    weight_sum, data_sum : ndarray, float64 (nband,)
        Sums of weight, and of weight times data.
    """

    def __init__(
        self,
        data: F4,
        weight: F4,
        psf: tuple[F8, ...],
        psf_extended: tuple[F8, ...] | None,
        team: Team | None = None,
    ) -> None:
        self.n_bands, self.ny, self.nx = np.shape(data)
        self.sqrt_w: F4 = np.empty(np.shape(data), np.float32)
        self.data: F4 = np.empty(np.shape(data), np.float32)
        self.typical_sqrt_w, self.weight_sum, self.data_sum = (np.zeros(self.n_bands) for _ in range(3))

        def whiten(start: int, stop: int) -> None:
            for b in range(start, stop):
                image = np.ascontiguousarray(data[b], np.float32)
                self.weight_sum[b], self.data_sum[b] = whiten_pixels(
                    image, np.ascontiguousarray(weight[b], np.float32), self.data[b], self.sqrt_w[b]
                )
                if self.weight_sum[b] > 0:
                    self.typical_sqrt_w[b] = typical_value(self.sqrt_w[b].reshape(-1))

        team = team or Team()
        team.share(whiten, self.n_bands)
        self._team = team
        self._same_psf = psf_extended is None
        self._psfs = tuple(_stacked(psfs) for psfs in (psf, psf_extended) if psfs is not None)

    def relative_variance(self, residuals: F4, sky: F8, problem: PatchProblem, out: F4 | None = None) -> F4:
        """True variance of the pixels at a maximum times their weight (:func:`weights.relative_variance`).

        Parameters
        ----------
        residuals : ndarray, float32 (nband, ny, nx)
            Whitened.
        sky : ndarray, float64 (nband,)
        problem : PatchProblem
            Of which this is the scene.
        out : ndarray, float32 (nband, ny, nx), optional
            Filled.

        Returns
        -------
        ndarray, float32 (nband, ny, nx)
            ``out``, or a new one.
        """
        filled = np.empty_like(self.data) if out is None else out
        sky_sigma, gain = np.asarray(problem.sky_sigma, float), np.asarray(problem.gain, float)

        def fill(start: int, stop: int) -> None:
            part = slice(start, stop)
            pixels = self.data[part], self.sqrt_w[part], residuals[part]
            relative_variance(*pixels, sky[part], sky_sigma[part], gain[part], filled[part])

        self._team.share(fill, self.n_bands)
        return filled

    @property
    def has_one_psf(self) -> bool:
        """Whether galaxies have the stamps of point sources."""
        return self._same_psf

    def psf_radius(self, extended: bool) -> int:
        """Half the side of the largest stamp."""
        return self._psfs[extended and not self._same_psf].shape[1] // 2

    def psf_transform(self, size: int, extended: bool) -> F4:
        """Transform of the PSF stamps centred on pixel ``size // 2``, cropped where the stamp is larger.

        Parameters
        ----------
        size : int
            Side of the stamp.
        extended : bool
            Stamps for galaxies.

        Returns
        -------
        ndarray, float32 (nband, size, size // 2 + 1, 2)
            Real and imaginary parts.
        """
        psfs = self._psfs[extended and not self._same_psf]
        stamps = np.zeros((self.n_bands, size, size), np.float32)  # hence transformed in single precision
        middle, half = size // 2, psfs.shape[1] // 2
        lo, hi = max(0, middle - half), min(size, middle + half + 1)
        part = slice(lo - middle + half, hi - middle + half)
        stamps[:, lo:hi, lo:hi] = psfs[:, part, part]
        transform: NDArray[np.complex64] = scipy.fft.rfft2(stamps, workers=self._team.threads)
        return transform.view(np.float32).reshape(self.n_bands, size, size // 2 + 1, 2)


def _stacked(psfs: tuple[F8, ...]) -> F4:
    """Stamps of any odd sides in one array, centred, float32 (nband, side, side)."""
    side = max((len(psf) for psf in psfs), default=1)
    stack = np.zeros((len(psfs), side, side), np.float32)
    for to, psf in zip(stack, psfs):
        margin = (side - len(psf)) // 2
        to[margin : side - margin, margin : side - margin] = psf
    return stack
