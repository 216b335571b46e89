"""One MQTT connection that never gives up, and acknowledges only what has been committed.

aiomqtt acknowledges QoS 1 before its reader has run, and a crash in between would lose the message. Here
paho's manual acknowledgement is on: :meth:`Link.acknowledge` is called after the commit, and whatever was
not acknowledged is delivered again after a reconnect, to the same persistent session.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import aiomqtt

from shared_models.configuration import Broker

log = logging.getLogger(__name__)

FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 30.0
CALL_TIMEOUT_S = 20.0
KEEPALIVE_S = 30


class NotConnected(ConnectionError):  # noqa: N818 - a state
    """There is no connection now, or it broke before the broker acknowledged."""


@dataclass(frozen=True)
class Received:
    """A message as delivered; ``connection`` and ``mid`` tell which delivery to acknowledge."""

    link: Link
    topic: str
    payload: bytes
    connection: int
    mid: int
    qos: int


@dataclass(frozen=True)
class Connected:
    """A link came up: what waits in the outbox may go."""

    link: Link
    lost_s: float
    """When it was last lost, real time in Unix seconds; for the first connection, when the link was made."""


class Link:
    """A connection to one broker that hands on what it receives, in order."""

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        subscriptions: Iterable[str],
        deliver: Callable[[Received | Connected], Awaitable[None]],
    ) -> None:
        self._broker = broker
        self._client_id = client_id
        self._subscriptions = tuple(subscriptions)
        self._deliver = deliver
        self._client: aiomqtt.Client | None = None
        self._connection = 0
        self._lost_s = time.time()

    @property
    def connected(self) -> bool:
        """Whether messages can be published now."""
        return self._client is not None

    async def run(self) -> None:
        """Stay connected until cancelled, with exponential back-off between attempts."""
        delay_s = FIRST_DELAY_S
        while True:
            try:
                async with self._connect() as client:
                    # The session is persistent, and its backlog may arrive ahead of the subscriptions' answer.
                    for topic in self._subscriptions:
                        await client.subscribe(topic, qos=1, timeout=CALL_TIMEOUT_S)
                    self._client, self._connection = client, self._connection + 1
                    delay_s = FIRST_DELAY_S
                    log.info("connected to %s:%d as %s", self._broker.host, self._broker.port, self._client_id)
                    await self._deliver(Connected(self, self._lost_s))
                    await self._receive(client)
            except aiomqtt.MqttError as error:
                log.warning("broker %s:%d: %s; again in %.1f s", self._broker.host, self._broker.port, error, delay_s)
            finally:
                if self._client is not None:
                    self._client, self._lost_s = None, time.time()
            await asyncio.sleep(delay_s * random.uniform(0.8, 1.2))  # noqa: S311 - spreads reconnects, reaches no result
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    async def _receive(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            payload = message.payload if isinstance(message.payload, bytes) else b""
            await self._deliver(
                Received(self, message.topic.value, payload, self._connection, message.mid, message.qos)
            )

    def _connect(self) -> aiomqtt.Client:
        broker = self._broker
        client = aiomqtt.Client(
            broker.host,
            broker.port,
            username=broker.username,
            password=broker.password(),
            identifier=self._client_id,
            clean_session=False,
            keepalive=KEEPALIVE_S,
            timeout=CALL_TIMEOUT_S,
            tls_context=ssl.create_default_context(cafile=str(broker.ca_file)) if broker.ca_file else None,
        )
        client.pending_calls_threshold = 1000
        client._client.manual_ack_set(True)  # aiomqtt offers no way of its own
        return client

    def comes_again(self, received: Received) -> bool:
        """Whether the broker will deliver ``received`` once more because its connection broke meanwhile."""
        return received.qos > 0 and (self._client is None or received.connection != self._connection)

    def acknowledge(self, received: Received) -> None:
        """Tell the broker that ``received`` is safe; nothing where its connection is gone."""
        if self._client is not None and received.connection == self._connection and received.qos > 0:
            self._client._client.ack(received.mid, received.qos)  # see _connect

    async def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Publish at QoS 1 and wait for the broker's acknowledgement.

        Raises:
            NotConnected: there is no connection, or it broke; the message may or may not have arrived.
        """
        if self._client is None:
            raise NotConnected(topic)
        try:
            await self._client.publish(topic, payload, qos=1, retain=retain, timeout=CALL_TIMEOUT_S)
        except aiomqtt.MqttError as error:
            raise NotConnected(f"{topic}: {error}") from error
