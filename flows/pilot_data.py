"""What a pilot study compares on: features, answers, how the rows part, and the sentences where that cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from flows.columns import Column
from flows.errors import BadConfig, BadInput
from flows.images import ImageProblem, ImageSource
from flows.proposal_label import find_column
from flows.proposal_roles import names_images
from flows.propose import Proposal, propose
from flows.settings import Settings

LEAST_ROWS = 50
LEAST_GROUPS = 5
LEAST_OF_CLASS = 40
"""A class of fewer rows need not be among the earliest rows for a split by time."""

SplitBy = Literal["auto", "time", "group", "random"]


@dataclass(frozen=True, eq=False)
class Material:
    """The rows that are compared on.

    Attributes
    ----------
    proposal: what was found in the file.
    settings: the proposal's, with what the person named.
    features: a frame of the labelled rows, or their images, shape (n, 3, size, size).
    answers: labels as text, or values, shape (n,).
    groups, order: one a row, or None.
    split: "group", "time" or "random"; `why`: a key of the catalogue.
    rows: the numbers of the labelled rows among those that were looked at, from 1, shape (n,).
    ids: their ids, or None.
    slices: slice column to its values as text, "" where empty, each of shape (n,).
    pictures: each row's image as bytes, or None.
    """

    proposal: Proposal
    settings: Settings
    features: Any
    answers: np.ndarray
    groups: np.ndarray | None
    order: np.ndarray | None
    split: str
    why: str
    rows: np.ndarray
    ids: list[str] | None
    slices: dict[str, np.ndarray]
    pictures: list[bytes] | None


def gather(
    data: Path,
    *,
    images: Path | None,
    label: str | None,
    time: str | None,
    group: str | None,
    slices: Sequence[str],
    normal: str | None,
    regression: bool,
    split: SplitBy,
) -> Material:
    """Read the file as `softad init` would, and decide how its rows part.

    Raises
    ------
    BadInput: the file cannot be read, or its rows cannot be compared on.
    BadConfig: a column or a class that was named is not there, or does not do for what was asked.
    """
    proposal = propose(data, images=images, label=label, time=time, group=group, regression=regression)
    if images is None:
        beside = next((place for place in (data.with_suffix(".zip"), data.with_suffix("")) if place.exists()), None)
        if beside is not None and any(names_images(column) for column in proposal.columns):
            proposal = propose(data, images=beside, label=label, time=time, group=group, regression=regression)
    columns = {column.name: column for column in proposal.columns}
    settings = _named(proposal, normal, slices)
    known = proposal.label != ""
    if int(known.sum()) < LEAST_ROWS:
        raise BadInput(
            f"{data.name}: {int(known.sum())} labelled rows are too few for a pilot study; it needs at least "
            f"{LEAST_ROWS}, and says something useful from about 300: collect more"
        )
    pictures: list[bytes] | None = None
    features: Any
    if settings.data.image is None:
        features = pd.DataFrame(
            {name: columns[name].numbers for name in settings.data.numeric}
            | {name: texts(columns[name]) for name in settings.data.categorical}
        )
        features = features[known].reset_index(drop=True)
    else:
        known, features, pictures = _pictures(columns[settings.data.image], settings, known, data.name)
    classes = settings.task.kind == "classification"
    answers = proposal.label if classes else columns[str(settings.data.label)].numbers
    answers = np.asarray(answers)[known]
    if not classes and not np.isfinite(answers.astype(float)).all():
        bad = int(np.flatnonzero(known)[np.flatnonzero(~np.isfinite(answers.astype(float)))[0]])
        raise BadInput(
            f"{data.name}, row {bad + 1}, column {settings.data.label!r}: no number, where the label is one; mend it"
        )
    groups = texts(columns[settings.data.group])[known] if settings.data.group else None
    kind, why, order = _split(split, columns, settings, known, answers, groups, data.name)
    who = columns.get(settings.data.id or "")
    return Material(
        proposal=proposal,
        settings=settings,
        features=features,
        answers=answers,
        groups=groups if kind == "group" else None,
        order=order,
        split=kind,
        why=why,
        rows=np.flatnonzero(known) + 1,
        ids=[str(one) for one in np.array(who.text(), dtype=object)[known]] if who is not None else None,
        slices={name: np.array(columns[name].text(), dtype=object)[known] for name in settings.data.slices},
        pictures=pictures,
    )


def texts(column: Column) -> np.ndarray:
    """A column's cells as they stand in the file, (rows,); None where empty."""
    return np.asarray(np.array([*column.values, None], dtype=object)[column.codes])


