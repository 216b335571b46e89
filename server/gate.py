"""The gate: a candidate head is released only if it proves itself where it has not learned.

For every site a head is learned from all the *other* sites, quantised as a node would run it, and scored on the
site left out: SSE = Σy² − 2wᵀb + wᵀAw, exactly, from sums. A target's update passes if, over all sites, it has
less squared error than the running release and than the physics (w = 0), and exceeds the running release's error
at no single site by more than the tolerance. A target that does not pass keeps the running release's row, or
falls back to the physics where the running row is worse than that. If nothing passes, nothing is released.

One row is different: *uptake* moves water, and a smaller one-day residual does not mean a better watered field, for the
residual holds the probes' own errors beside the crop's. Only closed loops can tell, and those are run where a model is
made. So an uptake row that the running release leaves at zero stays zero, however well the sums speak of another.

With three sites or more the shrinkage of each fold is chosen without the site left out; with two it is chosen on
both, because one site cannot be split again, and the figures are that much kinder. The running release may have
learned from earlier windows of the same sites, which makes it, not the candidate, the favourite.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from server import solver
from server.solver import Weights
from server.strategy import total_of
from shared_models.moments import TARGET_NAMES, TARGETS, UPTAKE, Sums
from shared_models.network import ModelError, ModelImage, head_weights, quantise_head

PHYSICS_WATERS = "no closed loop has shown yet that this model waters better than the physics"


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
    candidate: float


class TargetEvidence(BaseModel):
    """What the gate saw and decided for one target."""

    model_config = ConfigDict(frozen=True)

    target: str
    decision: Decision
    reason: str
    nested: bool
    """Whether each fold chose its shrinkage without the site left out."""
    subspace: str | None
    """Which weights moved; None where none did."""
    strength_windows: float | None
    """How many windows the prior weighed."""
    total: Figures
    sites: dict[str, Figures]


class Evidence(BaseModel):
    """Everything behind a release, or behind its refusal."""

    model_config = ConfigDict(frozen=True)

    verdict: Literal["passed", "refused"]
    reason: str
    tolerance: float
    minimum_gain: float
    targets: list[TargetEvidence]


class Gate:
    """Judges what the sums of several sites say about the running release.

    Args:
        tolerance: Share by which a site's error may exceed the running release's.
        minimum_gain: Share by which the error over all sites must undercut both rivals.
    """

    def __init__(self, tolerance: float, minimum_gain: float) -> None:
        self.tolerance = tolerance
        self.minimum_gain = minimum_gain

    def judge(self, running: ModelImage, sums: Mapping[str, Sums]) -> tuple[ModelImage | None, Evidence]:
        """Solve, quantise, compare.

        Args:
            running: The release to improve; its head is the prior.
            sums: Statistics per site, all of the running release's backbone.

        Returns:
            The image to release, or None, and the evidence.
        """
        sites = sorted(sums)
        parts = [sums[site] for site in sites]
        prior = head_weights(running)
        held = [target == UPTAKE and not prior[target].any() for target in range(TARGETS)]
        choices = [None if held[target] else solver.choose(parts, target, prior[target]) for target in range(TARGETS)]
        candidate = _solve_all(total_of(parts), prior, choices)
        folds = _folds(parts, prior, choices)
        decisions = [
            Decision.UPDATED if choice else self._fallback(parts, prior, row) for row, choice in enumerate(choices)
        ]
        reasons = ["" if choice else "no update helps a site it has not seen" for choice in choices]
        reasons = [PHYSICS_WATERS if held[target] else reason for target, reason in enumerate(reasons)]
        while True:
            heads = [head_weights(_compose(running, prior, fold, decisions)) for fold in folds]
            figures = [_figures(sites, parts, prior, heads, target) for target in range(TARGETS)]
            failed = {
                target: objection
                for target in range(TARGETS)
                if decisions[target] is Decision.UPDATED and (objection := self._objection(figures[target]))
            }
            if not failed:
                break
            for target, objection in failed.items():
                decisions[target] = self._fallback(parts, prior, target)
                reasons[target] = objection
        for target, decision in enumerate(decisions):
            if decision is Decision.UPDATED:
                reasons[target] = "better than the running release and the physics at sites it has not seen"
            elif decision is Decision.ZEROED:
                reasons[target] += "; the running release is worse than the physics"
        image = _compose(running, prior, candidate, decisions)
        refusal = self._refusal(running, image, decisions, figures)
        evidence = Evidence(
            verdict="refused" if refusal else "passed",
            reason=refusal or _praise(decisions),
            tolerance=self.tolerance,
            minimum_gain=self.minimum_gain,
            targets=[
                TargetEvidence(
                    target=TARGET_NAMES[target],
                    decision=decisions[target],
                    reason=reasons[target],
                    nested=sum(part.windows(target) > 0 for part in parts) > 2,
                    subspace=choice.subspace if (choice := choices[target]) else None,
                    strength_windows=choice.strength_windows if choice else None,
                    total=_sum(figures[target].values()),
                    sites=figures[target],
                )
                for target in range(TARGETS)
            ],
        )
        return (None if refusal else image), evidence

    def _objection(self, sites: Mapping[str, Figures]) -> str:
        """Why these figures do not do, or an empty text."""
        total = _sum(sites.values())
        goal = 1 - self.minimum_gain
        if total.candidate > goal * total.running:
            return f"no better than the running release ({_ratio(total.candidate, total.running)} of its squared error)"
        if total.candidate > goal * total.physics:
            return f"no better than the physics ({_ratio(total.candidate, total.physics)} of its squared error)"
        return self._hurt(sites)

    def _hurt(self, sites: Mapping[str, Figures]) -> str:
        """The first site whose error grows beyond the tolerance, or an empty text."""
        for site, figures in sites.items():
            if figures.candidate > (1 + self.tolerance) * figures.running:
                return f"hurts {site} ({_ratio(figures.candidate, figures.running)} of the running squared error)"
        return ""

    def _fallback(self, parts: Sequence[Sums], prior: Weights, target: int) -> Decision:
        """The physics where the running row is clearly worse than it and no site is hurt by that; else the row."""
        running = [part.sse(target, prior[target]) for part in parts]
        physics = [float(part.energy[target]) for part in parts]
        worse = sum(physics) < (1 - self.minimum_gain) * sum(running)
        hurt = any(after > (1 + self.tolerance) * before for after, before in zip(physics, running, strict=True))
        return Decision.ZEROED if worse and not hurt else Decision.KEPT

    def _refusal(
        self,
        running: ModelImage,
        image: ModelImage,
        decisions: Sequence[Decision],
        figures: Sequence[Mapping[str, Figures]],
    ) -> str:
        """Why nothing is released, or an empty text."""
        if all(decision is Decision.KEPT for decision in decisions):
            return "no target passed"
        for target, decision in enumerate(decisions):
            # Rows share one scale: a kept row may be rounded anew when another grows.
            if decision is Decision.KEPT and (hurt := self._hurt(figures[target])):
                return f"requantised, the row of {TARGET_NAMES[target]} {hurt}"
        if image.head_bytes == running.head_bytes:
            return "quantised, the candidate is the running release"
        return ""


def _solve_all(sums: Sums, prior: Weights, choices: Sequence[solver.Choice | None]) -> Weights:
    """All rows, each by its own choice; a row without one stays the prior's."""
    return np.stack(
        [
            solver.solve(sums, target, prior[target], choice) if choice else prior[target]
            for target, choice in enumerate(choices)
        ]
    )


