"""What the page says of the ledger's entries."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from flows.comparison import Comparison, Gate, Margins
from flows.gates import judge
from monitoring.notes import gate_sentence, note_of
from monitoring.words import LANGUAGES, jargon_in, words

JAPANESE = re.compile(r"[ぁ-んァ-ン一-龯]")


def _gates() -> list[dict[str, Any]]:
    """Gates of real comparisons: passed, failed, few rows, equal models, no defects, slices large and small."""
    rng = np.random.default_rng(0)
    old, many = rng.exponential(size=2000), np.array(["OK", "NG"])
    labels = many[(rng.random(2000) < 0.1).astype(int)]
    probabilities = np.column_stack([np.where(labels == "OK", 0.9, 0.2), np.where(labels == "OK", 0.1, 0.8)])
    slices = {"machine": np.where(rng.random(2000) < 0.01, "M02", "M01")}
    kept = {"labels": labels, "champion_probabilities": probabilities, "classes": ("OK", "NG"), "normal": "OK",
            "slices": slices}  # fmt: skip
    found: list[Gate] = []
    for new in (old * 0.8, old * 1.5):
        found += judge(Comparison(old, new, challenger_probabilities=probabilities, **kept), Margins())
        found += judge(Comparison(old, new, champion_errors=old, challenger_errors=new), Margins())
    found += judge(Comparison(old, old), Margins())
    found += judge(Comparison(old[:20], old[:20] * 2), Margins())
    found += judge(Comparison(old, np.where(old > 3, np.nan, old)), Margins())
    good = np.full(2000, "OK")
    found += judge(Comparison(old, old * 0.9, challenger_probabilities=probabilities, **{**kept, "labels": good}),
                   Margins())  # fmt: skip
    found += [Gate("latency", 1.234, None, None, 1.0, False, ""), Gate("size", 0.5, None, None, 1.0, True, "")]
    found += [
        Gate("export", 1e-7, None, None, 1e-5, True, "", rows=500),
        Gate("export", None, None, None, 1e-5, False, ""),
    ]
    found += [Gate("export", None, None, None, 1e-5, True, "", gated=False)]
    found += [Gate("constant predictor", -0.5, -0.6, -0.4, 0.0, True, "", rows=500)]
    return [{**vars(gate)} for gate in found]


GATES = _gates()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("gate", GATES, ids=[f"{number}-{gate['name']}" for number, gate in enumerate(GATES)])
def test_every_gate_has_a_sentence_without_jargon_in_both_languages(gate: dict[str, Any], language: str) -> None:
    said = gate_sentence(gate, language)
    assert said and "{" not in said and not jargon_in(said, language), said
    assert bool(JAPANESE.search(said)) == (language == "ja") or gate["name"] == "size", said


def test_the_kinds_of_gates_are_all_among_those_cases() -> None:
    names = {gate["name"].split(": ")[0].split(" ")[0] for gate in GATES}
    assert names == {
        "mean", "tail", "stability", "recall", "misses", "slice", "held-out", "finite", "difference", "latency", "size",
        "constant", "export",
    }  # fmt: skip


def test_a_refusal_names_what_failed_and_no_more_than_three() -> None:
    failed = [{"name": name, "figure": 0.2, "low": 0.1, "high": 0.3, "margin": 0.05, "passed": False, "gated": True}
              for name in ("mean", "tail", "stability", "misses")]  # fmt: skip
    passed = {"name": "size", "figure": 1.0, "margin": 2.0, "passed": True, "gated": True}
    note = note_of("promotion.decided", {"gates": [passed, *failed], "holdout": {"looks": 2, "fresh": 40}}, "en")
    assert "ordinary parts: error +20.0 %" in note and "and 1 more" in note and "MB" not in note
    assert "2 times before; 40 are new" in note


def test_reasons_stand_where_no_gate_was_asked() -> None:
    assert note_of("promotion.decided", {"gates": [], "reasons": ["no rows"]}, "ja") == "no rows"


@pytest.mark.parametrize(
    ("action", "details", "english"),
    [
        ("watch.ended", {"against": "2", "rows": 900, "figures": [{"name": "tail", "worse": True}]},
         "shown worse than version 2 on 900 parts: hard parts"),
        ("watch.window", {"against": "2", "rows": 900, "figures": [{"name": "tail", "worse": False}]},
         "not shown worse than version 2 on 900 parts"),
        ("life.started", {"reason": "promotion"}, "a new model was put to use"),
        ("life.started", {"reason": "new lamp"}, "new lamp"),
        ("incident.opened", {"column": "machine", "value": "M07"}, "machine M07"),
        ("incident.opened", {"column": None, "value": None, "span": {"column": "torque", "value": "≥ 40"}},
         "torque of 40 or more"),
        ("incident.opened", {"column": None, "value": None}, "spread over the line"),
        ("incident.closed", {"reason": "promoted"}, "a new model was put to use"),
        ("rollback.decided", {"named": "system", "reason": "probation: shown worse"}, "shown worse on new parts"),
        ("promotion.refused", {"named": "account", "reason": "too slow"}, "too slow"),
        ("promotion.expired", {"reason": "nobody decided within 24 hours"}, "nobody decided in time"),
        ("quarantine.discarded", {"rows": {"a": "1-3,9", "b": "2"}, "reason": "test parts"}, "5 rows: test parts"),
    ],
)  # fmt: skip
def test_notes_of_other_entries(action: str, details: dict[str, Any], english: str) -> None:
    assert note_of(action, details, "en") == english
    assert note_of(action, details, "ja")


def test_both_catalogues_have_the_same_words() -> None:
    assert words("notes", "en").keys() == words("notes", "ja").keys()
