"""Water against relative yield as a picture: a curve per controller; the same report gives the same SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor
from typing import Any, NamedTuple

from noria.evaluation.groups import EVERYWHERE
from noria.evaluation.protocol import MODEL, PHYSICS

COLOURS = {
    "rainfed": "#a9b4b8",
    "calendar": "#8a6d3b",
    "raw VWC": "#c8a2c8",
    "texture, no stop": "#e8b9a9",
    "texture": "#c8553d",
    "soak-anchored": "#e2a03f",
    "FAO-56 station": "#7aa43b",
    "calibrated": "#8c5fa8",
    PHYSICS: "#1b6f8a",
    MODEL: "#4fb3d9",
    "true state": "#555",
    "oracle": "#111",
}
BY_CLIMATE = ("texture", "calibrated", PHYSICS, MODEL, "true state")
"""Controllers of the small panels; more would not be told apart."""
FRAMING = (*BY_CLIMATE[1:], "FAO-56 station", "oracle")
"""Controllers that a panel shows whole; the others are cut at its edge."""
_WIDTH, _COLUMNS = 900, 3
_MAIN_HEIGHT, _SMALL_HEIGHT = 380, 190
_LEFT, _RIGHT, _TOP = 60, 20, 118
_LEGEND_COLUMNS = 5
_LEAST_YIELD_SPAN = 0.02
_MOST_WATER = 1.3
"""Right edge over the thirstiest setting of the framing controllers."""


class _Point(NamedTuple):
    water_mm: float
    relative_yield: float


class _Frame(NamedTuple):
    """A panel: where it is and what it shows."""

    x: float
    y: float
    width: float
    height: float
    least: _Point
    most: _Point

    def place(self, point: _Point) -> tuple[float, float]:
        across = (point.water_mm - self.least.water_mm) / (self.most.water_mm - self.least.water_mm)
        up = (point.relative_yield - self.least.relative_yield) / (self.most.relative_yield - self.least.relative_yield)
        return self.x + across * self.width, self.y + (1 - up) * self.height


def irrigation_chart(report: dict[str, Any]) -> str:
    """Draw a report: all field-years large, each climate small.

    Raises:
        ValueError: a controller that has no colour.
    """
    controllers = report["judge"]["controllers"]
    unknown = {each["name"] for each in controllers} - set(COLOURS)
    if unknown:
        raise ValueError(f"no colour for {', '.join(sorted(unknown))}; add it to COLOURS")
    climates = [name for name in report["protocol"]["climates"] if name in controllers[0]["settings"][0]["scopes"]]
    rows = ceil(len(climates) / _COLUMNS) if len(climates) > 1 else 0
    height = _TOP + _MAIN_HEIGHT + 60 + rows * (_SMALL_HEIGHT + 60)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="12" fill="#222" role="img">',
        "<title>Water against relative yield, one curve per controller</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
        *_legend(controllers),
        *_panel(controllers, EVERYWHERE, (_LEFT, _TOP, _WIDTH - _LEFT - _RIGHT, _MAIN_HEIGHT), ""),
        f'<text x="{_LEFT}" y="{_TOP - 10}">relative yield</text>',
        f'<text x="{_WIDTH - _RIGHT}" y="{_TOP + _MAIN_HEIGHT + 36}" text-anchor="end">'
        "water given, mm a season; a ring is the setting as shipped</text>",
    ]
    few = [each for each in controllers if each["name"] in BY_CLIMATE]
    width = (_WIDTH - _LEFT * _COLUMNS - _RIGHT) / _COLUMNS
    for index, climate in enumerate(climates if rows else ()):
        x = _LEFT + index % _COLUMNS * (width + _LEFT)
        y = _TOP + _MAIN_HEIGHT + 84 + index // _COLUMNS * (_SMALL_HEIGHT + 60)
        parts += _panel(few, climate, (x, y, width, _SMALL_HEIGHT), climate)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend(controllers: Sequence[dict[str, Any]]) -> list[str]:
    parts = []
    for index, controller in enumerate(controllers):
        x, y = 12 + index % _LEGEND_COLUMNS * 176, 16 + index // _LEGEND_COLUMNS * 22
        parts.append(
            f'<path d="M{x} {y + 6}h18" stroke="{COLOURS[controller["name"]]}" {_stroke(controller)}/>'
            f'<text x="{x + 24}" y="{y + 10}">{escape(controller["name"])}</text>'
        )
    return parts


def _panel(
    controllers: Sequence[dict[str, Any]], scope: str, box: tuple[float, float, float, float], title: str
) -> list[str]:
    """Axes, and curves cut at the panel's edge: who wastes water or starves the crop lies outside."""
    curves = {each["name"]: _points(each, scope) for each in controllers}
    frame = _frame(box, [point for name, curve in curves.items() if name in FRAMING for point in curve])
    clip = f"inside-{scope.replace(' ', '-')}"
    x, y, width, height = (f"{value:.1f}" for value in box)
    parts = [
        f'<clipPath id="{clip}"><rect x="{x}" y="{y}" width="{width}" height="{height}"/></clipPath>',
        *_axes(frame, title),
        f'<g clip-path="url(#{clip})">',
    ]
    for controller in controllers:
        colour = COLOURS[controller["name"]]
        places = [frame.place(point) for point in curves[controller["name"]]]
        if len(places) > 1:
            line = " ".join(f"{across:.1f},{down:.1f}" for across, down in places)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" {_stroke(controller)}/>')
        parts += [f'<circle cx="{across:.1f}" cy="{down:.1f}" r="2.6" fill="{colour}"/>' for across, down in places]
        if controller["shipped"] is not None:
            across, down = places[controller["shipped"]]
            parts.append(
                f'<circle cx="{across:.1f}" cy="{down:.1f}" r="6.5" fill="none" stroke="{colour}" stroke-width="2.5"/>'
            )
    return [*parts, "</g>"]


