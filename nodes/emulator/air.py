"""The LoRaWAN air of one farm: losses, receive windows, airtime, and a log of every frame.

Behind :class:`Air` stands one gateway's antenna and the network server's downlink queue. Class A: a downlink goes out
only in the receive windows of an uplink that was **heard**. Each device has its own random stream, from which every
uplink takes the same number of draws, so that losses depend on the seed and the count of uplinks alone; join requests
have a stream of their own.

A device may talk without having joined here: it is taken to have a session. Encryption is not simulated; of the MAC
commands, LinkCheckReq and DeviceTimeReq are answered with whatever else comes down.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from struct import Struct
from typing import Any

import numpy as np

from nodes.emulator.interfaces import Downlink, Radio
from shared_models.airtime import DUTY_WINDOW_S, MAC_OVERHEAD, MAX_PAYLOAD, UPLINK_DUTY_CYCLE, airtime_s

_LOG = logging.getLogger(__name__)

QUEUE_LIMIT = 1000
"""Downlinks waiting for one device; a real server's is no longer."""
JOIN_REQUEST_LENGTH = 23
"""Whole frame, bytes."""
RECEIVE_DELAY_S = 1.0
FREQUENCIES_HZ = (
    868_100_000,
    868_300_000,
    868_500_000,
    867_100_000,
    867_300_000,
    867_500_000,
    867_700_000,
    867_900_000,
)

_HEADER = Struct("<B8sIdBBB")


@dataclass(frozen=True, slots=True)
class QueuedDownlink:
    """A downlink as the network server queued it."""

    id: str
    dev_eui: str
    f_port: int
    payload: bytes
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class ReceivedUplink:
    """An uplink that the gateway's antenna heard."""

    dev_eui: str
    time_s: float
    f_port: int
    f_cnt: int
    payload: bytes
    data_rate: int
    confirmed: bool
    rssi: int
    """dBm."""
    snr: float
    """dB."""
    frequency_hz: int
    session: int = 0
    """Joins of the device before; frame counters begin anew with each."""


@dataclass(frozen=True, slots=True)
class Joined:
    """The network accepted a device; whether the acceptance arrived shows in what comes next."""

    dev_eui: str
    time_s: float
    session: int


@dataclass(frozen=True, slots=True)
class TransmittedDownlink:
    """A queue item that went on air; whether the node heard it nobody at the gateway knows."""

    id: str
    dev_eui: str
    time_s: float
    f_cnt_down: int
    data_rate: int
    frequency_hz: int
    session: int = 0


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What became of a confirmed downlink, known with the device's next heard uplink."""

    id: str
    dev_eui: str
    time_s: float
    f_cnt_down: int
    acknowledged: bool
    session: int = 0


@dataclass(frozen=True, slots=True)
class DiscardedDownlink:
    """A queue item that could not be sent."""

    id: str
    dev_eui: str
    time_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class LoggedFrame:
    """One frame on air."""

    time_s: float
    direction: str
    """``up`` or ``down``."""
    dev_eui: str
    f_cnt: int
    f_port: int
    data_rate: int
    payload: bytes
    heard: bool
    airtime_s: float


@dataclass(slots=True)
class Traffic:
    """Counts of one device."""

    uplinks_sent: int = 0
    uplinks_lost: int = 0
    downlinks_queued: int = 0
    downlinks_sent: int = 0
    downlinks_lost: int = 0
    downlinks_discarded: int = 0
    airtime_s: float = 0.0
    """Of uplinks and join requests."""
    joins_sent: int = 0
    joins_heard: int = 0
    duty_cycle_exceeded: int = 0
    """Uplinks at whose end the last hour held more than 1 % of airtime."""

    @property
    def uplinks_heard(self) -> int:
        """Sent and not lost."""
        return self.uplinks_sent - self.uplinks_lost


@dataclass(slots=True)
class AirEvents:
    """What happened in a stretch of time, each list in order of time."""

    joined: list[Joined] = field(default_factory=list)
    uplinks: list[ReceivedUplink] = field(default_factory=list)
    transmitted: list[TransmittedDownlink] = field(default_factory=list)
    acknowledged: list[Acknowledgement] = field(default_factory=list)
    discarded: list[DiscardedDownlink] = field(default_factory=list)

    def sort(self) -> None:
        """Devices live one after the other in the simulation, and side by side in time."""
        for events in (self.joined, self.uplinks, self.transmitted, self.acknowledged, self.discarded):
            events.sort(key=lambda event: (event.time_s, event.dev_eui))


