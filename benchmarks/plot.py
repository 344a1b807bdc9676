"""Line plots as SVG text, with logarithmic axes: as much as these benchmarks need, and no more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 820, 440
LEFT, RIGHT, TOP, BOTTOM = 76, 280, 40, 52

# Told apart by people who see colours otherwise, too (Okabe and Ito, 2008).
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000")

Points = Sequence[Sequence[float]]


def decades(least: float, most: float) -> list[float]:
    """Return the powers of ten around an interval: at least two."""
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    return [10.0**power for power in range(low, max(high, low + 1) + 1)]


def short(value: float) -> str:
    """Return a number for an axis: ``10k``, ``0.01``."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


class _Axis:
    """Turns values into places, logarithmically."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self.ticks = decades(min(values), max(values))
        self._low, self._high = math.log10(self.ticks[0]), math.log10(self.ticks[-1])
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)


def _text(x: float, y: float, words: str, **attributes: str) -> str:
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{escape(words)}</text>'


def line_plot(title: str, x_name: str, y_name: str, lines: Mapping[str, Points]) -> str:
    """Return an SVG document with a line for each name; points that are not positive are left out.

    Args:
        title: above it.
        x_name: below it.
        y_name: at its side.
        lines: by name, pairs of x and y.

    Raises:
        ValueError: there is no point at all.
    """
    kept = {
        name: sorted((x, y) for x, y in points if x > 0 and y > 0) for name, points in lines.items()
    }
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        raise ValueError("there is nothing to plot")
    every = [point for points in kept.values() for point in points]
    across = _Axis([x for x, _ in every], LEFT, WIDTH - RIGHT)
    up = _Axis([y for _, y in every], HEIGHT - BOTTOM, TOP)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
    parts = [
        f'{head} font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, TOP - 16, title, font_size="14", font_weight="bold"),
    ]
    parts += _grid(across, up)
    middle = (HEIGHT - BOTTOM + TOP) / 2
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_name, text_anchor="middle"))
    turned = f"rotate(-90 18 {middle:.1f})"
    parts.append(_text(18, middle, y_name, text_anchor="middle", transform=turned))
    for index, (name, points) in enumerate(kept.items()):
        parts += _line(index, name, [(across(x), up(y)) for x, y in points])
    return "\n".join([*parts, "</svg>", ""])


def _grid(across: _Axis, up: _Axis) -> list[str]:
    parts = []
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for value in across.ticks:
        x = across(value)
        parts.append(f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="#ddd"/>')
        parts.append(_text(x, bottom + 16, short(value), text_anchor="middle"))
    for value in up.ticks:
        y = up(value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, y + 4, short(value), text_anchor="end"))
    return parts


def _line(index: int, name: str, places: list[tuple[float, float]]) -> list[str]:
    colour = COLOURS[index % len(COLOURS)]
    dashes = "" if index < len(COLOURS) else ' stroke-dasharray="5 3"'
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    parts = [f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>']
    parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
    y = TOP + 10 + 18 * index
    left = WIDTH - RIGHT + 14
    parts.append(f'<path d="M{left} {y}h18" stroke="{colour}" stroke-width="2"{dashes}/>')
    parts.append(_text(left + 24, y + 4, name))
    return parts
