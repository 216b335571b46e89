"""Small numbers that travel: what happened on a node, why it decided, and where an update stands."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Board(IntEnum):
    """Target boards, as written in containers and telemetry."""

    STM32L072 = 1
    STM32L432 = 2


class Crop(IntEnum):
    """Crops with FAO-56 coefficients on the node (table 12, 17 and 22)."""

    MAIZE = 1
    SOYBEAN = 2
    POTATO = 3
    DRY_BEAN = 4
    TOMATO = 5
    SUGAR_BEET = 6
    SORGHUM = 7
    WHEAT = 8


class Mode(IntEnum):
    """What the node decides with, from most to least trusted."""

    MODEL = 0
    """Balance, probes, and the learned residual."""
    PHYSICS = 1
    """Balance and probes; no valid model, or its head is no better than the physics."""
    BALANCE_ONLY = 2
    """No plausible probe: the balance alone, cautiously."""
    COMMISSIONING = 3
    """Before planting: watching the soak drain, never watering."""


class Reason(IntEnum):
    """Why the node watered, or did not."""

    NOT_NEEDED = 0
    DEPLETED = 1
    """Depletion passed the threshold: a dose was given."""
    COMMISSIONING = 2
    OUTSIDE_WINDOW = 3
    MINIMUM_INTERVAL = 4
    DAILY_CAP = 5
    SEASONAL_CAP = 6
    SEASON_ENDING = 7
    SENSOR_FAULT = 8
    OVERRIDE_STOP = 9
    """The farmer said stop."""
    OVERRIDE_WATER = 10
    """The farmer asked for water."""
    VALVE_FAULT = 11
    SEASON_OVER = 12
    LOW_BATTERY = 13
    """The battery could not close the valve with certainty, so it is not opened."""


class EventCode(IntEnum):
    """Events on fPort 12."""

    BOOTED = 1
    WATERED = 2
    SENSOR_FAULT = 3
    SENSOR_RECOVERED = 4
    VALVE_FAULT = 5
    ANCHORED = 6
    """The drained upper limit was read after the commissioning soak."""
    MODEL_ACTIVATED = 7
    """A verified update runs on probation."""
    MODEL_CONFIRMED = 8
    MODEL_ROLLED_BACK = 9
    UPDATE_REFUSED = 10
    SETTINGS_APPLIED = 11
    LOW_BATTERY = 12
    """The battery sagged below what opening a valve needs."""
    BATTERY_RECOVERED = 13
    CLOCK_CORRECTED = 14
    """The network's time differed by more than a wake, or the clock had been lost."""
    MODEM_RESTARTED = 15
    """The modem had stopped answering and was reset."""
    STORAGE_FAULT = 16
    """Flash refused a record; the one before it still holds."""
    SENSORS_DISAGREE = 17
    """Probes and balance contradict each other: the physics alone decides until they agree."""
    SENSORS_AGREE = 18
    KEYS_CHANGED = 19
    """A signed change of the trusted keys was carried out."""


class ResetCause(IntEnum):
    """Why a node started; travels in BOOTED."""

    POWER_ON = 0
    PIN = 1
    SOFTWARE = 2
    WATCHDOG = 3
    """The firmware hung."""
    BROWN_OUT = 4
    """The supply fell below what the core needs."""


class Valve(IntEnum):
    """How a valve is driven."""

    HELD = 0
    """Open while its line is high; a pull-down closes it."""
    LATCHING = 1
    """One pulse opens it, another closes it."""


class Refusal(IntEnum):
    """Why a node refused an update; travels in UPDATE_REFUSED."""

    NONE = 0
    FORMAT = 1
    LENGTH = 2
    SIGNATURE = 3
    TARGET = 4
    VERSION = 5
    """Not newer than what ran before."""
    BASE = 6
    DECODE = 7
    MODEL_ID = 8
    SELF_TEST = 9
    FLASH = 10
    BUSY = 11
    """A model is on probation and its predecessor must be kept: ask again later."""


class FPort(IntEnum):
    """LoRaWAN application ports."""

    TELEMETRY = 10
    STATISTICS = 11
    EVENTS = 12
    SETTINGS = 13
    """Downlink: farmer overrides."""
    CONTAINER = 14
    """Downlink: a whole container that fits one frame."""
    FRAGMENTATION = 201
    """TS004 fragmented data block transport, both ways."""


class UpdateState(StrEnum):
    """Where one node's update stands; reported by its gateway."""

    PENDING = "pending"
    SENDING = "sending"
    ACTIVATED = "activated"
    CONFIRMED = "confirmed"
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"
    FAILED = "failed"


class CampaignState(StrEnum):
    """The life of a campaign."""

    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"
    """Stopped by its error threshold."""
    ABORTED = "aborted"
    DONE = "done"
