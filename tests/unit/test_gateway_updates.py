"""Campaigns reach class A nodes over a lossy radio, one downlink per heard uplink, across restarts."""

import base64
import json
import random
from datetime import UTC, datetime, timedelta

import pytest

from gateway.config import GatewaySettings, NetworkServer, Node
from gateway.service import Gateway
from gateway.store import Store
from shared_models.codes import Board, EventCode, Mode, Reason, Refusal
from shared_models.fragmentation import (
    PackageVersionAnswer,
    Reassembler,
    SessionDeleteAnswer,
    SessionSetupAnswer,
    SessionStatusAnswer,
    SetupRefusal,
    encode_answer,
)
from shared_models.frames import Event, Telemetry, TelemetryFlag, decode_override, decode_settings_change
from shared_models.messages import Artefact, Assignment, SendingHours, assignment_topic
from shared_models.settings import Setting

APP, SITE, EUI = "app-1", "champion", "00000000000000a1"
START_S = 1_748_736_000
BACKBONE, OTHER = 0x11111111, 0x22222222
FULL, HEAD = bytes(i * 7 % 256 for i in range(640)), bytes(i * 5 % 256 for i in range(112))


class Farm:
    """A gateway without its broker: what it says is read from the outbox."""

    def __init__(self, path):
        self.settings = GatewaySettings(
            site=SITE,
            clock="simulated",
            store=path,
            network=NetworkServer(application=APP),
            nodes=[Node(dev_eui=EUI, name="north", crop="maize", board="stm32l072")],
        )
        self.f_cnt, self.time_s, self.downlinks, self.progress = 0, START_S, [], []
        self.start()

    def start(self):
        self.store = Store(self.settings.store)
        self.store.configure(self.settings)
        self.gateway = Gateway(self.settings, self.store)

    def restart(self):
        self.store.close()
        self.start()

    def event(self, name, body):
        self.gateway.carry_out(f"application/{APP}/device/{EUI}/event/{name}", json.dumps(body).encode())
        for message in self.store.outgoing("network", 100):
            self.downlinks.append(json.loads(message.payload))
        self.progress += [json.loads(message.payload) for message in self.store.outgoing("server", 100)]
        self.store.execute("DELETE FROM outbox")

    def up(self, frame, f_port, dr=5):
        """One uplink, and the downlink that answers it, if there was one in the queue: (payload, port)."""
        self.time_s += 900
        self.f_cnt += 1
        waiting = self.downlinks
        self.downlinks = []
        time = datetime.fromtimestamp(self.time_s, UTC).isoformat()
        body = {"deduplicationId": f"id-{self.time_s}", "time": time, "dr": dr, "fCnt": self.f_cnt, "fPort": f_port}
        self.event("up", body | {"data": base64.b64encode(frame).decode()})
        assert len(waiting) <= 1, "never more than one downlink in the network server's queue"
        for downlink in waiting:
            self.event("txack", {"queueItemId": downlink["id"]})
            return base64.b64decode(downlink["data"]), downlink["fPort"]
        return None

    def skip(self):
        """A frame that nobody heard."""
        self.time_s += 900
        self.f_cnt += 1

    def telemetry(self, dr=5, **changes):
        values = {
            "time_s": self.time_s,
            "flags": TelemetryFlag.ANCHORED,
            "mode": Mode.MODEL,
            "board": Board.STM32L072,
            "battery_mv": 3000,
            "vwc_shallow_e4": 2000,
            "vwc_deep_e4": 2000,
            "soil_temp_c100": 1800,
            "air_temp_c100": 2000,
            "depletion_e1_mm": 100,
            "taw_e1_mm": 1000,
            "threshold_permille": 200,
            "forecast_24h_e4": -40,
            "water_season_e1_mm": 0,
            "last_reason": Reason.NOT_NEEDED,
            "probation": 0,
            "model_version": 1,
            "backbone_id": BACKBONE,
        }
        return self.up(Telemetry(**(values | changes)).encode(), 10, dr)

    def happens(self, code, version=2, refusal=Refusal.NONE):
        return self.up(Event(code, self.time_s, detail=refusal, model_version=version).encode(), 12)

    def assign(self, action="run", sequence=1, base=BACKBONE, campaign=7, devices=(EUI,), artefacts=None, **schedule):
        artefacts = artefacts or [
            Artefact(kind="full", base=0, container=base64.b64encode(FULL).decode()),
            Artefact(kind="head", base=base, container=base64.b64encode(HEAD).decode()),
        ]
        message = Assignment(
            campaign=campaign,
            sequence=sequence,
            action=action,
            version=2,
            model_id=3,
            artefacts=artefacts,
            devices=list(devices),
            **schedule,
        )
        self.gateway.carry_out(assignment_topic(SITE, campaign), message.model_dump_json().encode())
        self.progress += [json.loads(message.payload) for message in self.store.outgoing("server", 100)]
        self.store.execute("DELETE FROM outbox")

    def update(self):
        return dict(self.store.one("SELECT * FROM updates"))


