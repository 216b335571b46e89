"""Releases that an operator asks for: farms' own heads, and changes of keys (rows of ``commands``)."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from server import farm_heads, key_changes
from server.farm_heads import FarmHeadsError, Heads
from server.key_changes import KeyChangeError, SignedChange
from server.releases import ReleaseError
from server.secret_files import KeyFileError
from server.signing import Signer, SigningError
from server.update_keys import UpdateKeys
from shared_models.configuration import explain

if TYPE_CHECKING:
    from server.config import ServerSettings

FARM_HEADS = "release.farm_heads"
KEYS = "release.keys"
ACTIONS = (FARM_HEADS, KEYS)

PublicKey = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class MakingError(ValueError):
    """Nothing was made; the text says why."""


class KeysWish(BaseModel):
    """A change of keys: one to be signed here, or one that was signed where its key is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: Literal["release", "recovery"] | None = None
    new_key: PublicKey | None = None
    container: Annotated[str, Field(pattern=r"^([0-9a-f]{2}){16,600}$")] | None = None
    signed_by: PublicKey | None = None

    @model_validator(mode="after")
    def _one_or_the_other(self) -> KeysWish:
        ours, theirs = (self.place, self.new_key), (self.container, self.signed_by)
        if not (all(ours) and not any(theirs)) and not (all(theirs) and not any(ours)):
            raise ValueError("give place and new_key, or container and signed_by")
        return self


Made = Heads | SignedChange
"""What is signed and waits to be stored."""


async def prepare(
    connection: sqlite3.Connection,
    settings: ServerSettings,
    signer: Signer,
    action: str,
    arguments: dict[str, Any],
) -> Made:
    """Make and sign what is asked for; the store is only read.

    Raises:
        MakingError: nothing was made.
    """
    with _in_words():
        if action == FARM_HEADS:
            if arguments:
                raise MakingError("the arguments must be {}")
            keys = UpdateKeys.load(settings.update_keys_path)
            return await farm_heads.prepare(connection, signer, keys, settings.gate.tolerance)
        wish = KeysWish.model_validate(arguments)
        if wish.container is not None and wish.signed_by is not None:
            data, public_key = bytes.fromhex(wish.container), bytes.fromhex(wish.signed_by)
            return key_changes.signed_elsewhere(connection, signer, data, public_key)
        return await key_changes.sign_here(connection, signer, str(wish.place), bytes.fromhex(wish.new_key or ""))


def keep(connection: sqlite3.Connection, made: Made, actor: str, now_s: int) -> dict[str, Any]:
    """Release it.

    Raises:
        MakingError: what it was made for has changed meanwhile; nothing is released.
    """
    with _in_words():
        if isinstance(made, Heads):
            return farm_heads.keep(connection, made, now_s, actor)
        return key_changes.keep(connection, made, now_s, actor)


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise MakingError(explain(error)) from error
    except (FarmHeadsError, KeyChangeError, KeyFileError, ReleaseError, SigningError) as error:
        raise MakingError(str(error)) from error
