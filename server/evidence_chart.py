"""The gate's evidence as a picture: every site's error before and after; the same evidence gives the same SVG."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from math import ceil, sqrt
from typing import Any, NamedTuple

AFTER_BETTER, AFTER_WORSE, BEFORE = "#1b6f8a", "#c8553d", "#a9b4b8"
_WIDTH, _LEFT, _RIGHT, _TOP, _GAP = 900, 190, 30, 84, 62
_ROW, _NARROW_ROW = 15, 5
_MOST_NAMES = 60
"""Sites that are named beside their row; more have thin rows without names."""
_STEP = 0.05


class _Row(NamedTuple):
    """A site: root mean squared errors over the physics'."""

    site: str
    before: float
    after: float
    note: str


def evidence_chart(evidence: Mapping[str, Any], title: str) -> str:
    """Draw ``server.gate.Evidence`` as JSON holds it: a panel per target, a row per site, worst before on top."""
    held_back, set_aside = evidence.get("held_back", {}), evidence.get("set_aside", {})
    panels = [(target, _rows(target["sites"], held_back, set_aside)) for target in evidence["targets"]]
    panels = [(target, rows) for target, rows in panels if rows]
    values = [value for _, rows in panels for row in rows for value in (row.before, row.after)] or [1.0]
    low = min(_STEP * int(min(values) / _STEP), 1 - _STEP)
    high = max(_STEP * ceil(max(values) / _STEP), 1 + _STEP)
    parts: list[str] = []
    y = float(_TOP)
    for target, rows in panels:
        parts += _panel(target, rows, y, low, high)
        y += _height(rows) + _GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y:.0f}" font-family="sans-serif" '
        'font-size="12" fill="#222" role="img">\n'
        f"<title>{escape(title)}: forecast error per site before and after</title>\n"
        f'<rect width="{_WIDTH}" height="{y:.0f}" fill="#fff"/>\n'
        f'<text x="12" y="20" font-weight="bold">{escape(title)}</text>\n'
        f'<circle cx="18" cy="36" r="4" fill="none" stroke="{BEFORE}" stroke-width="2"/>'
        '<text x="28" y="40">before</text>\n'
        f'<circle cx="90" cy="36" r="4" fill="{AFTER_BETTER}"/><text x="100" y="40">after, less error</text>\n'
        f'<circle cx="220" cy="36" r="4" fill="{AFTER_WORSE}"/><text x="230" y="40">after, more error</text>\n'
        f'<text x="{_WIDTH - _RIGHT}" y="40" text-anchor="end">root mean squared error over the physics&#39;, '
        "out of sample</text>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _rows(sites: Mapping[str, Any], held_back: Mapping[str, str], set_aside: Mapping[str, str]) -> list[_Row]:
    rows = []
    for site, figures in sites.items():
        if figures["windows"] <= 0 or figures["physics"] <= 0:
            continue
        note = "held back" if site in held_back else "set aside" if site in set_aside else ""
        before, after = (sqrt(max(figures[key], 0.0) / figures["physics"]) for key in ("running", "candidate"))
        rows.append(_Row(site, before, after, note))
    return sorted(rows, key=lambda row: (-row.before, row.site))


def _height(rows: list[_Row]) -> float:
    return len(rows) * (_ROW if len(rows) <= _MOST_NAMES else _NARROW_ROW)


def _panel(target: Mapping[str, Any], rows: list[_Row], top: float, low: float, high: float) -> list[str]:
    height = _height(rows)
    inside = _WIDTH - _LEFT - _RIGHT

    def across(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * inside

    parts = [
        f'<text x="12" y="{top - 6:.1f}" font-weight="bold">{escape(target["target"])}: '
        f"{escape(target['decision'])}</text>"
    ]
    marks = round((high - low) / _STEP)
    every = ceil(marks / 12)
    for index in range(0, marks + 1, every):
        value = low + index * _STEP
        parts.append(f'<path d="M{across(value):.1f} {top:.1f}V{top + height:.1f}" stroke="#eee"/>')
        parts.append(
            f'<text x="{across(value):.1f}" y="{top + height + 14:.1f}" text-anchor="middle">{value:.2f}</text>'
        )
    parts.append(f'<path d="M{across(1):.1f} {top:.1f}V{top + height:.1f}" stroke="#888"/>')
    step = height / len(rows)
    radius = min(4.0, 0.42 * step)
    for index, row in enumerate(rows):
        y = top + (index + 0.5) * step
        colour = AFTER_BETTER if row.after <= row.before else AFTER_WORSE
        if len(rows) <= _MOST_NAMES:
            name = f"{row.site} ({row.note})" if row.note else row.site
            parts.append(f'<text x="{_LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        parts.append(
            f'<path d="M{across(row.before):.1f} {y:.1f}H{across(row.after):.1f}" stroke="{colour}"/>'
            f'<circle cx="{across(row.before):.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="#fff" stroke="{BEFORE}" '
            'stroke-width="2"/>'
            f'<circle cx="{across(row.after):.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}"/>'
        )
    return parts
