"""The limit of a difference of shares: right as often as it says, also where a handful of answers changed."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from flows.paired_shares import caught_at, lowest_difference


@cache
def passes(lost: int, won: int, rows: int) -> bool:
    return (lost == won == 0) or lowest_difference(lost, won, rows, 0.95) >= -0.01


@pytest.mark.parametrize(("lost", "won"), [(0.02, 0.01), (0.03, 0.02), (0.06, 0.05)])
def test_at_the_margin_at_most_one_in_twenty_passes(lost: float, won: float) -> None:
    rng = np.random.default_rng(0)
    draws = rng.multinomial(200, [lost, won, 1 - lost - won], size=20_000)
    rate = np.mean([passes(int(a), int(b), 200) for a, b, _ in draws])
    assert 0.03 < rate < 0.052


def test_what_is_better_by_a_point_passes() -> None:
    rng = np.random.default_rng(0)
    won = rng.binomial(200, 0.01, size=5_000)
    assert np.mean([passes(0, int(one), 200) for one in won]) > 0.9


def test_more_rows_come_closer_and_more_lost_go_lower() -> None:
    limits = [lowest_difference(rows // 50, rows // 50, rows, 0.95) for rows in (100, 1_000, 10_000)]
    assert limits == sorted(limits) and limits[-1] > -0.01
    assert lowest_difference(5, 2, 200, 0.95) < lowest_difference(3, 2, 200, 0.95) < lowest_difference(3, 4, 200, 0.95)
    assert lowest_difference(40, 0, 40, 0.95) < -0.85 and lowest_difference(0, 0, 0, 0.95) == -1.0


def test_the_threshold_is_the_lowest_that_rejects_no_more_good_rows() -> None:
    rng = np.random.default_rng(3)
    scores, good = rng.random(500), rng.random(500) < 0.8
    for rejects in (0, 7, int(good.sum())):
        caught = caught_at(scores, good, rejects)
        assert int((caught & good).sum()) == rejects
