"""The simulated line: the same rows for the same week, exchangeable without a change, changed where asked."""

from __future__ import annotations

import time
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from softad.simulation import CLASSES, NUMERIC, SLICES, InspectionLine
from softad.simulation_losses import BASE, CHANGES, loss_law, window_losses


def joined(line: InspectionLine, number: int) -> pd.DataFrame:
    week = line.week(number)
    return week.inspections.merge(week.labels, on="id", validate="one_to_one")


def test_a_week_depends_on_seed_and_number_only() -> None:
    forwards, backwards = InspectionLine(seed=4), InspectionLine(seed=4)
    first = [forwards.week(number) for number in (-7, 0, 3)]
    again = [backwards.week(number) for number in (3, 0, -7)][::-1]
    for one, two in zip(first, again, strict=True):
        pd.testing.assert_frame_equal(one.inspections, two.inspections)
        pd.testing.assert_frame_equal(one.labels, two.labels)
    other = InspectionLine(seed=5).week(3).inspections
    assert not other["torque_nm"].equals(first[2].inspections["torque_nm"])


def test_a_change_leaves_the_weeks_before_it_as_they_are() -> None:
    calm = InspectionLine(seed=2)
    changed = InspectionLine(seed=2, change="concentrated", change_week=10)
    for number in (0, 9):
        pd.testing.assert_frame_equal(calm.week(number).inspections, changed.week(number).inspections)
    assert not calm.week(10).inspections.equals(changed.week(10).inspections)


def test_rows_are_as_a_plant_exports_them() -> None:
    week = InspectionLine(seed=1).week(1)
    rows, labels = week.inspections, week.labels
    assert list(rows.columns) == ["id", "time", "line", "machine", "product", "shift", *NUMERIC]
    assert 6 <= len(NUMERIC) <= 10
    assert len(rows) == 2000 and rows["id"].is_unique
    assert sorted(rows["id"]) == sorted(labels["id"])
    assert set(rows["machine"]) == {f"M{number:02d}" for number in range(1, 13)}
    assert set(rows["line"]) == {"L1", "L2", "L3"}
    assert rows.groupby("machine")["line"].nunique().max() == 1
    assert set(labels["label"]) == set(CLASSES)
    assert 0.0 < rows[list(NUMERIC)].isna().mean().max() < 0.01
    assert rows[list(SLICES)].notna().all().all()
    taken = pd.to_datetime(rows["time"])
    assert taken.is_monotonic_increasing
    assert taken.min() >= pd.Timestamp("2026-01-05", tz="UTC") and taken.max() < pd.Timestamp("2026-01-12", tz="UTC")


def test_ids_never_repeat_over_the_weeks() -> None:
    line = InspectionLine(seed=1, rows_per_week=50)
    ids = pd.concat([line.week(number).inspections["id"] for number in range(-30, 31)])
    assert ids.is_unique


def test_labels_come_within_three_days_unless_asked_otherwise() -> None:
    for asked, low, high in (((0.0, 3.0), 0.0, 3.0), ((7.0, 14.0), 7.0, 14.0), ((1.0, 1.0), 1.0, 1.0)):
        frame = joined(InspectionLine(seed=1, label_delay_days=asked, rows_per_week=500), 2)
        late = (pd.to_datetime(frame["labelled_at"]) - pd.to_datetime(frame["time"])).dt.total_seconds() / 86_400
        assert low - 1e-4 <= late.min() and late.max() <= high + 1e-4
        assert late.max() - late.min() >= 0.9 * (high - low)


def test_times_are_local_with_or_without_their_offset() -> None:
    tokyo = InspectionLine(seed=1, time_zone="Asia/Tokyo", rows_per_week=300)
    rows = tokyo.week(1).inspections
    assert rows["time"].str.endswith("+09:00").all()
    assert rows["time"].str[:10].between("2026-01-05", "2026-01-11").all()
    bare = InspectionLine(seed=1, time_zone="Asia/Tokyo", rows_per_week=300, with_offset=False).week(1).inspections
    assert (bare["time"] + "+09:00").tolist() == rows["time"].tolist()
    hour = rows["time"].str[11:13].astype(int)
    assert set(rows.loc[hour.between(6, 13), "shift"]) == {"early"}
    assert set(rows.loc[hour.between(14, 21), "shift"]) == {"late"}
    assert set(rows.loc[(hour < 6) | (hour >= 22), "shift"]) == {"night"}


