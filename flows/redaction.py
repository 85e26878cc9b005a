"""Secrets out of whatever is written down: passwords in addresses, tokens in channels, values of secret variables."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

SHOWN = "…"
_SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|AUTH_STRING|CREDENTIAL|ACCESS_KEY)", re.IGNORECASE)
_IN_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^\s/@'\"]+@")
_NAMED = re.compile(
    r"(?P<name>(?:password|passwd|pwd|secret|token|api[_-]?key|authorization)[\"']?\s*[=:]\s*[\"']?(?:Basic |Bearer )?)"
    r"[^\s,;&\"'}]+",
    re.IGNORECASE,
)
_SHORTEST = 6


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` without passwords in addresses, values that a name calls secret, secret variables, and `secrets`.

    >>> redacted("postgresql://me:hunter2@db/mlflow refused, password=hunter2")
    'postgresql://…@db/mlflow refused, password=…'
    """
    for secret in sorted({*secrets, *environment_secrets()}, key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, SHOWN)
    text = _IN_ADDRESS.sub(rf"\g<scheme>{SHOWN}@", text)
    return _NAMED.sub(rf"\g<name>{SHOWN}", text)


def environment_secrets() -> list[str]:
    """Values of the variables whose name says that they are secret.

    >>> all(isinstance(value, str) for value in environment_secrets())
    True
    """
    return [value for name, value in os.environ.items() if _SECRET_NAME.search(name) and len(value) >= _SHORTEST]
