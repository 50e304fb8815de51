"""Nights: which one a moment belongs to."""

from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

__all__ = ["evening_before", "nights_before"]

#: Local hour at which the evening of a date begins.
EVENING_H = 18


def evening_before(moment: datetime.datetime, timezone: str) -> str:
    """Local date, YYYY-MM-DD, of the last evening that has begun at ``moment``.

    By wall time: the clock of the observatory says whether it is evening, in winter and in summer.

    Parameters
    ----------
    moment : datetime
        With a time zone.
    timezone : str
        Of the observatory, as ``America/Santiago``.

    Raises
    ------
    ValueError
        The moment has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"expected a moment with a time zone, found {moment}")
    local = moment.astimezone(ZoneInfo(timezone)).replace(tzinfo=None)
    return (local - datetime.timedelta(hours=EVENING_H)).date().isoformat()


def nights_before(night: str, number: int) -> list[str]:
    """The ``number`` nights before ``night``, the earliest first."""
    last = datetime.date.fromisoformat(night)
    return [(last - datetime.timedelta(days=n)).isoformat() for n in range(number, 0, -1)]
