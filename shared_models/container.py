"""The containers that updates travel in: header, recompressed payload, and proof of who made them.

Signed containers (full, head, delta, keys) end in a signature over all before it: Monocypher's EdDSA (Curve25519 with
BLAKE2b), by a key the node trusts. A personal head is for one node and must fit the smallest frame: it ends in a MAC
instead (BLAKE2b under the node's own update key), which also covers who the node is and what it runs.

A node checks in this order, and refuses at the first that fails: length, format, target, version, base, proof,
decoding, form of the model, model id. The model id covers the self-test, which the node computes itself: an engine
that computes otherwise than the maker's restores another model. :func:`open_container` and ``core/container.c`` do the
same, refusal by refusal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import cast

from shared_models import model_coding, network
from shared_models.codes import Board, Refusal
from shared_models.layout import Field, Layout, LayoutError, c_constants, c_enumeration
from shared_models.network import ModelError, ModelImage
from shared_models.recompression import RecompressionError
from shared_models.settings import KEY_COUNT, KEY_SIZE, NO_KEY, NO_UPDATE_KEY, UPDATE_KEY_SIZE

CONTAINER_FORMAT = 2
SIGNATURE_SIZE = 64
TAG_SIZE = 8
"""A guess is worth 2⁻⁶⁴, and a node takes a few a day."""
PAYLOAD_LIMIT = 1024
ALL_BOARDS = frozenset(Board)
RELEASE_KEY, RECOVERY_KEY = range(KEY_COUNT)
"""The two trusted keys. The first signs releases; the second, kept offline, may replace either."""


class ContainerKind(IntEnum):
    """What a container holds."""

    FULL = 1
    """A whole model."""
    HEAD = 2
    """A head, for one backbone."""
    DELTA = 3
    """A whole model as a change of another."""
    PERSONAL = 4
    """A head for one node alone."""
    KEYS = 5
    """A change of the keys that the node trusts."""


HEADER_LAYOUT = Layout(
    "container_header",
    [
        Field("format_kind", "u8", "2 in the upper four bits; container.ContainerKind in the lower"),
        Field("board_mask", "u8", "bit (codes.Board - 1) per target"),
        Field("key_id", "u8", "first byte of BLAKE2b-256 of the public key that signs"),
        Field("version", "u32", "monotonic, of models; of a change of keys, monotonic among these"),
        Field("base_id", "u32", "HEAD: backbone id; DELTA: model id of the base; else 0"),
        Field("model_id", "u32", "identity of the resulting model image; KEYS: of the new key"),
    ],
)
PERSONAL_LAYOUT = Layout(
    "personal_header",
    [
        Field("format_kind", "u8", "as above, PERSONAL"),
        Field("base", "u8", "lowest byte of the model id of the base, which runs"),
        Field("version", "u16", "monotonic, in the same sequence"),
        Field("model_id", "u32", "identity of the resulting model image"),
    ],
)
HEADER_SIZE, PERSONAL_HEADER_SIZE = HEADER_LAYOUT.size, PERSONAL_LAYOUT.size
CONTAINER_LIMIT = HEADER_SIZE + PAYLOAD_LIMIT + SIGNATURE_SIZE
KEYS_PAYLOAD_SIZE = 1 + KEY_SIZE


class ContainerError(ValueError):
    """A container that a node would refuse, and with which code."""

    def __init__(self, refusal: Refusal, text: str) -> None:
        super().__init__(f"{refusal.name.lower()}: {text}")
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Container:
    """A container without its proof, as built or as read."""

    kind: ContainerKind
    board_mask: int
    """0 for a personal head: its proof names the node."""
    key_id: int
    """0 until signed, and for a personal head."""
    version: int
    base_id: int
    """Of a personal head that was read only the lowest byte is known."""
    model_id: int
    payload: bytes

    def proven_bytes(self) -> bytes:
        """Header and payload.

        Raises:
            ContainerError: a field is outside its range.
        """
        if len(self.payload) > PAYLOAD_LIMIT:
            raise ContainerError(Refusal.LENGTH, f"a payload of {len(self.payload)} bytes")
        values = {
            "format_kind": CONTAINER_FORMAT << 4 | self.kind,
            "board_mask": self.board_mask,
            "key_id": self.key_id,
            "version": self.version,
            "base_id": self.base_id,
            "base": self.base_id & 0xFF,
            "model_id": self.model_id,
        }
        layout = PERSONAL_LAYOUT if self.kind is ContainerKind.PERSONAL else HEADER_LAYOUT
        try:
            return layout.pack({field.name: values[field.name] for field in layout.fields}) + self.payload
        except LayoutError as error:
            raise ContainerError(Refusal.FORMAT, str(error)) from error


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What a KEYS container asks for."""

    place: int
    """:data:`RELEASE_KEY` or :data:`RECOVERY_KEY`."""
    key: bytes
    """The key to trust there from now on; all zero trusts none."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """What decides on a node whether a container is taken."""

    board: Board
    public_keys: Sequence[bytes]
    """Trusted keys, :data:`RELEASE_KEY` first; an all-zero key is none."""
    running_version: int = 0
    """The highest version that ever ran."""
    running_image: ModelImage | None = None
    keys_version: int = 0
    """Of the last change of keys."""
    dev_eui: str = "0" * 16
    update_key: bytes = NO_UPDATE_KEY
    """Proves personal heads; all zero takes none."""


def build_full(image: ModelImage, version: int, boards: Iterable[Board] = ALL_BOARDS) -> Container:
    """A container with the whole model."""
    payload = model_coding.encode_model(image)
    return Container(ContainerKind.FULL, _mask(boards), 0, version, 0, image.model_id, payload)


def build_head(image: ModelImage, version: int, boards: Iterable[Board] = ALL_BOARDS) -> Container:
    """A container with the head alone, for nodes that run the same backbone."""
    payload = model_coding.encode_head(image)
    return Container(ContainerKind.HEAD, _mask(boards), 0, version, image.backbone_id, image.model_id, payload)


def build_delta(image: ModelImage, base: ModelImage, version: int, boards: Iterable[Board] = ALL_BOARDS) -> Container:
    """A container with what changes of ``base``, for nodes that run exactly it.

    Raises:
        ContainerError: the base has another quantisation grid.
    """
    try:
        payload = model_coding.encode_model(image, base)
    except RecompressionError as error:
        raise ContainerError(Refusal.BASE, str(error)) from error
    return Container(ContainerKind.DELTA, _mask(boards), 0, version, base.model_id, image.model_id, payload)


def build_personal(image: ModelImage, base: ModelImage, version: int) -> Container:
    """A container with a head for one node, which runs exactly ``base``; see :func:`authenticate`.

    Raises:
        ContainerError: the base has another backbone.
    """
    if image.backbone_id != base.backbone_id:
        raise ContainerError(Refusal.BASE, "a personal head keeps the backbone")
    payload = model_coding.encode_head(image, base)
    return Container(ContainerKind.PERSONAL, 0, 0, version, base.model_id, image.model_id, payload)


def build_keys(change: KeyChange, version: int, boards: Iterable[Board] = ALL_BOARDS) -> Container:
    """A container that changes one of the trusted keys."""
    payload = bytes([change.place]) + change.key
    return Container(ContainerKind.KEYS, _mask(boards), 0, version, 0, network.identity(change.key), payload)


def signed_bytes(container: Container, public_key: bytes) -> bytes:
    """What the key's owner signs: header, naming the key, and payload.

    Raises:
        ContainerError: a field is outside its range.
    """
    fields = (container.version, container.base_id, container.model_id, container.payload)
    return Container(container.kind, container.board_mask, key_id(public_key), *fields).proven_bytes()


def sign(container: Container, private_key: bytes) -> bytes:
    """The container's bytes for the air.

    Args:
        container: As built; its ``key_id`` is replaced by the key's.
        private_key: 64 bytes, as ``monocypher.generate_signing_key_pair`` returns first: seed and public key.

    Raises:
        ContainerError: not such a key, or a field is outside its range.
    """
    import monocypher

    if len(private_key) != 2 * KEY_SIZE:
        raise ContainerError(Refusal.SIGNATURE, f"a signing key has {2 * KEY_SIZE} bytes, not {len(private_key)}")
    if container.kind is ContainerKind.PERSONAL:
        raise ContainerError(Refusal.FORMAT, "a personal head is not signed but authenticated")
    signed = signed_bytes(container, private_key[KEY_SIZE:])
    return signed + cast("bytes", monocypher.signature_sign(private_key, signed))


def authenticate(container: Container, update_key: bytes, dev_eui: str) -> bytes:
    """A personal head's bytes for the air.

    Args:
        container: As :func:`build_personal` makes it.
        update_key: The node's, 16 bytes.
        dev_eui: The node, 16 hex digits.

    Raises:
        ContainerError: not a personal head or not such a key, or a field is outside its range.
    """
    if container.kind is not ContainerKind.PERSONAL:
        raise ContainerError(Refusal.FORMAT, "only a personal head is authenticated for one node")
    if len(update_key) != UPDATE_KEY_SIZE or not any(update_key):
        raise ContainerError(Refusal.SIGNATURE, f"not an update key of {UPDATE_KEY_SIZE} bytes")
    proven = container.proven_bytes()
    return proven + _tag(proven, update_key, dev_eui, container.base_id)


def read_container(data: bytes) -> Container:
    """Read a container's fields without trusting them: length and format only.

    Raises:
        ContainerError: LENGTH or FORMAT.
    """
    personal = data[:1] == bytes([CONTAINER_FORMAT << 4 | ContainerKind.PERSONAL])
    layout, proof = (PERSONAL_LAYOUT, TAG_SIZE) if personal else (HEADER_LAYOUT, SIGNATURE_SIZE)
    if not layout.size + proof <= len(data) <= layout.size + PAYLOAD_LIMIT + proof:
        raise ContainerError(Refusal.LENGTH, f"{len(data)} bytes")
    values = {name: int(value) for name, value in layout.unpack(bytes(data[: layout.size])).items()}
    if values["format_kind"] >> 4 != CONTAINER_FORMAT:
        raise ContainerError(Refusal.FORMAT, f"format {values['format_kind'] >> 4}")
    try:
        kind = ContainerKind(values["format_kind"] & 15)
    except ValueError as error:
        raise ContainerError(Refusal.FORMAT, str(error)) from error
    return Container(
        kind=kind,
        board_mask=values.get("board_mask", 0),
        key_id=values.get("key_id", 0),
        version=values["version"],
        base_id=values["base"] if personal else values["base_id"],
        model_id=values["model_id"],
        payload=bytes(data[layout.size : -proof]),
    )


def open_container(data: bytes, node: Receiver) -> ModelImage | KeyChange:
    """Check a container as a node does and restore its model, or read its change of keys.

    Raises:
        ContainerError: refused; ``refusal`` says why.
    """
    container = read_container(data)
    personal, keys = container.kind is ContainerKind.PERSONAL, container.kind is ContainerKind.KEYS
    if not personal and not container.board_mask >> (node.board - 1) & 1:
        raise ContainerError(Refusal.TARGET, f"not for {node.board.name}")
    before = node.keys_version if keys else node.running_version
    if container.version <= before:
        raise ContainerError(Refusal.VERSION, f"{container.version} is not newer than {before}")
    if container.base_id != _base_of(container.kind, node.running_image):
        raise ContainerError(Refusal.BASE, f"{container.base_id:08x} is not what runs")
    signer = _authenticated(data, node) if personal else _signer(data, container.key_id, node.public_keys)
    if signer is None:
        raise ContainerError(Refusal.SIGNATURE, "not by a trusted key")
    return _key_change(container, signer, node) if keys else _restore(container, node.running_image)


def key_id(public_key: bytes) -> int:
    """The byte by which a container names its key."""
    return hashlib.blake2b(public_key, digest_size=32).digest()[0]


def _base_of(kind: ContainerKind, running: ModelImage | None) -> int | None:
    """What the header must say of what runs; None where it must not be applied at all."""
    if kind in (ContainerKind.FULL, ContainerKind.KEYS):
        return 0
    if running is None:
        return None
    if kind is ContainerKind.HEAD:
        return running.backbone_id
    return running.model_id if kind is ContainerKind.DELTA else running.model_id & 0xFF


def _signer(data: bytes, name: int, public_keys: Sequence[bytes]) -> int | None:
    """Whose signature it is: the place of the key."""
    import monocypher

    signature, message = data[-SIGNATURE_SIZE:], data[:-SIGNATURE_SIZE]
    for place, key in enumerate(public_keys):
        if key_id(key) == name and key != NO_KEY and monocypher.signature_check(signature, key, message):
            return place
    return None


def _authenticated(data: bytes, node: Receiver) -> int | None:
    import hmac

    if not any(node.update_key) or node.running_image is None:
        return None
    tag = _tag(data[:-TAG_SIZE], node.update_key, node.dev_eui, node.running_image.model_id)
    return RELEASE_KEY if hmac.compare_digest(tag, data[-TAG_SIZE:]) else None


def _tag(proven: bytes, update_key: bytes, dev_eui: str, base_id: int) -> bytes:
    message = proven + bytes.fromhex(dev_eui) + base_id.to_bytes(4, "little")
    return hashlib.blake2b(message, digest_size=TAG_SIZE, key=update_key).digest()


def _key_change(container: Container, signer: int, node: Receiver) -> KeyChange:
    """The change, if this signer may make it and the node stays one that trusts somebody."""
    change = KeyChange(container.payload[0] if container.payload else KEY_COUNT, container.payload[1:])
    if len(container.payload) != KEYS_PAYLOAD_SIZE or change.place >= KEY_COUNT:
        raise ContainerError(Refusal.DECODE, "not a place and a key")
    if network.identity(change.key) != container.model_id:
        raise ContainerError(Refusal.MODEL_ID, "the key is another one")
    other = node.public_keys[1 - change.place]
    if signer == RELEASE_KEY and change.place == RECOVERY_KEY and node.public_keys[RECOVERY_KEY] != NO_KEY:
        raise ContainerError(Refusal.BASE, "the release key may not replace the recovery key")
    if change.key == other:
        raise ContainerError(Refusal.BASE, "that would leave one key in both places, or none at all")
    return change


def _restore(container: Container, running: ModelImage | None) -> ModelImage:
    try:
        if container.kind is ContainerKind.FULL:
            image = model_coding.decode_model(container.payload)
        elif running is None:
            raise ContainerError(Refusal.BASE, "nothing runs")
        elif container.kind is ContainerKind.DELTA:
            image = model_coding.decode_model(container.payload, running)
        else:
            personal = container.kind is ContainerKind.PERSONAL
            image = model_coding.decode_head(container.payload, running, running if personal else None)
    except RecompressionError as error:
        raise ContainerError(Refusal.DECODE, str(error)) from error
    except ModelError as error:
        raise ContainerError(Refusal.SELF_TEST, str(error)) from error
    if image.model_id != container.model_id:
        raise ContainerError(Refusal.MODEL_ID, "the restored model is another one")
    return image


def _mask(boards: Iterable[Board]) -> int:
    return sum(1 << (board - 1) for board in set(boards))


def c_definitions() -> str:
    """Header offsets and kinds for the C header."""
    constants = {
        "CONTAINER_FORMAT": CONTAINER_FORMAT,
        "CONTAINER_HEADER_SIZE": HEADER_SIZE,
        "CONTAINER_PAYLOAD_LIMIT": PAYLOAD_LIMIT,
        "CONTAINER_LIMIT": CONTAINER_LIMIT,
        "SIGNATURE_SIZE": SIGNATURE_SIZE,
        "TAG_SIZE": TAG_SIZE,
        "PERSONAL_HEADER_SIZE": PERSONAL_HEADER_SIZE,
        "KEYS_PAYLOAD_SIZE": KEYS_PAYLOAD_SIZE,
        "RELEASE_KEY": RELEASE_KEY,
        "RECOVERY_KEY": RECOVERY_KEY,
    }
    constants |= {f"CONTAINER_{f.name.upper()}_OFFSET": HEADER_LAYOUT.offset(f.name) for f in HEADER_LAYOUT.fields}
    constants |= {f"PERSONAL_{f.name.upper()}_OFFSET": PERSONAL_LAYOUT.offset(f.name) for f in PERSONAL_LAYOUT.fields}
    return "\n".join([c_constants(constants), c_enumeration(ContainerKind, "container_kind")]) + "\n"
