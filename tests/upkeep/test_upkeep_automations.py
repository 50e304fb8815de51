"""What the automations of a site are, and how they are kept up, without a server."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import jinja2
import pytest
from prefect.events.actions import CallWebhook, DoNothing
from prefect.events.schemas.automations import Automation

from flows import automations as module
from flows.automations import Target, automations, set_up
from tract7dt.errors import ConfigError


class Server:
    """Of Prefect's server what keeps automations."""

    def __init__(self) -> None:
        self.held: list[Automation] = []
        self.changes = 0

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read_automations_by_name(self, name: str) -> list[Automation]:
        return [found for found in self.held if found.name == name]

    def create_automation(self, wanted: Any) -> None:
        # As it comes back: through JSON, with sets as lists in any order.
        self.held.append(Automation.model_validate({**wanted.model_dump(mode="json"), "id": str(uuid4())}))
        self.changes += 1

    def update_automation(self, automation_id: UUID, wanted: Any) -> None:
        self.held = [found for found in self.held if found.id != automation_id]
        self.create_automation(wanted)

    def read_block_document_by_name(self, name: str, kind: str, include_secrets: bool) -> Any:
        return SimpleNamespace(id=UUID(int=7))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(module, "get_client", lambda sync_client: made)
    monkeypatch.setattr(module, "_target", lambda client: None)
    for name in (module.NOTIFY_URL, module.NOTIFY_BLOCK):
        monkeypatch.delenv(name, raising=False)
    return made


def test_set_up_twice_is_set_up_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(set_up()) == 4
    assert set_up() == []
    assert (len(server.held), server.changes) == (4, 4)
    server.held[1] = server.held[1].model_copy(update={"enabled": False})
    server.held[2] = server.held[2].model_copy(update={"description": "of an observer"})
    monkeypatch.setattr(module, "_target", lambda client: Target(UUID(int=7), is_webhook=True))
    changed = set_up()
    assert len(changed) == 3
    held = {found.name: found for found in server.held}
    assert [name for name, found in held.items() if not found.enabled] == ["tract7dt: a zero point jumped"]
    theirs = held["tract7dt: a field did not run"]
    assert theirs.name not in changed
    assert isinstance(theirs.actions[0], DoNothing)


def test_a_message_is_json_whatever_a_run_says() -> None:
    made = {found.name: found for found in automations(Target(UUID(int=7), is_webhook=True))}
    action = made["tract7dt: a zero point jumped"].actions[0]
    assert isinstance(action, CallWebhook)
    said = 'UDS "x" \\ <b>\nm400 {{ 1 }}'
    event = SimpleNamespace(payload=SimpleNamespace(text=said))
    sent = json.loads(jinja2.Template(action.payload).render(event=event))
    assert sent == {"text": f"tract7dt: a zero point jumped\n{said}"}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (module.NOTIFY_URL, "chat.example/hook", "expected the address of a webhook"),
        (module.NOTIFY_URL, "ftp://chat.example/hook", "expected the address of a webhook"),
        (module.NOTIFY_BLOCK, "slack-webhook/nobody", "there is no block 'slack-webhook/nobody'"),
    ],
)
def test_a_target_that_is_none_is_said_without_its_secret(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "_block", lambda client, name, kind: None)
    with pytest.raises(ConfigError, match=said) as caught:
        module._target(Server())  # type: ignore[arg-type]
    assert "hook" not in str(caught.value).replace("webhook", "")
