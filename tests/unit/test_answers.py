"""Answers that are kept: no more bytes than allowed, the ones asked for last."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from flows.answers import Answers


def table(rows: int) -> pa.Table:
    return pa.table({"n": pa.array(range(rows), pa.int64())})


def test_the_one_that_was_not_asked_for_the_longest_goes_first() -> None:
    answers = Answers(limit=32)
    for name in ("a", "b", "c", "d"):
        answers.keep(name, table(1))
    assert answers.get("a") is not None
    answers.keep("e", table(1))
    assert answers.get("b") is None
    assert [answers.get(name) is not None for name in ("a", "c", "d", "e")] == [True] * 4


def test_an_answer_that_would_push_out_the_others_is_not_kept() -> None:
    answers = Answers(limit=39)
    answers.keep("small", table(1))
    answers.keep("large", table(2))
    assert answers.get("small") is not None
    assert answers.get("large") is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 6))))
def test_no_more_is_kept_than_allowed(asked: list[tuple[int, int]]) -> None:
    answers = Answers(limit=160)
    kept: dict[int, pa.Table] = {}
    for name, rows in asked:
        kept.setdefault(name, table(rows))
        answers.keep(name, kept[name])
        found = [answers.get(each) for each in kept]
        assert sum(each.nbytes for each in found if each is not None) <= 160
        assert all(each is None or each is kept[name] for name, each in zip(kept, found, strict=True))
