"""The pilot report as one HTML page: everything inside, pictures as SVG, no script, made for A4 and the screen."""

from __future__ import annotations

import base64
import io
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2

from flows.pilot_charts import Line, Whisker, bar_chart, line_chart, whisker_chart
from flows.pilot_words import Words, figure, percent

if TYPE_CHECKING:
    from flows.pilot_data import Material
    from softad.pilot_report import PilotReport

THUMBNAIL = 56
MOST_BYTES = 2_000_000
_RATES = ("accuracy", "balanced_accuracy", "recall")


def page_html(document: dict[str, Any], report: PilotReport, material: Material, words: Words, *, path: str) -> str:
    """The page.

    Parameters
    ----------
    document: of `flows.pilot_document.build_document`.
    path: where the config lies.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    source = (resources.files("flows") / "templates" / "pilot.html.j2").read_text(encoding="utf-8")
    name = document["verdict"]["compared"]
    minutes = report.seconds / 60.0
    took = (
        words.say("seconds", n=f"{report.seconds:.0f}") if minutes < 1.5 else words.say("minutes", n=f"{minutes:.0f}")
    )
    return environment.from_string(source).render(
        w=words.texts, say=words.say, d=document, name=name, percent=percent, fig=figure, took=took,
        figures=_figure_rows(document, words), threes=_three_charts(document, words),
        rounds=_round_chart(document, words),
        thetas=_theta_charts(report, words), costs=_cost_charts(document, words), bars=_place_chart(document, words),
        pictures=_thumbnails(document, material), candidates=_candidates(report, document, words), config_path=path,
        data_path=material.proposal.data, tolerance=material.settings.task.tolerance, classes=report.classes,
    )  # fmt: skip


def _three_charts(document: dict[str, Any], words: Words) -> list[tuple[str, str]]:
    # The legend has the whole name; there is no room for it beside a whisker.
    short, found = str(document["verdict"]["compared"]).split(" theta", maxsplit=1)[0], []
    for one in document["figures"]:
        if "plain_before" not in one:
            continue
        regression = document["task"] == "regression"
        whiskers = []
        for who, style, label in (("plain", "plain", words.say("chart.plain")), ("chosen", "chosen", short)):
            for key, hollow in ((f"{who}_before", True), (who, False)):
                if regression and hollow:
                    continue
                value = one[key]
                low, high = (v if v is not None else float("nan") for v in (value["low"], value["high"]))
                whiskers.append(Whisker(label, value["value"], low, high, style, hollow))
        title = words.say(f"short-figure.{one['key']}")
        found.append((title, whisker_chart(title, whiskers)))
    return found


def _figure_rows(document: dict[str, Any], words: Words) -> list[dict[str, Any]]:
    """One row a figure: each cell a value and its interval, and whether the difference is one for the better."""
    found = []
    for one in document["figures"]:
        rate = one["key"] in _RATES
        row: dict[str, Any] = {"name": words.say(f"figure.{one['key']}")}
        for key in ("plain_before", "plain", "chosen_before", "chosen"):
            row[key] = _cell(one.get(key), rate)
        row["difference"], row["verdict"] = _difference_cell(one.get("difference"), rate, words)
        found.append(row)
    return found


def _cell(value: dict[str, Any] | None, rate: bool) -> tuple[str, str]:
    if value is None:
        return "", ""
    write = percent if rate else figure
    ends = "" if value["low"] is None else f"{write(value['low'])} – {write(value['high'])}"
    return write(value["value"]), ends


def _difference_cell(value: dict[str, Any] | None, rate: bool, words: Words) -> tuple[tuple[str, str], str]:
    if value is None:
        return ("", ""), ""
    unit = {"en": " points", "ja": " ポイント"}[words.language] if rate else " %"
    text = f"{100 * value['value']:+.1f}{unit}"
    if value["low"] is None:
        return (text, ""), ""
    sign = 1.0 if rate else -1.0
    verdict = "better" if min(sign * value["low"], sign * value["high"]) > 0 else ""
    verdict = "worse" if max(sign * value["low"], sign * value["high"]) < 0 else verdict
    return (text, f"{100 * value['low']:+.1f} – {100 * value['high']:+.1f}"), verdict


def _round_chart(document: dict[str, Any], words: Words) -> str:
    rounds = document["by_round"]
    lines = [Line(key, key, [one[key] for one in rounds]) for key in ("plain", "chosen")]
    places = [float(number) for number in range(1, len(rounds) + 1)]
    return line_chart(words.say("chart.tail"), places, lines, dots=True, x_title=words.say("chart.round"))


def _theta_charts(report: PilotReport, words: Words) -> list[tuple[str, str]]:
    found = []
    for curve in report.sensitivity:
        if len(curve.theta) < 2:
            continue
        base = curve.baseline
        count = len(curve.theta)
        lines = [
            Line("plain", "plain", [base.value] * count, [base.low] * count, [base.high] * count),
            Line(
                "SoftAD", "chosen", [band.value for band in curve.bands], [band.low for band in curve.bands],
                [band.high for band in curve.bands],
            ),
        ]  # fmt: skip
        title = words.say(f"figure.{curve.figure}")
        found.append(
            (title, line_chart(title, curve.theta, lines, log=True, dots=True, x_title=words.say("chart.theta")))
        )
    return found


def _cost_charts(document: dict[str, Any], words: Words) -> list[str]:
    cases = document["costs"]["cases"]
    if not document["costs"]["given"] or not cases:
        return []
    one = cases[0]
    grid, values = one["curve"]
    near = min(range(len(grid)), key=lambda n: abs(grid[n] - one["threshold"]))
    title = words.say("cost.chart")
    return [line_chart(title, grid, [Line("", "chosen", values)], marks=[(grid[near], values[near])], width=680)]


def _place_chart(document: dict[str, Any], words: Words) -> str:
    bars = [
        (f"{one['column']} {one['value']}", one["hard_share"], percent(one["hard_share"])) for one in document["places"]
    ]
    return bar_chart(words.say("hard.share"), bars) if bars else ""


def _thumbnails(document: dict[str, Any], material: Material) -> list[str]:
    if material.pictures is None:
        return []
    from PIL import Image

    found = []
    for one in document["hardest"]:
        with Image.open(io.BytesIO(material.pictures[one["index"]])) as picture:
            small = picture.convert("RGB")
            small.thumbnail((2 * THUMBNAIL, 2 * THUMBNAIL))
            out = io.BytesIO()
            small.save(out, "JPEG", quality=80)
        found.append("data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii"))
    return found


def _candidates(report: PilotReport, document: dict[str, Any], words: Words) -> list[dict[str, str]]:
    recommended = document["verdict"]["best"]
    found = []
    for one in report.candidates:
        if one.diverged:
            word = "diverged"
        elif one is report.candidates[0]:
            word = "baseline"
        elif document["verdict"]["kind"] == "nothing":
            word = "refused"
        else:
            word = "recommended" if one.name == recommended else "refused" if one.refused else "good"
        row = {"name": one.name, "verdict": words.say(f"table.{word}")}
        rate = "balanced_accuracy" if report.classes else "rmse"
        for key in ("mean", "tail", "stability", rate):
            write = percent if key in _RATES else figure
            row[key] = write(one.figures[key].value) if key in one.figures else ""
        tail = one.differences.get("tail")
        row["change"] = percent(tail.value, sign=True) if tail is not None else ""
        row["last"], row["style"] = row[rate], word
        found.append(row)
    return found
