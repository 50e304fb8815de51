"""Which night a moment belongs to, with the clock of the observatory changing twice a year."""

from __future__ import annotations

import datetime

import pytest

from tract7dt.nights import evening_before, nights_before

UTC = datetime.UTC


@pytest.mark.parametrize(
    ("moment", "night"),
    [
        ("2026-11-21T11:30:00+00:00", "2026-11-20"),  # 08:30, the morning after
        ("2026-11-21T20:59:59+00:00", "2026-11-20"),  # 17:59:59: the next evening has not begun
        ("2026-11-21T21:00:00+00:00", "2026-11-21"),  # 18:00
        ("2026-11-22T02:59:00+00:00", "2026-11-21"),  # 23:59
        ("2026-11-22T03:00:00+00:00", "2026-11-21"),  # midnight
        ("2026-07-10T21:30:00+00:00", "2026-07-09"),  # winter time, UTC-4: 17:30
        ("2026-07-10T22:00:00+00:00", "2026-07-10"),
        ("2026-04-05T02:30:00+00:00", "2026-04-04"),  # 23:30, half an hour before the clocks go back
        ("2026-04-05T03:30:00+00:00", "2026-04-04"),  # 23:30 for the second time
        ("2026-09-06T04:30:00+00:00", "2026-09-05"),  # 01:30, the hour after the clocks went forward
        ("2026-03-01T09:00:00+09:00", "2026-02-28"),  # in Seoul it is morning, at the telescope 21:00
        ("2026-01-01T12:00:00+00:00", "2025-12-31"),
    ],
)
def test_night_is_the_date_of_the_last_evening(moment: str, night: str) -> None:
    assert evening_before(datetime.datetime.fromisoformat(moment), "America/Santiago") == night


def test_moment_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        evening_before(datetime.datetime(2026, 11, 21), "America/Santiago")


def test_nights_before_cross_months() -> None:
    assert nights_before("2026-03-01", 2) == ["2026-02-27", "2026-02-28"]
    assert nights_before("2026-03-01", 0) == []
