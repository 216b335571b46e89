"""What this farm has to say about a backbone, as much of it as the farm's own configuration lets out."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from gateway import disclosures
from gateway.config import Privacy
from gateway.disclosures import Withheld
from gateway.noise import Noise, per_answer
from gateway.store import PATIENCE_S, StoreError, reading
from gateway.sums import FarmSums, NotEnough, farm_sums, node_sums
from shared_models.credibility import IncredibleError, check_sums
from shared_models.moments import Sums


@dataclass(frozen=True)
class Farm:
    """A consistent view of the store, released by invariant I7, and the rules for telling of it."""

    store: Path
    privacy: Privacy
    released: FarmSums
    nodes: dict[str, Sums]
    """Each node's share; empty where no noise is asked for."""

    @property
    def noise(self) -> Noise | None:
        """What an answer under these rules gets, if it gets any."""
        rules = self.privacy.noise
        if rules is None:
            return None
        return Noise(rules.clip_windows, per_answer(rules.epsilon, rules.delta, rules.answers), rules.honest_members)

    def with_noise(self, noise: Noise) -> FarmSums:
        """Clipped sums with noise; contributors and windows are no longer counts."""
        sums, contributors = noise.apply(self.nodes.values(), self.released.contributors)
        return replace(self.released, sums=sums, contributors=contributors, windows=int(sums.count.sum()))


def load_farm(store: Path, backbone_id: int, *, masked: bool = False, patience_s: float = PATIENCE_S) -> Farm:
    """Read what may leave.

    Args:
        store: A gateway's store; the gateway may be running.
        backbone_id: Whose activations the sums are about.
        masked: Whether the answer is for a masked total.
        patience_s: How long to wait for a lock.

    Raises:
        NotEnough: too few nodes or windows; how many is told only where exact sums would have been.
        StoreError: there is no store, it stays locked or is damaged, or no gateway of this version has used it.
    """
    with reading(store, patience_s) as db:
        db.execute("BEGIN")
        row = db.execute("SELECT value FROM meta WHERE key = 'privacy'").fetchone()
        if row is None:
            raise StoreError(f"{store}: holds no rules of privacy; has the gateway run yet?")
        try:
            privacy = Privacy.model_validate_json(row["value"])
        except ValidationError as error:
            raise StoreError(f"{store}: its rules of privacy are damaged") from error
        farm = farm_sums(db, backbone_id)
        nodes = node_sums(db, backbone_id) if privacy.noise else {}
    try:
        return Farm(store, privacy, farm.released(), nodes)
    except NotEnough:
        if masked or privacy.noise or privacy.masking_required:
            raise NotEnough("too few nodes or windows stand behind this farm's sums") from None
        raise


def answer_in_the_clear(store: Path, backbone_id: int, patience_s: float = PATIENCE_S) -> tuple[FarmSums, int]:
    """The farm's sums as the server will see them, and the variance of the noise in them (0: exact).

    Raises:
        Withheld: the farm demands masks, or its budget is spent.
        NotEnough: too few nodes or windows.
    """
    farm = load_farm(store, backbone_id, patience_s=patience_s)
    if farm.privacy.masking_required:
        raise Withheld("this farm answers under masks only (privacy.masking_required)")
    if farm.noise is None:
        return farm.released, 0
    noise = replace(farm.noise, honest_members=1)
    answer = farm.with_noise(noise)
    with disclosures.disclosing(store) as db:
        disclosures.check_budget(db, noise.rho, budget_of(farm.privacy))
        disclosures.record(db, int(time.time()), backbone_id, rho=noise.rho)
    return answer, noise.share


def budget_of(privacy: Privacy) -> float:
    """All that answers may cost, in zCDP; 0 where they get no noise."""
    rules = privacy.noise
    return 0.0 if rules is None else rules.answers * per_answer(rules.epsilon, rules.delta, rules.answers)


def refuse_the_incredible(farm: Farm) -> None:
    """Nobody can check sums under masks, so the farm checks its own; one that cannot be would spoil its whole cohort.

    Raises:
        Withheld: they contradict one another.
    """
    try:
        check_sums(farm.released.sums)
    except IncredibleError as error:
        raise Withheld("this farm's own sums contradict one another") from error
