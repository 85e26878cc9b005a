"""Which column holds the inspection's decision, and what kind of decision it is."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from flows import coerce
from flows.columns import FEW, Column
from flows.errors import BadConfig, BadInput
from flows.label_values import is_no_label
from flows.proposal_words import (
    BAD_NAMES,
    GOOD_NAMES,
    IDENTIFIER,
    LABEL,
    NO_VALUES,
    NUMERIC_LABEL,
    SLICE,
    YES_VALUES,
    is_verdict,
    names_any,
    names_group,
    plain,
    reads_as_good,
    strength,
    words_of,
)
from flows.settings import Task

_ENOUGH = 25.0
_FEW_NUMBERS = 20


@dataclass(frozen=True, eq=False)
class Label:
    """The label that was found.

    Attributes
    ----------
    name: the label's name in the config.
    columns: one-hot columns that become it; empty for a label that is a column itself.
    rows: (rows,) the label of each row as text, "" where it is not known yet.
    reason: why this column.
    others: columns that could have been meant too.
    """

    name: str
    columns: tuple[str, ...]
    rows: np.ndarray
    reason: str
    others: tuple[str, ...] = ()


def _said(column: Column) -> np.ndarray:
    """A column's text as labels: words by which programs write that there is none are none."""
    return np.array(["" if is_no_label(text) else text for text in column.text()], dtype=object)


def find_label(columns: Sequence[Column], asked: str | None = None, *, data: str = "the file") -> Label:
    """Choose the label, or take the one that was asked for.

    Raises
    ------
    BadConfig: the column asked for does not exist or cannot be a label, or none can be told (the sentence lists the
        candidates).
    BadInput: the column named like a label holds one value only.

    >>> import pandas as pd
    >>> from flows.columns import look
    >>> find_label(look(pd.DataFrame({"x": ["1", "2", "3"] * 9, "判定": ["OK", "OK", "NG"] * 9}))).name
    '判定'
    """
    if asked is not None:
        return _asked(columns, asked, data)
    groups = one_hot_groups(columns)
    inside = {member.name for group in groups for member in group if len(group) > 2}
    scored = [(_score(column, columns), column.position, column) for column in columns if column.name not in inside]
    scored = sorted((entry for entry in scored if entry[0] >= _ENOUGH), key=lambda entry: (-entry[0], -entry[1]))
    one_hot = max(groups, key=lambda group: _group_score(group, columns), default=None)
    if one_hot is not None and _group_score(one_hot, columns) > (scored[0][0] if scored else _ENOUGH - 1):
        return _from_one_hot(one_hot, columns, tuple(entry[2].name for entry in scored[:3]))
    if scored:
        best = scored[0][2]
        others = tuple(entry[2].name for entry in scored[1:4] if not _rivals_label(entry[2], best))
        return Label(best.name, (), _said(best), _why(best), others)
    _refuse_lone_class(columns, data)
    guess = _guess(columns)
    if guess is None:
        raise BadConfig(f"{data}: no column says that it is the label; name it with --label COL{_candidates(columns)}")
    reason = "it is the only column with few values that repeat; if that is wrong, name another with --label COL"
    return Label(guess.name, (), _said(guess), reason)


def _refuse_lone_class(columns: Sequence[Column], data: str) -> None:
    """Where the only column named like a label has one value or none, say so instead of guessing another."""
    for column in columns:
        if column.distinct == 1 and column.missing and strength(column.name, LABEL) >= 75:
            raise BadInput(
                f"{data}: the label {column.name!r} holds {column.values[0]!r} or nothing, which is one class; where "
                "empty means a good part, let the export write OK there, or name another column with --label COL"
            )
        if column.kind in ("constant", "empty") and strength(column.name, LABEL) >= 75:
            holds = f"holds {column.values[0]!r} in every row" if column.values else "is empty in every row"
            raise BadInput(
                f"{data}: the label {column.name!r} {holds}, so nothing can be learned from it; give a file with "
                "rows of every class, or name another column with --label COL"
            )


def one_hot_groups(columns: Sequence[Column]) -> list[tuple[Column, ...]]:
    """Runs of neighbouring 0/1 columns of which exactly one is 1 in every row.

    >>> import pandas as pd
    >>> from flows.columns import look
    >>> frame = pd.DataFrame({"x": list("1234"), "a": list("1000"), "b": list("0110"), "c": list("0001")})
    >>> [[member.name for member in group] for group in one_hot_groups(look(frame))]
    [['a', 'b', 'c']]
    """
    groups: list[tuple[Column, ...]] = []
    start = 0
    while start < len(columns):
        total = np.zeros(columns[start].rows, dtype=int)
        end = start
        while end < len(columns) and (bits := _bits(columns[end])) is not None and (total + bits).max(initial=0) <= 1:
            total += bits
            end += 1
            if end - start >= 2 and total.size and total.min() == 1:
                # A class that no row of this file has is a column of zeros beside the others.
                while end < len(columns) and columns[end].values == ("0",) and _kin(columns[end], columns[end - 1]):
                    end += 1
                groups.append(tuple(columns[start:end]))
                break
        else:
            end = start + 1
        start = end
    return groups