class Receiver:
    """The node's side, hearing only some of what is sent: TS004 in one version or both, and whole containers."""

    def __init__(self, farm, loss=0.0, seed=0, package=2):
        self.farm, self.loss, self.dice, self.package = farm, loss, random.Random(seed), package
        self.session, self.answer, self.setups, self.fragments, self.containers = None, b"", 0, 0, 0
        self.answers, self.heard = 0, []

    def wake(self, dr=5):
        """Poll or answer; the block once it is complete."""
        answer = self.answer
        self.answer = b""
        if not answer and self.session is not None:
            answer = self.status()
        if self.dice.random() < self.loss:
            self.farm.skip()
            return None  # nobody heard the node, so nobody answers
        heard = self.farm.up(answer, 201, dr) if answer else self.farm.telemetry(dr)
        if heard is None or self.dice.random() < self.loss:
            return None
        self.heard.append(heard)
        return self.take(*heard)

    def status(self):
        answer = SessionStatusAnswer(0, self.session.received, self.session.missing, out_of_memory=False)
        return encode_answer(answer, self.session.version)

    def take(self, payload, f_port):
        if f_port == 14:
            self.containers += 1
            return payload
        if payload[0] == 0:
            self.answer += encode_answer(PackageVersionAnswer(3, self.package))
            payload = payload[1:]
        if payload[0] == 2:
            self.setups += 1
            version = 2 if len(payload) == 17 and self.package == 2 else 1
            count, size, padding = int.from_bytes(payload[2:4], "little"), payload[4], payload[6]
            if self.session is None or (self.session.fragment_size, self.session.version) != (size, version):
                self.session = Reassembler(count, size, padding, version)
            self.answer += encode_answer(SessionSetupAnswer(0, SetupRefusal.NONE))
        elif payload[0] == 3:
            self.answer += encode_answer(SessionDeleteAnswer(0, existed=self.session is not None))
            self.session = None
        elif self.session is not None:
            self.fragments += 1
            if self.session.add(int.from_bytes(payload[1:3], "little"), payload[3:]):
                self.answer = self.status()
                return self.session.block()
        return None

    def receive(self, wakes, dr=5):
        for _ in range(wakes):
            block = self.wake(dr)
            if block is not None:
                return block
        raise AssertionError(f"no block within {wakes} wakes")


def artefact(kind, container, base=0, device=None):
    return Artefact(kind=kind, base=base, device=device, container=base64.b64encode(container).decode())


KEYS = [artefact("keys", bytes(112))]


@pytest.fixture
def farm(tmp_path):
    farm = Farm(tmp_path / "gateway.db")
    yield farm
    farm.store.close()


def test_the_smallest_artefact_the_node_can_apply_is_sent(farm):
    farm.telemetry()
    farm.assign()
    assert Receiver(farm).receive(10) == HEAD


def test_a_node_on_another_backbone_gets_the_full_model(farm):
    farm.telemetry()
    farm.assign(base=OTHER)
    assert Receiver(farm).receive(20) == FULL


@pytest.mark.parametrize("seed", range(5))
def test_a_radio_that_loses_a_quarter_each_way_only_delays(farm, seed):
    farm.telemetry()
    farm.assign(base=OTHER)
    receiver = Receiver(farm, loss=0.25, seed=seed)
    assert receiver.receive(160, dr=0) == FULL
    assert receiver.fragments < 14 + 12


