"""A field over its nights: what was measured, zero points that jump, files that have served their time."""

from tract7dt.upkeep.history import NightRecord, history
from tract7dt.upkeep.published import tidy_published
from tract7dt.upkeep.retention import Removal
from tract7dt.upkeep.work_dirs import nights_here, tidy_work_dirs
from tract7dt.upkeep.zero_points import Jump, jumps

__all__ = [
    "Jump",
    "NightRecord",
    "Removal",
    "history",
    "jumps",
    "nights_here",
    "tidy_published",
    "tidy_work_dirs",
]
