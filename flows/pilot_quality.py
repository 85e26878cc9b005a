"""What is worth knowing of a file before any model: as keys of the catalogue with what fills their braces."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from flows.columns import Column
from flows.pilot_data import Material
from flows.proposal_roles import is_counter
from flows.proposal_words import IDENTIFIER, strength

_FULL_WIDTH = re.compile(r"[０-９]")
SHOWN = 8
GAP_SHARE = 0.05


@dataclass(frozen=True)
class Finding:
    """One thing that was found: how much it matters ("info", "look", "stop"), a key, and what the sentence needs."""

    level: str
    key: str
    values: dict[str, Any]


def find_quality(material: Material) -> list[Finding]:
    """Rows, label, leaks, columns that are left out and why, gaps, unreadable cells, repeated rows."""
    return [*_of_label(material), *_of_leaks(material), *_of_left_out(material), *_of_cells(material)]


def _of_label(material: Material) -> list[Finding]:
    settings = material.settings
    found = [Finding("info", "rows", {"rows": material.proposal.rows, "labelled": len(material.answers)})]
    label = {"label": settings.data.label}
    if settings.data.label_columns:
        found.append(Finding("info", "one-hot", {**label, "columns": _listed(settings.data.label_columns)}))
    if settings.task.kind != "classification":
        return [*found, Finding("info", "number", label)]
    names, counts = np.unique(material.answers.astype(str), return_counts=True)
    order = np.argsort(-counts)
    listed = ", ".join(f"{names[n]} {counts[n] / counts.sum():.1%}" for n in order[:SHOWN])
    found.append(Finding("info", "classes", {**label, "classes": listed + (", …" if len(names) > SHOWN else "")}))
    rare = [f"{names[n]} ({counts[n]})" for n in order if counts[n] < 30]
    return [*found, Finding("look", "rare", {"classes": ", ".join(rare)})] if rare else found


def _of_leaks(material: Material) -> list[Finding]:
    data = material.settings.data
    found = []
    for leak in material.proposal.leaks:
        if leak.column in data.left_out:
            key = "leak-like" if leak.rule == "like" else "leak"
            found.append(Finding("look", key, {"column": leak.column, "agreement": f"{leak.strength:.1%}"}))
        elif leak.column in data.features:
            found.append(Finding("stop", "leak-kept", {"column": leak.column}))
    used = [leak.column for leak in material.proposal.parting if leak.column in data.features]
    if used:
        found.append(Finding("look", "leak-part", {"columns": _listed(used)}))
    return found


def _of_left_out(material: Material) -> list[Finding]:
    data = material.settings.data
    columns = {column.name: column for column in material.proposal.columns}
    leaking = {leak.column for leak in material.proposal.leaks}
    found = [Finding("info", "id", {"column": data.id})] if data.id is not None else []
    by_reason: dict[str, list[str]] = {}
    for name in data.left_out:
        if name not in leaking and name in columns:
            by_reason.setdefault(reason_of(columns[name], images=material.pictures is not None), []).append(name)
    for reason, names in by_reason.items():
        level = "look" if reason in ("thousands", "decimal-comma", "either", "two-ways", "placeholder") else "info"
        example = columns[names[0]].values[:1]
        values = {"columns": _listed(names), "example": example[0] if example else ""}
        found.append(Finding(level, f"left-{reason}", values))
    return found


def _of_cells(material: Material) -> list[Finding]:
    columns = {column.name: column for column in material.proposal.columns}
    used = [columns[name] for name in material.settings.data.features if name in columns]
    found = []
    gaps = [f"{one.name} {one.missing / one.rows:.0%}" for one in used if one.missing > GAP_SHARE * one.rows]
    if gaps:
        found.append(Finding("look", "gaps", {"columns": _listed(gaps)}))
    found += [
        Finding("look", "unreadable", {"column": one.name, "example": one.unreadable[0]})
        for one in used
        if one.unreadable
    ]
    wide = [one.name for one in used if one.kind == "number" and any(_FULL_WIDTH.search(v) for v in one.values[:200])]
    if wide:
        found.append(Finding("info", "full-width", {"columns": _listed(wide)}))
    if len(used) > len(material.answers) / 5 and material.pictures is None:
        found.append(Finding("look", "many-columns", {"columns": len(used), "rows": len(material.answers)}))
    twice = _repeated(material)
    if twice:
        found.append(Finding("look", "repeated", {"rows": twice}))
    lost = int((material.proposal.label != "").sum()) - len(material.answers)
    return [*found, Finding("look", "no-image", {"rows": lost})] if lost else found


def reason_of(column: Column, *, images: bool = False) -> str:
    """Why a column is no feature, in one word of the catalogue.

    >>> import pandas as pd
    >>> from flows.columns import look
    >>> [reason_of(one) for one in look(pd.DataFrame({"a": ["1,200.5", "3,400"] * 9, "b": ["x"] * 18}))]
    ['thousands', 'constant']
    """
    if column.kind in ("empty", "constant", "time"):
        return column.kind
    for name, holds in (
        ("counter", is_counter(column)),
        ("identifier", column.unique and strength(column.name, IDENTIFIER) >= 50),
        ("clock", column.clock_only),
        ("two-ways", column.two_ways),
        ("placeholder", column.placeholder is not None),
        ("thousands", column.writing == "thousands"),
        ("decimal-comma", column.writing == "comma"),
        ("either", column.writing == "either"),
        ("picture", images),
        ("sparse", column.filled < 0.05 * column.rows),
        ("text", column.kind == "text"),
    ):
        if holds:
            return name
    return "code"


def _repeated(material: Material) -> int:
    """Rows that another row is like in all that the file says of a part, but for what names the row or its time."""
    if material.pictures is not None:
        return len(material.pictures) - len(set(material.pictures))
    names = {material.settings.data.id, material.settings.data.time}
    told = {
        column.name: column.codes[material.rows - 1] for column in material.proposal.columns if column.name not in names
    }
    return int(pd.DataFrame(told).duplicated().sum())


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f", … ({len(names)})" if len(names) > SHOWN else "")