def test_a_week_with_a_change_of_the_clock_is_whole() -> None:
    line = InspectionLine(seed=1, time_zone="Europe/Berlin", rows_per_week=2000, start=date(2026, 3, 23))
    times = line.week(1).inspections["time"]
    assert set(times.str[-6:]) == {"+01:00", "+02:00"}
    assert pd.to_datetime(times, utc=True).is_monotonic_increasing
    assert times.str[:10].between("2026-03-23", "2026-03-29").all()


def test_the_key_of_a_week_is_its_iso_week() -> None:
    line = InspectionLine(seed=1, rows_per_week=50)
    for number in (-53, 0, 1, 60):
        day = pd.to_datetime(line.week(number).inspections["time"]).iloc[0]
        year, week, _ = day.isocalendar()
        assert line.week_key(number) == f"{year}-W{week:02d}"


@pytest.mark.parametrize("seed", [1, 2])
def test_without_a_change_weeks_are_exchangeable(seed: int) -> None:
    """Weekly means and counts scatter as those of independent rows of one law do, no more and no less."""
    line = InspectionLine(seed=seed, rows_per_week=1000)
    weeks = [joined(line, number) for number in range(-7, 23)]
    every = pd.concat(weeks)
    counts = {
        "defects": [int((week["label"] == "defect").sum()) for week in weeks],
        "one machine": [int((week["machine"] == "M03").sum()) for week in weeks],
        "one product": [int((week["product"] == "P-120").sum()) for week in weeks],
        "defects of one machine": [
            int(((week["label"] == "defect") & (week["machine"] == "M05")).sum()) for week in weeks
        ],
    }
    scatters = {
        name: (np.var(values, ddof=1) / (np.mean(values) * (1 - np.mean(values) / 1000)))
        for name, values in counts.items()
    }
    scatters |= {
        name: np.var([week[name].mean() for week in weeks], ddof=1) * 1000 / every[name].var() for name in NUMERIC
    }
    low, high = stats.chi2.ppf([1e-4, 1 - 1e-4], len(weeks) - 1) / (len(weeks) - 1)
    assert {name: scatter for name, scatter in scatters.items() if not low < scatter < high} == {}


