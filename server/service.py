"""The running server: one process, structured by one task group; cancellation is shutdown.

It consumes the gateways' messages one by one, acknowledging each only after its consequences are committed; carries
out commands; publishes assignments from an outbox; keeps the SuperLink running. All state is in the store, so it
may be killed at any point. One thread has the one connection, and there is no await inside a transaction: what one
message or command causes is never interleaved with another's. Judging and signing take long and go to other threads,
which see values only: the loop and the store are free for everybody else meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sqlite3
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeGuard

import aiomqtt
from pydantic import ValidationError

from server import campaigns, commands, fleet, improvement, lock, making, pki, releases, signing, store, supernodes
from server.campaigns import CampaignError
from server.commands import CommandError
from server.config import ServerSettings
from server.fleet import StatusError
from server.improvement import RoundError
from server.lock import LockedError
from server.metrics import serve_metrics
from server.refresh import need as refreshes
from server.refresh.running import RefreshError, refresh
from server.releases import ReleaseError
from server.scheduler import Scheduler
from server.signing import Signer, SigningError
from server.superlink import FlowerError, SuperLink
from server.supernodes import ControlError
from shared_models.configuration import Broker, explain
from shared_models.messages import (
    Progress,
    SiteStatus,
    Tick,
    Tock,
    assignment_topic,
    progress_topic,
    status_topic,
    tick_topic,
    tock_topic,
)

logger = logging.getLogger(__name__)

CLIENT = "server"
COMMAND_POLL_S = 0.2
SCHEDULE_POLL_S = 5.0
LOCK_FILE = "server.lock"
LOCK_PATIENCE_S = 1.0
HEARTBEAT_S = 2.0
FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 30.0
PUBLISH_TIMEOUT_S = 20.0
ALIGN_PERIOD_S = 30.0
CERTIFICATE_PERIOD_S = 86_400.0
RUN_MARGIN_S = 60.0
"""Beyond waiting for nodes and replies: starting Python processes, on a busy machine."""
MAX_PAYLOAD_BYTES = {"status": 16 << 20, "progress": 4096, "tick": 1024}


class AlreadyRunningError(RuntimeError):
    """Another server runs on this state directory."""


class MessageError(ValueError):
    """A message that cannot be used; the text says why."""


@contextlib.contextmanager
def sole_server(state_dir: Path) -> Iterator[None]:
    """Hold the lock that says a server runs here.

    Raises:
        AlreadyRunningError: it is held.
    """
    try:
        with lock.hold(state_dir / LOCK_FILE, LOCK_PATIENCE_S):
            yield
    except LockedError:
        raise AlreadyRunningError(f"a server runs on {state_dir} already") from None


def is_running(state_dir: Path) -> bool:
    """Whether a server runs on this state directory now."""
    return lock.is_held(state_dir / LOCK_FILE)


class Clock:
    """The system's time, or the time of the newest tick."""

    def __init__(self, connection: sqlite3.Connection, *, simulated: bool) -> None:
        self._connection = connection
        self.simulated = simulated
        self._latest_s = int(store.get_meta(connection, "clock_s") or 0) if simulated else 0

    def now_s(self) -> int:
        """Unix seconds UTC."""
        return self._latest_s if self.simulated else int(time.time())

    def hear(self, time: datetime) -> None:
        """A gateway spoke at ``time``; between ticks that is how simulated time passes."""
        if self.simulated:
            self._latest_s = max(self._latest_s, int(time.timestamp()))

    def advance(self, time_s: int) -> None:
        """Simulated time has reached ``time_s``; it never runs backwards."""
        self._latest_s = max(self._latest_s, time_s)
        store.set_meta(self._connection, "clock_s", str(self._latest_s))


