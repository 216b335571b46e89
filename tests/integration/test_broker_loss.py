"""I4: a broker acknowledges before it saves. What it forgets when it is killed in between is said again."""

import asyncio
import contextlib
import time

import pytest
from gateway_cases import Mosquitto

from gateway.link import Connected, Link
from gateway.store import SAVED_S, Store
from nodes.emulator.broker_link import BrokerLink
from shared_models.configuration import Broker


@pytest.fixture
def broker(tmp_path):
    running = Mosquitto(tmp_path / "broker")
    yield running
    running.stop()


@contextlib.asynccontextmanager
async def kept(link):
    task = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_what_a_link_published_and_nobody_has_acted_on_yet_survives_the_broker(broker):
    async def play():
        heard, complete = [], asyncio.Event()

        def hear(_, payload):
            heard.append(payload)
            if payload == b"third":
                complete.set()

        listener = BrokerLink(Broker(port=broker.port), "listener")
        listener.handle("t", hear)
        async with kept(listener):
            await listener.connected()
        speaker = BrokerLink(Broker(port=broker.port), "speaker")
        async with kept(speaker):
            await speaker.publish("t", b"settled")
            speaker.settled()
            await speaker.publish("t", b"first")
            await speaker.publish("t", b"second")
            broker.kill()  # at once: Mosquitto acknowledged a moment ago, and saves a moment later
            broker.start()
            await speaker.publish("t", b"third")
            async with kept(listener), asyncio.timeout(20):
                await complete.wait()
        return [payload for payload in heard if payload != b"settled"]

    heard = asyncio.run(play())
    assert list(dict.fromkeys(heard)) == [b"first", b"second", b"third"]


def test_a_gateway_learns_when_its_connection_broke(broker):
    async def play():
        arrived = asyncio.Queue()
        async with kept(Link(Broker(port=broker.port), "gateway", ["t"], arrived.put)), asyncio.timeout(30):
            first = await arrived.get()
            before = time.time()
            broker.kill()
            broker.start()
            return first, before, await arrived.get()

    first, before, second = asyncio.run(play())
    assert isinstance(first, Connected)
    assert isinstance(second, Connected)
    assert first.lost_s < before <= second.lost_s <= time.time()


def test_messages_acknowledged_shortly_before_the_connection_broke_go_out_again_in_their_order(tmp_path):
    with Store(tmp_path / "gateway.db") as store:
        with store.transaction():
            for number in range(4):
                store.send("network", f"t/{number}", b"x")
            store.send("server", "status", b"x", retain=True)
        network = store.outgoing("network", 10)
        store.sent(network[:1], now_s=1000.0)
        store.sent([*network[1:3], *store.outgoing("server", 10)], now_s=1000.0 + SAVED_S)
        assert [message.topic for message in store.outgoing("network", 10)] == ["t/3"]

        store.recall("network", lost_s=1000.5 + SAVED_S)

        assert [message.topic for message in store.outgoing("network", 10)] == ["t/1", "t/2", "t/3"]
        assert store.outgoing("server", 10) == []
        store.recall("network", lost_s=1000.5 + SAVED_S)
        assert len(store.outgoing("network", 10)) == 3
        store.recall("server", lost_s=1000.5 + SAVED_S)
        assert [message.topic for message in store.outgoing("server", 10)] == ["status"]
