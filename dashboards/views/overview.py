"""The farmer's first page: one card per field, understood at a glance."""

from __future__ import annotations

from html import escape

import streamlit as st

from dashboards import outlook, pictures, words
from dashboards.access import StoreUnavailableError
from dashboards.config import DashboardSettings, Farm
from dashboards.farm_store import FarmState, FieldSummary, read_farm
from dashboards.outlook import Wetness
from dashboards.session import live, now, palette, settings


def show() -> None:
    """Draw the page and keep it fresh."""
    live(_fields, "overview")


def _fields() -> None:
    setup = settings()
    farms: list[tuple[Farm, FarmState]] = []
    problems = []
    for farm in setup.farms:
        try:
            farms.append((farm, read_farm(farm.store, farm.season_start)))
        except StoreUnavailableError as error:
            problems.append(f"**{words.plain(farm.title)}**: {error}")
    st.html(headline(farms, setup))
    for problem in problems:
        st.warning(problem)
    for farm, state in farms:
        if len(setup.farms) > 1:
            clock = words.moment(now(state.clock_s), state.utc_offset_min)
            st.subheader(f"{words.plain(farm.title)} :small[:gray[{words.plain(clock)}]]", anchor=False)
        if not state.fields:
            st.info("No field is known yet. Fields appear once the gateway has been started with its list of nodes.")
        _cards(farm, state, setup)


def _cards(farm: Farm, state: FarmState, setup: DashboardSettings) -> None:
    with st.container(horizontal=True, key=f"cards-{farm.site}"):
        for summary in state.fields:
            with st.container(border=True, height="stretch"):
                st.html(card(summary, state, setup))
                st.page_link(
                    st.session_state["field_page"],
                    label=f"More about {words.plain(summary.device.name)}",
                    icon=":material/arrow_forward:",
                    query_params={"field": summary.device.dev_eui, "farm": farm.site},
                )


def headline(farms: list[tuple[Farm, FarmState]], setup: DashboardSettings) -> str:
    """The whole farm in two sentences."""
    fields = [(summary, now(state.clock_s)) for _, state in farms for summary in state.fields]
    states = [outlook.wetness(summary) for summary, _ in fields]
    alerts = [
        f"{summary.device.name}: {problem}"
        for summary, now_s in fields
        if (problem := outlook.attention(summary, now_s, setup.silent_after_h * 3600))
    ]
    savings = [outlook.saving(summary, setup.calendar, now_s) for summary, now_s in fields]
    calendar, used = sum(saving.calendar_mm for saving in savings), sum(saving.used_mm for saving in savings)
    css, water = _water(fields, states)
    title, lines = water, []
    if alerts:
        css, title = "dry", f"{len(alerts)} field{'s need' if len(alerts) > 1 else ' needs'} you"
        lines = [*(escape(alert) for alert in alerts[:4]), escape(water)]
    if calendar > 0:
        share = (calendar - used) / calendar
        lines.append(f"{abs(share):.0%} {'less' if share >= 0 else 'more'} water than by calendar so far")
    elif not alerts and fields:
        lines.append("Nothing to do")
    body = "".join(f"<p>{line}.</p>" for line in lines)
    return f'<div class="n-top n-{css}" role="status"><h1>{escape(title)}</h1>{body}</div>'


def _water(fields: list[tuple[FieldSummary, int]], states: list[Wetness]) -> tuple[str, str]:
    """The crop's water over all fields: a colour class and a sentence."""
    if not fields:
        return "idle", "No field has been heard yet"
    dry = [summary.device.name for (summary, _), state in zip(fields, states, strict=True) if state is Wetness.DRY]
    if dry:
        names = ", ".join(dry[:3]) + (" and others" if len(dry) > 3 else "")
        return "soon", f"{names}: dry, watered in the next watering hours"
    if all(state in {Wetness.WAITING, Wetness.UNKNOWN} for state in states):
        return "idle", "The nodes are getting to know the soil"
    if all(state is Wetness.OVER for state in states):
        return "idle", "The season is over"
    return "good", "All fields have enough water"


def card(summary: FieldSummary, state: FarmState, setup: DashboardSettings) -> str:
    """One field's card."""
    device, report = summary.device, summary.report
    now_s = now(state.clock_s)
    wet = outlook.wetness(summary)
    what, why = outlook.last_decision(summary, now_s, state.utc_offset_min, setup.units)
    shown = report is not None and wet in {Wetness.GOOD, Wetness.SOON, Wetness.DRY}
    gauge = (
        pictures.dial(outlook.depletion_share_now(summary, report), report.threshold, wet, palette())
        if report is not None and shown
        else pictures.idle_dial(wet, palette())
    )
    alert = outlook.attention(summary, now_s, setup.silent_after_h * 3600)
    saving = outlook.saving(summary, setup.calendar, now_s)
    extra = f" ({words.volume(abs(saving.saved_mm), device.area_ha, setup.units)})" if device.area_ha > 0 else ""
    return (
        f'<section class="n-card" aria-label="{escape(device.name)}: {wet.label}">'
        f'<div class="n-head"><div><h3>{escape(device.name)}</h3><span class="n-crop">{escape(words.crop(device.crop))}'
        f' · {device.area_ha:g} ha</span></div><span class="n-pill n-{wet.css}">{wet.sign} {wet.label}</span></div>'
        f"{_alert(alert)}"
        f'<div class="n-row">{gauge}<div><div class="n-what">{escape(what)}</div>'
        f'<div class="n-why">{escape(why)}</div></div></div>'
        f'<div class="n-label">Next watering</div>'
        f'<div class="n-next">{escape(outlook.next_watering(summary, now_s, state.utc_offset_min))}</div>'
        f'<div style="margin-top:.6rem">{_strip(summary)}</div>'
        f"{pictures.water_bars(saving, setup.units, extra)}"
        f"{footer(summary, now_s)}</section>"
    )


def _strip(summary: FieldSummary) -> str:
    if summary.report is None:
        return ""
    return pictures.strip(summary.days, outlook.depletion_share_now(summary, summary.report), palette())


def footer(summary: FieldSummary, now_s: int) -> str:
    """The node's health on one line."""
    device = summary.device
    heard = "Not heard yet" if device.last_seen_s is None else f"Heard {words.ago(now_s - device.last_seen_s)}"
    model = "" if device.model_version is None else f"<span>Model {device.model_version}</span>"
    return (
        f'<div class="n-foot"><span>{pictures.battery(device.battery_mv, palette())}'
        f"{words.battery(device.battery_mv)}</span><span>{heard}</span>{model}</div>"
    )


def _alert(text: str | None) -> str:
    return "" if text is None else f'<div class="n-alert">⚠ {escape(text)}</div>'
