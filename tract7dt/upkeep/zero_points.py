"""Zero points that jump from one night to the next."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["MIN_NIGHTS", "Jump", "jumps"]

#: Of fewer nights a median says little, and nothing is compared.
MIN_NIGHTS = 3


@dataclass(frozen=True, slots=True)
class Jump:
    """A zero point far from what it was.

    Attributes
    ----------
    band : str
    value, median : float
        mag AB.
    n_nights : int
        That the median is of.
    """

    band: str
    value: float
    median: float
    n_nights: int

    @property
    def difference(self) -> float:
        """mag, positive where the night is deeper than usual."""
        return self.value - self.median

    def __str__(self) -> str:
        return (
            f"{self.band}: {self.value:.3f} mag, {self.difference:+.3f} from the median of "
            f"{self.n_nights} nights ({self.median:.3f})"
        )


def jumps(now: Mapping[str, float], before: Sequence[Mapping[str, float]], limit_mag: float) -> list[Jump]:
    """Bands whose zero point differs from its median over earlier nights by more than ``limit_mag``.

    Parameters
    ----------
    now : mapping
        Zero point by band, mag AB.
    before : sequence of mapping
        Those of earlier nights. A band that has fewer than three is not compared.
    limit_mag : float
    """
    found = []
    for band, value in now.items():
        earlier = [night[band] for night in before if band in night]
        if len(earlier) < MIN_NIGHTS:
            continue
        median = statistics.median(earlier)
        if abs(value - median) > limit_mag:
            found.append(Jump(band, value, median, len(earlier)))
    return found
