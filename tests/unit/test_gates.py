"""The gates: their statistics against plain loops, and how often they let a worse model pass."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.comparison import Comparison, Gate, Margins
from flows.gates import SHOWN_SMALL_SLICES, beats_constant, judge
from flows.resampling import holm, recall_differences, relative_changes, resample_weights, slice_excess
from softad.figures import cvar

FAST = Margins(resamples=300)


def named(gates: tuple[Gate, ...], name: str) -> Gate:
    (found,) = [gate for gate in gates if gate.name == name]
    return found


def two_classes(rng: np.random.Generator, n: int, share: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    labels = np.where(rng.random(n) < share, "bad", "ok")
    return labels, rng.normal(np.where(labels == "bad", 1.5, -2.0), 1.5)


def probabilities(score: np.ndarray) -> np.ndarray:
    bad = 1 / (1 + np.exp(-score))
    return np.column_stack([1 - bad, bad])


def losses_of(labels: np.ndarray, chances: np.ndarray) -> np.ndarray:
    return -np.log(np.where(labels == "bad", chances[:, 1], chances[:, 0]))


def classified(labels: np.ndarray, old: np.ndarray, new: np.ndarray, **more: object) -> Comparison:
    return Comparison(
        losses_of(labels, old), losses_of(labels, new), labels=labels, classes=("ok", "bad"), normal="ok",
        champion_probabilities=old, challenger_probabilities=new, **more,
    )  # fmt: skip


# -- statistics -------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), rows=st.integers(2, 60))
def test_weighted_figures_are_those_of_the_drawn_rows(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    old, new = rng.exponential(size=(2, rows)).round(2)
    drawn = rng.integers(0, rows, rows)
    weights = np.bincount(drawn, minlength=rows).astype(np.float32)[None]
    found = relative_changes(old, new)(weights)[0]
    for value, figure in zip(found, (np.mean, lambda x: cvar(x, 0.9), np.std), strict=True):
        before, after = figure(old[drawn]), figure(new[drawn])
        if before > 1e-6:
            assert value == pytest.approx(after / before - 1, rel=1e-5, abs=1e-5)


def test_the_tail_is_right_where_its_rows_are_not_those_expected() -> None:
    """Half of the drawn weight lies on one easy row, so that the worst tenth reaches far down the order."""
    losses = np.linspace(0.1, 10, 2000)
    weights = np.ones((1, 2000), dtype=np.float32)
    weights[0, 500:] = 0
    wanted = cvar(losses[:500], 0.9) / cvar(losses[:500] * 2, 0.9) - 1
    assert relative_changes(losses * 2, losses)(weights)[0, 1] == pytest.approx(wanted)


def recall_by_loop(score: np.ndarray, defect: np.ndarray, good: np.ndarray, allowed: int) -> float:
    """Share of defects above the score of the first good row that may not be rejected any more."""
    ordered = np.sort(score[good])[::-1]
    threshold = ordered[allowed] if allowed < len(ordered) else -np.inf
    return float((score[defect] > threshold).mean()) if defect.any() else 0.0


@given(seed=st.integers(0, 10_000), rows=st.integers(5, 80))
def test_recall_at_the_champions_false_reject_rate_matches_a_loop(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    labels, score = two_classes(rng, rows, 0.4)
    chances = [probabilities(score + rng.normal(size=rows) * spread) for spread in (0.0, 1.0)]
    defect = labels == "bad"
    drawn = rng.integers(0, rows, rows)
    weights = np.bincount(drawn, minlength=rows).astype(np.float32)[None]
    found = recall_differences(chances[0], chances[1], [defect], ~defect, 0)(weights)[0, 0]
    good, bad = ~defect[drawn], defect[drawn]
    allowed = int((chances[0][drawn].argmax(axis=1) != 0)[good].sum())
    # Where rows are drawn twice, the threshold lies at the row that takes the rejected ones past the allowed number.
    recalls = []
    for model in chances:
        values = model[drawn, 1]
        ordered = np.sort(values[good])[::-1]
        place = 0
        while place < len(ordered) and (ordered >= ordered[place]).sum() <= allowed:
            place += 1
        threshold = ordered[place] if place < len(ordered) else -np.inf
        recalls.append(float((values[bad] > threshold).mean()) if bad.any() else 0.0)
    assert found == pytest.approx(recalls[1] - recalls[0])


def test_recall_of_the_same_model_does_not_change() -> None:
    rng = np.random.default_rng(0)
    labels, score = two_classes(rng, 500)
    chances = probabilities(score)
    masks = [labels == "bad"]
    weights = np.vstack(list(resample_weights(500, None, 200, rng)))
    assert not recall_differences(chances, chances, masks, labels == "ok", 0)(weights).any()
    once = np.ones((1, 500))
    loop = recall_by_loop(chances[:, 1], masks[0], ~masks[0], int((score[labels == "ok"] > 0).sum()))
    worse = probabilities(score - 10 * (labels == "bad"))
    change = recall_differences(chances, worse, masks, labels == "ok", 0)(once)[0, 0]
    assert change == pytest.approx(-loop), "a model that ranks all defects last finds none"


def test_groups_are_drawn_whole() -> None:
    groups = np.repeat(np.arange(7), [1, 2, 3, 4, 5, 6, 7])
    weights = np.vstack(list(resample_weights(28, groups, 250, np.random.default_rng(0))))
    assert weights.shape == (250, 28)
    for group in range(7):
        part = weights[:, groups == group]
        assert (part == part[:, :1]).all()


def test_many_rows_draw_fewer_resamples_in_bounded_memory() -> None:
    shapes = [weights.shape for weights in resample_weights(400_000, None, 2_000, np.random.default_rng(0))]
    assert sum(shape[0] for shape in shapes) == 500
    assert max(shape[0] * shape[1] for shape in shapes) <= 2_000_000


# -- gates ------------------------------------------------------------------------------------------------------------


def test_a_better_challenger_passes_all_gates() -> None:
    rng = np.random.default_rng(1)
    labels, score = two_classes(rng, 4000)
    better = probabilities(1.5 * score + np.where(labels == "bad", 0.8, -0.8))
    slices = {"machine": rng.choice(["M1", "M2"], 4000)}
    gates = judge(classified(labels, probabilities(score), better, slices=slices), FAST)
    assert [gate.name for gate in gates] == [
        "mean", "tail", "stability", "recall: bad", "slice machine=M1", "slice machine=M2",
    ] or {gate.name for gate in gates[4:]} == {"slice machine=M1", "slice machine=M2"}  # fmt: skip
    assert all(gate.passed and gate.gated for gate in gates)
    assert named(gates, "recall: bad").figure > 0.05
    assert all(gate.low <= gate.figure <= gate.high for gate in gates)


def test_a_challenger_with_a_better_mean_that_misses_defects_fails_by_recall() -> None:
    """Sharper on the many good rows, blind to a few of the defects: the mean loss falls, and hides it."""
    rng = np.random.default_rng(2)
    labels, score = two_classes(rng, 6000)
    blind = (labels == "bad") & (rng.random(6000) < 0.1) & (score > 0)
    new = np.where((labels == "ok") & (score < -1), score - 2.0, score)
    new[blind] = -5.0
    gates = judge(classified(labels, probabilities(score), probabilities(new)), FAST)
    assert named(gates, "mean").passed
    assert not named(gates, "recall: bad").passed
    assert "points at 95% confidence); allowed: -1.0 points" in named(gates, "recall: bad").reason


def test_one_slice_that_is_shown_worse_fails_and_is_named() -> None:
    rng = np.random.default_rng(3)
    old = rng.exponential(size=6000)
    machine = rng.choice([f"M{i}" for i in range(10)], 6000)
    new = old * np.where(machine == "M3", 1.5, 0.8)
    gates = judge(Comparison(old, new, slices={"machine": machine}), FAST)
    assert [gate.name for gate in gates if not gate.passed] == ["slice machine=M3"]
    gate = named(gates, "slice machine=M3")
    assert gate.figure == pytest.approx(0.5) and "shown worse than +10%" in gate.reason
    assert gate.rows == int((machine == "M3").sum())


def test_small_slices_are_reported_and_not_gated() -> None:
    rng = np.random.default_rng(4)
    old = rng.exponential(size=3000)
    product = np.array([f"P{i:04d}" for i in range(3000)])
    product[:2000] = "big"
    new = np.where(product == "big", 0.8, 1.3) * old
    gates = judge(Comparison(old, new, slices={"product": product}), Margins(resamples=300, tail=9, stability=9))
    shown = [gate for gate in gates if gate.name.startswith("slice")]
    assert [gate.gated for gate in shown] == [True] + [False] * SHOWN_SMALL_SLICES
    assert named(gates, "further slices").reason.startswith("950 further slices have fewer than 200")
    assert all(gate.passed for gate in gates)


def test_few_rows_are_a_refusal() -> None:
    losses = np.ones(99)
    (gate,) = judge(Comparison(losses, losses / 2), Margins())
    assert not gate.passed and gate.reason.startswith("only 99 held-out rows are labelled and at least 100 are needed")
    assert not beats_constant(losses / 2, losses).passed


def test_a_challenger_that_equals_the_champion_is_refused() -> None:
    losses = np.random.default_rng(0).exponential(size=500)
    (gate,) = judge(Comparison(losses, losses.copy()), Margins())
    assert not gate.passed and "there is nothing to gain" in gate.reason


def test_a_loss_that_is_not_finite_is_a_refusal() -> None:
    losses = np.ones(500)
    broken = losses.copy()
    broken[3] = np.nan
    for comparison in (Comparison(losses, broken), Comparison(broken, losses)):
        (gate,) = judge(comparison, Margins())
        assert not gate.passed and gate.reason == "1 of 500 held-out rows have a loss that is not finite"
    assert not beats_constant(broken, losses).passed


def test_small_defect_classes_are_reported_and_pooled_where_all_are_small() -> None:
    rng = np.random.default_rng(5)
    labels = np.full(2000, "ok", dtype=object)
    labels[:25], labels[25:50] = "scratch", "dent"
    score = np.where(labels == "ok", -3.0, 2.0) + rng.normal(size=2000)
    bad = 1 / (1 + np.exp(-score))
    old = np.column_stack([1 - bad, bad / 2, bad / 2])
    better = 1 / (1 + np.exp(-score * 1.3))
    new = np.column_stack([1 - better, better / 2, better / 2])
    place = {"ok": 0, "scratch": 1, "dent": 2}
    rows = np.array([place[name] for name in labels])
    both = [-np.log(table[np.arange(2000), rows]) for table in (old, new)]
    common = {"labels": labels.astype(str), "classes": ("ok", "scratch", "dent"), "normal": "ok"}
    comparison = Comparison(*both, champion_probabilities=old, challenger_probabilities=new, **common)
    gates = judge(comparison, FAST)
    assert not named(gates, "recall: scratch").gated and not named(gates, "recall: dent").gated
    pooled = named(gates, "recall: all defects")
    assert pooled.gated and pooled.rows == 50 and pooled.passed, "the same order of rows gives the same recall"
    few = judge(comparison, Margins(resamples=300, min_class_rows=60))
    assert named(few, "recall: all defects").passed and "too few for an interval" in few[5].reason


def test_without_a_held_out_defect_recall_cannot_be_judged() -> None:
    labels = np.full(300, "ok")
    score = np.random.default_rng(0).normal(-3, 1, 300)
    gates = judge(classified(labels, probabilities(score), probabilities(score - 1)), FAST)
    assert not named(gates, "recall").passed and "wait for more labels" in named(gates, "recall").reason


def test_without_a_normal_class_every_class_is_gated_by_hits() -> None:
    rng = np.random.default_rng(6)
    truth = rng.integers(0, 3, 3000)
    classes = ("a", "b", "c")
    logits = np.eye(3)[truth] * 2 + rng.normal(size=(3000, 3))
    worse = logits.copy()
    worse[truth == 2] += rng.normal(size=((truth == 2).sum(), 3)) * 2

    def chances(values: np.ndarray) -> np.ndarray:
        return np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)

    old, new = chances(logits), chances(worse)
    both = [-np.log(table[np.arange(3000), truth]) for table in (old, new)]
    comparison = Comparison(
        *both, labels=np.array(classes)[truth], classes=classes, champion_probabilities=old,
        challenger_probabilities=new,
    )  # fmt: skip
    gates = judge(comparison, FAST)
    assert [named(gates, f"recall: {name}").passed for name in classes] == [True, True, False]


def test_misses_of_a_regression() -> None:
    rng = np.random.default_rng(7)
    errors = np.abs(rng.normal(size=4000))
    more = np.where(rng.random(4000) < 0.05, errors + 2.0, errors * 0.7)
    comparison = Comparison(errors**2, more**2, champion_errors=errors, challenger_errors=more, tolerance=1.5)
    gate = named(judge(comparison, FAST), "misses")
    wanted = (more > 1.5).mean() - (errors > 1.5).mean()
    assert gate.figure == pytest.approx(wanted) and gate.rows == 4000
    open_ended = Comparison(errors**2, more**2, champion_errors=errors, challenger_errors=more)
    assert "exceeds in a tenth of the rows" in named(judge(open_ended, FAST), "misses").reason


def test_losses_of_zero_do_not_break_the_gates() -> None:
    zeros, some = np.zeros(500), np.r_[np.zeros(499), 1.0]
    gates = judge(Comparison(zeros, some, slices={"m": np.full(500, "a")}), FAST)
    assert not named(gates, "mean").passed and "grew from zero" in named(gates, "mean").reason
    assert all(gate.passed for gate in judge(Comparison(some, zeros), FAST))


def test_the_first_champion_must_beat_the_constant() -> None:
    rng = np.random.default_rng(8)
    constant = rng.exponential(size=400)
    assert beats_constant(constant * rng.uniform(0.4, 1.0, 400), constant).passed
    assert not beats_constant(constant * rng.uniform(0.5, 1.5, 400), constant).passed
    groups = np.repeat(np.arange(4), 100)
    worse_in_one = np.where(groups == 0, constant * 1.9, constant * 0.85)
    assert beats_constant(worse_in_one * 0.8, constant).passed
    assert not beats_constant(worse_in_one * 0.8, constant, groups=groups).passed, (
        "four lots are four pieces of evidence"
    )


def test_wrong_arguments_name_themselves() -> None:
    with pytest.raises(ValueError, match="challenger_losses has 3 rows, champion_losses has 2"):
        Comparison(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="machine has 1 rows"):
        Comparison(np.ones(2), np.ones(2), slices={"machine": np.array(["a"])})
    with pytest.raises(ValueError, match="resamples must be at least 200"):
        Margins(resamples=10)


# -- how often a gate errs --------------------------------------------------------------------------------------------


def test_a_model_that_is_worse_by_exactly_the_margin_seldom_passes() -> None:
    """At the margin the chance to pass is one minus the confidence: .05, up to the error of 400 repetitions."""
    passed = {"mean": 0, "tail": 0, "stability": 0}
    rng = np.random.default_rng(9)
    many = rng.gamma(2.0, size=1_000_000)
    much = many * rng.uniform(0.6, 1.4, size=1_000_000)
    scale = {"mean": much.mean() / many.mean(), "tail": cvar(much, 0.9) / cvar(many, 0.9)}
    scale["stability"] = much.std() / many.std()
    for seed in range(400):
        old = rng.gamma(2.0, size=1000)
        noise = rng.uniform(0.6, 1.4, size=1000)
        new = old * noise
        # The same law of pairs, scaled so that each figure in turn is worse by just the margin.
        for name, margin in (("mean", 0.02), ("tail", 0.05), ("stability", 0.05)):
            worse = new * (1 + margin) / scale[name]
            gates = judge(Comparison(old, worse), Margins(resamples=200), seed=seed)
            passed[name] += named(gates, name).passed
    assert passed["mean"] / 400 < 0.09
    assert passed["tail"] / 400 < 0.12
    assert passed["stability"] / 400 < 0.12


def test_grouped_rows_need_the_grouped_bootstrap() -> None:
    """Every group has its own luck: by rows, a model worse by the margin passes far too often; by groups not."""
    rng = np.random.default_rng(10)
    groups = np.repeat(np.arange(40), 25)
    by_rows = by_groups = 0
    for seed in range(200):
        old = rng.gamma(2.0, size=1000)
        new = old * (1.02 + rng.normal(0, 0.15, 40)[groups])
        by_rows += named(judge(Comparison(old, new), Margins(resamples=200), seed=seed), "mean").passed
        by_groups += named(judge(Comparison(old, new, groups=groups), Margins(resamples=200), seed=seed), "mean").passed
    assert by_groups / 200 < 0.11
    assert by_rows / 200 > 0.2


def test_slices_that_are_within_the_margin_are_seldom_called_worse() -> None:
    rng = np.random.default_rng(11)
    called = 0
    for seed in range(120):
        old = rng.gamma(2.0, size=2600)
        machine = rng.integers(0, 8, 2600).astype(str)
        new = old * 1.10 * rng.uniform(0.5, 1.5, size=2600)
        gates = judge(Comparison(old, new, slices={"machine": machine}), Margins(resamples=200), seed=seed)
        called += not all(gate.passed for gate in gates if gate.name.startswith("slice"))
    assert called / 120 < 0.10, "the family of eight slices errs in one of twenty"


def test_holm_steps_down() -> None:
    assert holm(np.array([0.01, 0.02, 0.03, 0.20]), 0.05).tolist() == [True, False, False, False]
    assert holm(np.array([0.30, 0.01, 0.012, 0.02]), 0.05).tolist() == [False, True, True, True]
    assert holm(np.array([]), 0.05).tolist() == []


def test_two_thousand_resamples_of_five_thousand_rows_take_less_than_three_seconds() -> None:
    rng = np.random.default_rng(12)
    labels, score = two_classes(rng, 5000)
    slices = {"machine": rng.integers(0, 12, 5000).astype(str), "line": rng.integers(0, 3, 5000).astype(str)}
    comparison = classified(
        labels, probabilities(score), probabilities(score + rng.normal(size=5000) / 3), slices=slices
    )
    begun = time.process_time()
    judge(comparison, Margins(resamples=2_000))
    assert time.process_time() - begun < 3


def test_slice_excess_of_no_slices_is_empty() -> None:
    assert slice_excess(np.ones(3), np.ones(3), [], 0.1)(np.ones((4, 3))).shape == (4, 0)
