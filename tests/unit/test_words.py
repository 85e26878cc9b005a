"""Both languages say the same things, with the same blanks to fill in."""

from __future__ import annotations

import re
import string
from importlib import resources

import pytest

from monitoring.words import LANGUAGES, jargon_in, words

NAMES = sorted({path.name.split(".")[0] for path in (resources.files("monitoring") / "catalogues").iterdir()})


def blanks(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("name", NAMES)
def test_languages_have_the_same_keys_and_blanks(name: str) -> None:
    english, *others = (words(name, each) for each in LANGUAGES)
    for other in others:
        assert set(other) == set(english)
        assert {key: blanks(text) for key, text in other.items()} == {
            key: blanks(text) for key, text in english.items()
        }


@pytest.mark.parametrize("language", LANGUAGES)
def test_alerts_use_no_jargon(language: str) -> None:
    for key, text in words("alerts", language).items():
        # What stands between braces is filled in, not read.
        assert jargon_in(re.sub(r"\{.*?\}", "", text), language) == [], key


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ValueError, match="language is 'fr'"):
        words("alerts", "fr")
