"""The rule of the recommendation, its statistics, and the Pareto set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from softad.calibration import cross_entropies, log_probabilities
from softad.figures import three_figures
from softad.judging import judge_classes, judge_values
from softad.paired import Difference, correlations, critical_value, paired, row_differences
from softad.recall import defect_scores, recall_at_false_rejects
from softad.recommendation import (
    LEARNABLE,
    NO_DIFFERENCE,
    NOISE,
    RARE,
    UNFINISHED,
    Contender,
    case_of,
    choose,
    non_dominated,
)

vectors = st.lists(st.tuples(*[st.floats(-5, 5)] * 3), min_size=1, max_size=15)


def contender(name: str, **values: tuple[float, float]) -> Contender:
    found = {"mean": (0.0, 0.003), "tail": (0.0, 0.01), "balanced_accuracy": (0.0, 0.002), "recall": (0.0, 0.004)}
    found |= values
    return Contender(name, {key: Difference(value, error, 10) for key, (value, error) in found.items()})


@given(vectors)
def test_the_pareto_set_is_not_dominated_and_dominates_the_rest(points: list[tuple[float, float, float]]) -> None:
    figures = {str(number): point for number, point in enumerate(points)}
    front = non_dominated(figures)

    def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and a != b

    assert front
    for name in front:
        assert not any(dominates(point, figures[name]) for point in points)
    for name in set(figures) - set(front):
        assert any(dominates(figures[other], figures[name]) for other in front)


def test_one_that_is_better_everywhere_is_taken() -> None:
    good = contender("SoftAD", mean=(-0.02, 0.003), tail=(-0.10, 0.01), balanced_accuracy=(0.01, 0.002))
    found = choose([contender("focal"), good], rounds=10)
    assert found.name == "SoftAD"
    assert "CVaR 0.9 of the loss -10.0 %" in found.reason
    assert set(found.refused) == {"focal"}


def test_a_gain_of_the_size_of_its_error_gives_erm() -> None:
    found = choose([contender(str(n), tail=(-0.03, 0.02)) for n in range(20)], rounds=10)
    assert found.name == "ERM"
    assert "by more than chance" in found.reason


def test_a_better_tail_at_the_cost_of_balanced_accuracy_is_refused_with_that_reason() -> None:
    found = choose([contender("SoftAD", tail=(-0.2, 0.01), balanced_accuracy=(-0.03, 0.002))], rounds=10)
    assert found.name == "ERM"
    assert "balanced accuracy worse by 3.0 points" in found.reason
    assert "SoftAD" in found.reason


@pytest.mark.parametrize(
    ("key", "value"), [("mean", (0.005, 0.02)), ("recall", (-0.005, 0.02)), ("balanced_accuracy", (0.0, 0.02))]
)
def test_what_could_be_worse_is_refused(key: str, value: tuple[float, float]) -> None:
    found = choose([contender("SoftAD", tail=(-0.2, 0.01), **{key: value})], rounds=10)
    assert found.name == "ERM"
    assert "could be" in found.refused["SoftAD"]


def test_a_baseline_that_finds_more_defects_is_taken() -> None:
    assert choose([contender("class weights", recall=(0.08, 0.01))], rounds=10).name == "class weights"


def test_a_significant_gain_that_is_too_small_to_matter_is_not_taken() -> None:
    assert choose([contender("SoftAD", tail=(-0.005, 0.0001))], rounds=10).name == "ERM"


def test_one_or_two_rounds_recommend_erm() -> None:
    lone = Contender("SoftAD", {"tail": Difference(-0.5, np.inf, 1)})
    found = choose([lone], rounds=1)
    assert found.name == "ERM"
    assert "too few" in found.reason
    assert choose([], rounds=5).name == "ERM"


def test_false_recommendations_are_rare() -> None:
    """Twenty candidates without any difference: some is called better in at most one study in ten."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(100):
        drawn = rng.normal(scale=0.05, size=(20, 6))
        errors = drawn.std(axis=1, ddof=1) / np.sqrt(6)
        field = [
            Contender(str(n), {"tail": Difference(float(row.mean()), float(error), 6)})
            for n, (row, error) in enumerate(zip(drawn, errors, strict=True))
        ]
        wrong += choose(field, rounds=6).name != "ERM"
    assert wrong <= 11


