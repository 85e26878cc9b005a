"""What the scan is told of a labelled row besides its loss: its lot, how old its label was, how it was chosen.

Age
    Days from the end of the row's window to its label, as its file states when the label was given. Where it does not,
    the label is as old as its arrival says: the days from the row's arrival (or its window's end, which is later) to
    the label's. So years of rows and labels that are taken in on the first day do not look old.
Probability
    With which the row was chosen for a label: 1 where its label came in a file without that column (all are labelled),
    NaN where it is not known.
Lot
    The values of `data.lot`, as one text; a row without one is a lot of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from flows.dataset import window_bounds, window_of
from flows.errors import BadConfig
from flows.folds import row_time
from flows.settings import LOT_DAY, Settings
from flows.store import Store

DAY = 86_400.0
MOST_WINDOWS = 2
"""A lot is made in one window, or across the border of two."""


@dataclass
class Ends:
    """The ends of windows, each found once."""

    settings: Settings
    _known: dict[str, pd.Timestamp | None] = field(default_factory=dict)

    def of(self, windows: pd.Series) -> pd.Series:
        """End of each row's window; NaT where it has none."""
        for key in windows.unique():
            if key not in self._known:
                end = window_bounds(str(key), self.settings)[1]
                self._known[key] = None if end is None else pd.Timestamp(end)
        return pd.to_datetime(windows.map(self._known), utc=True)


def labels_told(store: Store, settings: Settings, *, until: datetime | None = None) -> pd.DataFrame:
    """The newest label of every id, and what is known of how it came.

    Parameters
    ----------
    until: labels that were taken in later are left out.

    Returns
    -------
    `_id`, `label`, `label_value`; `_label_time` of the newest; `_label_in`, when the id's first label was taken in;
    `_label_given`, when that was given as its file states, NaT where it does not; `_probability`.
    """
    chance = {
        "all": "CASE WHEN chosen THEN probability ELSE 1.0 END",
        "probability": "probability",
        "unknown": "NULL",
    }[settings.monitoring.label_selection]
    known = "TRUE" if until is None else f"coalesce(came, _time) <= TIMESTAMPTZ '{until.isoformat()}'"
    return store.sql(f"""
        WITH arrived AS (SELECT sha, max("at") AS came FROM files WHERE status = 'accepted' GROUP BY sha),
        chosen AS (SELECT _file AS sha, bool_or(probability IS NOT NULL) AS chosen FROM labels GROUP BY _file),
        told AS (SELECT labels.*, came, coalesce(chosen, false) AS chosen FROM labels
            LEFT JOIN arrived ON labels._file = arrived.sha LEFT JOIN chosen ON labels._file = chosen.sha
            WHERE {known}),
        corrected AS (SELECT _id, max(_version) AS top FROM told WHERE _version > 1 GROUP BY _id),
        first AS (SELECT t._id, t._time, t.came FROM told t JOIN corrected USING (_id) WHERE t._version = 1)
        SELECT n._id, n.label, n.label_value, n._time AS _label_time, coalesce(f.came, n.came, n._time) AS _label_in,
            CASE WHEN coalesce(f._time, n._time) = coalesce(f.came, n.came) THEN NULL
                ELSE coalesce(f._time, n._time) END AS _label_given,
            CAST({chance} AS DOUBLE) AS _probability
        FROM told n LEFT JOIN corrected c ON n._id = c._id LEFT JOIN first f ON n._id = f._id
        WHERE c.top IS NULL OR n._version = c.top
    """)  # noqa: S608 (only our own words)


def label_age(rows: pd.DataFrame, ends: pd.Series) -> pd.Series:
    """Days from the end of each row's window to its label, at least 0; NaN where it has none.

    Parameters
    ----------
    rows: `_at`, `_label_in` and `_label_given`.
    ends: of the rows' windows.

    >>> moments = ["2026-01-05", "2026-01-06", "2026-01-09", "2026-01-13"]
    >>> end, at, given, came = (pd.Series([pd.Timestamp(each, tz="UTC")]) for each in moments)
    >>> rows = pd.DataFrame({"_at": at, "_label_in": came, "_label_given": given})
    >>> label_age(rows, end).tolist(), label_age(rows.assign(_label_given=pd.NaT), end).tolist()
    ([4.0], [7.0])
    """
    # Where there are no windows, their ends are a column of nothing, without the type and the unit of a time.
    told, closed = (pd.to_datetime(each, utc=True).dt.as_unit("us") for each in (rows["_label_given"], ends))
    by_arrival = _days(rows["_label_in"] - rows["_at"].where(~(closed > rows["_at"]), closed))
    as_stated = _days(told - closed.fillna(rows["_at"]))
    ages = np.maximum(np.where(np.isnan(as_stated), by_arrival, as_stated), 0.0)
    return pd.Series(ages, index=rows.index)