class Server:
    """Everything the running server does.

    Args:
        settings: Its configuration.
        key: Signs releases.
        connection: Its store, already created.
    """

    def __init__(self, settings: ServerSettings, key: Signer, connection: sqlite3.Connection) -> None:
        self.settings = settings
        self.key = key
        self.connection = connection
        self.clock = Clock(connection, simulated=settings.clock == "simulated")
        self.pki = None if settings.fleet_api is None else pki.Pki(settings.fleet_api.certificates)
        self.superlink = SuperLink(settings.state_dir / "flower", settings.superlink.port, self.pki)
        self._keys_changed = asyncio.Event()
        self.scheduler = Scheduler(connection, settings.rounds, settings.federation)
        self._client: aiomqtt.Client | None = None
        self._group: asyncio.TaskGroup
        self._resuming: asyncio.Task[None] | None = None
        self._improving: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._making: asyncio.Task[None] | None = None
        self._releasing = asyncio.Lock()
        self._publishing = asyncio.Lock()
        self._published_since_tick = False
        self._answered = (0, False)

    async def run(self) -> None:
        """Serve until cancelled."""
        now_s = self.clock.now_s()
        with store.transaction(self.connection):
            commands.give_up_unfinished(self.connection, now_s)
            store.set_meta(self.connection, "started_s", str(now_s))
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._resuming = group.create_task(self._resume())
                group.create_task(self.superlink.keep_running(self._superlink_changed))
                group.create_task(self._talk_to_gateways())
                group.create_task(self._carry_out_commands())
                group.create_task(self._show_life())
                if self.pki is not None:
                    group.create_task(self._keep_keys_aligned(self.pki))
                    group.create_task(self._watch_certificates(self.pki))
                if not self.clock.simulated:
                    group.create_task(self._keep_schedule())
        finally:
            commands.give_up_unfinished(self.connection, self.clock.now_s())
            if not improvement.is_open(self.connection):
                commands.conclude_round(self.connection, None, self.clock.now_s())
            store.set_meta(self.connection, "heartbeat_s", "0")
            store.set_meta(self.connection, "superlink", "down")
            store.set_meta(self.connection, "broker", "down")

    async def _resume(self) -> None:
        """Finish the round that a stopped server left open."""
        outcome = await improvement.resume(self.connection, self.settings, self.key, self.clock.now_s, self._releasing)
        commands.conclude_round(self.connection, outcome, self.clock.now_s())

    def _superlink_changed(self, up: bool) -> None:  # noqa: FBT001
        store.set_meta(self.connection, "superlink", "up" if up else "down")
        if up:
            self._keys_changed.set()
        else:
            store.count(self.connection, "superlink.ended")

    async def _watch_certificates(self, certificates: pki.Pki) -> None:
        while True:
            try:
                _check_certificates(certificates)
            except pki.PkiError as error:
                logger.error("%s", error)
            await asyncio.sleep(CERTIFICATE_PERIOD_S)

    async def _keep_keys_aligned(self, certificates: pki.Pki) -> None:
        """Bring the SuperLink in line with the registered keys: when they change, when it comes up, and regularly."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ALIGN_PERIOD_S):
                    await self._keys_changed.wait()
            self._keys_changed.clear()
            if store.get_meta(self.connection, "superlink") != "up":
                continue
            keys = supernodes.wanted(self.connection)
            try:
                found = await asyncio.to_thread(
                    supernodes.align, self.superlink.address, certificates.ca.certificate, keys
                )
            except (ControlError, OSError, ValueError) as error:
                store.count(self.connection, "supernodes.not_aligned")
                logger.error("the SuperLink could not be told which keys to take: %s", error)
                continue
            with store.transaction(self.connection):
                supernodes.record(self.connection, found, self.clock.now_s())

    async def _show_life(self) -> None:
        while True:
            store.set_meta(self.connection, "heartbeat_s", str(int(time.time())))
            await asyncio.sleep(HEARTBEAT_S)

    # Gateways

    async def _talk_to_gateways(self) -> None:
        delay_s = FIRST_DELAY_S
        while True:
            try:
                async with _connect(self.settings.broker) as client:
                    await self._subscribe(client)
                    self._client = client
                    store.set_meta(self.connection, "broker", "up")
                    delay_s = FIRST_DELAY_S
                    logger.info("connected to broker %s:%d", self.settings.broker.host, self.settings.broker.port)
                    campaigns.republish_active(self.connection)
                    await self._publish_assignments()
                    async for message in client.messages:
                        await self._consume(client, message)
            except aiomqtt.MqttError as error:
                store.count(self.connection, "mqtt.disconnected")
                logger.warning("broker: %s; again in %.1f s", error, delay_s)
            finally:
                self._client = None
                store.set_meta(self.connection, "broker", "down")
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        topics = [progress_topic("+"), status_topic("+")]
        if self.clock.simulated:
            topics.append(tick_topic(CLIENT))
        for topic in topics:
            await client.subscribe(topic, qos=1)

    async def _consume(self, client: aiomqtt.Client, message: aiomqtt.Message) -> None:
        """Carry out one message, then acknowledge it; a bad one is refused, counted and acknowledged too."""
        topic, payload = message.topic.value, message.payload
        try:
            await self._dispatch(topic, payload if isinstance(payload, bytes) else b"")
        except (MessageError, ValidationError, CampaignError, StatusError) as error:
            reason = explain(error) if isinstance(error, ValidationError) else str(error)
            logger.warning("refused a message on %.80s: %.300s", topic, reason)
            store.count(self.connection, "mqtt.messages_refused")
        client._client.ack(message.mid, message.qos)
        await self._publish_assignments()

    async def _dispatch(self, topic: str, payload: bytes) -> None:
        kind = topic.rsplit("/", 1)[-1] if topic != tick_topic(CLIENT) else "tick"
        limit = MAX_PAYLOAD_BYTES.get(kind)
        if limit is None:
            raise MessageError("nothing is expected on this topic")
        if len(payload) > limit:
            raise MessageError(f"{len(payload)} bytes, at most {limit} are read")
        if kind == "tick":
            await self._tick(Tick.model_validate_json(payload))
            return
        site = topic.split("/")[3]
        if kind == "progress":
            progress = Progress.model_validate_json(payload)
            self.clock.hear(progress.time)
            campaigns.record_progress(self.connection, site, progress, self.clock.now_s())
        else:
            status = SiteStatus.model_validate_json(payload)
            self.clock.hear(status.time)
            fleet.record_status(self.connection, site, status)
            campaigns.watch(self.connection, site, self.clock.now_s())

    async def _tick(self, tick: Tick) -> None:
        """Everything received so far is done and published, a round in progress included; then say so."""
        self.clock.advance(int(tick.time.timestamp()))
        self._keep_time()
        self._carry_out_pending()
        while unfinished := self._long_tasks():
            await asyncio.wait(unfinished)
            self._carry_out_pending()  # what had to wait for its turn
        await self._publish_assignments()
        sequence, told = self._answered
        if tick.sequence < sequence:
            return  # Told again after a later one: nobody waits for its answer.
        # Told again because nobody heard the answer, a tick is answered as before.
        busy = self._published_since_tick or (tick.sequence == sequence and told)
        self._answered, self._published_since_tick = (tick.sequence, busy), False
        tock = Tock(sequence=tick.sequence, time=tick.time, busy=busy)
        if self._client is not None:
            await self._client.publish(tock_topic(CLIENT), tock.model_dump_json(), qos=1, timeout=PUBLISH_TIMEOUT_S)

    async def _publish_assignments(self) -> None:
        """Bring the outbox to the broker; what it does not acknowledge stays in the outbox."""
        async with self._publishing:
            for assignment in campaigns.unpublished(self.connection):
                if self._client is None:
                    return
                await self._client.publish(
                    assignment_topic(assignment["site"], assignment["campaign"]),
                    assignment["message"],
                    qos=1,
                    retain=True,
                    timeout=PUBLISH_TIMEOUT_S,
                )
                campaigns.mark_published(self.connection, assignment)
                self._published_since_tick = True

    # People

    async def _carry_out_commands(self) -> None:
        while True:
            self._carry_out_pending()
            with contextlib.suppress(aiomqtt.MqttError):  # the connection's own task deals with it
                await self._publish_assignments()
            await asyncio.sleep(COMMAND_POLL_S)

    async def _keep_schedule(self) -> None:
        """Where time is not told by ticks."""
        while True:
            self._keep_time()
            with contextlib.suppress(aiomqtt.MqttError):  # the connection's own task deals with it
                await self._publish_assignments()
            await asyncio.sleep(SCHEDULE_POLL_S)

    def _keep_time(self) -> None:
        """What is due by the clock alone: rounds, campaigns that start or end by themselves."""
        self.scheduler.step(self.clock.now_s())
        campaigns.review(self.connection, self.clock.now_s())
        refreshes.ask_if_due(self.connection, self.settings.refresh, self.clock.now_s())

    def _long_tasks(self) -> list[asyncio.Task[None]]:
        """Those under way."""
        tasks = (self._resuming, self._improving, self._refreshing, self._making)
        return [task for task in tasks if _under_way(task)]

    def _carry_out_pending(self) -> None:
        """Begin every pending command; what takes long goes on when this returns, all else is finished."""
        for row in commands.pending(self.connection):
            try:
                command = commands.read(row)
                if command.action == commands.IMPROVE:
                    self._begin_round(command)
                    continue
                if command.action == commands.REFRESH:
                    self._begin_refresh(command)
                    continue
                if command.action in making.ACTIONS:
                    self._begin_making(command, row)
                    continue
                with store.transaction(self.connection):
                    now_s = self.clock.now_s()
                    result = commands.carry_out(self.connection, command, now_s, self.settings.campaigns)
                    commands.finish(self.connection, row["id"], "done", result, now_s)
                if row["action"] in commands.SUPERNODE_ACTIONS:
                    self._keys_changed.set()
                logger.info("%s by %s: %s", row["action"], row["actor"], result["message"])
            except CommandError as error:
                self._refuse(row, str(error))

    def _begin_making(self, command: commands.Command, row: sqlite3.Row) -> None:
        """Make what is asked for, one after the other; the next one stays pending."""
        if _under_way(self._making):
            return
        commands.begin(self.connection, command.id)
        self._making = self._group.create_task(self._make(command, row))

    async def _make(self, command: commands.Command, row: sqlite3.Row) -> None:
        try:
            async with self._releasing:
                made = await making.prepare(self.connection, self.settings, self.key, command.action, command.arguments)
                with store.transaction(self.connection):
                    now_s = self.clock.now_s()
                    result = making.keep(self.connection, made, command.actor, now_s)
                    commands.finish(self.connection, command.id, "done", result, now_s)
            logger.info("%s by %s: %s", command.action, command.actor, result["message"])
        except making.MakingError as error:
            self._refuse(row, str(error))

    def _refuse(self, row: sqlite3.Row, reason: str) -> None:
        logger.warning("refused %.60s by %.60s: %s", row["action"], row["actor"], reason)
        now_s = self.clock.now_s()
        with store.transaction(self.connection):
            commands.finish(self.connection, row["id"], "refused", {"message": reason}, now_s)
            store.audit(self.connection, now_s, row["actor"], row["action"], row["arguments"][:200], "refused", reason)
            store.count(self.connection, "commands.refused")

    def _begin_round(self, command: commands.Command) -> None:
        if _under_way(self._resuming):
            return  # It stays pending until the last round is finished.
        if _under_way(self._improving):
            raise CommandError("a round is in progress")
        if command.arguments:
            raise CommandError("improve takes no arguments")
        commands.begin(self.connection, command.id)
        self._improving = self._group.create_task(self._improve(command))

    async def _improve(self, command: commands.Command) -> None:
        federation = self.settings.federation
        timeout_s = federation.longest_s + RUN_MARGIN_S
        state: store.Outcome = "done"
        result: dict[str, Any]
        try:
            result = await improvement.improve(
                self.connection,
                self.settings,
                self.key,
                self.clock.now_s,
                lambda run_config: self.superlink.run(federation.app, run_config, timeout_s),
                self._releasing,
            )
            logger.info("round %d: %s", result["round"], result["message"])
        except (RoundError, FlowerError, ReleaseError, SigningError, OSError, ValueError, ArithmeticError) as error:
            state, result = "failed", {"message": str(error)}
            logger.error("the round failed: %s", error)
        now_s = self.clock.now_s()
        with store.transaction(self.connection):
            commands.finish(self.connection, command.id, state, result, now_s)
            store.audit(self.connection, now_s, command.actor, command.action, "federation", state, result["message"])

    def _begin_refresh(self, command: commands.Command) -> None:
        if _under_way(self._refreshing):
            raise CommandError("a refresh is in progress")
        if command.arguments:
            raise CommandError("refresh takes no arguments")
        commands.begin(self.connection, command.id)
        self._refreshing = self._group.create_task(self._refresh(command))

    async def _refresh(self, command: commands.Command) -> None:
        state: store.Outcome = "done"
        result: dict[str, Any]
        try:
            result = await refresh(
                self.connection, self.settings, self.key, self.clock.now_s, self._releasing, command.actor
            )
        except (RefreshError, ReleaseError, SigningError, OSError, ValueError) as error:
            state, result = "failed", {"message": str(error)}
        logger.info("refresh: %s", result["message"])
        now_s = self.clock.now_s()
        with store.transaction(self.connection):
            commands.finish(self.connection, command.id, state, result, now_s)
            store.audit(self.connection, now_s, command.actor, command.action, "backbone", state, result["message"])


def _under_way(task: asyncio.Task[None] | None) -> TypeGuard[asyncio.Task[None]]:
    return task is not None and not task.done()


def _connect(broker: Broker) -> aiomqtt.Client:
    client = aiomqtt.Client(
        broker.host,
        broker.port,
        username=broker.username,
        password=broker.password(),
        identifier=CLIENT,
        clean_session=False,
        keepalive=30,
        timeout=PUBLISH_TIMEOUT_S,
        tls_context=ssl.create_default_context(cafile=str(broker.ca_file)) if broker.ca_file else None,
    )
    # aiomqtt acknowledges before its reader has run, and offers no way of its own to change that.
    client._client.manual_ack_set(True)
    return client


def initialise(settings: ServerSettings, now_s: int) -> releases.Release:
    """Create the store and register the factory model as release 1.

    Raises:
        KeyFileError: there is no usable signing key.
        ReleaseError: there is no usable factory model, or release 1 is another one.
    """
    key = signing.load(settings.key_file, settings.signing_command)
    path = settings.factory_model or packaged_factory_model()
    image, card = releases.load_factory_model(path)
    store.create(settings.database)
    with contextlib.closing(store.connect(settings.database)) as connection:
        return releases.register_factory(connection, key, image, card, now_s)


def packaged_factory_model() -> Path:
    """The factory model this version of Noria comes with."""
    import shared_models

    return Path(next(iter(shared_models.__path__))) / "factory" / "model-1.bin"


def _check_certificates(certificates: pki.Pki) -> None:
    """Warn in time.

    Raises:
        PkiError: one of them is missing.
    """
    end = pki.ends(certificates)
    if end < datetime.now(UTC) + pki.RENEWAL:
        logger.warning("the fleet API's certificates end on %s: noria server fleet-ca --renew", f"{end:%Y-%m-%d}")


async def serve(settings: ServerSettings) -> None:
    """Run the server until it is told to stop (SIGTERM or SIGINT).

    Raises:
        AlreadyRunningError: another one runs on the same state directory.
        KeyFileError: there is no usable signing key.
        PkiError: the fleet API is to be published and a certificate is missing.
        StoreError: there is no store.
    """
    key = signing.load(settings.key_file, settings.signing_command)
    if settings.fleet_api is not None:
        pki.ends(pki.Pki(settings.fleet_api.certificates))
    loop = asyncio.get_running_loop()
    with (
        contextlib.closing(store.connect(settings.database)) as connection,
        sole_server(settings.state_dir),
        serve_metrics(settings),
    ):
        task = loop.create_task(Server(settings, key, connection).run())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
