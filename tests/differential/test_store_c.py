"""Power may fail at any flash operation, whole or half done: the node has the old or the new, never neither.

Every erase and every 8-byte program of each story is interrupted in turn, on both kinds of flash, by a clean cut
and by torn ones (invariant I1).
"""

from __future__ import annotations

import ctypes
import random
import zlib
from collections.abc import Callable

import pytest
from model_cases import improved, key_pair, model
from update_cases import BOOT_A, LIBRARY, MODEL_A, STATE_A, STATE_B, Flash, Node, provision

from benchmarks.power_cuts import PHASES, HostTrial
from nodes.hoststore import Part
from shared_models.container import build_full, build_head, sign
from shared_models.fragmentation import Fragmenter

SECRET, PUBLIC = key_pair(1)
PARTS = ("L0", "L4_ECC")
HEAD = sign(build_head(improved(), 2), SECRET)
FULL = sign(build_full(improved(), 2), SECRET)
CUTS = ((False, 1), (True, 12345), (True, 99991))
VERSION = 7


def save(state: bytes, version: int = VERSION) -> bool:
    return bool(LIBRARY.noria_store_save(state, ctypes.c_uint16(len(state)), ctypes.c_uint32(version)))


def load(length: int, version: int = VERSION) -> bytes | None:
    out = ctypes.create_string_buffer(max(length, 1))
    found = LIBRARY.noria_store_load(out, ctypes.c_uint16(length), ctypes.c_uint32(version))
    return out.raw[:length] if found else None


def state(number: int, length: int = 300) -> bytes:
    return bytes((number * 31 + i) % 256 for i in range(length))


def replay(before: bytes, part: str, story: Callable[[], None]) -> int:
    """How many flash operations a story takes from a given content of the flash."""
    flash = Flash(part)
    flash.write(0, before)
    LIBRARY.noria_host_flash_power_on()
    story()
    return int(LIBRARY.noria_host_flash_operations())


def test_crc_is_zlibs() -> None:
    LIBRARY.noria_crc32.restype = ctypes.c_uint32
    for data in (b"", b"123456789", bytes(range(256))):
        assert LIBRARY.noria_crc32(0, data, ctypes.c_size_t(len(data))) == zlib.crc32(data)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("length", [1, 7, 8, 300, 1200, 4080])
def test_the_newest_state_is_loaded_however_often_it_was_saved(part: str, length: int) -> None:
    Flash(part)
    assert load(length) is None
    for number in range(25):
        assert save(state(number, length))
        assert load(length) == state(number, length)


@pytest.mark.parametrize("part", PARTS)
def test_a_state_that_does_not_fit_or_is_of_another_layout_is_refused(part: str) -> None:
    Flash(part)
    assert not save(bytes(4081))
    assert not save(b"")
    assert save(state(1))
    assert load(300, VERSION + 1) is None
    assert load(299) is None
    assert save(state(2), VERSION + 1)
    assert load(300, VERSION + 1) == state(2)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("saves", [0, 1, 13, 26])
@pytest.mark.parametrize("length", [150, 300])
def test_a_power_cut_while_saving_leaves_the_old_state_or_the_new(part: str, saves: int, length: int) -> None:
    flash = Flash(part)
    for number in range(saves):
        save(state(number, length))
    before = flash.read()
    old, new, later = (state(saves - 1, length) if saves else None), state(100, length), state(101, length)
    for operation in range(replay(before, part, lambda: save(new)) + 1):
        for torn, seed in CUTS:
            flash = Flash(part)
            flash.write(0, before)
            with flash.cut(operation, torn=torn, seed=seed):
                saved = save(new)
            assert load(length) in ({new} if saved else {old, new})
            assert save(later), "the log goes on after a power cut"
            assert load(length) == later


@pytest.mark.parametrize("part", PARTS)
def test_two_power_cuts_in_a_row_still_leave_a_state(part: str) -> None:
    flash = Flash(part)
    for number in range(12):
        save(state(number))
    before = flash.read()
    for operation in range(0, 45, 3):
        for second in range(0, 45, 4):
            flash = Flash(part)
            flash.write(0, before)
            with flash.cut(operation, torn=True, seed=operation + 1):
                save(state(50))
            with flash.cut(second, torn=True, seed=second + 77):
                save(state(51))
            assert load(300) in {state(11), state(50), state(51)}


