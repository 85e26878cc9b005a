"""Recall at a false-reject rate against a search over all thresholds, its interval against repetition, and errors."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from softad.calibration import log_probabilities
from softad.recall import defect_scores, hard_slice_errors, recall_at_false_rejects, wilson

rows_strategy = st.lists(
    st.tuples(st.integers(-6, 6), st.sampled_from(["ok", "dent", "scratch"])), min_size=2, max_size=60
).filter(lambda rows: {"ok"} < {label for _, label in rows})


def by_search(scores: np.ndarray, labels: np.ndarray, rate: float) -> dict[str, float]:
    """The most that any threshold finds without rejecting too many good rows."""
    good = labels == "ok"
    best = {}
    for threshold in [-math.inf, *sorted(scores), math.inf]:
        if (scores[good] > threshold).sum() <= rate * good.sum() + 1e-9:
            for name in set(labels[~good]):
                best[name] = max(best.get(name, 0.0), float((scores[labels == name] > threshold).mean()))
    return best


@given(rows_strategy, st.sampled_from([0.0, 0.05, 0.1, 0.25, 1 / 3, 0.5, 0.9]))
def test_recall_is_the_best_over_all_thresholds(rows: list[tuple[int, str]], rate: float) -> None:
    scores, labels = np.array([row[0] for row in rows], dtype=float), np.array([row[1] for row in rows])
    point = recall_at_false_rejects(scores, labels, normal="ok", rate=rate, resamples=5)
    assert {name: one.value for name, one in point.recall.items()} == by_search(scores, labels, rate)
    assert point.false_rejects == (scores[labels == "ok"] > point.threshold).mean()
    assert point.false_rejects <= rate + 1e-9
    defect = labels != "ok"
    assert point.defects.value == pytest.approx((scores[defect] > point.threshold).mean())
    assert point.defects.rows == defect.sum()
    for one in (*point.recall.values(), point.defects):
        assert 0.0 <= one.low <= one.value <= one.high <= 1.0


@given(
    rows_strategy,
    st.floats(0.0, 0.99),
    st.sampled_from([np.exp, np.arctan, lambda x: x**3, lambda x: 1e6 * x - 3.0, lambda x: 1 / (1 + np.exp(-x))]),
)
def test_no_strictly_increasing_rescaling_moves_it(rows: list[tuple[int, str]], rate: float, rescale) -> None:
    # On whole numbers these functions stay strictly increasing in floating point too.
    scores, labels = np.array([row[0] for row in rows], dtype=float), [row[1] for row in rows]
    plain, moved = (recall_at_false_rejects(s, labels, normal="ok", rate=rate) for s in (scores, rescale(scores)))
    assert (moved.recall, moved.defects, moved.false_rejects) == (plain.recall, plain.defects, plain.false_rejects)
    assert moved.threshold == rescale(np.array([plain.threshold]))[0]


def test_temperature_does_not_move_it_for_two_classes() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 500)
    logits = 2.0 * np.eye(2)[truth] + rng.normal(size=(500, 2))
    points = [
        recall_at_false_rejects(defect_scores(np.exp(log_probabilities(logits, t)), 0), truth, normal=0, rate=0.1)
        for t in (0.7, 1.0, 3.0)
    ]
    assert points[0].recall == points[1].recall == points[2].recall
    assert list(points[0].recall) == ["1"]


def test_a_tie_at_the_threshold_is_not_rejected() -> None:
    point = recall_at_false_rejects([1.0] * 6, ["ok"] * 4 + ["dent"] * 2, normal="ok", rate=0.5)
    assert (point.threshold, point.false_rejects, point.recall["dent"].value) == (1.0, 0.0, 0.0)


def test_a_rate_of_whole_rows_allows_them_all() -> None:
    for good in (7, 49, 1000, 1003):
        scores = np.arange(good + 1.0)
        labels = ["dent"] + ["ok"] * good
        for allowed in range(0, good, max(1, good // 60)):
            point = recall_at_false_rejects(scores, labels, normal="ok", rate=allowed / good, resamples=1)
            assert round(point.false_rejects * good) == allowed


def test_the_operating_point_is_that_of_the_gates() -> None:
    from flows.resampling import recall_differences

    rng = np.random.default_rng(4)
    labels = rng.choice(["ok", "dent", "scratch"], 900, p=[0.8, 0.1, 0.1])
    truth = np.array(["ok", "dent", "scratch"]).searchsorted(labels, sorter=[1, 0, 2])
    chances = [rng.dirichlet([2.0, 1.0, 1.0], 900).round(2) for _ in range(2)]
    chances = [0.5 * np.eye(3)[np.array([1, 0, 2])[truth]] + 0.5 * one for one in chances]
    masks = [labels == "dent", labels == "scratch"]
    differences = recall_differences(*chances, masks, labels == "ok", 0)(np.ones((1, 900)))[0]
    rate = float((chances[0][labels == "ok"].argmax(axis=1) != 0).mean())
    old, new = (
        recall_at_false_rejects(defect_scores(one, 0), labels, normal="ok", rate=rate, classes=["dent", "scratch"])
        for one in chances
    )
    for name, difference in zip(("dent", "scratch"), differences, strict=True):
        assert new.recall[name].value - old.recall[name].value == pytest.approx(difference)


def test_the_interval_is_that_of_drawn_rows() -> None:
    rng = np.random.default_rng(7)
    good, dent = rng.normal(size=300), rng.normal(1.5, 1.0, size=120)
    scores, labels = np.concatenate([good, dent]), ["ok"] * 300 + ["dent"] * 120
    found = recall_at_false_rejects(scores, labels, normal="ok", rate=0.05, resamples=20_000).recall["dent"]
    drawn = []
    for _ in range(4000):
        threshold = np.sort(rng.choice(good, 300))[::-1][15]
        drawn.append((rng.choice(dent, 120) > threshold).mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.015)
    assert found.low < wilson(round(found.value * 120), 120).low  # the threshold's own noise is in it


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    from scipy.stats import norm

    rng = np.random.default_rng(1)
    truth = norm.sf(norm.isf(0.1) - 1.5)
    hits = 0
    for seed in range(200):
        scores = np.concatenate([rng.normal(size=200), rng.normal(1.5, 1.0, size=60)])
        found = recall_at_false_rejects(
            scores, ["ok"] * 200 + ["dent"] * 60, normal="ok", rate=0.1, resamples=300, seed=seed
        ).recall["dent"]
        hits += found.low <= truth <= found.high
    # A true coverage of .95 falls below .89 in fewer than one of 1,000 such tests.
    assert hits / 200 >= 0.89


def test_a_class_found_whole_still_has_an_interval() -> None:
    point = recall_at_false_rejects([0.0, 0.1, 5.0, 6.0], ["ok", "ok", "dent", "dent"], normal="ok")
    found = point.recall["dent"]
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(wilson(2, 2).low) and found.low < 0.5


def test_the_seed_fixes_it_and_rows_without_a_label_are_left_out() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=100)
    labels = np.where(scores + rng.normal(size=100) > 1, "dent", "ok").astype(object)
    plain = recall_at_false_rejects(scores, labels, normal="ok")
    assert plain == recall_at_false_rejects(scores, labels, normal="ok")
    assert plain != recall_at_false_rejects(scores, labels, normal="ok", seed=1)
    more = recall_at_false_rejects([*scores, 9.0, 9.0], [*labels, None, np.nan], normal="ok")
    assert more == plain


def test_small_chances_of_a_defect_keep_their_order() -> None:
    tiny = np.array([[1.0, 1e-30], [1.0, 1e-25]], dtype=np.float64)
    assert np.diff(defect_scores(tiny, 0))[0] > 0.0


@settings(max_examples=60)
@given(st.integers(1, 400), st.floats(0.0, 1.0), st.floats(0.5, 0.999))
def test_wilson_is_scipys(rows: int, share: float, confidence: float) -> None:
    errors = round(share * rows)
    found = wilson(errors, rows, confidence)
    expected = binomtest(errors, rows).proportion_ci(confidence, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0


def test_errors_by_slice_and_by_mask() -> None:
    wrong = np.array([True, True, False, False, True, False])
    machine = ["M1", "M1", "M1", "M2", None, "M2"]
    table = pd.DataFrame(hard_slice_errors(wrong, {"machine": machine, "shift": ["a"] * 6}))
    assert table["value"].tolist() == ["M1", "M2", "a"]
    assert table["rate"].tolist() == pytest.approx([2 / 3, 0.0, 0.5])
    assert table["errors"].tolist() == [2, 0, 3]
    assert table["high"][1] == pytest.approx(wilson(0, 2).high)
    hard, easy = hard_slice_errors(wrong.astype(int), np.array([1, 1, 0, 0, 1, 0]))
    assert (hard.column, hard.value, hard.rows, hard.rate) == ("hard", "True", 3, 1.0)
    assert (easy.value, easy.rate) == ("False", 0.0)
    assert [one.value for one in hard_slice_errors(wrong, {"machine": machine}, min_rows=3)] == ["M1"]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: recall_at_false_rejects([], [], normal="ok"), "scores"),
        (lambda: recall_at_false_rejects([1.0, np.nan], ["ok", "dent"], normal="ok"), "scores: nan at row 1"),
        (lambda: recall_at_false_rejects([1.0], ["ok", "dent"], normal="ok"), "labels"),
        (lambda: recall_at_false_rejects([1.0, 2.0], ["ok", "dent"], normal="good"), "normal: 'good'"),
        (lambda: recall_at_false_rejects([1.0, 2.0], ["ok", "ok"], normal="ok"), "classes"),
        (lambda: recall_at_false_rejects([1.0, 2.0], ["ok", "dent"], normal="ok", classes=["x"]), "classes"),
        (lambda: recall_at_false_rejects([1.0, 2.0], ["ok", "dent"], normal="ok", classes=[]), "classes"),
        (lambda: recall_at_false_rejects([1.0, 2.0], ["ok", "dent"], normal="ok", rate=1.0), "rate"),
        (lambda: recall_at_false_rejects([1.0, 2.0], ["ok", "dent"], normal="ok", rate=np.nan), "rate"),
        (lambda: recall_at_false_rejects([1.0, 2.0], ["ok", "dent"], normal="ok", resamples=0), "resamples"),
        (lambda: recall_at_false_rejects([1.0, 2.0], ["ok", "dent"], normal="ok", seed=-1), "seed"),
        (lambda: recall_at_false_rejects([1.0, 2.0], ["ok", "dent"], normal="ok", confidence=1.0), "confidence"),
        (lambda: defect_scores([0.5, 0.5], 0), "probabilities"),
        (lambda: defect_scores([[0.5, 0.5]], 2), "normal_column"),
        (lambda: wilson(1, 0), "rows"),
        (lambda: wilson(3, 2), "errors"),
        (lambda: wilson(1, 2, 0.0), "confidence"),
        (lambda: hard_slice_errors([0.5], [True]), "wrong"),
        (lambda: hard_slice_errors([True], [2]), "hard"),
        (lambda: hard_slice_errors([True], {"m": ["a", "b"]}), "slices: 'm'"),
        (lambda: hard_slice_errors([True], [True], min_rows=0), "min_rows"),
        (lambda: hard_slice_errors([True], [True], confidence=2.0), "confidence"),
    ],
)
def test_arguments_out_of_range_are_named_with_what_is_allowed(call, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}.*; allowed: "):
        call()
