"""Which column names the row, which says when, which rows belong together, and what the model may see."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from flows.columns import FEW, Column, looks_like_code
from flows.proposal_images import ENDINGS
from flows.proposal_label import find_column, one_hot_groups
from flows.proposal_words import (
    IDENTIFIER,
    LATE_TIME,
    SLICE,
    TIME,
    names_any,
    names_group,
    strength,
    words_of,
)
from flows.written_numbers import Writing

MIN_GROUPS = 8
MAX_SLICES = 6
MAX_SLICE_VALUES = 30
FEW_WITHOUT_ID = 0.01
"""A column is an id in spite of this share of rows that repeat one or have none."""
TAKEN = ("label", "label_value", "window", "fold")
"""Names that training gives to columns of its own, so that no feature, slice or group can have them."""


WRITTEN: dict[Writing, str] = {
    "comma": "numbers written with a decimal comma; export them with a point to use them",
    "thousands": "numbers with something between thousands, such as {!r}; export them without it, and decimals with a "
    "point, to use them",
    "either": "numbers with a comma that may stand between thousands or before decimals, such as {!r}; export them "
    "with nothing between thousands, and decimals with a point, to use them",
}
"""How the numbers of a column are written -> why it is no feature, and what to do."""


@dataclass(frozen=True)
class Choice:
    """A column chosen for a role, or none, and the sentence that says why."""

    column: str | None
    sentence: str = ""


@dataclass
class Features:
    """What the model may see, and why it may not see the rest."""

    numeric: list[str] = field(default_factory=list)
    categorical: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def find_id(columns: Sequence[Column], asked: str | None, *, image: str | None, data: str) -> Choice:
    """The column that names a row, or none: then a row is known by its content.

    Raises
    ------
    BadConfig: the column asked for is not there.

    >>> from flows.columns import look
    >>> frame = pd.DataFrame({"UID": [str(n) for n in range(30)], "x": ["0.5"] * 30})
    >>> find_id(look(frame), None, image=None, data="parts.csv").column
    'UID'
    """
    if asked is not None:
        column = find_column(columns, asked, option="--id", data=data)
        if column.rows > column.distinct:
            odd = _without_own_id(column)
            return Choice(asked, f"id: {asked!r}, as you named it; {odd}, and such rows will be held in quarantine.")
        return Choice(asked, f"id: {asked!r}, as you named it.")
    scored = [(_id_score(column, image), -column.position, column) for column in columns]
    scored = [entry for entry in scored if entry[0] >= 30]
    if not scored:
        return _nearly_an_id(columns)
    column = max(scored, key=lambda entry: entry[:2])[2]
    others = [entry[2].name for entry in scored if entry[2] is not column and entry[2].name != image]
    more = f" ({', '.join(map(repr, others))} would do as well)" if others else ""
    counter = "; if every file counts from the start again, it is no id: set id to null" if is_counter(column) else ""
    return Choice(column.name, f"id: {column.name!r}, every row has its own{more}{counter}.")


def _nearly_an_id(columns: Sequence[Column]) -> Choice:
    """A column that is called an id and is one but for a few rows; where they are more than a few, it is only named."""
    called = [column for column in columns if column.near_unique and strength(column.name, IDENTIFIER) >= 60]
    sentence = "id: no column names the rows one by one, so a row is known by its content and its repetition"
    if not called:
        return Choice(None, f"{sentence}.")
    column = max(called, key=lambda column: (strength(column.name, IDENTIFIER), -column.position))
    odd = _without_own_id(column)
    if column.rows - column.distinct > FEW_WITHOUT_ID * column.rows:
        return Choice(None, f"{sentence}; {column.name!r} is called one, but {odd} (--id takes it).")
    return Choice(
        column.name, f"id: {column.name!r}; {odd}: such rows will be held in quarantine unless they are alike."
    )


def _without_own_id(column: Column) -> str:
    """How many rows a column does not name, of one that is no id of every row."""
    twice = column.filled - column.distinct
    repeated = [f"{twice:,} rows repeat an id of another row"] if twice else []
    return " and ".join([*repeated, *([f"{column.missing:,} rows have none"] if column.missing else [])])


def _id_score(column: Column, image: str | None) -> float:
    if not column.unique or column.kind not in ("text", "number") or (column.kind == "number" and not column.whole):
        return 0.0
    score = strength(column.name, IDENTIFIER)
    if column.name == image:
        return max(score, 50.0)
    if is_counter(column) and score < 60.0 and words_of(column.name)[-1:] != ["id"]:
        return 0.0
    # Numbers, however they are written, are measurements, though many digits make each of them another.
    if score == 0.0 and column.kind == "text" and column.position == 0 and not column.writing:
        compact = all(len(value) <= 64 and " " not in value for value in column.values[:1000])
        return 35.0 if compact else 0.0
    return score


def is_counter(column: Column) -> bool:
    """Whether the column only counts the rows, from 0 or 1.

    >>> from flows.columns import look
    >>> is_counter(look(pd.DataFrame({"column 1": ["0", "1", "2"]}))[0])
    True
    """
    numbers = column.numbers
    if numbers is None or column.missing or len(numbers) < 2 or numbers[0] not in (0.0, 1.0):
        return False
    return bool(np.all(np.diff(numbers) == 1.0))


def find_time(columns: Sequence[Column], asked: str | None, *, data: str) -> Choice:
    """The column that says when a part was inspected, or none: then rows are taken in order of arrival.

    Raises
    ------
    BadConfig: the column asked for is not there.
    """
    times = [column for column in columns if column.kind == "time"]
    if asked is not None:
        column = find_column(columns, asked, option="--time", data=data)
        odd = "" if column.kind == "time" else "; but its cells do not read as times, so its rows will be held"
        return Choice(asked, f"time: {asked!r}, as you named it{odd}.")

    def score(column: Column) -> tuple[float, float]:
        late = 60.0 if names_any(column.name, LATE_TIME) else 0.0
        missing = 100.0 * column.missing / column.rows
        return (strength(column.name, TIME) - late - missing, -float(np.median(_times(column).astype(np.int64))))

    def is_late(column: Column) -> bool:
        # A time that only says when the row was changed or labelled is not when the part was made.
        return names_any(column.name, LATE_TIME) and strength(column.name, TIME) < 90

    fit = [column for column in times if not is_late(column) and column.missing < column.rows / 2]
    if not fit:
        seen = f" ({', '.join(repr(c.name) for c in times)} reads as written later)" if times else ""
        return Choice(None, f"time: no column says when a part was inspected{seen}; rows are taken as they arrive.")
    best = max(fit, key=score)
    others = [repr(column.name) for column in times if column is not best]
    more = f"; {', '.join(others)} also holds times and is left out" if others else ""
    first, last = (str(moment)[:16].replace("T", " ") for moment in (_times(best).min(), _times(best).max()))
    gaps = f"; {best.missing:,} rows have none" if best.missing else ""
    order = {"dmy": ", with the day first", "mdy": ", with the month first"}.get(best.date_order, "")
    return Choice(best.name, f"time: {best.name!r}{order}, from {first} to {last}{gaps}{more}.")


def _times(column: Column) -> np.ndarray:
    if column.times is None:
        raise ValueError(f"column must be one of times; {column.name!r} is {column.kind}")
    return np.asarray(column.times[~np.isnat(column.times)])


def find_image(columns: Sequence[Column], names: Collection[str]) -> tuple[Column | None, int]:
    """The column whose cells name most of the images, and how many of its rows have none.

    >>> from flows.columns import look
    >>> frame = pd.DataFrame({"file": ["a.png", "b.png", "c.png"], "x": ["1", "2", "3"]})
    >>> column, missing = find_image(look(frame), ["patches/a.png", "patches/b.png"])
    >>> column.name, missing
    ('file', 1)
    """
    full = {_tidy(name) for name in names}
    bases = Counter(PurePosixPath(name).name for name in full)
    known = full | {base for base, count in bases.items() if count == 1}
    best: tuple[int, Column | None] = (0, None)
    for column in columns:
        if column.kind not in ("text", "number"):
            continue
        hit = [_tidy(value) in known for value in column.values]
        rows = int(column.counts[np.array(hit, dtype=bool)].sum())
        if rows > best[0]:
            best = (rows, column)
    return best[1], (best[1].rows - best[0] if best[1] is not None else 0)


def _tidy(path: str) -> str:
    return path.replace("\\", "/").removeprefix("./")


def names_images(column: Column) -> bool:
    """Whether the cells look like names of image files."""
    sample = column.values[:500]
    return column.kind == "text" and sum(value.lower().endswith(ENDINGS) for value in sample) > 0.9 * len(sample)


def find_group(
    columns: Sequence[Column], asked: str | None, *, taken: Collection[str], images: bool, data: str
) -> Choice:
    """The coarsest column whose rows belong together: they are not independent, and must not part at a split.

    Pictures are grouped by any column that repeats; a table only by one that is named so (lot, batch, …).

    Raises
    ------
    BadConfig: the column asked for is not there.
    """
    if asked is not None:
        column = find_column(columns, asked, option="--group", data=data)
        few = (
            "; that is few for training, validation and holdout, so expect a poor split" if column.distinct < 5 else ""
        )
        return Choice(asked, f"group: {asked!r}, as you named it, {column.distinct:,} groups{few}.")
    free = [column for column in columns if column.name not in taken]
    fit = [column for column in free if _could_group(column, images)]
    if not fit:
        return Choice(None)
    best = min(fit, key=lambda column: (column.distinct, column.position))
    finer = [column.name for column in free if _nested(column, best)]
    inside = f"; each {finer[0]!r} lies within one {best.name!r}" if finer else ""
    gaps = f"; {best.missing:,} rows have none" if best.missing else ""
    sentence = (
        f"group: {best.name!r}, {best.distinct:,} groups{inside}{gaps}; rows of one group are not independent, so they "
        "never part between training and holdout."
    )
    return Choice(best.name, sentence)


def _could_group(column: Column, images: bool) -> bool:
    if column.kind not in ("text", "number") or (column.kind == "number" and not column.whole) or column.name in TAKEN:
        return False
    if column.distinct < MIN_GROUPS or column.filled < 2 * column.distinct or column.missing > column.rows / 2:
        return False
    named = names_group(column.name)
    if not images:
        return named
    spread = bool(column.counts.max() <= 0.3 * column.filled)
    return spread and (named or (column.kind == "text" and not names_any(column.name, SLICE)))


def _nested(fine: Column, coarse: Column) -> bool:
    """Whether each value of the one lies within one value of the other, and some repeat."""
    if fine is coarse or fine.kind == "time" or fine.distinct <= coarse.distinct or fine.unique:
        return False
    pairs = pd.DataFrame({"fine": fine.codes, "coarse": coarse.codes})
    pairs = pairs[(pairs.fine >= 0) & (pairs.coarse >= 0)].drop_duplicates()
    return len(pairs) > 0 and bool(pairs.fine.is_unique) and fine.filled > fine.distinct


def sort_features(
    columns: Sequence[Column], *, taken: Collection[str], barred: Mapping[str, str], keep: Collection[str], image: bool
) -> Features:
    """Numeric, categorical, or left out with the reason.

    Parameters
    ----------
    taken: columns that have another role.
    barred: columns that give the label away, with the reason.
    keep: columns that a person wants in spite of it.
    image: the model sees pictures, so a column becomes a feature only where a person asks for it.
    """
    found = Features()
    for column in columns:
        if column.name in taken:
            continue
        reason = barred.get(column.name) or why_not(column)
        if image and (not reason or names_images(column)):
            reason = "the model sees the picture only; list it under numeric or categorical to use it too"
        if reason and column.name not in keep:
            found.left_out[column.name] = reason
        elif column.kind == "number" and not looks_like_code(column):
            found.numeric.append(column.name)
        else:
            found.categorical.append(column.name)
    return found


def why_not(column: Column) -> str:
    """Why a column is no feature, "" where it is one.

    >>> from flows.columns import look
    >>> why_not(look(pd.DataFrame({"plant": ["Kyoto"] * 40}))[0])
    "the same value in every row: 'Kyoto'"
    """
    if column.name in TAKEN:
        return "softad gives this name to a column of its own; rename it to use it"
    if column.kind == "empty":
        return "empty in every row"
    if column.kind == "constant":
        return f"the same value in every row: {column.values[0]!r}"
    if column.kind == "time":
        return "a time, not a measurement"
    if column.filled < 30 and column.filled < 0.05 * column.rows:
        return f"empty in all but {column.filled} of {column.rows:,} rows"
    return _why_no_number(column) if column.kind == "number" else _why_no_category(column)


def _why_no_number(column: Column) -> str:
    if is_counter(column):
        return "it only counts the rows"
    if column.unique and column.whole and strength(column.name, IDENTIFIER) >= 50:
        return "an identifier: every row has its own number"
    smallest = float(np.nanmin(column.numbers)) if column.numbers is not None else 0.0
    if strength(column.name, TIME) >= 85 and column.whole and smallest > 1e8:
        return "a time written as a number; write it as 2026-11-24 09:30:00 to use it as the time"
    if looks_like_code(column) and column.distinct > FEW:
        return f"numbers that name something ({column.distinct:,} different), not a measurement"
    return ""


def _why_no_category(column: Column) -> str:
    if names_images(column):
        return "names of image files; give them with --images to train on the pictures"
    if column.clock_only:
        return "a time of day without a date"
    if column.two_ways:
        return (
            f"dates that could mean two days ({column.values[0]!r}); write them as 2026-11-24, or name the column as "
            "data.time and set data.date_order"
        )
    if column.placeholder is not None:
        return f"numbers, but {column.placeholder!r} where there is none; leave such cells empty to use it"
    if column.writing:
        return WRITTEN[column.writing].format(column.values[0])
    if column.near_unique:
        return f"free text or codes: {column.distinct:,} different values in {column.filled:,} rows"
    if column.few or (column.distinct <= MAX_SLICE_VALUES and column.filled >= 3 * column.distinct):
        return ""
    return f"too many different values for categories: {column.distinct:,} in {column.filled:,} rows"


def find_slices(columns: Sequence[Column], features: Features, *, group: str | None, image: bool) -> list[str]:
    """Columns by which trouble is located: categories, one-hot features, and what a plant calls machine, line, …

    A 0/1 feature that becomes a slice is moved to the categories, so that its values keep their names.
    """
    by_name = {column.name: column for column in columns}
    spread_out = [
        [member.name for member in run]
        for run in one_hot_groups(columns)
        if all(member.name in features.numeric for member in run)
        and len({tuple(words_of(member.name)[:1]) for member in run}) == 1
    ]
    # Where there are two, the second says nothing that the first has not said.
    flags = [name for run in spread_out for name in (run[:-1] if len(run) == 2 else run)]
    candidates = [*features.categorical, *flags]
    if image:
        candidates += [name for name in features.left_out if name in by_name and _repeats(by_name[name])]
    if group is not None:
        candidates.append(group)
    fit = [name for name in dict.fromkeys(candidates) if name in by_name and _enough_rows(by_name[name])]
    fit.sort(key=lambda name: (not names_any(name, SLICE), by_name[name].position))
    chosen = fit[:MAX_SLICES]
    moved = [name for run in spread_out if set(run) & set(chosen) for name in run]
    features.numeric = [name for name in features.numeric if name not in moved]
    features.categorical.extend(moved)
    return sorted(chosen, key=lambda name: by_name[name].position)


def _repeats(column: Column) -> bool:
    if column.kind == "text":
        return column.few
    return column.kind == "number" and column.whole and column.distinct <= 10


def _enough_rows(column: Column) -> bool:
    if not 2 <= column.distinct <= MAX_SLICE_VALUES or column.name in TAKEN:
        return False
    big = column.counts >= max(5, min(30, column.rows // 20))
    return bool(big.sum() >= 2)