def _points(controller: dict[str, Any], scope: str) -> list[_Point]:
    return [
        _Point(row["scopes"][scope]["water_mm"][0], row["scopes"][scope]["relative_yield"][0])
        for row in controller["settings"]
    ]


def _frame(box: tuple[float, float, float, float], points: Sequence[_Point]) -> _Frame:
    waters, yields = [point.water_mm for point in points], [point.relative_yield for point in points]
    least = max(0.0, 50.0 * floor(min(waters) / 50 - 0.2)), 0.01 * floor(min(yields) * 100)
    most = (
        50.0 * ceil(max(waters) * _MOST_WATER / 50),
        max(0.01 * ceil(max(yields) * 100), least[1] + _LEAST_YIELD_SPAN),
    )
    return _Frame(*box, _Point(*least), _Point(*most))


def _axes(frame: _Frame, title: str) -> list[str]:
    bottom, right = frame.y + frame.height, frame.x + frame.width
    parts = [
        f'<rect x="{frame.x:.1f}" y="{frame.y:.1f}" width="{frame.width:.1f}" height="{frame.height:.1f}" '
        'fill="none" stroke="#bbb"/>',
        f'<text x="{frame.x:.1f}" y="{frame.y - 8:.1f}" font-weight="bold">{escape(title)}</text>',
    ]
    for water in _marks(frame.least.water_mm, frame.most.water_mm, (50, 100, 200, 500), frame.width / 60):
        x, _ = frame.place(_Point(water, frame.least.relative_yield))
        parts.append(f'<path d="M{x:.1f} {frame.y:.1f}V{bottom:.1f}" stroke="#eee"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{water:.0f}</text>')
    for value in _marks(frame.least.relative_yield, frame.most.relative_yield, (0.01, 0.02, 0.05, 0.1, 0.2), 9):
        _, y = frame.place(_Point(frame.least.water_mm, value))
        parts.append(f'<path d="M{frame.x:.1f} {y:.1f}H{right:.1f}" stroke="#eee"/>')
        parts.append(f'<text x="{frame.x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    return parts


def _marks(low: float, high: float, steps: Sequence[float], most: float) -> list[float]:
    step = next((step for step in steps if (high - low) / step <= most), steps[-1])
    return [step * index for index in range(ceil(low / step - 1e-6), floor(high / step + 1e-6) + 1)]


def _stroke(controller: dict[str, Any]) -> str:
    if controller["bound"]:
        return 'stroke-width="2" stroke-dasharray="5 4"'
    return f'stroke-width="{3 if controller["shipped"] is not None else 1.5}"'
