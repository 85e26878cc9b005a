"""The pictures of the page, from what it shows."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from monitoring.charts import Series, Square, bars, curve_chart, heat_map, line_chart
from monitoring.page_data import LORENZ_AT, Budget, Carried, WindowPoint
from monitoring.places_map import Cell, PlacesMap
from monitoring.words import LANGUAGES, words

FEW = 20
"""A place with fewer parts has no shade: one part more would change it."""

_SHADES = (0.05, 0.15, 0.3, 0.5, 0.75)

HARDEST = (0.01, 0.05, 0.1, 0.2, 0.4)
"""The shares of the parts whose share of the error stands in the table."""


def figure_chart(name: str, points: Sequence[WindowPoint]) -> Markup:
    """One of the three figures over the windows, beside ordinary training."""
    return _over_windows(
        points,
        [
            Series("erm", [getattr(point, f"erm_{name}") for point in points]),
            Series("champion", [getattr(point, name) for point in points]),
        ],
        labelled_by=f"card-{name}",
        width=340,
    )


def scan_chart(points: Sequence[WindowPoint], width: int) -> Markup:
    """The scan's statistic and threshold over the windows."""
    series = [
        Series("threshold", [point.threshold for point in points]),
        Series("statistic", [point.statistic for point in points]),
    ]
    return _over_windows(points, series, labelled_by="concentration", width=width)


def hard_chart(points: Sequence[WindowPoint], width: int) -> Markup:
    """The share of hard parts that is misjudged over the windows, beside ordinary training."""
    known = [point.hard for point in points]
    plain = [None if one is None or one.plain_errors is None else one.plain_errors / one.rows for one in known]
    own = [None if one is None else one.errors / one.rows for one in known]
    return _over_windows(
        points, [Series("erm", plain), Series("champion", own)], labelled_by="hard", width=width, percent=True
    )


def budget_chart(budget: Budget) -> Markup:
    """How much of the alarm budget is used, and how much of the life has passed: two bars of the same length.

    >>> "20 %" in budget_chart(Budget(0.05, 52, 13, 0.01))
    True
    """
    lines = [
        (str(_spans("concentration.used")), budget.used, f"{budget.used * 100:.0f} %"),
        (str(_spans("concentration.passed")), budget.passed, f"{budget.windows} / {budget.horizon}"),
    ]
    return Markup(bars(lines, labelled_by="budget"))  # noqa: S704


def map_chart(found: PlacesMap) -> Markup:
    """The share of hard parts of each place.

    >>> one = PlacesMap(["machine"], [Cell("M1", "", 40, 10, 20, 2), Cell("M2", "", 3, 1, 0, 0)])
    >>> "25 %" in map_chart(one), "1 / 3" in map_chart(one)
    (True, True)
    """
    down, across = found.down, found.across
    squares = [Square(down.index(one.down), across.index(one.across), _field(one), _shade(one)) for one in found.cells]
    return Markup(heat_map(down, across, squares, labelled_by="map"))  # noqa: S704


def carried_chart(found: Carried, width: int = 340) -> Markup:
    """The Lorenz curves of the reference and of the newest window."""
    series = [Series("erm", found.before), Series("champion", found.now)]
    return Markup(  # noqa: S704
        curve_chart(LORENZ_AT, series, x_title=str(_spans("carried.axis")), labelled_by="carried", width=width)
    )


def zoom_series(points: Sequence[WindowPoint]) -> str:
    """What the chart to zoom into draws, as JSON."""
    wanted = [
        ("statistic", "{legend.statistic}", "solid"),
        ("threshold", "{legend.threshold}", "dash"),
        ("tail", "{figures.tail}", "solid"),
        ("erm_tail", "{figures.tail} ({legend.erm})", "dash"),
        ("mean", "{figures.mean}", "solid"),
        ("stability", "{figures.stability}", "solid"),
    ]
    names = [point.window for point in points]
    series: list[dict[str, Any]] = [
        {
            "name": {language: _filled(label, language) for language in LANGUAGES},
            "dash": dash, "x": names, "y": [getattr(point, name) for point in points],
        }
        for name, label, dash in wanted
    ]  # fmt: skip
    return json.dumps(series)


def _over_windows(points: Sequence[WindowPoint], series: list[Series], **options: Any) -> Markup:
    return Markup(  # noqa: S704
        line_chart(
            [point.window for point in points], series, alarms=[point.alarm for point in points],
            promotions=[point.promoted for point in points], **options,
        )
    )  # fmt: skip


def _field(cell: Cell) -> str:
    return f"{cell.hard} / {cell.rows}" if cell.rows < FEW else f"{cell.share * 100:.0f} %"


def _shade(cell: Cell) -> int:
    return -1 if cell.rows < FEW else sum(cell.share >= edge for edge in _SHADES)


def _spans(key: str) -> Markup:
    """A phrase in all languages, as SVG has it."""
    span = Markup('<tspan class="{0}" lang="{0}">{1}</tspan>')
    return Markup("").join(span.format(language, words("page", language)[key]) for language in LANGUAGES)


def _filled(label: str, language: str) -> str:
    text = words("page", language)
    return re.sub(r"\{(.*?)\}", lambda found: text[found[1]], label)
