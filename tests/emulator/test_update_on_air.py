"""A signed model reaches the ELF by radio, and no power cut leaves it without a complete verified model (I1, I3)."""

from __future__ import annotations

import pytest
from model_cases import improved, key_pair, model
from plot import START_S, Ether, Plot

from nodes.emulator.flash import PowerCutError
from nodes.emulator.interfaces import Downlink
from nodes.emulator.node import EmulatedNode
from nodes.flash_map import MODELS
from shared_models.codes import EventCode, FPort, Refusal
from shared_models.container import (
    RELEASE_KEY,
    KeyChange,
    authenticate,
    build_full,
    build_head,
    build_keys,
    build_personal,
    sign,
)
from shared_models.fragmentation import FragmentationAnswer, Fragmenter, SessionSetupAnswer, SessionStatusAnswer
from shared_models.frames import Event, SettingsChange, Telemetry, decode_uplink
from shared_models.settings import Setting

SECRET, PUBLIC = key_pair(1)
THIEF, _ = key_pair(9)
KEYS = (PUBLIC, bytes(32))
UPDATE_KEY = bytes(range(16))
UPDATES = (EventCode.KEYS_CHANGED, EventCode.UPDATE_REFUSED, EventCode.MODEL_ACTIVATED)
SESSION_HOURS = 8


class Campaign(Ether):
    """Brings one container, one downlink per uplink, and believes only what the node answers."""

    def __init__(self, container: bytes, version: int, loses: int = 0) -> None:
        super().__init__()
        self.fragments = Fragmenter(container, 115, version)
        self.accepted = False
        self.complete = False
        self.step = 0
        self.loses = loses

    def uplink(self, *frame, **flags) -> list[Downlink]:
        super().uplink(*frame, **flags)
        decoded = decode_uplink(*self.uplinks[-1][1:])
        for answer in decoded.answers if isinstance(decoded, FragmentationAnswer) else ():
            if isinstance(answer, SessionSetupAnswer):
                self.accepted = answer.accepted
            elif isinstance(answer, SessionStatusAnswer) and self.accepted:
                self.complete = answer.missing == 0
        if self.complete:
            return []
        if not self.accepted:
            return [Downlink(201, self.fragments.setup())]
        self.step += 1
        lost = self.loses and self.step % self.loses == 0
        return [] if lost else [Downlink(201, self.fragments.fragment(self.step - 1))]


def begin(start, container: bytes, version: int = 2, **options: int) -> tuple[EmulatedNode, Campaign]:
    ether = Campaign(container, version, **options)
    node, _, _ = start(plot=Plot(), ether=ether, model=model().pack(), public_keys=KEYS, telemetry_period_h=1)
    return node, ether


def answers(ether: Ether) -> list[SessionStatusAnswer]:
    decoded = [answer for frame in ether.decoded(FragmentationAnswer) for answer in frame.answers]
    return [answer for answer in decoded if isinstance(answer, SessionStatusAnswer)]


def events(ether: Ether) -> list[EventCode]:
    return [event.code for event in ether.decoded(Event)]


@pytest.mark.parametrize("build", [build_full, build_head])
def test_an_update_arrives_through_a_lossy_air_and_runs(start, build) -> None:
    node, ether = begin(start, sign(build(improved(), 2), SECRET), loses=3)
    node.run_until(START_S + SESSION_HOURS * 3600)
    assert EventCode.MODEL_ACTIVATED in events(ether)
    assert ether.decoded(Telemetry)[-1].model_version == 2
    assert node.flash[MODELS[1].offset :].startswith(improved().pack())
    assert node.counters.resets == 1
    node.power_cycle()
    node.run_until(START_S + (SESSION_HOURS + 2) * 3600)
    assert ether.decoded(Telemetry)[-1].model_version == 2


def test_a_forged_update_is_refused_and_said_so(start) -> None:
    node, ether = begin(start, sign(build_head(improved(), 2), THIEF))
    node.run_until(START_S + SESSION_HOURS * 3600)
    refused = [event for event in ether.decoded(Event) if event.code == EventCode.UPDATE_REFUSED]
    assert [event.refusal for event in refused] == [Refusal.SIGNATURE]
    assert ether.decoded(Telemetry)[-1].model_version == 1
    assert node.flash[MODELS[0].offset :].startswith(model().pack())


