"""The air loses what the seed says, sends down only after it heard, and forgets nothing that was on it."""

from __future__ import annotations

import pytest

from nodes.emulator.air import Air, AirError, QueuedDownlink
from shared_models.airtime import MAX_PAYLOAD

NODE = "4e4f524941000001"
OTHER = "4e4f524941000002"


def item(number: int, dev_eui: str = NODE, *, size: int = 10, confirmed: bool = False) -> QueuedDownlink:
    return QueuedDownlink(f"item-{number}", dev_eui, 201, bytes([number % 256]) * size, confirmed)


def test_nothing_goes_down_without_a_heard_uplink() -> None:
    deaf = Air(1, [NODE], uplink_loss=0.999999)
    deaf.enqueue(item(1))
    for wake in range(20):
        assert deaf.uplink(NODE, 900.0 * wake, 10, b"hello", 3, confirmed=False) == []
    assert deaf.traffic(NODE).uplinks_lost == 20
    assert deaf.traffic(NODE).downlinks_sent == 0
    assert deaf.queued(NODE) == 1
    assert deaf.take().uplinks == []


def test_one_downlink_per_uplink_in_the_order_of_the_queue() -> None:
    air = Air(1, [NODE, OTHER])
    for number in range(3):
        assert air.enqueue(item(number))
    assert air.uplink(OTHER, 1.0, 10, b"x", 3, confirmed=False) == []
    arrived = [air.uplink(NODE, 10.0 * wake, 10, b"x", 3, confirmed=False) for wake in range(4)]
    assert [[down.payload[0] for down in window] for window in arrived] == [[0], [1], [2], []]
    events = air.take()
    assert [event.id for event in events.transmitted] == ["item-0", "item-1", "item-2"]
    assert [event.f_cnt_down for event in events.transmitted] == [0, 1, 2]
    assert [uplink.f_cnt for uplink in events.uplinks if uplink.dev_eui == NODE] == [0, 1, 2, 3]
    assert air.take().uplinks == []


def test_an_id_is_queued_once() -> None:
    air = Air(1, [NODE])
    assert air.enqueue(item(1))
    assert not air.enqueue(item(1))
    air.uplink(NODE, 1.0, 10, b"x", 3, confirmed=False)
    assert not air.enqueue(item(1))
    assert air.refused == {"repeated id": 2}


def test_a_downlink_for_a_stranger_is_refused_and_counted() -> None:
    air = Air(1, [NODE])
    assert not air.enqueue(item(1, OTHER))
    assert air.refused == {"unknown device": 1}


def test_losses_come_near_their_probability_and_repeat_with_the_seed() -> None:
    def run(seed: int, queued: int) -> tuple[list[bool], str]:
        air = Air(seed, [NODE], uplink_loss=0.1, downlink_loss=0.12)
        for number in range(queued):
            air.enqueue(item(number))
        for wake in range(3000):
            air.uplink(NODE, 900.0 * wake, 10, bytes(20), 3, confirmed=False)
        return [frame.heard for frame in air.log if frame.direction == "up"], air.digest

    heard, digest = run(5, 500)
    assert sum(heard) / len(heard) == pytest.approx(0.9, abs=0.02)
    assert run(5, 500) == (heard, digest)
    # What is queued does not shift an uplink's fate.
    assert run(5, 0)[0] == heard
    assert run(6, 500)[0] != heard


def test_lost_downlinks_are_gone_and_a_confirmed_ones_fate_is_told() -> None:
    air = Air(2, [NODE], downlink_loss=0.5)
    for number in range(200):
        air.enqueue(item(number, confirmed=True))
    arrived = 0
    for wake in range(201):
        arrived += len(air.uplink(NODE, 900.0 * wake, 10, b"x", 3, confirmed=False))
    events, traffic = air.take(), air.traffic(NODE)
    assert traffic.downlinks_sent == 200 == traffic.downlinks_lost + arrived
    assert 60 < arrived < 140
    assert sum(event.acknowledged for event in events.acknowledged) == arrived
    assert len(events.acknowledged) == 200


def test_what_is_too_long_for_the_data_rate_is_discarded_downwards_and_refused_upwards() -> None:
    air = Air(1, [NODE])
    air.enqueue(item(1, size=52))
    air.enqueue(item(2, size=51))
    (down,) = air.uplink(NODE, 1.0, 10, b"x", 0, confirmed=False)
    assert len(down.payload) == 51
    assert [event.id for event in air.take().discarded] == ["item-1"]
    for data_rate, limit in enumerate(MAX_PAYLOAD):
        air.uplink(NODE, 2.0, 10, bytes(limit), data_rate, confirmed=False)
        with pytest.raises(AirError):
            air.uplink(NODE, 2.0, 10, bytes(limit + 1), data_rate, confirmed=False)
    with pytest.raises(AirError):
        air.uplink(OTHER, 1.0, 10, b"x", 3, confirmed=False)


def test_talking_more_than_one_percent_of_an_hour_is_counted() -> None:
    polite, chatty = Air(1, [NODE]), Air(1, [NODE])
    for wake in range(8):
        polite.uplink(NODE, 900.0 * wake, 10, bytes(51), 3, confirmed=False)
    for second in range(60):
        chatty.uplink(NODE, 10.0 * second, 10, bytes(51), 0, confirmed=False)
    assert polite.traffic(NODE).duty_cycle_exceeded == 0
    assert chatty.traffic(NODE).duty_cycle_exceeded > 40


def test_the_digest_sees_every_byte_and_not_which_device_ran_first() -> None:
    def digest(order: list[str], payload: bytes = b"same") -> str:
        air = Air(1, [NODE, OTHER])
        for dev_eui in order:
            for wake in range(3):
                air.uplink(dev_eui, 900.0 * wake, 10, payload, 3, confirmed=False)
        return air.digest

    assert digest([NODE, OTHER]) == digest([OTHER, NODE])
    assert digest([NODE, OTHER]) != digest([NODE, OTHER], b"sane")
