"""Numbers as people write them: with a decimal comma, or with something between thousands."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

Writing = Literal["", "comma", "thousands", "either"]

_PLAIN = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
_COMMA = re.compile(r"^[+-]?\d+,\d+$")
_EITHER = re.compile(r"^[+-]?\d{1,3},\d{3}$")
_THOUSANDS = re.compile(
    r"^[+-]?(\d{1,3}(,\d{3}){2,}(\.\d*)?|\d{1,3},\d{3}\.\d*|\d{1,3}(\.\d{3})+,\d+|\d{1,3}(\.\d{3}){2,}"
    r"|\d{1,3}([ '’_]\d{3})+([.,]\d+)?)$"
)
SHARE = 0.9
"""A column is one of numbers when this share of its different values are, however they are written."""
SAMPLE = 200


def writing(values: Sequence[str]) -> Writing:
    """How the numbers of a column are written that are not all plain; "" where they are, or where it holds others.

    "either": each comma has three digits behind it and at most three before, so that it may be a decimal comma or stand
    between thousands; so also where some values are written in one way and some in the other.

    Parameters
    ----------
    values: the different texts of a column; some 200 of them, evenly spread, are looked at.

    >>> writing(["1,5", "2,25"]), writing(["1,200.5", "999"]), writing(["3,160", "999"]), writing(["red", "1,5"])
    ('comma', 'thousands', 'either', '')
    """
    # NFKC makes full-width digits and the narrow or unbreakable space between thousands plain ones.
    sample = [unicodedata.normalize("NFKC", value).strip() for value in values[:: max(1, len(values) // SAMPLE)]]
    odd = [value for value in sample if not _PLAIN.match(value)]
    grouped = [value for value in odd if _THOUSANDS.match(value)]
    comma = [value for value in odd if _COMMA.match(value)]
    if not odd or len(sample) - len(odd) + len(grouped) + len(comma) < SHARE * len(sample):
        return ""
    sure = any(not _EITHER.match(value) for value in comma)
    if grouped:
        return "either" if sure else "thousands"
    return "comma" if sure else "either"
