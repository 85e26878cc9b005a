"""Twin lives: the threshold rule itself, the false alarms that it gives, and the power that is left."""

from __future__ import annotations

import numpy as np
import pytest

from monitoring.life import Counts, Life
from monitoring.lives import History, TwinLives, components, harm
from monitoring.ranks import RankBins, bin_ends, scores_of

HORIZON = 52


def _twins(reference_rows: int, lives: int, seed: int = 0) -> TwinLives:
    spacings = np.diff(bin_ends(reference_rows), prepend=0, append=reference_rows + 1)
    return TwinLives(spacings, scores_of(spacings), lives=lives, seed=seed, horizon=HORIZON)


def _thresholds(reference_rows: int, rows: list[int], budget: float, seed: int = 0) -> np.ndarray:
    twins = _twins(reference_rows, int(10 * HORIZON / budget), seed)
    found = []
    for look, each in enumerate(rows, start=1):
        threshold = twins.threshold(each, budget * look / HORIZON)
        twins.advance(each, threshold)
        found.append(np.inf if threshold is None else threshold)
    return np.array(found)


def _statistics(reference_rows: int, counts: np.ndarray) -> np.ndarray:
    """Of many real lives, (looks, lives), from counts (looks, bins, lives)."""
    spacings = np.diff(bin_ends(reference_rows), prepend=0, append=reference_rows + 1)
    scores = scores_of(spacings)
    history = History(total=np.zeros((len(scores.names), counts.shape[2])))
    found = []
    for each in counts:
        history = history.then(scores.values @ each, int(each[:, 0].sum()))
        found.append(harm(components(history, scores, reference_rows=reference_rows, horizon=HORIZON)))
    return np.array(found)


def _lives(rng: np.random.Generator, reference_rows: int, rows: list[int], lives: int, law: str) -> np.ndarray:
    """Rank counts of real lives from real losses: nothing is taken from the twins' own law."""

    def draw(size: int) -> np.ndarray:
        if law == "0/1":
            return (rng.random(size) < 0.05).astype(float)
        return rng.lognormal(size=size) if law == "log-normal" else rng.pareto(1.5, size=size)

    bins = bin_ends(reference_rows).size + 1
    counts = np.zeros((len(rows), bins, lives))
    look = np.repeat(np.arange(len(rows)), rows)
    for life in range(lives):
        reference = RankBins.of(draw(reference_rows), rng.random(reference_rows))
        places = reference.place(draw(look.size), rng.random(look.size))
        counts[:, :, life] = np.bincount(look * bins + places, minlength=len(rows) * bins).reshape(len(rows), bins)
    return counts


# A budget of 0.10 over 1,500 lives has a standard error of 0.008: the bounds are five of them away.
@pytest.mark.parametrize(
    ("law", "reference_rows", "window"), [("log-normal", 500, 50), ("0/1", 200, 100), ("Pareto", 200, None)]
)
def test_false_alarms_keep_to_the_budget(law: str, reference_rows: int, window: int | None) -> None:
    rng = np.random.default_rng(7)
    rows = [window] * HORIZON if window else rng.integers(20, 200, size=HORIZON).tolist()
    statistics = _statistics(reference_rows, _lives(rng, reference_rows, rows, 1500, law))
    alarms = (statistics > _thresholds(reference_rows, rows, 0.1)[:, None]).any(axis=0)
    assert 0.06 <= alarms.mean() <= 0.14


