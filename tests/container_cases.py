"""One container of every kind, and the node they are for."""

from __future__ import annotations

from model_cases import improved, key_pair, model
from update_cases import UPDATE_KEY

from shared_models.codes import Board, Refusal
from shared_models.container import (
    RECOVERY_KEY,
    RELEASE_KEY,
    ContainerError,
    KeyChange,
    Receiver,
    authenticate,
    build_delta,
    build_full,
    build_head,
    build_keys,
    build_personal,
    open_container,
    sign,
)

SECRET, PUBLIC = key_pair(1)
RECOVERY_SECRET, RECOVERY_PUBLIC = key_pair(2)
NEW_SECRET, NEW_PUBLIC = key_pair(3)
THIEF_SECRET, THIEF_PUBLIC = key_pair(4)
NO_KEY = bytes(32)
DEV_EUI = "70b3d57ed0000001"

RECEIVER = Receiver(
    board=Board.STM32L072,
    public_keys=(PUBLIC, RECOVERY_PUBLIC),
    running_version=1,
    running_image=model(),
    dev_eui=DEV_EUI,
    update_key=UPDATE_KEY,
)
NEW_KEY = KeyChange(RELEASE_KEY, NEW_PUBLIC)
CONTAINERS = {
    "full": sign(build_full(improved(), 2), SECRET),
    "head": sign(build_head(improved(), 2), SECRET),
    "delta": sign(build_delta(improved(), model(), 2), SECRET),
    "personal": authenticate(build_personal(improved(), model(), 2), UPDATE_KEY, DEV_EUI),
    "keys": sign(build_keys(NEW_KEY, 2), SECRET),
}
MODELS = {kind: data for kind, data in CONTAINERS.items() if kind != "keys"}
"""Those that bring a model."""

__all__ = ["RECOVERY_KEY", "RELEASE_KEY"]


def refusal(data: bytes, receiver: Receiver = RECEIVER) -> Refusal:
    """What the node says to it."""
    try:
        open_container(data, receiver)
    except ContainerError as error:
        return error.refusal
    return Refusal.NONE
