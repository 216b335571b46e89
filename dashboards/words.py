"""Codes in plain language, quantities in the reader's units.

Everything a node, a gateway or the server can say is explained here once; ``docs/farmer.md`` repeats it for
reading on paper, and a test holds both complete.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Literal

from shared_models.codes import Board, CampaignState, Crop, EventCode, Mode, Reason, Refusal, ResetCause, UpdateState
from shared_models.frames import TelemetryFlag

Units = Literal["metric", "imperial"]

BATTERY_GOOD_MV = 2750
BATTERY_LOW_MV = 2550
"""A lithium coin cell stays near 3 V and falls off at the end; below this it should be changed."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A title of a few words and one sentence."""

    title: str
    why: str


REASONS: dict[Reason, Explanation] = {
    Reason.NOT_NEEDED: Explanation("Enough water", "The soil still holds enough water for the crop."),
    Reason.DEPLETED: Explanation("Soil was dry", "The soil had dried past its limit, so the field was watered."),
    Reason.COMMISSIONING: Explanation(
        "Getting to know the soil", "Before planting the node watches the soaked soil drain and gives no water."
    ),
    Reason.OUTSIDE_WINDOW: Explanation(
        "Waiting for morning", "Water is wanted, but it is given only in the watering hours of the morning."
    ),
    Reason.MINIMUM_INTERVAL: Explanation(
        "Watered a short while ago", "The last watering was too recent; the soil needs time to take it up."
    ),
    Reason.DAILY_CAP: Explanation("Daily limit reached", "Today's limit of water has been given."),
    Reason.SEASONAL_CAP: Explanation(
        "Season's limit reached", "The whole season's limit of water has been given. Ask your adviser before more."
    ),
    Reason.SEASON_ENDING: Explanation(
        "Harvest is near", "Water now would no longer help the harvest, so none is given."
    ),
    Reason.SENSOR_FAULT: Explanation(
        "A sensor is broken", "The node cannot trust its soil sensors and stays careful. Please look at them."
    ),
    Reason.OVERRIDE_STOP: Explanation("You said stop", "Watering is stopped because you asked for it."),
    Reason.OVERRIDE_WATER: Explanation("You asked for water", "The field was watered because you asked for it."),
    Reason.VALVE_FAULT: Explanation(
        "The valve does not answer", "The node keeps the valve shut until it works again. Please look at the valve."
    ),
    Reason.SEASON_OVER: Explanation("Season is over", "The season has ended; no more water is given."),
    Reason.LOW_BATTERY: Explanation(
        "Battery is weak",
        "The battery could not be sure to close the valve again, so it stays shut. Change the battery.",
    ),
}

EVENTS: dict[EventCode, Explanation] = {
    EventCode.BOOTED: Explanation("Node started", "The node was switched on or started again."),
    EventCode.WATERED: Explanation("Watered", "The valve was opened and the field got water."),
    EventCode.SENSOR_FAULT: Explanation("Sensor broken", "A sensor gives nonsense or nothing. Please look at it."),
    EventCode.SENSOR_RECOVERED: Explanation("Sensor works again", "A sensor that was broken gives good values again."),
    EventCode.VALVE_FAULT: Explanation("Valve does not answer", "The valve did not do as told and is kept shut."),
    EventCode.ANCHORED: Explanation(
        "Soil learned", "The node has read how much water this soil holds after it has drained."
    ),
    EventCode.MODEL_ACTIVATED: Explanation("Update on trial", "The node runs a new model on trial."),
    EventCode.MODEL_CONFIRMED: Explanation("Update kept", "The new model has proved itself and stays."),
    EventCode.MODEL_ROLLED_BACK: Explanation(
        "Update taken back", "The new model was no better here; the node went back to the one before."
    ),
    EventCode.UPDATE_REFUSED: Explanation("Update refused", "The node did not accept an update and goes on as before."),
    EventCode.SETTINGS_APPLIED: Explanation("Your wish arrived", "The node has taken over what you asked for."),
    EventCode.LOW_BATTERY: Explanation("Battery is weak", "The battery is nearly empty. Please change it soon."),
    EventCode.BATTERY_RECOVERED: Explanation("Battery is good again", "The battery is strong enough for the valve."),
    EventCode.CLOCK_CORRECTED: Explanation("Clock set", "The node's clock was set right by the network."),
    EventCode.MODEM_RESTARTED: Explanation("Radio restarted", "The radio had stopped answering and was restarted."),
    EventCode.STORAGE_FAULT: Explanation(
        "Memory is wearing out",
        "The node could not write its memory. It goes on with what it knew; plan to replace it.",
    ),
    EventCode.SENSORS_DISAGREE: Explanation(
        "Sensors disagree",
        "What the probes see does not fit the water given and used. Please check their seat in the soil.",
    ),
    EventCode.SENSORS_AGREE: Explanation("Sensors agree again", "What the probes see fits the water given and used."),
    EventCode.KEYS_CHANGED: Explanation("New key", "The node now trusts another key for its updates."),
}

