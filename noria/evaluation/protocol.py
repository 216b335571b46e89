"""The irrigation evaluation from fields to figures: what runs, on what, and what is compared with what."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

from nodes.field.climates import CLIMATES
from nodes.field.fields import FieldYear, sample_fields
from noria.evaluation import fleet, home, ledger
from noria.evaluation.controllers import RULES, Rule
from noria.evaluation.groups import BOOTSTRAP_SEED, Arm, Group
from noria.evaluation.home import HomeRun
from noria.evaluation.runs import DailyRun, Done, EvaluationError, NodeRun, Run, do_all
from noria.evaluation.statistics import BOOTSTRAPS
from shared_models.factory import factory_image
from shared_models.network import ModelImage
from shared_models.settings import SHIPPED_THRESHOLD_PERMILLE

SCHEMA = 1
SEEDS = (101, 102, 103)
"""World seeds that nothing was ever tuned or tried on."""
SEEN_SEEDS = range(1, 5)
"""For trying out code, in :data:`SEEN_CLIMATES`."""
SEEN_CLIMATES = ("champion", "tunis")
MULTIPLES = (0.6, 0.8, 1.0, 1.25, 1.6)
"""Of the shipped threshold: the node's curve."""
PHYSICS, MODEL = "node, physics", "node, shipped model"
WITHOUT_MODEL, WITH_MODEL = "balance and probes, no model", "the same, a model correcting the balance"
MARKED = "texture"
"""The rule that the node has to beat."""
TRUTH = "true state"
ALONGSIDE = (MARKED, TRUTH)
"""Rules that run in the second season, too."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything."""

    seeds: tuple[int, ...] = SEEDS
    climates: tuple[str, ...] = tuple(sorted(CLIMATES))
    per_climate: int = 3
    years: int = 2
    multiples: tuple[float, ...] = MULTIPLES
    rules: tuple[Rule, ...] = tuple(RULES.values())
    home_seasons: int = 100
    """In the training worlds."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run.

        Raises:
            EvaluationError: an unknown climate, or nothing to do.
        """
        unknown = sorted(set(self.climates) - set(CLIMATES))
        if unknown:
            raise EvaluationError(f"no climate {', '.join(unknown)}; there are {', '.join(sorted(CLIMATES))}")
        if not self.seeds or not self.climates or self.per_climate < 1 or self.years < 1:
            raise EvaluationError("at least one seed, one climate, one field and one year are needed")

    @classmethod
    def quick(cls) -> Plan:
        """Less than a minute on seen data: whether everything works, not what it is worth."""
        curves = {MARKED, TRUTH}
        thin = [
            Rule(
                rule.name,
                rule.meaning,
                rule.settings[1:4:2] if rule.name in curves else rule.settings[-1:],
                rule.make,
                rule.bound,
            )
            for rule in RULES.values()
        ]
        return cls((SEEN_SEEDS[0],), SEEN_CLIMATES, 1, 1, (1.0, 1.6), tuple(thin), 1)

    @property
    def thresholds_permille(self) -> tuple[int, ...]:
        """The node's settings."""
        return tuple(round(SHIPPED_THRESHOLD_PERMILLE * multiple) for multiple in self.multiples)

    @property
    def shipped(self) -> int:
        """Which of them it leaves the house with."""
        return self.multiples.index(1.0)

    def field_years(self) -> list[FieldYear]:
        """All of them, a field's years one after the other.

        Raises:
            EvaluationError: a climate's record has not so many seasons.
        """
        try:
            return [
                field
                for seed in self.seeds
                for field in sample_fields(seed, self.climates, per_climate=self.per_climate, years=self.years)
            ]
        except ValueError as error:
            raise EvaluationError(str(error)) from error


class Progress(Protocol):
    """Where an evaluation tells how far it is."""

    def stage(self, name: str, runs: int) -> None:
        """So many runs begin."""

    def done(self, runs: int) -> None:
        """So many have become known."""


