"""The gate: a candidate head is released only if it proves itself where it has not learned.

For every site a head is learned from all the *other* sites (in blocks where there are more than twenty), quantised as a
node would run it, and scored on the site left out: SSE = Σy² − 2wᵀb + wᵀAw, exactly, from sums. A target's update
passes if sites agree (:mod:`server.comparison`) that it makes less squared error than the running release and than
the physics (w = 0): on average by the minimum gain, and the interval's bound on the right side. With fewer than five
sites there is no interval: the error added up over them must fall.

A site where the error would grow beyond the tolerance is *held back*: its nodes keep what they run, and are compared
with that in later rounds. If that is more than the stated share of sites, the target does not pass; with fewer than
five sites, none may be hurt. Sites whose sums are set aside (:mod:`server.trust`) neither teach nor vote, but are
held back where they would be hurt.

A target that does not pass keeps the running release's row, or falls back to the physics where the running row is
worse than that. If nothing passes, nothing is released.

One row is different: *uptake* moves water, and a smaller one-day residual does not mean a better watered field, for the
residual holds the probes' own errors beside the crop's. Only closed loops can tell, and those are run where a model is
made. So an uptake row that the running release leaves at zero stays zero, however well the sums speak of another.

With three sites or more the shrinkage of each fold is chosen without the sites left out; with two it is chosen on
both, because one site cannot be split again, and the figures are that much kinder. The running release may have
learned from earlier windows of the same sites, which makes it, not the candidate, the favourite.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from server import hierarchy, solver
from server.comparison import ENOUGH, Comparison, compare
from server.hierarchy import Level, LevelEvidence
from server.panel import Panel
from server.trust import Trust, examine
from shared_models.moments import TARGET_CLASS, TARGET_NAMES, TARGETS, UPTAKE, Sums
from shared_models.network import ModelError, ModelImage, head_weights, quantise_head
from shared_models.ridge import Choice, Weights, solve

PHYSICS_WATERS = "no closed loop has shown yet that this model waters better than the physics"
HELD_BACK = 0.2
WINDOW_CAP = 3.0


class Decision(StrEnum):
    """What becomes of one target's row of the head."""

    UPDATED = "updated"
    KEPT = "kept"
    ZEROED = "zeroed"
    """Back to the physics: the running row was worse than that."""


class Figures(BaseModel):
    """Squared errors in output steps squared, out of sample for the candidate."""

    model_config = ConfigDict(frozen=True)

    windows: int
    physics: float
    running: float
    """Of what the site's nodes run."""
    candidate: float


class TargetEvidence(BaseModel):
    """What the gate saw and decided for one target."""

    model_config = ConfigDict(frozen=True)

    target: str
    decision: Decision
    reason: str
    nested: bool
    """Whether each fold chose its shrinkage without the sites left out."""
    subspace: str | None
    """Which weights moved; None where none did."""
    strength_windows: float | None
    """How many windows the prior weighed."""
    against_running: Comparison
    """Of the candidate, over the sites that vote."""
    against_physics: Comparison
    total: Figures
    """Over the sites that vote."""
    sites: dict[str, Figures]
    """Every site's, also of those set aside."""


class Evidence(BaseModel):
    """Everything behind a release, or behind its refusal."""

    model_config = ConfigDict(frozen=True)

    verdict: Literal["passed", "refused"]
    reason: str
    tolerance: float
    minimum_gain: float
    set_aside: dict[str, str]
    """Sites that neither taught nor voted, and why."""
    held_back: dict[str, str]
    """Sites that campaigns leave out, and why."""
    targets: list[TargetEvidence]
    levels: list[LevelEvidence]
    """What heads for the fleet, for those alike and for single sites are worth; only the fleet's is released."""


@dataclass(frozen=True)
class _Case:
    """What a judgement is about."""

    running: ModelImage
    prior: Weights
    """The running head (4, 9)."""
    sites: Panel
    trust: Trust
    teaching: Panel
    """Trusted sites, their windows capped."""
    stays: Weights
    """(n, 4, 9): the head each site's nodes run."""