def _folds(parts: Sequence[Sums], prior: Weights, choices: Sequence[solver.Choice | None]) -> list[Weights]:
    """Per site, the head learned without it."""
    total = total_of(parts)
    folds = []
    for index, part in enumerate(parts):
        others = [*parts[:index], *parts[index + 1 :]]
        own = [
            solver.choose(others, target, prior[target]) if choice and solver.can_choose(others, target) else choice
            for target, choice in enumerate(choices)
        ]
        folds.append(_solve_all(total.subtract(part), prior, own))
    return folds


def _compose(running: ModelImage, prior: Weights, candidate: Weights, decisions: Sequence[Decision]) -> ModelImage:
    """The image a node would run: each row by its decision, quantised together.

    Rows of a size no int8 head can hold make the whole candidate fall back to the running head.
    """
    rows = {
        Decision.UPDATED: candidate,
        Decision.KEPT: prior,
        Decision.ZEROED: np.zeros_like(prior),
    }
    try:
        return quantise_head(running, np.stack([rows[decision][row] for row, decision in enumerate(decisions)]))
    except ModelError:
        return running


def _figures(
    sites: Sequence[str], parts: Sequence[Sums], prior: Weights, heads: Sequence[Weights], target: int
) -> dict[str, Figures]:
    return {
        site: Figures(
            windows=part.windows(target),
            physics=float(part.energy[target]),
            running=part.sse(target, prior[target]),
            candidate=part.sse(target, head[target]),
        )
        for site, part, head in zip(sites, parts, heads, strict=True)
    }


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


def _praise(decisions: Sequence[Decision]) -> str:
    """What changed, for people."""
    parts = [
        f"{decision.value}: {', '.join(names)}"
        for decision in Decision
        if (names := [TARGET_NAMES[row] for row, entry in enumerate(decisions) if entry is decision])
    ]
    return "; ".join(parts)