def evaluate(
    plan: Plan,
    connection: sqlite3.Connection,
    processes: int,
    progress: Progress,
) -> dict[str, Any]:
    """Run what is not yet in the ledger and compare; ``docs/evaluation.md`` describes the report.

    Args:
        plan: how much.
        connection: the ledger.
        processes: runs at a time.
        progress: told what begins and what is done.

    Raises:
        EvaluationError: a run failed.
    """

    def do(name: str, runs: Iterable[Run]) -> dict[Run, Done]:
        unique = list(dict.fromkeys(runs))
        progress.stage(name, len(unique))
        return do_all(unique, connection, processes, progress.done)

    years = plan.field_years()
    firsts = [field for field in years if field.turn == 0]
    first = _FirstYears(plan, years)
    lessons = {field: _node(field, SHIPPED_THRESHOLD_PERMILLE, fleet.statistics_image().pack()) for field in firsts}
    done = do("field-years", [*first.runs(), *lessons.values()])

    statistics = {field: snapshot for field in firsts if (snapshot := done[lessons[field]].snapshot) is not None}
    states = {fleet.identity(field): done[lessons[field]].state for field in firsts}
    second = _SecondYears(plan, firsts, states, {name: after(statistics) for name, after in fleet.SCHEMES.items()})
    done |= do("second years", second.runs())
    house = _House(plan)
    done |= do("training worlds", house.runs())

    best: dict[FieldYear, float] = {}
    for run, result in done.items():
        if isinstance(run, DailyRun | NodeRun):
            yields = [outcome.yield_t_ha for outcome in result.outcomes]
            best[run.field] = max(best.get(run.field, 0.0), *yields)
    _, evidence = fleet.round_of(statistics)
    first_group, second_group, home_group = first.group(done, best), second.group(done, best), house.group(done)
    rivals = [rule.name for rule in plan.rules]
    return {
        "schema": SCHEMA,
        "protocol": {
            "seeds": list(plan.seeds),
            "climates": list(plan.climates),
            "radiation_measured": [name for name in plan.climates if CLIMATES[name].radiation_measured],
            "fields_per_climate": plan.per_climate,
            "years": plan.years,
            "shipped_threshold_permille": SHIPPED_THRESHOLD_PERMILLE,
            "model_id": f"{factory_image().model_id:08x}",
            "judge": ledger.judge(),
            "core": ledger.core(),
            "bootstraps": BOOTSTRAPS,
            "bootstrap_seed": BOOTSTRAP_SEED,
            "seen": set(plan.seeds) <= set(SEEN_SEEDS) and set(plan.climates) <= set(SEEN_CLIMATES),
        },
        "judge": _section(
            first_group,
            equal=[(node, rival) for node in (PHYSICS, MODEL) for rival in rivals],
            pairs=[(MODEL, PHYSICS)],
        ),
        "second_year": _section(
            second_group,
            equal=[(node, rival) for node in (PHYSICS, MODEL, *fleet.SCHEMES) for rival in ALONGSIDE],
            pairs=[(arm, PHYSICS) for arm in (MODEL, *fleet.SCHEMES)],
        )
        | {"round": evidence.model_dump(mode="json", exclude={"targets": {"__all__": {"sites"}}})},
        "training_worlds": _section(
            home_group,
            equal=[(node, rival) for node in (PHYSICS, MODEL) for rival in home.RULES],
            pairs=[(MODEL, PHYSICS)],
        ),
    }


class _FirstYears:
    """Every controller on every field-year, each year by itself with a new node."""

    def __init__(self, plan: Plan, years: Sequence[FieldYear]) -> None:
        self._plan, self._years = plan, years

    def runs(self) -> list[Run]:
        """Field by field, so that an unfinished evaluation has finished fields."""
        arms = [rows for _, rows in self._arms()]
        return [row[index] for index in range(len(self._years)) for rows in arms for row in rows]

    def group(self, done: Mapping[Run, Done], best: Mapping[FieldYear, float]) -> Group:
        """Everything compared."""
        arms = [_filled(arm, rows, done) for arm, rows in self._arms()]
        return _judged(arms, self._years, best)

    def _arms(self) -> list[tuple[Arm, list[list[Run]]]]:
        plan, model = self._plan, factory_image().pack()
        return [
            *(_rule_arm(rule, self._years) for rule in plan.rules),
            _node_arm(plan, PHYSICS, WITHOUT_MODEL, [_bare(field) for field in self._years]),
            _node_arm(plan, MODEL, WITH_MODEL, [(f, model, None) for f in self._years]),
        ]


class _SecondYears:
    """The year after the fleet's statistics, on nodes that carry their records over."""

    def __init__(
        self,
        plan: Plan,
        firsts: Sequence[FieldYear],
        states: Mapping[str, bytes | None],
        heads: Mapping[str, Mapping[str, ModelImage]],
    ) -> None:
        self._plan, self._states, self._heads = plan, states, heads
        try:
            self._years = [field.following for field in firsts]
        except ValueError as error:
            raise EvaluationError(str(error)) from error

    def runs(self) -> list[Run]:
        """Field by field."""
        arms = [rows for _, rows in self._arms()]
        return [row[index] for index in range(len(self._years)) for rows in arms for row in rows]

    def group(self, done: Mapping[Run, Done], best: Mapping[FieldYear, float]) -> Group:
        """Everything compared."""
        return _judged([_filled(arm, rows, done) for arm, rows in self._arms()], self._years, best)

    def _arms(self) -> list[tuple[Arm, list[list[Run]]]]:
        plan, model = self._plan, factory_image()
        shipped = {fleet.identity(field): model for field in self._years}
        carried = [self._states[fleet.identity(field)] for field in self._years]
        bare = [(field, None, state) for field, state in zip(self._years, carried, strict=True)]
        arms = [
            *(_rule_arm(rule, self._years) for rule in plan.rules if rule.name in ALONGSIDE),
            _node_arm(plan, PHYSICS, WITHOUT_MODEL, bare),
        ]
        for name, images in {MODEL: shipped, **self._heads}.items():
            packed = [images[fleet.identity(field)].pack() for field in self._years]
            nodes = list(zip(self._years, packed, carried, strict=True))
            arms.append(_node_arm(plan, name, WITH_MODEL, nodes))
        return arms