def test_a_restart_in_the_middle_of_a_session_goes_on_where_it_was(farm):
    farm.telemetry()
    farm.assign(base=OTHER)
    receiver = Receiver(farm)
    for _ in range(25):
        block = receiver.wake(dr=0)
        farm.restart()
        if block is not None:
            break
    assert block == FULL
    assert (receiver.setups, receiver.fragments) == (1, 14)


def test_a_slower_data_rate_opens_a_new_session_with_smaller_fragments(farm):
    farm.telemetry()
    farm.assign(base=OTHER)
    receiver = Receiver(farm)
    for _ in range(4):
        receiver.wake(dr=5)
    assert receiver.session.fragment_size > 48
    assert receiver.receive(40, dr=0) == FULL
    assert receiver.session.fragment_size <= 48


def test_the_node_says_when_an_update_is_activated_and_confirmed(farm):
    farm.telemetry()
    farm.assign()
    receiver = Receiver(farm)
    receiver.receive(10)
    receiver.wake()
    assert farm.update()["session"] == "complete"
    farm.happens(EventCode.MODEL_ACTIVATED)
    assert farm.update()["state"] == "activated"
    farm.happens(EventCode.MODEL_CONFIRMED)
    assert [p["state"] for p in farm.progress][-2:] == ["activated", "confirmed"]
    assert farm.progress[-1]["downlinks"] == farm.update()["downlinks"] == 1, "a head goes whole, in one frame"


def test_a_lost_activation_event_is_made_good_by_telemetry(farm):
    farm.telemetry()
    farm.assign()
    Receiver(farm).receive(10)
    farm.telemetry(model_version=2)
    assert farm.update()["state"] == "activated"
    farm.telemetry(model_version=1)
    assert farm.update()["state"] == "rolled_back"


def test_a_lost_confirmation_is_made_good_by_telemetry(farm):
    farm.telemetry()
    farm.assign()
    Receiver(farm).receive(10)
    farm.telemetry(model_version=2, probation=1)
    farm.telemetry(model_version=2, probation=1)
    assert farm.update()["state"] == "activated"
    farm.telemetry(model_version=2)
    assert farm.update()["state"] == "confirmed"


def test_a_node_on_probation_is_left_alone_until_it_has_decided(farm):
    farm.telemetry(probation=1)
    farm.assign()
    assert [farm.telemetry(probation=1) for _ in range(3)] == [None] * 3
    farm.telemetry()
    assert farm.telemetry() is not None


def test_a_refusal_is_reported_with_its_reason_and_ends_the_update(farm):
    farm.telemetry()
    farm.assign()
    Receiver(farm).receive(10)
    farm.happens(EventCode.UPDATE_REFUSED, refusal=Refusal.SIGNATURE)
    assert (farm.update()["state"], farm.update()["detail"]) == ("refused", "signature")
    assert farm.telemetry() is None
    assert farm.telemetry() is None


def test_pause_stops_downlinks_and_resume_goes_on(farm):
    farm.telemetry()
    farm.assign(base=OTHER)
    receiver = Receiver(farm)
    for _ in range(6):
        receiver.wake(dr=0)
    farm.assign("pause", sequence=2, base=OTHER)
    receiver.wake(dr=0)
    before = receiver.fragments
    for _ in range(5):
        receiver.wake(dr=0)
    assert receiver.fragments == before
    farm.assign("run", sequence=3, base=OTHER)
    assert receiver.receive(30, dr=0) == FULL
    assert receiver.setups == 1


def test_abort_deletes_the_session_on_the_node(farm):
    farm.telemetry()
    farm.assign(base=OTHER)
    receiver = Receiver(farm)
    for _ in range(5):
        receiver.wake(dr=0)
    farm.assign("abort", sequence=2, base=OTHER)
    assert (farm.progress[-1]["state"], farm.progress[-1]["detail"]) == ("failed", "aborted")
    for _ in range(4):
        receiver.wake(dr=0)
    assert receiver.session is None
    assert farm.update()["session"] == "closed"


def test_nothing_is_sent_before_its_time_after_it_or_outside_its_hours(farm):
    farm.telemetry()
    start = datetime.fromtimestamp(farm.time_s, UTC)
    hour = (start + timedelta(hours=2)).hour
    farm.assign(
        not_before=start + timedelta(hours=1),
        not_after=start + timedelta(hours=4),
        hours=SendingHours(start=hour, end=hour % 24 + 1),
    )
    sent = [farm.telemetry() is not None for _ in range(32)]
    times = [start + (index + 1) * timedelta(minutes=15) for index in range(32)]
    # What answers an uplink was queued when the one before it was heard.
    assert {time.hour for time, answered in zip(times[:-1], sent[1:], strict=True) if answered} == {hour}
    assert farm.progress[-1]["state"] == "sending", "a session under way is kept"


