"""The pictures of the pilot report as inline SVG: no script, readable in print and without colour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np


@dataclass(frozen=True)
class Whisker:
    """One value with its interval: `style` is "plain" or "chosen", open where it is from before calibration."""

    label: str
    value: float
    low: float
    high: float
    style: str
    hollow: bool = False


@dataclass(frozen=True)
class Line:
    """A line with a band around it, shape (n,) each, or without."""

    label: str
    style: str
    values: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def whisker_chart(title: str, whiskers: Sequence[Whisker], width: int = 330) -> str:
    """Values one below the other with their intervals, on an axis that begins at 0.

    >>> whisker_chart("mean", [Whisker("ERM", 1.0, 0.5, 1.5, "plain")]).startswith("<svg")
    True
    """
    left, right, top, step = 128, 14, 10, 27
    height = top + step * len(whiskers) + 24
    most = max((one.high if np.isfinite(one.high) else one.value for one in whiskers), default=1.0)
    ticks = axis_ticks(0.0, most * 1.02)

    def x(value: float) -> float:
        return left + (width - left - right) * min(max(value, 0.0), ticks[-1]) / (ticks[-1] or 1.0)

    parts = [_open(width, height, title)]
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top}" y2="{height - 22}"/>')
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{height - 8}" text-anchor="middle">{tick:.4g}</text>')
    for number, one in enumerate(whiskers):
        y = top + step * (number + 0.5)
        parts.append(
            f'<text class="name" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(one.label[:20])}</text>'
        )
        if np.isfinite(one.low) and np.isfinite(one.high):
            parts.append(
                f'<line class="bar {one.style}" x1="{x(one.low):.1f}" x2="{x(one.high):.1f}" y1="{y}" y2="{y}"/>'
            )
        kind = "hollow" if one.hollow else "full"
        parts.append(f'<circle class="{kind} {one.style}" cx="{x(one.value):.1f}" cy="{y}" r="5"/>')
    return "".join([*parts, "</svg>"])


def line_chart(
    title: str,
    xs: Sequence[float],
    lines: Sequence[Line],
    *,
    log: bool = False,
    dots: bool = False,
    marks: Sequence[tuple[float, float]] = (),
    x_title: str = "",
    width: int = 330,
    height: int = 220,
) -> str:
    """Lines over `xs`, shape (n,), with bands; `marks` are single points (x, y) that stand out.

    >>> line_chart("t", [1.0, 2.0], [Line("a", "chosen", [1.0, 2.0])]).count("<path")
    1
    """
    left, right, top, bottom = 50, 14, 12, 40
    every = [v for one in lines for v in (*one.values, *one.low, *one.high)] + [y for _, y in marks]
    low, high = (min(every), max(every)) if every else (0.0, 1.0)
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    ticks = [t for t in axis_ticks(low - room, high + room) if low - room <= t <= high + room]
    across = [float(np.log(v)) for v in xs] if log else list(xs)
    first, last = min(across), max(across)

    def x(value: float) -> float:
        place = float(np.log(value)) if log else value
        return left + (width - left - right) * ((place - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return height - bottom - (height - top - bottom) * (value - low + room) / (high - low + 2 * room)

    parts = [_open(width, height, title)]
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 5}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    for value in xs if len(xs) <= 10 else axis_ticks(min(xs), max(xs)):
        if min(xs) <= value <= max(xs):
            parts.append(
                f'<text class="tick" x="{x(value):.1f}" y="{height - 24}" text-anchor="middle">{value:.2g}</text>'
            )
    parts.append(
        f'<text class="tick" x="{(left + width - right) / 2}" y="{height - 8}" text-anchor="middle">'
        f"{escape(x_title)}</text>"
    )
    for one in lines:
        if one.low:
            there = [f"{x(a):.1f},{y(b):.1f}" for a, b in zip(xs, one.high, strict=True)]
            back = [f"{x(a):.1f},{y(b):.1f}" for a, b in zip(xs, one.low, strict=True)]
            parts.append(f'<polygon class="band {one.style}" points="{" ".join([*there, *reversed(back)])}"/>')
    for one in lines:
        parts.append(f'<path class="line {one.style}" d="{_path(xs, one.values, x, y)}"/>')
        if dots:
            parts += [
                f'<circle class="full {one.style}" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3.5"/>'
                for a, b in zip(xs, one.values, strict=True)
            ]
    for place, value in marks:
        parts.append(
            f'<path class="mark" transform="translate({x(place):.1f},{y(value):.1f})" d="M0,-7 L6,0 L0,7 L-6,0 Z"/>'
        )
    return "".join([*parts, "</svg>"])


def bar_chart(title: str, bars: Sequence[tuple[str, float, str]], width: int = 680) -> str:
    """Bars from 0, each a label, a length and the text at its end.

    >>> bar_chart("t", [("a", 1.0, "1"), ("b", 2.0, "2")]).count("<rect")
    2
    """
    left, step = 210, 26
    height = step * len(bars) + 8
    most = max((length for _, length, _ in bars), default=1.0) or 1.0
    parts = [_open(width, height, title)]
    for number, (label, length, text) in enumerate(bars):
        y = step * number + 5
        size = (width - left - 110) * max(length, 0.0) / most
        parts.append(f'<text class="name" x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(label[:32])}</text>')
        parts.append(f'<rect class="chosen" x="{left}" y="{y}" width="{size:.1f}" height="18"/>')
        parts.append(f'<text class="name" x="{left + size + 6:.1f}" y="{y + 14}">{escape(text)}</text>')
    return "".join([*parts, "</svg>"])


def _open(width: int, height: float, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(title, quote=True)}" '
        f'style="max-width:{width * 1.25:.0f}px">'
    )


def axis_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round numbers from at most `low` to at least `high`.

    >>> axis_ticks(0.0, 0.9)
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    span = (high - low) or 1.0
    raw = span / count
    size = 10.0 ** np.floor(np.log10(raw))
    step = float(next(s * size for s in (1.0, 2.0, 2.5, 5.0, 10.0) if s * size >= raw * 0.999))
    start, end = int(np.floor(low / step + 1e-9)), int(np.ceil(high / step - 1e-9))
    return [round(number * step, 12) for number in range(start, end + 1)]


def _path(xs: Sequence[float], ys: Sequence[float], x: Callable[[float], float], y: Callable[[float], float]) -> str:
    return " ".join(f"{'L' if n else 'M'}{x(a):.1f},{y(b):.1f}" for n, (a, b) in enumerate(zip(xs, ys, strict=True)))