class Gate:
    """Judges what the sums of several sites say about the running release.

    Args:
        tolerance: Share by which a site's error may exceed that of what it runs.
        minimum_gain: Share by which the error across sites must undercut both rivals.
        held_back_share: Share of sites that may be held back.
        window_cap: A site's windows teach at most as this multiple of the median site's.
    """

    def __init__(
        self,
        tolerance: float,
        minimum_gain: float,
        held_back_share: float = HELD_BACK,
        window_cap: float = WINDOW_CAP,
    ) -> None:
        self.tolerance = tolerance
        self.minimum_gain = minimum_gain
        self.held_back_share = held_back_share
        self.window_cap = window_cap

    def judge(
        self,
        running: ModelImage,
        sums: Mapping[str, Sums],
        *,
        stayed: Mapping[str, ModelImage] | None = None,
        earlier: Mapping[str, Sums] | None = None,
    ) -> tuple[ModelImage | None, Evidence]:
        """Solve, quantise, compare.

        Args:
            running: The release to improve; its head is the prior.
            sums: Statistics per site, all of the running release's backbone.
            stayed: What sites run that were held back from the running release.
            earlier: What sites had sent in an earlier round, to show what their own heads would be worth.

        Returns:
            The image to release, or None, and the evidence.
        """
        case = self._case(running, sums, stayed or {})
        prior = case.prior
        held = [target == UPTAKE and not prior[target].any() for target in range(TARGETS)]
        choices = [
            None if held[target] else solver.choose(case.teaching, target, prior[target]) for target in range(TARGETS)
        ]
        candidate = _solve_all(case.teaching.total(), prior, choices)
        folds = _folds(case, choices, candidate)
        decisions = [Decision.UPDATED if choice else self._fallback(case, row) for row, choice in enumerate(choices)]
        reasons = ["" if choice else "no update helps a site it has not seen" for choice in choices]
        reasons = [PHYSICS_WATERS if held[target] else reason for target, reason in enumerate(reasons)]
        while True:
            errors = _errors(case, folds, decisions)
            failed = self._failed(case, errors, decisions)
            if not failed:
                break
            for target, objection in failed.items():
                decisions[target] = self._fallback(case, target)
                reasons[target] = objection
        for target, decision in enumerate(decisions):
            if decision is Decision.UPDATED:
                reasons[target] = "better than the running release and the physics at sites it has not seen"
            elif decision is Decision.ZEROED:
                reasons[target] += "; the running release is worse than the physics"
        image = _compose(running, prior, candidate, decisions, case.teaching.total())
        refusal = self._refusal(case, image, decisions, errors)
        evidence = Evidence(
            verdict="refused" if refusal else "passed",
            reason=refusal or _praise(decisions),
            tolerance=self.tolerance,
            minimum_gain=self.minimum_gain,
            set_aside=case.trust.set_aside,
            held_back={} if refusal else self._hurt(case, errors, range(TARGETS)),
            targets=[
                _target_evidence(case, errors[target], target, decisions[target], reasons[target], choices[target])
                for target in range(TARGETS)
            ],
            levels=_levels(case, choices, folds, earlier or {}),
        )
        return (None if refusal else image), evidence

    def _case(self, running: ModelImage, sums: Mapping[str, Sums], stayed: Mapping[str, ModelImage]) -> _Case:
        sites, prior = Panel.of(sums), head_weights(running)
        capped = sites.capped(self.window_cap)
        targets = [target for target in range(TARGETS) if target != UPTAKE or prior[target].any()]
        trust = examine(capped, prior, targets)
        stays = np.stack([head_weights(stayed[name]) if name in stayed else prior for name in sites.names])
        return _Case(running, prior, sites, trust, capped.where(trust.trusted), stays)

    def _failed(self, case: _Case, errors: Sequence[_Errors], decisions: Sequence[Decision]) -> dict[int, str]:
        """Targets whose update does not do, and why."""
        updated = [target for target, decision in enumerate(decisions) if decision is Decision.UPDATED]
        failed = {target: text for target in updated if (text := self._objection(case, errors[target], target))}
        if failed or not self._too_many(case, self._hurt(case, errors, updated)):
            return failed
        # Each target by itself holds back few enough, all together too many: the one that hurts most sites goes.
        worst = max(updated, key=lambda target: len(self._hurt(case, errors, [target])))
        return {worst: f"with the other targets {self._shares(case, self._hurt(case, errors, updated))}"}

    def _objection(self, case: _Case, errors: _Errors, target: int) -> str:
        """Why these figures do not do, or an empty text."""
        goal = 1 - self.minimum_gain
        voting = case.trust.trusted
        for rival, name in ((errors.running, "the running release"), (errors.physics, "the physics")):
            seen = compare(rival[voting], errors.candidate[voting])
            if seen.ratio > goal:
                return f"no better than {name} ({seen.ratio:.3f} of its squared error)"
            if seen.bound >= 1:
                return f"not certainly better than {name} ({seen.ratio:.3f} of its squared error, {_interval(seen)})"
        hurt = self._hurt(case, {target: errors}, [target])
        return self._shares(case, hurt) if self._too_many(case, hurt) else ""

    def _hurt(
        self, case: _Case, errors: Mapping[int, _Errors] | Sequence[_Errors], targets: Iterable[int]
    ) -> dict[str, str]:
        """Sites whose error grows beyond the tolerance, and by how much."""
        hurt: dict[str, str] = {}
        for target in targets:
            of_target = errors[target]
            for site in np.flatnonzero(of_target.candidate > (1 + self.tolerance) * of_target.running):
                ratio = _ratio(float(of_target.candidate[site]), float(of_target.running[site]))
                hurt.setdefault(case.sites.names[site], f"{TARGET_NAMES[target]}: {ratio} of the squared error it has")
        return dict(sorted(hurt.items()))

    def _too_many(self, case: _Case, hurt: Mapping[str, str]) -> bool:
        """Whether more sites that vote are hurt than may be held back."""
        return len(set(hurt) - set(case.trust.set_aside)) > self._most_held_back(case)

    def _most_held_back(self, case: _Case) -> int:
        voting = int(case.trust.trusted.sum())
        return math.floor(self.held_back_share * voting + 1e-9) if voting >= ENOUGH else 0

    def _shares(self, case: _Case, hurt: Mapping[str, str]) -> str:
        site, how = next((site, how) for site, how in hurt.items() if site not in case.trust.set_aside)
        count = len(set(hurt) - set(case.trust.set_aside))
        if count == 1:
            return f"hurts {site} ({how})"
        return f"hurts {count} sites, {self._most_held_back(case)} may be held back; {site} ({how})"

    def _fallback(self, case: _Case, target: int) -> Decision:
        """The physics where the running row is clearly worse than it and few enough are hurt by that; else the row."""
        errors = _of_rows(case, target, np.zeros_like(case.stays[:, target]))
        voting = case.trust.trusted
        seen = compare(errors.running[voting], errors.candidate[voting])
        worse = seen.ratio < 1 - self.minimum_gain and seen.bound < 1
        return (
            Decision.ZEROED
            if worse and not self._too_many(case, self._hurt(case, {target: errors}, [target]))
            else Decision.KEPT
        )

    def _refusal(self, case: _Case, image: ModelImage, decisions: Sequence[Decision], errors: Sequence[_Errors]) -> str:
        """Why nothing is released, or an empty text."""
        if all(decision is Decision.KEPT for decision in decisions):
            return "no target passed"
        # Rows share one scale: a kept row may be rounded anew when another grows.
        hurt = self._hurt(case, errors, range(TARGETS))
        if self._too_many(case, hurt):
            return f"quantised together, the rows do not do: {self._shares(case, hurt)}"
        if image.head_bytes == case.running.head_bytes:
            return "quantised, the candidate is the running release"
        return ""


