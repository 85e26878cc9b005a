"""Steps between ordinary weeks are seldom called a change, and a change is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from monitoring.ordinary import between_weeks, figures_of, step

Draw = Callable[[np.random.Generator, int], np.ndarray]


def same_law(rng: np.random.Generator, rows: int) -> np.ndarray:
    hard = rng.random(rows) < 0.1
    return np.where(hard, rng.gamma(2, 1.5, rows), rng.gamma(1, 0.15, rows))


def wandering(rng: np.random.Generator, rows: int) -> np.ndarray:
    return same_law(rng, rows) * rng.normal(1.0, 0.12)


@pytest.mark.parametrize("law", [same_law, wandering])
@pytest.mark.parametrize("weeks", [0, 2, 8, 26])
def test_ordinary_weeks_are_seldom_called_better_or_worse(law: Draw, weeks: int) -> None:
    rng = np.random.default_rng(3)
    called = dict.fromkeys(("mean", "tail", "stability"), 0)
    lives = 400
    for _ in range(lives):
        ordinary = [figures_of(law(rng, 300)) for _ in range(weeks)]
        before, now = figures_of(law(rng, 1000)), figures_of(law(rng, 1000))
        for name in called:
            between = between_weeks([one[name] for one in ordinary] or [before[name]])
            called[name] += step(now[name], before[name], between) != "same"
    # Few weeks cannot tell how much weeks wander; what is thought beforehand keeps even those mostly quiet.
    allowed = 0.03 if law is same_law else {0: 0.12, 2: 0.12, 8: 0.08, 26: 0.04}[weeks]
    assert max(called.values()) / lives <= allowed, called


def test_a_figure_twice_as_high_is_called_worse() -> None:
    rng = np.random.default_rng(4)
    ordinary = [figures_of(same_law(rng, 500)) for _ in range(8)]
    before, now = figures_of(same_law(rng, 2000)), figures_of(2.0 * same_law(rng, 2000))
    for name in ("mean", "tail", "stability"):
        between = between_weeks([one[name] for one in ordinary])
        assert step(now[name], before[name], between) == "worse"
        assert step(before[name], now[name], between) == "better"


def test_standard_errors_are_those_of_many_draws() -> None:
    rng = np.random.default_rng(5)
    draws = [figures_of(same_law(rng, 1000)) for _ in range(400)]
    for name in ("mean", "tail", "stability"):
        values, errors = zip(*(one[name] for one in draws), strict=True)
        assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15), name
