"""Columns that give the label away: they were written after the decision, or are the decision in other words.

A finding is a question to a person and no proof: with few rows an honest measurement can part the classes too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import rankdata, spearmanr

from flows.columns import Column
from flows.proposal_words import words_of

PRECISION = 0.995
LIFT = 5.0
MIN_ROWS = 30
AUC = 0.99
MIN_CLASS_ROWS = 10
_UNION = 0.95
_MEMBER_PRECISION = 0.9
_RARE = 0.1

Rule = Literal["value", "auc", "rank", "union", "like", "part"]
"""By which rule a column was found; "part": it tells one class of several, and the others are still to be learned."""


@dataclass(frozen=True)
class Leak:
    """A column that gives the label away.

    Attributes
    ----------
    column, reason: which, and a sentence of why.
    keep_hint: the command that keeps it.
    rule: which rule found it.
    strength: how sure it is, in [0, 1]; to choose the least suspicious among several.
    """

    column: str
    reason: str
    keep_hint: str
    rule: Rule
    strength: float


def find_leaks(
    columns: Sequence[Column], label: np.ndarray, *, regression: bool = False, normal: str | None = None
) -> list[Leak]:
    """Look at each column alone, and at all 0/1 columns together.

    Parameters
    ----------
    columns: those that could be features; not the label itself.
    label: (rows,) text, "" where it is not known.
    regression: the label is a number.
    normal: the class of good parts.

    >>> import pandas as pd
    >>> from flows.columns import look
    >>> late = ["1" if row % 20 == 0 else "0" for row in range(1200)]
    >>> frame = pd.DataFrame({"x": [str(row * 37 % 101) for row in range(1200)], "repaired": late})
    >>> [(leak.column, leak.rule) for leak in find_leaks(look(frame), np.array(late, dtype=object))]
    [('repaired', 'value')]
    """
    known = label != ""
    found: dict[str, Leak] = {}
    if regression:
        numbers = np.array([float(text) if _is_float(text) else np.nan for text in label])
        for column in columns:
            leak = _by_rank(column, numbers)
            if leak is not None:
                found[column.name] = leak
        return [found[column.name] for column in columns if column.name in found]
    classes, truth = np.unique(label[known].astype(str), return_inverse=True)
    if len(classes) < 2:
        return []
    for column in columns:
        codes = column.codes[known]
        leak = _by_value(column, codes, truth, classes) or _by_auc(column, known, truth, classes, normal)
        if leak is not None:
            found[column.name] = leak
    for leak in _by_union(columns, known, truth, classes, normal):
        found.setdefault(leak.column, leak)
    return [found[column.name] for column in columns if column.name in found]


def _is_float(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _by_value(column: Column, codes: np.ndarray, truth: np.ndarray, classes: np.ndarray) -> Leak | None:
    """A value, or the empty cell, that at least 30 rows have, nearly all of one class, and that class is rare else."""
    if column.near_unique:
        return None
    table = np.zeros((column.distinct + 1, len(classes)), dtype=int)  # the last line is the empty cell
    np.add.at(table, (codes, truth), 1)
    rows = table.sum(axis=1)
    base = table.sum(axis=0) / table.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = table / rows[:, None]
        lift = precision / base
    guilty = (rows[:, None] >= MIN_ROWS) & (precision >= PRECISION) & (lift >= LIFT)
    if not guilty.any():
        return None
    line, of = np.unravel_index(np.argmax(np.where(guilty, table, 0)), table.shape)
    cell = f"the value {column.values[line]!r}" if line < column.distinct else "an empty cell"
    share = precision[line, of]
    in_them = "all" if share == 1.0 else f"{share:.1%}"
    meant = repr(str(classes[of]))
    reason = f"{cell} ({rows[line]:,} rows) means {meant} in {in_them} of them, against {base[of]:.1%} of all rows"
    return Leak(column.name, reason, "", "value", float(share))


def _by_auc(
    column: Column, known: np.ndarray, truth: np.ndarray, classes: np.ndarray, normal: str | None
) -> Leak | None:
    """The column alone parts one class from all others.

    Of three classes or more, a measurement may do so with one of them and leave the others to be learned: it is one
    that gives the label away only where it parts the good class, a class that half of the rows are of, or every class.
    """
    best, which, how = 0.0, 0, ""
    sizes = np.bincount(truth)
    told = np.zeros(len(sizes), dtype=bool)
    for of, size in enumerate(sizes):
        if len(classes) == 2 and classes[of] == normal:
            continue  # the other class says the same, and is the one that people ask about
        if size < MIN_CLASS_ROWS or len(truth) - size < MIN_CLASS_ROWS:
            continue
        member = truth == of
        for score, name in _scores(column, known, member):
            area = rank_auc(score, member)
            told[of] |= area >= AUC
            if area > best:
                best, which, how = area, of, name
    if best < AUC:
        return None
    measured = column.numbers is not None and column.distinct > 10
    most = normal in classes[told] or sizes[told].max() >= len(truth) / 2 or told[sizes >= MIN_CLASS_ROWS].all()
    part = len(classes) > 2 and measured and not most
    reason = f"{how} alone tells {str(classes[which])!r} from all else (AUC {best:.3f})"
    if measured and not part:
        reason += "; if it is measured before the decision, keep it"
    return Leak(column.name, reason, "", "part" if part else "auc", best)


def _scores(column: Column, known: np.ndarray, member: np.ndarray) -> list[tuple[np.ndarray, str]]:
    """Numbers by which a column could rank the rows, each with its name in a sentence."""
    scores: list[tuple[np.ndarray, str]] = []
    codes = column.codes[known]
    ordered = column.numbers if column.numbers is not None else None
    if column.times is not None:
        ordered = np.where(np.isnat(column.times), np.nan, column.times.astype(np.int64).astype(float))
    if ordered is not None:
        here = ordered[known]
        gaps = np.isnan(here)
        if gaps.all():
            return scores
        scores += [(np.where(gaps, fill, here), "its value") for fill in ((-np.inf, np.inf) if gaps.any() else (0.0,))]
        if gaps.any():
            scores.append((gaps.astype(float), "whether it is empty"))
        if column.distinct > 50:
            return scores
    # The share of the class among the rows of a value; a value of few rows would only repeat its own rows' labels.
    table = np.bincount(codes + 1, minlength=column.distinct + 1)
    hits = np.bincount(codes + 1, weights=member, minlength=column.distinct + 1)
    rare = table < MIN_ROWS
    rest = hits[rare].sum() / max(table[rare].sum(), 1)
    share = np.where(rare, rest, hits / np.maximum(table, 1))
    scores.append((share[codes + 1], "its value" if not column.missing else "its value, or that it is empty,"))
    return scores


def rank_auc(score: np.ndarray, member: np.ndarray) -> float:
    """Probability that a member's score differs from another's in the one direction, ties half; at least .5.

    >>> rank_auc(np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, True, False, False]))
    1.0
    """
    ranks = rankdata(score)
    inside = int(member.sum())
    outside = len(member) - inside
    area = (ranks[member].sum() - inside * (inside + 1) / 2) / (inside * outside)
    return float(max(area, 1.0 - area))


def _by_rank(column: Column, numbers: np.ndarray) -> Leak | None:
    """Regression: the column puts the rows in the label's order."""
    if column.numbers is None:
        return None
    both = np.isfinite(column.numbers) & np.isfinite(numbers)
    if both.sum() < MIN_ROWS or np.unique(column.numbers[both]).size < 3:
        return None
    correlation = abs(float(spearmanr(column.numbers[both], numbers[both]).statistic))
    if not correlation >= AUC:
        return None
    reason = f"it alone puts the rows in the order of the label (rank correlation {correlation:.3f})"
    return Leak(column.name, reason, "", "rank", correlation)


