"""From the tables to labelled rows: joined, in their windows, in their folds, without what must not train a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from flows import ledger
from flows.errors import BadConfig
from flows.folds import FEW_GROUPS, fold_of, group_of, row_time
from flows.settings import Settings
from flows.store import current_labels, current_rows

if TYPE_CHECKING:
    from flows.store import Store

__all__ = [
    "Exclusion",
    "excluded",
    "exclusions",
    "fold_of",
    "labelled_rows",
    "last_windows",
    "remember_groups",
    "row_time",
    "window_bounds",
    "window_of",
]

ADDED = ("label", "label_value", "window", "fold")
"""Columns that `labelled_rows` adds under plain names."""
NO_TIME = "without-time"
"""The window of a row that has no time at all, where windows are calendar periods."""


def window_of(frame: pd.DataFrame, settings: Settings) -> pd.Series:
    """The key of the window each row belongs to; keys sort in the order of time.

    Parameters
    ----------
    frame: with `_time` (and `_at`, for rows without a time), or `_seq` where windows are numbers of rows.

    >>> settings = Settings.model_validate({"name": "a", "data": {"label": "y", "numeric": ["x"], "time": "t",
    ...     "time_zone": "Asia/Tokyo", "window": {"period": "week"}}})
    >>> late_sunday_utc = pd.DataFrame({"_time": pd.to_datetime(["2026-01-04 14:59", "2026-01-04 15:00"], utc=True)})
    >>> window_of(late_sunday_utc, settings).tolist()
    ['2026-W01', '2026-W02']
    """
    window = settings.data.window
    if window.rows is not None:
        numbers = frame["_seq"].astype("int64") // window.rows
        return numbers.map("rows-{:06d}".format).astype("str")
    local = row_time(frame).dt.tz_convert(settings.data.time_zone)
    if window.period == "week":
        calendar = local.dt.isocalendar()
        # A few keys for many rows: each is formatted once.
        numbers = calendar["year"].fillna(0).astype("int64") * 100 + calendar["week"].fillna(0).astype("int64")
        keys = numbers.map({n: f"{n // 100:04d}-W{n % 100:02d}" for n in numbers.unique()})
    else:
        keys = local.dt.strftime("%Y-%m-%d" if window.period == "day" else "%Y-%m")
    named: pd.Series = keys.where(local.notna(), NO_TIME).astype("str")
    return named


def window_complete(key: str, settings: Settings, *, newest: int, now: datetime) -> bool:
    """Whether a window is over: by the calendar, or by the number of rows that came.

    Parameters
    ----------
    newest: the greatest `_seq` so far.

    >>> settings = Settings.model_validate({"name": "a", "data": {"label": "y", "numeric": ["x"],
    ...     "window": {"rows": 100}}})
    >>> [window_complete("rows-000001", settings, newest=newest, now=datetime.max) for newest in (198, 199)]
    [False, True]

    Raises
    ------
    ValueError: windows are periods, and this one has no end.
    """
    rows = settings.data.window.rows
    if rows is not None:
        return newest >= (int(key.removeprefix("rows-")) + 1) * rows - 1
    _, end = window_bounds(key, settings)
    if end is None:
        raise ValueError(f"window {key} has no end, though windows are periods")
    return now >= end


def window_bounds(key: str, settings: Settings) -> tuple[datetime, datetime] | tuple[None, None]:
    """Begin and end (exclusive) of a calendar window in UTC; (None, None) for a window of rows.

    >>> settings = Settings.model_validate({"name": "a", "data": {"label": "y", "numeric": ["x"], "time": "t",
    ...     "time_zone": "Asia/Tokyo", "window": {"period": "week"}}})
    >>> [moment.isoformat() for moment in window_bounds("2026-W02", settings)]
    ['2026-01-04T15:00:00+00:00', '2026-01-11T15:00:00+00:00']

    Raises
    ------
    ValueError: the key is no window of this configuration.
    """
    window = settings.data.window
    if window.rows is not None or key == NO_TIME:
        return None, None
    try:
        if window.period == "week":
            year, week = key.split("-W")
            first = date.fromisocalendar(int(year), int(week), 1)
            last = first + timedelta(days=7)
        elif window.period == "day":
            first = date.fromisoformat(key)
            last = first + timedelta(days=1)
        else:
            first = date.fromisoformat(f"{key}-01")
            last = (first + timedelta(days=32)).replace(day=1)
    except ValueError as error:
        raise ValueError(f"key: {key!r} is no {window.period}; such as {_EXAMPLES[window.period or 'week']}") from error
    zone = ZoneInfo(settings.data.time_zone)
    begin, end = (datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC) for day in (first, last))
    return begin, end


_EXAMPLES = {"week": "2026-W14", "day": "2026-04-03", "month": "2026-04"}


def labelled_rows(
    store: Store,
    settings: Settings,
    *,
    until: datetime | None = None,
    versions: Mapping[str, int] | None = None,
    after_seq: int | None = None,
) -> pd.DataFrame:
    """The newest version of every inspection that has a label, with its newest label, in order of arrival.

    Parameters
    ----------
    until: only rows taken in, and labels given, by then; None takes all.
    versions: table -> version to read (of `inspections` and `labels`); the present ones where not named.
    after_seq: only rows that arrived later; their `fold` means nothing where the split is by time.

    Returns
    -------
    The columns of `inspections`, and `label` (text), `label_value` (regression), `_label_time`, `window`, `fold`.

    Raises
    ------
    BadConfig: a feature, slice or group has the name of one of the added columns.
    """
    named = {*settings.data.features, *settings.data.slices, settings.data.group}
    for name in ADDED:
        if name in named:
            raise BadConfig(f"the column {name!r} cannot be a feature, slice or group: the name is taken; rename it")
    chosen = versions or {}
    where = None if after_seq is None else f"_seq > {int(after_seq)}"
    rows = current_rows(store, where=where, version=chosen.get("inspections"))
    labels = current_labels(
        store, columns=["_id", "label", "label_value", "_time"], version=chosen.get("labels")
    ).rename(columns={"_time": "_label_time"})
    rows = rows.drop(columns=[name for name in (*ADDED, "_label_time") if name in rows])
    frame = rows.merge(labels, on="_id", how="inner").sort_values(["_seq", "_id"], ignore_index=True)
    usable = frame["label"].notna()
    if settings.task.kind == "regression":
        usable = frame["label_value"].abs() < np.inf
    if until is not None:
        usable &= (frame["_at"] <= until) & ~(frame["_label_time"] > until)
    frame = frame[usable].reset_index(drop=True)
    frame["window"] = window_of(frame, settings)
    frame["fold"] = fold_of(frame, settings, known_groups(store, settings))
    return frame


def last_windows(frame: pd.DataFrame, number: int) -> list[str]:
    """The keys of the last windows that hold rows, oldest first.

    >>> last_windows(pd.DataFrame({"window": ["2026-W02", "2026-W01", "2026-W03"]}), 2)
    ['2026-W02', '2026-W03']
    """
    return sorted(str(key) for key in frame["window"].unique())[-number:]


def known_groups(store: Store, settings: Settings) -> dict[str, str]:
    """Group -> part, as assigned by earlier trainings; empty unless the split is by group."""
    if settings.training.split.by != "group":
        return {}
    known: dict[str, str] = {}
    for entry in ledger.read(store, action="folds.assigned"):
        if entry.subject == settings.data.group:
            known = {**entry.details["groups"], **known}
    return known


def remember_groups(store: Store, settings: Settings, frame: pd.DataFrame, *, actor: str, at: datetime) -> None:
    """Put the parts of new groups into the ledger, so that they keep them for good; call it before training."""
    if settings.training.split.by != "group" or frame.empty:
        return
    known = known_groups(store, settings)
    groups = group_of(frame, settings)
    fresh = {name: str(part) for name, part in zip(groups, frame["fold"], strict=True) if name not in known}
    if not fresh or (not known and len(fresh) > FEW_GROUPS):
        return  # many groups go by their hash alone, which needs no memory
    ledger.enter(
        store,
        key=f"folds:{settings.data.group}:{len(known)}",
        actor=actor,
        action="folds.assigned",
        subject=str(settings.data.group),
        details={"groups": fresh},
        at=at,
    )


@dataclass(frozen=True)
class Exclusion:
    """Rows of one slice and time that must not train a model, and the incident that says so.

    Attributes
    ----------
    since, until: the time span, UTC; an open end is None.
    lasting: whether it holds for good (the machine was repaired) or until the incident is answered.
    """

    incident: str
    column: str
    value: str
    since: datetime | None
    until: datetime | None
    lasting: bool

    def document(self) -> dict[str, Any]:
        """For programs: times as ISO text."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(self).items()
        }


