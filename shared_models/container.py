"""The container a model update travels in: header, recompressed payload, signature.

A node checks in this order, and refuses at the first that fails: length, format, target, version, base,
signature, decoding, model id, self-test. :func:`open_container` and ``core/container.c`` do the same, refusal by
refusal. Signatures are Monocypher's EdDSA (Curve25519 with BLAKE2b) over header and payload.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import cast

from shared_models import network
from shared_models.codes import Board, Refusal
from shared_models.layout import Field, Layout, LayoutError, c_constants, c_enumeration
from shared_models.network import ModelError, ModelImage
from shared_models.recompression import RecompressionError, Segment, SegmentType, decode, encode
from shared_models.settings import KEY_SIZE, NO_KEY

CONTAINER_FORMAT = 1
SIGNATURE_SIZE = 64
PAYLOAD_LIMIT = 1024
ALL_BOARDS = frozenset(Board)


class ContainerKind(IntEnum):
    """What a container's payload holds."""

    FULL = 1
    """A whole model."""
    HEAD = 2
    """A head and its self-test, for one backbone."""


HEADER_LAYOUT = Layout(
    "container_header",
    [
        Field("format", "u8", "1"),
        Field("kind", "u8", "container.ContainerKind"),
        Field("board_mask", "u8", "bit (codes.Board - 1) per target"),
        Field("key_id", "u8", "first byte of BLAKE2b-256 of the public key"),
        Field("version", "u32", "model version, monotonic"),
        Field("base_id", "u32", "HEAD: backbone id it belongs to; FULL: 0"),
        Field("model_id", "u32", "identity of the resulting model image"),
        Field("payload_length", "u16", "bytes of recompressed payload that follow"),
    ],
)
HEADER_SIZE = HEADER_LAYOUT.size
CONTAINER_LIMIT = HEADER_SIZE + PAYLOAD_LIMIT + SIGNATURE_SIZE

_IMAGE_START = network.HEADER.pack(
    network.MAGIC, network.FORMAT, network.INPUTS, network.HIDDEN, network.ACTIVATIONS, network.OUTPUTS, 0
)[:12]
"""What every image of this format begins with; not sent."""


def _layer_segments(inputs: int, outputs: int) -> list[Segment]:
    return [
        Segment(SegmentType.RAW, network.LAYER_HEADER.size),
        Segment(SegmentType.INT32, outputs),
        Segment(SegmentType.INT8, inputs * outputs),
    ]


HEAD_SEGMENTS = (*_layer_segments(network.ACTIVATIONS, network.OUTPUTS), Segment(SegmentType.RAW, 4))
FULL_SEGMENTS = (
    Segment(SegmentType.RAW, network.HEADER.size - len(_IMAGE_START)),
    *_layer_segments(network.INPUTS, network.HIDDEN),
    *_layer_segments(network.HIDDEN, network.ACTIVATIONS),
    *HEAD_SEGMENTS,
)


class ContainerError(ValueError):
    """A container that a node would refuse, and with which code."""

    def __init__(self, refusal: Refusal, text: str) -> None:
        super().__init__(f"{refusal.name.lower()}: {text}")
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Container:
    """An unsigned container, as built or as read."""

    kind: ContainerKind
    board_mask: int
    key_id: int
    """0 until signed."""
    version: int
    base_id: int
    model_id: int
    payload: bytes

    def signed_bytes(self) -> bytes:
        """Header and payload: what the signature covers.

        Raises:
            ContainerError: a field is outside its range.
        """
        if len(self.payload) > PAYLOAD_LIMIT:
            raise ContainerError(Refusal.LENGTH, f"a payload of {len(self.payload)} bytes")
        values = {
            "format": CONTAINER_FORMAT,
            "kind": int(self.kind),
            "board_mask": self.board_mask,
            "key_id": self.key_id,
            "version": self.version,
            "base_id": self.base_id,
            "model_id": self.model_id,
            "payload_length": len(self.payload),
        }
        try:
            return HEADER_LAYOUT.pack(values) + self.payload
        except LayoutError as error:
            raise ContainerError(Refusal.FORMAT, str(error)) from error


def build_full(image: ModelImage, version: int, boards: Iterable[Board] = ALL_BOARDS) -> Container:
    """A container with the whole model."""
    payload = encode(image.pack()[len(_IMAGE_START) :], FULL_SEGMENTS)
    return Container(ContainerKind.FULL, _mask(boards), 0, version, 0, image.model_id, payload)


def build_head(image: ModelImage, version: int, boards: Iterable[Board] = ALL_BOARDS) -> Container:
    """A container with the head alone, for nodes that run the same backbone."""
    payload = encode(image.head_bytes, HEAD_SEGMENTS)
    return Container(ContainerKind.HEAD, _mask(boards), 0, version, image.backbone_id, image.model_id, payload)


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
    public_key = private_key[KEY_SIZE:]
    fields = (container.version, container.base_id, container.model_id, container.payload)
    signed = Container(container.kind, container.board_mask, key_id(public_key), *fields).signed_bytes()
    return signed + cast("bytes", monocypher.signature_sign(private_key, signed))


