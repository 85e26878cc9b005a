"""How many scored rows held something that training never saw, column by column, and that in words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from monitoring.words import words

SHOWN = 4
"""So many columns are named in a sentence, those of most rows."""

_KINDS = (
    ("outside", r"\S+ is outside the training range, "),
    ("missing", r"missing, and never missing in training"),
    ("unused", r"had no value in training, not used"),
    ("unseen", r".*? was never seen in training"),
)
"""What a warning of the preprocessor says behind the column's name."""


@dataclass(frozen=True)
class InputWarnings:
    """Warnings on the inputs of scored rows.

    Attributes
    ----------
    rows: that were scored.
    warned: of them, those with any warning.
    columns: column -> "outside" (its range), "unseen" (a word), "missing" or "unused" -> rows; most rows first.
    """

    rows: int = 0
    warned: int = 0
    columns: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """For programs.

        >>> InputWarnings(3, 1, {"x": {"outside": 1}}).document()
        {'rows': 3, 'warned': 1, 'columns': {'x': {'outside': 1}}}
        """
        return {"rows": self.rows, "warned": self.warned, "columns": {k: dict(v) for k, v in self.columns.items()}}


def count_warnings(texts: Iterable[tuple[str, int]], columns: Sequence[str], *, rows: int) -> InputWarnings:
    """Count warnings as the table of predictions keeps them.

    Parameters
    ----------
    texts: a row's warnings in one text, and how many rows have that very text; "" where there are none.
    columns: that a warning can be about.
    rows: how many were scored.

    >>> texts = [("x: 9 is outside the training range, 1 to 4; m: M; 9 was never seen in training", 2), ("", 5)]
    >>> count_warnings(texts, ["x", "m"], rows=7)
    InputWarnings(rows=7, warned=2, columns={'m': {'unseen': 2}, 'x': {'outside': 2}})
    """
    # The longest names first, so that a name within another one does not stand for it.
    names = "|".join(re.escape(name) for name in sorted(columns, key=len, reverse=True))
    kinds = "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _KINDS)
    each = re.compile(f"(?:^|; )(?P<column>{names}): (?:{kinds})", re.DOTALL)
    counts: Counter[tuple[str, str]] = Counter()
    warned = 0
    for text, count in texts:
        if not text:
            continue
        warned += count
        told = {(one["column"], one.lastgroup or "") for one in each.finditer(text)}
        counts.update(dict.fromkeys(told, count))
    by_column: dict[str, dict[str, int]] = {}
    for (column, kind), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        by_column.setdefault(column, {})[kind] = count
    return InputWarnings(rows, warned, by_column)


def input_sentence(found: InputWarnings, language: str) -> str:
    """The same in one sentence; "" where nothing was scored.

    >>> input_sentence(InputWarnings(70, 2, {"torque": {"outside": 2}, "machine": {"unseen": 1}}), "en")
    'Of 70 scored parts 2 held something that training never saw: torque outside its range 2, machine unknown 1.'
    >>> input_sentence(InputWarnings(), "en")
    ''
    """
    if not found.rows:
        return ""
    texts, called = words("page", language), words("alerts", language)
    if not found.warned:
        return texts["inputs.none"].format(rows=f"{found.rows:,}")
    parts = [
        texts[f"inputs.{kind}"].format(column=called.get(f"words.columns.{column}", column), rows=f"{count:,}")
        for column, kinds in found.columns.items()
        for kind, count in kinds.items()
    ]
    if len(parts) > SHOWN:
        parts = [*parts[:SHOWN], texts["inputs.more"].format(count=len(parts) - SHOWN)]
    listed = texts["inputs.between"].join(parts)
    return texts["inputs.some"].format(rows=f"{found.rows:,}", warned=f"{found.warned:,}", columns=listed)
