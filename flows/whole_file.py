"""Rules that no single row can answer: uniqueness, means, ranges of a whole column, a tolerated share of failures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from flows.coerce import numbers
from flows.errors import BadConfig
from flows.findings import reason
from flows.rows import number_hashes, row_hashes, text_hashes
from flows.rules import Rule
from flows.settings import Settings
from flows.staging import TAKEN, Staging
from flows.validate import BrokenRule, Checker

Late = dict[int, list[dict[str, Any]]]
"""Position of a staged row -> reasons why it is held after all."""


def late_reasons(
    staged: Staging,
    checker: Checker,
    settings: Settings,
    deferred: Sequence[tuple[Rule, np.ndarray, Sequence[Any]]],
    checked: dict[str, int],
) -> tuple[Late, list[BrokenRule]]:
    """Rows that fail a rule about the whole, and rules about the whole that do not hold.

    Parameters
    ----------
    deferred: failures of rules that allow a share of them, as (rule, row numbers, values).
    checked: rule -> number of rows that it looked at.
    """
    late: Late = {}
    broken: list[BrokenRule] = []
    for rule, rows, values in _above_share(deferred, checked):
        positions = np.searchsorted(staged.rows, rows)
        for position, row, value in zip(positions.tolist(), rows.tolist(), values, strict=True):
            # A row that another rule holds already is not among the staged ones.
            if position < len(staged.rows) and staged.rows[position] == row and staged.fate[position] == TAKEN:
                _add(late, position, rule, value)
    for rule in checker.of("unique"):
        for position, value in _repeated(staged, rule, settings):
            _add(late, position, rule, value)
    for rule in checker.of("whole"):
        positions = np.flatnonzero(staged.fate == TAKEN)
        outcome = checker.whole(rule, _frame(staged, rule, checker, settings))
        if isinstance(outcome, BrokenRule):
            broken.append(outcome)
        elif outcome is not None and 1 - len(outcome.rows) / max(len(positions), 1) < rule.mostly:
            for row, value in zip(outcome.rows.tolist(), outcome.values, strict=True):
                _add(late, int(positions[row]), rule, value)
    return late, broken


def _above_share(
    deferred: Sequence[tuple[Rule, np.ndarray, Sequence[Any]]], checked: dict[str, int]
) -> list[tuple[Rule, np.ndarray, Sequence[Any]]]:
    failing: dict[str, int] = {}
    for rule, rows, _ in deferred:
        failing[rule.name] = failing.get(rule.name, 0) + len(rows)
    return [item for item in deferred if 1 - failing[item[0].name] / max(checked[item[0].name], 1) < item[0].mostly]


def _add(late: Late, position: int, rule: Rule, value: Any) -> None:
    late.setdefault(position, []).append(reason(rule.name, ", ".join(rule.columns), value, rule.says(value)))


def _repeated(staged: Staging, rule: Rule, settings: Settings) -> list[tuple[int, Any]]:
    """Staged rows whose values in the rule's columns stand in another row too; rows with none of them do not count."""
    names = [_staged_name(name, rule, staged, settings) for name in rule.columns]
    hashes = np.zeros((len(staged), 2), dtype=np.uint64)
    counts = staged.fate == TAKEN
    for part, table in staged.chunks(names):
        cells = [(name, _hashes(table[name].combine_chunks())) for name in names]
        hashes[part] = row_hashes(table.num_rows, cells)
        counts[part] &= np.any([column != 0 for _, column in cells], axis=0)
    places = np.flatnonzero(counts)
    keys = hashes[places]
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    same = (keys[order][1:] == keys[order][:-1]).all(axis=1)
    repeated = np.zeros(len(order), dtype=bool)
    repeated[1:] |= same
    repeated[:-1] |= same
    found = np.sort(places[order[repeated]])
    values: list[Any] = []
    for part, table in staged.chunks(names):
        inside = found[(found >= part.start) & (found < part.stop)] - part.start
        taken = table.take(pa.array(inside)).to_pylist()
        values.extend(tuple(row[name] for name in names) if len(names) > 1 else row[names[0]] for row in taken)
    return list(zip(found.tolist(), values, strict=True))


def _hashes(column: pa.Array) -> np.ndarray:
    if column.type == pa.float64():
        return number_hashes(column.to_numpy(zero_copy_only=False))
    return text_hashes(column)


def _frame(staged: Staging, rule: Rule, checker: Checker, settings: Settings) -> pd.DataFrame:
    data = settings.data
    everything = [name for name in staged.schema.names if not name.startswith("_")]
    wanted = everything if checker.conditional or not rule.columns else list(rule.columns)
    names = {name: _staged_name(name, rule, staged, settings) for name in wanted}
    parts = [
        table.filter(pa.array(staged.fate[part] == TAKEN)) for part, table in staged.chunks(sorted(set(names.values())))
    ]
    table = pa.concat_tables(parts) if parts else staged.schema.empty_table()
    shown: dict[str, Any] = {}
    for name, kept in names.items():
        column = table[kept]
        if name in checker.numbers and name != data.time and column.type != pa.float64():
            shown[name] = numbers(column).values
        else:
            shown[name] = column.to_pandas()
    return pd.DataFrame(shown, index=pd.RangeIndex(table.num_rows))


def _staged_name(name: str, rule: Rule, staged: Staging, settings: Settings) -> str:
    data = settings.data
    if name == data.time:
        return "_time"
    if name == data.label and name not in staged.schema.names:
        return "_label_value" if settings.task.kind == "regression" else "_label"
    if name not in staged.schema.names:
        raise BadConfig(f"the rule {rule.name!r} compares {name!r} across rows, which is not kept; remove the rule")
    return name
