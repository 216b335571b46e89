"""A farm's part in a masked total (:mod:`shared_models.masking`): offer a key, answer under masks, tell the seed.

Between messages the private key, then the seed, live in the state that Flower keeps for the run, in the SuperNode's
memory: they never touch a disk, and a SuperNode that dies takes them along. A key makes one masked answer; the next
offer replaces whatever was left of an attempt.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from gateway import disclosures
from gateway.answers import budget_of, load_farm, refuse_the_incredible
from gateway.config import Privacy
from gateway.disclosures import Withheld
from gateway.peers import known_members, read_peers, sign
from gateway.store import PATIENCE_S
from shared_models.masking import (
    ATTEMPT_BYTES,
    Cohort,
    MaskError,
    Member,
    Rule,
    key_statement,
    new_key,
    new_seed,
    pair_masks,
    self_mask,
    to_words,
)
from shared_models.moments import Int64

SCHEMA = 1
STATE = "masking"


@dataclass(frozen=True)
class Place:
    """Where this farm's files are; from the gateway's own configuration, never from the server."""

    store: Path
    identity: Path | None
    patience_s: float = PATIENCE_S
    """How long a statement waits for another connection's lock."""


def offer_key(place: Place, question: Mapping[str, Any], state: RecordDict) -> RecordDict:
    """A fresh key for one attempt, if this farm could answer at all.

    Raises:
        NotEnough: too few nodes or windows.
        Withheld: the farm's own sums cannot be, or its budget is spent.
        MaskError: the question is malformed.
    """
    backbone_id, attempt = _backbone_and_attempt(question)
    farm = load_farm(place.store, backbone_id, masked=True, patience_s=place.patience_s)
    refuse_the_incredible(farm)
    noise = farm.noise
    if noise is not None:
        with disclosures.disclosing(place.store) as db:
            disclosures.check_budget(db, noise.rho, budget_of(farm.privacy))
    private_key, public_key = new_key()
    member = Member(farm.released.site, public_key, noise.share if noise else 0, rules_of(farm.privacy))
    statement = key_statement(backbone_id, attempt, member)
    signature = sign(place.identity, statement) if place.identity else b""
    state[STATE] = ConfigRecord(
        {"attempt": attempt, "backbone": backbone_id, "private-key": private_key, "noise": member.noise}
    )
    return RecordDict(
        {
            "member": ConfigRecord(
                {
                    "site": member.site,
                    "schema": SCHEMA,
                    "public-key": public_key,
                    "noise": member.noise,
                    "signature": signature,
                    "rules": member.rules,
                }
            )
        }
    )


def answer_masked(place: Place, question: Mapping[str, Any], state: RecordDict) -> RecordDict:
    """This farm's sums under the masks of the cohort that the server names.

    Raises:
        Withheld: the cohort is too small, not known to this farm, or would tell too much.
        NotEnough: too few nodes or windows.
        MaskError: the question is malformed, or about another attempt or key.
    """
    offered = _take(state, question)
    if "private-key" not in offered:
        raise MaskError("this key has made its answer")
    cohort, signatures = read_cohort(question)
    farm = load_farm(place.store, cohort.backbone_id, masked=True, patience_s=place.patience_s)
    refuse_the_incredible(farm)
    site = farm.released.site
    known = admit(farm.privacy, site, cohort, signatures)
    with disclosures.disclosing(place.store) as db:
        _check_difference(db, farm.privacy, cohort.backbone_id, known)
    masks = pair_masks(bytes(offered["private-key"]), site, cohort)
    noise = farm.noise
    if (noise.share if noise else 0) != offered["noise"]:
        raise MaskError("the rules for noise have changed since the key was offered")
    told = farm.with_noise(noise) if noise else farm.released
    seed = new_seed()
    words = to_words(told.sums, told.contributors) + masks + self_mask(seed, cohort)
    state[STATE] = ConfigRecord(
        {
            "attempt": cohort.attempt,
            "backbone": cohort.backbone_id,
            "seed": seed,
            "cohort": json.dumps(sorted(known)),
            "rho": noise.rho if noise else 0.0,
        }
    )
    answer: Int64 = words.view("int64")
    return RecordDict({"masked": ArrayRecord({"words": Array(answer)})})


