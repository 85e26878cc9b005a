"""The page behind a login: the same names and passwords as in MLflow, asked for on every path but the health check.

The passwords lie in the secrets' folder and are read at every request, so that a new one counts at once.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from http import HTTPStatus
from typing import Any

from flows.credentials import PEOPLE, Secrets
from flows.page_server import PageHandler

WRONG_WAITS = 0.5
"""Seconds before a wrong login is answered: whoever tries many has to wait."""


def may_read(header: str | None, kept: Secrets) -> bool:
    """Whether an Authorization header names one of the people with their password.

    >>> from pathlib import Path
    >>> kept = Secrets(Path("/nonexistent"), {"SOFTAD_VIEWER_PASSWORD": "secret"})
    >>> may_read("Basic dmlld2VyOnNlY3JldA==", kept), may_read("Basic dmlld2VyOg==", kept)
    (True, False)
    """
    kind, _, encoded = (header or "").partition(" ")
    if kind.lower() != "basic":
        return False
    try:
        name, _, given = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return False
    known = kept.get(f"{name}_password") if name in PEOPLE else None
    return hmac.compare_digest((known or "").encode(), given.encode()) and bool(known)


class LoginHandler(PageHandler):
    """The pages, for those who have a login."""

    kept: Secrets

    def __init__(self, *args: Any, kept: Secrets, **options: Any) -> None:
        self.kept = kept
        super().__init__(*args, **options)

    def do_GET(self) -> None:
        """A page, or the question who asks."""
        if self._may_go_on():
            super().do_GET()

    def do_HEAD(self) -> None:
        """As GET, without the content."""
        if self._may_go_on():
            super().do_HEAD()

    def _may_go_on(self) -> bool:
        header = self.headers.get("Authorization")
        if self.path == "/health" or may_read(header, self.kept):
            return True
        if header is not None:
            time.sleep(WRONG_WAITS)
        content = b"a login is needed\n"
        self.send_response(HTTPStatus.UNAUTHORIZED)
        self.send_header("WWW-Authenticate", 'Basic realm="softad", charset="UTF-8"')
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        return False