def _by_union(
    columns: Sequence[Column], known: np.ndarray, truth: np.ndarray, classes: np.ndarray, normal: str | None
) -> list[Leak]:
    """0/1 columns of which one or more is 1 just where the label says one class, and the columns like them."""
    if len(classes) != 2:
        return []
    bits = {column.name: flag[known] for column in columns if (flag := column.flag) is not None}
    defect = 1 - int(np.argmax(classes == normal)) if normal in classes else int(np.argmin(np.bincount(truth)))
    for target in (defect, 1 - defect):
        chosen = _union_of(bits, truth == target)
        if chosen:
            return _union_leaks(columns, bits, chosen, truth == target, str(classes[target]))
    return []


def _union_of(bits: dict[str, np.ndarray], member: np.ndarray) -> list[str]:
    """The columns whose union is the class; none where it is not."""
    # Of a class that most rows are in, a column that says nothing has many too, so more is asked of it.
    common = member.mean() >= 0.5
    wanted = PRECISION if common else _MEMBER_PRECISION
    chosen = [name for name, bit in bits.items() if bit.any() and not bit.all() and member[bit].mean() >= wanted]
    if len(chosen) < 2 or _agreement(bits, chosen, member) < _UNION:
        return []
    for name in list(chosen) if common else ():
        # An honest column of that class is covered by the others.
        rest = [other for other in chosen if other != name]
        if len(rest) >= 2 and _agreement(bits, rest, member) >= _agreement(bits, chosen, member):
            chosen = rest
    return chosen


def _agreement(bits: dict[str, np.ndarray], names: list[str], member: np.ndarray) -> float:
    """How far the union of the columns is the class: the least of precision and recall, inside and outside."""
    union = np.logical_or.reduce([bits[name] for name in names])
    if union.all() or not union.any():
        return 0.0
    shares = (member[union], union[member], ~member[~union], ~union[~member])
    return float(min(share.mean() for share in shares))


def _union_leaks(
    columns: Sequence[Column], bits: dict[str, np.ndarray], chosen: list[str], member: np.ndarray, class_name: str
) -> list[Leak]:
    union = np.logical_or.reduce([bits[name] for name in chosen])
    together = f"{', '.join(chosen[:-1])} and {chosen[-1]}"
    reason = (
        f"{together} together say what the label says: one of them is 1 in {union[member].mean():.1%} of the "
        f"{member.sum():,} rows of {class_name!r}, and {member[union].mean():.1%} of the rows where one is 1 are of it"
    )
    found = [Leak(name, reason, "", "union", float(member[union].mean())) for name in chosen]
    for column in columns:
        if column.name in bits and column.name not in chosen and _is_like(column, chosen, bits, columns):
            text = f"it looks recorded after the fact, like {together}; decide"
            found.append(Leak(column.name, text, "", "like", 0.5))
    return found


def _is_like(column: Column, chosen: list[str], bits: dict[str, np.ndarray], columns: Sequence[Column]) -> bool:
    """Whether a rare 0/1 column stands in one row with the chosen ones, or is named in their manner."""
    if bits[column.name].mean() > _RARE:
        return False
    rare = {name for name, bit in bits.items() if bit.mean() <= _RARE} | set(chosen)
    place = {other.position: other.name for other in columns}
    for step in (-1, 1):
        at = column.position + step
        while place.get(at) in rare:
            if place[at] in chosen:
                return True
            at += step
    ends = {tuple(words_of(name)[-1:]) for name in chosen if len(words_of(name)) > 1}
    return len(ends) == 1 and tuple(words_of(column.name)[-1:]) in ends
