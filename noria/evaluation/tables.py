"""The irrigation report as tables, for the terminal and for ``docs/evaluation.md``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from noria.evaluation.groups import EVERYWHERE
from noria.evaluation.protocol import MARKED, MODEL, PHYSICS, TRUTH

Triple = list[float | None]
"""A figure and its interval."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table before it is drawn."""

    name: str
    """Of the marks in the documentation."""
    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self) -> str:
        """For a page."""
        lines = [self.headings, ("---",) * len(self.headings), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def rich(self) -> Table:
        """For a terminal."""
        table = Table(title=self.title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for index, heading in enumerate(self.headings):
            table.add_column(heading, justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*row)
        return table


def grids(report: dict[str, Any]) -> list[Grid]:
    """Every table of a report."""
    return [_controllers(report), _climates(report), _second_year(report), _learned(report)]


def _controllers(report: dict[str, Any]) -> Grid:
    """One row per controller, at the setting whose yield is nearest the node's."""
    section = report["judge"]
    own = _shipped(section, PHYSICS)["scopes"][EVERYWHERE]["relative_yield"][0]
    equal = {
        entry["reference"]: entry["scopes"][EVERYWHERE]
        for entry in section["equal_yield"]
        if entry["candidate"] == PHYSICS
    }
    rows = []
    for controller in section["controllers"]:
        settings = controller["settings"]
        marked = controller["shipped"]
        row = (
            settings[marked]
            if marked is not None
            else min(settings, key=lambda each: abs(each["scopes"][EVERYWHERE]["relative_yield"][0] - own))
        )
        against = equal.get(controller["name"])
        rows.append(
            (
                controller["name"],
                f"{row['setting']:g}",
                *_figures(row),
                _number(against["reference_mm"][0]) if against else "",
                _share(against["saving"]) if against else "",
            )
        )
    headings = (
        "controller",
        "setting",
        "water, mm",
        "relative yield",
        "worst climate",
        "doses",
        "drained, mm",
        "water at equal yield, mm",
        "the node saves",
    )
    title = f"{section['field_years']} field-years of {section['fields']} fields; settings nearest the node's yield"
    return Grid("controllers", title, headings, rows)


def _climates(report: dict[str, Any]) -> Grid:
    """The physics-first node against the texture threshold and the truth, climate by climate, and at home."""
    rows = [
        *_savings(report["judge"], ""),
        *_savings(report["training_worlds"], "training worlds: "),
    ]
    headings = (
        "where",
        "node, mm",
        "relative yield",
        "compared at",
        "texture threshold, mm",
        "saved against it",
        "saved against the true state",
    )
    return Grid("climates", "The physics-first node as shipped, by climate", headings, rows)


def _savings(section: dict[str, Any], prefix: str) -> list[tuple[str, ...]]:
    texture, truth = (_entry(section["equal_yield"], PHYSICS, name)["scopes"] for name in (MARKED, TRUTH))
    shipped = _shipped(section, PHYSICS)["scopes"]
    return [
        (
            prefix + scope,
            _number(shipped[scope]["water_mm"][0]),
            _yield(shipped[scope]["relative_yield"]),
            _fraction(texture[scope]["relative_yield"][0]),
            _number(texture[scope]["reference_mm"][0]),
            _share(texture[scope]["saving"]),
            _share(truth[scope]["saving"]),
        )
        for scope in texture
    ]


def _second_year(report: dict[str, Any]) -> Grid:
    """What the nodes do in their second year, and how near the true state they come."""
    section = report["second_year"]
    rows = []
    for controller in section["controllers"]:
        if controller["shipped"] is None:
            continue
        name = controller["name"]
        against = [_entry(section["equal_yield"], name, rival)["scopes"][EVERYWHERE] for rival in (MARKED, TRUTH)]
        rows.append((name, *_figures(_shipped(section, name)), *(_share(each["saving"]) for each in against)))
    headings = (
        "second year",
        "water, mm",
        "relative yield",
        "worst climate",
        "doses",
        "drained, mm",
        "saved against the texture threshold",
        "saved against the true state",
    )
    return Grid("second-year", f"The second year of {section['fields']} fields", headings, rows)


def _learned(report: dict[str, Any]) -> Grid:
    """Every learned head against the physics alone, at equal yield."""
    first = _entry(report["judge"]["paired"], MODEL, PHYSICS)["scopes"]
    second = {entry["candidate"]: entry["scopes"] for entry in report["second_year"]["paired"]}
    rows = [
        (scope, _change(first.get(scope)), *(_change(scopes.get(scope)) for scopes in second.values()))
        for scope in first
    ]
    home = _entry(report["training_worlds"]["paired"], MODEL, PHYSICS)["scopes"]
    rows += [(f"training worlds: {scope}", _change(figures), *("" for _ in second)) for scope, figures in home.items()]
    headings = (
        "water at equal yield against the physics alone",
        "shipped model, each year by itself",
        *(f"{name.removeprefix('node, ')}, second year" for name in second),
    )
    return Grid("learned", "What learning changes (less than zero is less water)", headings, rows)


def _figures(row: dict[str, Any]) -> tuple[str, ...]:
    everywhere = row["scopes"][EVERYWHERE]
    return (
        _number(everywhere["water_mm"][0]),
        _yield(everywhere["relative_yield"]),
        f"{_fraction(row['worst_relative_yield'])} {row['worst_place']}",
        f"{everywhere['doses']:.1f}",
        _number(everywhere["drained_mm"]),
    )


def _shipped(section: dict[str, Any], name: str) -> dict[str, Any]:
    controller = next(each for each in section["controllers"] if each["name"] == name)
    row: dict[str, Any] = controller["settings"][controller["shipped"]]
    return row


def _entry(entries: list[dict[str, Any]], candidate: str, reference: str) -> dict[str, Any]:
    return next(each for each in entries if (each["candidate"], each["reference"]) == (candidate, reference))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _fraction(value: float | None) -> str:
    """A relative yield, as agronomists print it."""
    return "–" if value is None else f"{value:.3f}".removeprefix("0")


def _yield(triple: Triple) -> str:
    return f"{_fraction(triple[0])} [{_fraction(triple[1])}, {_fraction(triple[2])}]"


def _share(triple: Triple) -> str:
    value, low, high = ("–" if part is None else f"{100 * part:.1f}" for part in triple)
    return f"{value} % [{low}, {high}]"


def _change(figures: dict[str, Any] | None) -> str:
    return "" if figures is None else _share(figures["water_change_at_equal_yield"])