@dataclass(frozen=True)
class _Errors:
    """Squared errors of one target at every site, (n,)."""

    physics: Weights
    running: Weights
    candidate: Weights


def _of_rows(case: _Case, target: int, rows: Weights) -> _Errors:
    return _Errors(
        physics=case.sites.energy[:, target].astype(np.float64),
        running=case.sites.own_error(target, case.stays[:, target]),
        candidate=case.sites.own_error(target, rows),
    )


def _errors(case: _Case, folds: Weights, decisions: Sequence[Decision]) -> list[_Errors]:
    """Every target's, of heads that did not learn from the site, quantised as a node runs them."""
    distinct, fold_of = np.unique(folds.reshape(len(folds), -1), axis=0, return_inverse=True)
    teaching = case.teaching.total()
    composed = [
        _compose(case.running, case.prior, fold.reshape(case.prior.shape), decisions, teaching) for fold in distinct
    ]
    heads = np.array([head_weights(image) for image in composed])[fold_of.ravel()]
    return [_of_rows(case, target, heads[:, target]) for target in range(TARGETS)]


def _solve_all(sums: Sums, prior: Weights, choices: Sequence[Choice | None]) -> Weights:
    """All rows, each by its own choice; a row without one stays the prior's."""
    return np.stack(
        [
            solve(sums, target, prior[target], choice) if choice else prior[target]
            for target, choice in enumerate(choices)
        ]
    )


