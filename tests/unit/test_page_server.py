"""The pages' server: what a page links is there, and nothing beside pages and reports is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from flows.page_server import PageHandler


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    for name, text in (
        ("page/line-a/index.html", "the page"),
        ("page/line-b/index.html", "another"),
        ("reports/line-a/1-2026-W02.html", "the report"),
        ("tables/line-a/secret", "secret"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    handler = partial(PageHandler, directory=str(tmp_path / "page"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def got(url: str) -> str:
    with urlopen(url) as answer:
        return answer.read().decode()


def test_a_link_of_the_page_leads_to_the_report_as_on_the_disk(address: str) -> None:
    # A browser makes `/reports/...` of `../../reports/...` on the page `/line-a/`.
    assert got(f"{address}/reports/line-a/1-2026-W02.html") == "the report"
    assert got(f"{address}/line-a/") == "the page"
    assert "line-b" in got(f"{address}/")


@pytest.mark.parametrize(
    "path", ["/reports/", "/reports/line-a/", "/tables/line-a/secret", "/reports/../tables/line-a/secret",
             "/reports/%2e%2e/tables/line-a/secret", "/reports/line-a/none.html"],
)  # fmt: skip
def test_nothing_else_of_the_workspace_is_served(address: str, path: str) -> None:
    with pytest.raises(HTTPError) as refused:
        got(address + path)
    refused.value.close()
    assert refused.value.code == 404
