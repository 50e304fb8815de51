"""A part of a field, named by patches or by boxes on the sky: what a run with ``only`` fits."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tract7dt.errors import ConfigError, InputError

if TYPE_CHECKING:
    from astropy.wcs import WCS

    from tract7dt.settings import Settings
    from tract7dt.types import Patch, Ref

__all__ = ["Selection", "SkyBox", "Work", "divide_work", "parse_selection", "selected_tags"]

_TAG = re.compile(r"r\d{2,}_c\d{2,}(_pr\d{2,}_pc\d{2,})?")
_FORM = (
    "a patch (r00_c01_pr00_pc02), all patches of an ePSF cell (r00_c01) or a sky box in degrees, "
    '"ra_min ra_max dec_min dec_max"'
)
#: Points a side of a patch at which it is compared with boxes on the sky.
_GRID = 33


@dataclass(frozen=True, slots=True)
class SkyBox:
    """A box in right ascension and declination, degrees; it spans RA 0 where ``ra_min > ra_max``."""

    ra_min: float
    ra_max: float
    dec_min: float
    dec_max: float

    @property
    def width(self) -> float:
        """Extent in RA, deg."""
        return (self.ra_max - self.ra_min) % 360.0 or 360.0


@dataclass(frozen=True, slots=True)
class Selection:
    """Patches and cells by name, and boxes on the sky."""

    tags: tuple[str, ...]
    boxes: tuple[SkyBox, ...]


class Work(NamedTuple):
    """What there is to do for the patches of a run.

    Attributes
    ----------
    to_fit : list of Ref
        Payloads.
    done : list of Ref
        Fits that are there and whole.
    left_out : list of str
        Patches that were not selected and have no such fit.
    """

    to_fit: list[Ref]
    done: list[Ref]
    left_out: list[str]


def divide_work(
    settings: Settings, payloads: Sequence[Ref], chosen: frozenset[str] | None, refresh: bool
) -> Work:
    """What of the payloads is to be fitted, what has been, and what this run leaves out.

    Parameters
    ----------
    settings : Settings
    payloads : sequence of Ref
    chosen : frozenset of str or None
        Patches that the run is about; None: all. The others keep the fits that they have.
    refresh : bool
        Fit those anew that have a fit.
    """
    from tract7dt import reuse
    from tract7dt.stages import payload_tag

    mine = [ref for ref in payloads if chosen is None or payload_tag(ref) in chosen]
    others = [ref for ref in payloads if chosen is not None and payload_tag(ref) not in chosen]
    to_fit, done = reuse.remaining_payloads(settings, mine, refresh=refresh)
    without, kept = reuse.remaining_payloads(settings, others) if others else ([], [])
    return Work(to_fit, done + kept, [payload_tag(ref) for ref in without])


def parse_selection(items: Iterable[str]) -> Selection | None:
    """Read a selection; None if nothing is given (which means all).

    Parameters
    ----------
    items : iterable of str
        Each a patch (``r00_c01_pr00_pc02``), an ePSF cell with all of its patches (``r00_c01``), or a sky
        box ``"ra_min ra_max dec_min dec_max"``, degrees, with blanks or commas between the numbers.

    Raises
    ------
    ConfigError
        One line for each item that is none of these.
    """
    tags: list[str] = []
    boxes: list[SkyBox] = []
    problems = []
    for item in items:
        if _TAG.fullmatch(item.strip()):
            tags.append(item.strip())
            continue
        try:
            boxes.append(_box(item))
        except ValueError as error:
            problems.append(f"only: {item!r}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return Selection(tuple(tags), tuple(boxes)) if tags or boxes else None


def _box(text: str) -> SkyBox:
    parts = text.replace(",", " ").split()
    try:
        ra_min, ra_max, dec_min, dec_max = (float(part) for part in parts)
    except ValueError:
        raise ValueError(f"expected {_FORM}") from None
    if not all(math.isfinite(v) and 0 <= v <= 360 for v in (ra_min, ra_max)):
        raise ValueError(f"right ascensions lie in 0 ... 360 deg, found {ra_min:g} and {ra_max:g}")
    if not all(math.isfinite(v) and -90 <= v <= 90 for v in (dec_min, dec_max)):
        raise ValueError(f"declinations lie in -90 ... 90 deg, found {dec_min:g} and {dec_max:g}")
    if dec_min >= dec_max or ra_min == ra_max:
        raise ValueError("the box is empty: dec_min must be below dec_max, and ra_min differ from ra_max")
    return SkyBox(ra_min, ra_max, dec_min, dec_max)


def selected_tags(selection: Selection, field: Ref, patches: Ref) -> frozenset[str]:
    """Tags of the patches of a field that a selection names.

    A patch is in a sky box when their areas touch, or nearly so (within a thirtieth of its side).

    Parameters
    ----------
    selection : Selection
    field, patches : Ref
        Manifest of the field and its patches.

    Raises
    ------
    InputError
        If a name is not one of the field's, or a box holds no part of it.
    """
    from tract7dt import frames
    from tract7dt.patches import read_patches

    known = read_patches(patches.path)
    chosen: set[str] = set()
    problems = []
    for tag in selection.tags:
        found = {p.tag for p in known if tag in (p.tag, p.epsf_tag)}
        chosen |= found
        if not found:
            problems.append(f"only: the field has no patch or cell {tag}")
    if selection.boxes:
        wcs = frames.open_field(field.path).wcs
        for box in selection.boxes:
            found = {p.tag for p in known if _touches(p, box, wcs)}
            chosen |= found
            if not found:
                problems.append(f"only: no patch of the field lies in {box}")
    if problems:
        tags = [p.tag for p in known]
        raise InputError(
            "\n".join(problems) + f"\nits {len(tags)} patches are {_some(tags)} (patches/patches.json)"
        )
    return frozenset(chosen)


def _some(tags: Sequence[str]) -> str:
    return ", ".join(tags) if len(tags) <= 4 else f"{', '.join(tags[:2])} ... {tags[-1]}"


def _touches(patch: Patch, box: SkyBox, wcs: WCS) -> bool:
    """Whether a point of a grid over the patch lies in the box, or nearer to it than the grid's own step."""
    import numpy as np

    steps = np.linspace(0.0, 1.0, _GRID)
    u, v = np.meshgrid(steps, steps)
    base = patch.base
    ra, dec = wcs.all_pix2world(base.x0 - 0.5 + u * base.nx, base.y0 - 0.5 + v * base.ny, 0)
    turn = (ra - ra[0, 0] + 180.0) % 360.0 - 180.0
    pad_ra, pad_dec = (max(np.abs(np.diff(a, axis=i)).max() for i in (0, 1)) for a in (turn, dec))
    in_ra = (ra - (box.ra_min - pad_ra)) % 360.0 <= box.width + 2 * pad_ra
    return bool((in_ra & (dec >= box.dec_min - pad_dec) & (dec <= box.dec_max + pad_dec)).any())
