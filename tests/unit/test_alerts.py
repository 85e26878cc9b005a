"""What people on shift read: every message that the pipeline sends, in both languages."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from monitoring.alerts import Message, render, render_refused_file, render_test
from monitoring.incidents import Incident
from monitoring.words import LANGUAGES

PAGE = "http://127.0.0.1:8080/line-a/index.html"
JARGON = {
    "en": re.compile(
        r"\b(cvar|loss(es)?|rank(s|ed)?|p-?values?|quantiles?|percentiles?|statistics?|sigma|theta|bootstrap|"
        r"holdout|challenger|champion|erm)\b",
        re.IGNORECASE,
    ),
    "ja": re.compile(
        r"CVaR|ERM|損失|順位|分位|統計量|[pｐ]値|検定|有意|標準偏差|ブートストラップ|チャンピオン", re.IGNORECASE
    ),
}
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
)
SPREAD = replace(INSPECT, verdict="retrain", column=None, value=None, share=None, low=None, high=None, row_share=None)
GREW = replace(INSPECT, verdict="retrain")
HELD = INSPECT.with_challenger("7", held=True)
REPAIRED = HELD.answered(
    "repaired",
    actor="K. Sato",
    at=datetime(2026, 4, 11, tzinfo=UTC),
    repaired_at=datetime(2026, 4, 10, tzinfo=UTC),
)
NEW_NORMAL = HELD.answered("new-normal", actor="K. Sato", at=datetime(2026, 4, 10, tzinfo=UTC))
CLOSED_AT = datetime(2026, 4, 13, tzinfo=UTC)

SENT = {
    "opened, one machine": (INSPECT, "opened"),
    "opened, spread out": (SPREAD, "opened"),
    "opened, a machine that grew": (GREW, "opened"),
    "challenger held": (HELD, "challenger"),
    "nobody answered": (HELD, "escalated"),
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
    "closed, repaired": (REPAIRED.closed(CLOSED_AT, reason="repaired"), "closed"),
    "closed by hand": (SPREAD.closed(CLOSED_AT, reason="lamp was replaced"), "closed"),
}
sent = pytest.mark.parametrize(("incident", "event"), SENT.values(), ids=SENT.keys())
languages = pytest.mark.parametrize("language", LANGUAGES)


def all_messages(language: str) -> list[Message]:
    messages = [render(incident, event, language, page_url=PAGE) for incident, event in SENT.values()]
    messages.append(
        render_refused_file(
            model="line-a", file="w14.csv", reason="w14.csv is empty.", language=language, key="line-a:file:ab"
        )
    )
    messages.append(render_test(model="line-a", language=language, key="test:1"))
    return messages


@languages
def test_no_message_uses_jargon(language: str) -> None:
    for message in all_messages(language):
        found = JARGON[language].search(f"{message.subject}\n{message.body}")
        assert found is None, f"{found} in {message.subject}"


@pytest.mark.parametrize(
    ("language", "text"),
    [("en", "The CVaR rose."), ("en", "ranked by loss"), ("en", "a p-value"), ("ja", "損失が増えた"), ("ja", "p値")],
)
def test_the_word_lists_find_jargon_where_it_stands(language: str, text: str) -> None:
    assert JARGON[language].search(text)


@sent
@languages
def test_every_blank_is_filled(incident: Incident, event: str, language: str) -> None:
    message = render(incident, event, language, page_url=PAGE)
    for text in (message.subject, message.body):
        assert not re.search(r"[{}]", text)
        assert "None" not in text
    # A lone dash stands where the incident has no figure for a blank.
    assert not re.search(r"(?<![^\s(~])-(?![^\s)~])", message.body)
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
    places = [body.index(part) for part in ("Since 2026-03-30", "How sure", "What to do now", "What the system does")]
    assert places == sorted(places)


@pytest.mark.parametrize(("budget", "lives"), [(0.05, "20"), (0.10, "10"), (0.01, "100")])
def test_the_budget_is_told_as_one_life_in_so_many(budget: float, lives: str) -> None:
    incident = replace(INSPECT, alarm_budget=budget, horizon=26)
    assert f"about 1 false alarm in {lives} model lives of 26" in render(incident, "opened", "en").body
    assert f"モデル {lives} 代(26 " in render(incident, "opened", "ja").body


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
    assert "between 2026-03-30 and 2026-04-10" in repaired
    assert "not be used" in repaired
    new_normal = render(NEW_NORMAL, "acknowledged", "en").body
    assert "K. Sato" in new_normal
    assert "trained with its parts" in new_normal


@languages
def test_a_promotion_names_the_version_and_the_way_back(language: str) -> None:
    body = render(*SENT["promoted, new normal"], language).body
    assert re.search(r"(version|バージョン) 8", body)
    assert "softad rollback" in body


@pytest.mark.parametrize(("language", "known"), [("en", "(repaired)"), ("ja", "(修理済み)")])
def test_the_reason_for_closing_is_translated_or_given_as_it_was_said(language: str, known: str) -> None:
    assert known in render(*SENT["closed, repaired"], language).body
    assert "lamp was replaced" in render(*SENT["closed by hand"], language).body


def test_days_are_those_of_the_plant() -> None:
    evening = replace(INSPECT, since=datetime(2026, 3, 29, 15, 30, tzinfo=UTC))
    assert "Since 2026-03-29" in render(evening, "opened", "en").body
    assert "Since 2026-03-30" in render(evening, "opened", "en", time_zone="Asia/Tokyo").body


@pytest.mark.parametrize(("language", "words"), [("en", "Since the last window"), ("ja", "直近の期間 以降")])
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
    states = {event: render(incident, event, "en").state for incident, event in SENT.values()}
    assert len(set(states.values())) == len(states)
    # The share may move, a model may come: people were told of the opening all the same.
    later = replace(HELD, share=0.5)
    assert render(later, "opened", "en").state == render(INSPECT, "opened", "en").state


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
