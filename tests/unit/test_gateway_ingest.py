"""What one uplink does to the store, and what is refused."""

import contextlib
import random

import numpy as np
import pytest
from gateway_cases import BACKBONE, NODES, START_S, snapshot, telemetry, watered
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import Clock, dawn_before
from gateway.config import GatewaySettings, NetworkServer, Node, Privacy
from gateway.ingest import Ingest
from gateway.network_servers import Uplink
from gateway.refusal import RefusalLog, Refused
from gateway.store import Store, StoreError
from gateway.sums import NotEnough, load_sums
from shared_models.codes import EventCode, Reason, ResetCause
from shared_models.frames import NO_VALUE, Event, FrameError, decode_uplink, split_statistics
from shared_models.moments import Sums


def settings_for(path, site="champion", nodes=NODES):
    return GatewaySettings(
        site=site,
        clock="simulated",
        store=path,
        network=NetworkServer(application="app"),
        privacy=Privacy(minimum_contributors=2, minimum_windows=10),
        nodes=[Node(dev_eui=dev_eui, name="n", crop="maize", board="stm32l072") for dev_eui in nodes],
    )


class Desk:
    def __init__(self, path):
        self.path = path
        self.store = Store(path)
        self.store.configure(settings_for(path))
        self.ingest = Ingest(self.store, Clock("simulated", START_S), utc_offset_min=0)
        self.number = 0

    def take(self, f_port, payload, *, dev_eui=NODES[0], time_s=START_S, f_cnt=None, uplink_id=None, network_id=None):
        self.number += 1
        uplink = Uplink(
            uplink_id=uplink_id or f"id-{self.number}",
            dev_eui=dev_eui,
            f_port=f_port,
            f_cnt=self.number if f_cnt is None else f_cnt,
            payload=payload,
            received_s=time_s,
            data_rate=5,
            rssi_dbm=-90.0,
            snr_db=5.0,
            network_id=network_id,
        )
        with self.store.transaction():
            return self.ingest.take(uplink)

    def one(self, sql):
        return tuple(self.store.one(sql))


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "gateway.db")
    yield desk
    desk.store.close()


def test_telemetry_becomes_a_row_a_device_and_a_day(desk):
    desk.take(10, telemetry(START_S, vwc_shallow_e4=NO_VALUE).encode())
    assert desk.one("SELECT vwc_shallow_e4, vwc_deep_e4, depletion_e1_mm FROM telemetry") == (None, 2400, 134)
    assert desk.one(f"SELECT backbone_id, battery_mv FROM devices WHERE dev_eui = '{NODES[0]}'") == (BACKBONE, 3000)
    assert desk.one("SELECT day_s, reports, water_e1_mm FROM daily") == (dawn_before(START_S, 0), 1, 0)


def test_a_report_of_yesterday_that_comes_late_does_not_become_the_newest(desk):
    desk.take(10, telemetry(START_S, battery_mv=2900).encode())
    desk.take(10, telemetry(START_S - 86_400, battery_mv=3100).encode())
    assert desk.one(f"SELECT battery_mv, reported_s FROM devices WHERE dev_eui = '{NODES[0]}'") == (2900, START_S)


def test_water_is_counted_once_however_often_the_event_arrives(desk):
    for _ in range(3):
        desk.take(12, watered(START_S).encode())
    assert desk.one("SELECT water_e1_mm, doses FROM daily") == (200, 1)


def test_the_same_uplink_is_taken_once(desk):
    payload = telemetry(START_S).encode()
    assert desk.take(10, payload, uplink_id="a") is not None
    assert desk.take(10, payload, uplink_id="a") is None
    assert desk.store.counters() == {"duplicates": 1, "uplinks": 1}


def test_a_frame_counter_that_starts_again_loses_nothing(desk):
    desk.take(10, telemetry(START_S).encode(), f_cnt=500)
    desk.take(10, telemetry(START_S + 900).encode(), f_cnt=0)
    desk.take(10, telemetry(START_S + 1800).encode(), f_cnt=1)
    assert desk.one("SELECT count(*) FROM telemetry") == (3,)
    assert desk.one(f"SELECT frames, frames_missed FROM devices WHERE dev_eui = '{NODES[0]}'") == (3, 0)


def test_gaps_in_the_frame_counter_are_missed_frames(desk):
    desk.take(10, telemetry(START_S).encode(), f_cnt=5)
    desk.take(10, telemetry(START_S + 900).encode(), f_cnt=9)
    assert desk.one(f"SELECT frames_missed FROM devices WHERE dev_eui = '{NODES[0]}'") == (3,)


@pytest.mark.parametrize(
    ("reason", "arguments"),
    [
        ("unknown_device", {"dev_eui": "ffffffffffffffff"}),
        ("time", {"time_s": 5}),
        ("time", {"time_s": START_S + 80 * 86_400}),
        ("frame", {"payload": b""}),
        ("frame", {"payload": telemetry(START_S).encode()[:-1]}),
        ("frame", {"payload": telemetry(START_S).encode() + b"\0"}),
        ("frame", {"f_port": 99}),
        ("time", {"payload": telemetry(0).encode()}),
        ("implausible", {"payload": telemetry(START_S, battery_mv=60_000).encode()}),
        ("implausible", {"payload": telemetry(START_S, vwc_deep_e4=32_000).encode()}),
        ("implausible", {"payload": telemetry(START_S, depletion_e1_mm=NO_VALUE).encode()}),
    ],
)
def test_bad_uplinks_are_refused_and_leave_no_trace(desk, reason, arguments):
    arguments = {"f_port": 10, "payload": telemetry(START_S).encode()} | arguments
    with pytest.raises(Refused) as refused:
        desk.take(arguments.pop("f_port"), arguments.pop("payload"), **arguments)
    assert refused.value.reason == reason
    assert desk.one("SELECT (SELECT count(*) FROM uplinks) + (SELECT count(*) FROM telemetry)") == (0,)