@pytest.mark.parametrize("part", PARTS)
def test_a_log_of_noise_is_no_state_and_can_be_written_again(part: str) -> None:
    flash = Flash(part)
    for area in (STATE_A, STATE_B):
        flash.write(area, bytes((i * 7919 >> 3) % 251 for i in range(4096)))
    assert load(300) is None
    assert save(state(1))
    assert load(300) == state(1)


@pytest.mark.parametrize("part", PARTS)
def test_a_record_that_rots_gives_way_to_the_one_before_it(part: str) -> None:
    dice = random.Random(11)
    for _ in range(60):
        flash = Flash(part)
        saves = dice.randrange(2, 30)
        for number in range(saves):
            save(state(number))
        newest = flash.read().rindex(state(saves - 1))
        at = newest - 8 + dice.randrange(8 + 304 + 8 - 4)
        at += dice.randrange(4)
        flash.write(at, bytes([flash.read(at, 1)[0] ^ 1 << dice.randrange(8)]))
        # Padding is part of the record: every bit of it counts.
        assert load(300) == state(saves - 2)
        assert save(state(100))
        assert load(300) == state(100)


@pytest.mark.parametrize("part", PARTS)
def test_however_many_records_rot_one_that_was_saved_is_loaded_or_none(part: str) -> None:
    dice = random.Random(12)
    for _ in range(30):
        flash = Flash(part)
        for number in range(14):
            save(state(number))
        for _ in range(dice.randrange(1, 60)):
            at = STATE_A + dice.randrange(0x2000)
            flash.write(at, bytes([flash.read(at, 1)[0] ^ 1 << dice.randrange(8)]))
        assert load(300) in {None, *(state(number) for number in range(14))}
        assert save(state(100))
        assert load(300) == state(100)


@pytest.mark.parametrize("part", PARTS)
def test_sequence_numbers_wrap(part: str) -> None:
    flash = Flash(part)
    save(state(0))
    record = bytearray(flash.read(STATE_A, 320))
    record[4:8] = (0xFFFFFFFE).to_bytes(4, "little")
    record[-4:] = zlib.crc32(record[:-4]).to_bytes(4, "little")
    flash.write(STATE_A, bytes(record))
    for number in range(1, 40):
        assert save(state(number))
        assert load(300) == state(number)


@pytest.mark.parametrize("part", PARTS)
def test_a_flash_that_refuses_keeps_the_old_state_and_says_so(part: str) -> None:
    flash = Flash(part)
    for number in range(13):
        save(state(number))
    flash.refuse(on=True)
    for number in range(13, 40):
        assert not save(state(number))
        assert load(300) == state(12)
    flash.refuse(on=False)
    assert save(state(40))
    assert load(300) == state(40)


def test_a_clock_set_back_neither_confirms_a_model_nor_keeps_it_on_probation_for_ever() -> None:
    day_s = 86_400
    provision(Flash("L0"), PUBLIC, model().pack())
    node = Node()
    sender = Fragmenter(HEAD, 115, 2)
    node.downlink(sender.setup() + sender.fragment(0))
    for step in range(1, sender.count):
        node.downlink(sender.fragment(step))
    assert node.poll(1_900_000_000)
    node.probation(0, 0, 0, 1_700_000_000)
    assert node.on_probation
    node.probation(0, 0, 0, 1_700_000_000 + 27 * day_s)
    assert node.on_probation
    node = Node()
    node.probation(0, 0, 0, 1_700_000_000 + 28 * day_s)
    assert not node.on_probation
    assert node.version == 2


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("phase", PHASES)
def test_power_cut_at_any_operation_of_any_phase_leaves_a_sound_node(part: str, phase: str) -> None:
    trial = HostTrial(phase, Part[part], sanitize=True)
    assert trial.operations >= 6
    for operation in range(trial.operations):
        torn, seed = CUTS[operation % 3]
        trial.single(operation, torn=torn, seed=seed + operation)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("phase", PHASES)
