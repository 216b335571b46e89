"""Farmers' overrides and changes of settings: rows in ``commands``, one confirmed downlink each.

A farmer's newest override supersedes the older ones and goes ahead of settings. Changes of settings reach a node in the
order they were asked for: the next is sent when the one before it was applied or given up.
"""

from __future__ import annotations

import logging
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from gateway.clock import DAY_S, Clock
from gateway.store import Store
from shared_models.codes import EventCode
from shared_models.configuration import explain
from shared_models.frames import FrameError, Override, OverrideAction, SettingsChange
from shared_models.messages import DevEui, Message
from shared_models.settings import Setting

log = logging.getLogger(__name__)

REPEAT_LIMIT = 5
"""Times a stop, a resume or a change of settings is sent until the node says it has applied it; water is sent once
only, for a lost answer must never water twice."""
LONGEST_STOP_S = 400 * DAY_S
NEW_AT_ONCE = 100
"""Commands taken in one transaction."""


class _Stop(Message):
    dev_eui: DevEui
    until_s: Annotated[int, Field(ge=0, le=0xFFFFFFFF)]


class _Water(Message):
    dev_eui: DevEui
    dose_mm: Annotated[float, Field(ge=0.1, le=100)]


class _Resume(Message):
    dev_eui: DevEui


class _Settings(Message):
    dev_eui: DevEui
    settings: dict[str, int]

    def change(self) -> SettingsChange:
        unknown = sorted(name for name in self.settings if name.upper() not in Setting.__members__)
        if unknown:
            raise ValueError(f"no setting that can be changed is called {unknown[0]!r:.40}")
        return SettingsChange({Setting[name.upper()]: value for name, value in self.settings.items()})


_ARGUMENTS: dict[str, TypeAdapter[_Stop | _Water | _Resume | _Settings]] = {
    "override.stop": TypeAdapter(_Stop),
    "override.water": TypeAdapter(_Water),
    "override.resume": TypeAdapter(_Resume),
    "settings.change": TypeAdapter(_Settings),
}