def newest_incidents(store: Store) -> dict[str, dict[str, Any]]:
    """Key -> the newest record of every incident."""
    frame = store.read("incidents")
    # Several records may bear the same moment; their number within the incident tells their order.
    order = [name for name in ("at", "number") if name in frame]
    return {
        str(key): json.loads(text)
        for key, text in frame.sort_values(order, kind="stable")[["key", "record"]].itertuples(index=False)
    }


def exclusions(store: Store, settings: Settings) -> list[Exclusion]:
    """What incidents keep out of training, by the newest record of each.

    While an incident that names a slice (verdict `inspect`) is open and unanswered, the slice's rows since the
    change are kept out. Answered `repaired`, the rows between change and repair are kept out for good. Answered
    `new-normal`, nothing is.
    """
    found = []
    for key, record in sorted(newest_incidents(store).items()):
        column, value = record.get("column"), record.get("value")
        if record.get("verdict") != "inspect" or column not in settings.data.slices or value is None:
            continue
        answer, since = record.get("answer"), _moment(record.get("since"))
        if answer == "repaired":
            found.append(Exclusion(key, column, str(value), since, _moment(record.get("repaired_at")), True))
        elif answer is None and record.get("state") != "closed":
            found.append(Exclusion(key, column, str(value), since, None, False))
    return found


def excluded(frame: pd.DataFrame, rules: list[Exclusion]) -> np.ndarray:
    """Which rows the rules keep out, shape (n,).

    >>> frame = pd.DataFrame({"machine": ["M1", "M2"], "_time": pd.to_datetime(["2026-02-01"] * 2, utc=True)})
    >>> excluded(frame, [Exclusion("i", "machine", "M2", datetime(2026, 1, 1, tzinfo=UTC), None, False)]).tolist()
    [False, True]
    """
    out = np.zeros(len(frame), dtype=bool)
    times = row_time(frame)
    for rule in rules:
        if rule.column not in frame:
            continue
        hit = (frame[rule.column].astype("str") == rule.value).fillna(False)
        if rule.since is not None:
            hit &= times >= rule.since
        if rule.until is not None:
            hit &= times < rule.until
        out |= hit.to_numpy(dtype=bool)
    return out


def _moment(value: Any) -> datetime | None:
    if value is None:
        return None
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
