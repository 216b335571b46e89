"""Where a node would send a head's forecasts: its own gate, with the record that its season gives a new head."""

from __future__ import annotations

import numpy as np

from noria.evaluation.forecast_windows import Bool, Int64, Windows
from shared_models import windows as node
from shared_models.moments import CLASSES, PHI, Sums
from shared_models.network import ModelImage
from shared_models.state import State


def deployed(windows: Windows, forecast_e4: Int64, image: ModelImage, season: Sums, state: State | None = None) -> Bool:
    """Where the node, had it taken the head on before the first of these windows, would have sent the head's forecast.

    Args:
        windows: One node's, by start.
        forecast_e4: What the head says of them.
        image: The model with that head.
        season: What the node had summed of its season when it took the head on.
        state: Holds the record of the head before, and afterwards of this one.
    """
    state = state or State()
    state.gram = season.gram[:, *np.triu_indices(PHI)].ravel().tolist()
    state.moment, state.energy = season.moment.ravel().tolist(), season.energy.tolist()
    state.count = season.count.tolist()
    node.credit(state, image)
    said = forecast_e4 // windows.days + windows.rate_e4
    sent = np.zeros(len(windows), np.bool_)
    for k in range(CLASSES):
        rows = np.flatnonzero(windows.days == k + 1)
        record = rows[windows.learned[rows]]
        better = [node.forecasts_better(state, k)]
        for row in record:
            state.start_forecast[k * CLASSES + k] = int(said[row])
            node.score_forecast(state, k, int(windows.label[row]))
            better.append(node.forecasts_better(state, k))
        ended = np.searchsorted(windows.start[record] + k + 1, windows.start[rows], side="right")
        sent[rows] = np.array(better)[ended]
    return sent
