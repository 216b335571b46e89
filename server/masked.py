"""A round whose totals the server learns by cohort and in no smaller part.

Four steps: every SuperNode offers a key; the sites are put into cohorts (:mod:`server.cohorts`); the members answer
under masks; those of a cohort that all answered tell their seeds, and the total comes out exactly as if it had been
added in the clear (:mod:`shared_models.masking`). A cohort that lost a member before its seeds were asked for is tried
again with fresh keys among the rest; nobody has opened an answer of it, so both attempts tell no more than the last.
One that lost a member while it told its seeds is given up, and so is one of which too few are left.

Validation ends at the cohort: a member that lies spoils, or shifts, its cohort's total, and nobody can say who it was.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from logging import INFO, WARNING
from typing import TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.logger import log

from server import cohorts
from server.cohorts import may_go_on
from server.config import ATTEMPTS
from server.strategy import (
    Collected,
    Conditions,
    ReplyError,
    SiteSums,
    Verdict,
    denoised,
    read_array,
    read_site,
    refuse_error,
)
from shared_models.credibility import IncredibleError, check_sums
from shared_models.masking import (
    ATTEMPT_BYTES,
    KEY_BYTES,
    WORDS,
    Cohort,
    MaskError,
    Member,
    Rule,
    Words,
    from_words,
    unmask,
)

T = TypeVar("T")

Ask = Callable[[Iterable[Message]], list[Message]]
"""Sends messages and returns the replies that came in time."""

MAX_SIGNATURE_BYTES = 104


@dataclass(frozen=True)
class Offer:
    """A site's key for one attempt."""

    node_id: int
    member: Member
    signature: bytes

    @property
    def lenient(self) -> bool:
        """Whether the site accepts changes of its cohort."""
        return Rule.ACCEPTS_CHANGES in Rule(self.member.rules)


@dataclass(frozen=True)
class Trial:
    """A cohort in one attempt."""

    name: str
    cohort: Cohort
    offers: Mapping[int, Offer]
    """By node id."""


