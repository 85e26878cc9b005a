"""The card of a model version as one HTML page: no network, one picture as SVG, made for paper and phone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from html import escape
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from flows.pilot_charts import axis_ticks
from monitoring.notes import gate_sentence
from monitoring.words import words

FIGURES = ("mean", "tail", "stability")
SHOWN_SLICES = 30
"""So many slices are in the picture; all are in the table."""


def render_card(document: dict[str, Any], language: str = "en") -> str:
    """The page as text.

    Parameters
    ----------
    document: of `flows.card.card_of`.
    language: "en" or "ja".
    """
    texts = words("card", language)
    measured = [one for one in document["slices"] if one["mean"] is not None]
    gates = document["gates"]

    def called(column: str) -> str:
        return words("alerts", language).get(f"words.columns.{column}", column)

    template = _environment().get_template("card.html.j2")
    return template.render(
        d=document, w=texts, language=language, say=lambda key, **values: texts[key].format(**values),
        figures=_figures(document), fig=number, percent=percent, day=_day, moment=_moment,
        chart=slice_chart(measured[:SHOWN_SLICES], texts["slices.title"], called) if measured else "",
        gates=[] if gates is None else [(gate, gate_sentence(gate, language)) for gate in gates["gates"]],
        column=called,
        few=[one for one in document["slices"] if one["mean"] is None],
        rare=_rare(document),
    )  # fmt: skip


def slice_chart(
    slices: Sequence[dict[str, Any]], title: str, called: Callable[[str], str] = str, width: int = 680
) -> str:
    """Mean error of each slice: a dot with its interval for the model, a ring for the reference.

    Parameters
    ----------
    slices: of `flows.card.slice_figures`, those with figures.
    called: what people call a column.

    >>> one = {"column": "machine", "value": "<M1>", "mean": 0.2, "low": 0.1, "high": 0.3, "reference": 0.25}
    >>> picture = slice_chart([one], "by slice")
    >>> picture.count("<circle"), "&lt;M1&gt;" in picture
    (2, True)
    """
    left, right, top, step = 190, 20, 8, 24
    height = top + step * len(slices) + 26
    most = max((max(one["high"], one["reference"] or 0.0) for one in slices), default=1.0) or 1.0
    ticks = axis_ticks(0.0, most * 1.02)

    def x(value: float) -> float:
        return left + (width - left - right) * min(max(value, 0.0), ticks[-1]) / ticks[-1]

    parts = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title, quote=True)}">']
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top}" y2="{height - 24}"/>')
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{height - 8}" text-anchor="middle">{tick:.4g}</text>')
    for place, one in enumerate(slices):
        y, name = top + step * (place + 0.5), f"{called(one['column'])} {one['value']}"
        cut = name if len(name) <= 26 else name[:25] + "…"
        parts.append(f'<text class="name" x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(cut)}</text>')
        parts.append(f'<line class="bar" x1="{x(one["low"]):.1f}" x2="{x(one["high"]):.1f}" y1="{y}" y2="{y}"/>')
        if one["reference"] is not None:
            parts.append(f'<circle class="ring" cx="{x(one["reference"]):.1f}" cy="{y}" r="6"/>')
        parts.append(f'<circle class="dot" cx="{x(one["mean"]):.1f}" cy="{y}" r="4"/>')
    return "".join([*parts, "</svg>"])


def number(value: float | None) -> str:
    """Three significant digits, never in powers of ten unless it is very small.

    >>> number(0.123456), number(1234.5), number(None), number(2e-7)
    ('0.123', '1,234', '–', '2e-07')
    """
    if value is None:
        return "–"
    if value and abs(value) < 1e-4:
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{float(f'{value:.3g}'):,.10g}"


def percent(value: float | None, *, sign: bool = False) -> str:
    """A share as percent.

    >>> percent(0.1234), percent(-0.05, sign=True), percent(-0.0001, sign=True), percent(None)
    ('12.3 %', '-5.0 %', '0.0 %', '–')
    """
    if value is None:
        return "–"
    text = f"{100 * value:{'+' if sign else ''}.1f} %"
    return text.lstrip("+-") if abs(value) < 0.0005 else text


def _figures(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The three figures of the model, of the reference, and what changed between them."""
    found = document["figures"]
    return [
        {"name": name, "model": found["model"][name], "reference": found["reference"][name],
         "change": found["change"].get(name)}
        for name in FIGURES
    ]  # fmt: skip


def _rare(document: dict[str, Any]) -> list[str]:
    """Classes that fewer rows than that of all that was read speak for."""
    classes = document["task"]["classes"] or []
    return [name for name in classes if document["data"]["labels"].get(name, 0) < document["fewest_rows"]]


def _day(at: datetime | None) -> str:
    return "–" if at is None else f"{at:%Y-%m-%d}"


def _moment(at: datetime | None) -> str:
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M} UTC"


@cache
def _environment() -> Environment:
    return Environment(loader=PackageLoader("flows"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