def _bits(column: Column) -> np.ndarray | None:
    if column.kind == "constant" and column.values == ("0",):
        return np.zeros(column.rows, dtype=int)
    flag = column.flag if column.kind == "number" and set(column.values) <= {"0", "1", "0.0", "1.0"} else None
    return None if flag is None else flag.astype(int)


def _kin(one: Column, other: Column) -> bool:
    return bool(set(words_of(one.name)) & set(words_of(other.name)))


def _group_score(group: Sequence[Column], columns: Sequence[Column]) -> float:
    told = sum(_says_defect(member.name) for member in group)
    if told * 2 >= len(group):
        return 95.0
    # Columns such as shift_A, shift_B, shift_C are one feature spread out; a label's classes stand at the end.
    prefixes = {words_of(member.name)[0] if words_of(member.name) else "" for member in group}
    at_end = group[-1].position == max(column.position for column in columns)
    return 50.0 if at_end and len(group) >= 3 and len(prefixes) == len(group) else 0.0


def _says_defect(name: str) -> bool:
    return names_any(name, BAD_NAMES | GOOD_NAMES | {"class", "label"})


def _from_one_hot(group: Sequence[Column], columns: Sequence[Column], others: tuple[str, ...]) -> Label:
    names = [member.name for member in group]
    rows = np.array(names, dtype=object)[np.stack([np.asarray(_bits(member)) for member in group]).argmax(axis=0)]
    taken = {column.name for column in columns}
    shared = [word for word in ("fault", "defect", "class", "label") if sum(_has(name, word) for name in names) > 1]
    name = next(free for free in [*shared, "label", "label_class", "softad_label"] if free not in taken)
    reason = f"exactly one of {len(names)} columns is 1 in every row: {', '.join(names)}; they become one label"
    return Label(name, tuple(names), rows, reason, others)


def _has(name: str, word: str) -> bool:
    return word in words_of(name) or word + "s" in words_of(name)


def _score(column: Column, columns: Sequence[Column]) -> float:
    if column.kind in ("empty", "constant", "time") or column.distinct < 2:
        return 0.0
    if column.kind == "text" and (column.distinct > FEW or column.near_unique):
        return 0.0
    score = strength(column.name, LABEL)
    if plain(column.name) == "y" and any(plain(other.name) == "x" for other in columns):
        score = 20.0  # x and y are a place on the part
    whole_name = "".join(words_of(column.name))
    if column.kind == "number" and column.distinct > _FEW_NUMBERS and whole_name not in NUMERIC_LABEL:
        score *= 0.2
    if is_verdict(column.values):
        score += 60.0
    elif column.kind == "text" and column.flag is not None:
        score += 15.0
    if score == 0.0:
        return 0.0
    if column.position == max(other.position for other in columns):
        score += 4.0
    return score - (20.0 if column.missing > 0.8 * column.rows else 0.0)


def _rivals_label(column: Column, label: Column) -> bool:
    """Whether a lesser candidate is so plainly the lesser one that it need not be mentioned."""
    return not column.few or strength(column.name, LABEL) < 0.5 * strength(label.name, LABEL)


def _why(column: Column) -> str:
    if strength(column.name, LABEL) >= _ENOUGH:
        return "its name says so"
    return f"its values ({', '.join(column.values[:3])}) are words for good and bad"


def _guess(columns: Sequence[Column]) -> Column | None:
    def could_be(column: Column) -> bool:
        return column.few and column.distinct <= _FEW_NUMBERS and column.kind in ("text", "number")

    def is_role(column: Column) -> bool:
        return names_any(column.name, SLICE) or names_group(column.name) or strength(column.name, IDENTIFIER) > 0

    texts = [column for column in columns if could_be(column) and column.kind == "text"]
    if len(texts) == 1 and not is_role(texts[0]):
        return texts[0]
    few = [column for column in columns if could_be(column)]
    ends = (min(c.position for c in columns), max(c.position for c in columns)) if columns else ()
    return few[0] if len(few) == 1 and few[0].position in ends and not is_role(few[0]) else None


def _candidates(columns: Sequence[Column]) -> str:
    possible = [c for c in columns if c.few and c.distinct <= _FEW_NUMBERS]
    last = max(columns, key=lambda c: c.position, default=None)
    if last is not None and last.kind == "number" and last not in possible:
        possible.append(last)
    possible.sort(key=lambda c: (c.distinct, -c.position))
    if not possible:
        return "; no column has few values that repeat"
    shown = [f"{c.name!r} ({c.distinct} values)" for c in possible[:6]]
    return f"; it could be {', '.join(shown)}{' or others' if len(possible) > 6 else ''}"


