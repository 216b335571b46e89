"""The energy budget as a picture: a stacked bar per board and data rate; the same figures give the same SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from nodes.emulator.energy import CR2032_UAH, HOURS_PER_YEAR
from nodes.energy_report import EnergyReport

GROUPS = (
    ("modem asleep", "#1b6f8a", ("modem sleep",)),
    ("microcontroller asleep", "#4fa3b5", ("core stop", "watchdog")),
    ("cell and capacitor", "#a9b4b8", ("self-discharge", "reservoir leakage")),
    ("sensors", "#7aa43b", ("probes", "air sensor", "air sensor idle", "converter")),
    ("transmitting", "#c8553d", ("modem transmit",)),
    ("listening, commands", "#e2a03f", ("modem active", "modem receive")),
    ("updates", "#8c5fa8", ("updates",)),
    ("computing, storing", "#3d3d3d", ("core run", "core sleep", "flash")),
)
"""Label, colour, consumers."""
_LEFT, _WIDTH, _BAR, _GAP, _TOP = 150, 640, 20, 8, 92
_MARKS_YEARS = (3, 5, 10)


def energy_chart(reports: Sequence[EnergyReport]) -> str:
    """Draw the reports, top to bottom in their order.

    Raises:
        ValueError: a consumer that no group names.
    """
    known = {name for _, _, names in GROUPS for name in names}
    unknown = {name for report in reports for name in report.consumers_uah_per_day} - known
    if unknown:
        raise ValueError(f"no group for {', '.join(sorted(unknown))}; add it to GROUPS")
    longest = max(report.total_uah_per_day for report in reports) * 1.02
    scale = _WIDTH / longest
    height = _TOP + len(reports) * (_BAR + _GAP) + 56
    bottom = height - 48
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 90} {height}" '
        'font-family="sans-serif" font-size="12" fill="#222" role="img">',
        "<title>Charge per day by consumer, and years on one CR2032</title>",
        f'<rect width="{_LEFT + _WIDTH + 90}" height="{height}" fill="#fff"/>',
    ]
    for index, (label, colour, _) in enumerate(GROUPS):
        x, y = 12.0 + index % 5 * 172, 14 + index // 5 * 22
        parts.append(f'<rect x="{x:.0f}" y="{y}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18:.0f}" y="{y + 11}">{escape(label)}</text>')
    for years in _MARKS_YEARS:
        x = _LEFT + CR2032_UAH / (years * HOURS_PER_YEAR / 24) * scale
        if x <= _LEFT + _WIDTH:
            parts.append(f'<path d="M{x:.1f} {_TOP - 10}V{bottom}" stroke="#222" stroke-dasharray="3 3"/>')
            parts.append(f'<text x="{x:.1f}" y="{_TOP - 16}" text-anchor="middle">{years} years</text>')
    for index, report in enumerate(reports):
        y, x = _TOP + index * (_BAR + _GAP), float(_LEFT)
        parts.append(
            f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">'
            f"{escape(report.board)} SF{report.spreading_factor}</text>"
        )
        for _, colour, names in GROUPS:
            width = sum(report.consumers_uah_per_day.get(name, 0.0) for name in names) * scale
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>')
            x += width
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 14}">{report.life_years:.1f} years</text>')
    step = 50 if longest > 150 else 20
    parts += [
        f'<text x="{_LEFT + value * scale:.1f}" y="{bottom + 16}" text-anchor="middle">{value}</text>'
        for value in range(0, int(longest) + 1, step)
    ]
    parts.append(f'<text x="{_LEFT}" y="{bottom + 36}">µAh per day, 25 °C</text></svg>')
    return "\n".join(parts) + "\n"
