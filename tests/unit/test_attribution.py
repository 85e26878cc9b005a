"""Where the excess sits: named first, not named without cause, and right about growth, lines, gaps and many values."""

from __future__ import annotations

import time
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from monitoring.attribution import Attribution, Finding, attribute
from monitoring.slice_ranges import range_column
from monitoring.slice_statistics import MISSING, RARE, SliceColumn, Usual, code_column, resampled_excess

MACHINES = np.array([f"M{number:02d}" for number in range(20)])


def plant(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    """Rows of twenty machines in four lines, losses log-normal and the same everywhere."""
    machine = rng.integers(0, 20, rows)
    return pd.DataFrame(
        {
            "machine": MACHINES[machine],
            "line": np.array(["L1", "L2", "L3", "L4"])[machine // 5],
            "shift": rng.choice(["early", "late", "night"], rows),
            "loss": np.exp(rng.normal(size=rows)),
        }
    )


def of(attribution: Attribution, value: str) -> Finding:
    return next(finding for finding in attribution.findings if finding.value == value)


def trials(factor: float, *, rows: int = 500, count: int = 60, everywhere: bool = False) -> tuple[float, float]:
    """Share of trials that put M07 first, and share of trials that call any value significant."""
    first = named = 0
    for trial in range(count):
        rng = np.random.default_rng([7, trial])
        reference, window = plant(rng, 2000), plant(rng, rows)
        window.loc[np.full(rows, True) if everywhere else window["machine"] == "M07", "loss"] *= factor
        findings = attribute(window, reference, slices=["machine"], resamples=100, seed=trial).findings
        first += findings[0].value == "M07"
        named += any(finding.significant for finding in findings)
    return first / count, named / count


def test_a_machine_with_threefold_losses_is_named_first() -> None:
    first, named = trials(3.0)
    assert first >= 0.95
    assert named >= 0.75


def test_half_again_the_losses_on_25_rows_come_first_nearly_as_often_as_any_method_could() -> None:
    # With 25 rows a machine, a judge who knows law and factor puts it first in 56.5 % (2,000 trials), ours in 55.5 %.
    first, _ = trials(1.5, count=200)
    assert first >= 0.45


def test_a_larger_window_names_half_again_the_losses() -> None:
    first, _ = trials(1.5, rows=2000, count=30)
    assert first >= 0.75


@pytest.mark.parametrize("factor", [1.5, 3.0])
def test_nobody_is_named_when_all_shifted_alike(factor: float) -> None:
    _, named = trials(factor, everywhere=True)
    assert named <= 0.05


def test_the_machine_comes_before_its_line_and_the_line_where_all_its_machines_shifted() -> None:
    rng = np.random.default_rng(1)
    reference, window = plant(rng, 4000), plant(rng, 2000)
    broken = window.copy()
    broken.loc[broken["machine"] == "M07", "loss"] *= 4
    found = attribute(broken, reference, slices=["line", "machine", "shift"])
    assert [found.findings[0].value, found.findings[1].value] == ["M07", "L2"]
    assert found.findings[0].significant and found.findings[0].low > found.findings[0].row_share
    assert found.tried == 20 + 4 + 3
    whole = window.copy()
    whole.loc[whole["line"] == "L2", "loss"] *= 3
    assert attribute(whole, reference, slices=["machine", "line", "shift"]).findings[0].value == "L2"


def test_a_tail_that_grew_while_the_bulk_got_better_is_found() -> None:
    rng = np.random.default_rng(2)
    reference, window = plant(rng, 4000), plant(rng, 2000)
    here = (window["machine"] == "M11").to_numpy()
    window.loc[here, "loss"] *= 0.3
    hard = here & (rng.random(2000) < 0.25)
    window.loc[hard, "loss"] = rng.uniform(6, 20, hard.sum())
    first = attribute(window, reference, slices=["machine", "line"]).findings[0]
    assert (first.value, first.significant) == ("M11", True)


def test_a_hard_slice_that_merely_grew_is_marked_and_not_blamed() -> None:
    rng = np.random.default_rng(3)

    def mixed(rows: int, share: float) -> pd.DataFrame:
        frame = plant(rng, rows)
        frame["product"] = np.where(rng.random(rows) < share, "P-hard", "P-easy")
        frame.loc[frame["product"] == "P-hard", "loss"] *= 3
        return frame

    found = attribute(mixed(2000, 0.5), mixed(4000, 0.2), slices=["product", "machine"])
    grown = of(found, "P-hard")
    assert grown.grew and not grown.significant
    assert grown.growth_share > 0.5
    assert grown.share < 0.4
    assert not any(finding.significant for finding in found.findings)
    assert [finding.value for finding in found.findings if finding.grew] == ["P-hard"]


def test_growth_does_not_protect_a_slice_whose_rows_got_harder_too() -> None:
    rng = np.random.default_rng(4)
    reference, window = plant(rng, 4000), plant(rng, 2000)
    window.loc[:300, "machine"] = "M07"
    window.loc[window["machine"] == "M07", "loss"] *= 3
    grown = attribute(window, reference, slices=["machine"]).findings[0]
    assert grown.value == "M07" and grown.grew and grown.significant


def test_a_slice_that_was_always_hard_is_not_blamed_for_its_part_of_a_change_that_hit_everyone() -> None:
    rng = np.random.default_rng(5)

    def hard_product(rows: int, factor: float) -> pd.DataFrame:
        frame = plant(rng, rows)
        frame["product"] = rng.choice(["P1", "P2", "P3", "P4"], rows)
        frame["loss"] *= np.where(frame["product"] == "P2", 4.0, 1.0) * factor
        return frame

    found = attribute(hard_product(2000, 1.5), hard_product(4000, 1.0), slices=["product"])
    always = of(found, "P2")
    assert always.share > 2 * always.row_share
    assert always.usual_share > 2 * always.row_share
    assert not always.significant


def test_ten_thousand_values_are_pooled_and_quick() -> None:
    rng = np.random.default_rng(6)
    reference, window = plant(rng, 20_000), plant(rng, 20_000)
    for frame in (reference, window):
        frame["batch"] = np.char.add("B", rng.integers(0, 10_000, len(frame)).astype(str))
        frame.loc[:3000, "batch"] = "B-common"
    window.loc[window["machine"] == "M03", "loss"] *= 3
    begun = time.perf_counter()
    found = attribute(window, reference, slices=["batch", "machine", "line"], keep=500)
    assert time.perf_counter() - begun < 5.0
    assert found.findings[0].value == "M03"
    assert RARE in {finding.value for finding in found.findings}
    assert found.tried == len(found.findings) < 200
    assert len(attribute(window, reference, slices=["batch", "machine"], resamples=100, keep=5).findings) <= 7


def test_rare_values_of_the_reference_belong_to_the_pool() -> None:
    column = code_column(pd.Series(["a"] * 20 + ["x"] * 3), pd.Series(["a", "b", "x", None]), "batch")
    assert column.names == ["a", RARE]
    assert column.before.tolist() == [0, 1, 1, 1]


def test_missing_values_are_a_slice_of_their_own() -> None:
    rng = np.random.default_rng(7)
    reference, window = plant(rng, 4000), plant(rng, 2000)
    for frame in (reference, window):
        frame.loc[rng.random(len(frame)) < 0.1, "machine"] = None
    window.loc[window["machine"].isna(), "loss"] *= 3
    first = attribute(window, reference, slices=["machine"]).findings[0]
    assert (first.value, first.significant) == (MISSING, True)


def test_whole_numbers_are_the_same_value_with_and_without_gaps() -> None:
    column = code_column(pd.Series([1, 2] * 10), pd.Series([1.0, 2.0, np.nan]), "station")
    assert column.names == ["1", "2"]
    assert column.before.tolist() == [0, 1, -1]


def test_a_value_that_the_reference_never_held_is_compared_with_the_whole() -> None:
    rng = np.random.default_rng(8)
    reference, window = plant(rng, 4000), plant(rng, 2000)
    window.loc[rng.random(2000) < 0.1, "machine"] = "M99"
    window.loc[window["machine"] == "M99", "loss"] *= 3
    first = attribute(window, reference, slices=["machine"]).findings[0]
    assert (first.value, first.significant, first.grew, first.reference_row_share) == ("M99", True, True, 0.0)


def test_the_shares_of_a_column_and_the_change_of_its_mix_make_up_the_whole_excess() -> None:
    rng = np.random.default_rng(9)
    reference, window = plant(rng, 4000), plant(rng, 2000)
    window["loss"] *= 2
    found = attribute(window, reference, slices=["line"])
    assert sum(f.share + f.growth_share for f in found.findings) == pytest.approx(1.0, abs=1e-9)
    tail = np.maximum(window["loss"] - found.threshold, 0).sum()
    usual = np.maximum(reference["loss"] - found.threshold, 0).mean() * 2000
    assert found.total_excess == pytest.approx(tail - usual)


def test_intervals_hold_the_true_share() -> None:
    # Losses four times as high at M07 and 1.3 times elsewhere; the true share from a very large sample.
    losses = np.exp(np.random.default_rng(10).normal(size=2_000_000))
    threshold = np.exp(1.2815515655)

    def carried(factor: float) -> float:
        return float(np.maximum(factor * losses - threshold, 0).mean())

    own, other = carried(4) - carried(1), carried(1.3) - carried(1)
    true = own / (own + 19 * other)
    held = 0
    for trial in range(40):
        rng = np.random.default_rng([11, trial])
        reference, window = plant(rng, 2000), plant(rng, 1000)
        window["loss"] *= np.where(window["machine"] == "M07", 4.0, 1.3)
        found = of(attribute(window, reference, slices=["machine"], resamples=200), "M07")
        assert found.low <= found.share <= found.high
        held += found.low <= true <= found.high
    assert held >= 36


def test_no_excess_at_all_names_nobody() -> None:
    rng = np.random.default_rng(12)
    reference, window = plant(rng, 2000), plant(rng, 500)
    window["loss"] *= 0.2
    found = attribute(window, reference, slices=["machine", "line"])
    assert found.total_excess < 0
    assert not any(finding.significant for finding in found.findings)
    zeros = window.assign(loss=0.0)
    assert not any(f.significant for f in attribute(zeros, zeros, slices=["machine"]).findings)


def test_zero_one_losses_are_taken() -> None:
    rng = np.random.default_rng(13)
    reference, window = plant(rng, 4000), plant(rng, 2000)
    reference["loss"] = (rng.random(4000) < 0.05).astype(float)
    window["loss"] = (rng.random(2000) < np.where(window["machine"] == "M02", 0.5, 0.05)).astype(float)
    first = attribute(window, reference, slices=["machine", "line"]).findings[0]
    assert (first.value, first.significant) == ("M02", True)


def test_the_same_rows_give_the_same_answer_in_any_index() -> None:
    rng = np.random.default_rng(14)
    reference, window = plant(rng, 2000), plant(rng, 500)
    one = attribute(window, reference, slices=["machine"], seed=3)
    two = attribute(window.set_axis(range(7, 507)), reference.set_axis([0] * 2000), slices=["machine"], seed=3)
    assert [asdict(f) for f in one.findings] == [asdict(f) for f in two.findings]


def test_a_range_of_a_feature_is_found_and_named_by_its_ends() -> None:
    rng = np.random.default_rng(21)
    reference, window = plant(rng, 4000), plant(rng, 2000)
    for frame in (reference, window):
        frame["temperature"] = rng.normal(190, 3, len(frame))
        frame["pressure"] = rng.normal(60, 1, len(frame))
    window.loc[window["temperature"] > 194, "loss"] *= 5
    found = attribute(window, reference, slices=["machine", "line"], ranges=["temperature", "pressure"])
    first = found.findings[0]
    assert (first.column, first.is_range, first.significant) == ("temperature", True, True)
    assert first.value.startswith("≥ 193.") and first.share > 0.8
    assert not any(finding.significant for finding in found.findings if not finding.is_range)
    assert found.tried == 20 + 4 + 6 + 6


def test_a_machine_comes_before_the_range_that_its_parts_lie_in() -> None:
    rng = np.random.default_rng(22)
    reference, window = plant(rng, 4000), plant(rng, 2000)
    for frame in (reference, window):
        # M07 runs hot, always.
        frame["temperature"] = rng.normal(190, 1, len(frame)) + np.where(frame["machine"] == "M07", 3, 0)
    window.loc[window["machine"] == "M07", "loss"] *= 4
    found = attribute(window, reference, slices=["machine"], ranges=["temperature"])
    assert [(one.value, one.significant) for one in found.findings[:1]] == [("M07", True)]
    hot = next(one for one in found.findings if one.is_range)
    assert hot.significant and hot.evidence < found.findings[0].evidence


def test_many_features_make_a_machine_no_harder_to_name() -> None:
    rng = np.random.default_rng(23)
    reference, window = plant(rng, 2000), plant(rng, 500)
    window.loc[window["machine"] == "M07", "loss"] *= 2.5
    features = [f"x{number}" for number in range(20)]
    for frame in (reference, window):
        for name in features:
            frame[name] = rng.normal(size=len(frame))
    one, many = (attribute(window, reference, slices=["machine"], ranges=features[:count]) for count in (1, 20))
    assert of(one, "M07").significant and of(many, "M07").significant
    assert one.tried == 26 and many.tried == 140


def test_nobody_and_no_range_is_named_when_all_shifted_alike() -> None:
    named = 0
    for trial in range(60):
        rng = np.random.default_rng([24, trial])
        reference, window = plant(rng, 2000), plant(rng, 500)
        for frame in (reference, window):
            frame["x"], frame["y"] = rng.normal(size=len(frame)), rng.exponential(size=len(frame))
        window["loss"] *= 2
        findings = attribute(window, reference, slices=["machine"], ranges=["x", "y"], resamples=100).findings
        named += any(finding.significant for finding in findings)
    assert named <= 4


def test_ranges_take_texts_gaps_and_few_values() -> None:
    before = pd.Series(np.arange(100.0))
    texts = range_column(pd.Series(["95", "", "hot", "4"] * 10), before, "x")
    assert texts is not None and texts.names == ["< 9", "≥ 89", MISSING]
    flags = range_column(pd.Series([0, 1] * 20), pd.Series([0, 0, 1, 1]), "flag")
    assert flags is not None and flags.names == ["0 – 1", "≥ 1"]
    assert range_column(before, pd.Series([np.nan, np.nan]), "none") is None
    tiny = pd.Series(np.linspace(1e-9, 2e-9, 200))
    small = range_column(tiny, tiny, "tiny")
    assert small is not None and small.names[0] == "< 1.1e-09" and small.rows.tolist() == small.rows_before.tolist()
    assert len(small.names) == 6


def test_a_million_rows_need_no_weight_for_each() -> None:
    rng = np.random.default_rng(25)
    reference, window = plant(rng, 20_000), plant(rng, 300_000)
    window.loc[window["machine"] == "M07", "loss"] *= 1.3
    begun = time.perf_counter()
    found = attribute(window, reference, slices=["machine", "line"])
    assert time.perf_counter() - begun < 5.0
    first = found.findings[0]
    assert first.value == "M07" and first.significant and 0.0 < first.low < first.share <= first.high


def test_columns_that_tell_nothing_are_passed_over() -> None:
    rng = np.random.default_rng(15)
    reference, window = plant(rng, 2000).assign(site="S1"), plant(rng, 500).assign(site="S1")
    found = attribute(window, reference, slices=["site"])
    assert (found.findings, found.tried) == ((), 0)
    assert attribute(window, reference, slices=[]).findings == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"current": pd.DataFrame({"machine": [], "loss": []})}, "current has no rows"),
        ({"slices": ["colour"]}, "current lacks the column 'colour'"),
        ({"loss": "error"}, "current lacks the column 'error'"),
        ({"level": 1.0}, "level is 1.0"),
        ({"confidence": 0.0}, "confidence is 0.0"),
        ({"resamples": 10}, "resamples is 10"),
        ({"reference": pd.DataFrame({"machine": ["a"], "loss": [np.nan]})}, "reference has 1 losses"),
        ({"reference": pd.DataFrame({"machine": ["a"], "loss": [-1.0]})}, "reference has 1 losses"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, object], message: str) -> None:
    frame = pd.DataFrame({"machine": ["a", "b"], "loss": [1.0, 2.0]})
    with pytest.raises(ValueError, match=message):
        attribute(**{"current": frame, "reference": frame, "slices": ["machine"], **change})  # type: ignore[arg-type]