MODES: dict[Mode, Explanation] = {
    Mode.MODEL: Explanation("Sensors and learning", "Water balance, soil sensors and what all farms have learned."),
    Mode.PHYSICS: Explanation("Sensors", "Water balance and soil sensors, without learning."),
    Mode.BALANCE_ONLY: Explanation("Estimate only", "The soil sensors fail; the node estimates, carefully."),
    Mode.COMMISSIONING: Explanation("Getting to know the soil", "Before planting; no water is given."),
}

SENSORS: dict[TelemetryFlag, str] = {
    TelemetryFlag.SHALLOW_FAULT: "upper soil probe",
    TelemetryFlag.DEEP_FAULT: "lower soil probe",
    TelemetryFlag.SOIL_TEMP_FAULT: "soil thermometer",
    TelemetryFlag.AIR_FAULT: "air sensor",
    TelemetryFlag.LIGHT_FAULT: "light sensor",
}

RESETS: dict[int, str] = {
    ResetCause.POWER_ON: "The node was switched on.",
    ResetCause.PIN: "Somebody pressed the node's reset button.",
    ResetCause.SOFTWARE: "The node restarted itself.",
    ResetCause.WATCHDOG: "The node had stopped working; its watchdog closed the valve and started it again.",
    ResetCause.BROWN_OUT: "The supply failed for a moment. If this comes again, change the battery.",
}

REFUSALS: dict[Refusal, str] = {
    Refusal.NONE: "no reason given",
    Refusal.FORMAT: "not a format the node knows",
    Refusal.LENGTH: "wrong length",
    Refusal.SIGNATURE: "not signed by a trusted key",
    Refusal.TARGET: "made for another board",
    Refusal.VERSION: "not newer than what ran before",
    Refusal.BASE: "made for another model than the one on the node",
    Refusal.DECODE: "could not be unpacked",
    Refusal.MODEL_ID: "content does not match its name",
    Refusal.SELF_TEST: "failed the node's self-test",
    Refusal.FLASH: "the node's memory could not be written",
    Refusal.BUSY: "an update was still being tried out",
}

UPDATE_STATES: dict[UpdateState, str] = {
    UpdateState.PENDING: "waiting",
    UpdateState.SENDING: "being sent",
    UpdateState.ACTIVATED: "on trial",
    UpdateState.CONFIRMED: "confirmed",
    UpdateState.ROLLED_BACK: "taken back",
    UpdateState.REFUSED: "refused",
    UpdateState.FAILED: "failed",
}

CAMPAIGN_STATES: dict[CampaignState, str] = {
    CampaignState.DRAFT: "draft",
    CampaignState.RUNNING: "running",
    CampaignState.PAUSED: "paused",
    CampaignState.HALTED: "halted by its error threshold",
    CampaignState.ABORTED: "aborted",
    CampaignState.DONE: "done",
}

OVERRIDES = {
    "override.stop": "Stop watering",
    "override.water": "Water now",
    "override.resume": "Go on by itself",
}

OVERRIDE_STATES = {
    "new": "noted",
    "waiting": "waits for the node to call in",
    "queued": "on its way to the node",
    "sent": "sent to the node",
    "done": "done",
    "refused": "refused",
    "failed": "did not reach the node",
}


def reason(code: int) -> Explanation:
    """A :class:`Reason` in words, unknown numbers included."""
    try:
        return REASONS[Reason(code)]
    except ValueError:
        return Explanation(
            f"Reason {code}", f"This dashboard does not know reason {code}; it may be older than the node."
        )


