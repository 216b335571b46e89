"""Pictures drawn as SVG, so that they stay sharp, follow light and dark, and ask nobody for anything.

Streamlit's HTML takes no inline SVG, so a picture is an image of its own with the colours of the reader's theme.
Every picture carries its meaning in words as well.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from dashboards.farm_store import Day
from dashboards.outlook import SOON, Saving, Wetness
from dashboards.words import BATTERY_GOOD_MV, BATTERY_LOW_MV, Units, depth

STYLE = """<style>
.stMainBlockContainer { padding: 4.2rem clamp(1rem, 3vw, 3rem) 3rem; }
[class*="st-key-cards-"] { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(272px, 100%), 1fr)); }
.n-card, .n-top, .n-bars { --ink: light-dark(#1c2321, #eef1ee); --soft: light-dark(#56615d, #b4beba);
  --line: light-dark(#d9d5c7, #3a4548); --water: light-dark(#1f5fa8, #6fb1f2);
  --sky: light-dark(#7a8fa8, #8fa3bb); --good: light-dark(#1e6b3a, #6fd092);
  --soon: light-dark(#8a5a00, #f0b94a); --dry: light-dark(#a8281e, #ff8d80); --idle: light-dark(#56615d, #b4beba);
  --good-bg: light-dark(#ddf0e2, #17372a); --soon-bg: light-dark(#fbeccb, #43350f);
  --dry-bg: light-dark(#fadfdb, #4a1f1b); --idle-bg: light-dark(#e8e6dd, #2a3336); color: var(--ink);
  font-family: inherit; }
.n-card img { display: block; width: 100%; height: auto; }
.n-head { display: flex; justify-content: space-between; align-items: flex-start; gap: .5rem; }
.n-head h3 { margin: 0; padding: 0; font-size: 1.3rem; line-height: 1.25; }
.n-crop { color: var(--soft); font-size: .92rem; }
.n-pill { border-radius: 1rem; padding: .18rem .7rem; font-weight: 700; white-space: nowrap; font-size: .98rem; }
.n-good { color: var(--good); background: var(--good-bg); } .n-soon { color: var(--soon); background: var(--soon-bg); }
.n-dry { color: var(--dry); background: var(--dry-bg); } .n-idle { color: var(--idle); background: var(--idle-bg); }
.n-row { display: grid; grid-template-columns: minmax(118px, 42%) 1fr; gap: .9rem; align-items: center;
  margin: .6rem 0 .3rem; }
.n-what { font-size: 1.08rem; font-weight: 650; line-height: 1.3; } .n-why { color: var(--soft); line-height: 1.35;
  font-size: .95rem; }
.n-label { color: var(--soft); font-size: .84rem; margin-top: .55rem; }
.n-next { font-size: 1.08rem; font-weight: 650; }
.n-alert { background: var(--dry-bg); color: var(--dry); border-radius: .5rem; padding: .35rem .7rem; margin: .5rem 0 0;
  font-weight: 700; }
.n-foot { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; color: var(--soft); font-size: .88rem; margin-top: .6rem;
  border-top: 1px solid var(--line); padding-top: .5rem; align-items: center; }
.n-card .n-foot img { width: 1.5rem; display: inline-block; vertical-align: -.1rem; margin-right: .3rem; }
.n-bar { display: grid; grid-template-columns: 5.4rem 1fr 3.9rem; gap: .5rem; align-items: center; font-size: .95rem; }
.n-bar b { text-align: right; font-weight: 650; } .n-track { height: .85rem; border-radius: .3rem; }
.n-fill { height: 100%; border-radius: .3rem; min-width: 2px; } .n-own { background: var(--water); }
.n-cal { background: repeating-linear-gradient(135deg, var(--sky) 0 4px, transparent 4px 7px);
  border: 1px solid var(--sky); }
.n-saved { font-weight: 650; margin-top: .15rem; }
.n-top { padding: .9rem 1.1rem; border-radius: .7rem; margin-bottom: .4rem; }
.n-top.n-good, .n-top.n-soon, .n-top.n-dry, .n-top.n-idle { color: var(--ink); }
.n-top h1 { font-size: 1.55rem; margin: 0; padding: 0; line-height: 1.25; }
.n-top p { margin: .3rem 0 0; font-size: 1.05rem; }
.n-group { margin: .5rem 0; } .n-group .n-track { display: flex; overflow: hidden; background: var(--idle-bg);
  height: 1.1rem; } .n-ok { background: var(--good); } .n-lost { background: var(--dry); }
.n-trial { background: var(--good); opacity: .45; }
</style>"""


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of one theme; each stands out from the page by at least 3:1, text by 4.5:1."""

    ink: str
    soft: str
    line: str
    water: str
    good: str
    soon: str
    dry: str


LIGHT = Palette("#1c2321", "#56615d", "#d9d5c7", "#1f5fa8", "#2e8b50", "#c08a10", "#b5372c")
DARK = Palette("#eef1ee", "#b4beba", "#3a4548", "#6fb1f2", "#5fbf82", "#e0ab3d", "#f07a6c")

_SPAN = 2.5
"""The dial runs from full to this many times the threshold depletion."""


def dial(depletion_share: float, threshold: float, state: Wetness, palette: Palette) -> str:
    """A fuel gauge for the soil: dry on the left, wet on the right, a drop where the node waters.

    Args:
        depletion_share: Dr / TAW, 0 is full.
        threshold: The share at which the node waters.
        state: In words, for those who cannot see the needle.
        palette: The theme's colours.
    """
    full = _SPAN * threshold if threshold > 0 else 1.0
    wet = 1 - min(max(depletion_share / full, 0.0), 1.0)
    limit = 1 - 1 / _SPAN
    soon = 1 - SOON / _SPAN
    left, waters_below = 100 * (1 - depletion_share), 100 * (1 - threshold)
    alt = f"{state.label}: {left:.0f} % of the soil's water is left; waters below {waters_below:.0f} %"
    tip_x, tip_y = _on_circle(wet, 58)
    inner_x, inner_y = _on_circle(limit, 62)
    outer_x, outer_y = _on_circle(limit, 88)
    drop_x, drop_y = _on_circle(limit, 99)
    ink = f'stroke="{palette.ink}" stroke-linecap="round"'
    return _image(
        "0 0 200 138",
        alt,
        f"{_arc(0.0, limit, palette.dry)}{_arc(limit, soon, palette.soon)}{_arc(soon, 1.0, palette.good)}"
        f'<line {ink} stroke-width="3" x1="{inner_x:.1f}" y1="{inner_y:.1f}" x2="{outer_x:.1f}" y2="{outer_y:.1f}"/>'
        f"{_drop(drop_x, drop_y, 1.3, palette.water)}"
        f'<line {ink} stroke-width="5" x1="100" y1="110" x2="{tip_x:.1f}" y2="{tip_y:.1f}"/>'
        f'<circle fill="{palette.ink}" cx="100" cy="110" r="9"/>'
        f"{_text(26, 130, 'Dry', palette.soft, 17)}{_text(174, 130, 'Wet', palette.soft, 17)}",
    )


def idle_dial(state: Wetness, palette: Palette) -> str:
    """The gauge without a needle, where there is nothing to show."""
    return _image(
        "0 0 200 138", state.label, _arc(0.0, 1.0, palette.line) + _text(100, 106, state.sign, palette.soft, 40)
    )


def strip(days: Sequence[Day], share_now: float, palette: Palette) -> str:
    """The last weeks: water in the soil as a line, the limit as a dashed line, waterings as drops.

    Args:
        days: Oldest first.
        share_now: Dr / TAW now, where the line ends.
        palette: The theme's colours.
    """
    known = [
        (index, day.depletion_max_mm / day.taw_mm, day.threshold)
        for index, day in enumerate(days)
        if day.depletion_max_mm is not None and day.taw_mm and day.threshold
    ]
    if len(known) < 2:
        return ""
    deepest = max(max(share, limit) for _, share, limit in known) * 1.15
    width, top, height = 320.0, 18.0, 62.0

    def x(index: int) -> float:
        return 6 + index * (width - 12) / max(1, len(days) - 1)

    def y(share: float) -> float:
        return top + height * share / deepest

    line = " ".join(f"{x(index):.1f},{y(share):.1f}" for index, share, _ in known)
    limit = " ".join(f"{x(index):.1f},{y(threshold):.1f}" for index, _, threshold in known)
    bottom, end_x, end_y = top + height, x(known[-1][0]), y(min(share_now, deepest))
    line += f" {end_x:.1f},{end_y:.1f}"
    area = f"{x(known[0][0]):.1f},{bottom:.0f} {line} {end_x:.1f},{bottom:.0f}"
    drops = "".join(_drop(x(index), 8, 1.0, palette.water) for index, day in enumerate(days) if day.doses)
    waterings = sum(day.doses for day in days)
    return _image(
        f"0 0 {width:.0f} 98",
        f"Water in the soil during the last {len(days)} days, with {waterings} waterings",
        f'<polygon fill="{palette.water}" opacity=".16" points="{area}"/>'
        f'<polyline fill="none" stroke="{palette.water}" stroke-width="2.4" stroke-linejoin="round" points="{line}"/>'
        f'<polyline fill="none" stroke="{palette.dry}" stroke-width="1.8" stroke-dasharray="5 4" points="{limit}"/>'
        f"{drops}"
        f'<circle fill="{palette.water}" cx="{end_x:.1f}" cy="{end_y:.1f}" r="4.5"/>'
        f"{_text(3, 95, f'{len(days)} days ago', palette.soft, 13, 'start')}"
        f"{_text(166, 95, '- - waters here', palette.dry, 13)}{_text(317, 95, 'now', palette.soft, 13, 'end')}",
    )


def water_bars(saving: Saving, units: Units, extra: str = "") -> str:
    """This field's water beside the calendar's."""
    most = max(saving.used_mm, saving.calendar_mm, 1.0)

    def bar(label: str, mm: float, css: str) -> str:
        return (
            f'<div class="n-bar"><span>{label}</span><div class="n-track">'
            f'<div class="n-fill {css}" style="width:{100 * mm / most:.1f}%"></div></div>'
            f"<b>{depth(mm, units)}</b></div>"
        )

    text = ""
    if saving.share is not None:
        word = "less" if saving.saved_mm >= 0 else "more"
        text = f'<div class="n-saved">{abs(saving.share):.0%} {word} than by calendar{escape(extra)}</div>'
    return (
        f'<div class="n-label">Water this season</div>{bar("This field", saving.used_mm, "n-own")}'
        f"{bar('By calendar', saving.calendar_mm, 'n-cal')}{text}"
    )


def battery(mv: int | None, palette: Palette) -> str:
    """A battery with one to three bars; empty where nothing is known."""
    bars = 0 if mv is None else 3 if mv >= BATTERY_GOOD_MV else 2 if mv >= BATTERY_LOW_MV else 1
    colour = palette.dry if bars == 1 else palette.ink
    cells = "".join(
        f'<rect fill="{colour}" x="{4 + 9 * index}" y="4" width="7" height="10" rx="1"/>' for index in range(bars)
    )
    return _image(
        "0 0 38 18",
        "",
        f'<rect fill="none" stroke="{palette.soft}" stroke-width="2" x="1" y="1" width="31" height="16" rx="3"/>'
        f'<rect fill="{palette.soft}" x="33" y="6" width="3" height="6" rx="1"/>{cells}',
    )


def group_bar(label: str, nodes: int, confirmed: int, lost: int, note: str, *, trial: int = 0, sending: int = 0) -> str:
    """A campaign group's progress: how many kept the release, try it, are being sent it, or did not keep it."""
    share = 100 / max(nodes, 1)
    failed = f", {trial} on trial" if trial else ""
    failed += f", {sending} being sent" if sending else ""
    failed += f", {lost} not" if lost else ""
    return (
        f'<div class="n-bars n-group"><div><b>{escape(label)}</b> — {confirmed} of {nodes} confirmed{failed}'
        f' <span class="n-why">{escape(note)}</span></div><div class="n-track" role="img"'
        f' aria-label="{confirmed} of {nodes} confirmed{failed}">'
        f'<div class="n-ok" style="width:{confirmed * share:.1f}%"></div>'
        f'<div class="n-trial" style="width:{trial * share:.1f}%"></div>'
        f'<div class="n-lost" style="width:{lost * share:.1f}%"></div></div></div>'
    )


def _image(view_box: str, alt: str, shapes: str) -> str:
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view_box}">{shapes}</svg>'
    return f'<img alt="{escape(alt)}" src="data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"/>'


def _text(x: float, y: float, text: str, colour: str, size: int, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}" font-size="{size}" text-anchor="{anchor}"'
        f' font-family="Source Sans 3, Source Sans Pro, Helvetica, Arial, sans-serif">{escape(text)}</text>'
    )


def _on_circle(share: float, radius: float) -> tuple[float, float]:
    angle = math.pi * (1 - share)
    return 100 + radius * math.cos(angle), 110 - radius * math.sin(angle)


def _arc(start: float, end: float, colour: str) -> str:
    x1, y1 = _on_circle(start, 75)
    x2, y2 = _on_circle(end, 75)
    course = f"M {x1:.1f} {y1:.1f} A 75 75 0 0 1 {x2:.1f} {y2:.1f}"
    return f'<path fill="none" stroke="{colour}" stroke-width="20" d="{course}"/>'


def _drop(x: float, y: float, scale: float, colour: str) -> str:
    return (
        f'<path fill="{colour}" transform="translate({x:.1f} {y:.1f}) scale({scale})"'
        ' d="M 0 -6.5 C 2.5 -2.5 4.5 -.5 4.5 2.2 A 4.5 4.5 0 0 1 -4.5 2.2 C -4.5 -.5 -2.5 -2.5 0 -6.5 Z"/>'
    )
