"""Line charts as inline SVG: readable without a script, without colour, and on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

HEIGHT = 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 20, 14, 26


@dataclass(frozen=True)
class Series:
    """One line: `style` is a class of the page's style sheet, values may have gaps."""

    style: str
    values: Sequence[float | None]


def line_chart(
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    alarms: Sequence[bool] = (),
    promotions: Sequence[bool] = (),
    labelled_by: str = "",
    width: int = 1000,
) -> str:
    """An SVG of one or more lines over the windows, with marks for alarms (triangle) and promotions (diamond).

    Parameters
    ----------
    labels: (n,) names of the windows.
    series: each with (n,) values.
    alarms, promotions: (n,) where marks stand.
    labelled_by: id of the element that names the picture for a screen reader.
    width: of the drawing, to a height of 200; text keeps its size where the picture is shown about so wide.

    >>> line_chart(["1", "2"], [Series("a", [1.0, 2.0])]).startswith("<svg")
    True
    """
    values = [value for line in series for value in line.values if value is not None]
    top = max(values, default=1.0) * 1.08 or 1.0
    low = min(0.0, *values) if values else 0.0

    def x(place: int) -> float:
        return _LEFT + (width - _LEFT - _RIGHT) * (place / max(len(labels) - 1, 1) if len(labels) > 1 else 0.5)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (value - low) / (top - low)

    name = f' aria-labelledby="{escape(labelled_by)}"' if labelled_by else ' aria-hidden="true"'
    parts = [f'<svg class="chart" viewBox="0 0 {width} {HEIGHT}" role="img"{name}>']
    for share in (0.0, 0.5, 1.0):
        height, value = y(low + (top - low) * share), low + (top - low) * share
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 5}" y="{height + 4:.1f}" text-anchor="end">{value:.2g}</text>')
    step = max(round(len(labels) * 60 / width), 1)
    for place in range(0, len(labels), step):
        parts.append(
            f'<text class="tick" x="{x(place):.1f}" y="{HEIGHT - 8}" text-anchor="middle">'
            f"{escape(labels[place].split('-')[-1])}</text>"
        )
    for line in series:
        parts.append(f'<path class="line {escape(line.style)}" d="{_path(line.values, x, y)}"/>')
        if sum(value is not None for value in line.values) == 1:
            place, value = next((place, value) for place, value in enumerate(line.values) if value is not None)
            parts.append(f'<circle class="dot {escape(line.style)}" cx="{x(place):.1f}" cy="{y(value):.1f}" r="3"/>')
    for flags, style, shape in (
        (alarms, "alarm", "M0,-11 L6,0 L-6,0 Z"),
        (promotions, "promotion", "M0,-12 L5,-6 L0,0 L-5,-6 Z"),
    ):
        for place, flag in enumerate(flags):
            if flag:
                parts.append(
                    f'<path class="{style}" transform="translate({x(place):.1f},{HEIGHT - _BOTTOM})" d="{shape}"/>'
                )
    return "".join([*parts, "</svg>"])


def _path(values: Sequence[float | None], x: object, y: object) -> str:
    steps, pen_down = [], False
    for place, value in enumerate(values):
        if value is None:
            pen_down = False
            continue
        steps.append(f"{'L' if pen_down else 'M'}{x(place):.1f},{y(value):.1f}")  # type: ignore[operator]
        pen_down = True
    return " ".join(steps)