def _folds(case: _Case, choices: Sequence[Choice | None], candidate: Weights) -> Weights:
    """Per site the head learned without its block, (n, 4, 9); sites that do not teach meet the candidate itself."""
    teaching, prior = case.teaching, case.prior
    numbers = solver.blocks(teaching.names)
    heads = np.repeat(candidate[None], len(case.sites), axis=0)
    at = {name: index for index, name in enumerate(case.sites.names)}
    for block in np.unique(numbers):
        others = teaching.where(numbers != block)
        own = [
            solver.choose(others, target, prior[target]) if choice and solver.can_choose(others, target) else choice
            for target, choice in enumerate(choices)
        ]
        fold = _solve_all(others.total(), prior, own)
        for site in np.flatnonzero(numbers == block):
            heads[at[teaching.names[site]]] = fold
    return heads


def _levels(
    case: _Case, choices: Sequence[Choice | None], folds: Weights, earlier: Mapping[str, Sums]
) -> list[LevelEvidence]:
    """What each level of the hierarchy would be worth, target by target, unquantised."""
    found: list[LevelEvidence] = []
    at = {name: index for index, name in enumerate(case.sites.names)}
    for target, choice in enumerate(choices):
        if target == UPTAKE and choice is None:
            continue
        part = case.teaching.where(solver.telling(case.teaching, target))
        if len(part) < ENOUGH:
            continue
        running = case.prior[target]
        fleet = folds[[at[name] for name in part.names], target]
        seen = compare(part.error(target, running), part.own_error(target, fleet))
        found.append(
            LevelEvidence(
                target=TARGET_NAMES[target],
                level=Level.FLEET,
                strength_windows=choice.strength_windows if choice else None,
                against_running=seen,
                against_above=seen,
            )
        )
        group, parents, _, _ = hierarchy.group_evidence(part, target, running, fleet)
        site, _ = hierarchy.site_evidence(part, earlier, target, running, parents)
        found += [group, *([site] if site else [])]
    return found


def _compose(
    running: ModelImage, prior: Weights, candidate: Weights, decisions: Sequence[Decision], teaching: Sums
) -> ModelImage:
    """The image a node would run: each row by its decision, quantised together as ``teaching``'s windows care.

    Rows of a size no int8 head can hold make the whole candidate fall back to the running head.
    """
    rows = {
        Decision.UPDATED: candidate,
        Decision.KEPT: prior,
        Decision.ZEROED: np.zeros_like(prior),
    }
    try:
        weights = np.stack([rows[decision][row] for row, decision in enumerate(decisions)])
        return quantise_head(running, weights, teaching.gram[list(TARGET_CLASS)])
    except ModelError:
        return running


def _target_evidence(
    case: _Case, errors: _Errors, target: int, decision: Decision, reason: str, choice: Choice | None
) -> TargetEvidence:
    voting = case.trust.trusted
    windows = case.sites.windows(target)
    sites = {
        name: Figures(
            windows=int(windows[i]),
            physics=float(errors.physics[i]),
            running=float(errors.running[i]),
            candidate=float(errors.candidate[i]),
        )
        for i, name in enumerate(case.sites.names)
    }
    return TargetEvidence(
        target=TARGET_NAMES[target],
        decision=decision,
        reason=reason,
        nested=int(solver.telling(case.teaching, target).sum()) > 2,
        subspace=choice.subspace if choice else None,
        strength_windows=choice.strength_windows if choice else None,
        against_running=compare(errors.running[voting], errors.candidate[voting]),
        against_physics=compare(errors.physics[voting], errors.candidate[voting]),
        total=_sum(figures for name, figures in sites.items() if name not in case.trust.set_aside),
        sites=sites,
    )


def _sum(figures: Iterable[Figures]) -> Figures:
    entries = list(figures)
    return Figures(
        windows=sum(entry.windows for entry in entries),
        physics=sum(entry.physics for entry in entries),
        running=sum(entry.running for entry in entries),
        candidate=sum(entry.candidate for entry in entries),
    )


def _ratio(value: float, reference: float) -> str:
    return f"{value / reference:.3f}" if reference > 0 else "more than none"


def _interval(seen: Comparison) -> str:
    return (
        "no interval" if seen.low is None or seen.high is None else f"90 % interval {seen.low:.3f} to {seen.high:.3f}"
    )


def _praise(decisions: Sequence[Decision]) -> str:
    """What changed, for people."""
    parts = [
        f"{decision.value}: {', '.join(names)}"
        for decision in Decision
        if (names := [TARGET_NAMES[row] for row, entry in enumerate(decisions) if entry is decision])
    ]
    return "; ".join(parts)
