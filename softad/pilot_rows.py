"""The rows of a pilot study: a table and its target checked, and cut again and again into three parts.

Every row is judged once in each block of five rounds: the rows are dealt into five folds, and a round judges one fold,
stops early and calibrates on the next, and trains on the other three. Where rows have an order in time they are cut
into eight stretches, and a round judges a stretch, stops early on the one before it, and trains on all earlier ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_numeric_dtype

from softad.preprocessing import Preprocessor
from softad.stacked import Split

FOLDS = 5
STRETCHES = 8
"""Of rows in order of time; the last `FOLDS` of them are judged."""
LEAST_ROWS = 50
MOST_CLASSES_OF_NUMBERS = 20
"""With ``task="auto"``, a target of more different numbers than these is one of regression."""

Ints = npt.NDArray[np.int64]
Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class PilotRows:
    """Checked rows.

    Attributes
    ----------
    frame: features, n rows.
    target: class numbers or values, shape (n,).
    classes: labels in the order of their numbers; empty for regression.
    groups: group numbers, shape (n,), or None; rows of one group stay together.
    numeric, categorical: columns by kind.
    origin: which row of the caller's each is, shape (n,).
    order: when each row was, as whole numbers, shape (n,), or None.
    pictures: images in place of columns, shape (n, channels, height, width), or None.
    """

    frame: pd.DataFrame
    target: npt.NDArray[Any]
    classes: tuple[str, ...]
    groups: Ints | None
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    origin: Ints
    order: Ints | None = None
    pictures: npt.NDArray[np.float32] | None = None

    @property
    def task(self) -> Task:
        """What kind of target it is."""
        return "classification" if self.classes else "regression"

    def sample(self, count: int, seed: int) -> PilotRows:
        """At most `count` of the rows, classes in proportion; whole groups where there are groups."""
        total = len(self.frame)
        if count >= total:
            return self
        rng = np.random.default_rng(seed)
        if self.groups is None:
            keep = np.sort(_dealt(self._strata(), rng)[:count])
        else:
            order = rng.permutation(np.unique(self.groups))
            sizes = np.bincount(self.groups)[order]
            keep = np.flatnonzero(np.isin(self.groups, order[: max(int((sizes.cumsum() <= count).sum()), FOLDS)]))
        groups = None if self.groups is None else np.unique(self.groups[keep], return_inverse=True)[1].astype(np.int64)
        return PilotRows(
            self.frame.iloc[keep].reset_index(drop=True),
            self.target[keep],
            self.classes,
            groups,
            self.numeric,
            self.categorical,
            self.origin[keep],
            None if self.order is None else self.order[keep],
            None if self.pictures is None else self.pictures[keep],
        )

    def stretches(self) -> Ints:
        """The stretch of time that each row lies in, shape (n,); rows of one time stay together.

        Raises
        ------
        ValueError: the rows have no order, or so few different times that a stretch would be empty.
        """
        if self.order is None:
            raise ValueError("order: None; allowed: one number a row")
        first = np.searchsorted(np.sort(self.order), self.order)
        found = (first * STRETCHES // self.order.size).astype(np.int64)
        if np.unique(found).size < STRETCHES:
            raise ValueError(f"order: too few different times; allowed: so many that {STRETCHES} stretches have rows")
        return found

    def parts(self, number: int, random_state: int) -> tuple[Ints, Ints, Ints]:
        """Row numbers of the round `number`: to train on, to stop by, and to be judged."""
        block, turn = divmod(number, FOLDS)
        if self.order is not None:
            when = self.stretches()
            judged = STRETCHES - FOLDS + turn
            return np.flatnonzero(when < judged - 1), np.flatnonzero(when == judged - 1), np.flatnonzero(when == judged)
        folds = self.folds(1_000 * random_state + block)
        told, held = folds == turn, folds == (turn + 1) % FOLDS
        return np.flatnonzero(~told & ~held), np.flatnonzero(held), np.flatnonzero(told)

    def folds(self, seed: int) -> Ints:
        """The fold of each row, shape (n,): as many of each class in each as can be."""
        rng = np.random.default_rng(seed)
        folds = np.empty(len(self.frame), dtype=np.int64)
        if self.groups is None:
            order = _dealt(self._strata(), rng)
            folds[order] = np.arange(order.size) * FOLDS // order.size
            return folds
        sizes = np.bincount(self.groups)
        filled = np.zeros(FOLDS, dtype=np.int64)
        of_group = np.empty(sizes.size, dtype=np.int64)
        # Large groups first, in random order among equals, each to the emptiest fold.
        for group in np.lexsort((rng.random(sizes.size), -sizes)):
            of_group[group] = int(filled.argmin())
            filled[of_group[group]] += sizes[group]
        return of_group[self.groups]

    def _strata(self) -> Ints:
        if self.classes:
            return self.target.astype(np.int64)
        return np.argsort(np.argsort(self.target)) * 10 // self.target.size


@dataclass(frozen=True)
class Round:
    """One cut of the rows, ready for training.

    Attributes
    ----------
    number: from 0.
    split: rows to train on and to stop by.
    features, target: of the rows that are judged; values of regression in the unit of `unit`.
    rows: their numbers.
    unit: what a target of 1 is worth: the training rows' standard deviation; 1 for classes.
    """

    number: int
    split: Split
    features: torch.Tensor
    target: npt.NDArray[Any]
    rows: Ints
    unit: float

    def constant_losses(self, classes: int) -> npt.NDArray[np.float64]:
        """Losses of the judged rows, shape (n,), under the training rows' class shares, or their mean."""
        if not classes:
            return np.square(self.target.astype(np.float64))
        counts = np.bincount(self.split.targets.numpy(), minlength=classes) + 0.5
        return np.asarray(-np.log(counts / counts.sum())[self.target], dtype=np.float64)


