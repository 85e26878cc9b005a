"""The words that people read, in catalogues: one YAML file for each subject and language, never in code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

LANGUAGES = ("en", "ja")


@cache
def words(name: str, language: str) -> Mapping[str, str]:
    """A catalogue as one flat mapping, nested keys joined by dots.

    Parameters
    ----------
    name: "alerts", "page", "notes" or "jargon".
    language: one of `LANGUAGES`.

    Raises
    ------
    ValueError: there is no such catalogue.

    >>> words("alerts", "en")["words.columns.machine"]
    'machine'
    """
    if language not in LANGUAGES:
        raise ValueError(f"language is {language!r}; it is one of {', '.join(LANGUAGES)}")
    source = resources.files("monitoring") / "catalogues" / f"{name}.{language}.yaml"
    if not source.is_file():
        raise ValueError(f"name is {name!r}; there is no catalogue of that name")
    flat: dict[str, str] = {}
    _flatten(yaml.safe_load(source.read_text(encoding="utf-8")), "", flat)
    return flat


def _flatten(tree: Mapping[str, Any], prefix: str, into: dict[str, str]) -> None:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            _flatten(value, f"{prefix}{key}.", into)
        else:
            into[f"{prefix}{key}"] = str(value)


def jargon_in(text: str, language: str) -> list[str]:
    """The words in `text` that no message to people on the shift may hold, as the list `jargon` has them.

    >>> jargon_in("The CVaR of the losses rose above the threshold.", "en")
    ['CVaR', 'losses', 'threshold']
    >>> jargon_in("難しい品が増えています。", "ja")
    []
    """
    found = _jargon(language).finditer(text)
    return [match.group(0) for match in found]


@cache
def _jargon(language: str) -> re.Pattern[str]:
    listed = [word.strip() for line in words("jargon", language).values() for word in line.split(",")]
    # Japanese has no spaces between words; a word of Latin letters stands alone in both languages.
    each = [rf"(?<![A-Za-z]){re.escape(word)}s?(?![A-Za-z])" if word.isascii() else re.escape(word) for word in listed]
    return re.compile("|".join(sorted(each, key=len, reverse=True)), re.IGNORECASE)