def test_alarms_come_as_the_calendar_says() -> None:
    """By half of the life, half of the budget is spent, and no more."""
    rng = np.random.default_rng(8)
    rows = [100] * HORIZON
    statistics = _statistics(500, _lives(rng, 500, rows, 1500, "log-normal"))
    alarms = statistics > _thresholds(500, rows, 0.2)[:, None]
    assert 0.065 <= alarms[: HORIZON // 2].any(axis=0).mean() <= 0.14
    assert 0.15 <= alarms.any(axis=0).mean() <= 0.25


def _mixture(rng: np.random.Generator, size: int, share: float, shape: float, scale: float) -> np.ndarray:
    hard = rng.random(size) < share
    return np.where(hard, rng.gamma(shape, scale, size), rng.gamma(1, 0.15, size))


@pytest.mark.parametrize(
    ("change", "missed", "delay"),
    [
        ((0.30, 2, 0.5), 0.02, 2),  # spread out
        ((0.15, 2, 1.5), 0.02, 6),  # more hard rows
        ((0.05, 2, 3.0), 0.02, 5),  # fewer but harder: the mean is as it was
        ((0.125, 2, 1.5), 0.30, 14),  # half as many more hard rows
    ],
)
def test_changes_of_the_concentration_are_seen(change: tuple[float, float, float], missed: float, delay: float) -> None:
    rng = np.random.default_rng(9)
    lives, reference_rows, window, bins = 150, 2000, 200, bin_ends(2000).size + 1
    counts = np.zeros((HORIZON, bins, lives))
    for life in range(lives):
        reference = RankBins.of(_mixture(rng, reference_rows, 0.1, 2, 1.5), rng.random(reference_rows))
        for look in range(HORIZON):
            law = (0.1, 2, 1.5) if look < 25 else change
            losses = _mixture(rng, window, *law)
            counts[look, :, life] = np.bincount(reference.place(losses, rng.random(window)), minlength=bins)
    alarms = _statistics(reference_rows, counts) > _thresholds(reference_rows, [window] * HORIZON, 0.1)[:, None]
    first = np.where(alarms.any(axis=0), alarms.argmax(axis=0), 99)
    after = first[first >= 25] - 24
    assert (after > HORIZON).mean() <= missed
    assert np.median(after[after <= HORIZON]) <= delay


def test_the_threshold_is_the_nth_largest_of_the_twins_left() -> None:
    twins = _twins(500, 1000)
    first = twins.threshold(100, 0.02)
    assert first is not None
    twins.advance(100, first)
    assert twins.alarmed == 20
    assert twins.threshold(100, 0.02) is None
    twins.advance(3, twins.threshold(3, 0.025))  # three rows: most statistics would tie
    assert twins.alarmed == 25


def test_asking_for_a_threshold_changes_nothing() -> None:
    asked, silent = _twins(500, 500), _twins(500, 500)
    for rows in (10, 300, 70):
        asked.threshold(rows, 0.1)
    for look in range(1, 5):
        assert asked.threshold(60 * look, 0.1 * look) == silent.threshold(60 * look, 0.1 * look)
        asked.threshold(33, 0.1)
        for twins in (asked, silent):
            twins.advance(60 * look, twins.threshold(60 * look, 0.1 * look))
    assert asked.alarmed == silent.alarmed


def test_replay_ends_where_the_first_life_was() -> None:
    first, looks = _twins(500, 2000), []
    for look in range(1, 24):
        rows = 30 + 17 * look % 90
        threshold = first.threshold(rows, 0.1 * look / HORIZON)
        first.advance(rows, threshold)
        looks.append((rows, threshold))
    second = _twins(500, 2000)
    second.replay(looks)
    assert second.alarmed == first.alarmed
    assert second.threshold(77, 0.3) == first.threshold(77, 0.3)


def test_views_of_the_same_units_share_the_budget() -> None:
    spacings = np.diff(bin_ends(100), prepend=0, append=101)
    bins = RankBins(spacings, np.arange(spacings.size - 1.0), np.zeros(spacings.size - 1))
    one, two = (Life(views=(bins,) * views, lives=2000, seed=0, horizon=10) for views in (1, 2))
    threshold = two.threshold(10, 0.1)
    assert threshold == one.threshold(10, 0.05)
    two.look(Counts(np.bincount([0] * 10, minlength=spacings.size)[None, :].repeat(2, axis=0)), threshold)
    assert two.spent == pytest.approx(0.1)


def test_hidden_skewness_does_not_set_the_threshold() -> None:
    """Small windows have skewed counts of hard rows; freed of skewness, every score can raise the alarm."""
    spacings = np.diff(bin_ends(500), prepend=0, append=501)
    scores = scores_of(spacings)
    counts = np.random.default_rng(3).multinomial(50, spacings / 501, size=20_000).T.astype(float)
    history = History(total=np.zeros((len(scores.names), 20_000))).then(scores.values @ counts, 50)
    part = next(iter(components(history, scores, reference_rows=10**9, horizon=1)))
    scale = 2**0.1
    for row, name in zip(part.values * scale, scores.names, strict=True):
        assert 2.6 < np.quantile(row, 0.999) < 3.7, name


def test_a_statistic_needs_a_window() -> None:
    spacings = np.diff(bin_ends(500), prepend=0, append=501)
    with pytest.raises(ValueError, match="at least one window"):
        harm(components(History(), scores_of(spacings), reference_rows=500, horizon=52))