class MaskedSums:
    """One masked round.

    Args:
        backbone: Identity of the backbone whose activations the sums are about.
        conditions: What a total must satisfy, times its members. Each site sees to its own minimum; to ask it for the
            server's would be to ask how many nodes it has.
        cohort_size: The least sites of a new cohort.
        known: Cohorts of this backbone that had a total, by name.
        ask: Sends messages and collects replies.
        registered: The site each SuperNode's key was registered for, where SuperNodes need keys.
    """

    def __init__(
        self,
        backbone: int,
        conditions: Conditions,
        cohort_size: int,
        known: Mapping[str, frozenset[str]],
        ask: Ask,
        registered: Mapping[int, str] | None = None,
    ) -> None:
        self.backbone = backbone
        self.conditions = conditions
        self.cohort_size = cohort_size
        self.known = known
        self.ask = ask
        self.registered = registered
        self._verdicts: dict[int, Verdict] = {}
        self._sites: dict[int, str] = {}
        self._opened: dict[str, frozenset[str]] = {}
        self._given_up = 0
        self._retried = 0

    def collect(self, nodes: Sequence[int]) -> Collected:
        """Carry the round out with these SuperNodes."""
        attempt, offers = self._offers(nodes)
        rules = {offer.member.site: offer.member.rules for offer in offers.values()}
        by_site = {offer.member.site: node for node, offer in offers.items()}
        planned = cohorts.plan(self.known, rules, self.cohort_size)
        for site, reason in planned.waiting.items():
            self._judge(by_site[site], "rejected", reason)
        trials = [
            self._trial(name, attempt, [offers[by_site[site]] for site in sites])
            for name, sites in planned.cohorts.items()
        ]
        totals: list[SiteSums] = []
        for turn in range(ATTEMPTS):
            masked = self._masked(trials)
            whole = [trial for trial in trials if len(masked[trial.name]) == len(trial.offers)]
            totals += self._opened_totals(whole, masked)
            broken = [trial for trial in trials if trial not in whole]
            trials = self._again(broken, masked) if turn + 1 < ATTEMPTS else self._give_up(broken)
            if not trials:
                break
        verdicts = [self._verdicts[node] for node in sorted(self._verdicts)]
        for entry in verdicts:
            if entry.verdict != "accepted":
                log(WARNING, "node %s (%s) %s: %s", entry.node_id, entry.site or "?", entry.verdict, entry.reason)
        log(INFO, "%d cohorts added up, %d given up, %d tried again", len(totals), self._given_up, self._retried)
        return Collected(
            tuple(sorted(totals, key=lambda entry: entry.site)),
            tuple(verdicts),
            tuple(sorted(self._opened.items())),
            self._given_up,
            self._retried,
        )

    def _offers(self, nodes: Sequence[int]) -> tuple[bytes, dict[int, Offer]]:
        """Ask for keys; sites that several SuperNodes claim are left out."""
        attempt = secrets.token_bytes(ATTEMPT_BYTES)
        question = ConfigRecord({"backbone": self.backbone, "attempt": attempt})
        replies = self._exchange("query.key", dict.fromkeys(nodes, question))
        offers = self._read(nodes, replies, self._read_offer)
        claims: dict[str, list[int]] = {}
        for node, offer in offers.items():
            claims.setdefault(offer.member.site, []).append(node)
        for site, claimants in claims.items():
            if len(claimants) > 1:
                for node in claimants:
                    self._judge(node, "rejected", f"site {site} answered more than once")
                    del offers[node]
        return attempt, offers

    def _read_offer(self, reply: Message) -> Offer:
        node = reply.metadata.src_node_id
        identity = _record(reply, "member")
        site = read_site(identity)
        self._sites[node] = site
        if self.registered is not None and self.registered.get(node) != site:
            raise ReplyError(f"its key is not site {site}'s")
        key, noise = identity.get("public-key"), identity.get("noise")
        signature, rules = identity.get("signature"), identity.get("rules")
        if type(key) is not bytes or len(key) != KEY_BYTES:
            raise ReplyError("the key is not one of 32 bytes")
        if type(noise) is not int or not 0 <= noise < 1 << 63:
            raise ReplyError(f"variance {noise!r:.40} is none")
        if noise and not self.conditions.accept_noise:
            raise ReplyError("sums with noise are not accepted here (federation.privacy.accept_noise)")
        if type(rules) is not int or not 0 <= rules < 1 << len(Rule):
            raise ReplyError(f"rules {rules!r:.40} are unknown")
        if type(signature) is not bytes or len(signature) > MAX_SIGNATURE_BYTES:
            raise ReplyError("the signature is malformed")
        return Offer(node, Member(site, key, noise, rules), signature)

    def _trial(self, name: str, attempt: bytes, offers: Sequence[Offer]) -> Trial:
        cohort = Cohort.of(self.backbone, attempt, [offer.member for offer in offers])
        return Trial(name, cohort, {offer.node_id: offer for offer in offers})

    def _masked(self, trials: Sequence[Trial]) -> dict[str, dict[int, Words]]:
        """Ask the members for their masked answers; those that came, by cohort and node."""
        questions = {node: _cohort_question(trial) for trial in trials for node in trial.offers}
        replies = self._exchange("train.masked", questions)
        words = self._read(questions, replies, _read_words)
        return {trial.name: {node: words[node] for node in trial.offers if node in words} for trial in trials}

    def _opened_totals(self, trials: Sequence[Trial], masked: Mapping[str, Mapping[int, Words]]) -> list[SiteSums]:
        """Ask complete cohorts for their seeds; the totals that came out and can be."""
        if not trials:
            return []
        questions = {
            node: ConfigRecord({"backbone": self.backbone, "attempt": trial.cohort.attempt})
            for trial in trials
            for node in trial.offers
        }
        self._opened |= {trial.name: trial.cohort.sites for trial in trials}
        seeds = self._read(questions, self._exchange("query.seed", questions), _read_seed)
        totals = []
        for trial in trials:
            told = [seeds[node] for node in trial.offers if node in seeds]
            if len(told) < len(trial.offers):
                self._lose(trial, "lost while it told its seeds")
                continue
            try:
                totals.append(self._total(trial, list(masked[trial.name].values()), told))
            except (ReplyError, IncredibleError, MaskError) as error:
                self._lose(trial, str(error))
                continue
            for node in trial.offers:
                self._judge(node, "accepted", "")
        return totals

    def _total(self, trial: Trial, masked: Sequence[Words], seeds: Sequence[bytes]) -> SiteSums:
        """A cohort's total, validated as far as a total can be."""
        members = len(trial.offers)
        sums, contributors = from_words(unmask(masked, seeds, trial.cohort))
        noise = sum(offer.member.noise for offer in trial.offers.values())
        if noise:
            return denoised(trial.name, [SiteSums(trial.name, contributors, 0, sums, members, noise)])
        check_sums(sums)
        windows = int(sums.count.sum())
        if not members * self.conditions.minimum_contributors <= contributors <= windows:
            raise ReplyError(f"{contributors} contributing nodes behind {members} sites and {windows} windows")
        if windows < members * self.conditions.minimum_windows:
            raise ReplyError(f"{windows} windows behind {members} sites")
        return SiteSums(trial.name, contributors, windows, sums, members)

    def _again(self, broken: Sequence[Trial], masked: Mapping[str, Mapping[int, Words]]) -> list[Trial]:
        """The cohorts that lost members, with fresh keys of those that are left, where that is allowed."""
        left: dict[str, list[int]] = {}
        for trial in broken:
            here = [offer for node, offer in trial.offers.items() if node in masked[trial.name]]
            lenient = [offer.member.site for offer in here if offer.lenient]
            sites = [offer.member.site for offer in here]
            if may_go_on(self.known.get(trial.name, frozenset(sites)), sites, lenient):
                left[trial.name] = [offer.node_id for offer in here]
            else:
                self._lose(trial, "too few of its members answered")
        if not left:
            return []
        attempt, offers = self._offers([node for nodes in left.values() for node in nodes])
        trials = []
        for name, nodes in left.items():
            here = [offers[node] for node in nodes if node in offers]
            sites = [offer.member.site for offer in here]
            lenient = [offer.member.site for offer in here if offer.lenient]
            if not may_go_on(self.known.get(name, frozenset(sites)), sites, lenient):
                self._given_up += 1
                self._blame_cohort(name, nodes, "too few of its members answered")
                continue
            self._retried += 1
            trials.append(self._trial(name, attempt, here))
        return trials

    def _give_up(self, broken: Sequence[Trial]) -> list[Trial]:
        for trial in broken:
            self._lose(trial, "too many attempts")
        return []

    def _lose(self, trial: Trial, reason: str) -> None:
        """A cohort without a total; members that have no verdict of their own share its fate."""
        self._given_up += 1
        self._blame_cohort(trial.name, trial.offers, reason)

    def _blame_cohort(self, name: str, nodes: Iterable[int], reason: str) -> None:
        for node in nodes:
            if node not in self._verdicts:
                self._judge(node, "rejected", f"{name}: {reason}")

    def _exchange(self, kind: str, questions: Mapping[int, ConfigRecord]) -> list[Message]:
        return self.ask(
            [
                Message(RecordDict({"config": question}), dst_node_id=node, message_type=kind)
                for node, question in questions.items()
            ]
        )

    def _read(self, asked: Collection[int], replies: Iterable[Message], read: Callable[[Message], T]) -> dict[int, T]:
        """The good replies, the first of each SuperNode; the other SuperNodes get their verdicts."""
        good: dict[int, T] = {}
        heard: set[int] = set()
        for reply in replies:
            node = reply.metadata.src_node_id
            if node not in asked or node in heard:
                log(WARNING, "node %s: an answer nobody asked for, ignored", node)
                continue
            heard.add(node)
            try:
                refuse_error(reply)
                good[node] = read(reply)
            except ReplyError as refusal:
                self._judge(node, "rejected", str(refusal))
        for node in asked:
            if node not in heard:
                self._judge(node, "silent", "no answer in time")
        return good

    def _judge(self, node: int, verdict: str, reason: str) -> None:
        self._verdicts[node] = Verdict(node, self._sites.get(node), verdict, reason)


