"""Plausible lies: what a gateway could send instead of its sums and still pass every check on a single reply.

Liars know everything: the running release, every honest farm's sums, the head those would give, and one another. Each
attack turns the liars' own honest sums into false ones; all of them satisfy ``server.strategy.check_sums``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from server.strategy import check_sums, total_of
from shared_models.moments import PHI, TARGET_CLASS, TARGET_LIMITS, TARGETS, Sums
from shared_models.ridge import Choice, Subspace, Weights, rounding, solve

HONEST = Choice(Subspace.FULL, 100.0)
"""How the head is made that attacks push away from."""


@dataclass(frozen=True)
class Scene:
    """What the liars know."""

    honest: list[Sums]
    """Of the honest farms."""
    own: list[Sums]
    """What the liars would send if they did not lie."""
    prior: Weights
    """The running head (4, 9)."""
    rng: np.random.Generator


Attack = Callable[[Scene], list[Sums]]


def scaled(scene: Scene) -> list[Sums]:
    """Residuals three times as large, as far as their bounds allow."""
    return [_stretched(sums, 3.0) for sums in scene.own]


def flipped(scene: Scene) -> list[Sums]:
    """Every residual with the other sign."""
    return [Sums(sums.gram, -sums.moment, sums.energy, sums.count) for sums in scene.own]


def flipped_and_scaled(scene: Scene) -> list[Sums]:
    """Both."""
    return [_stretched(sums, -3.0) for sums in scene.own]


def shifted(scene: Scene) -> list[Sums]:
    """A constant on every residual: one of its standard deviations, as far as its bounds allow."""
    return [_shifted(sums, 1.0) for sums in scene.own]


def copied(scene: Scene) -> list[Sums]:
    """All liars send one honest farm's sums: the one whose head is farthest from the others'."""
    total = total_of(scene.honest)
    fleet = _heads(total, scene.prior)

    def distance(sums: Sums) -> float:
        step = _heads(sums, scene.prior) - fleet
        return sum(float(step[t] @ total.gram[TARGET_CLASS[t]] @ step[t]) / total.windows(t) for t in range(1, TARGETS))

    strangest = max(scene.honest, key=distance)
    return [strangest for _ in scene.own]


def many_windows(scene: Scene) -> list[Sums]:
    """The flipped sums of a thousand times as many windows."""
    return [
        Sums(1000 * sums.gram, 1000 * sums.moment, 1000 * sums.energy, 1000 * sums.count) for sums in flipped(scene)
    ]


def colluding(times: float) -> Attack:
    """All liars answer what a fleet would whose best head lay ``times`` the honest update on the other side."""

    def attack(scene: Scene) -> list[Sums]:
        false = scene.prior - times * (_heads(total_of(scene.honest), scene.prior) - scene.prior)
        return [_answering(sums, false, scene.rng) for sums in scene.own]

    return attack


def levelled(times: float) -> Attack:
    """All liars agree on a forecast off by ``times`` the honest residual's deviation everywhere."""

    def attack(scene: Scene) -> list[Sums]:
        total = total_of(scene.honest)
        false = _heads(total, scene.prior)
        for target in range(TARGETS):
            false[target, -1] += times * np.sqrt(total.energy[target] / max(total.windows(target), 1))
        return [_answering(sums, false, scene.rng) for sums in scene.own]

    return attack


def little(times: float) -> Attack:
    """The honest farms' mean b per window less ``times`` its deviation between farms: hidden among them.

    After Baruch, Baruch and Goldberg, "A Little Is Enough", 2019.
    """

    def attack(scene: Scene) -> list[Sums]:
        result = []
        for sums in scene.own:
            false = sums.moment.astype(np.float64)
            for target in range(TARGETS):
                means = np.array([s.moment[target] / max(s.windows(target), 1) for s in scene.honest])
                false[target] = sums.windows(target) * (means.mean(axis=0) - times * means.std(axis=0))
            result.append(_possible(sums, false))
        return result

    return attack


def leverage(scene: Scene) -> list[Sums]:
    """Colluders whose activations are twice the size of anyone's, so that their windows weigh more."""
    false = scene.prior - 3.0 * (_heads(total_of(scene.honest), scene.prior) - scene.prior)
    result = []
    for sums in scene.own:
        stretch = np.ones(PHI)
        largest = np.diagonal(sums.gram, axis1=1, axis2=2) / np.maximum(sums.count, 1)[:, None]
        stretch[:-1] = np.minimum(2.0, 255.0 / np.sqrt(np.maximum(largest.max(axis=0)[:-1], 1.0)))
        gram = np.rint(sums.gram * np.outer(stretch, stretch)).astype(np.int64)
        result.append(_answering(Sums(gram, sums.moment, sums.energy, sums.count), false, scene.rng))
    return result


