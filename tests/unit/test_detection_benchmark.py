"""The benchmark's bulk lives decide as the scan's class does, and its other detectors as their own libraries do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.detection_cells import _summary, with_defaults
from benchmarks.detection_figures import interval
from benchmarks.detection_lives import first_alarm, ranked, statistics, thresholds
from benchmarks.detection_rivals import (
    equal_threshold,
    ks_distance,
    ks_limit,
    page_hinkley,
    rival_statistics,
    wasserstein,
)
from monitoring.scan import ConcentrationScan

HORIZON = 52


def _losses(life: int) -> tuple[np.ndarray, np.ndarray]:
    """A reference (1, 500), sorted, and windows (1, 52, 100) that grow harder by and by."""
    rng = np.random.default_rng([61, life])
    growth = np.linspace(1.0, 1.6, HORIZON)[:, None]
    return np.sort(rng.lognormal(size=(1, 500)), axis=1), (growth * rng.lognormal(size=(HORIZON, 100)))[None]


@pytest.mark.parametrize("effect", [None, 1.15])
def test_lives_in_bulk_alarm_in_the_week_in_which_the_class_does(effect: float | None) -> None:
    limits = thresholds(500, [100] * HORIZON, 0.1, lives=1040, seed=3)
    for life in range(4):
        references, windows = _losses(life)
        held = ranked(references, windows)
        bulk = (
            first_alarm(statistics(500, held.counts), limits)
            if effect is None
            else with_defaults(500, 100, held, limits)
        )
        scan = ConcentrationScan(0.1, HORIZON, 100, effect, seed=3, lives=1040).fit(references[0])
        alarm = next((week for week, rows in enumerate(windows[0], start=1) if scan.update(rows).alarm), np.inf)
        assert bulk[0] == alarm < np.inf


def test_distances_are_scipys() -> None:
    references, windows = _losses(9)
    ordered = np.sort(windows, axis=2)
    found, moved = ks_distance(references, ordered)[0], wasserstein(references, ordered)[0]
    for week in (0, 20, 51):
        expected = stats.ks_2samp(references[0], windows[0, week], method="asymp")
        assert found[week] == pytest.approx(expected.statistic)
        assert (found[week] >= ks_limit(0.05, 500, 100)) == (expected.pvalue <= 0.05)
        distance = stats.wasserstein_distance(references[0], windows[0, week]) / references[0].std()
        assert moved[week] == pytest.approx(distance)
    with pytest.raises(ValueError, match="rows is 300"):
        wasserstein(references, np.ones((1, 2, 300)))


def test_page_hinkley_is_rivers() -> None:
    from river.drift import PageHinkley

    references, windows = _losses(11)
    highest = page_hinkley(references, windows)[0]
    compared = 0
    for threshold in (np.sort(np.maximum.accumulate(highest))[[10, 40]] * 0.999).tolist():
        detector, alarm = PageHinkley(threshold=threshold), None
        for loss in references[0].tolist():
            detector.update(loss)
        if detector.drift_detected:
            continue
        for week, rows in enumerate(windows[0].tolist(), start=1):
            for loss in rows:
                detector.update(loss)
                if detector.drift_detected and alarm is None:
                    alarm = week
        assert alarm == int(np.argmax(highest > threshold)) + 1
        compared += 1
    assert compared


def test_evidentlys_default_is_the_test_that_the_benchmark_runs() -> None:
    import pandas as pd
    from evidently.legacy.calculations.stattests import get_stattest, ks_stat_test, wasserstein_stat_test
    from evidently.legacy.core import ColumnType

    small, large = pd.Series(np.arange(1000.0)), pd.Series(np.arange(1001.0))
    assert get_stattest(small, small, ColumnType.Numerical, None).name == ks_stat_test.name
    assert get_stattest(large, large, ColumnType.Numerical, None).name == wasserstein_stat_test.name
    assert (ks_stat_test.default_threshold, wasserstein_stat_test.default_threshold) == (0.05, 0.1)


def test_an_equal_rate_is_equal() -> None:
    rng = np.random.default_rng(0)
    references = np.sort(rng.lognormal(size=(200, 100)), axis=1)
    numbers = rival_statistics(references, rng.lognormal(size=(200, 20, 50)), rng)
    for name, values in numbers.items():
        limit = equal_threshold(values, 0.1)
        assert (values.max(axis=0) >= limit).mean() == pytest.approx(0.1), name
    assert equal_threshold(numbers["ks"], 0.0) == np.inf


def test_lives_that_alarmed_before_the_change_are_not_judged() -> None:
    found = _summary({"it": np.array([3.0, 26.0, 28.0, np.inf])})["it"]
    assert found == {"lives": 4, "any": 3, "early": 1, "missed": 1, "delay": 3.0}
    assert _summary({"it": np.full(4, np.inf)})["it"]["delay"] is None
    low, high = interval(5, 100)
    assert low == pytest.approx(0.0164, abs=1e-4) and high == pytest.approx(0.1128, abs=1e-4)
