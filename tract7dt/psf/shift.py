"""Sub-pixel shifts of stamps in Fourier space.

A stamp is a sampled, band-limited function (true to 0.5 % of the peak at FWHM 2.5 pix, better for wider
PSFs); multiplying its transform by a phase moves it without loss of height. The transform length is odd,
so there is no Nyquist term whose phase would be ambiguous.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

__all__ = ["StampShifter"]

F8 = NDArray[np.float64]


class StampShifter:
    """Moves (k, k) stamps by fractions of a pixel; the phases of one size are made once.

    Parameters
    ----------
    k : int
        Width of the stamps, odd.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.length = _odd_fast_length(k + 2)
        self._iy = -2j * np.pi * fft.fftfreq(self.length)[:, None]
        self._ix = -2j * np.pi * fft.rfftfreq(self.length)[None, :]

    def _phase(self, dx: F8, dy: F8) -> NDArray[np.complex128]:
        x, y = np.asarray(dx, float)[..., None, None], np.asarray(dy, float)[..., None, None]
        return np.exp(self._iy * y) * np.exp(self._ix * x)

    def _back(self, transform: NDArray[np.complex128]) -> F8:
        full = fft.irfft2(transform, s=(self.length, self.length))
        return full[..., : self.k, : self.k]

    def shift(self, stamps: F8, dx: F8, dy: F8) -> F8:
        """Each of ``stamps`` (n, k, k) moved by its ``dx``, ``dy`` (n,), pix; a star then lies at +dx."""
        transform = fft.rfft2(stamps, s=(self.length, self.length))
        return self._back(transform * self._phase(dx, dy))

    def moved(self, stamp: F8, dx: F8, dy: F8) -> F8:
        """One ``stamp`` (k, k) moved to the ``n`` places ``dx``, ``dy``, pix: ndarray (n, k, k)."""
        return self._back(fft.rfft2(stamp, s=(self.length, self.length)) * self._phase(dx, dy))

    def models(self, stamp: F8, dx: F8, dy: F8) -> tuple[F8, F8, F8]:
        """One stamp moved to ``n`` places, and the derivatives by the place.

        Parameters
        ----------
        stamp : ndarray (k, k)
        dx, dy : ndarray (n,)
            Offsets, pix.

        Returns
        -------
        value, by_x, by_y : ndarray (n, k, k)
        """
        moved = fft.rfft2(stamp, s=(self.length, self.length)) * self._phase(dx, dy)
        return self._back(moved), self._back(moved * self._ix), self._back(moved * self._iy)

    def curved(self, stamps: F8, dx: F8, dy: F8, factors: F8) -> F8:
        """Second derivatives by the place of each of ``stamps`` (n, k, k), moved: ndarray (n, k, k).

        Their sum, each by its own of the symmetric ``factors`` (n, 2, 2) of xx, xy, yx and yy.
        """
        moved = fft.rfft2(stamps, s=(self.length, self.length)) * self._phase(dx, dy)
        xx, xy, yy = (factors[:, a, b, None, None] for a, b in ((0, 0), (0, 1), (1, 1)))
        return self._back(moved * (xx * self._ix**2 + 2 * xy * self._ix * self._iy + yy * self._iy**2))


def _odd_fast_length(at_least: int) -> int:
    """Smallest odd product of 3, 5 and 7 that is not below ``at_least``."""
    n = at_least | 1
    while True:
        rest = n
        for prime in (3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 2