class _House:
    """The training worlds."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._batches = home.batches(plan.home_seasons)

    def runs(self) -> list[Run]:
        """Batch by batch."""
        arms = [rows for _, rows in self._arms()]
        return [row[index] for index in range(len(self._batches)) for rows in arms for row in rows]

    def group(self, done: Mapping[Run, Done]) -> Group:
        """Everything compared; yields are relative already."""
        cases = [case for batch in self._batches for case in batch]
        worlds = [home.world(case) for case in cases]
        scopes = {world: [place == world for place in worlds] for world in sorted(set(worlds))}
        arms = [_filled(arm, rows, done) for arm, rows in self._arms()]
        return Group(arms, [1.0] * len(cases), cases, scopes, worlds)

    def _arms(self) -> list[tuple[Arm, list[list[Run]]]]:
        plan, shares, model = self._plan, _shares(self._plan), factory_image().pack()
        shipped = (SHIPPED_THRESHOLD_PERMILLE / 1000,)
        rules = [rule for rule in plan.rules if rule.name in home.RULES]
        return [
            *((_curve_of(rule), self._rows(rule.settings, rule=rule.name)) for rule in rules),
            (Arm(PHYSICS, WITHOUT_MODEL, shares, (), plan.shipped), self._rows(shares)),
            (Arm(MODEL, WITH_MODEL, shipped, (), 0), self._rows(shipped, image=model)),
        ]

    def _rows(
        self, settings: Sequence[float], *, rule: str | None = None, image: bytes | None = None
    ) -> list[list[Run]]:
        return [[HomeRun(batch, setting, rule, image) for batch in self._batches] for setting in settings]


_Node: TypeAlias = tuple[FieldYear, bytes | None, bytes | None]
"""A field-year, the model its node carries, the record it carries over."""


def _bare(field: FieldYear) -> _Node:
    return field, None, None


def _node(field: FieldYear, permille: int, image: bytes | None, state: bytes | None = None) -> NodeRun:
    return NodeRun(field, permille, image, state)


def _node_arm(plan: Plan, name: str, meaning: str, nodes: Sequence[_Node]) -> tuple[Arm, list[list[Run]]]:
    rows: list[list[Run]] = [
        [_node(field, permille, image, state) for field, image, state in nodes] for permille in plan.thresholds_permille
    ]
    return Arm(name, meaning, _shares(plan), (), plan.shipped), rows


def _rule_arm(rule: Rule, years: Sequence[FieldYear]) -> tuple[Arm, list[list[Run]]]:
    rows: list[list[Run]] = [[DailyRun(field, rule.name, setting) for field in years] for setting in rule.settings]
    return _curve_of(rule), rows


def _curve_of(rule: Rule) -> Arm:
    return Arm(rule.name, rule.meaning, rule.settings, (), bound=rule.bound)


def _shares(plan: Plan) -> tuple[float, ...]:
    return tuple(permille / 1000 for permille in plan.thresholds_permille)


def _filled(arm: Arm, rows: Sequence[Sequence[Run]], done: Mapping[Run, Done]) -> Arm:
    return replace(arm, outcomes=tuple(tuple(outcome for run in row for outcome in done[run].outcomes) for row in rows))


def _judged(arms: Sequence[Arm], years: Sequence[FieldYear], best: Mapping[FieldYear, float]) -> Group:
    """Scopes are the climates, and whether their stations measured radiation where both kinds are in."""
    climates = [field.climate for field in years]
    scopes = {climate: [place == climate for place in climates] for climate in sorted(set(climates))}
    measured = [CLIMATES[climate].radiation_measured for climate in climates]
    if len(set(measured)) > 1:
        scopes = {"radiation measured": measured, "radiation derived": [not each for each in measured]} | scopes
    identities = [fleet.identity(field) for field in years]
    return Group(arms, [best[field] for field in years], identities, scopes, climates)


def _section(group: Group, equal: Sequence[tuple[str, str]], pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {
        "field_years": group.field_years,
        "fields": group.clusters,
        "without_harvest": group.failed,
        "controllers": group.controllers(),
        "equal_yield": [group.equal_yield(candidate, reference) for candidate, reference in equal],
        "paired": [group.paired(candidate, reference) for candidate, reference in pairs],
    }
