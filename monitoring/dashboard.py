"""The page: one static file that shows a manager three figures, and the shift what waits for it.

Both languages are in the file and a switch changes between them; it needs no network, and no script to be read.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from monitoring.early_warning import track_record
from monitoring.hard_errors import together
from monitoring.input_warnings import input_sentence
from monitoring.ordinary import PRIOR, step
from monitoring.page_charts import (
    FEW,
    HARDEST,
    budget_chart,
    carried_chart,
    figure_chart,
    hard_chart,
    map_chart,
    scan_chart,
    zoom_series,
)
from monitoring.page_data import PageData, Reason, VersionLine, WindowPoint
from monitoring.page_words import answer_words, both, column_name, in_languages, range_words
from monitoring.words import LANGUAGES, words

FIGURES = ("mean", "tail", "stability")
"""The three figures: normal cases, hard cases, stability."""

EARLY_LINES = 12
"""So many windows with what was told of them before their labels are shown; the record counts all."""


def write_page(data: PageData, folder: Path, language: str = "en") -> Path:
    """Write `index.html` for one model, and the plot bundle beside the models' folders.

    Parameters
    ----------
    folder: of this model; `../shared/plotly.min.js` is put beside it once.
    language: shown first; the reader can switch.

    Returns
    -------
    The page's path.
    """
    _bundle(folder.parent / "shared")
    return _write(folder / "index.html", render_page(data, language))


def write_index(models: Sequence[str], folder: Path, language: str = "en") -> Path:
    """Write the list of models, each a link to its page."""
    links = Markup("").join(Markup('<li><a href="{0}/index.html">{0}</a></li>').format(name) for name in models)
    text = Markup(
        '<!doctype html><html lang="{0}"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1"><title>softad</title></head><body><main><h1>{1}</h1><ul>{2}</ul>'
        "</main></body></html>"
    ).format(language, words("page", language)["models"], links)
    return _write(folder / "index.html", str(text))


def render_page(data: PageData, language: str = "en") -> str:
    """The page as text.

    >>> from datetime import UTC
    >>> "no model yet" in render_page(PageData("line-a", datetime(2026, 4, 6, tzinfo=UTC)))
    True
    """
    points, points_early = list(data.points), list(data.early)
    template = _environment().get_template("page.html.j2")
    return template.render(
        data=data,
        language=language,
        languages=LANGUAGES,
        title=words("page", language)["title"].format(model=data.model),
        at=_moment(data.written_at),
        cards=[_card(name, points, data.ordinary) for name in FIGURES],
        scan_charts=[("wide", scan_chart(points, 1000)), ("slim", scan_chart(points, 340))],
        zoom=zoom_series(points),
        map_chart=map_chart(data.map) if data.map is not None else None,
        carried_chart=carried_chart(data.carried) if data.carried is not None else None,
        hardest=[(share, *data.carried.hardest(share)) for share in HARDEST] if data.carried is not None else [],
        hard=_hard(points),
        lives=max(round(1 / data.budget.allowed), 1),
        budget_chart=budget_chart(data.budget),
        t=both,
        percent=_percent,
        signed=_signed,
        points=_points,
        width=lambda share: round(min(max(share, 0.0), 1.0) * 100),
        number=lambda value, digits: "" if value is None else f"{value:.{digits}f}",
        day=lambda at: f"{at:%Y-%m-%d}" if at is not None else "–",
        moment=_moment,
        action=_action,
        reason=_reason,
        record=track_record((one.shown, one.changed) for one in points_early if one.changed is not None),
        early=list(reversed(points_early))[:EARLY_LINES],
        sentence=in_languages,
        column=column_name,
        range_words=range_words,
        answer_words=answer_words,
        few=FEW,
        words_of=lambda key: {language: words("page", language)[key] for language in LANGUAGES},
        parts=_parts,
        inputs={language: input_sentence(data.inputs, language) for language in LANGUAGES},
    )


def _card(name: str, points: list[WindowPoint], ordinary: Mapping[str, float]) -> dict[str, Any]:
    """One of the three figures: its value, the step from the window before, and whether ordinary weeks explain it."""
    known = [point for point in points if getattr(point, name) is not None]
    values = [float(getattr(point, name)) for point in known]
    erm = [getattr(point, f"erm_{name}") for point in points]
    trend, change = None, ""
    if len(known) > 1:
        between = ordinary[name] if name in ordinary else PRIOR * abs(values[-2])
        before, now = (
            (value, point.errors.get(name, 0.0)) for value, point in zip(values[-2:], known[-2:], strict=True)
        )
        trend = step(now, before, between)
        if values[-2]:
            change = _whole((values[-1] - values[-2]) / abs(values[-2]))
    last_erm = next((value for value in reversed(erm) if value is not None), None)
    return {
        "name": name, "value": values[-1] if values else None, "trend": trend, "change": change, "erm": last_erm,
        "window": known[-1].window if known else "", "chart": figure_chart(name, points),
    }  # fmt: skip


def _whole(change: float) -> str:
    """A relative change in whole percents.

    >>> _whole(0.074), _whole(-0.2), _whole(0.001)
    ('+7 %', '−20 %', '0 %')
    """
    text = f"{change * 100:+.0f} %".replace("-", "−")
    return "0 %" if text[1:] == "0 %" else text


def _hard(points: list[WindowPoint]) -> dict[str, Any] | None:
    """The chart of the errors on hard parts, and what they say of all windows that both models judged."""
    known = [point for point in points if point.hard is not None]
    if not known:
        return None
    both_judged = [point.hard for point in known if point.hard is not None and point.hard.plain_errors is not None]
    found = together(both_judged)
    meaning = None
    if found is not None:
        _, low, high = found.difference
        meaning = "same" if low <= 0.0 <= high else ("lower" if high < 0.0 else "higher")
    return {
        "charts": [("wide", hard_chart(points, 1000)), ("slim", hard_chart(points, 340))], "newest": known[-1],
        "found": found, "windows": len(both_judged), "meaning": meaning,
    }  # fmt: skip


def _points(share: float) -> str:
    """A difference of two shares in points.

    >>> _points(-0.0123), _points(0.0)
    ('−1.2', '0.0')
    """
    text = f"{share * 100:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


def _action(name: str) -> Markup | str:
    return both(f"action.{name}") if f"action.{name}" in words("page", "en") else name


def _reason(one: Reason) -> Markup | str:
    """Why rows are in quarantine, in words where the catalogue has some."""
    if f"reason.{one.kind}" in words("page", "en"):
        return both(f"reason.{one.kind}", column=column_name(one.column))
    return one.kind


def _parts(versions: Sequence[VersionLine]) -> str:
    return "; ".join(f"{one.version}: {one.rows:,}, {one.mean:.3f} / {one.tail:.3f}" for one in versions)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.0f} %"


def _signed(change: float) -> str:
    text = f"{change * 100:+.1f} %".replace("-", "−")
    return "0.0 %" if text[1:] == "0.0 %" else text


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"


@cache
def _environment() -> Environment:
    return Environment(loader=PackageLoader("monitoring"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def _bundle(folder: Path) -> None:
    target = folder / "plotly.min.js"
    if target.exists():
        return
    # Found without importing the package, which takes a second.
    found = importlib.util.find_spec("plotly")
    if found is None or found.origin is None:
        raise FileNotFoundError("the package plotly, whose script belongs beside the page, is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".plotly.{os.getpid()}.part"
    shutil.copyfile(Path(found.origin).parent / "package_data" / "plotly.min.js", part)
    part.replace(target)


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return path
