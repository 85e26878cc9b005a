"""Figures in one pass against those of all rows at once, within the stated errors; merging, order and keeping."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softad.figures import loss_concentration, tail_curve, three_figures
from softad.streaming import LARGEST, SMALLEST, StreamingFigures

LEVELS = [0.0, 0.3, 0.5, 0.9, 0.95, 0.99, 0.9999]

loss = st.one_of(
    st.floats(0.0, 1.0), st.floats(0.0, 1e6), st.sampled_from([0.0, -0.0, 1e-300, 1e-12, 0.5, 0.6931471805599453, 1e6])
)
chunks_strategy = st.lists(st.lists(loss, max_size=40), min_size=1, max_size=5).filter(any)


def streamed(chunks, relative_error: float = 2.0**-8) -> StreamingFigures:
    """What has seen the chunks."""
    seen = StreamingFigures(relative_error)
    for chunk in chunks:
        seen.update(chunk)
    return seen


def assert_within_bounds(seen: StreamingFigures, losses: np.ndarray) -> None:
    """All figures against the exact ones, within what the class states."""
    found, error = seen.result(LEVELS), seen.relative_error
    exact = three_figures(losses, resamples=1)
    assert found.rows == losses.size
    assert found.mean == pytest.approx(exact.mean.value, rel=1e-12)
    assert found.stability == pytest.approx(exact.stability.value, rel=1e-9, abs=1e-9 * exact.mean.value)
    assert (found.smallest, found.largest) == (losses.min(), losses.max())
    for level, tail in zip(LEVELS, tail_curve(losses, LEVELS), strict=True):
        assert abs(found.tails[level] - tail) <= error * tail * (1 + 1e-9) + 2.0**-40
    concentration = loss_concentration(losses, theta=0.0, sigma=1.0, resamples=1)
    if losses.mean() > 1e-9:
        assert found.top_share == pytest.approx(concentration.top_share.value, rel=error * (1 + 1e-9))
        assert -1e-9 <= concentration.gini.value - found.gini <= error / 4 + 1e-9


@given(chunks_strategy, st.sampled_from([0.5, 0.1, 2.0**-8, 0.001]))
def test_figures_are_the_exact_ones_within_the_stated_error(chunks: list[list[float]], error: float) -> None:
    assert_within_bounds(streamed(chunks, error), np.concatenate([np.asarray(chunk, dtype=float) for chunk in chunks]))


@pytest.mark.parametrize(
    "losses",
    [
        np.random.default_rng(0).lognormal(-2.0, 2.0, 1_000_000),
        np.random.default_rng(1).pareto(1.2, 200_000),
        np.random.default_rng(2).gamma(1.0, 0.15, 200_000).astype(np.float32),
        np.where(np.random.default_rng(3).random(200_000) < 0.97, 0.0, 1e6),
        np.full(100_000, 0.1),
        np.random.default_rng(4).integers(0, 5, 100_000),
    ],
    ids=["lognormal", "pareto", "gamma", "mostly zero", "constant", "few values"],
)
def test_many_rows_in_chunks(losses: np.ndarray) -> None:
    seen = streamed(np.array_split(losses, 37))
    assert_within_bounds(seen, losses.astype(np.float64))
    assert len(json.dumps(seen.to_dict())) < 1_000_000


def test_zeros_and_constants_are_exact() -> None:
    zeros = streamed([[0.0] * 10]).result()
    assert (zeros.mean, zeros.stability, zeros.top_share, zeros.gini) == (0.0, 0.0, 0.0, 0.0)
    assert set(zeros.tails.values()) == {0.0}
    same = streamed([[0.3] * 50, [0.3] * 7]).result()
    assert same.tails[0.9] == pytest.approx(0.3, rel=1e-12)
    assert (same.stability, same.gini) == pytest.approx((0.0, 0.0), abs=1e-12)
    one = streamed([[7.5]]).result()
    assert (one.mean, one.tails[0.99], one.stability, one.gini) == (7.5, 7.5, 0.0, 0.0)


@given(chunks_strategy, st.randoms(use_true_random=False))
def test_order_and_partition_matter_only_through_rounding(chunks: list[list[float]], random) -> None:
    shuffled = [list(chunk) for chunk in chunks]
    for chunk in shuffled:
        random.shuffle(chunk)
    random.shuffle(shuffled)
    merged = StreamingFigures()
    for chunk in shuffled:
        merged.merge(streamed([chunk]))
    assert_alike(streamed(chunks), merged)
    assert_alike(streamed(chunks), streamed([[one for chunk in chunks for one in chunk]]))


@given(chunks_strategy, chunks_strategy, chunks_strategy)
def test_merging_is_associative_and_leaves_the_other_alone(one, two, three) -> None:
    left = streamed(one)
    left.merge(streamed(two))
    left.merge(streamed(three))
    second = streamed(two)
    third = streamed(three)
    before = third.to_dict()
    second.merge(third)
    assert third.to_dict() == before
    right = streamed(one)
    right.merge(second)
    assert_alike(left, right)
    assert_alike(left, streamed([*one, *two, *three]))


def assert_alike(one: StreamingFigures, two: StreamingFigures) -> None:
    """The same but for rounding: bins and extremes exactly, sums nearly."""
    left, right = one.to_dict(), two.to_dict()
    for name in ("rows", "smallest", "largest", "bins", "counts"):
        assert left[name] == right[name]
    scale = max(left["largest"], 1e-300)
    assert left["sums"] == pytest.approx(right["sums"], rel=1e-12)
    assert left["mean"] == pytest.approx(right["mean"], rel=1e-12)
    assert left["squares"] == pytest.approx(right["squares"], rel=1e-9, abs=1e-12 * scale**2)


@given(st.lists(st.lists(loss, max_size=20), max_size=3))
def test_it_is_kept_as_json_and_pickled_without_loss(chunks: list[list[float]]) -> None:
    seen = streamed(chunks, 0.01)
    for again in (
        StreamingFigures.from_dict(json.loads(json.dumps(seen.to_dict()))),
        pickle.loads(pickle.dumps(seen)),
    ):
        assert again.to_dict() == seen.to_dict()
        again.update([3.0])
        assert again.rows == seen.rows + 1
        if seen.rows:
            assert StreamingFigures.from_dict(seen.to_dict()).result() == seen.result()


@given(st.floats(0.0, LARGEST), st.sampled_from([0.5, 0.1, 2.0**-8, 2.0**-12]))
def test_every_loss_lies_in_its_bin_and_bins_are_as_narrow_as_stated(value: float, error: float) -> None:
    seen = StreamingFigures(error)
    (low,), (high,) = seen._edges(seen._bins(np.array([value])))
    assert low <= value < high
    assert high - low <= max(error * low, SMALLEST)


def test_memory_does_not_grow_with_rows() -> None:
    rng = np.random.default_rng(0)
    seen = streamed([rng.gamma(1.0, 1.0, 10_000).clip(1e-6, 8.0)])
    small = len(pickle.dumps(seen))
    for _ in range(30):
        seen.update(rng.gamma(1.0, 1.0, 10_000).clip(1e-6, 8.0))
    assert len(pickle.dumps(seen)) <= small + 1000
    seen.update([LARGEST])
    assert len(pickle.dumps(seen)) < 1_600_000


def test_a_refused_chunk_leaves_nothing_behind() -> None:
    seen = streamed([[1.0, 2.0]])
    before = seen.to_dict()
    long = np.ones(600_000)
    long[-1] = np.nan
    with pytest.raises(ValueError, match=r"^losses: nan at row 599999; allowed: \[0, 1e\+100\]"):
        seen.update(long)
    assert seen.to_dict() == before


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: StreamingFigures(0.0), "relative_error"),
        (lambda: StreamingFigures(0.6), "relative_error"),
        (lambda: StreamingFigures().update([[1.0]]), "losses: shape"),
        (lambda: StreamingFigures().update([-1.0]), "losses: -1.0 at row 0"),
        (lambda: StreamingFigures().update(np.array([np.inf], dtype=np.float32)), "losses: inf at row 0"),
        (lambda: StreamingFigures().update([1e101]), "losses"),
        (lambda: StreamingFigures().result(), "rows"),
        (lambda: streamed([[1.0]]).result([1.0]), "levels"),
        (lambda: StreamingFigures().merge(StreamingFigures(0.1)), "other"),
        (lambda: StreamingFigures.from_dict({}), "document: without bins"),
        (lambda: StreamingFigures.from_dict(streamed([[1.0]]).to_dict() | {"rows": 2}), "document: bins"),
        (lambda: StreamingFigures.from_dict(streamed([[1.0]]).to_dict() | {"bins": [-1]}), "document: bins"),
        (lambda: StreamingFigures.from_dict(streamed([[1.0]]).to_dict() | {"bins": [10**7]}), "document: bins"),
    ],
)
def test_arguments_out_of_range_are_named_with_what_is_allowed(call, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}.*; allowed: "):
        call()
