"""The sums of many sites side by side, for arithmetic over all of them at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from shared_models.moments import TARGET_CLASS, Sums
from shared_models.ridge import Weights

Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Panel:
    """Sites in the order of their names; a site may be one farm or a cohort of farms that answers as one."""

    names: tuple[str, ...]
    gram: Integers
    """(n, 3, 9, 9)."""
    moment: Integers
    """(n, 4, 9)."""
    energy: Integers
    """(n, 4)."""
    count: Integers
    """(n, 3)."""

    @classmethod
    def of(cls, sums: Mapping[str, Sums]) -> Self:
        """From the sums of each site."""
        names = tuple(sorted(sums))
        zero = Sums.zero()
        parts = {
            field: np.stack([getattr(sums[name], field) for name in names])
            if names
            else np.zeros((0, *getattr(zero, field).shape), np.int64)
            for field in ("gram", "moment", "energy", "count")
        }
        return cls(names, **parts)

    def __len__(self) -> int:
        return len(self.names)

    def where(self, chosen: Mask) -> Panel:
        """The chosen sites."""
        names = tuple(name for name, kept in zip(self.names, chosen, strict=True) if kept)
        return Panel(names, self.gram[chosen], self.moment[chosen], self.energy[chosen], self.count[chosen])

    def total(self, chosen: Mask | None = None) -> Sums:
        """The exact sum of all sites, or of the chosen."""
        part = self if chosen is None else self.where(chosen)
        return Sums(part.gram.sum(axis=0), part.moment.sum(axis=0), part.energy.sum(axis=0), part.count.sum(axis=0))

    def windows(self, target: int) -> Integers:
        """Per site, (n,)."""
        return self.count[:, TARGET_CLASS[target]]

    def error(self, target: int, heads: Weights) -> Weights:
        """Squared errors of heads (…, 9) at every site, (…, n)."""
        gram = self.gram[:, TARGET_CLASS[target]].astype(np.float64)
        moment = self.moment[:, target].astype(np.float64)
        # wᵀAw as one matrix product: outer products of heads against flattened Gram matrices.
        squares = heads[..., :, None] * heads[..., None, :]
        curved = squares.reshape(*heads.shape[:-1], -1) @ gram.reshape(len(self), -1).T
        errors: Weights = self.energy[:, target] - 2.0 * (heads @ moment.T) + curved
        return errors

    def own_error(self, target: int, heads: Weights) -> Weights:
        """Squared error at each site of its own head, (n,), from heads (n, 9)."""
        gram = self.gram[:, TARGET_CLASS[target]].astype(np.float64)
        moment = self.moment[:, target].astype(np.float64)
        errors: Weights = (
            self.energy[:, target]
            - 2.0 * np.einsum("ni,ni->n", heads, moment)
            + np.einsum("ni,nij,nj->n", heads, gram, heads)
        )
        return errors

    def capped(self, multiple: float) -> Panel:
        """Every site's windows counted at most as ``multiple`` times the median site's; integers still.

        A site above that is scaled down as a whole, so that its averages stay what they are.
        """
        windows = self.count[:, 0].astype(np.float64)
        telling = windows[windows > 0]
        if not len(telling):
            return self
        most = multiple * float(np.median(telling))
        if windows.max() <= most:
            return self
        factor = np.minimum(1.0, most / np.maximum(windows, 1.0))

        def scaled(values: Integers) -> Integers:
            return np.rint(values * factor.reshape(-1, *[1] * (values.ndim - 1))).astype(np.int64)

        return Panel(self.names, scaled(self.gram), scaled(self.moment), scaled(self.energy), scaled(self.count))