def test_an_older_assignment_changes_nothing(farm):
    farm.telemetry()
    farm.assign("pause", sequence=5)
    farm.assign("run", sequence=4)
    assert farm.store.one("SELECT action FROM assignments")["action"] == "pause"
    assert farm.telemetry() is None


def test_a_device_of_another_site_is_reported_as_failed(farm):
    farm.assign(devices=["00000000000000ff"])
    assert farm.progress[-1]["state"] == "failed"


def test_silence_of_the_network_server_does_not_stop_an_update(farm):
    farm.telemetry()
    farm.assign()
    farm.telemetry()
    farm.downlinks.clear()  # expired in its queue, without a word
    heard = [farm.telemetry() for _ in range(12)]
    assert any(downlink is not None for downlink in heard)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b'{"campaign": 7}',
        b"\xff\xfe",
        b'{"campaign": 1e999}',
        json.dumps({"campaign": 7}).encode() * 9,
    ],
)
def test_a_malformed_assignment_is_refused_and_counted(farm, payload):
    farm.gateway.carry_out(assignment_topic(SITE, 7), payload)
    assert farm.store.one("SELECT count(*) AS n FROM assignments")["n"] == 0
    assert farm.store.counters().get("refused.assignment", 0) == (1 if payload else 0)


@pytest.mark.parametrize("container", ["!!!", "AAA", "\u0080", "AA\nAA"])
def test_an_assignment_whose_artefact_is_not_base64_is_refused_and_counted(farm, container):
    farm.assign(artefacts=[Artefact(kind="full", base=0, container=container)])
    assert farm.store.one("SELECT count(*) AS n FROM assignments")["n"] == 0
    assert farm.store.counters()["refused.assignment"] == 1


def ask(farm, action, **arguments):
    farm.store.execute(
        "INSERT INTO commands (created_s, actor, action, arguments) VALUES (?, 'farmer', ?, ?)",
        (farm.time_s, action, json.dumps(arguments)),
    )
    with farm.store.transaction():
        for command, dev_eui in farm.gateway._commands.take_new():
            farm.gateway._downlinks.unprompted(dev_eui, f"command/{command}")
    farm.downlinks += [json.loads(message.payload) for message in farm.store.outgoing("network", 100)]
    farm.store.execute("DELETE FROM outbox")


def command_states(farm):
    return [row["state"] for row in farm.store.all("SELECT state FROM commands ORDER BY id")]


def test_a_farmers_override_goes_ahead_of_an_update_and_is_confirmed_by_the_node(farm):
    farm.telemetry()
    farm.assign()
    ask(farm, "override.stop", dev_eui=EUI, until_s=farm.time_s + 86_400)
    payload, f_port = farm.telemetry()
    assert f_port == 13
    assert decode_override(payload).argument > START_S
    assert command_states(farm) == ["sent"]
    farm.happens(EventCode.SETTINGS_APPLIED, version=1)
    assert command_states(farm) == ["done"]


def test_water_is_sent_once_only_but_a_stop_is_repeated(farm):
    farm.telemetry()
    ask(farm, "override.water", dev_eui=EUI, dose_mm=12.5)
    assert decode_override(farm.telemetry()[0]).argument == 125
    assert [farm.telemetry() for _ in range(6)] == [None] * 6
    ask(farm, "override.stop", dev_eui=EUI, until_s=farm.time_s + 86_400)
    sent = [farm.telemetry() for _ in range(16)]
    assert len([s for s in sent if s]) == 5
    assert command_states(farm) == ["refused", "failed"]


def changed(farm, **settings):
    ask(farm, "settings.change", dev_eui=EUI, settings=settings)


