"""One downlink per node at a time: a farmer's override first, then settings, then the update's next step.

A second one in the network server's queue would arrive a wake later than it was decided, on stale knowledge.
``in_flight`` remembers the one that is there, until the network server says it went out, or two hours and two
uplinks have passed without a word of it.
"""

from __future__ import annotations

import sqlite3
import uuid

from gateway.clock import Clock
from gateway.commands import Commands
from gateway.duty import Duty
from gateway.network_servers import Downlink, NetworkServerAdapter, Transmitted
from gateway.store import Store
from gateway.updates import Updates
from shared_models.codes import FPort

UNHEARD_UPLINKS = 2
UNHEARD_S = 2 * 3600
_NAMESPACE = uuid.UUID("6f0d1a52-9d0b-5c57-8f0e-3a8e1c1f6b1d")
"""Downlink ids are derived from what caused them, so a repetition after a crash has the same id."""


class Downlinks:
    """Decides and enqueues; every method runs inside the caller's transaction."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        adapter: NetworkServerAdapter,
        commands: Commands,
        updates: Updates,
        duty: Duty,
    ) -> None:
        self._store = store
        self._clock = clock
        self._adapter = adapter
        self._commands = commands
        self._updates = updates
        self._duty = duty

    def after_uplink(self, dev_eui: str, uplink_id: str) -> None:
        """The node was heard: its queue is being emptied, and it may get its next downlink."""
        flight = self._store.one("SELECT * FROM in_flight WHERE dev_eui = ?", (dev_eui,))
        if flight is not None and (
            flight["uplinks"] + 1 < UNHEARD_UPLINKS or self._clock.now_s() < flight["queued_s"] + UNHEARD_S
        ):
            self._store.execute("UPDATE in_flight SET uplinks = uplinks + 1 WHERE dev_eui = ?", (dev_eui,))
            return
        if flight is not None:
            self._store.count("downlinks_unheard")
            self._store.execute("DELETE FROM in_flight WHERE dev_eui = ?", (dev_eui,))
            self._tell(flight, sent=False)
        self._enqueue_next(dev_eui, cause=f"up/{uplink_id}", answering_uplink=True)

    def transmitted(self, notice: Transmitted) -> None:
        """The network server sent our downlink, or gave it up: there is room for the next."""
        flight = self._store.one("SELECT * FROM in_flight WHERE dev_eui = ?", (notice.dev_eui,))
        if flight is None or flight["downlink_id"] != notice.downlink_id:
            return
        self._store.execute("DELETE FROM in_flight WHERE dev_eui = ?", (notice.dev_eui,))
        self._store.count("downlinks_transmitted" if notice.sent else "downlinks_given_up")
        if notice.sent:
            self._duty.sent(flight["airtime_s"])
        self._tell(flight, sent=notice.sent)
        self._enqueue_next(notice.dev_eui, cause=f"tx/{notice.downlink_id}", answering_uplink=False)

    def _tell(self, flight: sqlite3.Row, *, sent: bool) -> None:
        """Whoever asked for a downlink learns what became of it."""
        if flight["command"] is not None:
            self._commands.transmitted(flight["command"], sent=sent)
        if flight["campaign"] is not None:
            self._updates.went_out(flight["campaign"], flight["dev_eui"], sent=sent)

    def unprompted(self, dev_eui: str, cause: str) -> None:
        """A farmer asked for something: let it wait in the network server's queue for the node's next uplink."""
        if self._store.one("SELECT 1 FROM in_flight WHERE dev_eui = ?", (dev_eui,)) is None:
            self._enqueue_next(dev_eui, cause=cause, answering_uplink=False)

    def _enqueue_next(self, dev_eui: str, *, cause: str, answering_uplink: bool) -> None:
        asked = self._commands.next_downlink(dev_eui)
        step = None if asked else self._updates.next_downlink(dev_eui, answering_uplink=answering_uplink)
        if asked is not None:
            command, campaign, f_port, payload = asked[0], None, FPort.SETTINGS, asked[1]
        elif step is not None:
            command, campaign, f_port, payload = None, step.campaign, step.f_port, step.payload
        else:
            return
        device = self._store.one("SELECT network_id, data_rate FROM devices WHERE dev_eui = ?", (dev_eui,))
        downlink = Downlink(
            downlink_id=str(uuid.uuid5(_NAMESPACE, f"{dev_eui}/{cause}/{f_port}/{payload.hex()}")),
            dev_eui=dev_eui,
            f_port=f_port,
            payload=payload,
            network_id=None if device is None else device["network_id"],
        )
        airtime_s = self._duty.airtime_s(None if device is None else device["data_rate"], len(payload))
        self._store.execute(
            "INSERT INTO in_flight VALUES (?, ?, ?, 0, ?, ?, ?)",
            (dev_eui, downlink.downlink_id, self._clock.now_s(), command, campaign, airtime_s),
        )
        self._store.send("network", *self._adapter.command(downlink))
        self._store.count("downlinks")
