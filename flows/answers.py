"""Answers that are kept while the tables that they come from stay as they are.

A version of a Delta table never changes, so an answer to a question about versions holds for as long as it is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

import pyarrow as pa


class Answers:
    """Small answers by question, the one used last kept longest; at most `limit` bytes in all.

    Parameters
    ----------
    limit: bytes; an answer of more than a quarter of it is not kept, since it would push out all others.

    >>> answers = Answers(limit=100)
    >>> answers.keep("how many", pa.table({"n": [3]}))
    >>> answers.get("how many").to_pydict(), answers.get("which")
    ({'n': [3]}, None)
    """

    def __init__(self, limit: int = 16_000_000) -> None:
        self.limit = limit
        self._kept: OrderedDict[Hashable, pa.Table] = OrderedDict()
        self._bytes = 0

    def get(self, question: Hashable) -> pa.Table | None:
        """The answer, or None where it is not known."""
        answer = self._kept.get(question)
        if answer is not None:
            self._kept.move_to_end(question)
        return answer

    def keep(self, question: Hashable, answer: pa.Table) -> None:
        """Keep an answer, and let go of those that were not asked for the longest where they are too many."""
        if self.limit < 4 * answer.nbytes or question in self._kept:
            return
        self._kept[question] = answer
        self._bytes += answer.nbytes
        while self._bytes > self.limit:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
