"""A pilot report opened from disk in a real browser without a network: both languages, narrow, on A4, accessible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows.pilot_study import run_pilot

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed")]

NASTY = "</td><b id=evil>x</b><img src=x onerror=evil()>"


@pytest.fixture(scope="module", params=["en", "ja"])
def page_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    torque, machine = rng.normal(40, 3, 300), rng.choice(["M1", "M2", NASTY], 300)
    frame = pd.DataFrame({"torque": torque, "machine": machine})
    frame["result"] = np.where(torque + 3 * (machine == "M2") + rng.normal(0, 1.5, 300) > 43, "NG", "OK")
    folder = tmp_path_factory.mktemp("pilot")
    frame.to_csv(folder / "parts.csv", index=False)
    run_pilot(
        folder / "parts.csv", label="result", seconds=5.0, page=folder / "pilot.html", language=request.param,
        cost_miss=20.0, cost_false_reject=1.0,
    )  # fmt: skip
    return folder / "pilot.html"


def test_the_report_opens_without_a_network_and_is_accessible(page_file: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    failures: list[str] = []
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM),
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking",
                  "--disable-component-update", "--disable-sync"],
        )  # fmt: skip
        page: Any = browser.new_context(offline=True, viewport={"width": 1000, "height": 1300}).new_page()
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_file.as_uri())
        charts, evil = page.locator("svg").count(), page.locator("#evil, img[src=x]").count()
        text = page.inner_text("main")
        serious = [
            found["id"]
            for found in Axe().run(page).response["violations"]
            if found["impact"] in ("serious", "critical")
        ]
        page.set_viewport_size({"width": 380, "height": 800})
        wide = page.evaluate("document.documentElement.scrollWidth")
        page.set_viewport_size({"width": 1000, "height": 1300})
        pdf = page.pdf(format="A4", print_background=True)
        browser.close()
    assert failures == [] and evil == 0 and all(url.startswith("file:") for url in asked)
    assert charts >= 9 and NASTY in text
    assert serious == []
    assert wide <= 380
    assert pdf.startswith(b"%PDF") and len(pdf) > 10_000
