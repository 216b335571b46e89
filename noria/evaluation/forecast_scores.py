"""Forecast errors against the node's free dry-rate average, with an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from noria.evaluation.forecast_windows import Bool, Int64, Windows

RESAMPLES = 1000
HORIZONS_H = (24, 48, 72)


@dataclass(frozen=True, slots=True)
class Score:
    """Errors of a forecast, % of soil volume, and their ratio to the average's."""

    windows: int
    rmse: float
    mae: float
    average_rmse: float
    average_mae: float
    ratio: float
    """Of the root mean squared errors; below 1 the forecast is better than the average."""
    low: float
    """95 % interval of the ratio, resampling whole blocks."""
    high: float
    ratio_mae: float
    deployed: float
    """Share of the windows forecast by a head; elsewhere the average was."""


def score(windows: Windows, forecast_e4: Int64, blocks: Int64, deployed: Bool | None = None) -> Score | None:
    """Score a forecast.

    Args:
        windows: Of one length or several.
        forecast_e4: A change per window, 1e-4 m³/m³.
        blocks: Which windows stand or fall together: a week, or a field.
        deployed: Which windows a head forecast; all when None.

    Returns:
        None where there is nothing to score, or the average never erred.
    """
    if not len(windows):
        return None
    error = np.abs(forecast_e4 - windows.observed_e4).astype(np.float64)
    baseline = np.abs(windows.average_e4() - windows.observed_e4).astype(np.float64)
    if not baseline.any():
        return None
    low, high = _interval(error**2, baseline**2, blocks)
    return Score(
        windows=len(windows),
        rmse=_percent(np.sqrt(np.mean(error**2))),
        mae=_percent(np.mean(error)),
        average_rmse=_percent(np.sqrt(np.mean(baseline**2))),
        average_mae=_percent(np.mean(baseline)),
        ratio=float(np.sqrt(np.sum(error**2) / np.sum(baseline**2))),
        low=low,
        high=high,
        ratio_mae=float(np.sum(error) / np.sum(baseline)),
        deployed=1.0 if deployed is None else float(np.mean(deployed)),
    )


def by_horizon(
    windows: Windows, forecasts_e4: Mapping[str, Int64], blocks: Int64, deployed: Mapping[str, Bool]
) -> dict[str, dict[str, Score | None]]:
    """Every forecast's score per horizon: forecast → hours → score."""
    scores: dict[str, dict[str, Score | None]] = {}
    for name, forecast_e4 in forecasts_e4.items():
        scores[name] = {}
        for length, hours in enumerate(HORIZONS_H, 1):
            chosen = windows.days == length
            shares = deployed[name][chosen] if name in deployed else None
            scores[name][str(hours)] = score(windows.where(chosen), forecast_e4[chosen], blocks[chosen], shares)
    return scores


def _percent(value: np.floating) -> float:
    return float(value) / 100


def _interval(error: npt.NDArray[np.float64], baseline: npt.NDArray[np.float64], blocks: Int64) -> tuple[float, float]:
    """Percentile bootstrap of the ratio over blocks."""
    _, place = np.unique(blocks, return_inverse=True)
    number = int(place.max()) + 1
    totals = np.stack([np.bincount(place, error, number), np.bincount(place, baseline, number)])
    draws = np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), RESAMPLES)
    heads, averages = totals @ draws.T
    ratios = np.sqrt(heads[averages > 0] / averages[averages > 0])
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)