def test_a_reset_in_the_middle_of_a_session_costs_no_fragment(start) -> None:
    node, ether = begin(start, sign(build_full(improved(), 2), SECRET))
    while ether.step < 4:
        node.run_until(node.time_s + 900)
    before = answers(ether)[-1].missing
    node.power_cycle()
    ether.uplinks.clear()
    node.run_until(node.time_s + 1800)
    assert answers(ether)[0].missing <= before < ether.fragments.count
    node.run_until(START_S + SESSION_HOURS * 3600)
    assert ether.step < ether.fragments.count + 3
    assert ether.decoded(Telemetry)[-1].model_version == 2


def test_a_personal_head_comes_in_the_smallest_frame_and_is_for_this_node_alone(start) -> None:
    ether = Ether()
    own = {"public_keys": KEYS, "update_key": UPDATE_KEY, "telemetry_period_h": 1}
    node, _, _ = start(ether=ether, model=model().pack(), data_rate=0, **own)
    built = build_personal(improved(), model(), 2)
    for_another = authenticate(built, UPDATE_KEY, "70b3d57ed00000ff")
    personal = authenticate(built, UPDATE_KEY, node.dev_eui)
    assert len(personal) <= 51
    for hours, data in ((2, for_another), (4, personal)):
        ether.queue.append(Downlink(FPort.CONTAINER, data))
        node.run_until(START_S + hours * 3600)
    heard = [(event.code, event.refusal) for event in ether.decoded(Event) if event.model_version == 2]
    assert heard == [(EventCode.UPDATE_REFUSED, Refusal.SIGNATURE), (EventCode.MODEL_ACTIVATED, Refusal.NONE)]
    assert ether.decoded(Telemetry)[-1].model_version == 2
    assert node.flash[MODELS[1].offset :].startswith(improved().pack())


def test_a_new_key_is_believed_and_the_old_one_no_longer(start) -> None:
    ether = Ether()
    node, _, _ = start(ether=ether, model=model().pack(), public_keys=KEYS, telemetry_period_h=1)
    successor_secret, successor = key_pair(3)
    change = sign(build_keys(KeyChange(RELEASE_KEY, successor), 2), SECRET)
    head = build_head(improved(), 3)
    for hours, data in ((2, change), (4, sign(head, SECRET)), (6, sign(head, successor_secret))):
        ether.queue.append(Downlink(FPort.CONTAINER, data))
        node.power_cycle()
        node.run_until(START_S + hours * 3600)
    heard = [(event.code, event.model_version) for event in ether.decoded(Event) if event.code in UPDATES]
    assert heard == [(EventCode.KEYS_CHANGED, 2), (EventCode.UPDATE_REFUSED, 3), (EventCode.MODEL_ACTIVATED, 3)]
    assert ether.decoded(Telemetry)[-1].model_version == 3


def test_a_change_of_settings_is_applied_said_so_and_outlives_a_reset(start) -> None:
    ether = Ether()
    node, _, _ = start(ether=ether, telemetry_period_h=1)
    ether.queue.append(Downlink(13, SettingsChange({Setting.TELEMETRY_PERIOD_H: 6}).encode()))
    ether.queue.append(Downlink(13, SettingsChange({Setting.WINDOW_START_H: 23}).encode()))  # an empty window
    node.run_until(START_S + 3 * 3600)
    assert events(ether).count(EventCode.SETTINGS_APPLIED) == 1
    node.power_cycle()
    ether.uplinks.clear()
    node.run_until(START_S + 27 * 3600)
    assert len(ether.decoded(Telemetry)) in {4, 5}


def test_a_power_cut_at_any_flash_operation_leaves_a_verified_model(start) -> None:
    container = sign(build_head(improved(), 2), SECRET)
    node, ether = begin(start, container)
    node.run_until(START_S + 60)
    booted = node.flash_operations
    while not ether.complete:
        node.run_until(node.time_s + 900)
    total = node.flash_operations - booted
    assert total > 90
    versions = set()
    for offset in (*range(0, total, 1 + total // 4), total - 1, total):
        node, ether = begin(start, container)
        node.cut_power_at(booted + offset)
        with pytest.raises(PowerCutError):
            node.run_until(START_S + SESSION_HOURS * 3600)
        node.power_cycle()
        ether.uplinks.clear()
        ether.complete = True
        node.run_until(node.time_s + 3700)
        version = ether.decoded(Telemetry)[-1].model_version
        slots = {1: node.flash[MODELS[0].offset :], 2: node.flash[MODELS[1].offset :]}
        assert slots[version].startswith({1: model(), 2: improved()}[version].pack())
        versions.add(version)
    assert versions == {1, 2}
