"""Serve the workspace's pages on loopback, and the reports that they link: files as they are, nothing else.

Run as ``python -m flows.page_server FOLDER PORT`` by `softad up`.
"""

from __future__ import annotations

import html
import io
import sys
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class PageHandler(SimpleHTTPRequestHandler):
    """Files below one folder; at the root the list of models, or the only model's page."""

    def do_GET(self) -> None:
        """One model: its page. Several: the list of them. `/health` says that the server lives."""
        if self.path == "/health":
            self.send_response(HTTPStatus.NO_CONTENT)
            self.end_headers()
            return
        if self.path == "/" and len(models := _models(Path(self.directory))) == 1:
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", f"/{models[0]}/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        super().do_GET()

    def translate_path(self, path: str) -> str:
        """Below `/reports/` the reports, which lie beside the pages' folder: the pages link them as on the disk."""
        pages = Path(self.directory)
        found = super().translate_path(path)
        inside = Path(found).relative_to(pages)
        if inside.parts[:1] == ("reports",) and not (pages / "reports" / "index.html").exists():
            return str(pages.parent / inside)
        return found

    def list_directory(self, path: Any) -> io.BytesIO | None:
        """The models at the root; no other folder is listed."""
        if Path(path).resolve() != Path(self.directory).resolve():
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        content = _list_of_models(Path(self.directory)).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return io.BytesIO(content)

    def end_headers(self) -> None:
        """A page is written anew with every cycle: a browser must ask before it shows an old one."""
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Only errors are logged: a page left open asks again and again."""


def _models(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("*/index.html"))


def _list_of_models(folder: Path) -> str:
    """The list of pages as HTML.

    >>> "no page yet" in _list_of_models(Path("/nonexistent"))
    True
    """
    rows = "".join(f'<li><a href="/{html.escape(name)}/">{html.escape(name)}</a></li>' for name in _models(folder))
    body = f"<ul>{rows}</ul>" if rows else "<p>There is no page yet: the first cycle writes it.</p>"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>softad</title></head>'
        f"<body><h1>Models</h1>{body}</body></html>"
    )


def serve(folder: Path, port: int, host: str = "127.0.0.1", handler: Callable[..., PageHandler] = PageHandler) -> None:
    """Serve `folder` until the process is ended."""
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadingHTTPServer((host, port), partial(handler, directory=str(folder))) as server:
        server.serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]))