def test_a_change_of_settings_is_repeated_until_the_node_has_applied_it(farm):
    farm.telemetry()
    changed(farm, dose_e1_mm=150, utc_offset_min=-60)
    expected = {Setting.DOSE_E1_MM: 150, Setting.UTC_OFFSET_MIN: -60}
    for _ in range(2):
        sent = [payload for payload in (farm.telemetry() for _ in range(2)) if payload]
        assert [(decode_settings_change(payload).changes, port) for payload, port in sent] == [(expected, 13)]
    farm.happens(EventCode.SETTINGS_APPLIED, version=1)
    assert command_states(farm) == ["done"]
    assert [farm.telemetry() for _ in range(4)] == [None] * 4


def test_changes_of_settings_arrive_in_the_order_they_were_asked_for_though_one_is_lost(farm):
    farm.telemetry()
    changed(farm, dose_e1_mm=150)
    changed(farm, dose_e1_mm=120)
    sent, answer = [], None
    for _ in range(8):
        heard = answer is not None and len(sent) != 1  # the first time nobody heard it
        answer = farm.happens(EventCode.SETTINGS_APPLIED, version=1) if heard else farm.telemetry()
        sent += [] if answer is None else [decode_settings_change(answer[0]).changes[Setting.DOSE_E1_MM]]
    assert sent == [150, 150, 120]
    assert command_states(farm) == ["done", "done"]


def test_a_farmers_word_overtakes_settings_and_leaves_them_waiting(farm):
    farm.telemetry()
    changed(farm, dose_e1_mm=150)
    changed(farm, daily_cap_mm=30)
    ask(farm, "override.stop", dev_eui=EUI, until_s=farm.time_s + 86_400)
    actions, answer = [], None
    for _ in range(6):  # a node that applies what it hears, and says so
        answer = farm.telemetry() if answer is None else farm.happens(EventCode.SETTINGS_APPLIED, version=1)
        actions += [] if answer is None else [answer[0][0]]
    assert actions == [4, 1, 4], "the first was at the network server already"
    assert command_states(farm) == ["done"] * 3


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "0 changes"),
        ({"board": 2}, "board"),
        ({"dose_e1_mm": 5000}, "not within"),
        ({"dose_e1_mm": "much"}, "dose_e1_mm"),
        ({"window_start_h": 12, "window_end_h": 12}, "empty"),
        ({setting.name.lower(): setting.field.limits[0] for setting in list(Setting)[:9]}, "9 changes"),
    ],
)
def test_an_impossible_change_of_settings_is_refused_with_a_reason(farm, settings, why):
    farm.telemetry()
    changed(farm, **settings)
    row = farm.store.one("SELECT state, result FROM commands")
    assert row["state"] == "refused"
    assert why in row["result"]
    assert not farm.downlinks


@pytest.mark.parametrize(
    ("action", "arguments"),
    [
        ("override.water", {"dev_eui": EUI, "dose_mm": 1e9}),
        ("override.water", {"dev_eui": "00000000000000ff", "dose_mm": 10}),
        ("override.stop", {"dev_eui": EUI, "until_s": 1}),
        ("override.stop", {"dev_eui": EUI}),
        ("drop.tables", {"dev_eui": EUI}),
    ],
)
def test_an_impossible_command_is_refused_with_a_reason(farm, action, arguments):
    farm.telemetry()
    ask(farm, action, **arguments)
    row = farm.store.one("SELECT state, result FROM commands")
    assert row["state"] == "refused"
    assert row["result"]
    assert not farm.downlinks


# Whole containers


def containers(farm, reports=4, **told):
    """Downlinks that some reports get, by port."""
    return [heard[1] for heard in (farm.telemetry(**told) for _ in range(reports)) if heard]


def test_a_container_that_fits_one_frame_goes_whole_and_again_only_when_a_report_shows_it_is_not_there(farm):
    farm.telemetry()
    farm.assign()
    farm.telemetry()
    assert farm.telemetry() == (HEAD, 14)
    # An event is no sign: the one that matters may be among those the radio lost.
    assert [farm.happens(EventCode.WATERED, version=1) for _ in range(3)] == [None] * 3
    assert farm.telemetry() is None, "this report comes first, and is answered by the next downlink"
    assert farm.telemetry() == (HEAD, 14)
    farm.happens(EventCode.MODEL_ACTIVATED)
    assert containers(farm, model_version=2, probation=1) == []
    assert (farm.update()["state"], farm.update()["downlinks"]) == ("activated", 2)


