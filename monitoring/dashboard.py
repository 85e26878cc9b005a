"""The page: one static file that shows a manager three figures, and the shift what waits for it.

Both languages are in the file and a switch changes between them; it needs no network, and no script to be read.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from monitoring.charts import Series, line_chart
from monitoring.early_warning import track_record
from monitoring.page_data import PageData, VersionLine, WindowPoint
from monitoring.words import LANGUAGES, words

FIGURES = ("mean", "tail", "stability")
"""The three figures: normal cases, hard cases, stability."""

EARLY_LINES = 12
"""So many windows with what was told of them before their labels are shown; the record counts all."""

_STILL = 0.02


def both(key: str, **values: Any) -> Markup:
    """A phrase in all languages; the page's style shows one. Values are escaped.

    >>> str(both("status.healthy"))
    '<span class="en" lang="en">healthy</span><span class="ja" lang="ja">正常</span>'
    """
    parts = []
    for language in LANGUAGES:
        phrase = Markup(words("page", language)[key]).format(**{name: escape(value) for name, value in values.items()})  # noqa: S704
        parts.append(Markup('<span class="{0}" lang="{0}">{1}</span>').format(language, phrase))
    return Markup("").join(parts)


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
    spent = next((point.budget_spent for point in reversed(points) if point.budget_spent is not None), None)
    template = _environment().get_template("page.html.j2")
    return template.render(
        data=data,
        language=language,
        title=words("page", language)["title"].format(model=data.model),
        at=_moment(data.written_at),
        cards=[_card(name, points) for name in FIGURES],
        scan_charts=[("wide", _scan_chart(points, 1000)), ("slim", _scan_chart(points, 340))],
        zoom=json.dumps(_zoom(points)),
        lives=max(round(1 / data.alarm_budget), 1),
        spent=spent,
        t=both,
        percent=_percent,
        signed=_signed,
        width=lambda share: round(min(max(share, 0.0), 1.0) * 100),
        number=lambda value, digits: "" if value is None else f"{value:.{digits}f}",
        day=lambda at: f"{at:%Y-%m-%d}" if at is not None else "–",
        moment=_moment,
        action=_action,
        record=track_record((one.shown, one.changed) for one in points_early if one.changed is not None),
        early=list(reversed(points_early))[:EARLY_LINES],
        sentence=_sentence,
        parts=_parts,
    )


def _card(name: str, points: list[WindowPoint]) -> dict[str, Any]:
    values = [getattr(point, name) for point in points]
    known = [value for value in values if value is not None]
    erm = [getattr(point, f"erm_{name}") for point in points]
    chart = line_chart(
        [point.window for point in points], [Series("erm", erm), Series("champion", values)],
        alarms=[point.alarm for point in points], promotions=[point.promoted for point in points],
        labelled_by=f"card-{name}", width=340,
    )  # fmt: skip
    trend, change = None, ""
    if len(known) > 1:
        step = known[-1] - known[-2]
        still = abs(step) <= _STILL * abs(known[-2])
        trend = "same" if still else ("worse" if step > 0 else "better")
        if not still and known[-2]:
            change = f"{step / abs(known[-2]):+.0%}".replace("-", "−")
    last_erm = next((value for value in reversed(erm) if value is not None), None)
    return {
        "name": name, "value": known[-1] if known else None, "trend": trend, "change": change, "erm": last_erm,
        "chart": Markup(chart),  # noqa: S704
    }  # fmt: skip


def _scan_chart(points: list[WindowPoint], width: int) -> Markup:
    return Markup(  # noqa: S704
        line_chart(
            [point.window for point in points],
            [
                Series("threshold", [point.threshold for point in points]),
                Series("statistic", [point.statistic for point in points]),
            ],
            alarms=[point.alarm for point in points],
            promotions=[point.promoted for point in points],
            labelled_by="concentration",
            width=width,
        )
    )


def _zoom(points: list[WindowPoint]) -> list[dict[str, Any]]:
    wanted = [
        ("statistic", "{legend.statistic}", "solid"),
        ("threshold", "{legend.threshold}", "dash"),
        ("tail", "{figures.tail}", "solid"),
        ("erm_tail", "{figures.tail} ({legend.erm})", "dash"),
        ("mean", "{figures.mean}", "solid"),
        ("stability", "{figures.stability}", "solid"),
    ]
    names = [point.window for point in points]
    return [
        {
            "name": {language: _filled(label, language) for language in LANGUAGES},
            "dash": dash, "x": names, "y": [getattr(point, name) for point in points],
        }
        for name, label, dash in wanted
    ]  # fmt: skip


def _filled(label: str, language: str) -> str:
    text = words("page", language)
    return re.sub(r"\{(.*?)\}", lambda found: text[found[1]], label)


def _action(name: str) -> Markup | str:
    return both(f"action.{name}") if f"action.{name}" in words("page", "en") else name


def _sentence(words_of: Mapping[str, str]) -> Markup:
    """A sentence that is there in every language."""
    span = Markup('<span class="{0}" lang="{0}">{1}</span>')
    return Markup("").join(span.format(language, words_of[language]) for language in LANGUAGES)


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
