"""A window's Evidently report opened from disk in a real browser without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from monitoring.report import run_report
from monitoring.scan import ConcentrationScan

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed")]

NASTY = "</script><b id=evil>x</b><img src=x onerror=evil()>"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def rows(seed: int, count: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        return pd.DataFrame({
            "_id": range(count), "loss": rng.lognormal(size=count), "temperature": rng.normal(190, 3, count),
            "broken": 1.0, "machine": rng.choice(["M1", "M2", "M3", "M7", NASTY], count),
        })  # fmt: skip

    reference, current = rows(1, 2000), rows(2, 1500).assign(broken="x")
    current.loc[current["machine"] == "M7", "loss"] *= 5
    path = tmp_path_factory.mktemp("report") / "report.html"
    scan = ConcentrationScan(0.05, 20, relevant_effect=None).fit(reference["loss"])
    run_report(
        current=current, reference=reference, scan=scan,
        window="2026-W07", numeric=["temperature", "broken"], categorical=["machine"], slices=["machine"],
        json=path.with_suffix(".json"), html=path,
    )  # fmt: skip
    return path


def test_without_a_network_it_shows_the_concentration_and_the_verdict(
    report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from playwright.sync_api import sync_playwright

    failures: list[str] = []
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM),
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking",
                  "--disable-component-update", "--disable-sync"],
        )  # fmt: skip
        page: Any = browser.new_context(offline=True).new_page()
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        page.wait_for_selector("text=How far the loss sits in few rows", timeout=20_000)
        page.wait_for_function(
            "document.querySelectorAll('.main-svg .scatterlayer path.js-line').length >= 4", timeout=20_000
        )
        text = page.inner_text("body")
        curves = page.locator(".main-svg .scatterlayer path.js-line").count()
        evil = page.locator("#evil, img[src=x]").count()
        browser.close()
    with capsys.disabled():
        print(f"report.html: {report.stat().st_size / 1e6:.1f} MB")
    assert failures == [] and evil == 0
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    assert "Verdict: check one place" in text and "Look at machine M7: it carries" in text
    assert "share of the whole loss" in text and curves >= 4, "statistic and threshold, window and reference"
    assert "By machine: tail of the losses" in text
    assert "Columns that could not be compared" in text and "broken" in text
    assert report.stat().st_size < 6_500_000
