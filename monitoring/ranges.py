"""A range of a measurement in words: "temperature of 310 or more"."""

from __future__ import annotations

from collections.abc import Mapping


def range_in_words(column: str, value: str, text: Mapping[str, str]) -> str:
    """What the parts of a range have in common.

    Parameters
    ----------
    column: of the measurement.
    value: the range's name, as `monitoring.slice_ranges` gives it.
    text: the catalogue "alerts" of a language.

    >>> from monitoring.words import words
    >>> english, japanese = words("alerts", "en"), words("alerts", "ja")
    >>> range_in_words("temperature", "≥ 310", english), range_in_words("temperature", "≥ 310", japanese)
    ('temperature of 310 or more', 'temperature が 310 以上')
    >>> range_in_words("temperature", "298 – 310", english), range_in_words("temperature", "(missing)", english)
    ('temperature between 298 and 310', 'no temperature')
    """
    name = " ".join(column.split())
    if value.startswith("< "):
        return text["words.span.below"].format(column=name, edge=value[2:])
    if value.startswith("≥ "):
        return text["words.span.from"].format(column=name, edge=value[2:])
    low, dash, high = value.partition(" – ")
    if dash:
        return text["words.span.between"].format(column=name, low=low, high=high)
    return text["words.span.without"].format(column=name)
