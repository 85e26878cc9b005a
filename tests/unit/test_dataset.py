"""Windows, folds and exclusions: what is stable, what never leaks, what is named."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import ledger
from flows.dataset import (
    Exclusion,
    excluded,
    exclusions,
    known_groups,
    labelled_rows,
    last_windows,
    remember_groups,
    window_bounds,
    window_of,
)
from flows.errors import BadConfig
from flows.folds import assign_groups, fold_of, positions
from flows.settings import Settings
from flows.store import Store

NOW = datetime(2026, 4, 6, tzinfo=UTC)


def settings_of(*, data: dict[str, Any] | None = None, **sections: Any) -> Settings:
    base = {"id": "id", "time": "time", "label": "ok", "numeric": ["x"], "slices": ["machine"], "group": "lot"}
    document = {"name": "a", "data": base | (data or {}), "task": {"classes": ["0", "1"]}} | sections
    return Settings.model_validate(document)


def split(by: str, **more: Any) -> dict[str, Any]:
    return {"training": {"split": {"by": by}, **more}}


def frame_of(rows: int, *, seed: int = 0, share: float = 0.1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    times = pd.Timestamp("2026-01-05", tz="UTC") + pd.to_timedelta(np.arange(rows) * 60, unit="s")
    return pd.DataFrame({
        "_id": [f"part-{i}" for i in range(rows)], "_hash": [f"h{i}" for i in range(rows)], "_seq": range(rows),
        "_time": times, "_at": times + pd.Timedelta("1h"), "_label_time": times + pd.Timedelta("24h"),
        "label": np.where(rng.random(rows) < share, "1", "0"), "lot": [f"lot-{i // 25}" for i in range(rows)],
        "machine": rng.choice(["M1", "M2"], rows),
    })  # fmt: skip


# -- windows ----------------------------------------------------------------------------------------------------------


@given(
    moment=st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2032, 1, 1)),
    period=st.sampled_from(["day", "week", "month"]),
    zone=st.sampled_from(["UTC", "Asia/Tokyo", "Europe/Berlin", "America/New_York", "Asia/Kolkata"]),
)
def test_a_row_lies_within_the_bounds_of_its_window(moment: datetime, period: str, zone: str) -> None:
    settings = settings_of(data={"time_zone": zone, "window": {"period": period}})
    frame = pd.DataFrame({"_time": pd.to_datetime([moment, moment + timedelta(days=40)], utc=True)})
    keys = window_of(frame, settings)
    begin, end = window_bounds(keys[0], settings)
    assert begin is not None and end is not None
    assert begin <= frame["_time"][0].to_pydatetime() < end
    assert keys[0] < keys[1], "keys sort in the order of time"
    assert window_of(pd.DataFrame({"_time": pd.to_datetime([end], utc=True)}), settings)[0] > keys[0]


def test_a_week_with_a_clock_change_is_an_hour_shorter() -> None:
    settings = settings_of(data={"time_zone": "Europe/Berlin"})
    begin, end = window_bounds("2026-W13", settings)
    assert end - begin == timedelta(days=7) - timedelta(hours=1)


def test_windows_of_rows_go_by_order_of_arrival() -> None:
    settings = settings_of(data={"time": None, "window": {"rows": 100}})
    assert window_of(pd.DataFrame({"_seq": [0, 99, 100, 12_345_678]}), settings).tolist() == [
        "rows-000000", "rows-000000", "rows-000001", "rows-123456",
    ]  # fmt: skip
    assert window_bounds("rows-000001", settings) == (None, None)


def test_a_row_without_time_counts_when_it_came() -> None:
    frame = pd.DataFrame({
        "_time": pd.to_datetime([None, "2026-01-05"], utc=True), "_at": pd.to_datetime(["2026-02-02"] * 2, utc=True)
    })  # fmt: skip
    assert window_of(frame, settings_of()).tolist() == ["2026-W06", "2026-W02"]


@pytest.mark.parametrize("key", ["2026-W60", "rows-000001", "2026", "week"])
def test_a_key_that_is_no_window_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key!r} is no week; such as 2026-W14"):
        window_bounds(key, settings_of())


def test_last_windows() -> None:
    frame = pd.DataFrame({"window": ["2026-W09", "2026-W10", "2025-W52", "2026-W10"]})
    assert last_windows(frame, 2) == ["2026-W09", "2026-W10"]
    assert last_windows(frame.iloc[:0], 2) == []


# -- folds ------------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 1000), cut=st.integers(30, 400))
def test_a_row_held_out_once_is_held_out_for_good(seed: int, cut: int) -> None:
    """Whatever comes later, in whatever number: rows that were there keep their part."""
    frame = frame_of(400, seed=seed)
    settings = settings_of(**split("stratified", seed=seed))
    early = fold_of(frame.iloc[:cut], settings)
    late = fold_of(frame, settings)
    pd.testing.assert_series_equal(late.iloc[:cut], early)


def test_shares_are_those_of_the_config() -> None:
    folds = fold_of(frame_of(20_000), settings_of(**split("stratified")))
    shares = folds.value_counts(normalize=True)
    assert shares["holdout"] == pytest.approx(0.25, abs=0.012)
    assert shares["validation"] == pytest.approx(0.20, abs=0.012)


@given(seed=st.integers(0, 1000), rare=st.integers(3, 6))
def test_every_class_of_three_rows_is_in_every_part(seed: int, rare: int) -> None:
    frame = frame_of(200, seed=seed, share=0.0)
    rows = np.random.default_rng(seed).choice(200, rare, replace=False)
    frame.loc[rows, "label"] = "1"
    folds = fold_of(frame, settings_of(**split("stratified")))
    assert set(folds[frame["label"] == "1"]) == {"train", "validation", "holdout"}


def test_data_sorted_by_class_is_split_within_each_class() -> None:
    frame = frame_of(3000).sort_values("label", kind="stable", ignore_index=True)
    frame["_seq"] = range(3000)
    folds = fold_of(frame, settings_of(**split("stratified")))
    for label in ("0", "1"):
        assert (folds[frame["label"] == label] == "holdout").mean() == pytest.approx(0.25, abs=0.06)


def test_the_order_of_the_frame_does_not_matter() -> None:
    frame = frame_of(500)
    settings = settings_of(**split("stratified"))
    mixed = frame.sample(frac=1, random_state=0)
    pd.testing.assert_series_equal(fold_of(mixed, settings).sort_index(), fold_of(frame, settings))


def test_equal_rows_without_an_id_never_part() -> None:
    frame = frame_of(400, share=0.5)
    frame["_hash"] = [f"h{i % 40}" for i in range(400)]
    settings = settings_of(data={"id": None}, **split("stratified"))
    parts = fold_of(frame, settings).groupby(frame["_hash"]).nunique()
    assert (parts == 1).all()


@given(seed=st.integers(0, 1000), cut=st.integers(5, 200))
def test_equal_rows_keep_their_part_when_more_of_them_come(seed: int, cut: int) -> None:
    frame = frame_of(200, seed=seed, share=0.2)
    frame["_hash"] = [f"h{i}" for i in np.random.default_rng(seed).integers(0, 60, 200)]
    settings = settings_of(data={"id": None}, **split("stratified"))
    pd.testing.assert_series_equal(fold_of(frame, settings).iloc[:cut], fold_of(frame.iloc[:cut], settings))


def test_the_seed_moves_the_parts() -> None:
    frame = frame_of(300)
    one, other = (fold_of(frame, settings_of(**split("stratified", seed=seed))) for seed in (0, 1))
    assert (one != other).mean() > 0.3


@pytest.mark.parametrize("groups", [3, 4, 7, 16, 200])
def test_groups_never_part_and_every_part_has_one(groups: int) -> None:
    rng = np.random.default_rng(groups)
    frame = frame_of(2000)
    frame["lot"] = np.r_[np.arange(groups), rng.integers(0, groups, 2000 - groups)].astype(str)
    folds = fold_of(frame, settings_of(**split("group")))
    assert (folds.groupby(frame["lot"]).nunique() == 1).all()
    assert set(folds) == {"train", "validation", "holdout"}


def test_few_groups_come_near_their_shares_with_every_class_in_every_part() -> None:
    """Sixteen positions of very different size, and a class that only three of them have."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(10, 150, 16)
    frame = frame_of(int(sizes.sum()), share=0.0)
    frame["lot"] = np.repeat([f"p{i}" for i in range(16)], sizes)
    frame.loc[frame["lot"].isin(["p1", "p5", "p9"]), "label"] = "1"
    folds = fold_of(frame, settings_of(**split("group")))
    assert set(folds[frame["label"] == "1"]) == {"train", "validation", "holdout"}
    assert (folds == "holdout").mean() == pytest.approx(0.25, abs=0.08)
    assert (folds == "validation").mean() == pytest.approx(0.20, abs=0.08)


