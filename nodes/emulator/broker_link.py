"""One MQTT connection that outlives its broker: ordered, at least once, reconnecting for ever.

The virtual network server and the conductor of a simulation share one link, so that what they publish arrives in the
order in which they said it, and what they hear is handled in the order in which it was said to them.

A broker acknowledges a moment before it saves: killed in between, it has forgotten what it acknowledged. So the link
remembers what it published until it is told that everyone has acted on it, and says it again over every reconnection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import aiomqtt

from shared_models.configuration import Broker

_LOG = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0

Handler = Callable[[str, bytes], None]


class BrokerLink:
    """A persistent session on a broker."""

    def __init__(self, broker: Broker, client_id: str) -> None:
        """Args: where and as whom to log in; the MQTT client id under which the broker keeps the session."""
        self._broker, self._client_id = broker, client_id
        self._handlers: list[tuple[str, Handler]] = []
        self._client: aiomqtt.Client | None = None
        self._connected = asyncio.Event()
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order = asyncio.Lock()
        self._unsettled: list[tuple[str, bytes, bool]] = []
        self.reconnections = 0

    def handle(self, topic_filter: str, handler: Handler) -> None:
        """Subscribe before :meth:`run`; the handler must not raise, and its message is acknowledged after it.

        Args:
            topic_filter: may hold wildcards; the first filter that matches gets a message.
            handler: takes topic and payload.
        """
        self._handlers.append((topic_filter, handler))

    async def connected(self) -> None:
        """Wait until the link is up and subscribed."""
        await self._connected.wait()

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Return when the broker has acknowledged; try again over every reconnection, in the order of the calls."""
        async with self._order:
            while True:
                await self._connected.wait()
                client, lost = self._client, self._lost
                if client is None:
                    continue
                attempt = asyncio.ensure_future(client.publish(topic, payload, qos=1, retain=retain))
                try:
                    await asyncio.wait({attempt, lost}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not attempt.done():
                        attempt.cancel()
                if attempt.done():
                    try:
                        attempt.result()
                    except aiomqtt.MqttError as error:
                        _LOG.info("publishing on %s again: %s", topic, error)
                    else:
                        self._unsettled.append((topic, payload, retain))
                        return
                await asyncio.gather(attempt, return_exceptions=True)
                # The socket may have died a moment before the consumer notices.
                await asyncio.sleep(0 if lost.done() else FIRST_PAUSE_S)

    def settled(self) -> None:
        """Everyone has acted on what was published so far: it need never be said again."""
        self._unsettled.clear()

    async def run(self) -> None:
        """Keep the connection and carry messages to their handlers, until cancelled."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                async with self._new_client() as client:
                    if self._handlers:
                        await client.subscribe([(topic_filter, 1) for topic_filter, _ in self._handlers])
                    for topic, payload, retain in tuple(self._unsettled):
                        await client.publish(topic, payload, qos=1, retain=retain)
                    self._client = client
                    self._connected.set()
                    pause_s = FIRST_PAUSE_S
                    async for message in client.messages:
                        self._deliver(message)
                        client._client.ack(message.mid, message.qos)
            except aiomqtt.MqttError as error:
                _LOG.warning("broker %s:%d lost: %s", self._broker.host, self._broker.port, error)
                self.reconnections += 1
            finally:
                self._drop()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _new_client(self) -> aiomqtt.Client:
        client = aiomqtt.Client(
            self._broker.host,
            self._broker.port,
            username=self._broker.username,
            password=self._broker.password(),
            identifier=self._client_id,
            clean_session=False,
            tls_params=aiomqtt.TLSParameters(ca_certs=str(self._broker.ca_file)) if self._broker.ca_file else None,
        )
        # aiomqtt would acknowledge before the handler has run, and lose what it drops on a disconnect.
        client._client.manual_ack_set(True)
        return client

    def _drop(self) -> None:
        self._client = None
        self._connected.clear()
        if not self._lost.done():
            self._lost.set_result(None)
        self._lost = asyncio.get_running_loop().create_future()

    def _deliver(self, message: aiomqtt.Message) -> None:
        payload = bytes(message.payload) if isinstance(message.payload, bytes | bytearray) else b""
        for topic_filter, handler in self._handlers:
            if message.topic.matches(topic_filter):
                handler(message.topic.value, payload)
                return
        _LOG.warning("nobody handles %s", message.topic.value)
