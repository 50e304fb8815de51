"""Events that tell of a field what somebody should know; automations turn them into messages."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prefect.events import emit_event

from flows.parameters import slug
from tract7dt.errors import Tract7dtError
from tract7dt.store import WorkDir

if TYPE_CHECKING:
    from tract7dt.settings import Settings
    from tract7dt.upkeep import Jump

__all__ = ["DID_NOT_RUN", "JUMPED", "WATCHED", "look_for_jumps", "tell", "tell_that_it_watches"]

log = logging.getLogger(__name__)

JUMPED = "tract7dt.zero-point.jumped"
DID_NOT_RUN = "tract7dt.field.did-not-run"
WATCHED = "tract7dt.site.watched"


def tell(event: str, field: str, text: str, **payload: Any) -> None:
    """Send an event of a field; ``payload.text`` is what a message says."""
    resource = {"prefect.resource.id": f"tract7dt.field.{slug(field)}", "prefect.resource.name": field}
    emit_event(event, resource, payload={"field": field, "text": text, **payload})


def tell_that_it_watches(fields: Sequence[str]) -> None:
    """Send the event whose absence says that nobody watches."""
    emit_event(WATCHED, {"prefect.resource.id": "tract7dt.site"}, payload={"fields": list(fields)})


def look_for_jumps(template: Settings, settings: Settings, night: str | None, run_id: str) -> list[Jump]:
    """Compare the zero points of a run that has measured them with those of the last nights; tell of jumps.

    What comes in between costs a warning, never the run.

    Parameters
    ----------
    template : Settings
        With ``{night}`` as yet in its paths.
    settings : Settings
        Of the run.
    night : str or None
        None: nothing is compared.
    run_id : str
    """
    limit = settings.watch.zp_jump_mag
    if limit is None or night is None or not settings.zp.enabled:
        return []
    from tract7dt.upkeep import history, jumps
    from tract7dt.upkeep.history import zero_points_of

    try:
        now = zero_points_of(WorkDir.of(settings).zp_summary.read_text(encoding="utf-8"))
        before = history(template, settings.watch.nights, before=night) if now else []
        found = jumps(now, [record.zero_points for record in before], limit)
    except (Tract7dtError, OSError) as error:
        log.warning("zero points are not compared with those of earlier nights: %s", error)
        return []
    if found:
        text = "; ".join(map(str, found))
        log.warning("zero points have jumped: %s", text)
        bands = {jump.band: round(jump.difference, 4) for jump in found}
        name = settings.inputs.tile_name
        tell(
            JUMPED, name, f"{name} {night}: {text}", night=night, run_id=run_id, bands=bands, limit_mag=limit
        )
    return found
