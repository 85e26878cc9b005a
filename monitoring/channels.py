"""Sending one message through one Apprise address, in a thread of its own: a channel that hangs is left behind."""

from __future__ import annotations

import atexit
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

PATIENCE = 30.0
"""Seconds that a sending may wait for its answer, also when the round of deliveries has left it behind; and that a
process which ends waits for such answers."""

_SEVERITIES = {"info", "success", "warning", "failure"}

_running: dict[threading.Thread, float] = {}
"""Sendings that were begun in this process and are not over, with their patience."""


def names(channels: Sequence[str]) -> list[str]:
    """Names for addresses that give no secret away: the scheme and a digest's start.

    >>> names(["mailto://user:secret@host"])[0][:13]
    'mailto-299cf9'
    """
    return [f"{url.split(':', 1)[0]}-{hashlib.sha256(url.encode()).hexdigest()[:6]}" for url in channels]


def understood(url: str) -> bool:
    """Whether Apprise makes something of an address; nothing is sent.

    >>> understood("json://127.0.0.1:8080/hook"), understood("nonsense://me:secret@host")
    (True, False)
    """
    return _target(url) is not None


def _target(url: str) -> Any:
    import apprise

    # Apprise logs an address that it does not know as it stands, with what is secret in it.
    log = logging.getLogger("apprise")
    before, log.disabled = log.disabled, True
    try:
        return apprise.Apprise.instantiate(url, suppress_exceptions=True)
    finally:
        log.disabled = before


def begin_sending(
    url: str,
    document: Mapping[str, Any],
    *,
    timeout: float,
    after: Callable[[bool], None],
    patience: float = PATIENCE,
) -> threading.Thread:
    """Begin to send; `after` is told from the thread whether the channel took it, however late that is.

    Parameters
    ----------
    document: `id`, `key`, `state`, `severity`, `subject` and `body` of the message.
    timeout: seconds for which the caller means to wait.
    patience: seconds that the sending may last, where that is longer, and that the end of the process waits for it.
    """

    def send() -> None:
        sent = False
        try:
            sent = _notify(url, document, max(timeout, patience))
        finally:
            after(sent)
            _running.pop(threading.current_thread(), None)

    thread = threading.Thread(target=send, daemon=True, name="softad-alert")
    _running[thread] = patience
    thread.start()
    return thread


def _notify(url: str, document: Mapping[str, Any], longest: float) -> bool:
    import apprise

    target = _target(url)
    if target is None:
        return False
    # Apprise gives a receiver 4 s by itself; an answer that comes later would count as a failure, and double.
    target.socket_read_timeout = longest
    # Webhooks get the key apart from the text, so that a receiver can tell what it has had before.
    extras = getattr(target, "payload_extras", None)
    if isinstance(extras, dict):
        for name in ("id", "key", "state"):
            extras.setdefault(name, document[name])
    severity = document["severity"]
    return bool(
        target.notify(
            title=document["subject"],
            body=f"{document['body']}\n\n[{document['id']}]",
            notify_type=apprise.NotifyType(severity if severity in _SEVERITIES else "info"),
        )
    )


@atexit.register
def _wait_for_answers() -> None:
    """A process that ends lets its last sendings come to their answer: cut off, they would be sent again."""
    began = time.monotonic()
    for thread, patience in list(_running.items()):
        thread.join(max(began + patience - time.monotonic(), 0.0))
