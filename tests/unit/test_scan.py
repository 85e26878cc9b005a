"""The scan as others use it: windows in the order of the calendar, states, the smallest relevant effect, saving."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from monitoring.scan import ConcentrationScan
from monitoring.scan_result import ScanResult


def _scan(seed: int = 1, rows: int = 1000, **kwargs: object) -> ConcentrationScan:
    settings = {"alarm_budget": 0.1, "windows": 20, "window_size": 200, "lives": 2000} | kwargs
    return ConcentrationScan(**settings).fit(_draw(seed, rows), ids=[f"r{each}" for each in range(rows)])  # type: ignore[arg-type]


def _draw(seed: int, rows: int, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng([99, seed]).lognormal(size=rows)


def test_a_shift_alarms_and_closes_the_life() -> None:
    scan = _scan()
    calm = [scan.update(_draw(10 + week, 200), window=f"W{week:02d}") for week in range(5)]
    assert {each.state for each in calm} == {"ok"}
    assert all(0 <= each.nearness < 1 for each in calm)
    loud = scan.update(_draw(50, 200, scale=2.5), window="W05")
    assert loud.alarm and loud.state == "alarm" and loud.nearness > 1
    assert loud.effect is not None and loud.effect.relevant and loud.effect.tail > 1.5
    assert scan.ended
    after = scan.update(_draw(51, 200, scale=2.5), window="W06")
    assert (after.state, after.alarm, after.threshold) == ("spent", False, None)
    assert after.statistic is not None and after.statistic > 3
    assert after.budget_spent == loud.budget_spent
    assert scan.threshold_for(200) is None
    assert scan.fit(_draw(1, 1000)).update(_draw(52, 200)).state == "ok"


def test_the_life_ends_after_its_windows() -> None:
    scan = _scan(windows=3)
    states = [scan.update(_draw(week, 200)).state for week in range(10, 15)]
    assert states == ["ok", "ok", "ok", "spent", "spent"]


def test_budget_is_spent_along_the_calendar_and_never_more() -> None:
    scan = _scan(relevant_effect=None)
    spent = [scan.update(_draw(week, 60 + 13 * week % 200)).budget_spent for week in range(10, 25)]
    assert spent == [int(2000 * 0.1 * position / 20) / 2000 for position in range(1, 16)]


def test_a_window_with_few_labels_waits_and_spends_nothing() -> None:
    scan, other = _scan(min_rows=50), _scan(min_rows=50)
    few = scan.update(_draw(10, 12), window="W00")
    assert (few.state, few.missing, few.rows, few.budget_spent, few.statistic) == ("too_few_labels", 38, 12, 0.0, None)
    assert scan.update([], window="W01").missing == 50
    # The latest one may come again with more labels; it keeps its place in the calendar.
    assert scan.threshold_for(200, window="W01") is not None
    judged = scan.update(_draw(11, 200), window="W01")
    assert judged.state == "ok" and judged.threshold is not None
    # Two windows' share of the budget is there, so the threshold is lower than that of a first window.
    first = other.update(_draw(11, 200), window="W01")
    assert first.threshold is not None and judged.threshold < first.threshold
    with pytest.raises(ValueError, match="W01 was judged already"):
        scan.update(_draw(11, 200), window="W01")
    assert scan.update(_draw(12, 200), window="W00b").state == "ok"


def test_the_announced_threshold_is_the_one_that_is_used() -> None:
    scan, silent = _scan(), _scan()
    for week, rows in enumerate((200, 57, 333)):
        scan.threshold_for(1000)
        announced = scan.threshold_for(rows)
        used = scan.update(_draw(week + 10, rows))
        assert used.threshold == announced == silent.update(_draw(week + 10, rows)).threshold


def test_a_drill_moves_the_alarm_and_not_the_twins() -> None:
    calm, drilled = _scan(relevant_effect=None), _scan(relevant_effect=None)
    as_it_is = calm.update(_draw(10, 200))
    low = drilled.update(_draw(10, 200), threshold=-5.0)
    assert low.statistic == as_it_is.statistic and low.budget_spent == as_it_is.budget_spent
    assert (as_it_is.alarm, low.alarm, low.threshold) == (False, True, -5.0)
    assert not _scan().update(_draw(50, 200, scale=5), threshold=1e6).alarm


def test_a_tiny_change_in_many_rows_is_no_alarm() -> None:
    strict, open_to_all = _scan(rows=20_000, windows=5), _scan(rows=20_000, windows=5, relevant_effect=1.0)
    window = _draw(10, 60_000, scale=1.06)
    small, any_change = strict.update(window), open_to_all.update(window)
    assert small.statistic == any_change.statistic and small.threshold == any_change.threshold
    assert any_change.alarm
    assert not small.alarm and small.state == "ok" and small.nearness > 1
    assert small.effect is not None and not small.effect.relevant and small.tested < (small.threshold or 0)
    assert not strict.ended


def test_an_improvement_is_told_and_does_not_alarm() -> None:
    result = _scan().update(_draw(10, 500, scale=0.4))
    assert (result.alarm, result.state, result.improvement) == (False, "ok", True)
    assert not _scan().update(_draw(10, 500)).improvement


def test_ids_that_begin_again_in_each_window_do_no_harm() -> None:
    """With 0/1 losses the ranks within ties are the jitters: shared ones would move all windows together."""
    alarms = 0
    for life in range(60):
        rng = np.random.default_rng([5, life])
        scan = ConcentrationScan(0.2, 10, 100, relevant_effect=None, seed=life, lives=400)
        scan.fit((rng.random(400) < 0.1).astype(float), ids=range(400))  # type: ignore[arg-type]
        alarms += any(
            scan.update((rng.random(100) < 0.1).astype(float), ids=range(100)).alarm  # type: ignore[arg-type]
            for _ in range(10)
        )
    assert 2 <= alarms <= 26  # 12 expected, standard deviation 3.1


@pytest.mark.parametrize("law", ["log-normal", "Pareto", "0/1"])
def test_false_alarms_through_the_class(law: str) -> None:
    alarms = 0
    for life in range(60):
        rng = np.random.default_rng([6, life])

        def draw(rows: int, rng: np.random.Generator = rng) -> np.ndarray:
            if law == "0/1":
                return (rng.random(rows) < 0.05).astype(float)
            return rng.lognormal(size=rows) if law == "log-normal" else rng.pareto(1.5, size=rows)

        scan = ConcentrationScan(0.2, 12, 100, relevant_effect=None, seed=life, lives=500).fit(draw(300))
        alarms += any(scan.update(draw(int(rows))).alarm for rows in rng.integers(30, 200, size=12))
    assert 2 <= alarms <= 26


def test_lots_are_ranked_where_rows_are_alike_within_them() -> None:
    def draw(rng: np.random.Generator, lots: int) -> tuple[np.ndarray, np.ndarray]:
        shared = np.repeat(rng.normal(size=lots), 20)
        return np.exp(0.6 * shared + 0.8 * rng.normal(size=20 * lots)), np.repeat(np.arange(lots), 20)

    by_rows = by_lots = 0
    for life in range(40):
        rng = np.random.default_rng([7, life])
        losses, lots = draw(rng, 80)
        with_lots = ConcentrationScan(0.1, 10, 100, relevant_effect=None, seed=life, lives=500).fit(losses, lots=lots)
        rows = ConcentrationScan(0.1, 10, 100, relevant_effect=None, seed=life, lives=500).fit(losses)
        assert with_lots.by_lots and not rows.by_lots
        for week in range(10):
            losses, lots = draw(rng, 5)
            by_lots += with_lots.update(losses, lots=[f"{week}-{lot}" for lot in lots]).alarm
            by_rows += rows.update(losses).alarm
    assert by_rows >= 15  # a budget of 0.1 is 4 lives
    assert by_lots <= 11


def test_lots_shift_and_states_that_cannot_judge() -> None:
    rng = np.random.default_rng(1)
    few = ConcentrationScan(windows=10, lives=500).fit(rng.exponential(size=400), lots=np.repeat(range(40), 10))
    assert few.update(rng.exponential(size=100), lots=np.repeat(range(10), 10)).state == "too_few_lots"
    enough = ConcentrationScan(windows=10, lives=500).fit(rng.exponential(size=800), lots=np.repeat(range(80), 10))
    shifted = enough.update(3 * rng.exponential(size=150), lots=np.repeat(range(15), 10))
    assert shifted.state == "alarm" and shifted.lots == 15
    with pytest.raises(ValueError, match="lots must be given if and only if"):
        enough.update(rng.exponential(size=100))
    unknown = _scan().update(_draw(50, 200, scale=9), probabilities=[np.nan] * 200)
    assert (unknown.state, unknown.alarm, unknown.statistic) == ("labels_not_representative", False, None)


def test_rows_that_are_labelled_more_often_do_not_alarm() -> None:
    rng = np.random.default_rng(3)
    thinned, blind = _scan(windows=5), _scan(windows=5)
    losses = rng.lognormal(size=2000)
    chance = np.where(losses > 2, 1.0, 0.2)
    chosen = rng.random(2000) < chance
    assert blind.update(losses[chosen]).alarm
    result = thinned.update(losses[chosen], probabilities=chance[chosen])
    assert not result.alarm and result.rows < chosen.sum()


def test_label_age_is_the_same_for_reference_and_windows() -> None:
    losses, ages = np.append(_draw(1, 500), [1e6] * 100), np.repeat([1.0, 9.0], [500, 100])
    scan = ConcentrationScan(windows=5, lives=500, label_age=3).fit(losses, ages=ages)
    assert scan.update(_draw(2, 200), age=3).effect.mean < 2  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"labels of 3\.0 days"):
        scan.update(_draw(3, 200), age=7)
    with pytest.raises(ValueError, match="label_age is None"):
        ConcentrationScan().fit(losses, ages=ages)


def test_a_saved_scan_goes_on_as_the_first_would_have() -> None:
    first = ConcentrationScan(alarm_budget=0.1, windows=52, seed=4, lives=1000).fit(_draw(1, 2000))
    for week in range(52):
        rows = 30 + 37 * week % 300
        if week == 20:
            first.update([], window="2026-W20")
            continue
        state = json.loads(json.dumps(first.to_dict()))
        if week % 10 == 0:
            again = ConcentrationScan.from_dict(state)
            assert again.threshold_for(rows) == first.threshold_for(rows)
            assert again.update(_draw(week, rows), window=f"2026-W{week:02d}") == first.update(
                _draw(week, rows), window=f"2026-W{week:02d}"
            )
            assert again.to_dict() == first.to_dict()
        else:
            first.update(_draw(week, rows), window=f"2026-W{week:02d}")
    text = json.dumps(first.to_dict())
    assert len(text) <= 20_000
    assert ConcentrationScan.from_dict(json.loads(text)).to_dict() == first.to_dict()
    assert ConcentrationScan.from_dict(ConcentrationScan(windows=7).to_dict()).windows == 7
    with pytest.raises(ValueError, match="format 3"):
        ConcentrationScan.from_dict(first.to_dict() | {"format": 3})


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"alarm_budget": 0.0}, "alarm_budget is 0.0"),
        ({"alarm_budget": 1.0}, "alarm_budget is 1.0"),
        ({"windows": 0}, "windows is 0"),
        ({"window_size": 0}, "window_size is 0"),
        ({"relevant_effect": 0.9}, "relevant_effect is 0.9"),
        ({"seed": -1}, "seed is -1"),
        ({"lives": 10}, "no alarm can ever come"),
        ({"min_rows": 0}, "min_rows is 0"),
    ],
)
def test_wrong_settings_are_named(kwargs: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ConcentrationScan(**kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        (np.ones(300), "all losses of the reference are 1.0"),
        (np.arange(199.0), "199 usable rows; at least 200"),
        (np.append(np.arange(300.0), np.nan), "row 301 is nan"),
        (-np.arange(300.0), "row 2 is -1.0"),
    ],
)
def test_a_useless_reference_is_refused(losses: np.ndarray, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ConcentrationScan().fit(losses)


def test_wrong_windows_change_nothing() -> None:
    scan = _scan()
    with pytest.raises(ValueError, match="call fit"):
        ConcentrationScan().update([1.0])
    before = scan.to_dict()
    with pytest.raises(ValueError, match="window W1: row 2 is nan"):
        scan.update([1.0, float("nan")], window="W1")
    with pytest.raises(ValueError, match="'a' is there twice"):
        scan.update(_draw(1, 200), window="W1", ids=["a"] * 200)
    assert scan.to_dict() == before


def test_a_result_is_plain_data() -> None:
    result = _scan().update(_draw(10, 200), window="W1")
    document = json.loads(json.dumps(result.to_dict()))
    assert document["window"] == "W1" and document["effect"]["relevant"] in (True, False)
    nothing = ScanResult(False, "too_few_labels", None, None, 0.0, "W1", 3, missing=47)
    assert (nothing.nearness, nothing.tested) == (0.0, 0.0)


@pytest.mark.parametrize(("windows", "budget", "lives"), [(52, 0.1, 10_400), (52, 0.05, 20_800), (2, 0.5, 2_000)])
def test_twins_are_many_enough_for_the_budget(windows: int, budget: float, lives: int) -> None:
    assert ConcentrationScan(budget, windows).lives == lives
    assert ConcentrationScan(0.05, 365).lives == 25_000


def test_a_state_of_the_first_format_goes_on_with_its_own_scores() -> None:
    """Written by the version that had five scores, together with what it said next."""
    kept = json.loads(Path(__file__).with_name("scan_format_1.json").read_text())
    scan = ConcentrationScan.from_dict(kept["state"])
    for week, expected in enumerate(kept["then"], start=3):
        rows = np.random.default_rng([22, week]).lognormal(size=50 + week)
        found = scan.update(rows, window=f"W{week}").to_dict()
        assert {name: found[name] for name in expected} == expected
        scan = ConcentrationScan.from_dict(json.loads(json.dumps(scan.to_dict())))


def test_the_reference_tells_how_its_weeks_differ() -> None:
    rng = np.random.default_rng(8)
    weeks = np.repeat(np.arange(8), 250)
    calm, wandering = rng.lognormal(size=2000), rng.lognormal(rng.normal(scale=0.4, size=8)[weeks])
    quiet, loud = (ConcentrationScan(windows=5, lives=200).fit(each, weeks=weeks) for each in (calm, wandering))
    assert quiet.week_variance is not None and not quiet.week_variance.exceeds
    assert loud.week_variance is not None and loud.week_variance.exceeds and loud.week_variance.between > 0.01
    assert ConcentrationScan.from_dict(json.loads(json.dumps(loud.to_dict()))).week_variance == loud.week_variance
    assert ConcentrationScan(windows=5, lives=200).fit(calm).week_variance is None
    assert ConcentrationScan(windows=5, lives=200).fit(calm, weeks=["W1"] * 2000).week_variance is None
    with pytest.raises(ValueError, match="weeks of reference have shape"):
        ConcentrationScan().fit(calm, weeks=[1, 2])


def test_fewer_middling_rows_alone_are_no_harm() -> None:
    """Among the worst tenth the rest is then farther out; the hardest are as many as ever."""
    alarms = 0
    for life in range(30):
        rng = np.random.default_rng([9, life])
        reference = rng.lognormal(size=2000)
        low, high = np.quantile(reference, [0.85, 0.97])
        scan = ConcentrationScan(0.1, 10, 500, relevant_effect=None, seed=life, lives=500).fit(reference)
        for _ in range(5):
            losses = rng.lognormal(size=500)
            alarms += scan.update(np.where((losses > low) & (losses < high), 0.5 * losses, losses)).alarm
    assert alarms <= 6  # half of the budget is 1.5 lives; without the limit it is 23 of 30


def test_a_window_without_the_least_likely_rows_is_thinned_as_the_reference_was() -> None:
    """By chance no ordinary row was labelled: by its own smallest probability, all its suspicious rows would stay."""
    rng = np.random.default_rng(6)
    losses = rng.lognormal(size=4000)
    chance = np.where(losses > 2, 1.0, 0.1)
    chosen = rng.random(4000) < chance
    scan = _scan(windows=5, min_rows=1).fit(losses[chosen], probabilities=chance[chosen])
    only = rng.lognormal(size=3000)
    only = only[only > 2]
    result = scan.update(only, probabilities=np.ones(only.size), window="W1")
    assert result.rows < 0.2 * only.size
