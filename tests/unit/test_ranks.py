"""Ranks, bins, scores, jitter and lots: what the scan's exactness rests on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.effect import BinnedLosses, level_of, reference_level, smallest_relevant
from monitoring.lots import lot_statistics
from monitoring.ranks import RankBins, bin_ends, checked_losses, jitter, scores_of
from monitoring.sample import take
from softad.figures import cvar


@given(
    reference=st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0]), min_size=200, max_size=260),
    window=st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0, 2.0, 9.0]), min_size=1, max_size=40),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_a_row_lies_in_the_bin_that_its_rank_says(reference: list[float], window: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    losses, jitters = np.array(reference), rng.random(len(reference))
    rows, row_jitters = np.array(window), rng.random(len(window))
    bins = RankBins.of(losses, jitters)
    placed = bins.place(rows, row_jitters)
    ends = bin_ends(losses.size)
    for loss, tie, place in zip(rows, row_jitters, placed, strict=True):
        below = int(np.sum((losses < loss) | ((losses == loss) & (jitters < tie))))
        assert place == int(np.searchsorted(ends, below, side="right"))


@pytest.mark.parametrize("rows", [50, 200, 201, 500, 2000, 100_000])
def test_bins_hold_every_spacing_once_and_end_in_a_single_one(rows: int) -> None:
    ends = bin_ends(rows)
    spacings = np.diff(ends, prepend=0, append=rows + 1)
    assert spacings.sum() == rows + 1
    assert spacings.min() >= 1
    assert spacings[-1] == 1
    assert round(0.9 * (rows + 1)) in ends


def test_reference_rows_fill_the_bins_evenly() -> None:
    losses, jitters = np.repeat([0.0, 1.0], 500), np.random.default_rng(0).random(1000)
    bins = RankBins.of(losses, jitters)
    counts = np.bincount(bins.place(losses, jitters), minlength=bins.spacings.size)
    # Each bin holds as many rows as spacings, but for the last: n rows have n + 1 spacings.
    assert counts.tolist() == [*bins.spacings[:-1].tolist(), bins.spacings[-1] - 1]


def test_scores_are_centred_and_scaled_under_no_change() -> None:
    spacings = np.diff(bin_ends(700), prepend=0, append=701)
    scores = scores_of(spacings)
    share = spacings / spacings.sum()
    np.testing.assert_allclose(scores.values @ share, 0, atol=1e-12)
    np.testing.assert_allclose(scores.values**2 @ share, 1)
    np.testing.assert_allclose(scores.values**3 @ share, scores.skewness)
    assert (np.diff(scores.values[:-1], axis=1) >= -1e-12).all()
    # How far out the worst tenth lies says nothing of the rows below, and is even over the worst tenth.
    assert scores.names[-1] == "concentration"
    hard = np.cumsum(spacings) > round(spacings.sum() * 0.9)
    assert np.ptp(scores.values[-1][~hard]) < 1e-12
    assert abs(scores.values[-1][hard] @ share[hard]) < 1e-12


def test_a_score_without_mass_in_the_reference_is_left_out() -> None:
    scores = scores_of(np.array([1, 1, 1, 1]))
    assert "hardest" not in scores.names
    assert "level" in scores.names


def test_jitter_is_uniform_and_of_the_row_alone() -> None:
    ids = [f"part-{number}" for number in range(20_000)]
    drawn = jitter(ids, seed=3, where="W1")
    assert drawn.min() > 0 and drawn.max() < 1
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 60  # chi-square with 19 degrees of freedom
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.03
    np.testing.assert_array_equal(jitter(ids[::-1], 3, "W1")[::-1], drawn)
    for other in (jitter(ids, 4, "W1"), jitter(ids, 3, "W2")):
        assert abs(np.corrcoef(drawn, other)[0, 1]) < 0.03


def test_the_same_ids_have_other_jitters_in_every_place_and_life() -> None:
    ids = [str(number) for number in range(500)]
    places = [(0, "reference"), (0, "window W1"), (0, "window W2"), (1, "window W1")]
    drawn = [take(np.zeros(500), where=where, seed=seed, ids=ids).jitters for seed, where in places]
    correlation = np.corrcoef(drawn) - np.eye(len(places))
    assert np.abs(correlation).max() < 0.2
    np.testing.assert_array_equal(take(np.zeros(500), where="window W1", seed=0, ids=ids).jitters, drawn[1])


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        ([0.1, float("nan")], "row 2 is nan"),
        ([float("inf")], "row 1 is inf"),
        ([0.1, -1.0], "row 2 is -1.0"),
        ([[0.1]], r"shape \(1, 1\)"),
        (["a"], "must be numbers"),
    ],
)
def test_wrong_losses_are_named(losses: list[object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        checked_losses(losses, "losses")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"ids": ["a", "a", "b"]}, "'a' is there twice"),
        ({"ids": ["a"]}, "one for each of the 3 losses"),
        ({"lots": ["a"]}, "one for each of the 3 losses"),
        ({"probabilities": [0.5, 0.0, 1.0]}, "row 2 is 0.0"),
        ({"probabilities": [0.5, 1.5, 1.0]}, "row 2 is 1.5"),
    ],
)
def test_wrong_rows_are_named(kwargs: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        take([0.1, 0.2, 0.3], where="W1", seed=0, **kwargs)  # type: ignore[arg-type]


def test_thinning_undoes_a_choice_of_hard_rows() -> None:
    rng = np.random.default_rng(5)
    losses = rng.exponential(size=40_000)
    chance = np.where(losses > 2, 1.0, 0.2)
    chosen = rng.random(losses.size) < chance
    sample = take(losses[chosen], where="W1", seed=0, probabilities=chance[chosen])
    assert np.mean(losses[chosen] > 2) > 0.35
    assert abs(np.mean(sample.losses > 2) - np.exp(-2)) < 0.02
    assert not take([0.1, 0.2], where="W1", seed=0, probabilities=[0.5, np.nan]).representative


def test_lots_are_told_by_their_own_rows() -> None:
    rng = np.random.default_rng(2)
    lots = rng.integers(0, 7, size=300)
    losses = rng.exponential(size=300)
    names, numbers = lot_statistics(losses, lots)
    for name, mean, tail in zip(names, numbers["mean"], numbers["tail"], strict=True):
        own = np.sort(losses[lots == int(name)])[::-1]
        assert mean == pytest.approx(own.mean())
        assert tail == pytest.approx(own[: max(own.size // 10, 1)].mean())


def test_figures_from_bins_are_those_of_the_rows() -> None:
    rng = np.random.default_rng(4)
    reference, jitters = rng.lognormal(size=2000), rng.random(2000)
    bins = RankBins.of(reference, jitters)
    binned = BinnedLosses.of(reference, bins.place(reference, jitters), bins.spacings.size)
    whole = reference_level(binned, bins)
    assert whole.mean == pytest.approx(reference.mean(), rel=1e-6)
    assert whole.tail == pytest.approx(cvar(reference, 0.9), rel=1e-3)
    window = 1.5 * rng.lognormal(size=800)
    now = level_of(BinnedLosses.of(window, bins.place(window, rng.random(800)), bins.spacings.size), bins)
    assert now.mean == pytest.approx(window.mean(), rel=1e-6)
    assert now.tail == pytest.approx(cvar(window, 0.9), rel=0.02)
    assert now.tail >= cvar(window, 0.9) - 1e-5
    assert now.hard == pytest.approx(np.mean(window > np.quantile(reference, 0.9)), abs=0.01)


def test_the_smallest_relevant_effect_grows_with_its_number() -> None:
    small, large = smallest_relevant(1.15), smallest_relevant(1.3)
    assert (small.tail, small.mean, small.hard) == (1.15, 1.1, 1.25)
    assert large.mean > small.mean and large.hard > small.hard and large.hardest > small.hardest