def test_rows_without_a_group_stay_together() -> None:
    frame = frame_of(500)
    frame.loc[frame["_seq"] % 5 == 0, "lot"] = None
    folds = fold_of(frame, settings_of(**split("group")))
    assert folds[frame["lot"].isna()].nunique() == 1


def test_known_groups_keep_their_part_when_others_come() -> None:
    settings = settings_of(**split("group"))
    groups, classes = pd.Series(list("abcdefgh") * 5), pd.Series(["0", "1"] * 20)
    before = assign_groups(groups, classes, settings, {})
    more = pd.Series([*groups, *("ijkl" * 5)])
    after = assign_groups(more, pd.Series(["0", "1"] * 30), settings, before)
    assert {name: after[name] for name in before} == before


def test_time_holds_out_the_newest_and_never_parts_a_moment() -> None:
    frame = frame_of(1000).sample(frac=1, random_state=1)
    frame["_time"] = frame["_time"].dt.floor("10min")
    folds = fold_of(frame, settings_of(**split("time")))
    times = {name: frame.loc[folds == name, "_time"] for name in ("train", "validation", "holdout")}
    assert times["train"].max() < times["validation"].min()
    assert times["validation"].max() < times["holdout"].min()
    assert (folds == "holdout").mean() == pytest.approx(0.25, abs=0.02)


