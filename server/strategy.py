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
from collections.abc import Callable, Iterable, Mapping, Sequence
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

from server.projection import project
from shared_models.credibility import IncredibleError, check_sums
from shared_models.messages import SITE_PATTERN
from shared_models.moments import LIMIT, PARTS, Sums

Integers = NDArray[np.int64]

SCHEMA = 1
"""Version of the reply's layout."""

SHAPES: dict[str, tuple[int, ...]] = dict(PARTS)

MOST_NOISY_GROUPS = 8
LEAST_NOISY_GROUP = 3
"""Sites."""


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
    members: int = 1
    """Sites behind it; more where it is a cohort's total and ``site`` the cohort's name."""
    noise: int = 0
    """Variance of the noise in it, in weighted units; 0 where it is exact."""


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
    cohorts: tuple[tuple[str, frozenset[str]], ...] = ()
    """Those that were asked to open their total, by name."""
    given_up: int = 0
    """Cohorts whose total could not be had."""
    retried: int = 0
    """Attempts made again without the members that were lost."""

    def tally(self, verdict: str) -> int:
        """How many SuperNodes met this verdict."""
        return sum(entry.verdict == verdict for entry in self.verdicts)


@dataclass(frozen=True)
class Conditions:
    """What a site's sums must satisfy to be used."""

    minimum_contributors: int
    minimum_windows: int
    accept_noise: bool = False
    """Whether sums with noise count; nothing but their size can be checked."""


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


def _number(record: MetricRecord, key: str) -> int:
    value: Any = record.get(key)
    if type(value) is not int or not 0 <= value < 2**53:
        raise ReplyError(f"{key}: {value!r:.40} is not a count")
    return value


def refuse_error(message: Message) -> None:
    """Refuse a reply that is an error.

    Raises:
        ReplyError: with what the SuperNode said.
    """
    if message.has_error():
        raise ReplyError(f"error {message.error.code}: {message.error.reason or 'no reason given':.200}")


def read_site(identity: ConfigRecord) -> str:
    """The site a reply is from.

    Raises:
        ReplyError: another layout, or not a site's name.
    """
    site = identity.get("site")
    schema: Any = identity.get("schema")
    if type(schema) is not int or schema != SCHEMA:
        raise ReplyError(f"schema {schema!r:.20} instead of {SCHEMA}")
    if not isinstance(site, str) or not re.fullmatch(SITE_PATTERN, site):
        raise ReplyError(f"site {site!r:.40} is not a site's name")
    return site


def read_reply(message: Message, conditions: Conditions, backbone: int | None = None) -> SiteSums:
    """One SuperNode's sums, validated.

    Args:
        message: What the SuperNode answered.
        conditions: What a site's sums must satisfy.
        backbone: What was asked about; a reply that names another is refused.

    Raises:
        ReplyError: the reply is an error, is malformed, or holds sums that cannot be.
    """
    refuse_error(message)
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
    site = read_site(identity)
    if set(arrays) != set(SHAPES):
        raise ReplyError(f"arrays {sorted(arrays)[:6]} instead of {sorted(SHAPES)}")
    sums = Sums(**{name: read_array(arrays[name], name, shape) for name, shape in SHAPES.items()})
    if "noise" in message.content:
        return _read_noisy(message.content["noise"], site, counts, sums, conditions)
    try:
        check_sums(sums)
    except IncredibleError as error:
        raise ReplyError(str(error)) from error
    contributors, windows = _number(counts, "contributors"), _number(counts, "windows")
    if contributors < conditions.minimum_contributors:
        raise ReplyError(f"{contributors} contributing nodes, at least {conditions.minimum_contributors} are needed")
    if windows < conditions.minimum_windows:
        raise ReplyError(f"{windows} windows, at least {conditions.minimum_windows} are needed")
    if windows > int(sums.count.sum()):
        raise ReplyError(f"claims {windows} windows, its sums hold {int(sums.count.sum())}")
    return SiteSums(site, contributors, windows, sums)


