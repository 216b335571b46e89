"""A Flower strategy that adds integer sums instead of averaging weights.

Each SuperNode is asked for its farm's cumulative statistics for one backbone. Replies are untrusted: whatever is
not exactly a plausible set of sums is refused, logged and counted, and the round goes on with the others. Integer
sums are exact and independent of the order of replies; they are kept per site, because leaving one site out is
how a candidate is judged (:mod:`server.gate`).
"""

from __future__ import annotations

import io
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, reduce
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from shared_models.messages import SITE_PATTERN
from shared_models.moments import CLASSES, PHI, TARGET_CLASS, TARGET_LIMITS, TARGET_NAMES, TARGETS, Sums

Integers = NDArray[np.int64]

SCHEMA = 1
"""Version of the reply's layout."""

SHAPES: dict[str, tuple[int, ...]] = {
    "gram": (CLASSES, PHI, PHI),
    "moment": (TARGETS, PHI),
    "energy": (TARGETS,),
    "count": (CLASSES,),
}

MAX_COUNT = 1 << 31
"""Windows of a class at one site: some 200,000 nodes for 20 years."""
MAX_PHI = 255
ROUNDING = 2 * PHI * 2.0**-11
"""How far below zero the eigenvalues of the unit-diagonal joint moments may fall: twice what the snapshots'
12-bit codes can cause in A, because b and Σy² are rounded as well (:mod:`shared_models.moments`)."""


LONGEST_REASON = 250
"""Characters of a refusal's reason; more is a reply's own text."""


class ReplyError(ValueError):
    """A reply that cannot be used; the text says why, in one printable line whatever the reply held."""

    def __init__(self, reason: str) -> None:
        line = reason[:LONGEST_REASON]
        super().__init__("".join(character if character.isprintable() else "·" for character in line))


@dataclass(frozen=True)
class SiteSums:
    """One farm's validated contribution."""

    site: str
    contributors: int
    windows: int
    sums: Sums


@dataclass(frozen=True)
class Verdict:
    """What became of one SuperNode's answer."""

    node_id: int
    site: str | None
    verdict: str
    """``accepted``, ``rejected`` or ``silent``."""
    reason: str = ""


@dataclass(frozen=True)
class Collected:
    """Everything one round brought."""

    sites: tuple[SiteSums, ...]
    """Sorted by site."""
    verdicts: tuple[Verdict, ...]
    """Sorted by node id."""

    def tally(self, verdict: str) -> int:
        """How many SuperNodes met this verdict."""
        return sum(entry.verdict == verdict for entry in self.verdicts)


@dataclass(frozen=True)
class Conditions:
    """What a site's sums must satisfy to be used."""

    minimum_contributors: int
    minimum_windows: int


@cache
def _npy_header(shape: tuple[int, ...]) -> bytes:
    """What ``numpy.save`` writes before the numbers of a C-ordered int64 array."""
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(shape, dtype="<i8"), allow_pickle=False)
    return buffer.getvalue()[: -8 * int(np.prod(shape))]


def read_array(array: Array, name: str, shape: tuple[int, ...]) -> Integers:
    """Read one array of a reply after comparing what it declares, and its header byte for byte.

    Nothing is inflated from a header the sender chose: the bytes must be what ``numpy.save`` writes for int64 of
    exactly this shape.

    Raises:
        ReplyError: declared or actual type, shape or length differ.
    """
    if array.stype != "numpy.ndarray" or array.dtype != "int64" or tuple(array.shape) != shape:
        raise ReplyError(f"{name}: {array.dtype!s:.20}{list(array.shape)[:4]} instead of int64{list(shape)}")
    header = _npy_header(shape)
    size = 8 * int(np.prod(shape))
    if len(array.data) != len(header) + size or array.data[: len(header)] != header:
        raise ReplyError(f"{name}: its bytes are not what it declares")
    return np.frombuffer(array.data, dtype="<i8", offset=len(header)).astype(np.int64).reshape(shape)


def check_sums(sums: Sums) -> None:
    """Refuse numbers that no set of windows can have produced, whatever the weather.

    Raises:
        ReplyError: naming the property that does not hold.
    """
    if not np.array_equal(sums.gram, sums.gram.transpose(0, 2, 1)):
        raise ReplyError("gram is not symmetric")
    if np.any(sums.count < 0) or np.any(sums.count >= MAX_COUNT) or np.any(sums.count[1:] > sums.count[0]):
        raise ReplyError(f"impossible counts {sums.count.tolist()}")
    if not np.array_equal(sums.gram[:, -1, -1], sums.count):
        raise ReplyError("the constant's sum is not the count")
    if np.any(sums.gram < 0) or np.any(sums.energy < 0):
        raise ReplyError("a sum of squares or of non-negative activations is negative")
    # Rounding of the codes may lift a sum by 1 % of itself, small ones by one per window.
    room = 1.01 * sums.count + 1
    classes = np.array(TARGET_CLASS)
    if np.any(np.diagonal(sums.gram, axis1=1, axis2=2) > room[:, None] * MAX_PHI**2):
        raise ReplyError("activations are too large for the count")
    if np.any(sums.energy > room[classes] * (np.array(TARGET_LIMITS) + 1) ** 2):
        raise ReplyError("residuals are too large for the count")
    for target, name in enumerate(TARGET_NAMES):
        check_consistency(sums, target, name)


