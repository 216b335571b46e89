"""One field: its season in pictures, every decision in words, and the farmer's own say."""

from __future__ import annotations

import streamlit as st

from dashboards import charts, outlook, words
from dashboards.access import StoreUnavailableError
from dashboards.config import Farm
from dashboards.doors import Role
from dashboards.farm_store import DAY_S, FieldHistory, FieldSummary, field_names, read_field
from dashboards.session import allowed, live, now, request, settings, show_notice, sign_in, table
from dashboards.views.overview import footer
from shared_models.codes import EventCode

HOUR_S = 3600
DOSES_MM = (10, 20, 30)
LONGEST_TABLE = 400


def show() -> None:
    """Let the reader choose a field, then draw it and keep it fresh."""
    choice = _choose()
    if choice is None:
        return
    farm, dev_eui = choice
    show_notice()
    live(lambda: _pictures(farm, dev_eui), "field")
    _overrides(farm, dev_eui)
    live(lambda: _decisions(farm, dev_eui), "decisions")


def _choose() -> tuple[Farm, str] | None:
    names: dict[tuple[str, str], str] = {}
    farms = {farm.site: farm for farm in settings().farms}
    for farm in farms.values():
        try:
            for dev_eui, name in field_names(farm.store).items():
                names[farm.site, dev_eui] = f"{name} · {farm.title}" if len(farms) > 1 else name
        except StoreUnavailableError as error:
            st.warning(f"**{words.plain(farm.title)}**: {error}")
    if not names:
        st.info("No field is known yet.")
        return None
    keys = list(names)
    wanted = (st.query_params.get("farm", ""), st.query_params.get("field", ""))
    index = keys.index(wanted) if wanted in names else 0
    chosen = st.selectbox("Field", keys, index=index, format_func=lambda key: names[key], width=420)
    if chosen != wanted:
        st.query_params.update({"farm": chosen[0], "field": chosen[1]})
    return farms[chosen[0]], chosen[1]


def _history(farm: Farm, dev_eui: str) -> FieldHistory:
    history = read_field(farm.store, dev_eui, farm.season_start)
    if history is None:
        raise StoreUnavailableError("This field is no longer in the gateway's list.")
    return history


def _pictures(farm: Farm, dev_eui: str) -> None:
    setup = settings()
    history = _history(farm, dev_eui)
    summary, now_s = history.summary, now(history.clock_s)
    wet = outlook.wetness(summary)
    what, why = outlook.last_decision(summary, now_s, history.utc_offset_min, setup.units)
    saving = outlook.saving(summary, setup.calendar, now_s)
    st.html(
        f'<div class="n-top n-{wet.css}" role="status"><h1>{wet.sign} {wet.label}</h1><p>{what}. {why}</p>'
        f"<p>Next watering: {outlook.next_watering(summary, now_s, history.utc_offset_min)}.</p></div>"
    )
    alert = outlook.attention(summary, now_s, setup.silent_after_h * HOUR_S)
    if alert:
        st.warning(alert, icon=":material/warning:")
    _soil(history)
    st.markdown("##### Water used since planting")
    start_s = summary.season_start_s
    if start_s is None or not history.reports:
        st.caption("Drawn after planting.")
    else:
        until_s = max(start_s, min(now_s, summary.season_end_s or now_s))
        st.altair_chart(
            charts.cumulative(
                history.reports, saving.used_mm, start_s, until_s, setup.calendar, history.utc_offset_min, setup.units
            ),
            alt=f"This field {words.depth(saving.used_mm, setup.units)},"
            f" by calendar {words.depth(saving.calendar_mm, setup.units)}",
        )
        st.caption(_comparison(summary, saving))
    st.html(f'<section class="n-card">{footer(summary, now_s)}</section>')
    st.caption(_works_with(summary))


def _soil(history: FieldHistory) -> None:
    st.markdown("##### Water left in the soil for the crop")
    if not history.reports:
        st.caption("Drawn after the node's first reports.")
        return
    offset = history.utc_offset_min
    st.altair_chart(
        charts.soil(history.reports, offset),
        alt="Water left in the soil through the season and the line where it waters",
    )
    st.caption("Blue line: water left. Red dashed line: below it, the node waters.")
    st.altair_chart(
        charts.water(history.reports, history.events, offset, settings().units),
        alt="Waterings, and rises of the soil's water like those after rain",
    )


def _comparison(summary: FieldSummary, saving: outlook.Saving) -> str:
    setup = settings()
    plan = f"The calendar: {words.depth(setup.calendar.dose_mm, setup.units)} every {setup.calendar.every_days} days."
    if saving.share is None:
        return plan
    volume = words.volume(abs(saving.saved_mm), summary.device.area_ha, setup.units)
    word = "saved" if saving.saved_mm >= 0 else "more than by calendar"
    return f"{words.depth(abs(saving.saved_mm), setup.units)} {word}, that is {volume} on this field. {plan}"