@dataclass(slots=True)
class _Device:
    rng: np.random.Generator
    join_rng: np.random.Generator
    rssi_dbm: float
    digest: Any = field(default_factory=sha256)
    traffic: Traffic = field(default_factory=Traffic)
    queue: deque[QueuedDownlink] = field(default_factory=deque)
    recent: deque[tuple[float, float]] = field(default_factory=deque)
    f_cnt_up: int = 0
    f_cnt_down: int = 0
    session: int = 0
    answered: bool = False
    """An answer to the last uplink would have arrived."""
    awaiting: tuple[QueuedDownlink, int, bool] | None = None


class AirError(ValueError):
    """A frame that no real modem could have sent."""


def _stream(seed: int, name: str) -> np.random.Generator:
    number = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")
    return np.random.default_rng(np.random.SeedSequence([seed, number]))


class Air(Radio):
    """A network server's queue behind one antenna."""

    def __init__(self, seed: int, dev_euis: list[str], *, uplink_loss: float = 0.0, downlink_loss: float = 0.0) -> None:
        """Args: the scenario's seed, the farm's devices, and the probabilities of losing a frame."""
        self._uplink_loss, self._downlink_loss = uplink_loss, downlink_loss
        self._devices: dict[str, _Device] = {}
        for dev_eui in dev_euis:
            rng = _stream(seed, f"{dev_eui}/air")
            self._devices[dev_eui] = _Device(
                rng=rng,
                join_rng=_stream(seed, f"{dev_eui}/join"),
                rssi_dbm=-95 + 12 * float(rng.standard_normal()),
            )
        self.away = False
        """Nobody listens: the antenna is down, or the network has forgotten every device."""
        self._known_ids: set[str] = set()
        self.log: list[LoggedFrame] = []
        self._events = AirEvents()
        self.refused: Counter[str] = Counter()
        """Downlinks that never entered a queue, by reason."""

    def enqueue(self, downlink: QueuedDownlink) -> bool:
        """Put a downlink at the end of its device's queue.

        Returns:
            Whether it was taken. A second item of the same id is ignored, as ChirpStack does; one for an unknown
            device or a full queue is refused and counted.
        """
        device = self._devices.get(downlink.dev_eui)
        if device is None:
            reason = "unknown device"
        elif downlink.id in self._known_ids:
            reason = "repeated id"
        elif len(device.queue) >= QUEUE_LIMIT:
            reason = "queue full"
        else:
            self._known_ids.add(downlink.id)
            device.queue.append(downlink)
            device.traffic.downlinks_queued += 1
            return True
        self.refused[reason] += 1
        _LOG.info("downlink %s for %s not queued: %s", downlink.id, downlink.dev_eui, reason)
        return False

    def uplink(
        self,
        dev_eui: str,
        time_s: float,
        f_port: int,
        payload: bytes,
        data_rate: int,
        confirmed: bool,  # noqa: FBT001 (the protocol's)
    ) -> list[Downlink]:
        """Put one frame on air and return what came back; see :class:`nodes.emulator.interfaces.Radio`."""
        device = self._devices.get(dev_eui)
        if device is None:
            raise AirError(f"{dev_eui} is not a device of this farm")
        if not 0 <= data_rate < len(MAX_PAYLOAD) or len(payload) > MAX_PAYLOAD[data_rate] or not 1 <= f_port <= 223:
            raise AirError(f"{dev_eui}: {len(payload)} bytes on port {f_port} at data rate {data_rate} cannot be sent")
        # All draws of this uplink, used or not, so that what is queued does not shift the stream.
        uplink_chance, downlink_chance, channel_chance = device.rng.random(3).tolist()
        fading_db = float(device.rng.standard_normal())
        heard = uplink_chance >= self._uplink_loss and not self.away
        device.answered = bool(heard and downlink_chance >= self._downlink_loss)
        f_cnt = device.f_cnt_up
        device.f_cnt_up += 1
        device.traffic.uplinks_sent += 1
        airtime = self._account(device, time_s, airtime_s(data_rate, len(payload)))
        self._record(device, LoggedFrame(time_s, "up", dev_eui, f_cnt, f_port, data_rate, payload, heard, airtime))
        if not heard:
            device.traffic.uplinks_lost += 1
            return []
        frequency_hz = FREQUENCIES_HZ[int(channel_chance * len(FREQUENCIES_HZ))]
        rssi = round(device.rssi_dbm + 3 * fading_db)
        self._events.uplinks.append(
            ReceivedUplink(
                dev_eui=dev_eui,
                time_s=time_s,
                f_port=f_port,
                f_cnt=f_cnt,
                payload=payload,
                data_rate=data_rate,
                confirmed=confirmed,
                rssi=max(-137, min(-20, rssi)),
                snr=round(max(-20.0, min(14.0, (rssi + 117) / 2)), 1),
                frequency_hz=frequency_hz,
                session=device.session,
            )
        )
        self._settle(device, time_s)
        return self._answer(device, time_s, data_rate, frequency_hz, lost=not device.answered)

    def join(self, dev_eui: str, time_s: float, data_rate: int) -> bool:
        """Put a join request on air; see :class:`nodes.emulator.interfaces.Radio`. Unknown devices are not accepted."""
        device = self._devices.get(dev_eui)
        if device is None:
            return False
        uplink_chance, downlink_chance = device.join_rng.random(2).tolist()
        device.traffic.joins_sent += 1
        self._account(device, time_s, airtime_s(data_rate, JOIN_REQUEST_LENGTH - MAC_OVERHEAD))
        if self.away or uplink_chance < self._uplink_loss:
            return False
        device.traffic.joins_heard += 1
        device.session += 1
        device.f_cnt_up = device.f_cnt_down = 0
        self._events.joined.append(Joined(dev_eui, time_s, device.session))
        return bool(downlink_chance >= self._downlink_loss)

    def answers(self, dev_eui: str) -> bool:
        """Whether an answer to the device's last uplink would have arrived."""
        return self._devices[dev_eui].answered

    def take(self) -> AirEvents:
        """What happened since the last call."""
        taken, self._events = self._events, AirEvents()
        taken.sort()
        return taken

    def traffic(self, dev_eui: str) -> Traffic:
        """A device's counts."""
        return self._devices[dev_eui].traffic

    def queued(self, dev_eui: str) -> int:
        """Downlinks waiting for a device."""
        return len(self._devices[dev_eui].queue)

    @property
    def digest(self) -> str:
        """SHA-256 over each device's SHA-256 over its frames so far, in the order of the devices' identities.

        Equal digests mean equal bytes at equal times on the whole farm's air.
        """
        whole = sha256()
        for dev_eui in sorted(self._devices):
            whole.update(self._devices[dev_eui].digest.digest())
        return whole.hexdigest()

    def _settle(self, device: _Device, time_s: float) -> None:
        """The heard uplink says whether the last confirmed downlink arrived."""
        if device.awaiting is None:
            return
        item, f_cnt_down, arrived = device.awaiting
        device.awaiting = None
        self._events.acknowledged.append(
            Acknowledgement(item.id, item.dev_eui, time_s, f_cnt_down, arrived, device.session)
        )

    def _answer(
        self, device: _Device, time_s: float, data_rate: int, frequency_hz: int, *, lost: bool
    ) -> list[Downlink]:
        """Send the head of the queue in RX1: the uplink's data rate and frequency."""
        while device.queue and len(device.queue[0].payload) > MAX_PAYLOAD[data_rate]:
            item = device.queue.popleft()
            device.traffic.downlinks_discarded += 1
            self._events.discarded.append(
                DiscardedDownlink(item.id, item.dev_eui, time_s, "payload too long for data rate")
            )
            _LOG.warning("downlink %s for %s discarded: too long for data rate %d", item.id, item.dev_eui, data_rate)
        if not device.queue:
            return []
        item = device.queue.popleft()
        f_cnt_down = device.f_cnt_down
        device.f_cnt_down += 1
        device.traffic.downlinks_sent += 1
        sent_s = time_s + RECEIVE_DELAY_S
        airtime = airtime_s(data_rate, len(item.payload))
        frame = LoggedFrame(
            sent_s, "down", item.dev_eui, f_cnt_down, item.f_port, data_rate, item.payload, not lost, airtime
        )
        self._record(device, frame)
        self._events.transmitted.append(
            TransmittedDownlink(item.id, item.dev_eui, sent_s, f_cnt_down, data_rate, frequency_hz, device.session)
        )
        if item.confirmed:
            device.awaiting = (item, f_cnt_down, not lost)
        if lost:
            device.traffic.downlinks_lost += 1
            return []
        return [Downlink(item.f_port, item.payload)]

    def _account(self, device: _Device, time_s: float, airtime: float) -> float:
        """Charge an uplink to the device's duty cycle and hand its airtime back."""
        device.traffic.airtime_s += airtime
        device.recent.append((time_s, airtime))
        while device.recent[0][0] <= time_s - DUTY_WINDOW_S:
            device.recent.popleft()
        if sum(each for _, each in device.recent) > UPLINK_DUTY_CYCLE * DUTY_WINDOW_S:
            device.traffic.duty_cycle_exceeded += 1
        return airtime

    def _record(self, device: _Device, frame: LoggedFrame) -> None:
        self.log.append(frame)
        direction = 1 if frame.direction == "up" else 0
        head = _HEADER.pack(
            direction | (2 if frame.heard else 0),
            bytes.fromhex(frame.dev_eui),
            frame.f_cnt,
            frame.time_s,
            frame.f_port,
            frame.data_rate,
            len(frame.payload),
        )
        device.digest.update(head)
        device.digest.update(frame.payload)
