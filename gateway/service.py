"""The running gateway: one task group, one consumer, one transaction per message.

Uplinks, assignments and ticks come through one queue in the order of their arrival. Each is carried out in one
transaction, acknowledged after it, and what it put into the outbox is published next. A crash anywhere leaves
either nothing of a message, which the broker then delivers again, or all of it, its outgoing messages included.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sqlite3
import time
from datetime import UTC, datetime

from pydantic import ValidationError

from gateway.clock import DAY_S, Clock
from gateway.commands import Commands
from gateway.config import GatewaySettings
from gateway.downlinks import Downlinks
from gateway.duty import Duty
from gateway.ingest import Ingest
from gateway.link import Connected, Link, NotConnected, Received
from gateway.membership import STANDING, Journal
from gateway.metrics import serve_metrics
from gateway.network_servers import Joined, PayloadError, Transmitted, Uplink, adapter
from gateway.refusal import RefusalLog, Refused
from gateway.status import send_status
from gateway.store import BrokerName, Outgoing, Store
from gateway.supernode import keep_supernode
from gateway.updates import Updates
from shared_models.codes import EventCode
from shared_models.configuration import explain
from shared_models.frames import Event
from shared_models.messages import (
    Assignment,
    Tick,
    Tock,
    assignment_topic,
    tick_topic,
    tock_topic,
)

log = logging.getLogger(__name__)

COMMAND_PERIOD_S = 1.0
STATUS_PERIOD_S = 60.0
PUBLISHED_AT_ONCE = 20
STOP_PATIENCE_S = 2.0
MAX_ASSIGNMENT_BYTES = 2_000_000 + 16 * 8192
"""A hundred thousand devices and sixteen containers."""


class Elapsed:
    """Real time has passed: look for commands, and send a heartbeat every minute."""


class Gateway:
    """One site's service."""

    def __init__(self, settings: GatewaySettings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._clock = Clock(settings.clock, int(store.meta("clock_s") or 0))
        self._adapter = adapter(settings.network.kind, settings.network.application)
        self._ingest = Ingest(store, self._clock, settings.utc_offset_min)
        self._commands = Commands(store, self._clock)
        duty = Duty(store, self._clock, settings.downlinks)
        self._updates = Updates(store, self._clock, settings.site, duty)
        self._downlinks = Downlinks(store, self._clock, self._adapter, self._commands, self._updates, duty)
        self._refusals = RefusalLog()
        self._tick_topic = tick_topic(settings.client_id)
        self._assignment_prefix = assignment_topic(settings.site, "")
        self._next_status_s = 0.0
        self._inbox: asyncio.Queue[Received | Connected | Elapsed] = asyncio.Queue(maxsize=1000)
        self._links = self._connect()

    def _connect(self) -> dict[BrokerName, Link]:
        settings = self._settings
        network = list(self._adapter.subscriptions)
        server = [assignment_topic(settings.site, "+")]
        if self._clock.simulated:
            server.append(self._tick_topic)
        if settings.server_broker is None or settings.server_broker == settings.broker:
            link = Link(settings.broker, settings.client_id, network + server, self._inbox.put)
            return {"network": link, "server": link}
        return {
            "network": Link(settings.broker, settings.client_id, network, self._inbox.put),
            "server": Link(settings.server_broker, settings.client_id, server, self._inbox.put),
        }

    def announce(self) -> None:
        """Have a heartbeat published with the first connection: from then on, this gateway misses nothing."""
        with self._store.transaction():
            send_status(self._store, self._clock, self._settings.site, only_changes=False)

    async def run(self) -> None:
        """Serve until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for link in dict.fromkeys(self._links.values()):
                tasks.create_task(link.run())
            if not self._clock.simulated:
                tasks.create_task(self._time_passes())
            if self._settings.federation is not None:
                journal = Journal(self._store, self._clock)
                tasks.create_task(keep_supernode(self._settings, self._settings.federation, journal))
            else:
                self._store.execute("DELETE FROM meta WHERE key = ?", (STANDING,))
            with serve_metrics(self._settings):
                await self._consume()

    async def _time_passes(self) -> None:
        while True:
            await self._inbox.put(Elapsed())
            await asyncio.sleep(COMMAND_PERIOD_S)

    async def _consume(self) -> None:
        while True:
            item = await self._inbox.get()
            if isinstance(item, Received):
                await self._receive(item)
                continue
            if isinstance(item, Elapsed):
                self._housekeep()
            else:
                self._recall(item)
            await self._flush()

    def _recall(self, connected: Connected) -> None:
        """A broker that was killed may have forgotten what it acknowledged last."""
        for broker, link in self._links.items():
            if link is connected.link:
                self._store.recall(broker, connected.lost_s)

    async def _receive(self, received: Received) -> None:
        if received.link.comes_again(received):
            return  # Taking it now and once more later would upset the order.
        if self._clock.simulated and received.topic == self._tick_topic:
            if not await self._tick(received):
                return  # Not acknowledged: it comes again with the next connection.
        else:
            self.carry_out(received.topic, received.payload)
        received.link.acknowledge(received)
        await self._flush()

    def carry_out(self, topic: str, payload: bytes) -> None:
        """All of a message, or its refusal, in one transaction.

        Only the store's own failures leave this function: without a commit there is no acknowledgement, and
        the service ends so that it is started again.
        """
        try:
            with self._store.transaction():
                self._dispatch(topic, payload)
        except Refused as refused:
            self._refuse(refused, topic)
        except sqlite3.OperationalError:
            raise
        except Exception:
            # Whatever a stranger's bytes have found in us must not stop the others' messages (invariant I2).
            log.exception("could not carry out a message on %.120r", topic)
            self._refuse(Refused("internal", "a fault of this gateway; see the line above"), topic)

    def _refuse(self, refused: Refused, topic: str) -> None:
        with self._store.transaction():
            self._store.count(f"refused.{refused.reason}")
        self._refusals.write(refused, topic)

    def _dispatch(self, topic: str, payload: bytes) -> None:
        if self._adapter.owns(topic):
            self._from_network_server(topic, payload)
        elif topic.startswith(self._assignment_prefix):
            self._assigned(topic, payload)
        else:
            raise Refused("topic", "not a topic of this gateway's")

    def _from_network_server(self, topic: str, payload: bytes) -> None:
        try:
            message = self._adapter.parse(topic, payload)
        except PayloadError as error:
            raise Refused("payload", str(error)) from error
        if isinstance(message, Uplink):
            self._uplink(message)
        elif isinstance(message, Transmitted):
            self._downlinks.transmitted(message)
        elif isinstance(message, Joined):
            self._ingest.rejoined(message.dev_eui)

    def _uplink(self, uplink: Uplink) -> None:
        frame = self._ingest.take(uplink)
        if frame is None:
            return
        self._remember_time()
        if isinstance(frame, Event) and frame.code is EventCode.SETTINGS_APPLIED:
            self._commands.applied(uplink.dev_eui)
        else:
            self._commands.unanswered(uplink.dev_eui)
        self._updates.hear(uplink.dev_eui, frame)
        self._downlinks.after_uplink(uplink.dev_eui, uplink.uplink_id)

    def _assigned(self, topic: str, payload: bytes) -> None:
        if not payload:
            return  # A retained assignment was cleared.
        if len(payload) > MAX_ASSIGNMENT_BYTES:
            raise Refused("assignment", f"{len(payload)} bytes")
        try:
            assignment = Assignment.model_validate_json(payload)
        except ValidationError as error:
            raise Refused("assignment", explain(error)) from error
        if topic != assignment_topic(self._settings.site, assignment.campaign):
            raise Refused("assignment", f"campaign {assignment.campaign} on another campaign's topic")
        self._updates.assign(assignment)

    def _housekeep(self) -> None:
        """What real time asks for."""
        now_s = asyncio.get_running_loop().time()
        status_due = now_s >= self._next_status_s
        if not status_due and not self._commands.pending():
            return
        with self._store.transaction():
            self._take_commands()
            if status_due:
                self._next_status_s = now_s + STATUS_PERIOD_S
                self._daily()
                send_status(self._store, self._clock, self._settings.site, only_changes=False)

    async def _tick(self, received: Received) -> bool:
        """Carry out simulated time; False when it must come again because something could not be published."""
        try:
            tick = Tick.model_validate_json(received.payload)
        except ValidationError as error:
            self._refuse(Refused("tick", explain(error)), received.topic)
            return True
        self._clock.advance(int(tick.time.timestamp()))
        with self._store.transaction():
            self._remember_time()
            self._take_commands()
            self._daily()
            send_status(self._store, self._clock, self._settings.site, only_changes=True)
        if not await self._flush():
            return False
        sequence, told = (int(part) for part in (self._store.meta("answered") or "0 0").split())
        if tick.sequence < sequence:
            return True  # Told again after a later one: nobody waits for its answer.
        # Told again because nobody heard the answer, a tick is answered as before.
        busy = self._store.meta("busy") == "1" or (tick.sequence == sequence and told == 1)
        with self._store.transaction():
            self._store.set_meta("answered", f"{tick.sequence} {int(busy)}")
            self._store.set_meta("busy", "0")
        tock = Tock(sequence=tick.sequence, time=datetime.fromtimestamp(self._clock.now_s(), UTC), busy=busy)
        try:
            topic = tock_topic(self._settings.client_id)
            await self._links["server"].publish(topic, tock.model_dump_json().encode(), retain=False)
        except NotConnected:
            return False
        return True

    def _take_commands(self) -> None:
        for command, dev_eui in self._commands.take_new():
            self._downlinks.unprompted(dev_eui, cause=f"command/{command}")

    def _daily(self) -> None:
        today = str(self._clock.now_s() // DAY_S)
        if self._store.meta("pruned_day") != today:
            self._store.set_meta("pruned_day", today)
            self._ingest.prune(self._settings.retention_days)
            self._updates.expire()

    def _remember_time(self) -> None:
        if self._clock.simulated:
            self._store.set_meta("clock_s", str(self._clock.now_s()))

    async def _flush(self) -> bool:
        """Publish the outbox in order; False when something had to stay for lack of a connection."""
        complete = True
        for broker, link in self._links.items():
            while messages := self._store.outgoing(broker, PUBLISHED_AT_ONCE):
                results = await asyncio.gather(*(self._publish(link, message) for message in messages))
                done = [message for message, success in zip(messages, results, strict=True) if success]
                if done:
                    self._store.sent(done, time.time())
                if len(done) < len(messages):
                    complete = False
                    break
        return complete

    async def _publish(self, link: Link, message: Outgoing) -> bool:
        try:
            await link.publish(message.topic, message.payload, retain=message.retain)
        except NotConnected:
            return False
        return True


async def serve(settings: GatewaySettings) -> None:
    """Run one gateway until SIGTERM or SIGINT.

    Raises:
        StoreError: the store cannot be used.
    """
    with Store(settings.store) as store:
        store.configure(settings)
        gateway = Gateway(settings, store)
        gateway.announce()
        running = asyncio.create_task(gateway.run())
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        log.info("gateway %s: %d nodes, store %s", settings.site, len(settings.nodes), settings.store)
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        # Python 3.11's wait_for loses a cancellation that meets its result (bpo-37658), so ask until it is heard.
        while not running.done():
            running.cancel()
            await asyncio.wait({running}, timeout=STOP_PATIENCE_S)
        with contextlib.suppress(asyncio.CancelledError):
            await running
        log.info("gateway %s: stopped", settings.site)
