"""TS004 fragmented data block transport, v1.0.0 and v2.0.0: a block in small downlinks, with forward error correction.

The sender numbers fragments from 1. The first M are the block itself; each further one is the XOR of a
pseudo-random half of them, so any M + a few received fragments restore the block, whichever were lost. The
receiver eliminates over GF(2) as fragments arrive and needs memory for M of them.

The two package versions differ in the setup (v2 has a session count and a MIC behind the descriptor), in the order of
a status answer's bytes, and in the coded fragments: v1 draws M/2 times and may draw the same fragment again, v2 draws
until M/2 are chosen. A session keeps the form it was set up in. The MIC is neither made nor checked here: its key is
the network's, and a block is a signed container.

One session at a time (FragIndex 0), unicast. The session's descriptor is the model version. Beyond TS004,
a node with an incomplete session sends an unsolicited FragSessionStatusAns at each wake: class A needs an
uplink before a downlink, and the answer says how much is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

from shared_models.layout import c_constants, c_enumeration

PACKAGE_IDENTIFIER = 3
PACKAGE_VERSION = 2
"""The newest a node speaks; it takes sessions of version 1 as well."""
BLOCK_LIMIT = 1400
"""Most bytes of a block, padding included, that a node takes."""
FRAGMENT_COUNT_LIMIT = 40
"""Most uncoded fragments of a block that a node takes."""
FRAGMENT_SIZE_LIMIT = 219
FRAGMENT_HEADER_SIZE = 3
"""Command and index before each fragment's data."""
INDEX_LIMIT = (1 << 14) - 1
POLL_LIMIT = 96
"""Polls without a fragment after which a node rests; the session is kept."""


class FragmentationError(ValueError):
    """A TS004 command that cannot be used; the text says why."""


class Command(IntEnum):
    """TS004 command identifiers, the same both ways."""

    PACKAGE_VERSION = 0
    SESSION_STATUS = 1
    SESSION_SETUP = 2
    SESSION_DELETE = 3
    BLOCK_RECEIVED = 4
    """Version 2 only."""
    DATA_FRAGMENT = 8


class SetupRefusal(IntFlag):
    """Why a node refused a session; zero accepts it."""

    NONE = 0
    ENCODING = 1
    MEMORY = 2
    SESSION_INDEX = 4
    DESCRIPTOR = 8
    REPLAY = 16
    """Version 2: a session count that was used before. Our nodes do not count sessions."""


@dataclass(frozen=True, slots=True)
class PackageVersionAnswer:
    """Which package the node speaks."""

    identifier: int
    version: int


@dataclass(frozen=True, slots=True)
class SessionStatusAnswer:
    """How far a session is: an answer, or the node's poll."""

    session: int
    received: int
    missing: int
    """Fragments still needed at the least; 0 = complete."""
    out_of_memory: bool
    mic_error: bool = False
    """Version 2."""
    exists: bool = True
    """Version 2 can say that there is no such session."""


@dataclass(frozen=True, slots=True)
class SessionSetupAnswer:
    """Whether the node takes the session."""

    session: int
    refusal: SetupRefusal

    @property
    def accepted(self) -> bool:
        """The node waits for fragments."""
        return not self.refusal


@dataclass(frozen=True, slots=True)
class SessionDeleteAnswer:
    """The session is gone."""

    session: int
    existed: bool


@dataclass(frozen=True, slots=True)
class BlockReceived:
    """Version 2: the block is complete, said by a node whose session was set up to say so."""

    session: int
    mic_error: bool


Answer = PackageVersionAnswer | SessionStatusAnswer | SessionSetupAnswer | SessionDeleteAnswer | BlockReceived


@dataclass(frozen=True, slots=True)
class FragmentationAnswer:
    """fPort 201 up: one or more answers in the order sent.

    What a status answer's bytes mean depends on the form the session was set up in, which only its sender knows.
    """

    payload: bytes

    @property
    def answers(self) -> tuple[Answer, ...]:
        """As in a session of version 1."""
        return self.read(1)

    def read(self, version: int) -> tuple[Answer, ...]:
        """As in a session of ``version``; empty where it makes no sense so."""
        try:
            return _decode(self.payload, version)
        except FragmentationError:
            return ()


def decode_answers(payload: bytes) -> FragmentationAnswer:
    """Take a node's answers.

    Raises:
        FragmentationError: empty, truncated, or an unknown command, in either form.
    """
    try:
        _decode(payload, 1)
    except FragmentationError:
        _decode(payload, 2)
    return FragmentationAnswer(bytes(payload))


def _decode(payload: bytes, version: int) -> tuple[Answer, ...]:
    answers: list[Answer] = []
    rest = bytes(payload)
    while rest:
        answer, size = _decode_answer(rest, version)
        answers.append(answer)
        rest = rest[size:]
    if not answers:
        raise FragmentationError("no answer in the payload")
    return tuple(answers)