def test_no_rows_no_parts() -> None:
    for by in ("stratified", "group", "time"):
        assert fold_of(frame_of(10).iloc[:0], settings_of(**split(by))).empty


def test_positions_are_the_same_on_every_machine() -> None:
    """Fixed by hand: a change of this function would mix held-out rows into training."""
    assert positions(["part-1", "部品"], 0).round(6).tolist() == [0.051146, 0.780055]


# -- tables -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "tables")
    frame = frame_of(60)
    store.append("inspections", frame.drop(columns=["label", "_label_time"]).assign(_version=1, x=1.5), key="a")
    labels = pd.DataFrame({"_id": frame["_id"], "label": frame["label"], "_time": frame["_label_time"], "_version": 1})
    store.append("labels", labels.iloc[:50], key="a")
    store.append("labels", pd.DataFrame({"_id": ["unknown"], "label": ["1"], "_version": [1]}), key="b")
    return store


def test_rows_are_joined_with_their_newest_label(store: Store) -> None:
    store.append("labels", pd.DataFrame({"_id": ["part-3"], "label": ["1"], "_version": [2]}), key="c")
    rows = labelled_rows(store, settings_of())
    assert rows["_id"].tolist() == [f"part-{i}" for i in range(50)]
    assert rows.set_index("_id")["label"]["part-3"] == "1"
    assert {"x", "machine", "window", "fold"} <= set(rows.columns)


def test_a_corrected_row_counts_as_it_is_now(store: Store) -> None:
    newer = store.read("inspections", where="_id = 'part-7'").assign(_version=2, x=9.0)
    store.append("inspections", newer, key="correction")
    rows = labelled_rows(store, settings_of()).set_index("_id")
    assert len(rows) == 50 and rows.loc["part-7", "x"] == 9.0


def test_an_earlier_version_of_the_tables_is_read_as_it_was(store: Store) -> None:
    versions = store.versions()
    before = labelled_rows(store, settings_of())
    store.append(
        "labels", pd.DataFrame({"_id": ["part-3", "part-55"], "label": ["1", "1"], "_version": [2, 1]}), key="c"
    )
    store.append("inspections", store.read("inspections", where="_id = 'part-7'").assign(_version=2, x=9.0), key="d")
    assert len(labelled_rows(store, settings_of())) == 51
    pd.testing.assert_frame_equal(labelled_rows(store, settings_of(), versions=versions), before)


def test_what_was_known_by_then(store: Store) -> None:
    first = datetime(2026, 1, 6, 0, 20, tzinfo=UTC)
    assert labelled_rows(store, settings_of(), until=first)["_id"].tolist() == [f"part-{i}" for i in range(21)]


def test_an_empty_store_has_no_rows(tmp_path: Path) -> None:
    rows = labelled_rows(Store(tmp_path), settings_of())
    assert rows.empty and {"label", "window", "fold"} <= set(rows.columns)