def _record(reply: Message, name: str) -> ConfigRecord:
    record = reply.content.get(name)
    if not isinstance(record, ConfigRecord):
        raise ReplyError(f"record '{name}' is missing or of the wrong kind")
    return record


def _cohort_question(trial: Trial) -> ConfigRecord:
    by_site = sorted(trial.offers.values(), key=lambda offer: offer.member)
    return ConfigRecord(
        {
            "backbone": trial.cohort.backbone_id,
            "attempt": trial.cohort.attempt,
            "sites": [offer.member.site for offer in by_site],
            "public-keys": [offer.member.public_key for offer in by_site],
            "noises": [offer.member.noise for offer in by_site],
            "rules": [offer.member.rules for offer in by_site],
            "signatures": [offer.signature for offer in by_site],
        }
    )


def _read_words(reply: Message) -> Words:
    arrays = reply.content.get("masked")
    if not isinstance(arrays, ArrayRecord) or set(arrays) != {"words"}:
        raise ReplyError("record 'masked' is missing or of the wrong kind")
    return np.ascontiguousarray(read_array(arrays["words"], "words", (WORDS,))).view(np.uint64)


def _read_seed(reply: Message) -> bytes:
    seed = _record(reply, "seed").get("seed")
    if type(seed) is not bytes or len(seed) != KEY_BYTES:
        raise ReplyError("the seed is not one of 32 bytes")
    return seed