def read_container(data: bytes) -> Container:
    """Read a container's fields without trusting them: length and format only.

    Raises:
        ContainerError: LENGTH or FORMAT.
    """
    if len(data) < HEADER_SIZE + SIGNATURE_SIZE:
        raise ContainerError(Refusal.LENGTH, f"{len(data)} bytes")
    values = {name: int(value) for name, value in HEADER_LAYOUT.unpack(bytes(data[:HEADER_SIZE])).items()}
    length = values["payload_length"]
    if length > PAYLOAD_LIMIT or len(data) != HEADER_SIZE + length + SIGNATURE_SIZE:
        raise ContainerError(Refusal.LENGTH, f"{len(data)} bytes with a payload of {length}")
    if values["format"] != CONTAINER_FORMAT:
        raise ContainerError(Refusal.FORMAT, f"format {values['format']}")
    try:
        kind = ContainerKind(values["kind"])
    except ValueError as error:
        raise ContainerError(Refusal.FORMAT, str(error)) from error
    return Container(
        kind=kind,
        board_mask=values["board_mask"],
        key_id=values["key_id"],
        version=values["version"],
        base_id=values["base_id"],
        model_id=values["model_id"],
        payload=bytes(data[HEADER_SIZE:-SIGNATURE_SIZE]),
    )


def open_container(
    data: bytes,
    public_keys: Sequence[bytes],
    board: Board,
    running_version: int,
    running_image: ModelImage | None,
) -> ModelImage:
    """Check a container as a node does and restore its model.

    Args:
        data: The signed container.
        public_keys: Trusted keys; an all-zero key is none.
        board: The node's board.
        running_version: The highest version that ever ran on the node.
        running_image: What the node runs, or None.

    Raises:
        ContainerError: refused; ``refusal`` says why.
    """
    container = read_container(data)
    if not container.board_mask >> (board - 1) & 1:
        raise ContainerError(Refusal.TARGET, f"not for {board.name}")
    if container.version <= running_version:
        raise ContainerError(Refusal.VERSION, f"{container.version} is not newer than {running_version}")
    base_id = 0 if container.kind is ContainerKind.FULL else running_image.backbone_id if running_image else None
    if container.base_id != base_id:
        raise ContainerError(Refusal.BASE, f"backbone {container.base_id:08x} is not what runs")
    if not any(_signed_by(data, key) for key in public_keys if key_id(key) == container.key_id):
        raise ContainerError(Refusal.SIGNATURE, "not by a trusted key")
    restored = _restore(container, running_image)
    if network.identity(restored) != container.model_id:
        raise ContainerError(Refusal.MODEL_ID, "the restored model is another one")
    try:
        return ModelImage.unpack(restored)
    except ModelError as error:
        raise ContainerError(Refusal.SELF_TEST, str(error)) from error


def key_id(public_key: bytes) -> int:
    """The byte by which a container names its key."""
    return hashlib.blake2b(public_key, digest_size=32).digest()[0]


def _signed_by(data: bytes, public_key: bytes) -> bool:
    import monocypher

    if public_key == NO_KEY:
        return False
    signature, message = data[-SIGNATURE_SIZE:], data[:-SIGNATURE_SIZE]
    return bool(monocypher.signature_check(signature, public_key, message))


def _restore(container: Container, running_image: ModelImage | None) -> bytes:
    try:
        if container.kind is ContainerKind.FULL or running_image is None:
            return _IMAGE_START + decode(container.payload, FULL_SEGMENTS)
        return running_image.pack()[: network.HEAD_OFFSET] + decode(container.payload, HEAD_SEGMENTS)
    except RecompressionError as error:
        raise ContainerError(Refusal.DECODE, str(error)) from error


def _mask(boards: Iterable[Board]) -> int:
    return sum(1 << (board - 1) for board in set(boards))


def c_definitions() -> str:
    """Header offsets, kinds and segment tables for the C header."""
    constants = {
        "CONTAINER_FORMAT": CONTAINER_FORMAT,
        "CONTAINER_HEADER_SIZE": HEADER_SIZE,
        "CONTAINER_PAYLOAD_LIMIT": PAYLOAD_LIMIT,
        "CONTAINER_LIMIT": CONTAINER_LIMIT,
        "SIGNATURE_SIZE": SIGNATURE_SIZE,
        "MODEL_CODED_OFFSET": len(_IMAGE_START),
    }
    constants |= {f"CONTAINER_{f.name.upper()}_OFFSET": HEADER_LAYOUT.offset(f.name) for f in HEADER_LAYOUT.fields}
    lines = [c_constants(constants), c_enumeration(ContainerKind, "container_kind")]
    for name, segments in (("FULL", FULL_SEGMENTS), ("HEAD", HEAD_SEGMENTS)):
        table = ", ".join(f"{{{int(segment.type)}, {segment.count}}}" for segment in segments)
        lines.append(f"#define NORIA_{name}_SEGMENTS {table}")
    lines.append(f"#define NORIA_MODEL_START {{{', '.join(str(byte) for byte in _IMAGE_START)}}}")
    return "\n".join(lines) + "\n"
