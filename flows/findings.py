"""What is wrong with which rows, column-wise while a chunk is checked, and as quarantine records at the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from flows.schemas import TABLES


@dataclass(frozen=True)
class Finding:
    """One rule that some rows of a chunk break.

    Attributes
    ----------
    positions: (k,) positions in the chunk, ascending.
    values: the k offending values.
    messages: k clauses for people, or what makes a clause out of a value.
    """

    rule: str
    column: str
    positions: np.ndarray
    values: Sequence[Any]
    messages: Sequence[str] | Callable[[Any], str]

    def only(self, good: np.ndarray) -> Finding | None:
        """The part of it whose positions are true in the mask; None where nothing is left."""
        keep = np.flatnonzero(good[self.positions]).tolist()
        if not keep:
            return None
        messages = self.messages if callable(self.messages) else [self.messages[index] for index in keep]
        values = [self.values[index] for index in keep]
        return Finding(self.rule, self.column, self.positions[keep], values, messages)

    def reason(self, place: int) -> dict[str, Any]:
        """The reason for the row at `positions[place]`, as the quarantine keeps it."""
        value = self.values[place]
        message = self.messages(value) if callable(self.messages) else self.messages[place]
        return reason(self.rule, self.column, value, message)


@dataclass
class Findings:
    """All that is wrong in one chunk.

    >>> found = Findings()
    >>> found.add("number", "x", np.array([2]), ["abc"], ["'abc' is not a number"])
    >>> found.positions().tolist(), dict(found.reasons())[2][0]["message"]
    ([2], "'abc' is not a number")
    """

    items: list[Finding] = field(default_factory=list)

    def add(
        self,
        rule: str,
        column: str,
        positions: np.ndarray,
        values: Sequence[Any],
        messages: Sequence[str] | Callable[[Any], str],
    ) -> None:
        """Add one rule's rows; nothing where there are none."""
        if len(positions):
            self.items.append(Finding(rule, column, np.asarray(positions, dtype=np.int64), values, messages))

    def positions(self, *, without: str | None = None) -> np.ndarray:
        """Positions of all rows with at least one finding (of another rule than `without`), ascending."""
        found = [item.positions for item in self.items if item.rule != without]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)

    def cells(self, columns: Iterable[str]) -> set[int]:
        """Positions of rows with a finding in one of these columns."""
        wanted = set(columns)
        return {int(p) for item in self.items if item.column in wanted for p in item.positions}

    def counts(self) -> Counter[tuple[str, str]]:
        """(rule, column) -> number of rows."""
        found: Counter[tuple[str, str]] = Counter()
        for item in self.items:
            found[item.rule, item.column] += len(item.positions)
        return found

    def reasons(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """(position, its reasons) for each row that has any, ascending."""
        if not self.items:
            return
        order = np.concatenate([item.positions for item in self.items])
        owner = np.repeat(np.arange(len(self.items)), [len(item.positions) for item in self.items])
        within = np.concatenate([np.arange(len(item.positions)) for item in self.items])
        held: list[dict[str, Any]] = []
        last = -1
        for index in np.argsort(order, kind="stable").tolist():
            position = int(order[index])
            if position != last and held:
                yield last, held
                held = []
            held.append(self.items[int(owner[index])].reason(int(within[index])))
            last = position
        yield last, held


@dataclass(frozen=True)
class Held:
    """One row on its way to quarantine.

    Attributes
    ----------
    row: number of the data row in its file.
    record: the whole row as it was delivered, as JSON: column -> text.
    """

    row: int
    id: str | None
    reasons: list[dict[str, Any]]
    record: str


def reason(rule: str, column: str, value: Any, message: str) -> dict[str, Any]:
    """One reason as the quarantine table keeps it; values that JSON does not know become text.

    >>> reason("finite", "x", float("inf"), "x is infinite")["value"]
    'inf'
    """
    if isinstance(value, tuple):
        value = [_json_value(part) for part in value]
    return {"rule": rule, "column": column, "value": _json_value(value), "message": message}


def quarantine_table(held: Sequence[Held], *, sha: str, kind: str, at: Any) -> pa.Table:
    """Rows of the table `quarantine`.

    Parameters
    ----------
    kind: "inspections" for whole rows, "labels" for labels.
    """
    count = len(held)
    return pa.table(
        {
            "_file": pa.array([sha] * count, pa.string()),
            "_row": pa.array([item.row for item in held], pa.int64()),
            "_id": pa.array([item.id for item in held], pa.string()),
            "kind": pa.array([kind] * count, pa.string()),
            "reasons": pa.array([as_json(item.reasons) for item in held], pa.string()),
            "record": pa.array([item.record for item in held], pa.string()),
            "state": pa.array(["held"] * count, pa.string()),
            "at": pa.array([at] * count, pa.timestamp("us", tz="UTC")),
        },
        schema=TABLES["quarantine"],
    )


def as_json(value: Any) -> str:
    """JSON text; what JSON does not know, such as a time, becomes text.

    >>> as_json({"部品": None})
    '{"部品": null}'
    """
    return json.dumps(value, ensure_ascii=False, default=str, allow_nan=False)


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, (str, int, float, bool, list)) else str(value)