def cut_round(rows: PilotRows, number: int, random_state: int) -> Round:
    """The round `number`; preprocessing is learnt on its training rows only.

    >>> import pandas as pd
    >>> checked = check_rows(pd.DataFrame({"x": range(50)}), [0, 1] * 25)
    >>> cut = cut_round(checked, 0, random_state=0)
    >>> cut.split.features.shape[0], cut.split.validation_features.shape[0], cut.rows.size
    (30, 10, 10)
    """
    parts = rows.parts(number, random_state)
    if rows.pictures is None:
        kept = Preprocessor.fit(rows.frame.iloc[parts[0]], numeric=rows.numeric, categorical=rows.categorical)
        features = [torch.from_numpy(kept.transform(rows.frame.iloc[part])) for part in parts]
    else:
        features = [torch.from_numpy(rows.pictures[part]) for part in parts]
    target, unit = rows.target, 1.0
    if not rows.classes:
        seen = target[parts[0]]
        unit = float(seen.std()) or 1.0
        target = ((target - seen.mean()) / unit).astype(np.float32)
    tensors = [torch.from_numpy(target[part]) for part in parts]
    return Round(
        number,
        Split(features[0], tensors[0], features[1], tensors[1]),
        features[2],
        target[parts[2]],
        parts[2].astype(np.int64),
        unit,
    )


def check_rows(
    X: pd.DataFrame | npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    task: str = "auto",
    groups: npt.ArrayLike | None = None,
    order: npt.ArrayLike | None = None,
) -> PilotRows:
    """Check a table and its target.

    Parameters
    ----------
    X: a frame (columns of numbers; all others are categories), an array (n, d) of numbers, or images, shape
        (n, channels, height, width). NaN is missing.
    y: labels or values, shape (n,), none missing.
    task: "auto" takes a target of more than `MOST_CLASSES_OF_NUMBERS` different floating point numbers, or of any that
        are no whole numbers, for regression.
    groups: one a row, such as the machine or lot; shape (n,).
    order: when each row was, as numbers, shape (n,); rows are then judged by models of earlier rows only.

    >>> check_rows([[float(n)] for n in range(60)], ["ok", "dent", "ok"] * 20).classes
    ('dent', 'ok')

    Raises
    ------
    ValueError: names the argument, what it holds, and what it may hold.
    """
    pictures = None
    if not isinstance(X, pd.DataFrame) and np.ndim(X) == 4:
        pictures = np.asarray(X, dtype=np.float32)
        frame = pd.DataFrame({"picture": np.zeros(len(pictures))})
    else:
        frame = _frame(X)
    total = len(frame)
    if task not in ("auto", "classification", "regression"):
        raise ValueError(f'task: {task!r}; allowed: "auto", "classification" or "regression"')
    if total < LEAST_ROWS:
        raise ValueError(f"X: {total} rows; allowed: at least {LEAST_ROWS}")
    labels = pd.Series(np.asarray(y).ravel() if np.ndim(y) == 2 and np.shape(y)[1] == 1 else np.asarray(y))
    if labels.size != total:
        raise ValueError(f"y: {labels.size} values; allowed: {total}, one a row of X")
    if labels.isna().any():
        raise ValueError(f"y: missing in row {int(labels.isna().to_numpy().argmax())}; allowed: a label in every row")
    numeric, categorical = _kinds(frame)
    members = None
    if groups is not None:
        codes, names = pd.factorize(pd.Series(np.asarray(groups)), use_na_sentinel=False)
        if codes.size != total:
            raise ValueError(f"groups: {codes.size} values; allowed: {total}, one a row of X")
        if len(names) < FOLDS:
            raise ValueError(f"groups: {len(names)} different ones; allowed: at least {FOLDS}")
        members = codes.astype(np.int64)
    when = None if order is None else _order(order, total)
    extra = (np.arange(total), when, pictures)
    if task == "regression" or (task == "auto" and _is_measured(labels)):
        return _ordered(PilotRows(frame, _values(labels), (), members, numeric, categorical, *extra))
    words = labels.map(lambda one: str(int(one)) if isinstance(one, float) and one.is_integer() else str(one))
    classes = sorted(words.unique())
    if len(classes) < 2:
        raise ValueError(f"y: only one class, {classes[0]!r}; allowed: at least two classes")
    if len(classes) > total // 5:
        raise ValueError(
            f'y: {len(classes)} classes in {total} rows; allowed: at most {total // 5}, or task="regression"'
        )
    numbers = np.searchsorted(classes, words.to_numpy(dtype=str)).astype(np.int64)
    return _ordered(PilotRows(frame, numbers, tuple(classes), members, numeric, categorical, *extra))