def tell_seed(place: Place, question: Mapping[str, Any], state: RecordDict) -> RecordDict:
    """The seed that opens this farm's masked answer, after the disclosure has been written down.

    Raises:
        Withheld: meanwhile another answer spent the budget or changed what may be told.
        MaskError: there is no masked answer of this attempt.
    """
    masked = _take(state, question)
    if "seed" not in masked:
        raise MaskError("nothing has been answered under masks in this attempt")
    backbone_id, rho, known = int(masked["backbone"]), float(masked["rho"]), json.loads(str(masked["cohort"]))
    farm_rules = load_farm(place.store, backbone_id, masked=True, patience_s=place.patience_s).privacy
    with disclosures.disclosing(place.store) as db:
        _check_difference(db, farm_rules, backbone_id, known)
        if rho:
            disclosures.check_budget(db, rho, budget_of(farm_rules))
        disclosures.record(db, int(time.time()), backbone_id, cohort=known, rho=rho)
    return RecordDict({"seed": ConfigRecord({"seed": masked["seed"]})})


def read_cohort(question: Mapping[str, Any]) -> tuple[Cohort, dict[str, bytes]]:
    """The cohort a server names, and its members' signatures.

    Raises:
        MaskError: what it sent is no cohort.
    """
    backbone_id, attempt = _backbone_and_attempt(question)
    columns = [question.get(name) for name in ("sites", "public-keys", "noises", "rules", "signatures")]
    if not all(isinstance(column, list) for column in columns) or len({len(column or []) for column in columns}) != 1:
        raise MaskError("the cohort's lists differ in length")
    rows = list(zip(*(column or [] for column in columns), strict=True))
    for row in rows:
        if tuple(map(type, row)) != (str, bytes, int, int, bytes):
            raise MaskError("the cohort's lists hold the wrong types")
    cohort = Cohort.of(backbone_id, attempt, [Member(*row[:-1]) for row in rows])
    return cohort, {row[0]: row[-1] for row in rows}


def rules_of(privacy: Privacy) -> int:
    """What this farm says of its rules."""
    rules = Rule(0)
    if privacy.masking_required:
        rules |= Rule.MASKED_ONLY
    if privacy.accept_changes:
        rules |= Rule.ACCEPTS_CHANGES
    return int(rules)


def admit(privacy: Privacy, site: str, cohort: Cohort, signatures: Mapping[str, bytes]) -> frozenset[str]:
    """The members that count for this farm, if they are enough: known ones whose rules hide it as its own hide them."""
    known = cohort.sites
    if privacy.peers_file is not None:
        known = known_members(read_peers(privacy.peers_file), site, cohort, signatures)
    rules = {member.site: Rule(member.rules) for member in cohort.members}
    if privacy.masking_required:
        known = frozenset(name for name in known if Rule.MASKED_ONLY in rules[name])
    if not privacy.accept_changes:
        known = frozenset(name for name in known if Rule.ACCEPTS_CHANGES not in rules[name])
    if len(known) < privacy.minimum_cohort:
        raise Withheld(f"{len(known)} members of the cohort count here, {privacy.minimum_cohort} are needed")
    if privacy.noise is not None:
        own = next((member.noise for member in cohort.members if member.site == site), 0)
        sharing = sum(member.noise >= own for member in cohort.members if member.site in known)
        if sharing < privacy.noise.honest_members:
            raise Withheld(
                f"{sharing} members add this farm's share of noise, {privacy.noise.honest_members} are needed"
            )
    return known


def _check_difference(
    db: sqlite3.Connection, privacy: Privacy, backbone_id: int, known: frozenset[str] | list[str]
) -> None:
    if not privacy.accept_changes:
        disclosures.check_difference(db, backbone_id, known)


def _take(state: RecordDict, question: Mapping[str, Any]) -> ConfigRecord:
    """The state of the attempt asked about; gone from ``state``, so that nothing is done twice."""
    backbone_id, attempt = _backbone_and_attempt(question)
    kept = state.get(STATE)
    if not isinstance(kept, ConfigRecord) or kept["attempt"] != attempt or kept["backbone"] != backbone_id:
        raise MaskError("this farm has no part in the attempt")
    del state[STATE]
    return kept


def _backbone_and_attempt(question: Mapping[str, Any]) -> tuple[int, bytes]:
    backbone_id, attempt = question.get("backbone"), question.get("attempt")
    if type(backbone_id) is not int or not 0 <= backbone_id < 1 << 32:
        raise MaskError("the question names no backbone")
    if type(attempt) is not bytes or len(attempt) != ATTEMPT_BYTES:
        raise MaskError("the question names no attempt")
    return backbone_id, attempt
