"""The words of the pilot report, English and Japanese, from the catalogues; and numbers as people write them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

LANGUAGES = ("en", "ja")


@cache
def _catalogue(language: str) -> Mapping[str, str]:
    text = (resources.files("flows") / "catalogues" / f"pilot.{language}.yaml").read_text(encoding="utf-8")
    tree: dict[str, Any] = yaml.safe_load(text)
    found: dict[str, str] = {}
    for name, entry in tree.items():
        if isinstance(entry, dict):
            found |= {f"{name}.{key}": str(value) for key, value in entry.items()}
        else:
            found[name] = str(entry)
    return found


class Words:
    """A catalogue.

    >>> Words("en").say("quality.id", column="part")
    'part names the row; it is no feature.'
    >>> Words("ja").say("chart.round")
    '回'
    """

    def __init__(self, language: str) -> None:
        if language not in LANGUAGES:
            raise ValueError(f"language: {language!r}; allowed: {', '.join(LANGUAGES)}")
        self.language = language
        self.texts = _catalogue(language)

    def say(self, key: str, **values: object) -> str:
        """The text with its braces filled in; what fills them is never read as a pattern itself."""
        text = self.texts[key]
        parts = []
        while "{" in text:
            before, _, rest = text.partition("{")
            name, _, text = rest.partition("}")
            parts += [before, str(values[name.replace("-", "_")])]
        return "".join([*parts, text])


def figure(value: float) -> str:
    """A loss: three significant digits, never in powers of ten.

    >>> figure(0.012345), figure(12.345), figure(1234.5), figure(0.0)
    ('0.0123', '12.3', '1,234', '0')
    """
    if value == 0.0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{float(f'{value:.3g}'):,.10g}"


def percent(value: float, *, sign: bool = False) -> str:
    """A share as percent.

    >>> percent(0.1234), percent(-0.05, sign=True)
    ('12.3 %', '-5.0 %')
    """
    return f"{100 * value:{'+' if sign else ''}.1f} %"