def _named(proposal: Proposal, normal: str | None, slices: Sequence[str]) -> Settings:
    settings = proposal.settings
    if normal is not None:
        if normal not in settings.task.classes:
            listed = ", ".join(settings.task.classes[:20]) or "none, the label is a number"
            raise BadConfig(f"{proposal.data.name}: {normal!r} (given with --normal) is no class; classes: {listed}")
        settings = settings.model_copy(update={"task": settings.task.model_copy(update={"normal": normal})})
    if slices:
        names = [part.strip() for one in slices for part in one.split(",")]
        for name in names:
            find_column(proposal.columns, name, option="--slices", data=proposal.data.name)
        settings = settings.model_copy(update={"data": settings.data.model_copy(update={"slices": names})})
    return settings


def _pictures(
    column: Column, settings: Settings, known: np.ndarray, data: str
) -> tuple[np.ndarray, np.ndarray, list[bytes]]:
    """The images of the labelled rows; rows whose image is missing or broken are left out."""
    from softad.images import read_images

    place = settings.data.images
    if place is None:
        raise BadInput(f"{data}: the images are not there; give the zip or folder with --images")
    source = ImageSource.open(place)
    kept = known.copy()
    found: list[bytes] = []
    arrays: list[np.ndarray] = []
    for row in np.flatnonzero(known):
        name = column.values[column.codes[row]] if column.codes[row] >= 0 else ""
        try:
            content = source.read(name)
            arrays.append(read_images([content], None, settings.data.image_size)[0])
        except (ImageProblem, ValueError):
            kept[row] = False
            continue
        found.append(content)
    source.close()
    if len(found) < LEAST_ROWS:
        raise BadInput(f"{data}: only {len(found)} labelled rows have an image that can be read; add the others")
    return kept, np.stack(arrays), found


def _split(
    asked: SplitBy,
    columns: dict[str, Column],
    settings: Settings,
    known: np.ndarray,
    answers: np.ndarray,
    groups: np.ndarray | None,
    data: str,
) -> tuple[str, str, np.ndarray | None]:
    """How the rows part, why (a key of the catalogue), and their order."""
    enough = groups is not None and len({str(one) for one in groups}) >= LEAST_GROUPS
    if asked == "group" and not enough:
        raise BadConfig(f"{data}: --split group needs a column of at least {LEAST_GROUPS} groups; name it with --group")
    if asked == "group" or (asked == "auto" and enough):
        return "group", "group", None
    order, why_not = _order(columns.get(settings.data.time or ""), settings, known, answers)
    if asked == "time" and order is None:
        raise BadConfig(f"{data}: --split time does not do here ({why_not}); leave it away, or name another --time")
    if order is not None and asked in ("auto", "time"):
        return "time", "time", order
    if asked == "random":
        return "random", "asked", None
    return "random", why_not, None


def _order(
    column: Column | None, settings: Settings, known: np.ndarray, answers: np.ndarray
) -> tuple[np.ndarray | None, str]:
    """The rows' times as numbers, or why they do not do: a key of the catalogue."""
    if column is None or column.times is None:
        return None, "no-time"
    times = column.times[known]
    if np.isnat(times).any():
        return None, "time-gaps"
    order = times.astype("datetime64[us]").astype(np.int64)
    first = np.searchsorted(np.sort(order), order) * 8 // order.size
    if np.unique(first).size < 8:
        return None, "few-times"
    if settings.task.kind == "classification":
        early, counts = answers[first < 2], pd.Series(answers).value_counts()
        if any((early == name).sum() < 5 for name, count in counts.items() if count >= LEAST_OF_CLASS):
            return None, "late-class"
        if len(counts) == 2 and min((early == name).sum() for name in counts.index) < 5:
            return None, "late-class"
    return order, ""