def _days(spans: pd.Series) -> np.ndarray:
    return np.asarray(pd.to_timedelta(spans).dt.total_seconds() / DAY, dtype=np.float64)


def lot_of(rows: pd.DataFrame, settings: Settings) -> pd.Series:
    """The lot of each row.

    Parameters
    ----------
    rows: `_id`, `_time`, `_at` and the columns that name a lot.

    >>> settings = Settings.model_validate({"name": "a", "data": {"label": "y", "numeric": ["x"], "time": "t",
    ...     "lot": ["machine", "_day"]}, "training": {"split": {"by": "time"}}})
    >>> rows = pd.DataFrame({"_id": ["1", "2"], "machine": ["M1", None]})
    >>> lot_of(rows.assign(_time=pd.Timestamp("2026-01-05 10:00", tz="UTC")), settings).tolist()
    ['M1 2026-01-05', 'row 2']
    """
    columns = rows[settings.data.lot_columns]
    names = (
        columns.astype("str").agg(" ".join, axis=1) if len(columns.columns) > 1 else columns.iloc[:, 0].astype("str")
    )
    if LOT_DAY in settings.data.lot:
        names = names + " " + row_time(rows).dt.tz_convert(settings.data.time_zone).dt.strftime("%Y-%m-%d")
    own = "row " + rows["_id"].astype("str")
    return names.where(columns.notna().all(axis=1), own).astype("str")


def with_units(store: Store, settings: Settings, reference: pd.DataFrame) -> pd.DataFrame:
    """Rows of a reference (`_id`) with `_age`, `_probability` and, where the config names lots, `_lot`."""
    wanted = reference[["_id"]]
    more = "".join(f', r."{name}"' for name in settings.data.lot_columns)
    known = store.sql(
        f"SELECT r._id, r._at, r._time, r._seq{more} FROM inspections r JOIN wanted USING (_id) "  # noqa: S608
        "QUALIFY row_number() OVER (PARTITION BY r._id ORDER BY r._version DESC) = 1",
        wanted=wanted,
    )
    labels = labels_told(store, settings)
    rows = wanted.merge(known, on="_id", how="left").merge(labels, on="_id", how="left")
    # A row that the tables do not have (any more) came with its label.
    rows["_at"] = rows["_at"].fillna(rows["_label_in"])
    here = rows["_seq"].notna()
    ages = pd.Series(0.0, index=rows.index)
    if here.any():
        part = rows[here]
        ages[here] = label_age(part, Ends(settings).of(window_of(part, settings)))
    units: dict[str, Any] = {"_age": ages.fillna(0.0).to_numpy(), "_probability": rows["_probability"].to_numpy()}
    if not settings.data.lot:
        return reference.assign(**units)
    units["_lot"] = lot_of(rows, settings).to_numpy()
    told = reference.assign(**units)
    if len(told) and told["window"].notna().all() and spread_over(told) > MOST_WINDOWS:
        raise BadConfig(
            f"data.lot: {', '.join(settings.data.lot)} names no lots, half of them have parts in "
            f"{spread_over(told):.0f} windows and more; name columns whose values end, such as a lot number, or add "
            f"{LOT_DAY} for the day"
        )
    return told


def chances(rows: pd.DataFrame) -> np.ndarray | None:
    """Probabilities as the scan takes them; None where every row was labelled.

    >>> chances(pd.DataFrame({"_probability": [1.0, 1.0]})) is None, chances(pd.DataFrame({"_probability": [0.5]}))
    (True, array([0.5]))
    """
    if "_probability" not in rows:
        return None
    values = rows["_probability"].to_numpy(dtype=np.float64)
    return None if (values == 1.0).all() else values


def spread_over(reference: pd.DataFrame) -> float:
    """Over how many windows a lot of the reference spreads, the median; a lot is made in one or two.

    >>> spread_over(pd.DataFrame({"_lot": ["M1", "M1", "M2"], "window": ["W1", "W2", "W1"]}))
    1.5
    """
    return float(reference.groupby("_lot")["window"].nunique().median())