ATTACKS: Mapping[str, Attack] = {
    "scaled": scaled,
    "sign-flipped": flipped,
    "flipped and scaled": flipped_and_scaled,
    "shifted": shifted,
    "a copy of another's": copied,
    "a thousand times the windows": many_windows,
    **{f"colluding, {times:g} updates": colluding(times) for times in (0.25, 1.0, 3.0, 10.0)},
    **{f"colluding level, {times:g} rms": levelled(times) for times in (0.2, 0.35, 0.5, 0.7, 1.0)},
    **{f"a little is enough, {times:g} sd": little(times) for times in (0.5, 1.0, 1.5, 2.0)},
    "leverage": leverage,
}
"""Where an attack has a size, sizes around the one that did most against this very defence."""


def answers(attack: str, scene: Scene) -> list[Sums]:
    """What the liars send; all of it passes the checks on a single reply.

    Raises:
        ReplyError: an attack made sums that would be refused, which would prove nothing.
    """
    made = ATTACKS[attack](scene)
    for sums in made:
        check_sums(sums)
    return made


def _heads(sums: Sums, prior: Weights) -> Weights:
    return np.stack([solve(sums, target, prior[target], HONEST) for target in range(TARGETS)])


def _limit(target: int) -> float:
    """The largest root mean square a residual may claim."""
    return float(TARGET_LIMITS[target]) * 0.95


def _stretched(sums: Sums, times: float) -> Sums:
    moment, energy = sums.moment.astype(np.float64), sums.energy.astype(np.float64)
    for target in range(TARGETS):
        rms = np.sqrt(energy[target] / max(sums.windows(target), 1))
        factor = np.sign(times) * min(abs(times), _limit(target) / max(rms, 1.0))
        moment[target] *= factor
        energy[target] *= factor**2
    return Sums(sums.gram, np.rint(moment).astype(np.int64), np.rint(energy).astype(np.int64), sums.count)


def _shifted(sums: Sums, deviations: float) -> Sums:
    moment, energy = sums.moment.astype(np.float64), sums.energy.astype(np.float64)
    for target in range(TARGETS):
        windows = sums.windows(target)
        rms = np.sqrt(energy[target] / max(windows, 1))
        by = min(deviations * rms, _limit(target) - rms)
        energy[target] += 2 * by * moment[target, -1] + by**2 * windows
        moment[target] += by * sums.gram[TARGET_CLASS[target], -1]
    return Sums(sums.gram, np.rint(moment).astype(np.int64), np.rint(energy).astype(np.int64), sums.count)


def _answering(sums: Sums, heads: Weights, rng: np.random.Generator) -> Sums:
    """Sums of these very windows with residuals that the false heads explain, and honest noise."""
    moment, energy = np.zeros((TARGETS, PHI)), np.zeros(TARGETS)
    for target in range(TARGETS):
        gram = sums.gram[TARGET_CLASS[target]].astype(np.float64)
        windows = max(sums.windows(target), 1)
        noise = float(sums.energy[target]) / windows
        explained = float(heads[target] @ gram @ heads[target]) / windows
        room = max(_limit(target) ** 2 - noise, 0.0)
        size = min(1.0, np.sqrt(room / max(explained, 1e-9)))
        # The liars' noise is drawn anew, so that no two of them send the same.
        random = np.linalg.cholesky(gram + rounding(gram) + 1e-9 * np.eye(PHI)) @ rng.standard_normal(PHI)
        moment[target] = gram @ (size * heads[target]) + 0.5 * np.sqrt(noise) * random
        energy[target] = size**2 * explained * windows + noise * windows
    return _possible(Sums(sums.gram, sums.moment, np.rint(energy).astype(np.int64), sums.count), moment)


def _possible(sums: Sums, moment: Weights) -> Sums:
    """With these b, and as much Σy² as they need."""
    energy = sums.energy.astype(np.float64)
    moment = moment.copy()
    for target in range(TARGETS):
        gram = sums.gram[TARGET_CLASS[target]].astype(np.float64)
        windows = sums.windows(target)
        ridge = gram + rounding(gram) + 1e-6 * np.eye(PHI)
        needed = 1.05 * float(moment[target] @ np.linalg.solve(ridge, moment[target]))
        most = windows * _limit(target) ** 2
        if needed > most:
            moment[target] *= np.sqrt(most / needed)
            needed = most
        energy[target] = min(max(energy[target], needed), most) if windows else 0.0
    return Sums(sums.gram, np.rint(moment).astype(np.int64), np.ceil(energy).astype(np.int64), sums.count)