def test_a_second_power_cut_during_the_recovery_leaves_a_sound_node(part: str, phase: str) -> None:
    trial = HostTrial(phase, Part[part], sanitize=True)
    for operation in range(0, trial.operations, 1 + trial.operations // 6):
        assert trial.pairs(operation, torn=operation % 2 == 0, seed=operation + 7, every=5)


def assert_sound(allowed: set[tuple[int, bytes | None]]) -> Node:
    """After any reset: one complete verified model or none, and one that may run now."""
    node = Node()
    assert (node.version, node.model) in allowed
    return node


OLD, NEW = (1, model().pack()), (2, improved().pack())


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("container", [HEAD, FULL], ids=["head", "full"])
def test_a_power_cut_during_an_update_leaves_the_old_model_or_the_new(part: str, container: bytes) -> None:
    flash = Flash(part)
    provision(flash, PUBLIC, model().pack())
    Node()
    before = flash.read()
    operations = replay(before, part, lambda: Node().receive(container, 2))
    assert operations > 80
    for operation in range(operations + 1):
        torn, seed = CUTS[operation % 3]
        flash = Flash(part)
        flash.write(0, before)
        with flash.cut(operation, torn=torn, seed=seed + operation):
            Node().receive(container, 2)
        node = assert_sound({OLD, NEW})
        if node.version == 1:
            assert node.receive(container, 2), "the update can be repeated"
        assert_sound({NEW})


@pytest.mark.parametrize("part", PARTS)
def test_a_power_cut_at_the_first_boot_leaves_the_factory_model(part: str) -> None:
    flash = Flash(part)
    provision(flash, PUBLIC, model().pack())
    before = flash.read()
    for operation in range(replay(before, part, Node) + 1):
        for torn, seed in CUTS:
            flash = Flash(part)
            flash.write(0, before)
            with flash.cut(operation, torn=torn, seed=seed):
                Node()
            assert_sound({OLD})


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("energy", "after"), [(0, {NEW}), (1000, {OLD, NEW})])
def test_a_power_cut_while_concluding_probation_is_harmless(
    part: str, energy: int, after: set[tuple[int, bytes | None]]
) -> None:
    flash = Flash(part)
    provision(flash, PUBLIC, model().pack())
    Node().receive(HEAD, 2)
    before = flash.read()

    def conclude() -> None:
        Node().probation(energy, 10, 8)

    for operation in range(replay(before, part, conclude) + 1):
        for torn, seed in CUTS:
            flash = Flash(part)
            flash.write(0, before)
            with flash.cut(operation, torn=torn, seed=seed):
                conclude()
            node = assert_sound(after)
            node.probation(energy, 10, 8)
            assert_sound({OLD} if energy else {NEW})


@pytest.mark.parametrize("part", PARTS)
def test_a_power_cut_while_the_boot_log_changes_areas_is_harmless(part: str) -> None:
    flash = Flash(part)
    provision(flash, PUBLIC, model().pack())
    version = 1
    while True:
        before, version = flash.read(), version + 1
        image = improved(head=version)
        Node().receive(sign(build_head(image, version), SECRET), version)
        Node().probation(0, 0, 8)
        if _changed_areas(before, flash.read()):
            break
    container = sign(build_head(image, version), SECRET)
    old, new = (version - 1, improved(head=version - 1).pack()), (version, image.pack())

    def update() -> None:
        node = Node()
        node.receive(container, version)
        node.probation(0, 0, 8)

    for operation in range(replay(before, part, update) + 1):
        flash = Flash(part)
        flash.write(0, before)
        with flash.cut(operation, torn=True, seed=operation + 3):
            update()
        assert_sound({old, new})


def _changed_areas(before: bytes, after: bytes) -> bool:
    other = slice(BOOT_A + 0x800, BOOT_A + 0x1000)
    return before[other] != after[other]


@pytest.mark.parametrize("part", PARTS)
def test_a_slot_that_rots_is_left_for_the_other_and_then_for_none(part: str) -> None:
    flash = Flash(part)
    provision(flash, PUBLIC, model().pack())
    Node().receive(HEAD, 2)
    Node().probation(0, 0, 8)
    flash.write(0x2000 + 100, bytes([flash.read(0x2000 + 100, 1)[0] ^ 4]))
    assert_sound({OLD})
    flash.write(MODEL_A + 100, bytes([flash.read(MODEL_A + 100, 1)[0] ^ 4]))
    node = assert_sound({(0, None)})
    assert node.receive(sign(build_full(improved(), 3), SECRET), 3)


def test_a_factory_model_that_is_not_sound_does_not_run() -> None:
    for position in (0, 20, 300, 650, 699):
        damaged = bytearray(model().pack())
        damaged[position] ^= 0x10
        provision(Flash("L0"), PUBLIC, bytes(damaged))
        assert Node().model is None
