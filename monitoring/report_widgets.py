"""What the report shows beside its numbers: curves and tables of aggregates, as Evidently's widgets.

No row is ever part of a widget: a curve has at most `POINTS` points, each a sum over at least `LEAST_ROWS` rows more
than the one before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from evidently.legacy.model.widget import BaseWidgetInfo
from evidently.legacy.renderers.html_widgets import CounterData, counter, plotly_data, table_data
from numpy.typing import ArrayLike

from monitoring.slice_statistics import Floats

POINTS = 60
LEAST_ROWS = 5
_WINDOW, _REFERENCE = "#b3261e", "#55606d"


def concentration_curve(losses: Floats) -> tuple[Floats, Floats]:
    """Which share of the whole loss the worst rows carry.

    Parameters
    ----------
    losses: shape (n,), at least 0.

    Returns
    -------
    shares of rows from 0 to 1, the worst first, and the shares of the loss; both of shape (p,), p at most `POINTS`.

    >>> rows, share = concentration_curve(np.repeat([0.0, 9.0], [90, 10]))
    >>> float(np.interp(0.1, rows, share)), float(np.interp(0.05, rows, share))
    (1.0, 0.5)
    """
    count = losses.size
    total = float(losses.sum())
    if count == 0 or total <= 0.0:
        return np.array([0.0, 1.0]), np.array([0.0, 1.0])
    # Finer where the curve bends: among the worst rows.
    wanted = np.linspace(0.0, 1.0, POINTS) ** 2 * count
    places = np.unique(np.round(wanted).astype(np.int64))
    kept = [0]
    for place in places.tolist():
        if place - kept[-1] >= LEAST_ROWS and count - place >= LEAST_ROWS:
            kept.append(place)
    at = np.array([*kept, count])
    carried = np.append(0.0, np.cumsum(np.sort(losses)[::-1]))
    share: Floats = carried[at] / total
    return at / count, share


def concentration_plot(now: Floats, then: Floats | None) -> BaseWidgetInfo:
    """The curves of window and reference in one picture."""
    curves = [("this window", now, _WINDOW, "solid")]
    if then is not None:
        curves.append(("reference", then, _REFERENCE, "dash"))
    data: list[dict[str, Any]] = []
    for name, losses, colour, dash in curves:
        rows, share = concentration_curve(losses)
        data.append({
            "type": "scatter", "mode": "lines", "name": name, "x": _short(rows), "y": _short(share),
            "line": {"color": colour, "dash": dash},
        })  # fmt: skip
    layout = {
        "xaxis": {"title": {"text": "share of the rows, the worst first"}, "tickformat": ".0%", "range": [0, 1]},
        "yaxis": {"title": {"text": "share of the whole loss"}, "tickformat": ".0%", "range": [0, 1.02]},
        "legend": {"orientation": "h", "y": 1.12},
    }
    return plotly_data(title="How far the loss sits in few rows", data=data, layout=layout)


def reading_plot(windows: Sequence[str], readings: Sequence[float | None], limits: Sequence[float | None]) -> Any:
    """The scan's statistic against its threshold, window by window; `windows`, `readings` and `limits` are (k,)."""
    names = [str(each) for each in windows]
    data = [
        {"type": "scatter", "mode": "lines+markers", "name": "statistic", "x": names, "y": list(readings),
         "line": {"color": _WINDOW}},
        {"type": "scatter", "mode": "lines", "name": "threshold", "x": names, "y": list(limits),
         "line": {"color": _REFERENCE, "dash": "dash"}},
    ]  # fmt: skip
    layout = {"xaxis": {"type": "category"}, "legend": {"orientation": "h", "y": 1.12}}
    return plotly_data(title="The scan's statistic and its threshold", data=data, layout=layout)


def share_bars(title: str, places: Sequence[Any], now: ArrayLike, then: ArrayLike) -> BaseWidgetInfo:
    """Shares of the rows at `places`, numbers or names of shape (k,), of window and reference side by side."""
    data = [
        {
            "type": "bar",
            "name": name,
            "x": _plain(places),
            "y": _short(np.asarray(shares, dtype=np.float64)),
            "marker": {"color": colour},
        }
        for name, shares, colour in (("this window", now, _WINDOW), ("reference", then, _REFERENCE))
    ]
    layout = {
        "xaxis": {"title": {"text": title}, "type": "linear" if isinstance(places, np.ndarray) else "category"},
        "yaxis": {"title": {"text": "share of the rows"}, "tickformat": ".0%"},
        "legend": {"orientation": "h", "y": 1.12},
    }
    return plotly_data(title="", data=data, layout=layout)


def counters(title: str, cells: Mapping[str, str]) -> BaseWidgetInfo:
    """Numbers side by side, each with its name."""
    return counter(title=title, counters=[CounterData(name, value) for name, value in cells.items()])


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> BaseWidgetInfo:
    """A table of texts."""
    return table_data(title=title, column_names=list(columns), data=[list(row) for row in rows])


def without_markup(page: str) -> str:
    """The page with its data so written that no value in them can end the script that they stand in.

    Evidently writes the data as JSON into a script as they are: a category called ``</script>`` would end it.

    >>> page = '<script>\\n    var a = {"v": "</script><b>"};\\n    var b = {};\\n</script>\\n</head>'
    >>> without_markup(page).count("</script>")
    1
    """
    start = page.index("<script>\n    var ") + len("<script>")
    # JSON knows no line break inside a value, so this is the script's own end.
    end = page.index(";\n</script>", start)
    return page[:start] + page[start:end].replace("</", "<\\/").replace("<!--", "<\\!--") + page[end:]


def _plain(places: Sequence[Any]) -> list[Any]:
    return [float(f"{each:.6g}") for each in places] if isinstance(places, np.ndarray) else list(places)


def _short(values: Floats) -> list[float]:
    return [round(float(each), 4) for each in values]
