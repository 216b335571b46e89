"""Simulated time for services, and the barrier that makes a run reproducible.

See :class:`shared_models.messages.Tick`: a service answers a tick only when everything that reached it before has
been carried out, so once nobody has anything left to say, the next wake may begin.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from datetime import UTC, datetime

from pydantic import ValidationError

from nodes.emulator.broker_link import BrokerLink
from shared_models.messages import Tick, Tock, tick_topic, tock_topic

_LOG = logging.getLogger(__name__)

PATIENCE_S = 90.0
"""Longer than a gateway or a broker takes to be started again."""
GREETING_S = 1.0


class ServiceSilentError(RuntimeError):
    """A service did not answer a tick; the text names it."""


class SimulatedClock:
    """Sends ticks and collects tocks on the conductor's link.

    Args:
        link: the conductor's connection, before it runs.
    """

    def __init__(self, link: BrokerLink) -> None:
        self._link = link
        self._sequence = 0
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        link.handle(tock_topic("+"), self._tock)

    async def greet(self, clients: Iterable[str], time_s: float) -> None:
        """Wait until every service is there: a tick sent before it has subscribed reaches nobody.

        Raises:
            ServiceSilentError: one was not there within :data:`PATIENCE_S` of real time.
        """
        for client in clients:
            deadline = asyncio.get_running_loop().time() + PATIENCE_S
            while True:
                try:
                    await self._tick_one(client, datetime.fromtimestamp(time_s, UTC), GREETING_S)
                    break
                except ServiceSilentError:
                    if asyncio.get_running_loop().time() > deadline:
                        raise

    async def tick(self, clients: Iterable[str], time_s: float) -> bool:
        """Tell services the time and wait for all of them.

        Args:
            clients: MQTT client names.
            time_s: simulated time, Unix seconds.

        Returns:
            Whether one of them published something for others to act on.

        Raises:
            ServiceSilentError: no answer within :data:`PATIENCE_S` of real time.
        """
        now = datetime.fromtimestamp(time_s, UTC)
        answers = [asyncio.ensure_future(self._tick_one(client, now, PATIENCE_S)) for client in clients]
        return any(await asyncio.gather(*answers))

    async def _tick_one(self, client: str, now: datetime, patience_s: float) -> bool:
        self._sequence += 1
        tick = Tick(sequence=self._sequence, time=now)
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[tick.sequence] = answer
        try:
            await self._link.publish(tick_topic(client), tick.model_dump_json().encode())
            async with asyncio.timeout(patience_s):
                return await answer
        except TimeoutError:
            raise ServiceSilentError(f"{client} did not answer the clock within {patience_s:.0f} s") from None
        finally:
            del self._waiting[tick.sequence]

    def _tock(self, topic: str, payload: bytes) -> None:
        try:
            tock = Tock.model_validate_json(payload)
        except ValidationError as error:
            _LOG.warning("refused a tock on %s: %s", topic, error.errors()[0]["msg"])
            return
        answer = self._waiting.get(tock.sequence)
        if answer is not None and not answer.done():
            answer.set_result(tock.busy)
