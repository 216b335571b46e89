"""Bringing releases to nodes: which artefact, which fragment next, and what the node said about it.

A class A node listens only after it has spoken, so every step here answers something heard: an uplink, or the
network server's word that the last downlink went out. State is in the store; a restart changes nothing.

One node's session (``updates.session``)::

    closed ──setup sent──▶ setup ──accepted, or polled──▶ open ──missing = 0──▶ complete ──event──▶ (terminal)
       ▲                     │ repeated until answered      │ data, then coded fragments
       └──── lost by the node, or the data rate no longer carries its fragments ◀┘     abort: ──▶ delete
"""

from __future__ import annotations

import base64
import binascii
import sqlite3
from datetime import UTC, datetime

from gateway import sending_times
from gateway.clock import DAY_S, Clock
from gateway.ingest import Frame
from gateway.refusal import Refused
from gateway.store import Store
from shared_models.airtime import payload_limit_bytes
from shared_models.codes import EventCode, UpdateState
from shared_models.fragmentation import (
    FRAGMENT_HEADER_SIZE,
    Answer,
    FragmentationAnswer,
    FragmentationError,
    Fragmenter,
    SessionDeleteAnswer,
    SessionSetupAnswer,
    SessionStatusAnswer,
    session_delete_request,
)
from shared_models.frames import Event, Telemetry
from shared_models.messages import Assignment, Progress, progress_topic

SESSION_LIMIT = 6
"""Sessions opened for one node before its update counts as failed."""
SILENCE_S = 2 * DAY_S
"""A complete session that led to no new model for so long is opened again."""

_OPEN_STATES = (UpdateState.PENDING, UpdateState.SENDING)
_FOLLOWED = "u.state IN ('pending', 'sending', 'activated')"