@given(st.sampled_from([10, 11, 12, 201]), st.binary(max_size=60))
@settings(max_examples=100)
def test_no_frame_crashes_the_decoder(f_port, payload):
    with contextlib.suppress(FrameError):
        decode_uplink(f_port, payload)


def fragments(encoded, session, season=2025, limit=51):
    pieces = split_statistics(encoded, session=session, season=season, backbone_id=BACKBONE, payload_limit=limit)
    return [piece.encode() for piece in pieces]


def test_snapshots_in_any_order_with_losses_and_repetitions_add_up_to_the_newest(desk):
    rng, dice, expected = np.random.default_rng(3), random.Random(3), Sums.zero()
    frames = []
    for dev_eui in NODES:
        for session, windows in enumerate((5, 9, 14)):
            newest = snapshot(rng, windows)
            pieces = fragments(newest.encode(), session)
            if session == 1:
                pieces.pop(2)  # lost
            frames += [(dev_eui, piece) for piece in pieces + pieces[:2]]
        expected = expected.add(type(newest).decode(newest.encode()))
    dice.shuffle(frames)
    for dev_eui, piece in frames:
        desk.take(11, piece, dev_eui=dev_eui)
    farm = load_sums(desk.path, BACKBONE)
    assert farm.sums == expected
    assert (farm.contributors, farm.windows) == (4, 4 * 3 * 14)


def test_a_session_counter_that_comes_round_does_not_mix_two_snapshots(desk):
    rng = np.random.default_rng(4)
    first, second = snapshot(rng, 5), snapshot(rng, 9)
    for piece in fragments(first.encode(), session=1)[:3]:
        desk.take(11, piece)
    for piece in fragments(second.encode(), session=1):
        desk.take(11, piece)
    assert load_sums(desk.path, BACKBONE).sums == type(second).decode(second.encode())


def test_a_complete_snapshot_that_is_nonsense_is_refused_and_the_good_one_stays(desk):
    good = snapshot(np.random.default_rng(5), 9)
    for piece in fragments(good.encode(), session=1):
        desk.take(11, piece)
    for piece in fragments(b"\xff" * len(good.encode()), session=2):
        desk.take(11, piece)
    assert desk.store.counters()["refused.snapshot"] == 1
    assert load_sums(desk.path, BACKBONE).windows == 27


def test_open_snapshots_of_one_node_are_bounded(desk):
    encoded = snapshot(np.random.default_rng(6), 5).encode()
    for session in range(50):
        desk.take(11, fragments(encoded, session)[0], time_s=START_S + session)
    assert desk.one("SELECT count(DISTINCT session) FROM fragments") == (4,)


def test_sums_of_too_few_nodes_or_windows_stay_on_the_farm(desk):
    for piece in fragments(snapshot(np.random.default_rng(7), 9).encode(), session=1):
        desk.take(11, piece)
    with pytest.raises(NotEnough, match="1 contributing nodes, at least 2"):
        load_sums(desk.path, BACKBONE).released()
    for piece in fragments(snapshot(np.random.default_rng(8), 9).encode(), session=1):
        desk.take(11, piece, dev_eui=NODES[1])
    assert load_sums(desk.path, BACKBONE).released().contributors == 2
    with pytest.raises(NotEnough):
        load_sums(desk.path, BACKBONE + 1).released()


def test_pruning_keeps_snapshots_and_days(desk):
    desk.take(10, telemetry(START_S).encode())
    later = Ingest(desk.store, Clock("simulated", START_S + 500 * 86_400), 0)
    later.prune(400)
    assert desk.one("SELECT (SELECT count(*) FROM telemetry), (SELECT count(*) FROM daily)") == (0, 1)


def test_a_store_of_another_site_is_not_touched(desk):
    with pytest.raises(StoreError, match="belongs to site champion"):
        desk.store.configure(settings_for(desk.path, site="tunis"))


def test_a_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / "x.db").write_bytes(b"hello" * 1000)
    with pytest.raises(StoreError):
        Store(tmp_path / "x.db")


def test_a_flood_of_refusals_is_one_line_a_minute(caplog):
    now = [0.0]
    refusals = RefusalLog(monotonic=lambda: now[0])
    for _ in range(1000):
        refusals.write(Refused("frame", "bad"), "topic")
    assert len(caplog.records) == 1
    now[0] = 61.0
    refusals.write(Refused("frame", "bad"), "topic")
    assert "999 more" in caplog.text


def test_each_event_is_stored_with_the_cause_that_explains_it(desk):
    for later, code in enumerate((EventCode.BOOTED, EventCode.SENSOR_FAULT, EventCode.WATERED, EventCode.ANCHORED)):
        detail = 4 if code in (EventCode.BOOTED, EventCode.SENSOR_FAULT) else 0
        desk.take(12, Event(code, START_S + later, reason=Reason.DEPLETED, detail=detail).encode())
    rows = desk.store.execute("SELECT code, reason FROM events ORDER BY time_s").fetchall()
    assert [tuple(row) for row in rows] == [
        (EventCode.BOOTED, ResetCause.BROWN_OUT),
        (EventCode.SENSOR_FAULT, 4),
        (EventCode.WATERED, Reason.DEPLETED),
        (EventCode.ANCHORED, Reason.DEPLETED),
    ]
