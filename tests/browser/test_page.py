"""The page in a real browser: both languages, a narrow screen, no network, nothing that a screen reader trips over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from monitoring.dashboard import write_page
from monitoring.hard_errors import HardErrors
from monitoring.page_data import (
    LORENZ_AT,
    Bought,
    Budget,
    Carried,
    LedgerLine,
    Named,
    OpenIncident,
    PageData,
    Reason,
    Received,
    WindowPoint,
)
from monitoring.places_map import Cell, PlacesMap

CHROMIUM = Path("/usr/bin/chromium")
AT = datetime(2026, 4, 6, 6, tzinfo=UTC)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed")]


def sample() -> PageData:
    points = [
        WindowPoint(
            f"2026-W{week:02d}", 1990, "healthy" if week < 12 else "inspect", week == 12, 0.09 + 0.02 * (week % 3),
            0.8 + 0.1 * (week % 4), 0.35, 0.1, 0.95, 0.4, 0.3 * (week % 5) + (8 if week == 12 else 0), 3.2, 0.01,
            hard=HardErrors(199, 60, 64, 3, 7, 0.01),
        )
        for week in range(2, 13)
    ]  # fmt: skip
    return PageData(
        "line-a", AT, "3", AT, points=points,
        named=[Named("machine", "<b>M07</b>", 0.72, 0.61, 0.8, 0.08), Named("line", "L2", 0.75, 0.6, 0.85, 0.33)],
        incidents=[
            OpenIncident("line-a-2026-W12", "inspect", "<b>M07</b>", "machine", 0.72, AT, "opened", None, "4", True),
        ],
        ledger=[
            LedgerLine(AT, "softad", "champion.set", "3"),
            LedgerLine(AT, "ito", "something.new", "x", {"en": "a note", "ja": "備考"}),
        ],
        received=Received(
            12, 4000, 3980, 15, 5, 20, ["broken.csv"], [Reason("range", "pressure", 9), Reason("number", "torque", 6)]
        ),
        links={"mlflow": "http://127.0.0.1:5000", "prefect": "http://127.0.0.1:4200"}, months=["2026-04", "2026-03"],
        bought=[Bought("mean", -0.01, -0.03, 0.02), Bought("tail", -0.12, -0.2, -0.04)], bought_window="2026-W12",
        bought_rows=1990, map=PlacesMap(["machine", "line"], [Cell("<b>M07</b>", "L1", 200, 144, 90, 8)]),
        map_window="2026-W12", carried=Carried("2026-W12", LORENZ_AT, LORENZ_AT), budget=Budget(0.05, 52, 11, 0.01),
    )  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=str(CHROMIUM),
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking",
                  "--disable-component-update", "--disable-sync"],
        )  # fmt: skip
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    path = write_page(sample(), tmp_path / "page" / "line-a")
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    opened.requested = []
    opened.on("request", lambda request: opened.requested.append(request.url))
    opened.failures = []
    opened.on("pageerror", lambda error: opened.failures.append(str(error)))
    opened.goto(path.as_uri())
    yield opened
    assert opened.failures == []
    assert all(url.startswith("file:") for url in opened.requested)
    opened.close()


def test_the_switch_changes_the_language(page: Any) -> None:
    heading = page.locator("#card-tail")
    assert heading.inner_text() == "Hard cases"
    page.get_by_role("button", name="日本語").press("Enter")
    assert heading.inner_text() == "難しい品"
    assert page.locator("html").get_attribute("lang") == "ja"


def test_the_address_can_ask_for_a_language(page: Any) -> None:
    page.goto(page.url + "?lang=ja")
    assert page.locator("#card-mean").inner_text() == "通常の品"


def test_a_value_with_markup_is_text(page: Any) -> None:
    assert page.locator("section b").count() == 0
    assert "<b>M07</b>" in page.locator(".incident").inner_text()


def test_the_first_screen_tells_what_to_do(page: Any) -> None:
    assert "check one place" in page.locator(".status").inner_text()
    assert "softad alerts ack line-a-2026-W12 --repaired" in page.locator(".incident").inner_text()


def test_a_phone_needs_no_sideways_scrolling(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_zoom_chart_comes_from_the_bundle_beside_the_page(page: Any) -> None:
    page.locator("details.zoom summary").click()
    page.wait_for_selector("#zoom .main-svg", timeout=20_000)
    assert any(url.endswith("/shared/plotly.min.js") for url in page.requested)


def test_five_years_of_weeks_load_within_two_seconds(
    browser: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = list(sample().points)
    points = [replace(known[week % 11], window=f"{2021 + week // 52}-W{week % 52 + 1:02d}") for week in range(260)]
    path = write_page(replace(sample(), points=points), tmp_path / "page" / "line-a")
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    opened.goto(path.as_uri(), wait_until="load")
    first, loaded = opened.evaluate(
        """() => [performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? performance.now(),
                  performance.getEntriesByType("navigation")[0].loadEventEnd]"""
    )
    opened.close()
    size = path.stat().st_size
    with capsys.disabled():
        print(f"260 weeks: {size / 1000:.0f} kB, first paint {first:.0f} ms, loaded {loaded:.0f} ms")
    assert first < 1000 and loaded < 2000 and size <= 1_000_000


def test_it_prints(page: Any) -> None:
    assert len(page.pdf(format="A4")) > 10_000


@pytest.mark.parametrize("language", ["en", "ja"])
def test_nothing_serious_for_assistive_technology(page: Any, language: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.goto(page.url + f"?lang={language}")
    found = Axe().run(page).response["violations"]
    assert [
        (one["id"], one["nodes"][0]["html"][:120]) for one in found if one["impact"] in {"serious", "critical"}
    ] == []


def test_an_empty_page_says_so(browser: Any, tmp_path: Path) -> None:
    path = write_page(PageData("line-a", AT), tmp_path / "page" / "line-a")
    opened = browser.new_page()
    opened.goto(path.as_uri())
    assert "no model yet" in opened.locator(".status").inner_text()
    assert "Nothing waits." in opened.inner_text("body")
    opened.close()


def test_the_text_of_the_alarm_chart_is_legible_on_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    heights = page.evaluate(
        "[...document.querySelectorAll('section[aria-labelledby=concentration] .tick')]"
        ".map(e => e.getBoundingClientRect().height).filter(h => h > 0)"
    )
    assert min(heights) >= 10


def test_the_zoom_chart_follows_the_switch(page: Any) -> None:
    page.locator("details.zoom summary").click()
    page.wait_for_selector("#zoom .main-svg", timeout=20_000)
    page.get_by_role("button", name="日本語").click()
    page.wait_for_function("document.querySelector('#zoom .legend').textContent.includes('難しい品')", timeout=20_000)