def test_wear_goes_through_whole_cycles_in_every_week() -> None:
    line = InspectionLine(seed=1, rows_per_week=20_000)
    rows = line.week(1).inspections
    hours = (pd.to_datetime(rows["time"]) - pd.Timestamp("2026-01-05", tz="UTC")).dt.total_seconds() / 3600
    for machine in ("M01", "M08"):
        here = rows["machine"] == machine
        by_hour = rows.loc[here, "roughness_um"].groupby((hours[here] // 6).astype(int)).mean()
        # The tool wears and is replaced: within the week the mean climbs and falls back by far more than chance.
        assert by_hour.max() - by_hour.min() > 0.2
        # What a week begins with is what the next one begins with: the cycle does not drift against the week.
        later = line.week(2).inspections
        day = pd.to_datetime(later["time"]) < pd.Timestamp("2026-01-12 12:00", tz="UTC")
        first = rows.loc[here & (hours < 12), "roughness_um"]
        again = later.loc[(later["machine"] == machine) & day, "roughness_um"]
        assert abs(first.mean() - again.mean()) < 4 * np.hypot(first.sem(), again.sem())


def test_only_the_changed_machine_changes_and_a_repair_brings_it_back() -> None:
    line = InspectionLine(seed=3, change="concentrated", change_week=10)
    calm = InspectionLine(seed=3)
    assert line.changed is not None
    column, value = line.changed
    line.repair(13)
    for number, changed in ((9, False), (10, True), (12, True), (13, False), (20, False)):
        one, two = line.week(number), calm.week(number)
        pd.testing.assert_frame_equal(one.labels, two.labels)
        moved = (one.inspections != two.inspections) & one.inspections.notna()
        assert set(one.inspections.loc[moved.any(axis=1), column]) == ({value} if changed else set())


def test_a_repair_of_a_line_without_a_broken_machine_changes_nothing() -> None:
    for change in ("none", "spread"):
        line, same = (
            InspectionLine(seed=3, change=change, change_week=10, rows_per_week=100)  # type: ignore[arg-type]
            for _ in range(2)
        )
        line.repair(11)
        assert line.changed is None
        pd.testing.assert_frame_equal(line.week(12).inspections, same.week(12).inspections)


def test_the_changed_machine_is_chosen_by_the_seed() -> None:
    chosen = {InspectionLine(seed=seed, change="concentrated", change_week=1).changed for seed in range(40)}
    assert len(chosen) >= 10


def test_a_spread_change_moves_every_machine_alike() -> None:
    calm, moved = InspectionLine(seed=3), InspectionLine(seed=3, change="spread", change_week=5)
    one, two = calm.week(5).inspections, moved.week(5).inspections
    by = (two["temperature_c"] - one["temperature_c"]).groupby(one["machine"]).mean()
    assert len(by) == 12
    assert np.ptp(by.to_numpy()) < 0.05 and by.min() > 1.0


def test_bad_rows_are_those_that_were_asked_for() -> None:
    rows = InspectionLine(seed=1, bad_share=0.1).week(1).inspections
    numbers = pd.to_numeric(rows["torque_nm"], errors="coerce")
    faults = {
        "text": int((numbers.isna() & rows["torque_nm"].notna()).sum()),
        "impossible": int((rows["pressure_bar"] == -9999.0).sum()),
        "no machine": int(rows["machine"].isna().sum()),
        "no time": int(rows["time"].isna().sum()),
    }
    assert sum(faults.values()) == pytest.approx(200, abs=60)
    assert max(faults.values()) - min(faults.values()) <= 1
    clean = InspectionLine(seed=1).week(1).inspections
    untouched = rows["machine"].notna() & rows["time"].notna()
    assert (rows.loc[untouched, "roughness_um"].dropna() == clean.loc[untouched, "roughness_um"].dropna()).all()


def test_a_week_takes_milliseconds() -> None:
    line = InspectionLine(seed=1)
    line.week(1)
    begun = time.process_time()
    for number in range(2, 7):
        line.week(number)
    assert (time.process_time() - begun) / 5 < 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"machines": 2, "lines": 3}, "machines is 2 and lines is 3"),
        ({"machines": 100}, "machines is 100"),
        ({"rows_per_week": 0}, "rows_per_week is 0"),
        ({"change": "sudden"}, "change is 'sudden'"),
        ({"change": "mean"}, "change_week must say"),
        ({"start": date(2026, 1, 6)}, "start is 2026-01-06; it must be a Monday"),
        ({"label_delay_days": (3.0, 1.0)}, "label_delay_days"),
        ({"bad_share": 1.5}, "bad_share is 1.5"),
        ({"missing_share": -0.1}, "missing_share is -0.1"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InspectionLine(**arguments)


def test_a_week_before_all_time_is_refused() -> None:
    with pytest.raises(ValueError, match="week is -10000"):
        InspectionLine().week(-10_000)


@pytest.mark.parametrize("change", CHANGES)
def test_losses_have_the_share_and_scale_of_their_law(change: str) -> None:
    rng = np.random.default_rng(0)
    for since, strength in ((-1, 1.0), (0, 1.0), (0, 0.5), (30, 1.0)):
        law = loss_law(change, windows_since=since, strength=strength)
        losses = window_losses(change, 200_000, windows_since=since, rng=rng, strength=strength)
        assert losses.mean() == pytest.approx(law.mean, rel=0.02)
        second = (1 - law.hard_share) * 2 * law.easy_scale**2 + law.hard_share * 6 * law.hard_scale**2
        assert (losses**2).mean() == pytest.approx(second, rel=0.05)


def test_fewer_but_harder_leaves_the_mean() -> None:
    assert CHANGES["fewer but harder"].mean == pytest.approx(BASE.mean, rel=0.02)


def test_losses_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValueError, match="change is 'sudden'"):
        loss_law("sudden", windows_since=0)
    with pytest.raises(ValueError, match="strength is 2"):
        loss_law("none", windows_since=0, strength=2.0)
