"""Bringing releases to nodes: which artefact, which frame next, and what the node said about it.

A class A node listens only after it has spoken, so every step here answers something heard: an uplink, or the
network server's word that the last downlink went out. State is in the store; a restart changes nothing.

A container that fits one downlink goes whole (fPort 14); any other in a TS004 session (``updates.session``)::

    closed ──setup sent──▶ setup ──accepted, or polled──▶ open ──missing = 0──▶ complete ──event──▶ (terminal)
       │ ▲                   │ repeated when it was lost      │ what the node lacks     ▲
       │ └── lost by the node, or the data rate no longer carries its fragments ◀┘       │
       └────────────────────── the whole container sent ─────────────────────────────────┘     abort: ──▶ delete

Downlinks are dear, time is not: where it is not known whether something arrived, the node's next word is waited for.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway import assignments, sending_times
from gateway.arrivals import Arrivals
from gateway.clock import DAY_S, Clock
from gateway.duty import Duty
from gateway.ingest import Frame
from gateway.store import Store
from shared_models.airtime import payload_limit_bytes
from shared_models.codes import EventCode, FPort, Refusal, UpdateState
from shared_models.fragmentation import (
    FRAGMENT_HEADER_SIZE,
    Answer,
    FragmentationAnswer,
    FragmentationError,
    Fragmenter,
    PackageVersionAnswer,
    SessionDeleteAnswer,
    SessionSetupAnswer,
    SessionStatusAnswer,
    SetupRefusal,
    package_version_request,
    session_delete_request,
)
from shared_models.frames import Event, Telemetry
from shared_models.messages import Assignment, Progress, progress_topic

DELETE_LIMIT = 6
"""Times a session's end is sent."""
DOWNLINK_LIMIT = 400
"""Downlinks one node's update may cost."""
ATTEMPT_LIMIT = 60
"""Setups and whole containers among them."""
PATIENCE_S = 90 * DAY_S
"""After which an update that no node took is given up."""
LATE_S = 3 * DAY_S
"""So long after the end of an assignment's time a node may still say that it has the update."""
SILENCE_S = 2 * DAY_S
"""A complete session that led to no new model for so long is opened again."""
SETUP_SILENCE_S = 2 * 3600
"""A node that took a session polls every quarter of an hour; eight polls are not lost in a row."""
CLOCKS_APART_S = 120
"""A report is of before a downlink when it is dated less than this after it."""

_OPEN_STATES = (UpdateState.PENDING, UpdateState.SENDING)
_FOLLOWED = "u.state IN ('pending', 'sending', 'activated')"


@dataclass(frozen=True)
class Step:
    """A downlink that brings a node's update on."""

    campaign: int
    f_port: FPort
    payload: bytes
    airtime_s: float


