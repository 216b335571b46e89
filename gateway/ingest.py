"""Taking one uplink: identity, plausibility, and its rows in the store; all inside the caller's transaction."""

from __future__ import annotations

import logging

from gateway.clock import DAY_S, Clock, dawn_before
from gateway.network_servers import Uplink
from gateway.refusal import Refused
from gateway.store import Store
from shared_models.codes import EventCode
from shared_models.fragmentation import FragmentationAnswer
from shared_models.frames import (
    NO_VALUE,
    SENSOR_FAULTS,
    Event,
    FrameError,
    StatisticsFragment,
    Telemetry,
    decode_uplink,
)
from shared_models.moments import MomentsError, Snapshot

log = logging.getLogger(__name__)

EARLIEST_S = 946_684_800
"""2000-01-01, where the clocks of the boards begin: nothing of ours is older."""
LATEST_S = 0xFFFFFFFF
AHEAD_S = DAY_S
"""An uplink cannot come from later than this after now."""
SIMULATED_AHEAD_S = 40 * DAY_S
"""A conductor sends a whole step's uplinks ahead of its tick."""
NODE_BEHIND_S = 31 * DAY_S
"""A node repeats an event it could not deliver for so long at most."""
OPEN_SNAPSHOTS = 4
"""Incomplete snapshots kept per node; the oldest gives way."""

Frame = Telemetry | StatisticsFragment | Event | FragmentationAnswer

_PLAUSIBLE = {
    "battery_mv": (0, 6000),
    "vwc_shallow_e4": (-2000, 10_000),
    "vwc_deep_e4": (-2000, 10_000),
    "soil_temp_c100": (-6000, 8500),
    "air_temp_c100": (-6000, 8500),
    "depletion_e1_mm": (-5000, 15_000),
    "taw_e1_mm": (0, 15_000),
    "threshold_permille": (0, 1000),
    "forecast_24h_e4": (-10_000, 10_000),
}
_MAY_BE_ABSENT = frozenset({"vwc_shallow_e4", "vwc_deep_e4", "soil_temp_c100", "air_temp_c100", "forecast_24h_e4"})


_TOLD_BY_DETAIL = frozenset(
    {
        EventCode.BOOTED,
        EventCode.SENSOR_FAULT,
        EventCode.SENSOR_RECOVERED,
        EventCode.MODEL_ROLLED_BACK,
        EventCode.UPDATE_REFUSED,
        EventCode.MODEM_RESTARTED,
    }
)
"""Events whose cause is their detail; that of the others is a reason."""