def _works_with(summary: FieldSummary) -> str:
    device, report = summary.device, summary.report
    told = words.mode(device.mode)
    parts = [f"Decides with: {told.title.lower()} ({told.why.rstrip('.').lower()})."]
    if report is not None and report.forecast_24h:
        change = abs(report.forecast_24h) * 100
        direction = "lose" if report.forecast_24h < 0 else "gain"
        parts.append(
            f"The node expects the soil to {direction} about {change:.1f} % of its volume in water by tomorrow."
        )
    if report is not None and report.updating:
        parts.append("An update is on its way to the node.")
    parts.append(f"Messages: {device.frames} heard, {device.frames_missed} lost on the air.")
    return " ".join(parts)


def _overrides(farm: Farm, dev_eui: str) -> None:
    st.markdown("##### Your say")
    if not allowed(Role.FARMER):
        sign_in(Role.FARMER)
        return
    st.caption(
        "The node hears you when it next reports, usually once a day; a stop counts from then."
        " It keeps its own safety limits."
    )
    with st.container(horizontal=True):
        if st.button("Stop for 24 hours", icon=":material/back_hand:"):
            _ask(farm, dev_eui, "override.stop", hours=24)
        if st.button("Stop for 48 hours", icon=":material/back_hand:"):
            _ask(farm, dev_eui, "override.stop", hours=48)
        if st.button("Go on by itself", icon=":material/play_arrow:"):
            _ask(farm, dev_eui, "override.resume")
    with st.form("water-now", border=True, width=420):
        dose_mm = st.radio(
            "How much", DOSES_MM, index=1, horizontal=True, format_func=lambda mm: words.depth(mm, settings().units)
        )
        if st.form_submit_button("Water now", icon=":material/water_drop:"):
            _ask(farm, dev_eui, "override.water", dose_mm=float(dose_mm or DOSES_MM[0]))


def _ask(farm: Farm, dev_eui: str, action: str, *, hours: int = 0, dose_mm: float = 0.0) -> None:
    try:
        history = _history(farm, dev_eui)
    except StoreUnavailableError as error:
        st.error(str(error))
        return
    now_s = now(history.clock_s)
    arguments: dict[str, object] = {"dev_eui": dev_eui}
    if hours:
        arguments["until_s"] = outlook.next_call_s(history.reports, now_s) + hours * HOUR_S
    if dose_mm:
        arguments["dose_mm"] = dose_mm
    request(farm.store, created_s=now_s, role=Role.FARMER, action=action, arguments=arguments)
    st.rerun()


def _decisions(farm: Farm, dev_eui: str) -> None:
    history = _history(farm, dev_eui)
    offset, units = history.utc_offset_min, settings().units
    if history.overrides:
        st.markdown("##### What you asked for")
        asked = [
            (
                words.moment(override.created_s, offset),
                words.OVERRIDES.get(override.action, override.action),
                words.OVERRIDE_STATES.get(override.state, override.state),
                override.result,
                override.actor,
            )
            for override in history.overrides[:20]
        ]
        table(asked, ("When", "What", "Where it stands", "Remark", "Who"))
    st.markdown("##### What the node did, and why")
    text = st.column_config.TextColumn
    table(
        decision_rows(history, units),
        ("When", "What", "Why"),
        {"When": text(width="small"), "What": text(width="small"), "Why": text(width="large")},
    )
    with st.expander("All reasons and events explained"):
        st.markdown(glossary())


def decision_rows(history: FieldHistory, units: words.Units) -> list[tuple[str, str, str]]:
    """Events and each day's decision, newest first, in words."""
    rows: list[tuple[int, str, str]] = []
    for event in history.events:
        told = words.event(event.code, event.reason)
        what = f"{told.title}, {words.depth(event.dose_mm, units)}" if event.code == EventCode.WATERED else told.title
        rows.append((event.time_s, what, told.why))
    watered_days = {event.time_s // DAY_S for event in history.events if event.code == EventCode.WATERED}
    for report in history.reports:
        if report.time_s // DAY_S not in watered_days:
            told = words.reason(report.reason)
            rows.append((report.time_s, f"No water: {told.title[0].lower()}{told.title[1:]}", told.why))
    rows.sort(key=lambda row: row[0], reverse=True)
    return [(words.moment(time_s, history.utc_offset_min), what, why) for time_s, what, why in rows[:LONGEST_TABLE]]


def glossary() -> str:
    """Every reason and event in a list."""
    reasons = "\n".join(f"- **{told.title}**: {told.why}" for told in words.REASONS.values())
    events = "\n".join(f"- **{told.title}**: {told.why}" for told in words.EVENTS.values())
    return f"**Reasons**\n\n{reasons}\n\n**Events**\n\n{events}"