_ANSWER_SIZES = {
    Command.PACKAGE_VERSION: 3,
    Command.SESSION_STATUS: 5,
    Command.SESSION_SETUP: 2,
    Command.SESSION_DELETE: 2,
    Command.BLOCK_RECEIVED: 2,
}
_NO_SESSION = 4


def _decode_answer(data: bytes, version: int) -> tuple[Answer, int]:
    try:
        command = Command(data[0])
        size = _ANSWER_SIZES[command]
    except (ValueError, KeyError) as error:
        raise FragmentationError(f"unknown answer 0x{data[0]:02x}") from error
    if command is Command.SESSION_STATUS and version > 1 and len(data) > 1 and data[1] & _NO_SESSION:
        return SessionStatusAnswer(0, 0, 0, out_of_memory=False, exists=False), 2
    if len(data) < size:
        raise FragmentationError(f"truncated answer 0x{data[0]:02x}")
    if command is Command.PACKAGE_VERSION:
        return PackageVersionAnswer(data[1], data[2]), size
    if command is Command.SESSION_STATUS:
        status, body = (data[4], data[1:4]) if version == 1 else (data[1], data[2:5])
        counts = int.from_bytes(body[:2], "little")
        mic_error = version > 1 and bool(status & 2)
        return SessionStatusAnswer(counts >> 14, counts & INDEX_LIMIT, body[2], bool(status & 1), mic_error), size
    if command is Command.SESSION_SETUP:
        return SessionSetupAnswer(data[1] >> 6, SetupRefusal(data[1] & 0x1F)), size
    if command is Command.BLOCK_RECEIVED:
        return BlockReceived(data[1] & 3, bool(data[1] & 4)), size
    return SessionDeleteAnswer(data[1] & 3, not data[1] & 4), size


def encode_answer(answer: Answer, version: int = 1) -> bytes:
    """The bytes a node sends for one answer in a session of ``version``."""
    if isinstance(answer, PackageVersionAnswer):
        return bytes([Command.PACKAGE_VERSION, answer.identifier, answer.version])
    if isinstance(answer, SessionStatusAnswer):
        if not answer.exists:
            return bytes([Command.SESSION_STATUS, _NO_SESSION])
        counts = (answer.session << 14 | answer.received).to_bytes(2, "little") + bytes([min(answer.missing, 255)])
        status = bytes([answer.out_of_memory | answer.mic_error << 1])
        return bytes([Command.SESSION_STATUS]) + (counts + status if version == 1 else status + counts)
    if isinstance(answer, SessionSetupAnswer):
        return bytes([Command.SESSION_SETUP, answer.session << 6 | answer.refusal])
    if isinstance(answer, BlockReceived):
        return bytes([Command.BLOCK_RECEIVED, answer.session | answer.mic_error << 2])
    return bytes([Command.SESSION_DELETE, answer.session | (0 if answer.existed else 4)])


def package_version_request() -> bytes:
    """PackageVersionReq."""
    return bytes([Command.PACKAGE_VERSION])


def session_status_request() -> bytes:
    """FragSessionStatusReq for session 0, answered even when complete."""
    return bytes([Command.SESSION_STATUS, 1])


def session_delete_request() -> bytes:
    """FragSessionDeleteReq for session 0."""
    return bytes([Command.SESSION_DELETE, 0])


def parity_row(number: int, count: int, version: int = 1) -> int:
    """Which data fragments the coded fragment ``number`` (from 1) combines, as a bit mask.

    The generator and its drawing are TS004's; version 1 may draw the same fragment twice, which then counts once.
    """
    even = 1 if count & (count - 1) == 0 else 0
    state, row = 1 + 1001 * number, 0
    left = count // 2
    while left:
        drawn = count
        while drawn >= count:
            state = state >> 1 | ((state ^ state >> 5) & 1) << 22
            drawn = state % (count + even)
        left -= version == 1 or not row >> drawn & 1
        row |= 1 << drawn
    return row