def event(code: int, cause: int = 0) -> Explanation:
    """An :class:`EventCode` in words; ``cause`` is its reason, refusal, reset cause or the sensors meant."""
    try:
        known = EventCode(code)
    except ValueError:
        return Explanation(
            f"Event {code}", f"This dashboard does not know event {code}; it may be older than the node."
        )
    told = EVENTS[known]
    if known is EventCode.WATERED:
        return Explanation(told.title, reason(cause).why)
    if known is EventCode.UPDATE_REFUSED:
        return Explanation(told.title, f"{told.why} Cause: {refusal(cause)}.")
    if known in (EventCode.SENSOR_FAULT, EventCode.SENSOR_RECOVERED) and (meant := sensors(cause)):
        return Explanation(told.title, f"{told.why} Meant: {meant}.")
    if known is EventCode.BOOTED and cause in RESETS:
        return Explanation(told.title, RESETS[ResetCause(cause)])
    return told


def sensors(flags: int) -> str:
    """The sensors behind the bits of a telemetry frame's flags."""
    return ", ".join(name for flag, name in SENSORS.items() if flags & flag)


def refusal(code: int) -> str:
    """A :class:`Refusal` in words."""
    try:
        return REFUSALS[Refusal(code)]
    except ValueError:
        return f"refusal {code}"


def mode(code: int | None) -> Explanation:
    """A :class:`Mode` in words."""
    try:
        return MODES[Mode(code)] if code is not None else Explanation("Not known", "The node has not reported yet.")
    except ValueError:
        return Explanation(f"Mode {code}", "This dashboard is older than the node.")


def update_state(state: str) -> str:
    """An update's state in words."""
    return UPDATE_STATES[UpdateState(state)] if state in set(UpdateState) else state


def campaign_state(state: str) -> str:
    """A campaign's state in words."""
    return CAMPAIGN_STATES[CampaignState(state)] if state in set(CampaignState) else state


def crop(name: str) -> str:
    """A crop's name for people."""
    return name.replace("_", " ").capitalize() if name.upper() in Crop.__members__ else name


def board(code: int) -> str:
    """A board's name."""
    return Board(code).name if code in set(Board) else f"board {code}"


def depth(mm: float, units: Units) -> str:
    """A depth of water; number and unit stay on one line."""
    return f"{mm / 25.4:.1f}\N{NO-BREAK SPACE}in" if units == "imperial" else f"{mm:.0f}\N{NO-BREAK SPACE}mm"


def volume(mm: float, area_ha: float, units: Units) -> str:
    """A depth of water over an area: 1 mm on 1 ha is 10 m3."""
    cubic_metres = mm * area_ha * 10
    if units == "imperial":
        return f"{cubic_metres * 264.172:,.0f}\N{NO-BREAK SPACE}gal"
    return f"{cubic_metres:,.0f}\N{NO-BREAK SPACE}m³"


def plain(text: str) -> str:
    """Text from a store for a place that reads Markdown: nothing in it may become a link, a picture or a heading."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~:$&-])", r"\\\1", " ".join(text.split()))


def battery(mv: int | None) -> str:
    """A coin cell's state."""
    if mv is None:
        return "Battery not known"
    if mv >= BATTERY_GOOD_MV:
        return "Battery good"
    return "Battery ageing" if mv >= BATTERY_LOW_MV else "Change battery"


def ago(seconds: int) -> str:
    """How long ago, in the coarsest unit that still says something."""
    if seconds < 90:
        return "just now"
    if seconds < 5400:
        return f"{round(seconds / 60)} minutes ago"
    if seconds < 48 * 3600:
        return f"{round(seconds / 3600)} hours ago"
    return f"{round(seconds / 86400)} days ago"


def local(time_s: int, utc_offset_min: int) -> dt.datetime:
    """A time on the farm's clock."""
    return dt.datetime.fromtimestamp(time_s, dt.timezone(dt.timedelta(minutes=utc_offset_min)))


def moment(time_s: int, utc_offset_min: int) -> str:
    """A time on the farm's clock, such as ``Tue 3 Jun, 06:15``."""
    when = local(time_s, utc_offset_min)
    return f"{when:%a} {when.day} {when:%b, %H:%M}"


def date(time_s: int, utc_offset_min: int) -> str:
    """A day on the farm's calendar, such as ``Tue 3 Jun``."""
    when = local(time_s, utc_offset_min)
    return f"{when:%a} {when.day} {when:%b}"


def day_relative(time_s: int, now_s: int, utc_offset_min: int) -> str:
    """``today``, ``yesterday`` or the date."""
    distance = (local(now_s, utc_offset_min).date() - local(time_s, utc_offset_min).date()).days
    names = {0: "today", 1: "yesterday", -1: "tomorrow"}
    return names.get(distance, f"on {date(time_s, utc_offset_min)}")
