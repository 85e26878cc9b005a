"""Which windows are to be judged now: by the calendar and the age of their labels, never by a loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pandas as pd

from flows.context import Context
from flows.dataset import window_bounds, window_complete, window_of
from flows.engine import quoted
from flows.lives import Life
from flows.reference import feature_columns
from flows.settings import Settings
from flows.store import current_rows
from flows.units import Ends, label_age, labels_told, lot_of

MOSTLY_LABELLED = 0.8
"""A window whose labels had their time on the calendar is looked at once this share of its rows is labelled."""


@dataclass(frozen=True)
class DueWindow:
    """A window whose labels had their time.

    Attributes
    ----------
    cutoff: when the labels had to be there.
    rows: the labelled ones; from `due_windows` with what a window is told by, after `with_features` with all that
        judging needs. `_rows` is the number of all.
    age: days after the window's end that the labels had; None where all count that are there.
    name: of the look, for files.
    last: the window is not looked at again in this life.
    """

    window: str
    start: datetime | None
    end: datetime | None
    cutoff: datetime
    rows: pd.DataFrame
    age: float | None = None
    name: str = ""
    last: bool = True


def looks_of(life: Life, settings: Settings) -> tuple[float | None, ...]:
    """The label ages at which a life looks at each window; None: all labels that are there.

    As long as the reference is gathered, each window is taken once, when its labels are as old as they get.
    """
    if life.scan is None:
        return (max(settings.monitoring.label_ages) if settings.data.window.rows is None else None,)
    ages = life.scan["label_age"]
    # Lives that began before ages were counted have one, or none.
    return tuple(ages) if isinstance(ages, list) else (ages,)


def due_windows(context: Context, life: Life, *, now: datetime) -> list[DueWindow]:
    """Windows whose labels had their time by `now`, without those that were judged, in the order of the calendar.

    A calendar window is due when it ended `label_age_days` ago, and its rows are mostly labelled or arrived that long
    ago; a window of N rows when it is complete, under the same condition. With several label ages a window is due at
    each, when its rows have all had it. None of this looks at a loss.
    """
    settings, store = context.settings, context.store
    # A correction keeps its place in the order of arrival, so a row that trained the model never comes back here.
    wanted = ["_id", "_version", "_seq", "_time", "_at", *settings.data.lot_columns]
    rows = current_rows(store, columns=wanted, where=f"_seq > {life.after_seq}")
    if rows.empty:
        return []
    judged = store.read("windows", columns=["window", "state", "labelled", "age", "at"], where=f"life = '{life.name}'")
    closed = judged[judged["state"] != "too_few_labels"]
    newest = int(rows["_seq"].max())
    rows = rows.assign(_window=window_of(rows, settings))
    if settings.data.lot:
        rows = in_whole_lots(_without_known_lots(context, rows, life), closed)
    looks = looks_of(life, settings)
    gone = set(closed.loc[closed["state"] == "reference", "window"])
    final = {(window, age) for window, age in zip(closed["window"], _ages(closed, looks), strict=True)}
    open_windows = {key for key in rows["_window"].unique() if any((key, age) not in final for age in looks)} - gone
    rows = rows[rows["_window"].isin(open_windows)]
    if rows.empty:
        return []
    rows = rows.merge(labels_told(store, settings), on="_id", how="left")
    rows["_age"] = label_age(rows, Ends(settings).of(rows["_window"]))
    attempts: dict[tuple[str, float | None], int] = {}
    for window, age, labelled in zip(judged["window"], _ages(judged, looks), judged["labelled"], strict=True):
        attempts[window, age] = max(attempts.get((window, age), -1), int(labelled))
    due = []
    for key, part in rows.groupby("_window", sort=True):
        window = str(key)
        if not window_complete(window, settings, newest=newest, now=now):
            continue
        for age in looks:
            if (window, age) not in final:
                found = _look(part, window, age, settings, several=len(looks) > 1, now=now)
                if found is not None and attempts.get((window, age), -1) < len(found.rows):
                    due.append(replace(found, last=age == looks[-1]))
    # Each age has a calendar of its own; what was due first is looked at first.
    return (
        sorted(due, key=lambda each: (each.end or each.cutoff, each.window)) if len(looks) == 1 else _interleaved(due)
    )


def _interleaved(due: list[DueWindow]) -> list[DueWindow]:
    def moment(each: DueWindow) -> datetime:
        return each.cutoff if each.end is None else each.end + timedelta(days=each.age or 0.0)

    return sorted(due, key=lambda each: (moment(each), each.window))


def _look(
    part: pd.DataFrame, window: str, age: float | None, settings: Settings, *, several: bool, now: datetime
) -> DueWindow | None:
    start, end = window_bounds(window, settings)
    arrived = part["_at"].max().to_pydatetime()
    wait = timedelta(days=max(settings.monitoring.label_ages) if age is None else age)
    labels_due = (arrived if end is None else max(end, arrived)) + wait
    if age is None:
        counted = part["label"].notna() & (part["_label_time"] <= max(labels_due, now if end is None else labels_due))
    else:
        counted = part["label"].notna() & (part["_age"] <= age + _SECOND) & (part["_label_in"] <= now)
    aged = (end is None or now >= end + wait) if not several else now >= labels_due
    if not (aged and (counted.mean() >= MOSTLY_LABELLED or now >= labels_due)):
        return None
    rows = (part if counted.all() else part[counted]).assign(_rows=len(part))
    name = f"{window}-{age:g}d" if several else window
    return DueWindow(window, start, end, labels_due, rows, age=age, name=name)


_SECOND = 1.0 / 86_400


def _ages(windows: pd.DataFrame, looks: tuple[float | None, ...]) -> list[float | None]:
    """The age of each look that was recorded; before there could be several, it was not."""
    return [looks[0] if len(looks) == 1 or pd.isna(age) else float(age) for age in windows["age"]]


def rows_then(context: Context, life: Life, window: str, age: float | None, *, at: datetime) -> DueWindow | None:
    """A window as a look at it found it at `at`; None where the tables do not hold so many labels any more."""
    settings, store = context.settings, context.store
    columns = ", ".join(
        quoted(name) for name in ["_id", "_version", "_seq", "_time", "_at", *settings.data.lot_columns]
    )
    rows = store.sql(
        f"SELECT {columns} FROM inspections WHERE _seq > {life.after_seq} "  # noqa: S608
        f"AND _at <= TIMESTAMPTZ '{at.isoformat()}' "
        "QUALIFY row_number() OVER (PARTITION BY _id ORDER BY _version DESC) = 1 ORDER BY _seq, _id"
    )
    if rows.empty:
        return None
    rows = rows.assign(_window=window_of(rows, settings))
    if settings.data.lot:
        before = store.read("windows", columns=["window", "state", "at"], where=f"life = '{life.name}'")
        before = before[(before["state"] != "too_few_labels") & (before["at"] < at)]
        rows = in_whole_lots(_without_known_lots(context, rows, life), before)
    rows = rows[rows["_window"] == window]
    rows = rows.merge(labels_told(store, settings, until=at), on="_id", how="left")
    rows["_age"] = label_age(rows, Ends(settings).of(rows["_window"]))
    return _look(rows, window, age, settings, several=False, now=at) if len(rows) else None


def _without_known_lots(context: Context, rows: pd.DataFrame, life: Life) -> pd.DataFrame:
    """Rows with their lot (`_lot`), without lots that the model may have seen a part of."""
    settings = context.settings
    rows = rows.assign(_lot=lot_of(rows, settings))
    columns = ", ".join(quoted(name) for name in ["_id", "_time", "_at", *settings.data.lot_columns])
    before = context.store.sql(f"SELECT {columns} FROM inspections WHERE _seq <= {life.after_seq}")  # noqa: S608
    known = set() if before.empty else set(lot_of(before, settings))
    return rows[~rows["_lot"].isin(known)]


def in_whole_lots(rows: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """Rows in the window in which their lot ends; without what comes of a lot after its window was judged.

    Parameters
    ----------
    rows: `_lot`, `_window`, `_at`.
    judged: `window` and `at` of the looks so far.

    >>> moments = pd.to_datetime(["2026-01-02", "2026-01-06", "2026-01-06"], utc=True)
    >>> rows = pd.DataFrame({"_lot": ["A", "A", "B"], "_window": ["W1", "W2", "W2"], "_at": moments})
    >>> in_whole_lots(rows, pd.DataFrame({"window": [], "at": []}))["_window"].tolist()
    ['W2', 'W2', 'W2']
    >>> early = pd.DataFrame({"window": ["W1"], "at": pd.to_datetime(["2026-01-03"], utc=True)})
    >>> in_whole_lots(rows, early)[["_lot", "_window"]].values.tolist()
    [['A', 'W1'], ['B', 'W2']]
    """
    counts = rows.groupby("_lot")["_window"].nunique()
    parted = rows["_lot"].isin(counts.index[counts > 1])
    if not parted.any():
        return rows
    first_looks = dict(judged.groupby("window")["at"].min()) if len(judged) else {}
    moved: dict[str, str] = {}
    late: list[int] = []
    for lot, part in rows[parted].groupby("_lot"):
        windows = sorted(part["_window"].unique())
        end = windows[-1]
        for window in windows[:-1]:
            look = first_looks.get(window)
            if look is not None and part.loc[part["_at"] <= look, "_window"].max() == window:
                # It seemed to end here, and was judged: its later rows belong to no window.
                end = window
                late.extend(part.index[part["_window"] > window])
                break
        moved[str(lot)] = str(end)
    rows = rows.assign(_window=rows["_lot"].map(moved).where(parted, rows["_window"]))
    return rows.drop(index=late)


def with_features(context: Context, due: DueWindow) -> DueWindow:
    """The window with its rows' features: read when its turn comes, since rows are wide and windows may be many."""
    if due.rows.empty:
        return due
    first, last = int(due.rows["_seq"].min()), int(due.rows["_seq"].max())
    features = current_rows(
        context.store, columns=feature_columns(context, "_seq", "_version", "_image"),
        where=f"_seq BETWEEN {first} AND {last}", ordered=False,
    )  # fmt: skip
    # Nearly always the window is all there is between its first and its last row.
    if len(features) != len(due.rows):
        features = features[features["_id"].isin(due.rows["_id"])]
    features = features.sort_values(["_seq", "_id"], kind="stable", ignore_index=True)
    # Both are in order of arrival, so nothing has to be looked up.
    narrow = due.rows.sort_values(["_seq", "_id"], kind="stable", ignore_index=True)
    if not narrow["_id"].equals(features["_id"]):
        raise ValueError(f"window {due.window}: its rows changed while they were read")
    told = [name for name in narrow.columns if name not in features.columns]
    return replace(due, rows=features.assign(**{name: narrow[name] for name in told}))
