"""Changes of the keys that nodes trust, as releases that campaigns carry.

Nodes trust two keys: the release key, which the server signs with, and a recovery key kept offline. A change is signed
by the release key (to hand over to its successor) or by the recovery key (to shut out a stolen release key, or to
replace itself); nodes check who may do what (``core/container.c``). The signature of the recovery key is made where
that key is: ``noria server key change --sign-with`` reads its file for the moment.
"""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass
from typing import Any

import monocypher

from server import releases, store
from server.releases import Signed, SignedArtefact
from server.signing import Signer
from shared_models import container
from shared_models.container import RECOVERY_KEY, RELEASE_KEY, KeyChange
from shared_models.settings import KEY_SIZE, NO_KEY

ORIGIN = "keys"
PLACES = {"release": RELEASE_KEY, "recovery": RECOVERY_KEY}


class KeyChangeError(ValueError):
    """A change that must not be made; the text says why."""


@dataclass(frozen=True)
class SignedChange:
    """A change that is signed and as yet no release."""

    signed: Signed
    public_key: bytes
    """Of the key that signed it."""

    @property
    def data(self) -> bytes:
        """Its container."""
        return self.signed.artefacts[0].data


def signed_change(signer: Signer, place: str, new_key: bytes, version: int) -> bytes:
    """The container that changes a key.

    Raises:
        KeyChangeError: no such place, or not a key that could be trusted there.
    """
    if place not in PLACES:
        raise KeyChangeError(f"{place}: a node trusts a release key and a recovery key")
    if len(new_key) != KEY_SIZE:
        raise KeyChangeError(f"a public key has {KEY_SIZE} bytes, not {len(new_key)}")
    if new_key == signer.public and PLACES[place] == RELEASE_KEY:
        raise KeyChangeError("the new release key is the one that signs the change")
    return signer.sign(container.build_keys(KeyChange(PLACES[place], new_key), version))


async def sign_here(connection: sqlite3.Connection, signer: Signer, place: str, new_key: bytes) -> SignedChange:
    """Sign a change with the server's own key, as the next release.

    Raises:
        KeyChangeError: see :func:`signed_change`.
        SigningError: there is no signature to be had.
    """
    if place == "recovery" and new_key == NO_KEY:
        raise KeyChangeError("nodes let only the recovery key remove itself: noria server key sign")
    version = releases.next_version(connection)
    data = await asyncio.to_thread(signed_change, signer, place, new_key, version)
    return _of(data, version, signer, signer.public)


def signed_elsewhere(connection: sqlite3.Connection, signer: Signer, data: bytes, public_key: bytes) -> SignedChange:
    """Take over a change that was signed where its key is.

    Args:
        connection: The server's store.
        signer: The server's own.
        data: The container.
        public_key: Of the key that signed it.

    Raises:
        KeyChangeError: not a change of keys, of another version than the next, or not by this key.
    """
    try:
        entry = container.read_container(data)
    except container.ContainerError as error:
        raise KeyChangeError(f"not a container: {error}") from error
    if entry.kind is not container.ContainerKind.KEYS or len(entry.payload) != container.KEYS_PAYLOAD_SIZE:
        raise KeyChangeError("this container holds no change of keys")
    if entry.version != (version := releases.next_version(connection)):
        raise KeyChangeError(f"it was signed as version {entry.version}; the next is {version}")
    if not monocypher.signature_check(data[-container.SIGNATURE_SIZE :], public_key, data[: -container.SIGNATURE_SIZE]):
        raise KeyChangeError(f"it is not signed by {public_key.hex()}")
    return _of(data, version, signer, public_key)


def _of(data: bytes, version: int, signer: Signer, public_key: bytes) -> SignedChange:
    return SignedChange(Signed(version, signer.key_id, [SignedArtefact("keys", 0, "", data)]), public_key)


def keep(connection: sqlite3.Connection, change: SignedChange, now_s: int, actor: str) -> dict[str, Any]:
    """Release a signed change, for campaigns to bring to nodes.

    Raises:
        ReleaseError: another release came in between.
    """
    payload = container.read_container(change.data).payload
    place = next(name for name, number in PLACES.items() if number == payload[0])
    new_key = "none" if payload[1:] == NO_KEY else payload[1:].hex()
    with store.transaction(connection):
        release = releases.register_variant(
            connection,
            change.signed,
            ORIGIN,
            releases.find(connection, "latest"),
            now_s,
            provenance={"place": place, "new_key": new_key, "signed_by": change.public_key.hex()},
            evidence={},
        )
        detail = f"the {place} key becomes {new_key}, signed by {change.public_key.hex()}"
        store.audit(connection, now_s, actor, "release.created", f"release {release.version}", detail=detail)
    return {"version": release.version, "place": place, "message": f"release {release.version}: {detail}"}
