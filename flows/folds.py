"""Which rows train, which validate, which are held out: by a stable hash, by group, or by time.

A row (or group) that is held out is held out in every later retraining, so that champions of all ages can be
compared on rows that none of them was fitted on. Hence nothing here depends on the order or number of other rows,
except where a class or a group would be missing from a part; such choices depend on the rows that came first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from flows.settings import Settings, Split

FOLDS = ("train", "validation", "holdout")
FEW_GROUPS = 50
"""Up to so many groups, the split is chosen so that every part gets its share and every class."""
_SALTS = 200


def row_time(frame: pd.DataFrame) -> pd.Series:
    """When each row happened: its own time, or when it was taken in.

    >>> hours = pd.to_datetime(["2026-01-05 10:00", None], utc=True)
    >>> came = pd.to_datetime(["2026-01-06", "2026-01-07"], utc=True)
    >>> row_time(pd.DataFrame({"_time": hours, "_at": came})).dt.day.tolist()
    [5, 7]
    """
    if "_time" not in frame:
        return frame["_at"]
    return frame["_time"].fillna(frame["_at"]) if "_at" in frame else frame["_time"]


def fold_of(frame: pd.DataFrame, settings: Settings, known: Mapping[str, str] | None = None) -> pd.Series:
    """The part each labelled row belongs to: "train", "validation" or "holdout".

    Parameters
    ----------
    frame: labelled rows with `_id`, `_hash`, `_seq`, `label` (classification), `_label_time`, `_time`, `_at` and
        the group column, as `flows.dataset.labelled_rows` puts them together.
    known: group -> part, as assigned before; such groups stay where they are.

    Returns
    -------
    A series with the frame's index.

    Notes
    -----
    "stratified": a row's hash decides; but of each class, the three rows that were labelled first are in different
    parts, so that no class of three or more rows is missing from one. Without an id column equal rows share a hash
    and never part. "group": the group's hash decides, or `assign_groups` where there are few. "time": the newest
    share is held out, the share before it validates; rows of the same moment stay together.
    """
    split = settings.training.split
    if frame.empty:
        return pd.Series([], index=frame.index, dtype="str")
    if split.by == "time":
        return _by_time(frame, split)
    if split.by == "group":
        groups = group_of(frame, settings)
        parts = assign_groups(groups, _classes(frame, settings), settings, known or {})
        return groups.map(parts).astype("str")
    unit = frame["_id"] if settings.data.id is not None or "_hash" not in frame else frame["_hash"]
    place = positions(unit, settings.training.seed)
    folds = pd.Series(_by_position(place, split), index=frame.index, dtype="str")
    order = ["_label_time", "_seq", "_id"] if "_label_time" in frame else ["_seq", "_id"]
    arrived = frame[order].assign(_unit=unit, _class=_classes(frame, settings), _fold=folds).sort_values(order)
    firsts = arrived.drop_duplicates("_unit").groupby("_class", sort=False).head(len(FOLDS))
    moved: dict[str, str] = {}
    for _, trio in firsts.groupby("_class", sort=False):
        taken: list[str] = []
        for name, fold in zip(trio["_unit"], trio["_fold"], strict=True):
            # Decided by what came before alone, so that nothing moves when more rows come.
            moved[name] = fold if fold not in taken else next(part for part in FOLDS if part not in taken)
            taken.append(moved[name])
    return unit.map(moved).fillna(folds).astype("str")


def group_of(frame: pd.DataFrame, settings: Settings) -> pd.Series:
    """The group of each row as text; rows without one share the group ""."""
    if settings.data.group is None:
        raise ValueError("data.group names no column; it is needed to split by group")
    return frame[settings.data.group].astype("str").fillna("")


def assign_groups(
    groups: pd.Series, classes: pd.Series, settings: Settings, known: Mapping[str, str]
) -> dict[str, str]:
    """Group -> part for every group.

    With few groups plain hashing would often leave a part empty or without a class. Then, of 200 hashes, the one is
    taken whose parts miss the fewest classes and come nearest to their shares of rows. Groups assigned before stay.

    >>> settings = Settings.model_validate({"name": "a", "data": {"label": "y", "numeric": ["x"], "group": "lot",
    ...     "window": {"rows": 100}}, "training": {"split": {"by": "group"}}})
    >>> lots = pd.Series(list("abcdefgh") * 10)
    >>> parts = assign_groups(lots, pd.Series(["0", "1"] * 40), settings, {})
    >>> sorted(set(parts.values()))
    ['holdout', 'train', 'validation']
    >>> assign_groups(pd.Series(["z"]), pd.Series(["0"]), settings, {"z": "holdout"})
    {'z': 'holdout'}
    """
    split, seed = settings.training.split, settings.training.seed
    counts = pd.crosstab(groups.to_numpy(), classes.to_numpy()).sort_index()
    names = [str(name) for name in counts.index]
    kept = {name: known[name] for name in names if name in known}
    fresh = [name for name in names if name not in kept]
    if kept or len(names) > FEW_GROUPS:
        drawn = _by_position(positions(fresh, seed), split)
        return kept | dict(zip(fresh, drawn, strict=True))
    wanted = np.array([1 - split.validation - split.holdout, split.validation, split.holdout])
    table = counts.to_numpy()
    reachable = np.minimum((table > 0).sum(axis=0), len(FOLDS)).sum()
    best: tuple[float, np.ndarray] | None = None
    for salt in range(_SALTS):
        parts = _by_position(positions(fresh, seed, salt), split)
        rows = np.vstack([table[parts == fold].sum(axis=0) for fold in FOLDS])
        missing = reachable - (rows > 0).sum() + 10 * (rows.sum(axis=1) == 0).sum()
        cost = float(missing + np.abs(rows.sum(axis=1) / table.sum() - wanted).sum())
        if best is None or cost < best[0]:
            best = cost, parts
    if best is None:
        raise ValueError("groups must not be empty")
    return dict(zip(fresh, best[1].tolist(), strict=True))


def positions(units: Iterable[object], seed: int, salt: int = 0) -> np.ndarray:
    """A fixed number in [0, 1) for each unit, by its text and the seed; uniform over units.

    >>> positions(["a", "b"], 0).round(3).tolist() == positions(["a", "b", "c"], 0)[:2].round(3).tolist()
    True
    """
    start = hashlib.blake2b(f"fold:{seed}:{salt}:".encode(), digest_size=8)

    def place(unit: object) -> float:
        digest = start.copy()
        digest.update(str(unit).encode())
        return int.from_bytes(digest.digest()[:7]) / 2**56

    return np.fromiter((place(unit) for unit in units), dtype=np.float64)


def _by_position(place: np.ndarray, split: Split) -> np.ndarray:
    cuts = [split.holdout, split.holdout + split.validation]
    parts: np.ndarray = np.array(["holdout", "validation", "train"])[np.digitize(place, cuts)]
    return parts


def _by_time(frame: pd.DataFrame, split: Split) -> pd.Series:
    times = row_time(frame)
    in_order = times.sort_values(kind="stable").to_numpy()
    held = in_order[min(int(np.ceil(len(in_order) * (1 - split.holdout))), len(in_order) - 1)]
    tried = in_order[min(int(np.ceil(len(in_order) * (1 - split.holdout - split.validation))), len(in_order) - 1)]
    values = times.to_numpy()
    parts = np.where(values >= held, "holdout", np.where(values >= tried, "validation", "train"))
    return pd.Series(parts, index=frame.index, dtype="str")


def _classes(frame: pd.DataFrame, settings: Settings) -> pd.Series:
    if settings.task.kind == "regression" or "label" not in frame:
        return pd.Series("", index=frame.index)
    return frame["label"].astype("str")
