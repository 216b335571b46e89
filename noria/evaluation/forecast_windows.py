"""What a node forecast and what its probes said later, window by window.

A node is watched at its dawns (:class:`Dawns`); a window of 24, 48 or 72 h joins two of them. The dry-down forecast is
linear in the network's activations, so one life of a node tells what *any* head would have forecast in it:
(steps − rate) · days, as in ``shared_models.reference``. What changes the node's own life (the uptake head) is the
image's that it ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shared_models.balance import CALM_RISE_E4
from shared_models.codes import Mode
from shared_models.fixed import NO_VALUE, clamp, quotient
from shared_models.moments import CLASSES, PHI, TARGET_LIMITS, TARGETS, Sums
from shared_models.network import ModelImage, head_weights, quantise_head
from shared_models.reference import Outcome
from shared_models.state import DAWNS, State
from shared_models.windows import forecasts_better

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

FIRST_DRYING_TARGET = 1
"""Row of the sums for 24 h; 48 and 72 h follow."""


class Dawn(NamedTuple):
    """A node at one dawn, after its wake."""

    day: int
    season: int
    phi: tuple[int, ...]
    """Activations above zero, and 1."""
    rate_e4: int
    """Its free dry-rate average, 1e-4 per day."""
    mean_e4: int
    """Mean of both probes, or NO_VALUE."""
    node_e4: tuple[int, ...]
    """Its forecasts for 24, 48 and 72 h as it sent them."""
    calm: tuple[int, ...]
    """Whether the node takes the last 1, 2, 3 days, newest first, for undisturbed dry-downs."""
    known: bool
    """Whether a window that starts here counts in the sums."""
    dried: bool
    """No probe rose since the dawn before: what there is of ``calm`` without an anchor and ET."""
    model: tuple[bool, ...]
    """Whether the node's forecasts for 24, 48 and 72 h were its head's."""


class Dawns:
    """Watches a node; hand :meth:`watch` every outcome's state at dawn."""

    def __init__(self, image: ModelImage) -> None:
        self._zero = image.second.output_zero
        self.seen: list[Dawn] = []

    def watch(self, state: State, outcome: Outcome) -> None:
        """Note a dawn; other wakes tell nothing new."""
        if not outcome.dawn:
            return
        shallow, deep = state.dawn_e4[:2], state.dawn_e4[DAWNS : DAWNS + 2]
        both = NO_VALUE not in (shallow[0], deep[0])
        rises = (shallow[0] - shallow[1], deep[0] - deep[1])
        followed = both and NO_VALUE not in (shallow[1], deep[1])
        self.seen.append(
            Dawn(
                day=state.day,
                season=state.season,
                phi=(*(value - self._zero for value in state.activations), 1),
                rate_e4=(state.dry_rate_q4 + 8) >> 4,
                mean_e4=(shallow[0] + deep[0]) >> 1 if both else NO_VALUE,
                node_e4=tuple(outcome.forecast_e4),
                calm=tuple(state.calm),
                known=bool(state.start_known[0]),
                dried=followed and max(rises) <= CALM_RISE_E4,
                model=tuple(state.mode == Mode.MODEL and forecasts_better(state, k) for k in range(CLASSES)),
            )
        )


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of a node, by start; equally long columns."""

    days: Int64
    """1, 2 or 3."""
    start: Int64
    """Day number of the first dawn."""
    season: Int64
    phi: Int64
    """(n, 9) at the first dawn."""
    rate_e4: Int64
    observed_e4: Int64
    """Change of the probes' mean over the window."""
    trend_e4: Int64
    """What the change of the day before, continued, says."""
    node_e4: Int64
    """What the node said, its trust included."""
    label: Int64
    """The residual the node would sum, in head steps."""
    gated: Bool
    """The node's own dry-down windows."""
    learned: Bool
    """Those of them that it sums."""
    dried: Bool
    """No rise of a probe on any of the days, with or without anchor and ET."""
    model: Bool
    """Whether the node's forecast was its head's."""

    def __len__(self) -> int:
        return len(self.days)

    def where(self, chosen: Bool) -> Windows:
        """Some of the windows."""
        return Windows(*(getattr(self, item.name)[chosen] for item in fields(self)))

    @staticmethod
    def join(parts: Sequence[Windows]) -> Windows:
        """All windows of the parts, in order."""
        if not parts:
            return windows_of([])
        return Windows(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Windows)))

    def average_e4(self) -> Int64:
        """The forecast of the zero head: the node's free dry-rate average."""
        return -self.rate_e4 * self.days

    def forecast_e4(self, image: ModelImage) -> Int64:
        """The forecast of a head as a node computes it, whether trusted or not."""
        activations = (self.phi[:, :-1] + image.second.output_zero).astype(np.int8)
        steps = image.head.forward(activations, -128)[:, FIRST_DRYING_TARGET:]
        chosen = np.take_along_axis(steps, self.days[:, None] - 1, axis=1)[:, 0].astype(np.int64)
        return (chosen - self.rate_e4) * self.days

    def sums(self) -> Sums:
        """What the node would have summed of the dry-down targets; the uptake target stays empty."""
        total = Sums.zero()
        for length in range(1, CLASSES + 1):
            chosen = self.learned & (self.days == length)
            phi, label = self.phi[chosen], self.label[chosen]
            target = FIRST_DRYING_TARGET + length - 1
            total.gram[length - 1] = phi.T @ phi
            total.moment[target] = phi.T @ label
            total.energy[target] = label @ label
            total.count[length - 1] = len(label)
        return total


