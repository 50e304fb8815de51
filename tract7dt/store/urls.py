"""Names in an object store: URLs without secrets, keys that cannot leave their folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

__all__ = [
    "Redactor",
    "has_secret",
    "is_url",
    "key_problem",
    "name_problem",
    "redacted",
    "secret_names",
]

#: Longest name of a folder or file, in bytes: what common file systems take.
MAX_NAME_BYTES = 255
#: Longest key, in bytes: what S3 takes.
MAX_KEY_BYTES = 1024

HIDDEN = "***"
# The user part ends before the first slash; only a badly written secret, not a port, goes beyond it.
_USER = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/?#@\"'<>]+|[^\s/?#@:\"'<>]+:(?!\d+/)[^\s?#@\"'<>]+)@"
)
_SIGNED = re.compile(
    r"(?i)(?P<name>[?&;](?:X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|Signature|AWSAccessKeyId|"
    r"sig|token|access_token|api_?key|password|secret)=)(?P<value>[^&;#\s\"'<>]+)"
)
_SECRET_KEY = re.compile(
    r"(?i)(?P<name>[\"']?\b[\w.-]*(?:password|passwd|secret|token|credential|api_?key|access_?key)[\w.-]*"
    r"[\"']?[ \t]*[:=][ \t]*)(?P<quote>[\"']?)(?P<value>[^\s\"',}&]+)(?P=quote)"
)
_SECRET_NAME = re.compile(
    r"(?i)password|passwd|passphrase|secret|token|credential|api_?key|access_?key|private_?key"
)
_SECRET_VARIABLE = re.compile(
    r"(?i)SECRET|PASSWORD|PASSWD|TOKEN|API_?KEY|AUTH_STRING|CREDENTIAL|PRIVATE_?KEY|ACCESS_?KEY"
)
#: A shorter value is no secret worth the name, and would blot out half of every text.
_MIN_SECRET = 8


def is_url(path: str) -> bool:
    """Whether ``path`` is a URL that fsspec opens, rather than a local path."""
    return "://" in path


def has_secret(url: str) -> bool:
    """Whether a URL carries a password, a token or a signature."""
    return redacted(url) != url


def secret_names(value: object) -> list[str]:
    """Names in nested mappings and lists that speak of a secret (``password``) and hold something."""
    if isinstance(value, Mapping):
        found = [str(k) for k, v in value.items() if v is not None and _SECRET_NAME.search(str(k))]
        return found + [name for inner in value.values() for name in secret_names(inner)]
    if isinstance(value, (list, tuple)):
        return [name for inner in value for name in secret_names(inner)]
    return []


def redacted(text: str) -> str:
    """``text`` with the user part and the signatures of all its URLs hidden."""
    text = _USER.sub(lambda m: f"{m['scheme']}{HIDDEN}@", text)
    return _SIGNED.sub(lambda m: f"{m['name']}{HIDDEN}", text)


class Redactor:
    """Hides secrets in texts that leave the machine.

    Parameters
    ----------
    secrets : mapping or None
        Values to hide, by name; default: the environment variables whose names speak of secrets.
    """

    def __init__(self, secrets: Mapping[str, str] | None = None) -> None:
        if secrets is None:
            secrets = {name: value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name)}
        found = {value for value in secrets.values() if len(value) >= _MIN_SECRET}
        self._values = sorted(found, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Hide known values, and what URLs carry."""
        for value in self._values:
            text = text.replace(value, HIDDEN)
        return redacted(text)

    def assignments(self, text: str) -> str:
        """As :meth:`text`, and what is assigned to a name such as ``password`` or ``secret_key``."""
        return _SECRET_KEY.sub(lambda m: f"{m['name']}{HIDDEN}", self.text(text))


def name_problem(name: str) -> str | None:
    """Why ``name`` cannot be the name of a folder or file in a store; None if it can."""
    if not name or name != name.strip():
        return "is empty, or starts or ends with a blank"
    if name in (".", ".."):
        return "names a folder above"
    if "/" in name or "\\" in name:
        return "holds a slash"
    if any(ord(c) < 32 or ord(c) == 127 for c in name):
        return "holds a control character"
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not text"
    if size > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    return None


def key_problem(key: str) -> str | None:
    """Why ``key`` cannot be the path of an object below a folder; None if it can.

    Relative, of names joined by single slashes, none of which leads upwards.
    """
    if len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
        return f"is longer than {MAX_KEY_BYTES} bytes"
    if re.match(r"[A-Za-z]:", key):
        return "starts with a drive"
    return next((problem for part in key.split("/") if (problem := name_problem(part))), None)