def test_the_usual_is_shrunk_where_the_reference_has_few_rows() -> None:
    rng = np.random.default_rng(16)
    codes = np.repeat([0, 1, 2], [1000, 1000, 4])
    scores = rng.normal(np.array([0.0, 2.0, 10.0])[codes], 1.0)
    usual = Usual.of(scores, codes, 4)
    assert usual.mean[0] == pytest.approx(0.0, abs=0.1)
    assert usual.whole < usual.mean[2] < 9.5
    assert usual.mean[3] == usual.whole  # never seen
    alike = Usual.of(rng.normal(size=2000), rng.integers(0, 20, 2000), 20)
    assert np.ptp(alike.mean) < 0.2  # a hundred rows each: 0.37 without shrinking


def test_resamples_spread_as_the_sums_do(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(17)
    codes, before = rng.integers(0, 3, 900), rng.integers(0, 3, 3000)
    tail, tail_before = np.maximum(rng.normal(size=900), 0), np.maximum(rng.normal(size=3000), 0)
    column = SliceColumn("line", ["a", "b", "c"], codes, before)
    usual = Usual.of(tail_before, before, 3)
    drawn = resampled_excess(tail, tail_before, column, usual, resamples=4000, rng=rng)
    monkeypatch.setattr("monitoring.slice_statistics.MANY_HARD_ROWS", 100)
    smooth = resampled_excess(tail, tail_before, column, usual, resamples=4000, rng=rng)
    for code in range(3):
        here = tail[codes == code]
        assert drawn[:, code].mean() == pytest.approx(here.sum() - len(here) * usual.mean[code], abs=1.5)
        # Sum of (tail - usual) over the rows, with the noise of the reference's own mean beside it.
        expected = np.sqrt(((here - usual.mean[code]) ** 2).sum() + len(here) ** 2 * tail_before.var() / 3000)
        assert drawn[:, code].std() == pytest.approx(expected, rel=0.15)
        # Drawn from the normal law, they spread alike.
        assert smooth[:, code].mean() == pytest.approx(drawn[:, code].mean(), abs=1.5)
        assert smooth[:, code].std() == pytest.approx(drawn[:, code].std(), rel=0.08)
