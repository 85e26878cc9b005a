"""The card of a model opened from disk in a real browser without a network: both languages, narrow, A4, accessible."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.card import write_card

CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed")]

NASTY = "</td><b id=evil>x</b><img src=x onerror=evil()>"


def document() -> dict[str, Any]:
    """A card's document with markup in every name that comes from the plant."""
    at = datetime(2026, 4, 6, tzinfo=UTC)
    value = {"value": 0.2, "low": 0.1, "high": 0.3}
    figures: dict[str, Any] = {"mean": value, "tail": value, "stability": value}
    figures |= {"rows": 400, "accuracy": 0.9, "recall": {"ok": 0.95, NASTY: 0.5}, "false_rejects": 0.05}
    gate = {"name": f"slice machine={NASTY}", "figure": 0.3, "low": 0.2, "high": 0.4, "margin": 0.1, "passed": False,
            "gated": True, "rows": 250}  # fmt: skip
    measured = {"rows": 90, "mean": 0.2, "low": 0.1, "high": 0.3, "tail": 0.9, "reference": 0.25}
    few = {"rows": 9, "mean": None, "low": None, "high": None, "tail": None, "reference": None}
    return {
        "model": "line-a", "version": "3", "written_at": at, "state": "champion",
        "registered_at": at, "digest": "ab" * 32,
        "task": {"kind": "classification", "label": NASTY, "classes": ["ok", NASTY], "normal": "ok", "tolerance": None},
        "in_use": [{"since": at, "by": NASTY, "how": "approved", "instead_of": "2"}],
        "training": {"run": "r" * 32, "reason": NASTY, "incident": None, "config_digest": "c" * 16, "code": {}},
        "data": {
            "rows": {"train": 900, "validation": 300, "holdout": 400, "excluded": 50},
            "windows": {"first": "2026-W01", "last": "2026-W12", "count": "12"}, "from": at, "to": at,
            "labels": {"ok": 1500, NASTY: 20}, "files": [{"name": NASTY, "sha256": "f" * 64, "rows": 1600}],
            "further_files": 2, "tables": {"inspections": 4}, "exclusions": [],
        },
        "objective": {"kind": "level", "name": "theta 0.2", "theta": 0.2, "sigma": 1.0, "because": ""},
        "settings": {"model": "mlp", "hidden": [64, 64], "optimizer": "adamw", "learning_rate": 0.002,
                     "epochs": 60, "seed": 0},
        "figures": {"model": figures, "reference": figures, "change": {"tail": {"value": -0.1, "measurable": True}}},
        "slices": [{"column": "machine", "value": NASTY, **measured}, {"column": "machine", "value": "M2", **few}],
        "fewest_rows": 30,
        "gates": {"at": at, "passed": False, "champion": "2", "rows": 400, "gates": [gate], "reasons": []},
        "contract": {"columns": [
            {"name": NASTY, "type": "number", "low": 0.0, "high": 1e7, "may_be_missing": True},
            {"name": "machine", "type": "category", "values": [NASTY, "M2"], "further_values": 3,
             "may_be_missing": False},
            {"name": "photo", "type": "image", "size": 32, "may_be_missing": False},
        ]},
        "costs": {"row_ms": 1.5, "size_mb": 0.02, "parameters": 5000},
        "export": {"agrees": None, "rows": 0, "difference": None, "reason": NASTY},
    }  # fmt: skip


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_card_opens_without_a_network_and_is_accessible(tmp_path: Path, language: str) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    file = write_card(document(), tmp_path, language=language)
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page: Any = browser.new_context(offline=True, viewport={"width": 900, "height": 1200}).new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto(file.as_uri())
        evil, text = page.locator("#evil, img").count(), page.inner_text("main")
        serious = [
            found["id"]
            for found in Axe().run(page).response["violations"]
            if found["impact"] in ("serious", "critical")
        ]
        page.set_viewport_size({"width": 380, "height": 800})
        wide = page.evaluate("document.documentElement.scrollWidth")
        pdf = page.pdf(format="A4", print_background=True)
        browser.close()
    assert evil == 0 and all(url.startswith("file:") for url in asked)
    assert text.count(NASTY) >= 9
    assert serious == [] and wide <= 380 and pdf.startswith(b"%PDF")
