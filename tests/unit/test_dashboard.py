"""The page as text: what it says where there is nothing yet, and that data stays data."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from monitoring.dashboard import render_page, write_index, write_page
from monitoring.hard_errors import HardErrors
from monitoring.page_data import (
    LORENZ_AT,
    Bought,
    Budget,
    Carried,
    LedgerLine,
    Named,
    OpenIncident,
    PageData,
    Reason,
    Received,
    Weeks,
    WindowPoint,
)
from monitoring.places_map import Cell, PlacesMap
from monitoring.words import LANGUAGES, words

AT = datetime(2026, 4, 6, 6, tzinfo=UTC)
NASTY = """"><script>alert('x')</script></script><img src=x onerror=alert(1)>{{ 7*7 }} {model}"""


class Outline(HTMLParser):
    """Tags with their attributes, and the text of the scripts, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)


def point(week: int, **values: object) -> WindowPoint:
    return replace(
        WindowPoint(f"2026-W{week:02d}", 1990, "healthy", False, 0.1, 0.9, 0.4, 0.11, 0.95, 0.42, 0.5, 3.2, 0.01),
        **values,  # type: ignore[arg-type]
    )


def incident(value: str = "M07", **values: object) -> OpenIncident:
    one = OpenIncident("line-a-2026-W12", "inspect", value, "machine", 0.72, AT, "opened", None, "4", True)
    return replace(one, **values)  # type: ignore[arg-type]


def nasty() -> PageData:
    return PageData(
        NASTY, AT, NASTY, AT, points=[point(2), point(3, window=NASTY, report=NASTY, alarm=True)],
        named=[Named(NASTY, NASTY, 0.7, 0.6, 0.8, 0.1)],
        incidents=[incident(NASTY, column=NASTY, key=NASTY, challenger=NASTY)],
        ledger=[LedgerLine(AT, NASTY, NASTY, NASTY, {"en": NASTY, "ja": NASTY})],
        received=Received(1, 1, 1, 1, 0, 0, [NASTY], [Reason(NASTY, NASTY, 1)]), links={"mlflow": NASTY},
        map=PlacesMap([NASTY, "line"], [Cell(NASTY, NASTY, 40, 10, 20, 2)]), map_window=NASTY,
        carried=Carried(NASTY, [0.1] * len(LORENZ_AT), [0.1] * len(LORENZ_AT)),
    )  # fmt: skip


def test_no_value_becomes_markup_or_script() -> None:
    plain = PageData("a", AT, "1", AT, points=[point(2), point(3, alarm=True, report="r")],
                     named=[Named("c", "v", 0.7, 0.6, 0.8, 0.1)], incidents=[incident()],
                     ledger=[LedgerLine(AT, "a", "b", "c", {"en": "d", "ja": "d"})],
                     received=Received(1, 1, 1, 1, 0, 0, ["f"], [Reason("r", "c", 1)]), links={"mlflow": "http://m"},
                     map=PlacesMap(["a", "line"], [Cell("b", "c", 40, 10, 20, 2)]), map_window="w",
                     carried=Carried("w", [0.1] * len(LORENZ_AT), [0.1] * len(LORENZ_AT)))  # fmt: skip
    found, wanted = Outline(render_page(nasty())), Outline(render_page(plain))
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in wanted.tags]
    assert found.scripts == wanted.scripts
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)


def test_a_value_with_braces_is_not_filled_in() -> None:
    text = render_page(nasty())
    assert "{{ 7*7 }}" in text
    assert "49 {" not in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_empty_page_says_so_in_both_languages(language: str) -> None:
    text, catalogue = render_page(PageData("line-a", AT), language), words("page", language)
    assert f'<html lang="{language}">' in text
    for key in ("status.no_model", "say.no_model", "figures.none", "incidents.none", "where.none"):
        assert catalogue[key] in text, key
    assert "<svg" not in text


def test_a_champion_without_a_judged_window_collects_labels() -> None:
    data = PageData("line-a", AT, "1", AT)
    assert data.status == "too_few_labels"
    assert words("page", "en")["say.too_few_labels"] in render_page(data)


def test_an_open_incident_decides_the_status_and_gives_the_commands() -> None:
    data = PageData("line-a", AT, "3", AT, points=[point(12)], incidents=[incident()])
    assert data.status == "inspect"
    for answer in ("--repaired", "--new-normal"):
        assert f"softad alerts ack line-a-2026-W12 {answer}" in render_page(data)


def test_an_answered_incident_asks_for_no_answer() -> None:
    data = PageData("line-a", AT, "3", AT, points=[point(12)], incidents=[incident(answer="repaired")])
    assert "softad alerts ack" not in render_page(data)


def test_windows_without_figures_leave_gaps_and_not_zeros() -> None:
    gap = WindowPoint("2026-W03", 12, "too_few_labels")
    text = render_page(PageData("line-a", AT, "1", AT, points=[point(2), gap, point(4)]))
    assert "nan" not in text.lower().split("<body>")[1]
    assert "None" not in text
    assert text.count('class="number"') == 3


def test_a_year_of_windows_is_small_and_asks_nobody_outside() -> None:
    data = PageData("line-a", AT, "1", AT, points=[point(week, alarm=week % 20 == 0) for week in range(1, 53)])
    text = render_page(data)
    assert len(text.encode()) < 1_000_000
    # Fragment links and the namespace of SVG are no requests.
    assert re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", text) == []
    assert "@import" not in text


def test_the_bundle_lies_beside_the_models_and_no_part_is_left(tmp_path: Path) -> None:
    path = write_page(PageData("line-a", AT), tmp_path / "page" / "line-a")
    bundle = tmp_path / "page" / "shared" / "plotly.min.js"
    before = bundle.stat()
    assert before.st_size > 1_000_000
    write_page(PageData("line-a", AT, "1", AT), path.parent)
    assert bundle.stat().st_mtime_ns == before.st_mtime_ns
    assert sorted(each.name for each in (tmp_path / "page").rglob("*") if each.is_file()) == [
        "index.html",
        "plotly.min.js",
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_list_of_models_links_each(tmp_path: Path, language: str) -> None:
    text = write_index(["line-a", NASTY], tmp_path, language).read_text(encoding="utf-8")
    outline = Outline(text)
    assert outline.scripts == []
    assert [attributes["href"] for tag, attributes in outline.tags if tag == "a"] == [
        "line-a/index.html", f"{NASTY}/index.html",
    ]  # fmt: skip


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ValueError, match="language is 'fr'"):
        render_page(PageData("line-a", AT), "fr")


@pytest.mark.parametrize(("answer", "status"), [("new-normal", "retrain"), ("repaired", "too_few_labels")])
def test_an_answered_incident_no_longer_asks_to_check(answer: str, status: str) -> None:
    data = PageData("line-a", AT, "3", AT, points=[point(12, verdict="inspect")], incidents=[incident(answer=answer)])
    assert data.status == status


def test_a_verdict_without_an_open_incident_waits_for_nobody() -> None:
    data = PageData("line-a", AT, "3", AT, points=[point(12, verdict="inspect", promoted=True)])
    assert data.status == "too_few_labels"


def test_healthy_above_the_limit_is_said_to_be_that() -> None:
    point = WindowPoint("2026-W14", 2000, "healthy", statistic=3.9, threshold=3.1, held_back=True)
    data = PageData(model="a", written_at=AT, champion="1", champion_since=AT, points=[point])
    assert (data.status, data.saying) == ("healthy", "held_back")
    page = render_page(data)
    assert "The reading of the watch is above its limit" in page
    assert "Hard cases are as they were" not in page
    assert words("page", "en")["say.inspect"] not in render_page(data)


def test_the_names_in_the_zoom_chart_are_in_both_languages() -> None:
    found = Outline(render_page(PageData("line-a", AT, "1", AT, points=[point(2), point(3)])))
    series = next(attributes["data-series"] for _, attributes in found.tags if "data-series" in attributes)
    for language in LANGUAGES:
        assert words("page", language)["figures.tail"] in [one["name"][language] for one in json.loads(series or "[]")]


@pytest.mark.parametrize("exceeds", [False, True])
def test_how_much_ordinary_weeks_differ_is_told(exceeds: bool) -> None:
    data = PageData("line-a", datetime(2026, 4, 6, tzinfo=UTC), "1", weeks=Weeks(8, 0.021, 0.013, exceeds))
    page = render_page(data, "en")
    assert "the share of hard cases differed by 2.1 points" in page
    assert "偶然だけなら 1.3 です" in page
    assert ("That is more than chance" in page) == exceeds


def test_what_softad_buys_is_told_with_its_range_and_no_difference_in_words() -> None:
    lines = [
        Bought("mean", -0.01, -0.03, 0.02),
        Bought("tail", -0.12, -0.2, -0.04),
        Bought("stability", 0.1, 0.05, 0.2),
    ]
    text = render_page(PageData("line-a", AT, "1", AT, bought=lines, bought_window="2026-W07", bought_rows=4000))
    table = text.split('id="bought"')[1].split("</section>")[0]
    said = re.findall(r"<tr><th.*?</tr>", table, re.DOTALL)[1:]
    for row, key in zip(said, ("none", "lower", "higher"), strict=True):
        for language in LANGUAGES:
            assert words("page", language)[f"bought.{key}"] in row
    assert "−12.0 %" in table and "−20.0 % … −4.0 %" in table and "4,000" in table


def test_a_gain_that_would_be_shown_as_zero_is_no_gain() -> None:
    text = render_page(PageData("line-a", AT, "1", AT, bought=[Bought("mean", -0.0001, -0.0002, -0.00005)]))
    table = text.split('id="bought"')[1].split("</section>")[0]
    assert words("page", "en")["bought.small"] in table
    assert words("page", "en")["bought.lower"] not in table
    assert "−0.0 %" not in table and "+0.0 %" not in table


def test_runs_are_linked_where_a_server_shows_them_and_no_path_is_printed() -> None:
    shown = {"mlflow": "http://127.0.0.1:5000", "prefect": "http://127.0.0.1:4200"}
    text = render_page(PageData("line-a", AT, links=shown))
    assert [found.get("href") for tag, found in Outline(text).tags if tag == "a"] == list(shown.values())
    without = render_page(PageData("line-a", AT))
    assert words("page", "en")["runs.none"] in without
    assert "sqlite" not in without


def test_kept_months_are_linked_beside_the_page() -> None:
    tags = Outline(render_page(PageData("line-a", AT, months=["2026-04", "2026-03"]))).tags
    assert [found["href"] for tag, found in tags if tag == "a"] == ["2026-04.html", "2026-03.html"]


def section(text: str, name: str) -> str:
    return text.split(f'id="{name}"')[1].split("</section>", maxsplit=1)[0]


def test_the_map_says_each_share_in_figures_and_the_table_beside_it_all_counts() -> None:
    cells = [Cell("M1", "L1", 200, 20, 100, 9), Cell("M7", "L1", 100, 72, 50, 5), Cell("M7", "L2", 3, 1, 0, 0)]
    text = render_page(PageData("a", AT, "1", AT, map=PlacesMap(["machine", "line"], cells), map_window="2026-W12"))
    found = section(text, "map")
    assert re.findall(r'<text class="cell (\w+)"[^>]*>([^<]*)<', found) == [
        ("h1", "10 %"), ("h4", "72 %"), ("few", "1 / 3"),
    ]  # fmt: skip
    assert "Hard cases by machine and line" in text and "機械・ライン別の難しい品" in text
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)<", row) for row in found.split("<tbody>")[1].split("</tr>")]
    assert rows[:3] == [
        ["M1", "L1", "200", "20", "10 %", "9 %"], ["M7", "L1", "100", "72", "72 %", "10 %"],
        ["M7", "L2", "3", "1", "33 %", "–"],
    ]  # fmt: skip


def test_the_spread_of_the_error_then_and_now_is_told_in_a_sentence() -> None:
    before, now = [0.4] * len(LORENZ_AT), [0.25] * len(LORENZ_AT)
    text = section(render_page(PageData("a", AT, "1", AT, carried=Carried("2026-W12", before, now))), "carried")
    assert "carries 75 % of the whole error in 2026-W12; in the reference it was 60 %" in text
    assert text.count('class="line') == 2


@pytest.mark.parametrize(
    ("only", "plain_only", "said"), [(5, 6, "same"), (2, 40, "lower"), (40, 2, "higher")],
)  # fmt: skip
def test_errors_on_hard_parts_are_compared_over_all_windows(only: int, plain_only: int, said: str) -> None:
    points = [
        point(week, hard=HardErrors(200, 60 + only, 60 + plain_only, only, plain_only, 0.05)) for week in (2, 3, 4)
    ]
    text = section(render_page(PageData("a", AT, "1", AT, points=points)), "hard")
    for language in LANGUAGES:
        assert words("page", language)[f"hard.{said}"] in text
    assert f"600 hard parts: the model in use misjudged {3 * (60 + only)}" in text
    assert "where 5 % of the good parts are rejected" in text


def test_errors_on_hard_parts_without_ordinary_training_are_told_alone() -> None:
    text = section(render_page(PageData("a", AT, "1", AT, points=[point(2, hard=HardErrors(200, 60))])), "hard")
    assert "misjudged 60 of 200 hard parts" in text
    assert words("page", "en")["hard.same"] not in text


def test_ordinary_noise_is_no_change_and_a_step_beyond_it_is_one() -> None:
    errors = {"mean": 0.005, "tail": 0.05, "stability": 0.02}
    before, same = point(2, errors=errors), point(3, mean=0.107, errors=errors)
    data = PageData("a", AT, "1", AT, points=[before, same], ordinary={"mean": 0.004, "tail": 0.04, "stability": 0.02})
    catalogue = words("page", "en")
    assert f'+7 %: <span class="en" lang="en">{catalogue["figures.same"]}' in render_page(data)
    worse = render_page(replace(data, points=[before, replace(same, mean=0.2)]))
    assert f'↑</span> +100 %: <span class="en" lang="en">{catalogue["figures.worse"]}' in worse
    better = render_page(replace(data, points=[before, replace(same, mean=0.02)]))
    assert f'↓</span> −80 %: <span class="en" lang="en">{catalogue["figures.better"]}' in better


def test_what_waits_for_people_comes_before_the_figures() -> None:
    text = render_page(PageData("a", AT, "3", AT, points=[point(12)], incidents=[incident()]))
    assert text.index('id="incidents"') < text.index('id="card-mean"')


def test_the_budget_is_told_in_words_and_drawn() -> None:
    data = PageData("a", AT, "1", AT, points=[point(2)], budget=Budget(0.05, 52, 13, 0.01))
    text = section(render_page(data), "budget")
    assert "20 % of the allowance is used; 13 of the 52 windows of this watch have passed." in text
    assert ">20 %</text>" in text and ">13 / 52</text>" in text


def test_reasons_are_told_in_words_and_unknown_ones_by_their_name() -> None:
    reasons = [Reason("range", "pressure", 3, "pressure-plausible"), Reason("our own rule", "x", 2, "our own rule")]
    text = section(render_page(PageData("a", AT, received=Received(reasons=reasons))), "reasons")
    assert "pressure is outside its range" in text and "pressure が範囲外です" in text
    assert "<td>our own rule</td>" in text
