"""Warnings on inputs are counted by column as the preprocessor words them, whatever the columns are called."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from monitoring.dashboard import render_page
from monitoring.input_warnings import InputWarnings, count_warnings, input_sentence
from monitoring.page_data import PageData
from softad.preprocessing import Preprocessor

TRAINING = pd.DataFrame({
    "x": np.arange(20.0), "x: y": np.arange(20.0), "full": 1.0, "never": np.nan, "machine": ["M1", "M2"] * 10,
    "機械; 型": ["a", None] * 10,
})  # fmt: skip


def test_each_kind_is_counted_for_its_column() -> None:
    kept = Preprocessor.fit(
        TRAINING, numeric=["x", "x: y", "full", "never"], categorical=["machine", "機械; 型"]
    )  # fmt: skip
    fresh = TRAINING.head(4).assign(never=[np.nan, 3.0, np.nan, np.nan])
    fresh["x"] = [1.0, 99.0, -99.0, np.nan]
    fresh["x: y"] = [1.0, 99.0, 2.0, 3.0]
    fresh["machine"] = ["M1", "x: 9 is outside the training range, 1 to 4", "M2", None]
    fresh["機械; 型"] = ["a", "b", None, "\n"]
    texts = Counter(kept.warnings(fresh))
    found = count_warnings(texts.items(), [*TRAINING.columns], rows=4)
    assert (found.rows, found.warned) == (4, 3)
    assert found.columns == {
        "機械; 型": {"unseen": 2}, "x": {"outside": 2, "missing": 1}, "machine": {"missing": 1, "unseen": 1},
        "never": {"unused": 1}, "x: y": {"outside": 1},
    }  # fmt: skip


def test_the_page_says_it_in_one_line_in_both_languages() -> None:
    columns = {name: {"unseen": 9 - number} for number, name in enumerate(["<b>x</b>", "machine", "c", "d", "e", "f"])}
    data = PageData("line-a", datetime(2026, 4, 6, tzinfo=UTC), inputs=InputWarnings(1_200, 9, columns))
    page = render_page(data)
    assert "Of 1,200 scored parts 9 held something that training never saw: &lt;b&gt;x&lt;/b&gt; unknown 9, " in page
    assert "machine unknown 8, c unknown 7, d unknown 6, and 2 more." in page
    assert "機械 が未知 8 個" in page and "ほか 2 件" in page
    assert input_sentence(InputWarnings(5), "ja") == "判定した 5 個の品は、すべて学習時と同じような品でした。"