class Fragmenter:
    """The sender's side of one session.

    Args:
        block: What to send.
        payload_limit: Largest downlink payload of the node's data rate, bytes.
        descriptor: The model version.
        version: Of the package: 1 or 2.
        session_count: Version 2's count of sessions with this node.

    Raises:
        FragmentationError: the block is empty or no node could take it at this data rate.
    """

    def __init__(
        self, block: bytes, payload_limit: int, descriptor: int, version: int = 1, session_count: int = 0
    ) -> None:
        room = min(payload_limit - FRAGMENT_HEADER_SIZE, FRAGMENT_SIZE_LIMIT)
        if not block or room < 1:
            raise FragmentationError("nothing to send, or no room to send it")
        self.count = -(-len(block) // room)
        self.fragment_size = -(-len(block) // self.count)
        self.padding = self.count * self.fragment_size - len(block)
        self.descriptor, self.version, self.session_count = descriptor, version, session_count & 0xFFFF
        if self.count > FRAGMENT_COUNT_LIMIT or self.count * self.fragment_size > BLOCK_LIMIT:
            raise FragmentationError(f"{len(block)} bytes do not fit a session at {payload_limit} bytes a downlink")
        padded = block + bytes(self.padding)
        self._parts = [
            int.from_bytes(padded[start : start + self.fragment_size], "big")
            for start in range(0, len(padded), self.fragment_size)
        ]

    def setup(self) -> bytes:
        """FragSessionSetupReq: session 0, matrix 0, unicast; no MIC, for the block is a signed container."""
        request = (
            bytes([Command.SESSION_SETUP, 0])
            + self.count.to_bytes(2, "little")
            + bytes([self.fragment_size, 0, self.padding])
            + self.descriptor.to_bytes(4, "little")
        )
        return request if self.version == 1 else request + self.session_count.to_bytes(2, "little") + bytes(4)

    def fragment(self, step: int) -> bytes:
        """The DataFragment of a step from 0: the block's own fragments first, then coded ones without end.

        TS004's coded fragments of a one-fragment block are empty, so such a block is repeated instead.
        """
        number = 1 if self.count == 1 else step % INDEX_LIMIT + 1
        if number <= self.count:
            value = self._parts[number - 1]
        else:
            row, value = parity_row(number - self.count, self.count, self.version), 0
            for index, part in enumerate(self._parts):
                if row >> index & 1:
                    value ^= part
        data = value.to_bytes(self.fragment_size, "big")
        return bytes([Command.DATA_FRAGMENT]) + number.to_bytes(2, "little") + data


class Reassembler:
    """The receiver's side of one session: incremental Gaussian elimination over GF(2).

    Args:
        count: Uncoded fragments of the block.
        fragment_size: Bytes of each.
        padding: Bytes at the end of the last that do not belong to the block.
        version: Of the package: 1 or 2.

    Raises:
        FragmentationError: more than a node takes.
    """

    def __init__(self, count: int, fragment_size: int, padding: int = 0, version: int = 1) -> None:
        if not 1 <= count <= FRAGMENT_COUNT_LIMIT or not 1 <= fragment_size <= FRAGMENT_SIZE_LIMIT:
            raise FragmentationError(f"{count} fragments of {fragment_size} bytes")
        if count * fragment_size > BLOCK_LIMIT or padding >= fragment_size:
            raise FragmentationError(f"{count * fragment_size} bytes with {padding} of padding")
        self.count, self.fragment_size, self.padding, self.version = count, fragment_size, padding, version
        self.received = 0
        self._rows: dict[int, tuple[int, int]] = {}

    @property
    def missing(self) -> int:
        """Fragments still needed at the least."""
        return self.count - len(self._rows)

    def add(self, number: int, data: bytes) -> bool:
        """Take a fragment; true once the block can be restored. Useless ones only cost their time.

        Raises:
            FragmentationError: a number outside 1..16383 or data of the wrong length.
        """
        if not 1 <= number <= INDEX_LIMIT or len(data) != self.fragment_size:
            raise FragmentationError(f"fragment {number} with {len(data)} bytes")
        self.received = min(self.received + 1, INDEX_LIMIT)
        coded = number - self.count
        mask = 1 << (number - 1) if coded <= 0 else parity_row(coded, self.count, self.version)
        value = int.from_bytes(data, "big")
        while mask:
            pivot = mask & -mask
            if pivot not in self._rows:
                self._rows[pivot] = (mask, value)
                break
            other_mask, other_value = self._rows[pivot]
            mask, value = mask ^ other_mask, value ^ other_value
        return not self.missing

    def block(self) -> bytes:
        """The restored block without its padding.

        Raises:
            FragmentationError: fragments are still missing.
        """
        if self.missing:
            raise FragmentationError(f"{self.missing} fragments are missing")
        solved: dict[int, int] = {}
        for pivot in sorted(self._rows, reverse=True):
            mask, value = self._rows[pivot]
            for bit, known in solved.items():
                if mask & bit:
                    value ^= known
            solved[pivot] = value
        whole = b"".join(solved[1 << index].to_bytes(self.fragment_size, "big") for index in range(self.count))
        return whole[: len(whole) - self.padding]


def c_definitions() -> str:
    """TS004 constants for the C header."""
    constants = {
        "TS004_PACKAGE_IDENTIFIER": PACKAGE_IDENTIFIER,
        "TS004_PACKAGE_VERSION": PACKAGE_VERSION,
        "BLOCK_LIMIT": BLOCK_LIMIT,
        "FRAGMENT_COUNT_LIMIT": FRAGMENT_COUNT_LIMIT,
        "FRAGMENT_SIZE_LIMIT": FRAGMENT_SIZE_LIMIT,
        "FRAGMENT_HEADER_SIZE": FRAGMENT_HEADER_SIZE,
        "FRAGMENT_INDEX_LIMIT": INDEX_LIMIT,
        "POLL_LIMIT": POLL_LIMIT,
    }
    return "\n".join(
        [
            c_constants(constants),
            c_enumeration(Command, "ts004_command"),
            c_enumeration(SetupRefusal, "setup_refusal"),
        ]
    )
