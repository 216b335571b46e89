"""Which head would have forecast what: the shipped one, and heads learned from statistics known by then.

The arithmetic is the server's (:mod:`server.solver`): the fleet's head is a ridge toward the shipped one whose
strength and subspace are chosen by leaving a site out; a node's own head is a ridge toward the fleet's that weighs as
much as :data:`PERSONAL` says. Every head is quantised as a node runs it. Nothing is learned from a window before it
has ended.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from noria.evaluation.forecast_gate import deployed
from noria.evaluation.forecast_windows import FIRST_DRYING_TARGET, Bool, Int64, Windows, with_rows
from server.solver import choose
from server.strategy import total_of
from shared_models.moments import TARGETS, Sums
from shared_models.network import ModelImage, head_weights
from shared_models.ridge import Choice, Subspace, Weights, solve
from shared_models.state import State

PERSONAL = Choice(Subspace.FULL, 100.0)
"""The fleet's head weighs as much as a season of a node's own windows."""
REFIT_DAYS = 28
"""Days between rounds."""
DRYING_TARGETS = range(FIRST_DRYING_TARGET, TARGETS)


def shipped_rows(image: ModelImage) -> list[Weights]:
    """The dry-down rows (9,) of the image's own head."""
    return list(head_weights(image)[FIRST_DRYING_TARGET:])


def fleet_rows(sites: Sequence[Sums], prior: Sequence[Weights]) -> list[Weights]:
    """Rows that the statistics of several sites confirm; the prior's where they do not."""
    rows = []
    for target, row in zip(DRYING_TARGETS, prior, strict=True):
        telling = [site for site in sites if site.windows(target)]
        choice = choose(telling, target, row)
        rows.append(solve(total_of(telling), target, row, choice) if choice else row)
    return rows


def personal_rows(own: Sums, prior: Sequence[Weights]) -> list[Weights]:
    """Rows moved from the prior toward what one node's own statistics say."""
    return [
        solve(own, target, row, PERSONAL) if own.windows(target) else row
        for target, row in zip(DRYING_TARGETS, prior, strict=True)
    ]


def walk_forward(windows: Windows, others: Sequence[Windows], image: ModelImage) -> tuple[dict[str, Int64], Bool]:
    """Forecasts of heads learned anew every four weeks from all windows that had ended by then.

    Args:
        windows: The node's.
        others: Of the fleet's other nodes; their calendar counts too.
        image: The shipped model.

    Returns:
        Changes per window, 1e-4 m³/m³, by head: ``own``, ``fleet`` (the others alone), ``fleet and own``; and where the
        node would have sent those of ``fleet and own``.
    """
    prior = shipped_rows(image)
    forecasts = {name: np.zeros(len(windows), np.int64) for name in ("own", "fleet", "fleet and own")}
    sent, record = np.zeros(len(windows), np.bool_), State()
    if not len(windows):
        return forecasts, sent
    for today in range(int(windows.start.min()), int(windows.start.max()) + 1, REFIT_DAYS):
        coming = (windows.start >= today) & (windows.start < today + REFIT_DAYS)
        if not coming.any():
            continue
        known, part = _known(windows, today), windows.where(coming)
        own = known.sums()
        fleet = fleet_rows([_known(other, today).sums() for other in others], prior)
        heads = {"own": personal_rows(own, prior), "fleet": fleet, "fleet and own": personal_rows(own, fleet)}
        models = {name: with_rows(image, rows) for name, rows in heads.items()}
        for name, model in models.items():
            forecasts[name][coming] = part.forecast_e4(model)
        season = known.where(known.season == part.season[0]).sums()
        sent[coming] = deployed(part, forecasts["fleet and own"][coming], models["fleet and own"], season, record)
    return forecasts, sent


def _known(windows: Windows, today: int) -> Windows:
    """What a round at the dawn of ``today`` can learn from."""
    return windows.where(windows.learned & (windows.start + windows.days <= today))