def _order(order: npt.ArrayLike, total: int) -> Ints:
    values = np.asarray(order, dtype=np.float64)
    if values.shape != (total,) or not np.isfinite(values).all():
        raise ValueError(f"order: shape {values.shape}; allowed: {total} finite numbers, one a row of X")
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _ordered(rows: PilotRows) -> PilotRows:
    if rows.order is not None:
        rows.stretches()
    return rows


def normal_class(rows: PilotRows, normal: object) -> int:
    """The number of the class of normal rows: the one named, or the most frequent; 0 for regression.

    >>> normal_class(check_rows(np.zeros((60, 1)), ["dent", "ok", "ok"] * 20), None)
    1

    Raises
    ------
    ValueError: there is no such class.
    """
    if not rows.classes:
        if normal is not None:
            raise ValueError(f"normal: {normal!r} with regression; allowed: None")
        return 0
    if normal is None:
        return int(np.bincount(rows.target).argmax())
    name = str(int(normal)) if isinstance(normal, float) and normal.is_integer() else str(normal)
    if name not in rows.classes:
        raise ValueError(f"normal: {normal!r}; allowed: one of {', '.join(rows.classes[:20])}")
    return rows.classes.index(name)


def _frame(X: pd.DataFrame | npt.ArrayLike) -> pd.DataFrame:
    if isinstance(X, pd.DataFrame):
        frame = X.reset_index(drop=True)
        frame.columns = pd.Index([str(name) for name in frame.columns])
        twice = frame.columns[frame.columns.duplicated()]
        if len(twice):
            raise ValueError(f"X: the column {twice[0]!r} occurs twice; allowed: different names")
    else:
        array = np.asarray(X)
        if array.ndim != 2 or array.dtype.kind not in "fiub":
            raise ValueError(f"X: {array.dtype}, shape {array.shape}; allowed: a frame, or numbers of shape (n, d)")
        frame = pd.DataFrame(array.astype(np.float64), columns=[f"x{number}" for number in range(array.shape[1])])
    if frame.shape[1] == 0:
        raise ValueError("X: no column; allowed: at least one")
    return frame


def _kinds(frame: pd.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
    numeric, categorical = [], []
    for name in frame.columns:
        column = frame[name]
        if is_datetime64_any_dtype(column):
            raise ValueError(f"X: the column {name!r} holds times; allowed: numbers and categories")
        if not is_numeric_dtype(column) or is_bool_dtype(column):
            categorical.append(name)
            continue
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        if np.isinf(values).any():
            row = int(np.isinf(values).argmax())
            raise ValueError(f"X: {values[row]} in row {row}, column {name!r}; allowed: finite numbers, or missing")
        numeric.append(name)
    return tuple(numeric), tuple(categorical)


def _is_measured(labels: pd.Series[Any]) -> bool:
    if not is_numeric_dtype(labels) or is_bool_dtype(labels):
        return False
    values = labels.to_numpy(dtype=np.float64)
    whole = bool(np.all(values == np.floor(values)))
    return not whole or (labels.dtype.kind == "f" and np.unique(values).size > MOST_CLASSES_OF_NUMBERS)


def _values(labels: pd.Series[Any]) -> npt.NDArray[np.float64]:
    try:
        values = labels.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f'y: {labels.iloc[0]!r}; allowed: numbers, with task="regression"') from error
    if not np.isfinite(values).all():
        row = int((~np.isfinite(values)).argmax())
        raise ValueError(f"y: {values[row]} in row {row}; allowed: finite numbers")
    if values.min() == values.max():
        raise ValueError(f"y: only one value, {values[0]:g}; allowed: at least two different ones")
    return values


def _dealt(strata: Ints, rng: np.random.Generator) -> Ints:
    """Row numbers in an order of which every stretch holds the strata in proportion."""
    order = rng.permutation(strata.size)
    place = np.empty(strata.size)
    for stratum in np.unique(strata):
        members = order[strata[order] == stratum]
        place[members] = (np.arange(members.size) + rng.random()) / members.size
    return np.argsort(place, kind="stable")
