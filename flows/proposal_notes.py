"""The sentences in which `softad init` says what it found, what it decided, and what a person should look at."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from flows.columns import Column
from flows.leaks import Leak
from flows.proposal_label import Label
from flows.proposal_sample import Extremes, Sample
from flows.settings import Settings, Task

_MOST = 12
"""So many names are listed in a sentence; the config lists all."""


@dataclass(frozen=True)
class Note:
    """A sentence about one subject (label, task, features, leak, left out, id, time, group, window, rows, …)."""

    topic: str
    text: str


def label_notes(target: Label, task: Task, known: int, sample: Sample) -> list[Note]:
    """Which label, which task, which classes, and which of them are too rare."""
    others = f" It could also be {', '.join(map(repr, target.others))}: then add --label." if target.others else ""
    notes = [Note("label", f"label: {target.name!r}; {target.reason}.{others}")]
    if task.kind == "regression":
        limit = (
            f"; an error above {task.tolerance:g} (the label's standard deviation) counts as a miss: set "
            "task.tolerance to what your parts allow"
            if task.tolerance
            else ""
        )
        notes.append(Note("task", f"task: regression, because the label is a number{limit}."))
    else:
        values, counts = np.unique(target.rows[target.rows != ""].astype(str), return_counts=True)
        share = dict(zip(values.tolist(), counts.tolist(), strict=True))
        classes = _listed([f"{value} ({share.get(value, 0):,})" for value in task.classes])
        good = f"; {task.normal!r} is taken as the good one (task.normal)" if task.normal else ""
        notes.append(Note("task", f"task: classification, {len(task.classes)} classes: {classes}{good}."))
        rare = [f"{value!r} ({share.get(value, 0)})" for value in task.classes if share.get(value, 0) < 10]
        if rare:
            text = f"few rows of {_listed(rare)}: too few to learn or to judge; collect more, or join classes."
            notes.append(Note("classes", text))
    if sample.rows > known:
        # Where every class is a kind of defect, nothing is perhaps what the export writes for a good part.
        doubt = (
            "; if an empty cell means a good part, let the export write OK there: as it is, no good part has a label"
            if task.kind == "classification" and task.normal is None
            else ""
        )
        text = f"{sample.rows - known:,} rows have no label yet; they wait for a label file{doubt}."
        notes.append(Note("label", text))
    return notes


def split_notes(settings: Settings, target: Label) -> list[Note]:
    """How rows are parted where no group does it."""
    if settings.training.split.by == "group":
        return []
    changes = int(np.sum(target.rows[1:] != target.rows[:-1]))
    classification = settings.task.kind == "classification"
    if classification and changes == len(settings.task.classes) - 1:
        text = "split: rows are sorted by class, so they are parted at random within each class, never by their order."
        return [Note("split", text)]
    kind = "at random within each class" if classification else "at random"
    text = f"split: {kind}; if rows belong together (one lot, one part), name the column with --group COL."
    return [Note("split", text)]


def feature_notes(
    settings: Settings, leaks: Sequence[Leak], keep: Collection[str], spared: Collection[str]
) -> list[Note]:
    """What the model sees, and every column that it does not, with the reason.

    Parameters
    ----------
    keep: columns that a person wanted to keep.
    spared: leaks that stay because no feature would be left.
    """
    data = settings.data
    parts = [
        f"{len(data.numeric)} numeric ({_listed(data.numeric)})" if data.numeric else "",
        f"{len(data.categorical)} categorical ({_listed(data.categorical)})" if data.categorical else "",
        f"the picture named by {data.image!r}" if data.image else "",
    ]
    notes = [Note("features", f"features: {'; '.join(part for part in parts if part)}.")]
    if data.slices:
        notes.append(Note("slices", f"slices, by which trouble is located: {_listed(data.slices)}."))
    notes.extend(Note("leak", _leak_sentence(leak, keep, spared)) for leak in leaks)
    told = {leak.column for leak in leaks}
    alike: dict[str, list[str]] = {}
    for name, reason in data.left_out.items():
        if name not in told:
            alike.setdefault(reason, []).append(repr(name))
    others = [f"{_listed(names)} ({reason})" for reason, names in alike.items()]
    if others:
        notes.append(Note("left out", f"carried along, no features: {_listed(others, '; ')}."))
    return notes


def part_sentence(found: Leak) -> str:
    """Of a measurement that tells one class of several from all else.

    >>> part_sentence(Leak("x", "its value alone tells 'a' from all else", "", "part", 1.0)).partition(":")[0]
    "'x' is kept, though its value alone tells 'a' from all else"
    """
    return (
        f"{found.column!r} is kept, though {found.reason}: the other classes are still to be told from each other. "
        "Take it out of the config if it is recorded after the decision."
    )


def _leak_sentence(leak: Leak, keep: Collection[str], spared: Collection[str]) -> str:
    name, verb = repr(leak.column), "may give" if leak.rule == "like" else "gives"
    if leak.column in keep:
        return f"{name} is kept, as you asked, though it {verb} the label away: {leak.reason}."
    if leak.column in spared:
        return (
            f"{name} {verb} the label away: {leak.reason}; it is kept all the same, because no other feature would be "
            "left: add measurements, or do not trust the figures."
        )
    return f"left out: {name} {verb} the label away: {leak.reason}. To keep it: {leak.keep_hint}"


def row_notes(columns: Sequence[Column], settings: Settings, sample: Sample, extremes: Extremes) -> list[Note]:
    """What `ingest` will hold in quarantine, and what was not looked at closely."""
    notes = []
    if not sample.complete:
        text = (
            f"{len(sample.frame):,} of {sample.rows:,} rows, evenly spread, were looked at closely; ranges, classes "
            "and ids are of all."
        )
        notes.append(Note("rows", text))
    held = np.zeros(len(sample.frame), dtype=bool)
    used = {*settings.data.numeric, settings.data.time}
    for column in columns:
        if column.name in used and column.unreadable:
            kind = "times" if column.kind == "time" else "numbers"
            odd = np.isin(column.codes, [column.values.index(value) for value in column.unreadable])
            held |= odd
            text = (
                f"{column.name!r}: {int(odd.sum()):,} cells are no {kind}, such as {column.unreadable[0]!r}; "
                "their rows will be held in quarantine."
            )
            notes.append(Note("rows", text))
    if sample.ragged:
        text = f"{sample.ragged:,} rows have more or fewer cells than the header; they will be held in quarantine."
        notes.append(Note("rows", text))
    if extremes.repeated_ids:
        text = f"{extremes.repeated_ids:,} rows repeat an id; rows of one id that differ will be held in quarantine."
        notes.append(Note("id", text))
    share = (held.sum() + sample.ragged) / max(len(held), 1)
    if share > settings.ingest.max_bad_share:
        text = f"{share:.0%} of the rows are bad, more than ingest.max_bad_share allows: mend the export first."
        notes.append(Note("rows", text))
    return notes


def _listed(names: Sequence[str], separator: str = ", ") -> str:
    more = f"{separator}and {len(names) - _MOST} more (see the config)" if len(names) > _MOST else ""
    return separator.join(names[:_MOST]) + more