class Ingest:
    """Commits uplinks of listed nodes, each once."""

    def __init__(self, store: Store, clock: Clock, utc_offset_min: int) -> None:
        self._store = store
        self._clock = clock
        self._utc_offset_min = utc_offset_min

    def take(self, uplink: Uplink) -> Frame | None:
        """Commit one uplink and return its frame; None for one that was taken before.

        Raises:
            Refused: an unknown device, an absurd time, a frame that cannot be decoded or is implausible.
        """
        device = self._store.one("SELECT listed, f_cnt FROM devices WHERE dev_eui = ?", (uplink.dev_eui,))
        if device is None or not device["listed"]:
            raise Refused("unknown_device", f"{uplink.dev_eui} is not in this gateway's configuration")
        received_s = self._reception_time(uplink)
        try:
            frame = decode_uplink(uplink.f_port, uplink.payload)
        except FrameError as error:
            raise Refused("frame", f"{uplink.dev_eui}: {error}") from error
        self._refuse_the_implausible(uplink.dev_eui, frame, received_s)
        if self._seen_before(uplink, received_s):
            return None
        if self._clock.simulated:
            self._clock.advance(received_s)
        self._hear(uplink, device["f_cnt"], received_s)
        if isinstance(frame, Telemetry):
            self._telemetry(uplink.dev_eui, frame, received_s)
        elif isinstance(frame, Event):
            self._event(uplink.dev_eui, frame, received_s)
        elif isinstance(frame, StatisticsFragment):
            self._statistics(uplink.dev_eui, frame, received_s)
        return frame

    def rejoined(self, dev_eui: str) -> None:
        """The node's frame counter starts again."""
        self._store.execute("UPDATE devices SET f_cnt = NULL WHERE dev_eui = ?", (dev_eui,))

    def prune(self, retention_days: int) -> None:
        """Drop what is older than ``retention_days``; snapshots and daily roll-ups stay."""
        oldest_s = self._clock.now_s() - retention_days * DAY_S
        for statement in (
            "DELETE FROM uplinks WHERE received_s < ?",
            "DELETE FROM telemetry WHERE time_s < ?",
            "DELETE FROM events WHERE time_s < ?",
            "DELETE FROM fragments WHERE received_s < ?",
        ):
            self._store.execute(statement, (oldest_s,))

    def _reception_time(self, uplink: Uplink) -> int:
        now_s = self._clock.now_s()
        received_s = now_s if uplink.received_s is None else uplink.received_s
        ahead_s = SIMULATED_AHEAD_S if self._clock.simulated else AHEAD_S
        latest_s = now_s + ahead_s if now_s else LATEST_S
        if not EARLIEST_S <= received_s <= min(latest_s, LATEST_S):
            raise Refused("time", f"{uplink.dev_eui}: received at {received_s}, now is {now_s}")
        return received_s

    def _refuse_the_implausible(self, dev_eui: str, frame: Frame, received_s: int) -> None:
        if isinstance(frame, Telemetry | Event) and not (
            received_s - NODE_BEHIND_S <= frame.time_s <= received_s + AHEAD_S
        ):
            raise Refused("time", f"{dev_eui}: the node's clock says {frame.time_s}, it was heard at {received_s}")
        if isinstance(frame, Telemetry):
            for name, (low, high) in _PLAUSIBLE.items():
                value = getattr(frame, name)
                if not low <= value <= high and not (value == NO_VALUE and name in _MAY_BE_ABSENT):
                    raise Refused("implausible", f"{dev_eui}: {name} = {value}, plausible is {low}..{high}")

    def _seen_before(self, uplink: Uplink, received_s: int) -> bool:
        inserted = self._store.execute(
            "INSERT INTO uplinks VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (
                f"{uplink.dev_eui}/{uplink.uplink_id}",
                uplink.dev_eui,
                received_s,
                uplink.f_port,
                uplink.f_cnt,
                uplink.data_rate,
                len(uplink.payload),
            ),
        ).rowcount
        self._store.count("uplinks" if inserted else "duplicates")
        return not inserted

    def _hear(self, uplink: Uplink, last_f_cnt: int | None, received_s: int) -> None:
        gap = uplink.f_cnt - last_f_cnt - 1 if last_f_cnt is not None else 0
        self._store.execute(
            """UPDATE devices SET network_id = ?, first_seen_s = coalesce(first_seen_s, ?),
            last_seen_s = max(coalesce(last_seen_s, 0), ?), data_rate = ?, rssi_dbm = ?, snr_db = ?,
            frames = frames + 1, frames_missed = frames_missed + ?, f_cnt = ? WHERE dev_eui = ?""",
            (
                uplink.network_id,
                received_s,
                received_s,
                uplink.data_rate,
                uplink.rssi_dbm,
                uplink.snr_db,
                gap if 0 < gap < 10_000 else 0,
                uplink.f_cnt,
                uplink.dev_eui,
            ),
        )

    def _telemetry(self, dev_eui: str, frame: Telemetry, received_s: int) -> None:
        faults = int(frame.flags & SENSOR_FAULTS)
        added = self._store.execute(
            f"INSERT INTO telemetry VALUES ({', '.join('?' * 22)}) ON CONFLICT DO NOTHING",  # noqa: S608 - marks only
            (
                dev_eui,
                frame.time_s,
                received_s,
                frame.mode,
                frame.valve_open,
                faults,
                frame.update_active,
                frame.anchored,
                frame.battery_mv,
                _present(frame.vwc_shallow_e4),
                _present(frame.vwc_deep_e4),
                _present(frame.soil_temp_c100),
                _present(frame.air_temp_c100),
                frame.depletion_e1_mm,
                frame.taw_e1_mm,
                frame.threshold_permille,
                _present(frame.forecast_24h_e4) or 0,
                frame.water_season_e1_mm,
                frame.last_reason,
                frame.model_version,
                frame.backbone_id,
                frame.board,
            ),
        ).rowcount
        if not added:
            return
        self._store.execute(
            """UPDATE devices SET battery_mv = ?, mode = ?, faults = ?, model_version = ?, backbone_id = ?,
            probation = ?, reported_s = ? WHERE dev_eui = ? AND coalesce(reported_s, 0) <= ?""",
            (
                frame.battery_mv,
                frame.mode,
                faults,
                frame.model_version,
                frame.backbone_id,
                frame.probation,
                frame.time_s,
                dev_eui,
                frame.time_s,
            ),
        )
        self._store.execute(
            """INSERT INTO daily VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0)
            ON CONFLICT (dev_eui, day_s) DO UPDATE SET reports = reports + 1,
            depletion_min_e1_mm = min(coalesce(depletion_min_e1_mm, excluded.depletion_min_e1_mm),
                                      excluded.depletion_min_e1_mm),
            depletion_max_e1_mm = max(coalesce(depletion_max_e1_mm, excluded.depletion_max_e1_mm),
                                      excluded.depletion_max_e1_mm),
            taw_e1_mm = excluded.taw_e1_mm, threshold_permille = excluded.threshold_permille,
            vwc_shallow_e4 = coalesce(excluded.vwc_shallow_e4, vwc_shallow_e4),
            vwc_deep_e4 = coalesce(excluded.vwc_deep_e4, vwc_deep_e4),
            soil_temp_c100 = coalesce(excluded.soil_temp_c100, soil_temp_c100),
            battery_min_mv = min(coalesce(battery_min_mv, excluded.battery_min_mv), excluded.battery_min_mv)""",
            (
                dev_eui,
                dawn_before(frame.time_s, self._utc_offset_min),
                frame.depletion_e1_mm,
                frame.depletion_e1_mm,
                frame.taw_e1_mm,
                frame.threshold_permille,
                _present(frame.vwc_shallow_e4),
                _present(frame.vwc_deep_e4),
                _present(frame.soil_temp_c100),
                frame.battery_mv,
            ),
        )

    def _event(self, dev_eui: str, frame: Event, received_s: int) -> None:
        cause = frame.detail if frame.code in _TOLD_BY_DETAIL else frame.reason
        added = self._store.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (
                dev_eui,
                frame.time_s,
                frame.code,
                int(cause),
                received_s,
                frame.dose_e1_mm,
                frame.depletion_e1_mm,
                frame.taw_e1_mm,
                frame.threshold_permille,
                frame.model_version,
            ),
        ).rowcount
        if added and frame.code is EventCode.WATERED:
            self._store.execute(
                """INSERT INTO daily (dev_eui, day_s, reports, water_e1_mm, doses) VALUES (?, ?, 0, ?, 1)
                ON CONFLICT (dev_eui, day_s) DO UPDATE SET water_e1_mm = water_e1_mm + excluded.water_e1_mm,
                doses = doses + 1""",
                (dev_eui, dawn_before(frame.time_s, self._utc_offset_min), frame.dose_e1_mm),
            )

    def _statistics(self, dev_eui: str, frame: StatisticsFragment, received_s: int) -> None:
        whose = (dev_eui, frame.backbone_id, frame.season, frame.session, frame.count)
        same = "dev_eui = ? AND backbone_id = ? AND season = ? AND session = ? AND count = ?"
        known = self._store.one(
            f"SELECT data FROM fragments WHERE {same} AND position = ?",  # noqa: S608 - a constant
            (*whose, frame.index),
        )
        if known is not None and known["data"] != frame.data:
            # The session counter has come round: what was kept belongs to another snapshot.
            self._store.execute(f"DELETE FROM fragments WHERE {same}", whose)  # noqa: S608 - a constant
            self._store.count("snapshots_abandoned")
        self._store.execute(
            "INSERT INTO fragments VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (*whose, frame.index, received_s, frame.data),
        )
        pieces = self._store.all(f"SELECT data FROM fragments WHERE {same} ORDER BY position", whose)  # noqa: S608
        if len(pieces) == frame.count:
            self._store.execute(f"DELETE FROM fragments WHERE {same}", whose)  # noqa: S608 - a constant
            self._snapshot(dev_eui, frame, b"".join(piece["data"] for piece in pieces), received_s)
        else:
            self._keep_few_open(dev_eui)

    def _keep_few_open(self, dev_eui: str) -> None:
        opened = self._store.all(
            """SELECT backbone_id, season, session, count FROM fragments WHERE dev_eui = ?
            GROUP BY backbone_id, season, session, count
            ORDER BY max(received_s) DESC, session DESC LIMIT -1 OFFSET ?""",
            (dev_eui, OPEN_SNAPSHOTS),
        )
        for row in opened:
            self._store.execute(
                """DELETE FROM fragments WHERE dev_eui = ? AND backbone_id = ? AND season = ? AND session = ?
                AND count = ?""",
                (dev_eui, *row),
            )
            self._store.count("snapshots_abandoned")

    def _snapshot(self, dev_eui: str, frame: StatisticsFragment, payload: bytes, received_s: int) -> None:
        try:
            snapshot = Snapshot.decode(payload)
        except MomentsError as error:
            # Its fragments were good frames and stay counted; only what they add up to is not taken.
            self._store.count("refused.snapshot")
            log.warning("refused snapshot %d of %s: %s", frame.session, dev_eui, error)
            return
        # Cumulative: the one with more windows is the later one, whatever the order of arrival.
        self._store.execute(
            """INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT (dev_eui, backbone_id, season) DO UPDATE SET session = excluded.session,
            windows = excluded.windows, received_s = excluded.received_s, payload = excluded.payload
            WHERE excluded.windows > windows
            OR (excluded.windows = windows AND ((excluded.session - session + 256) % 256) BETWEEN 1 AND 127)""",
            (
                dev_eui,
                frame.backbone_id,
                frame.season,
                frame.session,
                int(snapshot.count.sum()),
                received_s,
                payload,
            ),
        )
        self._store.count("snapshots")


def _present(value: int) -> int | None:
    return None if value == NO_VALUE else value