def test_a_column_that_takes_our_name_is_refused(store: Store) -> None:
    with pytest.raises(BadConfig, match="'fold' cannot be a feature, slice or group"):
        labelled_rows(store, settings_of(data={"slices": ["fold"]}))


def test_regression_takes_finite_numbers_only(tmp_path: Path) -> None:
    store = Store(tmp_path)
    frame = frame_of(4)
    store.append("inspections", frame.drop(columns=["label", "_label_time"]).assign(_version=1), key="a")
    labels = pd.DataFrame({
        "_id": frame["_id"], "label": ["1.5", "nan", "inf", "2"], "label_value": [1.5, np.nan, np.inf, 2.0],
        "_version": 1,
    })  # fmt: skip
    store.append("labels", labels, key="a")
    rows = labelled_rows(store, settings_of(task={"kind": "regression"}))
    assert rows["label_value"].tolist() == [1.5, 2.0]


def test_parts_of_groups_are_remembered_in_the_ledger(store: Store) -> None:
    settings = settings_of(**split("group"))
    rows = labelled_rows(store, settings)
    remember_groups(store, settings, rows, actor="softad", at=NOW)
    remember_groups(store, settings, rows, actor="softad", at=NOW)
    assert len(ledger.read(store)) == 1
    parts = dict(zip(rows["lot"], rows["fold"], strict=True))
    assert known_groups(store, settings) == parts
    frame = frame_of(400).iloc[60:]
    store.append("inspections", frame.drop(columns=["label", "_label_time"]).assign(_version=1), key="more")
    store.append("labels", pd.DataFrame({"_id": frame["_id"], "label": frame["label"], "_version": 1}), key="more")
    later = labelled_rows(store, settings)
    assert {name: part for name, part in zip(later["lot"], later["fold"], strict=True) if name in parts} == parts
    remember_groups(store, settings, later, actor="softad", at=NOW)
    assert len(known_groups(store, settings)) == 16


# -- exclusions -------------------------------------------------------------------------------------------------------


def report(store: Store, **record: Any) -> None:
    whole = {"key": "a-1", "verdict": "inspect", "state": "opened", "answer": None, "column": "machine", "value": "M2",
             "since": "2026-01-05T00:30:00+00:00", "repaired_at": None} | record  # fmt: skip
    number = store.count("incidents")
    frame = pd.DataFrame([{"key": whole["key"], "record": json.dumps(whole), "at": NOW, "number": number}])
    store.append("incidents", frame, key=str(number))


def test_an_open_incident_keeps_its_slice_out_since_the_change(store: Store) -> None:
    assert exclusions(store, settings_of()) == []
    report(store)
    (rule,) = exclusions(store, settings_of())
    assert (rule.column, rule.value, rule.until, rule.lasting) == ("machine", "M2", None, False)
    rows = labelled_rows(store, settings_of())
    out = rows[excluded(rows, [rule])]
    wanted = rows[(rows["machine"] == "M2") & (rows["_seq"] >= 30)]
    assert out["_id"].tolist() == wanted["_id"].tolist() and len(out) > 3


def test_after_a_repair_the_rows_between_stay_out_for_good(store: Store) -> None:
    report(store)
    report(store, state="acknowledged", answer="repaired", repaired_at="2026-01-05T00:40:00+00:00")
    report(store, state="closed", answer="repaired", repaired_at="2026-01-05T00:40:00+00:00")
    (rule,) = exclusions(store, settings_of())
    assert rule.lasting
    rows = labelled_rows(store, settings_of())
    out = rows[excluded(rows, [rule])]
    assert out["_id"].tolist() == rows[(rows["machine"] == "M2") & rows["_seq"].between(30, 39)]["_id"].tolist()


def test_new_normal_and_other_verdicts_keep_nothing_out(store: Store) -> None:
    report(store, state="acknowledged", answer="new-normal")
    report(store, key="a-2", verdict="retrain", column=None, value=None)
    report(store, key="a-3", state="closed")
    assert exclusions(store, settings_of()) == []


def test_the_newest_of_records_of_one_moment_counts(store: Store) -> None:
    report(store)
    report(store, state="acknowledged", answer="new-normal")
    assert exclusions(store, settings_of()) == []


def test_a_slice_that_the_rows_do_not_have_keeps_nothing_out() -> None:
    rule = Exclusion("a", "mould", "7", None, None, False)
    assert not excluded(frame_of(5), [rule]).any()