class Commands:
    """Takes new commands and follows them to the node; every method runs inside the caller's transaction."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def pending(self) -> bool:
        """Whether somebody has asked for something new."""
        return self._store.one("SELECT 1 FROM commands WHERE state = 'new' LIMIT 1") is not None

    def take_new(self) -> list[tuple[int, str]]:
        """Check new commands; the ids and nodes of those that now wait for a downlink."""
        taken = []
        for row in self._store.all(
            "SELECT id, action, arguments FROM commands WHERE state = 'new' ORDER BY id LIMIT ?", (NEW_AT_ONCE,)
        ):
            try:
                dev_eui = self._check(row["action"], row["arguments"])
            except (ValueError, FrameError) as error:
                reason = explain(error) if isinstance(error, ValidationError) else str(error)
                log.warning("refused command %d: %.200s", row["id"], reason)
                self._store.count("refused.command")
                self._become(row["id"], "refused", reason)
                continue
            if row["action"].startswith("override."):  # the farmer's newest word counts
                self._store.execute(
                    """UPDATE commands SET state = 'refused', result = 'superseded', changed_s = ?
                    WHERE dev_eui = ? AND action LIKE 'override.%' AND state IN ('waiting', 'queued', 'sent')""",
                    (self._clock.now_s(), dev_eui),
                )
            self._store.execute("UPDATE commands SET dev_eui = ? WHERE id = ?", (dev_eui, row["id"]))
            self._become(row["id"], "waiting", "for the node's next uplink")
            taken.append((row["id"], dev_eui))
        return taken

    def next_downlink(self, dev_eui: str) -> tuple[int, bytes] | None:
        """The command that waits for this node, and its payload for fPort 13."""
        row = self._store.one(
            """SELECT id, action, arguments FROM commands WHERE dev_eui = ? AND state = 'waiting'
            ORDER BY action NOT LIKE 'override.%', id LIMIT 1""",
            (dev_eui,),
        )
        if row is None:
            return None
        if row["action"] == "settings.change" and self._awaits_answer(dev_eui):
            return None
        self._store.execute("UPDATE commands SET attempts = attempts + 1 WHERE id = ?", (row["id"],))
        self._become(row["id"], "queued", "at the network server, for the node's next uplink")
        return row["id"], _frame(row["action"], row["arguments"]).encode()

    def transmitted(self, command: int, *, sent: bool) -> None:
        """The network server has sent a command's downlink, or given it up."""
        if self._store.one("SELECT 1 FROM commands WHERE id = ? AND state = 'queued'", (command,)) is None:
            return
        if sent:
            self._become(command, "sent", "the node has not answered yet")
        else:
            self._retry(command)

    def applied(self, dev_eui: str) -> None:
        """The node reports :data:`EventCode.SETTINGS_APPLIED`."""
        row = self._store.one(
            """SELECT id FROM commands WHERE dev_eui = ? AND attempts > 0 AND state IN ('waiting', 'queued', 'sent')
            ORDER BY state = 'sent' DESC, changed_s DESC, id DESC LIMIT 1""",
            (dev_eui,),
        )
        if row is not None:
            self._become(row["id"], "done", EventCode.SETTINGS_APPLIED.name.lower())

    def unanswered(self, dev_eui: str) -> None:
        """The node spoke of something else after a command was sent: it may not have heard it."""
        for row in self._store.all("SELECT id, action FROM commands WHERE dev_eui = ? AND state = 'sent'", (dev_eui,)):
            if row["action"] != "override.water":
                self._retry(row["id"])

    def _awaits_answer(self, dev_eui: str) -> bool:
        """Whether a change of settings is under way; one after it would overtake its repetition."""
        return (
            self._store.one(
                """SELECT 1 FROM commands WHERE dev_eui = ? AND action = 'settings.change'
                AND state IN ('queued', 'sent')""",
                (dev_eui,),
            )
            is not None
        )

    def _retry(self, command: int) -> None:
        row = self._store.one("SELECT attempts FROM commands WHERE id = ?", (command,))
        if row is not None and row["attempts"] < REPEAT_LIMIT:
            self._become(command, "waiting", "to be sent again")
        else:
            self._become(command, "failed", "sent several times, never confirmed")

    def _check(self, action: str, arguments: str) -> str:
        if action not in _ARGUMENTS:
            raise ValueError(f"unknown action {action!r:.40}")
        dev_eui = _ARGUMENTS[action].validate_json(arguments, strict=False).dev_eui
        if self._store.one("SELECT 1 FROM devices WHERE dev_eui = ? AND listed = 1", (dev_eui,)) is None:
            raise ValueError(f"{dev_eui} is not one of this site's nodes")
        frame = _frame(action, arguments)
        frame.encode()
        now_s = self._clock.now_s()
        if isinstance(frame, Override) and frame.action is OverrideAction.STOP:
            if not now_s < frame.argument <= now_s + LONGEST_STOP_S:
                raise ValueError("until_s is not in the next 400 days")
        elif isinstance(frame, SettingsChange):
            _check_window(frame)
        return dev_eui

    def _become(self, command: int, state: str, result: str) -> None:
        self._store.execute(
            "UPDATE commands SET state = ?, result = ?, changed_s = ? WHERE id = ?",
            (state, result[:300], self._clock.now_s(), command),
        )


def _check_window(change: SettingsChange) -> None:
    start_h, end_h = (change.changes.get(setting) for setting in (Setting.WINDOW_START_H, Setting.WINDOW_END_H))
    if start_h is not None and end_h is not None and start_h >= end_h:
        raise ValueError(f"a watering window from {start_h} to {end_h} is empty")


def _frame(action: str, arguments: str) -> Override | SettingsChange:
    asked = _ARGUMENTS[action].validate_json(arguments)
    if isinstance(asked, _Settings):
        return asked.change()
    if isinstance(asked, _Stop):
        return Override(OverrideAction.STOP, asked.until_s)
    if isinstance(asked, _Water):
        return Override(OverrideAction.WATER, round(10 * asked.dose_mm))
    return Override(OverrideAction.RESUME)
