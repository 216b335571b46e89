"""Forecast errors as a picture: a dot and its interval per place and head; the same figures give the same SVG."""

from __future__ import annotations

from html import escape
from typing import Any

HEADS = (
    ("shipped", "#a9b4b8"),
    ("fleet", "#7aa43b"),
    ("fleet and own", "#1b6f8a"),
    ("deployed", "#c8553d"),
)
"""Forecast and colour."""
LOW, HIGH, MARKS = 0.4, 1.6, (0.4, 0.6, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6)
_LEFT, _WIDTH, _LINE, _GAP, _TOP = 190, 640, 12, 14, 64


def forecast_chart(report: dict[str, Any], hours: int = 24) -> str:
    """Draw the ratio to the dry-rate average per climate and per site, at one horizon.

    Places without a dry-down window of their own are left out; what lies beyond the axis is drawn at its end.
    """
    places = []
    if "world" in report:
        for group in ("climates", "together"):
            places += [(name, place["windows"]) for name, place in report["world"][group].items()]
    if "measured" in report:
        places += [(name, place["windows"]) for name, place in report["measured"]["sites"].items()]
    told = [(name, windows["dry-down"]) for name, windows in places]
    told = [(name, scores) for name, scores in told if scores["shipped"][str(hours)]]
    step = len(HEADS) * _LINE + _GAP
    bottom = _TOP + len(told) * step
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 40} {bottom + 56}" '
        'font-family="sans-serif" font-size="12" fill="#222" role="img">',
        f"<title>Error of the {hours} h forecast, divided by the dry-rate average's</title>",
        f'<rect width="{_LEFT + _WIDTH + 40}" height="{bottom + 56}" fill="#fff"/>',
    ]
    for index, (label, colour) in enumerate(HEADS):
        left = 12 + index * 150
        parts.append(f'<circle cx="{left + 6}" cy="20" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{left + 18}" y="24">{escape(label)}</text>')
    for mark in MARKS:
        x = _x(mark)
        dashes = "" if mark == 1 else ' stroke-dasharray="2 4"'
        colour = "#222" if mark == 1 else "#bbb"
        parts.append(f'<path d="M{x:.1f} {_TOP - 16}V{bottom}" stroke="{colour}"{dashes}/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{mark:.1f}</text>')
    for row, (name, scores) in enumerate(told):
        top = _TOP + row * step
        middle = top + (len(HEADS) - 1) * _LINE / 2
        parts.append(f'<text x="{_LEFT - 12}" y="{middle + 4:.0f}" text-anchor="end">{escape(name)}</text>')
        for index, (label, colour) in enumerate(HEADS):
            score, y = scores[label][str(hours)], top + index * _LINE
            low, middle_x, high = (_x(score[key]) for key in ("low", "ratio", "high"))
            parts.append(f'<path d="M{low:.1f} {y}H{high:.1f}" stroke="{colour}" stroke-width="2"/>')
            fill = "#fff" if label == "deployed" and not score["deployed"] else colour
            parts.append(f'<circle cx="{middle_x:.1f}" cy="{y}" r="4.5" fill="{fill}" stroke="{colour}"/>')
    parts.append(
        f'<text x="{_LEFT}" y="{bottom + 40}">RMSE divided by that of the free dry-rate average, {hours} h, 95 % '
        "interval; a hollow dot was not deployed</text></svg>"
    )
    return "\n".join(parts) + "\n"


def _x(ratio: float) -> float:
    return _LEFT + (min(max(ratio, LOW), HIGH) - LOW) / (HIGH - LOW) * _WIDTH