def check_consistency(sums: Sums, target: int, name: str) -> None:
    """Refuse second moments of (φ, y) that are not positive semidefinite within the rounding of the snapshots.

    Raises:
        ReplyError: A, b and Σy² of this target contradict one another.
    """
    joint = np.empty((PHI + 1, PHI + 1))
    joint[:PHI, :PHI] = sums.gram[TARGET_CLASS[target]]
    joint[PHI, :PHI] = joint[:PHI, PHI] = sums.moment[target]
    joint[PHI, PHI] = sums.energy[target]
    diagonal = np.diag(joint)
    scale = 1 / np.sqrt(np.maximum(diagonal, 1.0))
    unit = joint * np.outer(scale, scale)
    smallest = float(np.linalg.eigvalsh(unit)[0])
    if not smallest >= -ROUNDING:
        raise ReplyError(f"sums of {name} contradict one another (eigenvalue {smallest:.3g})")


def _number(record: MetricRecord, key: str) -> int:
    value: Any = record.get(key)
    if type(value) is not int or not 0 <= value < 2**53:
        raise ReplyError(f"{key}: {value!r:.40} is not a count")
    return value


def read_reply(message: Message, conditions: Conditions, backbone: int | None = None) -> SiteSums:
    """One SuperNode's sums, validated.

    Args:
        message: What the SuperNode answered.
        conditions: What a site's sums must satisfy.
        backbone: What was asked about; a reply that names another is refused.

    Raises:
        ReplyError: the reply is an error, is malformed, or holds sums that cannot be.
    """
    if message.has_error():
        raise ReplyError(f"error {message.error.code}: {message.error.reason or 'no reason given':.200}")
    try:
        identity, counts, arrays = message.content["site"], message.content["counts"], message.content["sums"]
    except KeyError as error:
        raise ReplyError(f"record {error} is missing") from error
    if not (
        isinstance(identity, ConfigRecord) and isinstance(counts, MetricRecord) and isinstance(arrays, ArrayRecord)
    ):
        raise ReplyError("a record is of the wrong kind")
    about: Any = identity.get("backbone", backbone)
    if about != backbone:
        raise ReplyError(f"sums for backbone {about!r:.20}, {backbone} was asked for")
    site = identity.get("site")
    schema: Any = identity.get("schema")
    if type(schema) is not int or schema != SCHEMA:
        raise ReplyError(f"schema {schema!r:.20} instead of {SCHEMA}")
    if not isinstance(site, str) or not re.fullmatch(SITE_PATTERN, site):
        raise ReplyError(f"site {site!r:.40} is not a site's name")
    if set(arrays) != set(SHAPES):
        raise ReplyError(f"arrays {sorted(arrays)[:6]} instead of {sorted(SHAPES)}")
    sums = Sums(**{name: read_array(arrays[name], name, shape) for name, shape in SHAPES.items()})
    check_sums(sums)
    contributors, windows = _number(counts, "contributors"), _number(counts, "windows")
    if contributors < conditions.minimum_contributors:
        raise ReplyError(f"{contributors} contributing nodes, at least {conditions.minimum_contributors} are needed")
    if windows < conditions.minimum_windows:
        raise ReplyError(f"{windows} windows, at least {conditions.minimum_windows} are needed")
    if windows > int(sums.count.sum()):
        raise ReplyError(f"claims {windows} windows, its sums hold {int(sums.count.sum())}")
    return SiteSums(site, contributors, windows, sums)


def _claimed_site(message: Message) -> str | None:
    """The site a refused reply claimed, as far as it can be told."""
    try:
        site = message.content["site"].get("site")
    except (AttributeError, KeyError, ValueError):
        return None
    return site if isinstance(site, str) and re.fullmatch(SITE_PATTERN, site) else None


