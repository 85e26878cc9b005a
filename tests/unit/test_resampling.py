"""The bootstrap: its law, drawn in one block or in many, and the sums of its draws against the repeated rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from softad.curves import cvar
from softad.resampling import BLOCK, Draws, bootstrap_sums, percentiles, resamples_of, sums_of


def counts_of(rows: int, resamples: int, seed: int, block: int = BLOCK) -> np.ndarray:
    """How often each row was drawn in each resample."""
    lines = []
    for batch in resamples_of(rows, resamples, seed, block):
        drawn = np.concatenate([draws.drawn + draws.start for draws in batch], axis=1)
        lines += [np.bincount(line, minlength=rows) for line in drawn]
    return np.stack(lines)


def gini_by_pairs(losses: np.ndarray) -> float:
    """Mean absolute difference over twice the mean, times the sum: what `ranked / n` is."""
    return float(np.abs(losses[:, None] - losses[None, :]).mean() / 2.0 * losses.size)


@pytest.mark.parametrize(("block", "resamples"), [(BLOCK, 200_000), (2, 20_000), (3, 20_000)])
def test_counts_are_multinomial_however_rows_are_blocked(block: int, resamples: int) -> None:
    counts = counts_of(4, resamples, seed=1, block=block)
    assert counts.shape == (resamples, 4)
    assert (counts.sum(axis=1) == 4).all()
    # Each draw falls on a row with probability 1/4: mean 1, variance 3/4, covariance -1/4.
    np.testing.assert_allclose(np.cov(counts.T), np.eye(4) - 0.25, atol=0.03)
    # The whole law: 4^4 equally likely sequences, so a count vector has probability 4! / (prod c!) / 4^4.
    seen, often = np.unique(counts, axis=0, return_counts=True)
    factorial = np.array([1, 1, 2, 6, 24])
    chance = 24 / factorial[seen].prod(axis=1) / 4**4
    assert len(seen) == 35
    assert chisquare(often, resamples * chance).pvalue > 1e-4


def test_full_blocks_of_short_numbers_are_uniform_too() -> None:
    rows = BLOCK + 1000
    total = counts_of(rows, 40, seed=3).sum(axis=0)
    assert total.sum() == 40 * rows
    parts = np.add.reduceat(total, np.arange(0, rows, 512))
    sizes = np.minimum(512, rows - np.arange(0, rows, 512))
    assert chisquare(parts, 40.0 * sizes).pvalue > 1e-4


def test_the_seed_fixes_the_draws() -> None:
    one, same, other = (counts_of(50, 10, seed) for seed in (5, 5, 6))
    assert (one == same).all()
    assert (one != other).any()


@given(
    st.lists(st.floats(0.0, 100.0, width=32), min_size=1, max_size=40),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 7, BLOCK]),
)
def test_sums_of_draws_are_those_of_the_repeated_rows(losses: list[float], seed: int, block: int) -> None:
    ordered = np.sort(np.asarray(losses))[::-1]
    rows = ordered.size
    columns = np.stack([ordered, np.square(ordered - 3.0), np.arange(rows, dtype=float)])
    counts = counts_of(rows, 3, seed, block)
    for level in (0.0, 0.5, 0.9, 0.99):
        tail = (1.0 - level) * rows
        for ranks in (False, True):
            parts = [
                sums_of(ordered, columns, batch, tail, ranks=ranks) for batch in resamples_of(rows, 3, seed, block)
            ]
            sums, tails, ranked = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
            for line, count in enumerate(counts):
                drawn = np.repeat(ordered, count)
                assert sums[:, line] == pytest.approx(columns @ count, abs=1e-9)
                assert tails[line] == pytest.approx(cvar(drawn, level) * tail, abs=1e-9)
                expected = gini_by_pairs(drawn) if ranks else 0.0
                assert ranked[line] / rows == pytest.approx(expected, abs=1e-8)


def test_a_tail_that_reaches_past_a_block_is_followed() -> None:
    ordered = np.sort(np.random.default_rng(0).gamma(0.5, 1.0, 2 * BLOCK + 500))[::-1]
    plain, drawn = bootstrap_sums(ordered, ordered[None, :], 0.6 * ordered.size, resamples=3, seed=0)
    assert plain.tail[0] == pytest.approx(cvar(ordered, 0.4) * 0.6 * ordered.size)
    for line, count in enumerate(counts_of(ordered.size, 3, seed=0)):
        repeated = np.repeat(ordered, count)
        assert drawn.tail[line] == pytest.approx(cvar(repeated, 0.4) * 0.6 * ordered.size)
        assert drawn.columns[0, line] == pytest.approx(repeated.sum())


def test_few_draws_among_the_largest_values_are_made_up_from_the_next() -> None:
    values = np.linspace(9.0, 0.0, 1000)
    rare = [Draws(0, 1000, np.full((1, 1000), 990))]  # nothing drawn near the top
    assert sums_of(values, values[None, :], rare, tail=10.0).tail[0] == pytest.approx(10 * values[990])


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: list(resamples_of(0, 1, 0)), "rows"),
        (lambda: list(resamples_of(1, 0, 0)), "resamples"),
        (lambda: list(resamples_of(1, 1, -1)), "seed"),
        (lambda: list(resamples_of(1, 1, 0, 0)), "block"),
        (lambda: percentiles(np.zeros(3), 0.0), "confidence"),
    ],
)
def test_arguments_out_of_range_are_named_with_what_is_allowed(call, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}.*; allowed: "):
        call()