def test_a_report_written_before_the_container_came_does_not_have_it_sent_again(farm):
    farm.telemetry()
    farm.assign()
    farm.telemetry()
    early = farm.time_s + 900
    assert farm.telemetry() == (HEAD, 14)
    assert [farm.telemetry(time_s=early + second) for second in range(3)] == [None] * 3


@pytest.mark.parametrize(("dr", "whole"), [(0, False), (2, False), (3, True), (5, True)])
def test_the_data_rate_decides_whether_a_container_fits_one_frame(farm, dr, whole):
    farm.telemetry(dr)
    farm.assign()
    assert Receiver(farm).receive(20, dr) == HEAD
    assert (farm.update()["fragments"] == 0) == whole


@pytest.mark.parametrize(
    ("base", "device", "sent"),
    [(1, EUI, "personal"), (1, "00000000000000ff", "full"), (5, EUI, "full"), (1, None, "personal")],
)
def test_a_personal_head_is_for_its_node_on_its_base_alone(farm, base, device, sent):
    farm.telemetry()
    offered = {"full": FULL, "personal": bytes(40)}
    farm.assign(artefacts=[artefact("full", FULL), artefact("personal", offered["personal"], base, device)])
    assert Receiver(farm).receive(20) == offered[sent]


def test_a_change_of_a_model_is_for_nodes_that_run_its_base(farm):
    farm.telemetry(model_version=1)
    delta = bytes(200)
    farm.assign(artefacts=[artefact("full", FULL), artefact("delta", delta, base=1), artefact("delta", HEAD, base=4)])
    assert Receiver(farm).receive(20) == delta


def test_a_busy_node_is_asked_again_when_it_has_decided(farm):
    farm.telemetry()
    farm.assign()
    farm.telemetry()
    farm.telemetry()
    farm.happens(EventCode.UPDATE_REFUSED, refusal=Refusal.BUSY)
    assert farm.update()["state"] == "sending"
    assert containers(farm, probation=1) == []
    assert containers(farm)[0] == 14
    farm.happens(EventCode.MODEL_ACTIVATED)
    assert farm.update()["state"] == "activated"


def test_a_busy_node_that_refuses_a_session_is_asked_again_too(farm):
    farm.telemetry(dr=0)
    farm.assign()
    farm.telemetry(dr=0)
    farm.telemetry(dr=0)
    farm.up(encode_answer(SessionSetupAnswer(0, SetupRefusal.MEMORY)), 201, 0)
    assert farm.update()["state"] == "sending"
    assert containers(farm, dr=0, probation=1) == []
    assert Receiver(farm).receive(20, dr=0) == HEAD


def test_a_second_copy_refused_as_old_says_that_the_first_had_arrived(farm):
    farm.telemetry()
    farm.assign()
    containers(farm, reports=6)
    assert farm.update()["attempts"] > 1
    farm.happens(EventCode.UPDATE_REFUSED, refusal=Refusal.VERSION)
    assert farm.update()["state"] == "activated"
    farm.telemetry(model_version=2)
    assert farm.update()["state"] == "confirmed"


# Changes of keys


@pytest.mark.parametrize("code", [EventCode.KEYS_CHANGED, EventCode.UPDATE_REFUSED])
def test_a_change_of_keys_is_done_when_the_node_says_so_or_that_it_has_it_already(farm, code):
    farm.telemetry(probation=1)
    farm.assign(artefacts=KEYS)
    assert containers(farm, probation=1)[0] == 14, "a model on probation is not in its way"
    farm.happens(code, refusal=Refusal.VERSION if code is EventCode.UPDATE_REFUSED else Refusal.NONE)
    assert farm.update()["state"] == "confirmed"
    assert containers(farm) == []


def test_a_model_newer_than_a_change_of_keys_does_not_supersede_it(farm):
    farm.telemetry(model_version=9)
    farm.assign(artefacts=KEYS)
    assert containers(farm, reports=5, model_version=9) == [14, 14]
    assert farm.update()["state"] == "sending"


# TS004, version 1 or 2