class SumStatistics(Strategy):  # type: ignore[misc]  # flwr is not checked
    """Ask every SuperNode for its sums, validate each reply, keep them per site.

    Args:
        backbone: Identity of the backbone whose activations the sums are about.
        conditions: What a site's sums must satisfy.
        expected_sites: SuperNodes waited for before asking.
        wait_s: How long to wait for them; the round goes on with those there are.
        keep: Called once per round with everything it brought; must be atomic.
    """

    def __init__(
        self,
        backbone: int,
        conditions: Conditions,
        expected_sites: int,
        wait_s: float,
        keep: Callable[[int, Collected], None],
    ) -> None:
        self.backbone = backbone
        self.conditions = conditions
        self.expected_sites = expected_sites
        self.wait_s = wait_s
        self.keep = keep
        self._asked: tuple[int, ...] = ()

    def summary(self) -> None:
        """Log what this strategy asks for."""
        log(
            INFO,
            "sums for backbone %08x; at least %d nodes and %d windows per site",
            self.backbone,
            self.conditions.minimum_contributors,
            self.conditions.minimum_windows,
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask each SuperNode for its sums; no weights travel."""
        del arrays
        deadline = time.monotonic() + self.wait_s
        while len(nodes := sorted(grid.get_node_ids())) < self.expected_sites and time.monotonic() < deadline:
            time.sleep(0.2)
        self._asked = tuple(nodes)
        question = ConfigRecord({**config, "backbone": self.backbone, "round": server_round})
        return [
            Message(RecordDict({"config": question}), dst_node_id=node, message_type=MessageType.TRAIN)
            for node in nodes
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Validate each reply, keep the good ones per site, and return their sum."""
        accepted: dict[int, SiteSums] = {}
        verdicts: dict[int, Verdict] = {}
        for reply in replies:
            node = reply.metadata.src_node_id
            if node not in self._asked or node in verdicts or node in accepted:
                log(WARNING, "node %s: an answer nobody asked for, ignored", node)
                continue
            try:
                accepted[node] = read_reply(reply, self.conditions, self.backbone)
            except ReplyError as refusal:
                verdicts[node] = Verdict(node, _claimed_site(reply), "rejected", str(refusal))
        for node in _claiming_one_site(accepted):
            site = accepted.pop(node).site
            verdicts[node] = Verdict(node, site, "rejected", f"site {site} answered more than once")
        for node, good in accepted.items():
            verdicts[node] = Verdict(node, good.site, "accepted")
        for node in self._asked:
            verdicts.setdefault(node, Verdict(node, None, "silent", "no answer in time"))
        collected = Collected(
            tuple(sorted(accepted.values(), key=lambda entry: entry.site)),
            tuple(sorted(verdicts.values(), key=lambda entry: entry.node_id)),
        )
        self._report(collected)
        self.keep(server_round, collected)
        if not collected.sites:
            return None, MetricRecord({"accepted": 0})
        total = total_of([entry.sums for entry in collected.sites])
        record = ArrayRecord({name: Array(np.ascontiguousarray(getattr(total, name))) for name in SHAPES})
        return record, MetricRecord({"accepted": len(collected.sites), "windows": int(total.count.sum())})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing to ask: any head can be scored on the sums themselves."""
        del server_round, arrays, config, grid
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing was asked."""
        del server_round, replies
        return None

    @staticmethod
    def _report(collected: Collected) -> None:
        for entry in collected.verdicts:
            if entry.verdict != "accepted":
                log(WARNING, "node %s (%s) %s: %s", entry.node_id, entry.site or "?", entry.verdict, entry.reason)
        log(
            INFO,
            "accepted %d, rejected %d, silent %d",
            *(collected.tally(verdict) for verdict in ("accepted", "rejected", "silent")),
        )


def _claiming_one_site(accepted: dict[int, SiteSums]) -> list[int]:
    """Nodes whose site another node claims too; none of them can be told to be the true one."""
    claims = Counter(entry.site for entry in accepted.values())
    return [node for node, entry in accepted.items() if claims[entry.site] > 1]


def total_of(parts: Iterable[Sums]) -> Sums:
    """The exact sum of sums."""
    return reduce(Sums.add, parts, Sums.zero())


def exchange(grid: Grid, messages: Iterable[Message], timeout_s: float, poll_s: float) -> list[Message]:
    """Send ``messages`` and collect the replies that arrive in time, looking every ``poll_s`` seconds.

    ``Grid.send_and_receive`` looks every 3 s, a large part of a round of this size.
    """
    waiting = {message_id for message_id in grid.push_messages(list(messages)) if message_id}
    replies: list[Message] = []
    deadline = time.monotonic() + timeout_s
    while waiting and time.monotonic() < deadline:
        arrived = list(grid.pull_messages(sorted(waiting)))
        replies += arrived
        waiting -= {message.metadata.reply_to_message_id for message in arrived}
        if waiting:
            time.sleep(poll_s)
    return replies
