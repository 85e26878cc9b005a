"""Pictures of the page for docs/: ``python tests/browser/screenshots.py PAGE FOLDER``; `make screenshots` does it."""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

PICTURES = {
    "page.png": ("en", 1200, 1100),
    "page-ja.png": ("ja", 1200, 1100),
    "page-phone.png": ("en", 375, 800),
}
"""File -> language, width and height of the screen."""


def take(page: Path, folder: Path) -> None:
    """Write every picture into `folder`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        for name, (language, width, height) in PICTURES.items():
            opened = browser.new_page(viewport={"width": width, "height": height})
            opened.goto(f"{page.absolute().as_uri()}?lang={language}")
            opened.screenshot(path=folder / name)
            opened.close()
        browser.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]))