def test_the_first_session_asks_which_version_the_node_speaks_and_the_next_is_of_it(farm):
    farm.telemetry(0)
    farm.assign()
    receiver = Receiver(farm)
    assert receiver.receive(20, dr=0) == HEAD
    assert receiver.session.version == 1, "nobody knew yet"
    farm.assign("abort", sequence=2)
    receiver.wake(0)
    receiver.session, receiver.heard = None, []
    farm.assign(campaign=8)
    assert receiver.receive(20, dr=0) == HEAD
    assert receiver.session.version == 2
    setups = [payload for payload, _ in receiver.heard if payload[0] in (0, 2)]
    assert [payload[0] for payload in setups] == [2], "it is not asked again"


def test_a_node_that_started_anew_is_asked_again_and_one_of_version_1_keeps_to_it(farm):
    farm.telemetry(0)
    farm.assign()
    receiver = Receiver(farm, package=1)
    assert receiver.receive(20, dr=0) == HEAD
    farm.up(Event(EventCode.BOOTED, farm.time_s, model_version=1).encode(), 12, 0)
    farm.assign("abort", sequence=2)
    receiver.wake(0)
    receiver.session, receiver.heard = None, []
    farm.assign(campaign=8)
    assert receiver.receive(20, dr=0) == HEAD
    assert receiver.session.version == 1
    assert receiver.heard[0][0][0] == 0 or receiver.heard[1][0][0] == 0


def test_a_node_whose_firmware_went_back_to_version_1_is_set_up_anew_in_it(farm):
    farm.telemetry(0)
    farm.store.execute("UPDATE devices SET package = 2")
    farm.assign()
    receiver = Receiver(farm, package=1)
    assert receiver.receive(30, dr=0) == HEAD
    assert receiver.session.version == 1
    setups = [len(payload) for payload, _ in receiver.heard if payload[0] in (0, 2)]
    assert setups == [18, 11], "asked with the first, of version 2; then as it says it can"


# Thrift


def test_a_setup_whose_answer_may_be_lost_is_not_repeated_while_a_poll_may_come(farm):
    farm.telemetry(0)
    farm.assign()
    farm.telemetry(0)
    assert farm.telemetry(0)[1] == 201
    farm.skip()  # the answer, or nothing
    assert [farm.happens(EventCode.WATERED, version=1) for _ in range(3)] == [None] * 3
    farm.up(encode_answer(SessionStatusAnswer(0, 0, 3, out_of_memory=False)), 201, 0)
    assert farm.update()["session"] == "open"
    assert farm.update()["attempts"] == 1


def test_a_setup_is_repeated_at_once_when_the_next_frame_shows_that_there_is_no_answer(farm):
    farm.telemetry(0)
    farm.assign()
    farm.telemetry(0)
    assert farm.telemetry(0)[1] == 201
    watered = Event(EventCode.WATERED, farm.time_s, model_version=1).encode()
    assert farm.up(watered, 12, 0) is None
    assert farm.up(watered, 12, 0)[1] == 201
    assert farm.update()["attempts"] == 2


# Patience


def test_a_node_that_never_takes_it_is_given_up_after_months_with_clear_words(farm):
    farm.telemetry()
    farm.assign()
    farm.telemetry()
    for day in (30, 89):
        farm.gateway._clock.advance(START_S + day * 86_400)
        farm.gateway._updates.expire()
        assert farm.update()["state"] == "sending"
    farm.gateway._clock.advance(START_S + 92 * 86_400)
    farm.gateway._updates.expire()
    assert farm.update()["state"] == "failed"
    assert farm.update()["detail"] == "given up, not done in 90 days: 1 downlinks sent"


def test_what_is_not_done_when_its_time_is_over_is_given_up_days_later(farm):
    farm.telemetry()
    ends = datetime.fromtimestamp(START_S + 86_400, UTC)
    farm.assign(not_after=ends)
    farm.time_s = START_S + 2 * 86_400
    assert containers(farm) == []
    farm.gateway._updates.expire()
    assert farm.update()["state"] == "pending"
    farm.gateway._clock.advance(START_S + 5 * 86_400)
    farm.gateway._updates.expire()
    assert (farm.update()["state"], farm.update()["detail"]) == (
        "failed",
        "given up, its time was over: nothing could be sent",
    )


def test_a_node_that_takes_every_frame_and_nothing_of_it_does_not_cost_downlinks_for_ever(farm):
    farm.telemetry()
    farm.assign()
    sent = len(containers(farm, reports=200))
    assert sent <= 60
    assert farm.update()["state"] == "failed"
    assert "too many downlinks" in farm.update()["detail"]
