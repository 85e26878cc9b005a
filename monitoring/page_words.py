"""Phrases of the page in all its languages at once; the page's style shows one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

from monitoring.ranges import range_in_words
from monitoring.words import LANGUAGES, words


def both(key: str, **values: Any) -> Markup:
    """A phrase in all languages. Values are escaped; a mapping has one value for each language.

    >>> str(both("status.healthy"))
    '<span class="en" lang="en">healthy</span><span class="ja" lang="ja">正常</span>'
    """
    return in_languages({
        language: Markup(words("page", language)[key]).format(**{  # noqa: S704
            name: escape(value[language] if isinstance(value, Mapping) else value) for name, value in values.items()
        })
        for language in LANGUAGES
    })  # fmt: skip


def in_languages(texts: Mapping[str, str]) -> Markup:
    """A text that is there in every language; those that are no markup are escaped.

    >>> str(in_languages({"en": "1 < 2", "ja": "一"}))
    '<span class="en" lang="en">1 &lt; 2</span><span class="ja" lang="ja">一</span>'
    """
    span = Markup('<span class="{0}" lang="{0}">{1}</span>')
    return Markup("").join(span.format(language, texts[language]) for language in LANGUAGES)


def column_name(column: str | None) -> Mapping[str, str]:
    """What people call a column, by language; one that no catalogue knows keeps its name.

    >>> column_name("machine")["ja"], column_name("oven")["ja"]
    ('機械', 'oven')
    """
    return {language: words("alerts", language).get(f"words.columns.{column}", column or "") for language in LANGUAGES}


def range_words(column: str, value: str) -> Mapping[str, str]:
    """What the parts of a range of a measurement have in common, by language.

    >>> range_words("temperature", "≥ 310")["en"]
    'temperature of 310 or more'
    """
    return {language: range_in_words(column, value, words("alerts", language)) for language in LANGUAGES}


def answer_words(answer: str) -> Mapping[str, str]:
    """What people call an answer to an incident, by language.

    >>> answer_words("repaired")["en"]
    'repaired'
    """
    return {language: words("notes", language).get(f"answer.{answer}", answer) for language in LANGUAGES}
