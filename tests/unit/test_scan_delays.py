"""Labels that come late, in any order, or by an unknown choice: the promise holds, or the state says that it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from monitoring.scan import ConcentrationScan

WEEKS = 12
AGES = (7, 21, 42)
Delays = Callable[[np.random.Generator, np.ndarray], np.ndarray]

# Days from a row to its label, 0 to 6 weeks; the law is the same in the reference and in every window.
DELAYS: dict[str, Delays] = {
    "even": lambda rng, hard: rng.integers(0, 43, hard.size).astype(float),
    "defects first": lambda rng, hard: np.where(hard, rng.integers(0, 15, hard.size), rng.integers(0, 43, hard.size)),
    "defects last": lambda rng, hard: np.where(hard, rng.integers(21, 43, hard.size), rng.integers(0, 43, hard.size)),
}


def _rows(rng: np.random.Generator, rows: int, delays: Delays, share: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    hard = rng.random(rows) < share
    losses = np.where(hard, rng.gamma(2.0, 1.5, rows), rng.gamma(1.0, 0.15, rows))
    return losses, np.asarray(delays(rng, hard), dtype=float)


def _scan(rng: np.random.Generator, delays: Delays, seed: int, **kwargs: object) -> ConcentrationScan:
    scan = ConcentrationScan(0.2, WEEKS, 200, seed=seed, lives=720, label_age=AGES, **kwargs)  # type: ignore[arg-type]
    losses, ages = _rows(rng, 2000, delays)
    return scan.fit(losses, ages=ages)


@pytest.mark.slow
@pytest.mark.parametrize("law", DELAYS)
def test_false_alarms_keep_to_the_budget_whatever_the_delays(law: str) -> None:
    """Looks come in the order of the days on which they are due: window 1 at 42 days after window 5 at 7 days."""
    lives, alarms = 60, 0
    for life in range(lives):
        rng = np.random.default_rng([31, life])
        scan = _scan(rng, DELAYS[law], life, relevant_effect=None)
        windows = [_rows(rng, 200, DELAYS[law]) for _ in range(WEEKS)]
        looks = sorted((7 * week + age, week, age) for week in range(WEEKS) for age in AGES)
        found = False
        for _, week, age in looks:
            losses, ages = windows[week]
            found |= scan.update(losses[ages <= age], window=f"W{week:02d}", age=age).alarm
        alarms += found
    # A budget of 0.2 is 12 lives, standard deviation 3.1; looks that share their rows alarm together, so fewer are.
    assert 2 <= alarms <= 18


def test_looks_at_several_ages_are_kept_apart() -> None:
    rng = np.random.default_rng(5)
    scan = _scan(rng, DELAYS["even"], 1)
    losses, ages = _rows(rng, 400, DELAYS["even"])
    results = [scan.update(losses[ages <= age], window="W1", age=age) for age in AGES]
    assert [each.age for each in results] == [7, 21, 42]
    assert results[0].rows < results[1].rows < results[2].rows == 400
    # Each age spends a third of the window's share: 0.2 / 12 / 3 of 720 twins are four.
    assert [each.budget_spent for each in results] == pytest.approx([4 / 720, 8 / 720, 12 / 720])
    with pytest.raises(ValueError, match="W1 was judged already"):
        scan.update(losses, window="W1", age=42)
    with pytest.raises(
        ValueError, match=r"window W2: age is 9; this life counts labels of 7\.0 or 21\.0 or 42\.0 days"
    ):
        scan.update(losses, window="W2", age=9)
    with pytest.raises(ValueError, match="age is None"):
        scan.update(losses, window="W2")
    with pytest.raises(ValueError, match="needs the age of each row's label"):
        ConcentrationScan(label_age=AGES).fit(losses)
    with pytest.raises(ValueError, match="usable rows with labels of at most 7 days"):
        ConcentrationScan(label_age=AGES).fit(*_rows(rng, 900, DELAYS["even"])[:1], ages=np.full(900, 9.0))
    with pytest.raises(ValueError, match="several different ones"):
        ConcentrationScan(label_age=(7, 7))


def test_a_change_is_seen_at_the_first_age_that_shows_it_and_closes_all() -> None:
    rng = np.random.default_rng(6)
    scan = _scan(rng, DELAYS["defects first"], 2)
    losses, ages = _rows(rng, 400, DELAYS["defects first"], share=0.35)
    early = scan.update(losses[ages <= 7], window="W1", age=7)
    assert early.alarm and early.age == 7 and scan.ended
    later = scan.update(losses, window="W1", age=42)
    assert (later.state, later.alarm, later.budget_spent) == ("spent", False, early.budget_spent)
    assert scan.threshold_for(200, age=42) is None


def test_a_year_at_three_ages_is_saved_in_20_kb() -> None:
    rng = np.random.default_rng(7)
    scan = ConcentrationScan(0.1, 52, 200, 50.0, seed=1, lives=1600, label_age=AGES)
    losses, ages = _rows(rng, 2000, DELAYS["even"])
    scan.fit(losses, ages=ages, weeks=np.repeat(np.arange(10), 200))
    for week in range(51):
        losses, ages = _rows(rng, 1000, DELAYS["even"])
        for age in AGES:
            scan.update(losses[ages <= age], window=f"2026-W{week:02d}", age=age)
    text = json.dumps(scan.to_dict())
    assert len(text) <= 20_000
    again = ConcentrationScan.from_dict(json.loads(text))
    assert again.to_dict() == scan.to_dict()
    for age in AGES:
        kept = losses[ages <= age]
        assert again.update(kept, window="last", age=age) == scan.update(kept, window="last", age=age)


def test_an_unknown_selection_says_so_and_never_alarms() -> None:
    """Only what looked suspicious was labelled, nobody knows how often: every window looks hard."""
    rng = np.random.default_rng(8)
    scan = ConcentrationScan(0.1, WEEKS, 200, None, lives=500).fit(_rows(rng, 1000, DELAYS["even"])[0])
    for week in range(WEEKS):
        losses, _ = _rows(rng, 1000, DELAYS["even"])
        losses = losses[losses > 0.5]
        result = scan.update(losses, probabilities=np.full(losses.size, np.nan), window=week)
        assert (result.state, result.alarm, result.threshold) == ("labels_not_representative", False, None)
        assert result.budget_spent == 0.0
    scan = ConcentrationScan(0.1, WEEKS, 200, None, lives=500)
    losses, _ = _rows(rng, 1000, DELAYS["even"])
    scan.fit(losses, probabilities=np.where(losses > 0.5, np.nan, 1.0))
    assert scan.update(9 * losses[:300]).state == "labels_not_representative"


def test_ordinary_weeks_that_differ_do_not_alarm() -> None:
    """A share of hard rows that moves by two points from week to week; a real change is still found."""
    strict = open_to_all = found = 0
    for life in range(20):
        rng = np.random.default_rng([41, life])
        shares = 0.1 + rng.choice([-0.02, 0.02], size=30)
        weeks = [_rows(rng, 1000, DELAYS["even"], share)[0] for share in shares]
        cautious, plain = (
            ConcentrationScan(0.1, 26, 1000, effect, seed=life, lives=1040).fit(np.concatenate(weeks[:4]))
            for effect in (1.15, None)
        )
        for losses in weeks[4:]:
            strict += cautious.update(losses).alarm
            open_to_all += plain.update(losses).alarm
        told = ConcentrationScan(0.1, 26, 1000, seed=life, lives=1040)
        told.fit(np.concatenate(weeks[:4]), weeks=np.repeat(np.arange(4), 1000))
        found += any(told.update(_rows(rng, 1000, DELAYS["even"], 0.2)[0]).alarm for _ in range(4))
    assert open_to_all >= 8  # of 20 lives; a budget of 0.1 is 2
    assert strict <= 2
    assert found >= 17
