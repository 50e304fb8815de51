"""Prefect automations of a site: what is told to whom when a run fails, a zero point jumps, a field does not run.

Whom: ``TRACT7DT_NOTIFY_URL``, a webhook that takes ``{"text": ...}`` (Slack, Mattermost, Google Chat and others),
or ``TRACT7DT_NOTIFY_BLOCK``, a notification block that somebody has made in the UI. Neither stands in a file of
the site: the address of a webhook lets whoever has it write there, and Prefect keeps it encrypted. It is called by
Prefect's webhook action, as a notification block would write it into the server's log when the other side answers
with an error. With none, the automations still fire, and the UI shows that (Event Feed).
"""

from __future__ import annotations

import datetime
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.actions import CallWebhook, DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.types import SecretDict
from pydantic import SecretStr

from flows.fields import SITE_TAG, TAG
from flows.notices import DID_NOT_RUN, JUMPED, WATCHED
from tract7dt.errors import ConfigError

if TYPE_CHECKING:
    from prefect.events.schemas.automations import Automation

__all__ = ["BLOCK", "NOTIFY_BLOCK", "NOTIFY_URL", "Target", "automations", "set_up"]

log = logging.getLogger(__name__)

NOTIFY_URL = "TRACT7DT_NOTIFY_URL"
NOTIFY_BLOCK = "TRACT7DT_NOTIFY_BLOCK"
#: Name of the block that holds what TRACT7DT_NOTIFY_URL said.
BLOCK = "tract7dt-notify"
_TYPE = "webhook"
#: Ours begin so, and say so: nothing else is ever changed.
_PREFIX = "tract7dt: "
_OURS = "Kept up by `tract7dt deploy`; switched off, it stays so."
#: The site looks at its fields every hour.
_SILENCE = datetime.timedelta(hours=3)

_RUN = """\
{{ flow_run.name }}: {{ flow_run.state.name }}
{{ flow_run.state.message }}
{{ flow_run | ui_url or '' }}"""
_FIELD = "{{ event.payload.text }}"
_SILENT = "Nobody has looked at the fields for three hours: is the worker running?"


@dataclass(frozen=True, slots=True)
class Target:
    """Block that messages go through, and of which of the two kinds it is."""

    block: UUID
    is_webhook: bool


def set_up() -> list[str]:
    """Bring the automations of the server that PREFECT_API_URL names up to date; names of those that changed.

    Others, and whether one of ours is switched on, stay as they are. The webhook that was given once stays until
    another is given, or ``none``.

    Raises
    ------
    ConfigError
        The target is none.
    """
    with get_client(sync_client=True) as client:
        there = {found.name: found for found in _all(client)}
        changed = []
        for wanted in automations(_target(client)):
            found = there.get(wanted.name)
            if found is None:
                client.create_automation(wanted)
            elif found.description != wanted.description:
                log.warning("automation %r is somebody else's; it stays as it is", wanted.name)
                continue
            elif _core(found) == _core(wanted):
                continue
            else:
                client.update_automation(found.id, wanted.model_copy(update={"enabled": found.enabled}))
            changed.append(wanted.name)
    return changed


def automations(target: Target | None, silence: datetime.timedelta = _SILENCE) -> list[AutomationCore]:
    """The automations of a site.

    Parameters
    ----------
    target : Target or None
        None: they fire, and nobody is told.
    silence : timedelta
        How long nobody looks at the fields until that is told.
    """
    tags = [f"prefect.tag.{tag}" for tag in (TAG, SITE_TAG)]
    failed = EventTrigger(
        expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed", "prefect.flow-run.TimedOut"},
        match={"prefect.resource.id": "prefect.flow-run.*"},
        match_related={"prefect.resource.role": "tag", "prefect.resource.id": tags},
        **_AT_ONCE,
    )
    jumped, absent = (
        EventTrigger(expect={event}, match={"prefect.resource.id": "tract7dt.field.*"}, **_AT_ONCE)
        for event in (JUMPED, DID_NOT_RUN)
    )
    silent = EventTrigger(expect={WATCHED}, posture=Posture.Proactive, threshold=1, within=silence)
    return [
        _automation("a run failed", failed, target, "A run failed", _RUN),
        _automation("a zero point jumped", jumped, target, "A zero point jumped", _FIELD),
        _automation("a field did not run", absent, target, "A field did not run", _FIELD),
        _automation("nobody watches", silent, target, "Nobody watches", _SILENT),
    ]


_AT_ONCE: dict[str, Any] = {
    "posture": Posture.Reactive,
    "threshold": 1,
    "within": datetime.timedelta(0),
    "for_each": {"prefect.resource.id"},
}


def _automation(
    name: str, trigger: EventTrigger, target: Target | None, subject: str, body: str
) -> AutomationCore:
    said = f"tract7dt: {subject.lower()}"
    action: DoNothing | CallWebhook | SendNotification
    if target is None:
        action = DoNothing()
    elif target.is_webhook:
        text = "{% set text %}" + f"{said}\n{body}" + "{% endset %}"
        action = CallWebhook(block_document_id=target.block, payload=text + '{"text": {{ text | tojson }}}')
    else:
        action = SendNotification(block_document_id=target.block, subject=said, body=body)
    return AutomationCore(
        name=_PREFIX + name, description=_OURS, enabled=True, trigger=trigger, actions=[action]
    )


def _core(automation: AutomationCore) -> dict[str, Any]:
    """What makes an automation, but for whether it is on."""
    held = automation.model_dump(mode="json")
    trigger = {name: sorted(v) if isinstance(v, list) else v for name, v in held["trigger"].items()}
    trigger.pop("id", None)
    return {"trigger": trigger, "actions": held["actions"], "description": held["description"]}


def _all(client: SyncPrefectClient) -> list[Automation]:
    """Automations of the server whose names are ours."""
    names = [found.name for found in automations(None)]
    return [found for name in names for found in client.read_automations_by_name(name)]


# --- whom to tell -----------------------------------------------------------------------------------------
def _target(client: SyncPrefectClient) -> Target | None:
    """What messages go through; None if there is nothing."""
    url, block = os.environ.get(NOTIFY_URL, "").strip(), os.environ.get(NOTIFY_BLOCK, "").strip()
    if block:
        kind, _, name = block.partition("/")
        found = _block(client, name, kind)
        if found is None:
            raise ConfigError(
                f"{NOTIFY_BLOCK}: there is no block {block!r}; expected TYPE/NAME, as slack-webhook/night"
            )
        return Target(found, is_webhook=kind == _TYPE)
    if url == "none":
        if old := _block(client, BLOCK, _TYPE):
            client.delete_block_document(old)
        return None
    if url:
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ConfigError(f"{NOTIFY_URL}: expected the address of a webhook, https://..., or none")
        headers = {"Content-Type": "application/json"}
        Webhook(url=SecretStr(url), headers=SecretDict(headers)).save(BLOCK, overwrite=True)
    held = _block(client, BLOCK, _TYPE)
    return None if held is None else Target(held, is_webhook=True)


def _block(client: SyncPrefectClient, name: str, kind: str) -> UUID | None:
    try:
        return client.read_block_document_by_name(name, kind, include_secrets=False).id
    except ObjectNotFound:
        return None