def windows_of(dawns: Sequence[Dawn]) -> Windows:
    """Every window between dawns of one season, one to three whole days apart."""
    rows: list[tuple[int, ...]] = []
    phis: list[tuple[int, ...]] = []
    for end, last in enumerate(dawns):
        for length in range(1, CLASSES + 1):
            if end < length:
                break
            first = dawns[end - length]
            if last.day - first.day != length or last.season != first.season:
                break
            if NO_VALUE in (first.mean_e4, last.mean_e4):
                continue
            change = last.mean_e4 - first.mean_e4
            before = dawns[end - length - 1] if end > length else None
            steady = before is not None and first.day - before.day == 1 and before.mean_e4 != NO_VALUE
            gated = all(last.calm[:length])
            phis.append(first.phi)
            rows.append(
                (
                    length,
                    first.day,
                    first.season,
                    first.rate_e4,
                    change,
                    (first.mean_e4 - before.mean_e4) * length if before is not None and steady else 0,
                    first.node_e4[length - 1],
                    clamp(quotient(change, length) + first.rate_e4, -TARGET_LIMITS[length], TARGET_LIMITS[length]),
                    gated,
                    gated and first.known,
                    all(dawn.dried for dawn in dawns[end - length + 1 : end + 1]),
                    first.model[length - 1],
                )
            )
    table = np.array(rows, np.int64).reshape(len(rows), 12)
    order = np.lexsort((table[:, 0], table[:, 1]))
    table = table[order]
    numbers, flags = table[:, :8].T, table[:, 8:].T.astype(bool)
    days, start, season, rate, observed, trend, node, label = numbers
    gated, learned, dried, model = flags
    phi = np.array(phis, np.int64).reshape(len(rows), PHI)[order]
    return Windows(days, start, season, phi, rate, observed, trend, node, label, gated, learned, dried, model)


def with_rows(image: ModelImage, rows: Sequence[npt.NDArray[np.float64]]) -> ModelImage:
    """``image`` with other weights (9,) for the three dry-down targets, quantised as a node runs it."""
    weights = head_weights(image)
    weights[FIRST_DRYING_TARGET:TARGETS] = np.stack(list(rows))
    return quantise_head(image, weights)
