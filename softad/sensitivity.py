"""How the figures depend on theta: curves with bands, and a page that shows them without a network."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Band:
    """A figure's mean over the rounds, and its spread between them: one standard deviation to each side."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SensitivityCurve:
    """One figure against theta, sigma being 1.

    Attributes
    ----------
    figure: its key.
    title: its name for people.
    theta: levels, ascending.
    bands: one for each theta.
    baseline: of ERM.
    auto_theta: the level that ``theta="auto"`` found, on average; None where it was not tried.
    auto: its band.
    """

    figure: str
    title: str
    theta: tuple[float, ...]
    bands: tuple[Band, ...]
    baseline: Band
    auto_theta: float | None = None
    auto: Band | None = None


def sensitivity_curve(
    figure: str,
    title: str,
    by_theta: Mapping[float, Sequence[float]],
    baseline: Sequence[float],
    *,
    auto_theta: float | None = None,
    auto: Sequence[float] | None = None,
) -> SensitivityCurve:
    """The curve of a figure.

    Some rounds judge harder rows than others, for all candidates alike: what the candidates of a round share is taken
    off before the spread is worked out, or it would hide everything else.

    Parameters
    ----------
    by_theta: theta to the figure in each round, shape (rounds,).
    baseline, auto: of ERM, and of ``theta="auto"``, in the same rounds.

    >>> curve = sensitivity_curve("mean", "mean loss", {0.2: [1.0, 3.0], 0.1: [1.1, 3.1]}, [1.2, 3.2])
    >>> curve.theta, [round(band.value, 2) for band in curve.bands], round(curve.bands[0].high, 2)
    ((0.1, 0.2), [2.1, 2.0], 2.1)

    Raises
    ------
    ValueError: the rounds differ in number.
    """
    levels = sorted(by_theta)
    rows = [
        np.asarray(baseline, dtype=np.float64),
        *(np.asarray(by_theta[level], dtype=np.float64) for level in levels),
    ]
    if auto is not None:
        rows.append(np.asarray(auto, dtype=np.float64))
    if len({row.shape for row in rows}) != 1 or rows[0].size == 0:
        raise ValueError(f"by_theta: {sorted({row.size for row in rows})} rounds; allowed: the same number, at least 1")
    values = np.stack(rows)
    own = values - values.mean(axis=0) + values.mean()
    spread = own.std(axis=1, ddof=1) if values.shape[1] > 1 else np.zeros(len(rows))
    bands = [
        Band(float(mean), float(mean - width), float(mean + width))
        for mean, width in zip(values.mean(axis=1), spread, strict=True)
    ]
    return SensitivityCurve(
        figure,
        title,
        tuple(levels),
        tuple(bands[1 : 1 + len(levels)]),
        bands[0],
        auto_theta if auto is not None else None,
        bands[-1] if auto is not None else None,
    )


def sensitivity_figure(curves: Sequence[SensitivityCurve]) -> Figure:
    """The curves side by side, ERM as a line with its band across, ``theta="auto"`` as a mark.

    >>> curve = sensitivity_curve("mean", "mean loss", {0.1: [1.1, 3.1], 0.2: [1.0, 3.0]}, [1.2, 3.2])
    >>> len(sensitivity_figure([curve]).data)
    4
    """
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    columns = min(len(curves), 2) or 1
    figure: Figure = make_subplots(
        rows=-(-len(curves) // columns) or 1,
        cols=columns,
        subplot_titles=[curve.title for curve in curves],
        horizontal_spacing=0.1,
        vertical_spacing=0.16,
    )
    for number, curve in enumerate(curves):
        row, column = divmod(number, columns)
        place = {"row": row + 1, "col": column + 1}
        first = number == 0
        ends = [*curve.theta, *([curve.auto_theta] if curve.auto_theta else [])]
        width = [min(ends), max(ends)]
        base = curve.baseline
        figure.add_trace(_area(width, [base.low] * 2, [base.high] * 2, "rgba(110,110,110,0.18)"), **place)
        figure.add_trace(
            Scatter(
                x=width, y=[base.value] * 2, mode="lines", name="ERM", showlegend=first,
                line={"color": "#555555", "dash": "dash"},
            ),
            **place,
        )  # fmt: skip
        lows, highs = [band.low for band in curve.bands], [band.high for band in curve.bands]
        figure.add_trace(_area(list(curve.theta), lows, highs, "rgba(0,95,160,0.20)"), **place)
        figure.add_trace(
            Scatter(
                x=list(curve.theta), y=[band.value for band in curve.bands], mode="lines+markers", name="SoftAD",
                showlegend=first, line={"color": "#005fa0"},
            ),
            **place,
        )  # fmt: skip
        if curve.auto is not None and curve.auto_theta is not None:
            error = [curve.auto.high - curve.auto.value]
            figure.add_trace(
                Scatter(
                    x=[curve.auto_theta], y=[curve.auto.value], mode="markers", name='SoftAD, theta="auto"',
                    showlegend=first, error_y={"type": "data", "array": error},
                    marker={"color": "#b34700", "symbol": "diamond", "size": 10},
                ),
                **place,
            )  # fmt: skip
        figure.update_xaxes(title_text="theta", type="log", tickvals=list(curve.theta), tickformat=".2g", **place)
    figure.update_layout(
        template="plotly_white", height=340 * (-(-len(curves) // columns) or 1), legend={"orientation": "h", "y": -0.12}
    )
    return figure


def page(title: str, paragraphs: Sequence[str], figure: Figure, table: pd.DataFrame) -> str:
    """One HTML document with everything inside: text, the picture and the table under it."""
    text = "".join(f"<p>{html.escape(paragraph)}</p>\n" for paragraph in paragraphs)
    drawn = figure.to_html(full_html=False, include_plotlyjs=True, config={"displaylogo": False})
    rows = table.to_html(escape=True, border=0, float_format=lambda value: f"{value:.4g}", na_rep="")
    name = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{name}</title>\n'
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}"
        "div.table{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}"
        "th,td{padding:.3rem .6rem;border-bottom:1px solid #ddd;text-align:right}"
        "tbody th{white-space:nowrap}td:last-child{min-width:24rem;text-align:left}</style></head>\n"
        f"<body><h1>{name}</h1>\n{text}{drawn}\n<h2>All candidates</h2>\n"
        f'<div class="table">{rows}</div></body></html>\n'
    )


def _area(x: list[float], low: list[float], high: list[float], colour: str) -> object:
    from plotly.graph_objects import Scatter

    return Scatter(
        x=[*x, *reversed(x)], y=[*high, *reversed(low)], fill="toself", fillcolor=colour, mode="lines",
        line={"width": 0}, hoverinfo="skip", showlegend=False,
    )  # fmt: skip
