"""Configurations that hold a secret: the copy that a run keeps does not."""

from __future__ import annotations

import yaml
from hypothesis import given
from hypothesis import strategies as st

from tract7dt.store.urls import Redactor
from tract7dt.store.yaml_secrets import without_secrets

TEXT = """\
# the password is not here: a comment
runtime:
  cluster: {security: {password: "s3cret one, two", port: 8786}, api_key: s3cret three # why
    }
a: &shared
  client_secret: |
    s3cret four
    s3cret five
  tokens: [s3cret6, 's3cret seven', {deep: s3cret8}]
b: *shared
? private_key
: s3cret nine
last: "é"
"""


def test_secrets_go_and_the_rest_stays() -> None:
    hidden = without_secrets(TEXT)
    assert "s3cret" not in hidden
    values = yaml.safe_load(hidden)
    assert values["runtime"]["cluster"] == {"security": {"password": "***", "port": 8786}, "api_key": "***"}
    assert values["a"] == {"client_secret": "***", "tokens": ["***", "***", {"deep": "***"}]}
    assert values["b"] == values["a"]
    assert values["private_key"] == "***"
    assert hidden.startswith("# the password is not here: a comment\nruntime:\n")
    assert hidden.endswith('last: "é"\n')
    assert without_secrets("") == ""
    assert without_secrets("zp: {clip_sigma: 3} # nothing\n") == "zp: {clip_sigma: 3} # nothing\n"


_WORD = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=3, max_size=12)
_VALUE = st.recursive(
    st.one_of(_WORD.map(lambda text: f"s3cret{text}"), st.integers(0, 9), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_WORD, inner, max_size=3)),
    max_leaves=6,
)


@given(
    value=_VALUE,
    name=st.sampled_from(["password", "AWS_SECRET_ACCESS_KEY", "api-key-token", "credentials"]),
    style=st.sampled_from([None, "'", '"', "|", ">"]),
    flow=st.booleans(),
    width=st.sampled_from([10, 80]),
)
def test_no_secret_of_any_form_stays(
    value: object, name: str, style: str | None, flow: bool, width: int
) -> None:
    given_values = {"first": 1, "section": {name: value, "other": "kept"}, "last": [2]}
    text = yaml.safe_dump(
        given_values, default_style=style, default_flow_style=flow, width=width, allow_unicode=True
    )
    hidden = without_secrets(text)
    assert "s3cret" not in hidden
    read = yaml.safe_load(hidden)
    assert read["section"]["other"] == "kept"
    assert (read["first"], read["last"]) == (1, [2])
    assert "s3cret" not in str(Redactor({}).values(given_values))
    assert Redactor({}).values(given_values)["last"] == [2]