def _asked(columns: Sequence[Column], asked: str, data: str) -> Label:
    by_name = {column.name: column for column in columns}
    parts = [part.strip() for part in asked.split(",")]
    if asked not in by_name and len(parts) > 1 and all(part in by_name for part in parts):
        group = [by_name[part] for part in parts]
        bits = [_bits(member) for member in group]
        if any(bit is None for bit in bits) or np.any(np.sum([bit for bit in bits if bit is not None], axis=0) != 1):
            raise BadConfig(
                f"{data}: the columns {', '.join(parts)} are no one-hot label: in every row exactly one of them must "
                "be 1 and the others 0; name other columns with --label"
            )
        return _from_one_hot(group, columns, ())
    column = find_column(columns, asked, option="--label", data=data)
    if column.kind == "empty":
        raise BadConfig(f"{data}: the column {asked!r} is empty in every row; name another with --label COL")
    if column.distinct < 2:
        raise BadConfig(
            f"{data}: the column {asked!r} holds {column.values[0]!r} in every row, so nothing can be learned from it; "
            "give a file with more classes, or name another column with --label COL"
        )
    if column.kind == "time":
        raise BadConfig(f"{data}: the column {asked!r} holds times, not a decision; name another with --label COL")
    return Label(asked, (), _said(column), "you named it")


def find_column(columns: Sequence[Column], name: str, *, option: str, data: str) -> Column:
    """The column of that name.

    Raises
    ------
    BadConfig: there is none; the sentence names the nearest.
    """
    for column in columns:
        if column.name == name:
            return column
    names = [column.name for column in columns]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = (
        f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(names[:12])}{', …' if len(names) > 12 else ''}"
    )
    raise BadConfig(f"{data}: there is no column {name!r} (given with {option}); {hint}")


def decide_task(label: Label, *, kind: Literal["classification", "regression"] | None, data: str) -> Task:
    """Classification or regression, the classes, the class of good parts, the tolerance.

    A label of numbers is regression, unless they are few integers that repeat.

    Raises
    ------
    BadConfig: regression was asked for and the label holds text; or the label looks like free text.
    BadInput: fewer than two classes.
    """
    known = label.rows[label.rows != ""]
    values, counts = np.unique(known.astype(str), return_counts=True)
    numbers = coerce.numbers(pa.array(values.tolist(), pa.string())).values
    numeric = bool(values.size) and counts[np.isfinite(numbers)].sum() >= 0.95 * counts.sum() and not label.columns
    if kind == "regression" and not numeric:
        odd = next((str(value) for value, number in zip(values, numbers, strict=True) if not np.isfinite(number)), "")
        raise BadConfig(
            f"{data}: {label.name!r} cannot be regression, it holds text such as {odd!r}; leave --regression away"
        )
    if kind is None and numeric:
        spread = np.unique(numbers[np.isfinite(numbers)])
        integers = bool(np.all(spread == np.round(spread)))
        few = len(spread) <= max(2, min(_FEW_NUMBERS, counts.sum() // 15))
        kind = "classification" if few and (integers or len(spread) == 2) else "regression"
    if kind == "regression":
        typical = np.repeat(numbers, counts)
        deviation = float(np.nanstd(np.where(np.isfinite(typical), typical, np.nan)))
        return Task(kind="regression", tolerance=float(f"{deviation:.2g}") if deviation > 0 else None)
    if len(values) < 2:
        raise BadInput(
            f"{data}: the label {label.name!r} has fewer than two classes; give a file with good and bad parts"
        )
    if len(values) > FEW and not label.columns:
        raise BadConfig(
            f"{data}: {label.name!r} has {len(values)} different values, too many for classes; name another column "
            "with --label COL, or add --regression where it is a number"
        )
    classes = list(label.columns) or _in_order(values, numbers)
    if numeric and np.isfinite(numbers).all():
        # 1 and 1.0 are one class, written in two ways.
        classes = list({float(found): found for found in reversed(classes)}.values())[::-1]
    share = {value: int(count) for value, count in zip(values, counts, strict=True)}
    return Task(kind="classification", classes=classes, normal=_normal(classes, share, label))


def _in_order(values: np.ndarray, numbers: np.ndarray) -> list[str]:
    if np.isfinite(numbers).all():
        return [str(value) for value in values[np.argsort(numbers, kind="stable")]]
    return [str(value) for value in sorted(values)]


def _normal(classes: Sequence[str], counts: dict[str, int], label: Label) -> str | None:
    good = [value for value in classes if reads_as_good(value)]
    if len(good) == 1:
        return good[0]
    if len(classes) == 2:
        says_good, says_bad = names_any(label.name, GOOD_NAMES), names_any(label.name, BAD_NAMES)
        wanted = YES_VALUES if says_good else NO_VALUES
        told = [value for value in classes if plain(value) in wanted]
        # "Pass/Fail" says both, and so nothing about which of -1 and 1 is which.
        if len(told) == 1 and says_good != says_bad:
            return told[0]
        most = max(classes, key=lambda value: counts.get(value, 0))
        # Where most cells are empty, these may be two kinds of defect.
        return most if np.sum(label.rows == "") <= counts.get(most, 0) else None
    zero = [
        value for value in classes if plain(value) in ("0", "0.0") and counts.get(value, 0) * 2 > sum(counts.values())
    ]
    return zero[0] if zero else None