class Updates:
    """Campaigns assigned to this site; every method runs inside the caller's transaction."""

    def __init__(self, store: Store, clock: Clock, site: str) -> None:
        self._store = store
        self._clock = clock
        self._topic = progress_topic(site)

    # What the server says

    def assign(self, assignment: Assignment) -> None:
        """Store an assignment and open an update for each of its nodes; an older sequence changes nothing.

        Raises:
            Refused: an artefact is not base64.
        """
        known = self._store.one("SELECT sequence FROM assignments WHERE campaign = ?", (assignment.campaign,))
        if known is not None and known["sequence"] >= assignment.sequence:
            return
        self._store.execute(
            """INSERT INTO assignments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (campaign) DO UPDATE SET
            sequence = excluded.sequence, action = excluded.action, received_s = excluded.received_s""",
            (
                assignment.campaign,
                assignment.sequence,
                assignment.action,
                assignment.version,
                assignment.model_id,
                self._clock.now_s(),
                *sending_times.as_row(assignment),
            ),
        )
        if self._store.one("SELECT 1 FROM artefacts WHERE campaign = ?", (assignment.campaign,)) is None:
            for position, artefact in enumerate(assignment.artefacts):
                try:
                    container = base64.b64decode(artefact.container, validate=True)
                except binascii.Error as error:
                    raise Refused("assignment", f"campaign {assignment.campaign}: artefact is not base64") from error
                self._store.execute(
                    "INSERT INTO artefacts VALUES (?, ?, ?, ?, ?, ?)",
                    (assignment.campaign, position, artefact.kind, artefact.base, artefact.device, container),
                )
        if assignment.action == "abort":
            self._abort(assignment.campaign)
        elif assignment.action == "run":
            for dev_eui in assignment.devices:
                self._open(assignment.campaign, dev_eui)

    def _open(self, campaign: int, dev_eui: str) -> None:
        opened = self._store.execute(
            "INSERT INTO updates (campaign, dev_eui, state, changed_s) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (campaign, dev_eui, UpdateState.PENDING, self._clock.now_s()),
        ).rowcount
        listed = self._store.one("SELECT 1 FROM devices WHERE dev_eui = ? AND listed = 1", (dev_eui,))
        if opened and listed is None:
            self._become(campaign, dev_eui, UpdateState.FAILED, "not one of this site's nodes")

    def _abort(self, campaign: int) -> None:
        rows = self._store.all(
            "SELECT dev_eui, session FROM updates WHERE campaign = ? AND state IN (?, ?) ORDER BY dev_eui",
            (campaign, *_OPEN_STATES),
        )
        for row in rows:
            session = "closed" if row["session"] == "closed" else "delete"
            self._set(campaign, row["dev_eui"], session=session, attempts=0)
            self._become(campaign, row["dev_eui"], UpdateState.FAILED, "aborted")

    # What the node says

    def hear(self, dev_eui: str, frame: Frame) -> None:
        """Learn what ``frame`` tells about the node's updates."""
        if isinstance(frame, FragmentationAnswer):
            for answer in frame.answers:
                row = self._current(dev_eui)
                if row is not None:
                    self._answered(row, answer)
        elif isinstance(frame, Event):
            self._happened(dev_eui, frame)
        elif isinstance(frame, Telemetry):
            for row in self._followed(dev_eui):
                self._reported(row, frame)

    def _answered(self, row: sqlite3.Row, answer: Answer) -> None:
        campaign, dev_eui, session = row["campaign"], row["dev_eui"], row["session"]
        if isinstance(answer, SessionDeleteAnswer) and session == "delete":
            self._set(campaign, dev_eui, session="closed")
        elif isinstance(answer, SessionSetupAnswer) and session == "setup":
            if answer.accepted:
                self._set(campaign, dev_eui, session="open", missing=row["fragments"])
            else:
                self._set(campaign, dev_eui, session="closed")
                self._become(campaign, dev_eui, UpdateState.FAILED, f"session refused: {answer.refusal.name}")
        elif isinstance(answer, SessionStatusAnswer) and session in {"setup", "open"}:
            self._polled(row, answer)

    def _polled(self, row: sqlite3.Row, answer: SessionStatusAnswer) -> None:
        campaign, dev_eui = row["campaign"], row["dev_eui"]
        if row["session"] == "setup":
            # The setup's answer may have been lost; a fresh session of the right size says the same.
            if answer.received == 0 and answer.missing == row["fragments"]:
                self._set(campaign, dev_eui, session="open", missing=answer.missing)
            return
        if answer.out_of_memory:
            self._set(campaign, dev_eui, session="closed")
            self._become(campaign, dev_eui, UpdateState.FAILED, "the node is out of memory")
            return
        self._set(campaign, dev_eui, missing=answer.missing)
        if answer.missing == 0:
            self._set(campaign, dev_eui, session="complete", changed_s=self._clock.now_s())
            self._report(campaign, dev_eui)
        elif _quarter(answer.missing, row["fragments"]) != _quarter(row["missing"], row["fragments"]):
            self._report(campaign, dev_eui)

    def _happened(self, dev_eui: str, event: Event) -> None:
        for row in self._followed(dev_eui):
            campaign = row["campaign"]
            tried = row["state"] == UpdateState.ACTIVATED or row["session"] == "complete"
            if event.code is EventCode.MODEL_ROLLED_BACK and tried:
                self._set(campaign, dev_eui, session="closed")
                self._become(campaign, dev_eui, UpdateState.ROLLED_BACK, "worse than the model before")
            elif event.model_version != row["version"]:
                continue
            elif event.code is EventCode.MODEL_ACTIVATED and row["state"] in _OPEN_STATES:
                self._activated(campaign, dev_eui, event.time_s)
            elif event.code is EventCode.MODEL_CONFIRMED:
                self._become(campaign, dev_eui, UpdateState.CONFIRMED)
            elif event.code is EventCode.UPDATE_REFUSED and row["state"] == UpdateState.SENDING:
                self._set(campaign, dev_eui, session="closed")
                self._become(campaign, dev_eui, UpdateState.REFUSED, event.refusal.name.lower())

    def _reported(self, row: sqlite3.Row, report: Telemetry) -> None:
        """Telemetry makes good for events that the radio lost."""
        campaign, dev_eui, version = row["campaign"], row["dev_eui"], row["version"]
        running = report.model_version
        if row["state"] == UpdateState.ACTIVATED:
            if running < version:
                self._become(campaign, dev_eui, UpdateState.ROLLED_BACK, f"runs version {running} again")
            elif running == version and not report.probation and report.time_s > row["activated_s"]:
                self._become(campaign, dev_eui, UpdateState.CONFIRMED, "as its telemetry says; the event was lost")
        elif running == version:
            self._activated(campaign, dev_eui, report.time_s)
        elif running > version:
            self._become(campaign, dev_eui, UpdateState.FAILED, f"superseded: runs version {running}")
        else:
            lost = row["session"] == "open" and not report.update_active
            silent = row["session"] == "complete" and self._clock.now_s() >= row["changed_s"] + SILENCE_S
            if lost or silent:
                self._set(campaign, dev_eui, session="closed")

    def _activated(self, campaign: int, dev_eui: str, time_s: int) -> None:
        self._set(campaign, dev_eui, session="closed", activated_s=time_s, missing=0)
        self._become(campaign, dev_eui, UpdateState.ACTIVATED)

    # What to say next

    def next_downlink(self, dev_eui: str, *, answering_uplink: bool) -> bytes | None:
        """The payload for fPort 201 that brings this node's update on, or None.

        Args:
            dev_eui: The node.
            answering_uplink: False when the last downlink's transmission is all that was heard: then only data
                fragments follow, for a session's setup and end wait for the node's own word.
        """
        row = self._current(dev_eui)
        if row is None:
            return None
        if row["session"] == "delete":
            return self._delete(row) if answering_uplink else None
        if row["action"] != "run" or row["session"] == "complete":
            return None
        if not sending_times.may_send(row, self._clock.now_s()):
            return None
        if row["session"] == "open":
            limit = payload_limit_bytes(row["data_rate"])
            if not answering_uplink and row["missing"] <= 1:
                return None  # What has just been sent may have been the last: the node shall say.
            if row["fragment_bytes"] + FRAGMENT_HEADER_SIZE <= limit:
                return self._fragment(row)
        if row["probation"]:
            return None  # The node keeps the model before to fall back on and has no room for another.
        return self._setup(row) if answering_uplink else None

    def _setup(self, row: sqlite3.Row) -> bytes | None:
        campaign, dev_eui = row["campaign"], row["dev_eui"]
        if row["session"] != "setup" and row["attempts"] >= SESSION_LIMIT:
            self._become(campaign, dev_eui, UpdateState.FAILED, f"{SESSION_LIMIT} sessions led to no new model")
            return None
        artefact = self._smallest_artefact(campaign, row["backbone_id"])
        if artefact is None:
            self._become(campaign, dev_eui, UpdateState.FAILED, "no artefact that this node can apply")
            return None
        try:
            fragmenter = Fragmenter(artefact["container"], payload_limit_bytes(row["data_rate"]), row["version"])
        except FragmentationError as error:
            self._become(campaign, dev_eui, UpdateState.FAILED, str(error))
            return None
        self._set(
            campaign,
            dev_eui,
            session="setup",
            artefact=artefact["position"],
            fragment_bytes=fragmenter.fragment_size,
            fragments=fragmenter.count,
            next_step=0,
            missing=None,
            attempts=row["attempts"] + (row["session"] != "setup"),
            downlinks=row["downlinks"] + 1,
        )
        if row["state"] == UpdateState.PENDING:
            self._become(campaign, dev_eui, UpdateState.SENDING, f"{artefact['kind']}, {fragmenter.count} fragments")
        return fragmenter.setup()

    def _fragment(self, row: sqlite3.Row) -> bytes:
        container = self._store.one(
            "SELECT container FROM artefacts WHERE campaign = ? AND position = ?", (row["campaign"], row["artefact"])
        )
        if container is None:
            raise LookupError(f"campaign {row['campaign']} has lost its artefact {row['artefact']}")
        # The same size at setup and now, so the same fragments, whatever the data rate has become.
        limit = row["fragment_bytes"] + FRAGMENT_HEADER_SIZE
        payload = Fragmenter(container["container"], limit, row["version"]).fragment(row["next_step"])
        self._set(row["campaign"], row["dev_eui"], next_step=row["next_step"] + 1, downlinks=row["downlinks"] + 1)
        return payload

    def _delete(self, row: sqlite3.Row) -> bytes | None:
        if row["attempts"] >= SESSION_LIMIT:
            self._set(row["campaign"], row["dev_eui"], session="closed")
            return None
        self._set(row["campaign"], row["dev_eui"], attempts=row["attempts"] + 1, downlinks=row["downlinks"] + 1)
        return session_delete_request()

    def _smallest_artefact(self, campaign: int, backbone_id: int | None) -> sqlite3.Row | None:
        return self._store.one(
            """SELECT position, kind, container FROM artefacts WHERE campaign = ? AND (kind = 'full' OR base = ?)
            ORDER BY length(container), position LIMIT 1""",
            (campaign, backbone_id),
        )

    # Rows

    def _current(self, dev_eui: str) -> sqlite3.Row | None:
        """The update this node's session belongs to: one to be cleared away first, else the newest to be sent."""
        return self._store.one(
            """SELECT u.*, a.version, a.action, a.not_before_s, a.not_after_s, a.from_hour, a.until_hour,
            d.backbone_id, d.data_rate, d.probation FROM updates u
            JOIN assignments a USING (campaign) JOIN devices d USING (dev_eui)
            WHERE u.dev_eui = ? AND d.reported_s IS NOT NULL
            AND (u.session = 'delete' OR u.state IN ('pending', 'sending'))
            ORDER BY u.session = 'delete' DESC, a.version DESC, u.campaign DESC LIMIT 1""",
            (dev_eui,),
        )

    def _followed(self, dev_eui: str) -> list[sqlite3.Row]:
        return self._store.all(
            f"""SELECT u.*, a.version FROM updates u JOIN assignments a USING (campaign)
            WHERE u.dev_eui = ? AND {_FOLLOWED} ORDER BY u.campaign""",  # noqa: S608 - a constant
            (dev_eui,),
        )

    def _set(self, campaign: int, dev_eui: str, **values: object) -> None:
        columns = ", ".join(f"{name} = ?" for name in values)
        self._store.execute(
            f"UPDATE updates SET {columns} WHERE campaign = ? AND dev_eui = ?",  # noqa: S608 - our own column names
            (*values.values(), campaign, dev_eui),
        )

    def _become(self, campaign: int, dev_eui: str, state: UpdateState, detail: str = "") -> None:
        self._set(campaign, dev_eui, state=state, detail=detail[:200], changed_s=self._clock.now_s())
        self._store.count(f"updates_{state}")
        self._report(campaign, dev_eui)

    def _report(self, campaign: int, dev_eui: str) -> None:
        row = self._store.one("SELECT * FROM updates WHERE campaign = ? AND dev_eui = ?", (campaign, dev_eui))
        if row is None:
            raise LookupError(f"campaign {campaign} has no update for {dev_eui}")
        detail = row["detail"]
        if row["state"] == UpdateState.SENDING and row["missing"] is not None:
            detail = f"{row['fragments'] - row['missing']} of {row['fragments']} fragments"
        progress = Progress(
            campaign=campaign,
            dev_eui=dev_eui,
            state=UpdateState(row["state"]),
            detail=detail,
            downlinks=row["downlinks"],
            time=datetime.fromtimestamp(self._clock.now_s(), UTC),
        )
        self._store.send("server", self._topic, progress.model_dump_json().encode())


def _quarter(missing: int | None, fragments: int) -> int:
    return 0 if missing is None else 4 * missing // max(fragments, 1)
