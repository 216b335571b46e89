"""What a fleet learns in a season: heads from its nodes' statistics, by the arithmetic of a federated round.

Every field's first season runs under the physics, with nodes that sum their statistics under the shipped backbone.
The fields of one climate and seed are a farm, their sums a site's, and :class:`server.gate.Gate` decides on a head as
it would in a round, shrinkage, leave-one-site-out and refusal included. The second season, on the same nodes with the
records they carry over, shows what the head is worth.

:data:`SCHEMES` names the ways to a head for each field; one that makes personal heads belongs there, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TypeAlias

from nodes.field.fields import FieldYear
from server.config import GateSection
from server.gate import Evidence, Gate
from server.strategy import total_of
from shared_models.factory import factory_image
from shared_models.moments import UPTAKE, Snapshot, Sums
from shared_models.network import ModelImage, head_weights, quantise_head

HeadsAfter: TypeAlias = Callable[[Mapping[FieldYear, Snapshot]], Mapping[str, ModelImage]]
"""From all fields' statistics of a season to the model that each field carries in the next, by :func:`identity`."""


def identity(field: FieldYear) -> str:
    """A field in any of its years."""
    return f"{field.seed}/{field.name}"


def site_of(field: FieldYear) -> str:
    """The farm a field belongs to: the fields of one climate and seed."""
    return f"{field.seed}/{field.climate}"


@cache
def statistics_image() -> ModelImage:
    """The shipped model, but the physics decides: its uptake row, the one that moves water, is zero.

    The backbone is the shipped one, so that a head solved from these sums fits the shipped model.
    """
    image = factory_image()
    weights = head_weights(image)
    weights[UPTAKE] = 0.0
    return quantise_head(image, weights)


def round_of(season: Mapping[FieldYear, Snapshot]) -> tuple[ModelImage, Evidence]:
    """What a round would release after these statistics (the shipped model where it refuses), and why."""
    sites: dict[str, list[Sums]] = {}
    for field, snapshot in season.items():
        sites.setdefault(site_of(field), []).append(snapshot)
    section = GateSection()
    gate = Gate(section.tolerance, section.minimum_gain)
    image, evidence = gate.judge(factory_image(), {site: total_of(parts) for site, parts in sites.items()})
    return image or factory_image(), evidence


def everyone(season: Mapping[FieldYear, Snapshot]) -> Mapping[str, ModelImage]:
    """One head for all, from all; farms that the gate holds back keep the shipped one."""
    image, evidence = round_of(season)
    return {identity(field): factory_image() if site_of(field) in evidence.held_back else image for field in season}


def other_climates(season: Mapping[FieldYear, Snapshot]) -> Mapping[str, ModelImage]:
    """For each climate a head from the farms of all the others: what travels to a climate nobody has measured."""
    images: dict[str, ModelImage] = {}
    for climate in {field.climate for field in season}:
        elsewhere = {field: snapshot for field, snapshot in season.items() if field.climate != climate}
        image = round_of(elsewhere)[0] if elsewhere else factory_image()
        images |= {identity(field): image for field in season if field.climate == climate}
    return images


SCHEMES: Mapping[str, HeadsAfter] = {"node, fleet's head": everyone, "node, other climates' head": other_climates}
"""By the name of the arm that carries them in the second season."""
