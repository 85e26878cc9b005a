"""One verdict for each way in which a window can look."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from monitoring.attribution import Attribution, Finding
from monitoring.scan_result import ScanResult
from monitoring.sentences import finding_sentence, verdict_sentence
from monitoring.slice_statistics import MISSING, RARE
from monitoring.verdict import NOT_JUDGED, Judged, decide, lift
from monitoring.words import LANGUAGES


@dataclass(frozen=True)
class Size:
    relevant: bool


@dataclass(frozen=True)
class Look:
    """What the scan says, as far as a verdict asks."""

    alarm: bool = True
    state: str = "alarm"
    rows: int = 2000
    missing: int = 0
    nearness: float = 0.0
    effect: Size | None = None


M07 = Finding(
    "machine", "M07", share=0.72, low=0.61, high=0.83, row_share=0.08, rows=160, reference_row_share=0.08, grew=False,
    significant=True, usual_share=0.08, growth_share=0.0, evidence=14.0,
)  # fmt: skip
L2 = replace(
    M07, column="line", value="L2", share=0.8, row_share=0.33, reference_row_share=0.33, usual_share=0.33, evidence=8.0
)
QUIET = replace(M07, value="M01", share=0.1, low=0.0, high=0.2, significant=False, evidence=0.3)
GREW = replace(
    QUIET, column="product", value="P-3", share=0.1, grew=True, row_share=0.5, reference_row_share=0.2, growth_share=0.9
)


def where(*findings: Finding) -> Attribution:
    return Attribution(findings, total_excess=31.0, tried=23, threshold=0.7, rows=2000, reference_rows=4000)


def test_without_an_alarm_all_is_healthy_whatever_the_slices_say() -> None:
    verdict = decide(Look(alarm=False, state="ok"), where(M07))
    assert (verdict.kind, verdict.reason_key, verdict.column, verdict.evidence) == ("healthy", "no_alarm", None, ())


def test_a_reading_above_its_limit_that_raises_no_alarm_is_not_said_to_be_as_before() -> None:
    verdict = decide(Look(alarm=False, state="ok", nearness=1.26), None)
    assert (verdict.kind, verdict.reason_key) == ("healthy", "held_back")
    for language in ("en", "ja"):
        assert "1.3" in verdict_sentence(verdict, language)
    # A scan whose life has ended has no limit.
    assert decide(Look(alarm=False, state="spent", nearness=1.26), None).reason_key == "no_alarm"


@pytest.mark.parametrize("state", NOT_JUDGED)
def test_what_could_not_be_judged_says_why(state: str) -> None:
    verdict = decide(Look(alarm=False, state=state, rows=12, missing=38), None)
    assert (verdict.kind, verdict.reason_key) == ("too_few_labels", state)
    assert verdict.numbers == {"rows": 12, "missing": 38}


def test_one_machine_that_carries_the_excess_is_to_be_inspected() -> None:
    verdict = decide(Look(), where(M07, L2, QUIET))
    assert (verdict.kind, verdict.column, verdict.value, verdict.share) == ("inspect", "machine", "M07", 0.72)
    assert (verdict.low, verdict.high, verdict.reason_key) == (0.61, 0.83, "one_slice")
    assert verdict.evidence == (M07, L2)
    assert verdict.numbers["row_share"] == 0.08


@pytest.mark.parametrize(
    "finding",
    [
        replace(M07, share=0.4, low=0.3),
        replace(M07, low=0.05),
        replace(M07, significant=False),
        replace(M07, value=RARE),
        # More than half of the excess, but on nearly half of the rows: it is spread.
        replace(M07, share=0.6, low=0.55, row_share=0.45),
    ],
    ids=["share too small", "interval not clear of the rows", "not significant", "a pool", "hardly more than its rows"],
)
def test_a_slice_that_does_not_alone_carry_it_leads_to_retraining(finding: Finding) -> None:
    verdict = decide(Look(), where(finding, QUIET))
    assert (verdict.kind, verdict.reason_key, verdict.column, verdict.value) == ("retrain", "spread", None, None)
    assert verdict.numbers["tried"] == 23


def test_a_slice_that_grew_into_normal_business_is_named_and_retrained() -> None:
    verdict = decide(Look(), where(QUIET, GREW))
    assert (verdict.kind, verdict.reason_key, verdict.column, verdict.value) == (
        "retrain",
        "slice_grew",
        "product",
        "P-3",
    )
    assert (verdict.share, verdict.low) == (0.9, None)


def test_growth_that_explains_little_is_not_named() -> None:
    assert decide(Look(), where(QUIET, replace(GREW, growth_share=0.2))).reason_key == "spread"


def test_a_broken_machine_is_named_even_where_a_product_grew() -> None:
    assert decide(Look(), where(M07, GREW)).kind == "inspect"


HOT = replace(M07, column="temperature_c", value="≥ 194", is_range=True)


def test_a_range_that_carries_the_excess_is_evidence_for_retraining_and_nothing_to_inspect() -> None:
    verdict = decide(Look(), where(HOT, QUIET))
    assert (verdict.kind, verdict.reason_key, verdict.column, verdict.value) == ("retrain", "one_range", None, None)
    assert verdict.evidence == (HOT,) and verdict.share == 0.72
    assert verdict_sentence(verdict, "en").endswith(
        "temperature_c of 194 or more carry 72 % of the additional hard cases."
    )


def test_a_machine_is_named_though_a_range_stands_first() -> None:
    assert decide(Look(), where(HOT, M07)).value == "M07"


def test_a_range_that_merely_grew_comes_after_a_slice_that_did() -> None:
    wide = replace(GREW, column="temperature_c", value="≥ 194", is_range=True, growth_share=0.95)
    assert decide(Look(), where(wide, QUIET)).reason_key == "range_grew"
    both = decide(Look(), where(wide, GREW))
    assert (both.reason_key, both.value) == ("slice_grew", "P-3")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_verdict_has_a_sentence_without_blanks(language: str) -> None:
    new = replace(M07, value="M13", reference_row_share=0.0)
    looks = [decide(Look(alarm=False, state=state, rows=12, missing=38), None) for state in (*NOT_JUDGED, "ok")]
    found = [where(M07), where(new), where(GREW), where(HOT), where(replace(GREW, is_range=True)), where(QUIET)]
    looks += [decide(Look(), each) for each in (*found, None)]
    assert len({look.reason_key for look in looks}) == 11
    sentences = [verdict_sentence(look, language) for look in looks]
    sentences += [finding_sentence(each, language) for each in (M07, GREW, QUIET)]
    assert len(set(sentences)) == 14
    assert not any("{" in sentence for sentence in sentences)


def test_a_slice_that_the_reference_never_held_is_new_business_but_missing_names_are_not() -> None:
    new = replace(M07, value="M13", reference_row_share=0.0, grew=True)
    verdict = decide(Look(), where(new))
    assert (verdict.kind, verdict.reason_key, verdict.value) == ("retrain", "new_slice", "M13")
    assert decide(Look(), where(replace(new, value=MISSING))).kind == "inspect"


def test_without_slice_columns_the_model_is_retrained() -> None:
    assert decide(Look(), None).reason_key == "no_slices"


def test_after_the_alarm_a_window_is_judged_as_long_as_the_effect_is_relevant() -> None:
    spent = Look(alarm=False, state="spent", effect=Size(relevant=True))
    assert decide(spent, where(M07)).kind == "inspect"
    assert decide(spent, None).kind == "healthy"
    assert decide(replace(spent, effect=Size(relevant=False)), where(M07)).kind == "healthy"


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_the_share_to_inspect_is_checked(share: float) -> None:
    with pytest.raises(ValueError, match="inspect_share is"):
        decide(Look(), where(M07), inspect_share=share)


def test_a_higher_share_to_inspect_is_obeyed() -> None:
    assert decide(Look(), where(M07), inspect_share=0.9).kind == "retrain"


def test_lift_is_infinite_where_the_slice_carries_everything() -> None:
    assert lift(replace(M07, share=1.0)) == float("inf")


def test_the_scans_own_result_is_taken() -> None:
    result: Judged = ScanResult(
        False, "ok", statistic=1.0, threshold=4.0, budget_spent=0.0, window="2026-W10", rows=2000
    )
    assert decide(result, None).kind == "healthy"
