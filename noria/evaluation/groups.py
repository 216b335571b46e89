"""Field-years that several controllers have lived through, and every figure that comes of comparing them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from noria.evaluation.runs import Outcome
from noria.evaluation.statistics import Curve, Float, curve, equal_yield, estimate, paired, weightings

EVERYWHERE = "all"
BOOTSTRAP_SEED = 1


@dataclass(frozen=True, slots=True)
class Arm:
    """One controller at all its settings."""

    name: str
    meaning: str
    settings: tuple[float, ...]
    """From thirsty to dry."""
    outcomes: tuple[tuple[Outcome, ...], ...]
    """Per setting, per field-year."""
    shipped: int | None = None
    """Index of the setting with which it leaves the house."""
    bound: bool = False
    """Whether it knows what nobody can know."""

    def values(self, name: str) -> Float:
        """(settings, field-years) of a figure of :class:`Outcome`."""
        return np.array([[getattr(outcome, name) for outcome in row] for row in self.outcomes], np.float64)


class Group:
    """Arms over the same field-years."""

    def __init__(
        self,
        arms: Sequence[Arm],
        best_yield: Sequence[float],
        clusters: Sequence[Hashable],
        scopes: Mapping[str, Sequence[bool]],
        places: Sequence[str],
    ) -> None:
        """Line everything up; field-years on which nobody harvested anything say nothing and are left out.

        Args:
            arms: all over the same field-years in the same order.
            best_yield: of each field-year, what its yields are relative to.
            clusters: of each, the field it is a year of.
            scopes: named parts of the field-years to report by themselves; :data:`EVERYWHERE` is added.
            places: of each, the climate or simulator; the worst is reported.
        """
        self._arms = {arm.name: arm for arm in arms}
        best = np.array(best_yield, np.float64)
        kept = best > 0
        self.failed = int((~kept).sum())
        self.field_years = int(kept.sum())
        self.clusters = len({name for name, keep in zip(clusters, kept, strict=True) if keep})
        self._places = np.array(places)[kept]
        self._water = {arm.name: arm.values("water_mm")[:, kept] for arm in arms}
        self._yield = {arm.name: arm.values("yield_t_ha")[:, kept] / best[kept] for arm in arms}
        self._others = {
            (arm.name, figure): arm.values(figure)[:, kept] for arm in arms for figure in ("doses", "drained_mm")
        }
        names = [name for name, keep in zip(clusters, kept, strict=True) if keep]
        masks = {EVERYWHERE: np.ones(self.field_years, np.bool_)}
        masks |= {scope: np.array(part, np.bool_)[kept] for scope, part in scopes.items()}
        self._scopes = {scope: mask for scope, mask in masks.items() if mask.any()}
        self._weights = {
            scope: weightings([name for name, keep in zip(names, mask, strict=True) if keep], BOOTSTRAP_SEED)
            for scope, mask in self._scopes.items()
        }

    def controllers(self) -> list[dict[str, Any]]:
        """Every arm at every setting in every scope."""
        return [self._controller(arm) for arm in self._arms.values()]

    def equal_yield(self, candidate: str, reference: str) -> dict[str, Any]:
        """Water of ``candidate`` at its shipped setting against ``reference``'s curve, at the same yield."""
        setting = self._arms[candidate].shipped
        if setting is None:
            raise ValueError(f"{candidate} has no shipped setting")
        return {
            "candidate": candidate,
            "reference": reference,
            "scopes": {
                scope: equal_yield(self._curve(reference, scope), self._curve(candidate, scope), setting).as_json()
                for scope in self._scopes
            },
        }

    def paired(self, candidate: str, reference: str) -> dict[str, Any]:
        """What changes from ``reference`` to ``candidate``, both as shipped."""
        before, after = self._arms[reference].shipped, self._arms[candidate].shipped
        if before is None or after is None:
            raise ValueError(f"{candidate} or {reference} has no shipped setting")
        return {
            "candidate": candidate,
            "reference": reference,
            "scopes": {
                scope: paired(self._curve(reference, scope), before, self._curve(candidate, scope), after).as_json()
                for scope in self._scopes
            },
        }

    def _curve(self, arm: str, scope: str) -> Curve:
        mask = self._scopes[scope]
        return curve(self._water[arm][:, mask], self._yield[arm][:, mask], self._weights[scope])

    def _controller(self, arm: Arm) -> dict[str, Any]:
        curves = {scope: self._curve(arm.name, scope) for scope in self._scopes}
        rows = []
        for index, setting in enumerate(arm.settings):
            by_place = {
                str(place): float(self._yield[arm.name][index, self._places == place].mean())
                for place in np.unique(self._places)
            }
            worst = min(by_place, key=lambda place: by_place[place])
            scopes = {
                scope: {
                    "water_mm": estimate(means.water_mm[:, index]).as_json(),
                    "relative_yield": estimate(means.relative_yield[:, index]).as_json(),
                    "doses": self._mean(arm.name, "doses", index, scope),
                    "drained_mm": self._mean(arm.name, "drained_mm", index, scope),
                }
                for scope, means in curves.items()
            }
            rows.append(
                {
                    "setting": setting,
                    "worst_place": worst,
                    "worst_relative_yield": round(by_place[worst], 5),
                    "scopes": scopes,
                }
            )
        return {
            "name": arm.name,
            "meaning": arm.meaning,
            "bound": arm.bound,
            "shipped": arm.shipped,
            "settings": rows,
        }

    def _mean(self, arm: str, figure: str, setting: int, scope: str) -> float:
        return round(float(self._others[arm, figure][setting, self._scopes[scope]].mean()), 2)
