"""The firmware's budget on both boards: flash, RAM, stack, cycles."""

from __future__ import annotations

from typing import Any

from nodes import budget


def measure() -> dict[str, Any]:
    """Every figure with what it must be and what we would like it to be."""
    return {"figures": [figure.as_json() for figure in budget.measure()]}
