"""The inspection's decision as delivered -> the class or number that the model learns."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows.coerce import MISSING, as_text, numbers
from flows.findings import Findings
from flows.settings import Settings

NO_LABEL = MISSING - {"none"}
"""Written where there is no label; "none" is not among them, since many lines have it as the class of good parts."""


@dataclass(frozen=True)
class Labels:
    """The labels of some rows.

    Attributes
    ----------
    text: (n,) the class, or the number as text; null where there is none, or none that can be taken.
    value: (n,) float64 for regression, NaN else.
    """

    text: pa.Array
    value: np.ndarray
    findings: Findings


def read_labels(column: pa.ChunkedArray | pa.Array, settings: Settings) -> Labels:
    """Labels from one column.

    A class written as a number (1.0 for 1) is recognised. What is no known class, or no number in regression, is a
    finding and gives no label.
    """
    text = as_text(column, trim=True)
    findings = Findings()
    if settings.task.kind == "regression":
        coerced = numbers(text)
        cells = text.take(pa.array(coerced.bad)).to_pylist()
        findings.add("label", settings.data.label, coerced.bad, cells, coerced.reasons)
        return Labels(pc.if_else(pa.array(np.isnan(coerced.values)), None, text), coerced.values, findings)
    known = settings.task.classes
    spelled = {found: found for found in known}
    encoded = text.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    meant = pa.array([spelled.get(name) or _as_class(name, known) for name in names], pa.string())
    taken = meant.take(encoded.indices) if len(names) else pa.nulls(len(text), pa.string())
    # A class that is called so stays one.
    unknown = pa.array([name not in spelled and not is_no_label(name) for name in names], pa.bool_())
    strange = unknown.take(encoded.indices) if len(names) else pa.nulls(len(text), pa.bool_())
    bad = np.flatnonzero(pc.fill_null(pc.and_(strange, pc.is_null(taken)), False).to_numpy(zero_copy_only=False))
    cells = text.take(pa.array(bad)).to_pylist()
    messages = [unknown_class(cell, known) for cell in cells]
    findings.add("class", settings.data.label, bad, cells, messages)
    return Labels(taken, np.full(len(text), np.nan), findings)


def is_no_label(text: str) -> bool:
    """Whether a cell holds a word by which programs write that there is no label.

    >>> [is_no_label(text) for text in ("NaN", " N/A ", "-", "none", "OK")]
    [True, True, True, False, False]
    """
    return text.strip().lower() in NO_LABEL


def one_hot_labels(table: pa.Table, columns: tuple[str, ...], settings: Settings) -> Labels:
    """Labels from columns of 0 and 1, of which exactly one is 1; the column's name is the class.

    A row in which all of them are empty has no label yet.
    """
    read = [numbers(_yes_no(as_text(table[name], trim=True))) for name in columns]
    cells = np.stack([part.values for part in read])
    empty = np.isnan(cells).all(axis=0)
    for part in read:
        empty[part.bad] = False  # a word that is neither yes nor no
    ones = (cells == 1).sum(axis=0)
    fits = (ones == 1) & np.isin(cells, (0, 1)).all(axis=0)
    chosen = np.where(fits, np.argmax(cells == 1, axis=0), len(columns))
    text = pa.array([*columns, None], pa.string()).take(pa.array(chosen))
    findings = Findings()
    bad = np.flatnonzero(~fits & ~empty)
    joined = [", ".join(name for name, cell in zip(columns, cells[:, row], strict=True) if cell == 1) for row in bad]
    messages = [f"exactly one of {len(columns)} label columns must be 1; {name or 'none'} is" for name in joined]
    findings.add("class", settings.data.label, bad, joined, messages)
    return Labels(text, np.full(table.num_rows, np.nan), findings)


def unknown_class(cell: str, known: list[str]) -> str:
    """The clause for a class that the config does not list."""
    return (
        f"{cell!r} is no known class ({', '.join(known[:8])}); add it with "
        f"`softad config add-class {shlex.quote(cell)}`"
    )


def _as_class(name: str, known: list[str]) -> str | None:
    try:
        number = float(name)
    except ValueError:
        return None
    return next((found for found in known if _same_number(found, number)), None)


def _same_number(found: str, number: float) -> bool:
    try:
        return float(found) == number
    except ValueError:
        return False


def _yes_no(text: pa.Array) -> pa.Array:
    lower = pc.utf8_lower(text)
    ones = pc.if_else(pc.is_in(lower, pa.array(["true", "yes", "t", "y"])), "1", lower)
    return pc.if_else(pc.is_in(ones, pa.array(["false", "no", "f", "n"])), "0", ones)