def test_the_case_is_told() -> None:
    calmer, none = {"tail": Difference(-0.1, 0.01, 10)}, {"tail": Difference(0.0, 0.01, 10)}
    fewer_found = {"balanced_accuracy": Difference(-0.05, 0.01, 10), **calmer}
    assert case_of(calmer, none, smallest_class=0.5)[0] == NOISE
    assert case_of(fewer_found, none, smallest_class=0.07)[0] == RARE
    assert case_of(none, {"recall": Difference(0.05, 0.01, 10)}, smallest_class=0.07)[0] == RARE
    assert case_of(none, calmer, smallest_class=None)[0] == LEARNABLE
    assert case_of(none, none, smallest_class=0.5)[0] == NO_DIFFERENCE
    assert case_of(calmer, none, smallest_class=0.5, finished=False)[0] == UNFINISHED
    assert "-5.0 points" in case_of(fewer_found, none, smallest_class=0.07)[1]


def test_the_critical_value_of_one_is_students_and_copies_cost_nothing() -> None:
    assert critical_value(np.eye(1), 9, 0.05) == pytest.approx(1.833, abs=0.04)
    assert critical_value(np.ones((8, 8)), 9, 0.05) == pytest.approx(1.833, abs=0.06)
    assert critical_value(np.eye(8), 9, 0.05) > 2.7


def test_the_error_of_a_difference_covers_the_rows() -> None:
    """Rounds that all judge the same rows alike do not make the rows more."""
    rng = np.random.default_rng(0)
    rows = [np.arange(50)] * 10
    apart = rng.normal(size=50)
    found = paired([apart] * 10, [np.zeros(50)] * 10, rows)
    assert found.error == pytest.approx(apart.std(ddof=1) / np.sqrt(50), rel=1e-6)
    lots = paired([apart] * 10, [np.zeros(50)] * 10, [np.repeat(np.arange(10), 5)] * 10)
    means = apart.reshape(10, 5).mean(axis=1)
    assert lots.error == pytest.approx(means.std(ddof=1) / np.sqrt(10), rel=1e-6)


def test_intervals_cover() -> None:
    """Differences with an effect of the round and of the row: a 95 % bound fails in about one study in twenty."""
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(400):
        persistent = rng.normal(size=200)
        rows = [np.arange(200)[turn % 5 :: 5] for turn in range(10)]
        candidate = [persistent[part] + rng.normal(size=40) + 0.1 * rng.normal() for part in rows]
        found = paired(candidate, [np.zeros(40)] * 10, rows)
        missed += found.bounds(0.95)[0] > 0.0
    assert missed <= 36


def test_row_differences_and_correlations() -> None:
    base = [np.zeros(3), np.zeros(3)]
    rows = [np.array([0, 1, 2]), np.array([2, 1, 0])]
    one = row_differences([np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])], base, rows)
    assert one.tolist() == pytest.approx([-1 / 3, 0, 1 / 3])
    assert correlations([one, -2 * one])[0, 1] == pytest.approx(-1)


def test_rounds_must_fit() -> None:
    with pytest.raises(ValueError, match="candidate: 1 rounds, baseline 2"):
        paired([np.zeros(3)], [np.zeros(3)] * 2, [np.arange(3)])


def test_contributions_average_to_their_figures() -> None:
    rng = np.random.default_rng(2)
    logits, labels = rng.normal(size=(400, 3)) * 2, rng.choice(3, 400, p=[0.7, 0.2, 0.1])
    found = judge_classes(logits, labels, logits, labels, normal=0, rate=0.05)
    three = three_figures(cross_entropies(logits, labels, found.temperature), resamples=1)
    figures = {key: float(value.mean()) for key, value in found.after.items()}
    assert figures["mean"] == pytest.approx(three.mean.value)
    assert figures["tail"] == pytest.approx(three.tail.value)
    assert figures["stability"] == pytest.approx(three.stability.value)
    assert figures["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, logits.argmax(1)))
    scores = defect_scores(np.exp(log_probabilities(logits, found.temperature)), 0)
    expected = recall_at_false_rejects(scores, labels, normal=0, rate=0.05, resamples=1).defects.value
    assert figures["recall"] == pytest.approx(expected)


def test_contributions_of_values() -> None:
    rng = np.random.default_rng(3)
    outputs, target = rng.normal(size=300), rng.normal(size=300)
    found = judge_values(outputs, target, unit=2.0)
    assert float(found.after["rmse"].mean()) == pytest.approx(2 * np.sqrt(np.mean((outputs - target) ** 2)))
    assert float(found.after["absolute_error"].mean()) == pytest.approx(2 * np.abs(outputs - target).mean())
    assert judge_values(target, target, 1.0).after["rmse"].mean() == 0.0