def _read_noisy(noise: object, site: str, counts: MetricRecord, sums: Sums, conditions: Conditions) -> SiteSums:
    """Sums with noise: nothing that noise could have done is a reason to refuse them.

    Raises:
        ReplyError: noise is not asked for, or no noise can have done this.
    """
    if not conditions.accept_noise:
        raise ReplyError("sums with noise are not accepted here (federation.privacy.accept_noise)")
    variance = noise.get("variance") if isinstance(noise, ConfigRecord) else None
    if type(variance) is not int or not 0 < variance < 2**63:
        raise ReplyError(f"variance {variance!r:.40} is none")
    if not np.array_equal(sums.gram, sums.gram.transpose(0, 2, 1)):
        raise ReplyError("gram is not symmetric")
    if not np.array_equal(sums.gram[:, -1, -1], sums.count):
        raise ReplyError("the constant's sum is not the count")
    if any(np.any((array >= LIMIT) | (array <= -LIMIT)) for array in (sums.gram, sums.moment, sums.energy)):
        raise ReplyError("a sum is too large")
    claimed = [counts.get(name) for name in ("contributors", "windows")]
    if any(type(value) is not int or abs(value) >= LIMIT for value in claimed):
        raise ReplyError(f"counts {claimed!r:.60} are none")
    return SiteSums(site, int(claimed[0]), int(claimed[1]), sums, noise=variance)


def _grouped(accepted: Iterable[SiteSums]) -> tuple[SiteSums, ...]:
    """Exact sums by site, and the noisy ones in groups of equal size, added before anything is made of them.

    Noise grows with the root of the sites, sums with the sites: what one site's noise drowns, a group's may not. The
    groups are left out one at a time as sites are.
    """
    entries = sorted(accepted, key=lambda entry: entry.site)
    noisy = [entry for entry in entries if entry.noise]
    groups = min(MOST_NOISY_GROUPS, len(noisy) // LEAST_NOISY_GROUP or 1) if noisy else 0
    parts = [noisy[group::groups] for group in range(groups)]
    return (
        *(entry for entry in entries if not entry.noise),
        *(denoised(f"noisy group {number}", part) for number, part in enumerate(parts, start=1)),
    )


def denoised(name: str, parts: Sequence[SiteSums]) -> SiteSums:
    """The total of sums with noise, made consistent."""
    total = project(total_of(part.sums for part in parts))
    contributors = max(0, sum(part.contributors for part in parts))
    members, noise = sum(part.members for part in parts), sum(part.noise for part in parts)
    return SiteSums(name, contributors, int(total.count.sum()), total, members, noise)


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
        sites: Whose key each node joined with, where keys are registered: nobody speaks for another site.
    """

    def __init__(
        self,
        backbone: int,
        conditions: Conditions,
        expected_sites: int,
        wait_s: float,
        keep: Callable[[int, Collected], None],
        sites: Mapping[int, str] | None = None,
    ) -> None:
        self.backbone = backbone
        self.conditions = conditions
        self.expected_sites = expected_sites
        self.wait_s = wait_s
        self.keep = keep
        self.sites = sites
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
        nodes = gather(grid, self.expected_sites, self.wait_s)
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
                answer = read_reply(reply, self.conditions, self.backbone)
                if self.sites is not None and self.sites.get(node) != answer.site:
                    raise ReplyError(f"its key is not site {answer.site}'s")
                accepted[node] = answer
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
            _grouped(accepted.values()),
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


def gather(grid: Grid, expected_sites: int, wait_s: float) -> list[int]:
    """The SuperNodes that are there once ``expected_sites`` are, or ``wait_s`` seconds are over."""
    deadline = time.monotonic() + wait_s
    while len(nodes := sorted(grid.get_node_ids())) < expected_sites and time.monotonic() < deadline:
        time.sleep(0.2)
    return nodes


MOST = 2 / 3
"""Of the replies: once these are there, it is known how long one takes."""


def exchange(
    grid: Grid, messages: Iterable[Message], timeout_s: float, poll_s: float, patience: float | None = None
) -> list[Message]:
    """Send ``messages`` and collect the replies that arrive in time, looking every ``poll_s`` seconds.

    ``Grid.send_and_receive`` looks every 3 s, a large part of a round of this size.

    Args:
        grid: Flower's.
        messages: What to ask.
        timeout_s: The longest to wait.
        poll_s: How often to look.
        patience: How many times as long as two thirds of the replies took to wait for the rest; None for no such
            limit.
    """
    waiting = {message_id for message_id in grid.push_messages(list(messages)) if message_id}
    asked = len(waiting)
    replies: list[Message] = []
    started = time.monotonic()
    deadline = started + timeout_s
    most_are_there = False
    while waiting and time.monotonic() < deadline:
        arrived = list(grid.pull_messages(sorted(waiting)))
        replies += arrived
        waiting -= {message.metadata.reply_to_message_id for message in arrived}
        if patience is not None and not most_are_there and len(replies) >= MOST * asked:
            most_are_there = True
            deadline = min(deadline, time.monotonic() + patience * (time.monotonic() - started))
        if waiting:
            time.sleep(poll_s)
    return replies
