"""Charts as inline SVG: readable without a script, without colour, and on paper."""

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
    percent: bool = False,
) -> str:
    """An SVG of one or more lines over the windows, with marks for alarms (triangle) and promotions (diamond).

    Parameters
    ----------
    labels: (n,) names of the windows.
    series: each with (n,) values.
    alarms, promotions: (n,) where marks stand.
    labelled_by: id of the element that names the picture for a screen reader.
    width: of the drawing, to a height of 200; text keeps its size where the picture is shown about so wide.
    percent: values are shares.

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

    parts = [_open(width, HEIGHT, labelled_by)]
    for share in (0.0, 0.5, 1.0):
        height, value = y(low + (top - low) * share), low + (top - low) * share
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        shown = f"{value * 100:.0f} %" if percent else f"{value:.2g}"
        parts.append(f'<text class="tick" x="{_LEFT - 5}" y="{height + 4:.1f}" text-anchor="end">{shown}</text>')
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


def curve_chart(
    xs: Sequence[float], series: Sequence[Series], *, x_title: str, labelled_by: str = "", width: int = 340
) -> str:
    """Lines over shares from 0 to 1 both ways, with the diagonal on which all rows would carry the same.

    Parameters
    ----------
    xs: (n,) shares, ascending.
    series: each with (n,) shares.
    x_title: SVG or text, already escaped, under the picture.

    >>> curve_chart([0.0, 1.0], [Series("now", [0.0, 1.0])], x_title="parts").count("<path")
    2
    """
    height, bottom = 260, 44

    def x(share: float) -> float:
        return _LEFT + (width - _LEFT - _RIGHT) * share

    def y(share: float) -> float:
        return height - bottom - (height - _TOP - bottom) * share

    parts = [_open(width, height, labelled_by)]
    for share in (0.0, 0.5, 1.0):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{x(1):.0f}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 5}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>')
        parts.append(f'<text class="tick" x="{x(share):.1f}" y="{height - 26}" text-anchor="middle">{share:.0%}</text>')
    parts.append(f'<text class="tick" x="{x(0.5):.1f}" y="{height - 8}" text-anchor="middle">{x_title}</text>')
    parts.append(f'<path class="even" d="M{x(0):.1f},{y(0):.1f} L{x(1):.1f},{y(1):.1f}"/>')
    for line in series:
        steps = [f"{x(a):.1f},{y(b or 0.0):.1f}" for a, b in zip(xs, line.values, strict=True)]
        parts.append(f'<path class="line {escape(line.style)}" d="M{" L".join(steps)}"/>')
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True)
class Square:
    """One field of a heat map.

    Attributes
    ----------
    row, column: its place.
    text: what it says; the shade says the same once more.
    level: of the shade, 0 (none) to 5; -1 where there are too few rows for one.
    """

    row: int
    column: int
    text: str
    level: int


def heat_map(
    rows: Sequence[str], columns: Sequence[str], squares: Sequence[Square], *, labelled_by: str = "", most: int = 14
) -> str:
    """Fields with a number each, shaded; rows and columns are named.

    Parameters
    ----------
    most: letters of a name that are shown; a name of Japanese letters has room for half as many.

    >>> picture = heat_map(["M1", "M2"], ["L1"], [Square(0, 0, "12 %", 1)])
    >>> picture.count("<rect"), "12 %" in picture
    (1, True)
    """
    names = [_cut(name, most) for name in rows]
    left = 14 + 8 * max((_wide(name) for name in names), default=0)
    across = max(72, 14 + 8 * max((_wide(_cut(name, most)) for name in columns), default=0))
    high, top = 28, 26 if any(columns) else 4
    width, height = left + across * len(columns) + 4, top + high * len(rows) + 4
    parts = [_open(width, height, labelled_by, style="map", limit=True)]
    for number, name in enumerate(columns):
        parts.append(
            f'<text class="name" x="{left + across * (number + 0.5):.1f}" y="17" text-anchor="middle">'
            f"{escape(_cut(name, most))}</text>"
        )
    for number, name in enumerate(names):
        parts.append(
            f'<text class="name" x="{left - 8}" y="{top + high * (number + 0.5) + 5:.1f}" text-anchor="end">'
            f"{escape(name)}</text>"
        )
    for one in squares:
        x, y = left + across * one.column, top + high * one.row
        style = f"h{one.level}" if one.level >= 0 else "few"
        parts.append(f'<rect class="{style}" x="{x + 1}" y="{y + 1}" width="{across - 2}" height="{high - 2}"/>')
        parts.append(
            f'<text class="cell {style}" x="{x + across / 2:.1f}" y="{y + high / 2 + 5:.1f}" text-anchor="middle">'
            f"{escape(one.text)}</text>"
        )
    return "".join([*parts, "</svg>"])


def bars(lines: Sequence[tuple[str, float, str]], *, labelled_by: str = "", width: int = 340) -> str:
    """Shares of a whole as bars in a frame, one below the other, each with its name above.

    Parameters
    ----------
    lines: a name (SVG or text, already escaped), a share from 0 to 1, and the text at its end.

    >>> bars([("used", 0.2, "20 %")]).count("<rect")
    2
    """
    high, room = 46, 64
    parts = [_open(width, high * len(lines), labelled_by)]
    for number, (name, share, text) in enumerate(lines):
        top, full = high * number, width - room
        parts.append(f'<text class="tick" x="0" y="{top + 14}">{name}</text>')
        parts.append(f'<rect class="frame" x="0.5" y="{top + 20.5}" width="{full}" height="16"/>')
        parts.append(f'<rect class="full" x="0.5" y="{top + 20.5}" width="{full * share:.1f}" height="16"/>')
        parts.append(f'<text class="name" x="{full + 8}" y="{top + 34}">{escape(text)}</text>')
    return "".join([*parts, "</svg>"])


def _open(width: float, height: float, labelled_by: str, *, style: str = "chart", limit: bool = False) -> str:
    name = f' aria-labelledby="{escape(labelled_by)}"' if labelled_by else ' aria-hidden="true"'
    size = f' width="{width:.0f}" height="{height:.0f}"' if limit else ""
    return f'<svg class="{style}" viewBox="0 0 {width:.0f} {height:.0f}"{size} role="img"{name}>'


def _wide(text: str) -> int:
    """Widths of a Latin letter that a text takes.

    >>> _wide("M07"), _wide("機械")
    (3, 4)
    """
    return sum(1 if character.isascii() else 2 for character in text)


def _cut(text: str, most: int) -> str:
    """A text that is at most so wide.

    >>> _cut("polishing-machine-7", 14), _cut("M07", 14)
    ('polishing-mac…', 'M07')
    """
    if _wide(text) <= most:
        return text
    while _wide(text) > most - 1:
        text = text[:-1]
    return text + "…"
