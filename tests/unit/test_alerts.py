"""What people on shift read: every message that the pipeline sends, in both languages."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest

from monitoring.alerts import EVENTS, House, Message, render
from monitoring.incidents import TRIES, Incident
from monitoring.notices import (
    render_life_ended,
    render_refused_file,
    render_test,
    render_trouble,
    render_unwatched,
)
from monitoring.words import LANGUAGES, jargon_in

PAGE = "http://127.0.0.1:8080/line-a/index.html"
JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")

INSPECT = Incident(
    key="line-a-2026-W14",
    model="line-a",
    opened_at=datetime(2026, 4, 9, 1, tzinfo=UTC),
    window="2026-W14",
    since=datetime(2026, 3, 30, tzinfo=UTC),
    verdict="inspect",
    column="machine",
    value="M07",
    share=0.72,
    low=0.61,
    high=0.83,
    row_share=0.08,
    harder=1.9,
    statistic=12.3,
    threshold=9.4,
    relevant_effect=1.15,
    inspect_share=0.5,
    life="life-0001",
)
SPREAD = replace(INSPECT, verdict="retrain", column=None, value=None, share=None, low=None, high=None, row_share=None)
GREW = replace(INSPECT, verdict="retrain")
SPAN = {
    "column": "temperature", "value": "≥ 310", "share": 0.64, "low": 0.5, "high": 0.75, "row_share": 0.12,
    "before": 0.1, "grew": False,
}  # fmt: skip
HOT = replace(SPREAD, span=SPAN)
HOTTER = replace(SPREAD, span=SPAN | {"row_share": 0.4, "grew": True})
HELD = INSPECT.with_challenger("7", held=True)
REPAIRED = HELD.answered(
    "repaired",
    actor="K. Sato",
    at=datetime(2026, 4, 11, tzinfo=UTC),
    repaired_at=datetime(2026, 4, 10, tzinfo=UTC),
)
NEW_NORMAL = HELD.answered("new-normal", actor="K. Sato", at=datetime(2026, 4, 10, tzinfo=UTC))
CLOSED_AT = datetime(2026, 4, 13, tzinfo=UTC)

STUCK = replace(SPREAD, tries=TRIES)
MOVED = replace(HELD, updates=1, update="moved", column_now="machine", value_now="M03", share_now=0.6, harder_now=2.1)

SENT = {
    "opened, one machine": (INSPECT, "opened"),
    "opened, spread out": (SPREAD, "opened"),
    "opened, a machine that grew": (GREW, "opened"),
    "opened, a range": (HOT, "opened"),
    "opened, a range that grew": (HOTTER, "opened"),
    "promoted, a range": (HOT.with_challenger("8", held=False).closed(CLOSED_AT, reason="promoted"), "promoted"),
    "refused, a range that grew": (HOTTER.tried("2026-W15"), "refused"),
    "updated, worse": (replace(HELD, updates=1, update="worse", harder_now=2.7), "updated"),
    "updated, another machine": (replace(MOVED, updates=2), "updated"),
    "updated, bad again": (replace(HELD, updates=3, update="returned", harder_now=1.6), "updated"),
    "challenger held": (HELD, "challenger"),
    "somebody looks into it": (HELD.seen(actor="K. Sato", at=datetime(2026, 4, 10, tzinfo=UTC)), "seen"),
    "nobody answered": (HELD.escalated(datetime(2026, 4, 11, tzinfo=UTC)), "escalated"),
    "nobody decided": (replace(STUCK, escalations=2), "escalated"),
    "recovered without an answer": (replace(HELD, recoveries=1, recovered_at=CLOSED_AT), "recovered"),
    "recovered after the repair": (
        replace(REPAIRED.closed(CLOSED_AT, reason="repaired"), recoveries=2, recovered_at=CLOSED_AT), "recovered",
    ),
    "answered repaired": (REPAIRED, "acknowledged"),
    "answered new normal": (NEW_NORMAL, "acknowledged"),
    "promoted, new normal": (
        NEW_NORMAL.with_challenger("8", held=False).closed(CLOSED_AT, reason="promoted"),
        "promoted",
    ),
    "promoted, spread out": (
        SPREAD.with_challenger("8", held=False).closed(CLOSED_AT, reason="promoted"),
        "promoted",
    ),
    "refused, new normal": (NEW_NORMAL.tried("2026-W15"), "refused"),
    "refused, spread out": (SPREAD.tried("2026-W15"), "refused"),
    "refused, the last time": (STUCK, "refused"),
    "closed, repaired": (REPAIRED.closed(CLOSED_AT, reason="repaired"), "closed"),
    "closed by hand": (SPREAD.closed(CLOSED_AT, reason="lamp was replaced"), "closed"),
}  # fmt: skip
sent = pytest.mark.parametrize(("incident", "event"), SENT.values(), ids=SENT.keys())
languages = pytest.mark.parametrize("language", LANGUAGES)


def notices(language: str) -> dict[str, Message]:
    """What is about no incident."""
    common = {"model": "line-a", "language": language, "page_url": PAGE}
    life = {"life": "life-0001", "began": CLOSED_AT, "alarm_budget": 0.05, "horizon": 52, "unit": "week"}
    trouble = {"step": "score", "since": CLOSED_AT, "reason": "the server does not answer.", "key": "line-a:cycle"}
    return {
        "file": render_refused_file(file="w14.csv", reason="w14.csv is empty.", key="line-a:file:ab", **common),
        "life": render_life_ended(**life, **common),
        "life, nobody acted": render_life_ended(**life, escalated=True, **common),
        "selection unknown": render_unwatched(life="life-0001", window="2026-W14", **common),
        "run failed": render_trouble(**trouble, state="failed-score", **common),
        "run works": render_trouble(**trouble, state="works", works=True, **common),
        "test": render_test(key="test:1", at=CLOSED_AT, **common),
    }


def all_messages(language: str) -> list[Message]:
    sent = [render(incident, event, language, page_url=PAGE) for incident, event in SENT.values()]
    return [*sent, *notices(language).values()]


def test_every_event_is_among_the_cases() -> None:
    assert {event for _, event in SENT.values()} == set(EVENTS)


@languages
def test_no_message_uses_jargon(language: str) -> None:
    for message in all_messages(language):
        assert jargon_in(f"{message.subject}\n{message.body}", language) == []


@pytest.mark.parametrize(
    ("language", "text"),
    [("en", "The CVaR rose."), ("en", "ranked by loss"), ("en", "a p-value"), ("en", "Challengers."),
     ("ja", "損失が増えた"), ("ja", "p値"), ("ja", "新しいチャンピオンの分布"), ("ja", "ERMと比べた")],
)  # fmt: skip
def test_the_word_lists_find_jargon_where_it_stands(language: str, text: str) -> None:
    assert jargon_in(text, language)


@pytest.mark.parametrize(("language", "text"), [("en", "softad glossy blossom"), ("ja", "品の出方")])
def test_the_word_lists_leave_other_words_alone(language: str, text: str) -> None:
    assert jargon_in(text, language) == []


OPTIONAL = {
    "value": {"column": None, "value": None},
    "share": {"share": None, "low": None, "high": None},
    "all of it": {"share": 1.0, "low": 1.0, "high": 1.0},
    "interval": {"low": None, "high": None},
    "row share": {"row_share": None},
    "since": {"since": None},
    "harder": {"harder": None},
    "limits": {"statistic": None, "threshold": None, "relevant_effect": None, "inspect_share": None},
    "unit": {"unit": "rows", "horizon": 7, "alarm_budget": 0.3, "answered_by": None, "closed_reason": None},
}
"""Fields that an incident may lack, or have otherwise."""


@languages
@pytest.mark.parametrize("event", EVENTS)
def test_whatever_is_known_of_an_incident_it_can_be_told(event: str, language: str) -> None:
    """Every event with every combination of what is not known: no blank, no jargon, no missing section."""
    stages = [
        INSPECT,
        GREW,
        SPREAD,
        HOT,
        HOTTER,
        HELD,
        REPAIRED,
        NEW_NORMAL,
        STUCK,
        MOVED,
        REPAIRED.closed(CLOSED_AT, reason="x"),
    ]
    seen: set[str] = set()
    for stage in stages:
        for chosen in product((False, True), repeat=len(OPTIONAL)):
            lacking = [fields for fields, taken in zip(OPTIONAL.values(), chosen, strict=True) if taken]
            incident = replace(stage, **{name: value for fields in lacking for name, value in fields.items()})
            message = render(incident, event, language)
            text = f"{message.subject}\n{message.body}"
            if text in seen:
                continue
            seen.add(text)
            assert not re.search(r"[{}]|None|nan|\(\)|\( | \)| [,.;]|;;|\.\.", text.replace('"..."', "")), text
            assert jargon_in(text, language) == [], text
            assert len(message.body.split("\n\n")) == 6
            assert "softad" in text or event not in {"challenger", "promoted"}
    assert seen


SECTIONS = {
    "en": ("How sure: ", "What to do now: ", "What the system", "Limits used: "),
    "ja": ("確かさ: ", "いま行うこと: ", "システムの対応: ", "使用した基準: "),
}


@languages
def test_every_message_has_every_section_in_the_same_order(language: str) -> None:
    for message in all_messages(language):
        paragraphs = message.body.split("\n\n")
        assert [next(i for i, one in enumerate(paragraphs) if one.startswith(mark)) for mark in SECTIONS[language]] == [
            1, 2, 3, 4,
        ]  # fmt: skip
        assert paragraphs[-1].endswith(PAGE)
        assert all(one.strip() == one and one for one in paragraphs), message.body


@sent
@languages
def test_an_incidents_message_says_since_when_and_where(incident: Incident, event: str, language: str) -> None:
    body = render(incident, event, language).body
    assert "2026-03-30" in body.split("\n\n")[0]
    if incident.span is not None:
        words = {"en": "parts with temperature of 310 or more", "ja": "temperature が 310 以上の品"}
        assert words[language] in body
        return
    assert ("M07" if incident.value else {"en": "the line", "ja": "ライン全体"}[language]) in body


@sent
@languages
def test_every_blank_is_filled(incident: Incident, event: str, language: str) -> None:
    message = render(incident, event, language, page_url=PAGE)
    for text in (message.subject, message.body):
        assert not re.search(r"[{}]", text)
        assert "None" not in text
    assert "?" not in message.body
    assert message.key == incident.key
    assert incident.model in message.subject
    assert "\n" not in message.subject


@sent
def test_each_language_speaks_its_own(incident: Incident, event: str) -> None:
    english, japanese = (render(incident, event, language, page_url=PAGE) for language in ("en", "ja"))
    for text in (english.subject, english.body):
        assert not JAPANESE.search(text)
    for text in (japanese.subject, japanese.body.removesuffix(PAGE)):
        assert JAPANESE.search(text)
    assert (english.key, english.state, english.severity) == (japanese.key, japanese.state, japanese.severity)


@pytest.mark.parametrize(
    ("value", "english", "japanese"),
    [("≥ 310", "temperature of 310 or more", "temperature が 310 以上の品"),
     ("< 298.5", "temperature below 298.5", "temperature が 298.5 未満の品"),
     ("298 – 310", "temperature between 298 and 310", "temperature が 298 以上 310 未満の品"),
     ("(missing)", "no temperature", "temperature の値なしの品")],
)  # fmt: skip
def test_a_range_is_told_in_words(value: str, english: str, japanese: str) -> None:
    hot = replace(HOT, span=SPAN | {"value": value})
    told = {language: render(hot, "opened", language).body for language in LANGUAGES}
    assert f"64 % of the additional hard cases come from parts with {english} (between 50 % and 75 %)" in told["en"]
    assert f"増えた難しい品の 64 % が、{japanese}から出ています(50 %~75 %)" in told["ja"]
    assert Incident.from_dict(hot.to_dict()) == hot


@languages
def test_the_alert_for_one_machine_tells_all_that_people_need(language: str) -> None:
    message = render(INSPECT, "opened", language, page_url=PAGE)
    assert "M07" in message.subject
    assert "72 %" in message.subject
    for fact in ("M07", "2026-03-30", "72 %", "61 %", "83 %", "8 %"):
        assert fact in message.body
    assert "softad alerts ack line-a-2026-W14 --repaired" in message.body
    assert "softad alerts ack line-a-2026-W14 --new-normal" in message.body
    assert "12.3" in message.body
    assert "9.4" in message.body
    assert message.body.endswith(PAGE)
    assert message.severity == "failure"


def test_the_order_is_what_how_sure_what_to_do_what_was_done() -> None:
    body = render(INSPECT, "opened", "en").body
    marks = ("Since 2026-03-30", "How sure", "What to do now", "What the system does", "Limits used", "Matter line-a-")
    places = [body.index(part) for part in marks]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("budget", "english", "japanese"),
    [(0.05, "one watch in twenty ends", "20 回のうち約 1 回"), (0.10, "one watch in ten ends", "10 回のうち約 1 回"),
     (0.01, "one watch in a hundred ends", "100 回のうち約 1 回"), (0.04, "one watch in 25 ends", "25 回のうち約 1 回"),
     (0.3, "30 watches in a hundred end", "100 回のうち約 30 回"), (0.7, "70 watches in a hundred", "約 70 回")],
)  # fmt: skip
def test_the_budget_is_told_as_one_life_in_so_many(budget: float, english: str, japanese: str) -> None:
    incident = replace(INSPECT, alarm_budget=budget, horizon=26)
    assert english in render(incident, "opened", "en").body
    assert "(a watch lasts 26 weeks)" in render(incident, "opened", "en").body
    assert japanese in render(incident, "opened", "ja").body


@pytest.mark.parametrize(
    ("low", "share", "high", "told"),
    [(0.61, 0.72, 0.83, "(between 61 % and 83 %)"), (1.0, 1.0, 1.0, "(elsewhere there are no more than before)"),
     (0.93, 1.0, 1.0, "(at least 93 %)"), (0.721, 0.722, 0.723, "come from there, though")],
)  # fmt: skip
def test_an_interval_is_told_in_a_sensible_way(low: float, share: float, high: float, told: str) -> None:
    body = render(replace(INSPECT, low=low, share=share, high=high), "opened", "en").body
    assert told in body
    assert "between 100 %" not in body and "between 72 % and 72 %" not in body
    assert ("All of the additional hard cases" in body) is (share == 1.0)


@pytest.mark.parametrize(
    ("event", "severity"),
    [("opened, one machine", "failure"), ("opened, spread out", "warning"), ("updated, worse", "failure"),
     ("nobody answered", "failure"), ("somebody looks into it", "info"), ("recovered without an answer", "success"),
     ("promoted, spread out", "success"), ("refused, spread out", "warning"), ("refused, the last time", "failure"),
     ("closed, repaired", "info")],
)  # fmt: skip
def test_the_severity_says_whether_somebody_has_to_act(event: str, severity: str) -> None:
    assert render(*SENT[event], "en").severity == severity


@languages
def test_an_escalation_names_who_was_to_answer_and_who_is_told(language: str) -> None:
    usual = render(*SENT["nobody answered"], language).body
    own = render(
        *SENT["nobody answered"], language,
        house=House(responsible="Line 3 lead", superior="Ms Mori", escalate_hours=72),
    ).body  # fmt: skip
    assert {"en": "The shift leader", "ja": "班長"}[language] in usual
    assert {"en": "the production manager", "ja": "製造課長"}[language] in usual
    assert {"en": "24 hours", "ja": "24 時間"}[language] in usual
    assert "Line 3 lead" in own and "Ms Mori" in own
    assert {"en": "3 days", "ja": "3 日"}[language] in own


@languages
def test_an_escalation_claims_to_have_told_nobody_whom_the_plant_has_not_named(language: str) -> None:
    nobody = render(*SENT["nobody answered"], language, house=House(reached_further=False)).body
    assert {"en": "the production manager", "ja": "製造課長"}[language] not in nobody
    assert "alerts.escalate_to" in nobody
    page = render(*SENT["nobody answered"], language, house=House(reached=False, reached_further=False)).body
    assert {"en": "was told", "ja": "知らせました"}[language] not in page
    assert {"en": "on the page", "ja": "ページに表示"}[language] in page


@languages
def test_an_update_says_what_is_new_and_a_recovery_whether_an_answer_is_wanted(language: str) -> None:
    worse = render(*SENT["updated, worse"], language).body
    assert "2.7" in worse and "1.9" in worse
    assert "M03" in render(*SENT["updated, another machine"], language).subject
    assert "softad alerts ack" in render(*SENT["recovered without an answer"], language).body
    assert "softad alerts" not in render(*SENT["recovered after the repair"], language).body


@languages
def test_a_watch_that_went_by_says_how_a_new_one_begins(language: str) -> None:
    message = notices(language)["life"]
    assert "softad alerts renew" in message.body and "softad retrain" in message.body
    assert (message.key, message.state) == ("line-a:life-0001", "ended")
    assert notices(language)["life, nobody acted"].state == "ended-escalated"


@languages
def test_trouble_that_is_spread_out_names_no_place_and_asks_for_no_answer(language: str) -> None:
    message = render(SPREAD, "opened", language)
    assert "M07" not in message.subject + message.body
    assert "softad alerts ack" not in message.body
    assert "1.9" in message.body


@languages
def test_a_machine_that_grew_is_named_but_nobody_is_sent_there(language: str) -> None:
    message = render(GREW, "opened", language)
    assert "M07" in message.body
    assert "M07" not in message.subject
    assert "softad alerts ack" not in message.body


@languages
def test_a_held_model_says_what_it_waits_for_and_what_it_left_out(language: str) -> None:
    message = render(HELD, "challenger", language)
    assert "M07" in message.subject
    assert "72 %" in message.body
    assert "7" in message.body.replace("M07", "").replace("72 %", "")
    assert "--repaired" in message.body
    assert "--new-normal" in message.body
    assert message.severity == "warning"


def test_the_answer_is_told_with_its_name_and_what_follows() -> None:
    repaired = render(REPAIRED, "acknowledged", "en").body
    assert "K. Sato" in repaired
    assert "between 2026-03-30 and 2026-04-10 are never used" in repaired
    new_normal = render(NEW_NORMAL, "acknowledged", "en").body
    assert "K. Sato" in new_normal
    assert "with the parts of M07 too" in new_normal


@languages
def test_a_promotion_names_the_version_and_the_way_back(language: str) -> None:
    body = render(*SENT["promoted, new normal"], language).body
    assert re.search(r"(version|バージョン) 8", body)
    assert "softad rollback --of 8" in body


@pytest.mark.parametrize(("language", "known"), [("en", "closed: repaired."), ("ja", "(修理済み)")])
def test_the_reason_for_closing_is_translated_or_given_as_it_was_said(language: str, known: str) -> None:
    assert known in render(*SENT["closed, repaired"], language).body
    assert "lamp was replaced" in render(*SENT["closed by hand"], language).body


def test_days_are_those_of_the_plant() -> None:
    evening = replace(INSPECT, since=datetime(2026, 3, 29, 15, 30, tzinfo=UTC))
    assert "Since 2026-03-29" in render(evening, "opened", "en").body
    assert "Since 2026-03-30" in render(evening, "opened", "en", house=House(time_zone="Asia/Tokyo")).body


@pytest.mark.parametrize(("language", "words"), [("en", "Since the latest batch"), ("ja", "直近の期間 以降")])
def test_rows_without_a_time_have_words_for_it(language: str, words: str) -> None:
    assert words in render(replace(INSPECT, since=None), "opened", language).body


@languages
@pytest.mark.parametrize("value", ["{key}", "{0}", "<b>M07</b>", "50 %", "溶接 3号機"])
def test_a_slice_of_any_name_is_shown_as_it_is(value: str, language: str) -> None:
    message = render(replace(INSPECT, value=value), "opened", language)
    assert value in message.subject
    assert value in message.body


@pytest.mark.parametrize(("language", "word"), [("en", "machine M07"), ("ja", "機械 M07")])
def test_usual_columns_have_a_word_and_others_their_own_name(language: str, word: str) -> None:
    assert word in render(INSPECT, "opened", language).body
    assert "oven M07" in render(replace(INSPECT, column="oven"), "opened", language).body


def test_one_message_for_one_event_however_often_it_is_rendered() -> None:
    # The share may move, a model may come: people were told of the opening all the same.
    later = replace(HELD, share=0.5)
    assert render(later, "opened", "en").state == render(INSPECT, "opened", "en").state == "opened"
    states = [render(replace(MOVED, updates=count), "updated", "en").state for count in (1, 2, 3)]
    assert states == ["updated", "updated-2", "updated-3"]


def test_a_second_refusal_is_news_and_the_same_one_is_not() -> None:
    once, twice = SPREAD.tried("2026-W15"), SPREAD.tried("2026-W15").tried("2026-W16")
    assert render(once, "refused", "en").state != render(twice, "refused", "en").state
    assert render(once, "refused", "en").state == render(once, "refused", "ja").state


@languages
def test_a_file_that_was_held_back_is_told_with_its_reason(language: str) -> None:
    reason = "w14.csv: 310 of 1,000 rows break a rule; mend the column x1 and export again."
    message = render_refused_file(
        model="line-a", file="w14.csv", reason=reason, language=language, key="line-a:file:ab", page_url=PAGE
    )
    assert "w14.csv" in message.subject
    assert reason in message.body
    assert "inbox" in message.body
    assert message.body.endswith(PAGE)
    assert (message.severity, message.key, message.state) == ("failure", "line-a:file:ab", "file")


@languages
def test_without_a_page_there_is_no_link(language: str) -> None:
    assert "http" not in render(INSPECT, "opened", language).body


def test_an_unknown_event_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="event is 'exploded'"):
        render(INSPECT, "exploded", "en")


def test_an_unknown_language_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="language is 'fr'"):
        render(INSPECT, "opened", "fr")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_readme_shows_what_is_sent(language: str) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    message = render(INSPECT, "opened", language)
    assert message.subject in readme
    for paragraph in message.body.split("\n\n")[:2]:
        assert paragraph in readme
