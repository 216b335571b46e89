"""The factory model every node carries from the beginning, and the card that says what it is worth."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from shared_models.network import ModelImage

FACTORY_VERSION = 1
MODEL_FILE = "model-1.bin"
CARD_FILE = "model-1.json"


@cache
def factory_image() -> ModelImage:
    """Release 1, unpacked and checked.

    Raises:
        ModelError: the packaged file is not a usable model.
    """
    return ModelImage.unpack((files(__name__) / MODEL_FILE).read_bytes())


def factory_card() -> dict[str, Any]:
    """Its card: how it was made, what it was measured to do, and the population's Gram matrices."""
    card: dict[str, Any] = json.loads((files(__name__) / CARD_FILE).read_text(encoding="utf-8"))
    return card