class Updates:
    """Campaigns assigned to this site; every method runs inside the caller's transaction."""

    def __init__(self, store: Store, clock: Clock, site: str, duty: Duty) -> None:
        self._store = store
        self._clock = clock
        self._topic = progress_topic(site)
        self._duty = duty

    # What the server says

    def assign(self, assignment: Assignment) -> None:
        """Store an assignment and open an update for each of its nodes; an older sequence changes nothing.

        Raises:
            Refused: an artefact is not base64.
        """
        if not assignments.keep(self._store, self._clock, assignment):
            return
        if assignment.action == "abort":
            self._abort(assignment.campaign)
        elif assignment.action == "run":
            for dev_eui in assignment.devices:
                self._open(assignment.campaign, dev_eui)

    def _open(self, campaign: int, dev_eui: str) -> None:
        now_s = self._clock.now_s()
        opened = self._store.execute(
            """INSERT INTO updates (campaign, dev_eui, state, changed_s, opened_s) VALUES (?, ?, ?, ?, ?)
            ON CONFLICT DO NOTHING""",
            (campaign, dev_eui, UpdateState.PENDING, now_s, now_s),
        ).rowcount
        listed = self._store.one("SELECT 1 FROM devices WHERE dev_eui = ? AND listed = 1", (dev_eui,))
        if opened and listed is None:
            self._become(campaign, dev_eui, UpdateState.FAILED, "not one of this site's nodes")

    def _abort(self, campaign: int) -> None:
        rows = self._store.all(
            "SELECT dev_eui, session, fragments FROM updates WHERE campaign = ? AND state IN (?, ?) ORDER BY dev_eui",
            (campaign, *_OPEN_STATES),
        )
        for row in rows:
            in_session = row["session"] != "closed" and row["fragments"] != 0
            self._set(campaign, row["dev_eui"], session="delete" if in_session else "closed", attempts=0)
            self._become(campaign, row["dev_eui"], UpdateState.FAILED, "aborted")

    def expire(self) -> None:
        """Give up what nobody took in time; nodes that are never heard are given up here alone."""
        now_s = self._clock.now_s()
        for row in self._store.all(
            """SELECT u.*, a.not_after_s FROM updates u JOIN assignments a USING (campaign)
            WHERE u.state IN ('pending', 'sending') AND (u.opened_s < ? OR a.not_after_s < ?)
            ORDER BY u.campaign, u.dev_eui""",
            (now_s - PATIENCE_S, now_s - LATE_S),
        ):
            late = row["not_after_s"] is not None and row["not_after_s"] < now_s - LATE_S
            self._give_up(row, "its time was over" if late else f"not done in {PATIENCE_S // DAY_S} days")

    def _give_up(self, row: sqlite3.Row, why: str) -> None:
        if row["downlinks"] == 0:
            how_far = "nothing could be sent"
        elif row["fragments"]:
            arrived = row["fragments"] - (row["fragments"] if row["missing"] is None else row["missing"])
            how_far = f"{row['downlinks']} downlinks sent, {arrived} of {row['fragments']} fragments arrived"
        else:
            how_far = f"{row['downlinks']} downlinks sent"
        self._set(row["campaign"], row["dev_eui"], session="closed")
        self._become(row["campaign"], row["dev_eui"], UpdateState.FAILED, f"given up, {why}: {how_far}")

    # What the node says

    def hear(self, dev_eui: str, frame: Frame) -> None:
        """Learn what ``frame`` tells about the node's updates."""
        if isinstance(frame, FragmentationAnswer):
            row = self._current(dev_eui)
            for answer in frame.read(1 if row is None else row["package"] or 1):
                self._answered(dev_eui, answer)
        elif isinstance(frame, Event):
            if frame.code is EventCode.BOOTED:
                self._store.execute("UPDATE devices SET package_asked = 0 WHERE dev_eui = ?", (dev_eui,))
            self._happened(dev_eui, frame)
        elif isinstance(frame, Telemetry):
            for row in self._followed(dev_eui):
                self._reported(row, frame)

    def _answered(self, dev_eui: str, answer: Answer) -> None:
        if isinstance(answer, PackageVersionAnswer):
            self._store.execute(
                "UPDATE devices SET package = ?, package_asked = 1 WHERE dev_eui = ?", (answer.version, dev_eui)
            )
        row = self._current(dev_eui)
        if row is None:
            return
        campaign, session = row["campaign"], row["session"]
        if isinstance(answer, SessionDeleteAnswer) and session == "delete":
            self._set(campaign, dev_eui, session="closed")
        elif isinstance(answer, SessionSetupAnswer) and session == "setup":
            self._set_up(row, answer)
        elif isinstance(answer, SessionStatusAnswer) and session in {"setup", "open"}:
            self._polled(row, answer)

    def _set_up(self, row: sqlite3.Row, answer: SessionSetupAnswer) -> None:
        campaign, dev_eui = row["campaign"], row["dev_eui"]
        if answer.accepted:
            self._opened(row)
            return
        self._set(campaign, dev_eui, session="closed")
        if answer.refusal == SetupRefusal.MEMORY and row["version"] > (row["model_version"] or 0):
            # A model is on probation: the node keeps the one before, and has no room for another until it has decided.
            self._store.execute("UPDATE devices SET probation = 1 WHERE dev_eui = ?", (dev_eui,))
            self._store.count("updates_put_off")
        else:
            self._become(campaign, dev_eui, UpdateState.FAILED, f"session refused: {answer.refusal.name}")

    def _opened(self, row: sqlite3.Row) -> None:
        arrivals = Arrivals(row["fragments"], row["package"], row["fragments"])
        self._set(row["campaign"], row["dev_eui"], session="open", missing=row["fragments"], arrivals=arrivals.dump())

    def _polled(self, row: sqlite3.Row, answer: SessionStatusAnswer) -> None:
        campaign, dev_eui = row["campaign"], row["dev_eui"]
        if not answer.exists:
            self._set(campaign, dev_eui, session="closed")
            return
        if row["session"] == "setup":
            # The setup's answer may have been lost; a fresh session of the right size says the same.
            if answer.received == 0 and answer.missing == row["fragments"]:
                self._opened(row)
            return
        if answer.out_of_memory:
            self._set(campaign, dev_eui, session="closed")
            self._become(campaign, dev_eui, UpdateState.FAILED, "the node is out of memory")
            return
        flight = self._store.one("SELECT campaign FROM in_flight WHERE dev_eui = ?", (dev_eui,))
        arrivals = Arrivals.load(row["arrivals"])
        arrivals.say(answer.missing, under_way=flight is not None and flight["campaign"] == campaign)
        self._set(campaign, dev_eui, missing=answer.missing, arrivals=arrivals.dump())
        if answer.missing == 0:
            self._set(campaign, dev_eui, session="complete", changed_s=self._clock.now_s())
            self._report(campaign, dev_eui)
        elif _quarter(answer.missing, row["fragments"]) != _quarter(row["missing"], row["fragments"]):
            self._report(campaign, dev_eui)

    def _happened(self, dev_eui: str, event: Event) -> None:
        for row in self._followed(dev_eui):
            if event.model_version != row["version"]:
                continue
            campaign, waits = row["campaign"], row["state"] in _OPEN_STATES
            if event.code is EventCode.MODEL_ACTIVATED and waits and not row["keys"]:
                self._activated(campaign, dev_eui, event.time_s)
            elif event.code is EventCode.MODEL_CONFIRMED and not row["keys"]:
                self._become(campaign, dev_eui, UpdateState.CONFIRMED)
            elif event.code is EventCode.MODEL_ROLLED_BACK and not row["keys"]:
                self._set(campaign, dev_eui, session="closed")
                self._become(campaign, dev_eui, UpdateState.ROLLED_BACK, "worse than the model before")
            elif event.code is EventCode.KEYS_CHANGED and waits and row["keys"]:
                self._keys_changed(row, "")
            elif event.code is EventCode.UPDATE_REFUSED and row["state"] == UpdateState.SENDING:
                self._refused(row, event)

    def _refused(self, row: sqlite3.Row, event: Event) -> None:
        campaign, dev_eui = row["campaign"], row["dev_eui"]
        # A second copy can meet what the first one did, where the node's word of that was lost.
        again = row["fragments"] == 0 and row["attempts"] > 1
        if event.refusal is Refusal.BUSY:
            self._store.execute("UPDATE devices SET probation = 1 WHERE dev_eui = ?", (dev_eui,))
            self._set(campaign, dev_eui, session="closed")
            self._store.count("updates_put_off")
        elif event.refusal is Refusal.VERSION and row["keys"]:
            self._keys_changed(row, "an earlier copy had arrived; its event was lost")
        elif event.refusal is Refusal.VERSION and again:
            self._activated(campaign, dev_eui, event.time_s)
        else:
            self._set(campaign, dev_eui, session="closed")
            self._become(campaign, dev_eui, UpdateState.REFUSED, event.refusal.name.lower())

    def _keys_changed(self, row: sqlite3.Row, detail: str) -> None:
        self._set(row["campaign"], row["dev_eui"], session="closed", missing=0)
        self._become(row["campaign"], row["dev_eui"], UpdateState.CONFIRMED, detail)

    def _reported(self, row: sqlite3.Row, report: Telemetry) -> None:
        """Telemetry makes good for events that the radio lost."""
        campaign, dev_eui, version = row["campaign"], row["dev_eui"], row["version"]
        running = report.model_version
        if row["keys"]:
            self._still_without(row, report)
        elif row["state"] == UpdateState.ACTIVATED:
            if running < version:
                self._become(campaign, dev_eui, UpdateState.ROLLED_BACK, f"runs version {running} again")
            elif running == version and not report.probation and report.time_s > row["activated_s"]:
                self._become(campaign, dev_eui, UpdateState.CONFIRMED, "as its telemetry says; the event was lost")
        elif running == version:
            self._activated(campaign, dev_eui, report.time_s)
        elif running > version:
            self._become(campaign, dev_eui, UpdateState.FAILED, f"superseded: runs version {running}")
        else:
            self._still_without(row, report)

    def _still_without(self, row: sqlite3.Row, report: Telemetry) -> None:
        """What the node's report says of a session, or of a whole container, that led to nothing yet."""
        campaign, dev_eui, sent_s = row["campaign"], row["dev_eui"], row["sent_s"]
        if sent_s is None or report.time_s <= sent_s + CLOCKS_APART_S:
            return  # Of before: frames of one wake are written together.
        session = row["session"]
        if session == "complete":
            # A whole container is opened in the wake that heard it; a session's end may have been a lost word.
            silent = self._clock.now_s() >= row["changed_s"] + SILENCE_S
            if row["fragments"] == 0 or silent:
                self._set(campaign, dev_eui, session="closed")
        elif session == "setup" and report.update_active:
            self._opened(row)
        elif session == "open" and report.update_active:
            arrivals = Arrivals.load(row["arrivals"])
            arrivals.incomplete()
            self._set(campaign, dev_eui, arrivals=arrivals.dump())
        elif session in {"setup", "open"}:
            self._set(campaign, dev_eui, session="closed")

    def _activated(self, campaign: int, dev_eui: str, time_s: int) -> None:
        self._set(campaign, dev_eui, session="closed", activated_s=time_s, missing=0)
        self._become(campaign, dev_eui, UpdateState.ACTIVATED)

    # What to say next

    def next_downlink(self, dev_eui: str, *, answering_uplink: bool) -> Step | None:
        """What brings this node's update on, or None.

        Args:
            dev_eui: The node.
            answering_uplink: False when the last downlink's transmission is all that was heard: then only data
                fragments follow, for everything else waits for the node's own word.
        """
        row = self._current(dev_eui)
        if row is None:
            return None
        if row["session"] == "delete":
            return self._delete(row) if answering_uplink else None
        now_s = self._clock.now_s()
        if row["action"] != "run" or row["session"] == "complete" or not sending_times.may_send(row, now_s):
            return None
        if row["downlinks"] >= DOWNLINK_LIMIT or row["attempts"] >= ATTEMPT_LIMIT:
            self._give_up(row, "too many downlinks")
            return None
        if row["session"] == "open":
            if row["fragment_bytes"] + FRAGMENT_HEADER_SIZE <= payload_limit_bytes(row["data_rate"]):
                return self._fragment(row)
        elif row["session"] == "setup" and not self._was_lost(row):
            return None
        return self._begin(row) if answering_uplink else None

    def _was_lost(self, row: sqlite3.Row) -> bool:
        """Whether the node has surely not heard its session's setup, or never will be known to have."""
        if row["sent_s"] is None:
            return True
        # Its answer goes before every other frame: another one right behind says that there is none.
        at_once = row["asked_f_cnt"] is not None and row["f_cnt"] == row["asked_f_cnt"] + 1
        return bool(at_once or self._clock.now_s() >= row["sent_s"] + SETUP_SILENCE_S)

    def _begin(self, row: sqlite3.Row) -> Step | None:
        """The whole container, or the setup of a session."""
        campaign, dev_eui = row["campaign"], row["dev_eui"]
        artefact = assignments.smallest(self._store, campaign, dev_eui)
        if artefact is None:
            self._become(campaign, dev_eui, UpdateState.FAILED, "no artefact that this node can apply")
            return None
        limit = payload_limit_bytes(row["data_rate"])
        whole = len(artefact["container"]) <= limit
        if row["probation"] and not (whole and row["keys"]):
            return None  # The node keeps the model before to fall back on and has no room for another.
        package = 2 if (row["node_package"] or 1) >= 2 else 1
        if whole:
            step = self._admit(row, FPort.CONTAINER, artefact["container"])
            facts: dict[str, object] = {"session": "complete", "fragments": 0, "fragment_bytes": None}
            what = "one frame"
        else:
            try:
                sender = Fragmenter(artefact["container"], limit, row["version"], package, row["attempts"] + 1)
            except FragmentationError as error:
                self._become(campaign, dev_eui, UpdateState.FAILED, str(error))
                return None
            question = b"" if row["package_asked"] else package_version_request()
            step = self._admit(row, FPort.FRAGMENTATION, question + sender.setup())
            facts = {"session": "setup", "fragments": sender.count, "fragment_bytes": sender.fragment_size}
            what = f"{sender.count} fragments"
        if step is None:
            return None
        self._set(
            campaign,
            dev_eui,
            artefact=artefact["position"],
            package=package,
            arrivals=None,
            missing=None,
            sent_s=None,
            asked_f_cnt=None,
            attempts=row["attempts"] + 1,
            **facts,
        )
        if row["state"] == UpdateState.PENDING:
            self._become(campaign, dev_eui, UpdateState.SENDING, f"{artefact['kind']}, {what}")
        return step

    def _fragment(self, row: sqlite3.Row) -> Step | None:
        arrivals = Arrivals.load(row["arrivals"])
        if not arrivals.useful:
            return None  # What has been sent may have been the last: the node shall say.
        container = self._store.one(
            "SELECT container FROM artefacts WHERE campaign = ? AND position = ?", (row["campaign"], row["artefact"])
        )
        if container is None:
            raise LookupError(f"campaign {row['campaign']} has lost its artefact {row['artefact']}")
        # The same size at setup and now, so the same fragments, whatever the data rate has become.
        limit = row["fragment_bytes"] + FRAGMENT_HEADER_SIZE
        sender = Fragmenter(container["container"], limit, row["version"], row["package"])
        step = self._admit(row, FPort.FRAGMENTATION, sender.fragment(arrivals.choose() - 1))
        if step is not None:
            self._set(row["campaign"], row["dev_eui"], arrivals=arrivals.dump())
        return step

    def _delete(self, row: sqlite3.Row) -> Step | None:
        if row["attempts"] >= DELETE_LIMIT:
            self._set(row["campaign"], row["dev_eui"], session="closed")
            return None
        step = self._admit(row, FPort.FRAGMENTATION, session_delete_request())
        if step is not None:
            self._set(row["campaign"], row["dev_eui"], attempts=row["attempts"] + 1)
        return step

    def _admit(self, row: sqlite3.Row, f_port: FPort, payload: bytes) -> Step | None:
        """The step, counted, if the air has room for it now."""
        airtime_s = self._duty.airtime_s(row["data_rate"], len(payload))
        if not self._duty.has_room(airtime_s, waited=row["held_s"] is not None):
            self._set(row["campaign"], row["dev_eui"], held_s=self._clock.now_s())
            self._store.count("downlinks_held_back")
            return None
        self._set(row["campaign"], row["dev_eui"], downlinks=row["downlinks"] + 1, held_s=None)
        return Step(row["campaign"], f_port, payload, airtime_s)

    def went_out(self, campaign: int, dev_eui: str, *, sent: bool) -> None:
        """The network server has sent a step's downlink, or given it up, or said nothing for long."""
        row = self._store.one(
            """SELECT u.session, u.arrivals, d.f_cnt FROM updates u JOIN devices d USING (dev_eui)
            WHERE u.campaign = ? AND u.dev_eui = ?""",
            (campaign, dev_eui),
        )
        if row is None:
            return
        if sent:
            self._set(campaign, dev_eui, sent_s=self._clock.now_s(), asked_f_cnt=row["f_cnt"])
        elif row["session"] == "open":
            arrivals = Arrivals.load(row["arrivals"])
            arrivals.withdraw()
            self._set(campaign, dev_eui, arrivals=arrivals.dump())
        elif row["session"] in {"setup", "complete"}:
            self._set(campaign, dev_eui, session="closed")

    # Rows

    def _current(self, dev_eui: str) -> sqlite3.Row | None:
        """The update this node's session belongs to: one to be cleared away or under way, else the newest to be sent.

        Only one at a time: a whole container takes the place of a session on the node.
        """
        return self._store.one(
            """SELECT u.*, a.version, a.action, a.keys, a.not_before_s, a.not_after_s, a.from_hour, a.until_hour,
            d.model_version, d.data_rate, d.probation, d.f_cnt, d.package AS node_package, d.package_asked
            FROM updates u JOIN assignments a USING (campaign) JOIN devices d USING (dev_eui)
            WHERE u.dev_eui = ? AND d.reported_s IS NOT NULL
            AND (u.session = 'delete' OR u.state IN ('pending', 'sending'))
            ORDER BY u.session = 'delete' DESC, a.action = 'run' DESC, u.session IN ('setup', 'open') DESC,
            a.version DESC, u.campaign DESC LIMIT 1""",
            (dev_eui,),
        )

    def _followed(self, dev_eui: str) -> list[sqlite3.Row]:
        return self._store.all(
            f"""SELECT u.*, a.version, a.keys FROM updates u JOIN assignments a USING (campaign)
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
