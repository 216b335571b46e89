"""Settings in force: C and Python accept and refuse the same pages and changes, and a change survives or never was."""

from __future__ import annotations

import dataclasses
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import key_pair, model
from update_cases import CHANGES_A, SETTINGS_OFFSET, Flash, provision

from shared_models.frames import FrameError, SettingsChange, decode_settings_change
from shared_models.settings import SETTINGS_LAYOUT, SETTINGS_SIZE, Setting, Settings, SettingsError

_, PUBLIC = key_pair(1)
PARTS = ("L0", "L4", "L4_ECC")


def new_flash(part: str = "L0") -> tuple[Flash, Settings]:
    flash = Flash(part)
    provision(flash, PUBLIC, model().pack())
    provisioned = flash.load_settings()
    assert provisioned is not None
    return flash, provisioned


def values(setting: Setting) -> st.SearchStrategy[int]:
    low, high = setting.field.limits
    return st.one_of(st.integers(low, high), st.sampled_from([low, high, max(low - 1, -(1 << 31)), high + 1]))


CHANGES = st.dictionaries(st.sampled_from(Setting), st.integers(), max_size=10).flatmap(
    lambda chosen: st.fixed_dictionaries({setting: values(setting) for setting in chosen})
)


def raw(changes: dict[Setting, int]) -> bytes:
    return b"\4" + b"".join(bytes([s]) + (v & 0xFFFFFFFF).to_bytes(4, "little") for s, v in changes.items())


@settings(max_examples=120)
@given(st.lists(CHANGES, max_size=4))
def test_changes_are_taken_and_refused_alike_and_outlive_a_reset(sequence: list[dict[Setting, int]]) -> None:
    flash, reference = new_flash()
    for changes in sequence:
        payload = raw(changes)
        try:
            expected = reference.changed(decode_settings_change(payload).changes)
        except (FrameError, SettingsError):
            expected = None
        assert flash.change_settings(payload) == (expected is not None)
        reference = expected or reference
        assert flash.settings_in_force == flash.load_settings() == reference


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=60), st.binary(max_size=50).map(lambda data: b"\4" + data)))
def test_arbitrary_payloads_are_taken_and_refused_alike(payload: bytes) -> None:
    flash, reference = new_flash()
    try:
        expected = reference.changed(decode_settings_change(payload).changes)
    except (FrameError, SettingsError):
        expected = None
    assert flash.change_settings(payload) == (expected is not None)
    assert flash.load_settings() == (expected or reference)


@settings(max_examples=250)
@given(st.data())
def test_a_page_is_taken_or_refused_alike_however_right_its_crc(data: st.DataObject) -> None:
    flash, _ = new_flash()
    page = bytearray(flash.read(SETTINGS_OFFSET, SETTINGS_SIZE))
    for field in data.draw(st.lists(st.sampled_from(SETTINGS_LAYOUT.fields), min_size=1, max_size=3)):
        at = SETTINGS_LAYOUT.offset(field.name)
        low, high = (0, 255) if field.type == "bytes" else field.limits
        value = data.draw(st.sampled_from([low, high, low - 1, high + 1, 0, 1]))
        size = 1 if field.type == "bytes" else field.size
        page[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
    page[-4:] = zlib.crc32(page[:-4]).to_bytes(4, "little")
    flash.write(SETTINGS_OFFSET, bytes(page))
    try:
        expected = Settings.unpack(bytes(page))
    except SettingsError:
        expected = None
    assert flash.load_settings() == expected


@pytest.mark.parametrize("part", PARTS)
def test_the_newest_of_many_changes_holds_and_a_repetition_costs_no_flash(part: str) -> None:
    flash, reference = new_flash(part)
    dice = random.Random(3)
    for _ in range(120):
        setting = dice.choice([Setting.DOSE_E1_MM, Setting.CROP, Setting.UTC_OFFSET_MIN, Setting.SEASONAL_CAP_MM])
        change = {setting: dice.randint(*setting.field.limits)}
        payload = SettingsChange(change).encode()
        reference = reference.changed(change)
        assert flash.change_settings(payload)
        before = flash.operations
        assert flash.change_settings(payload)
        assert flash.operations == before
        assert flash.load_settings() == reference


def test_a_node_provisioned_anew_forgets_what_came_down_before() -> None:
    flash, provisioned = new_flash()
    assert flash.change_settings(SettingsChange({Setting.DOSE_E1_MM: 150}).encode())
    another = dataclasses.replace(provisioned, threshold_permille=300)
    flash.write(SETTINGS_OFFSET, another.pack())
    assert flash.load_settings() == another
    assert flash.change_settings(SettingsChange({Setting.DAILY_CAP_MM: 30}).encode())
    assert flash.load_settings() == another.changed({Setting.DAILY_CAP_MM: 30})


def test_a_window_may_move_only_as_a_whole_that_is_not_empty() -> None:
    flash, provisioned = new_flash()
    assert not flash.change_settings(SettingsChange({Setting.WINDOW_START_H: 20}).encode())
    assert flash.load_settings() == provisioned
    assert flash.change_settings(SettingsChange({Setting.WINDOW_START_H: 20, Setting.WINDOW_END_H: 24}).encode())


def test_changes_kept_in_flash_are_not_believed_where_they_make_no_sense() -> None:
    """A record with a right CRC but fields that no downlink could have set, as a faulty programmer might write it."""
    flash, provisioned = new_flash()
    assert flash.change_settings(SettingsChange({Setting.WINDOW_END_H: 12}).encode())
    record = bytearray(flash.read(CHANGES_A, 88))
    at = 8 + 4 + 4 * (Setting.WINDOW_END_H - 1)
    for value, expected in ((3, provisioned), (99, provisioned), (14, provisioned.changed({Setting.WINDOW_END_H: 14}))):
        record[at : at + 4] = value.to_bytes(4, "little")
        record[84:88] = zlib.crc32(record[:84]).to_bytes(4, "little")
        flash.write(CHANGES_A, bytes(record))
        assert flash.load_settings() == expected


@pytest.mark.parametrize("part", PARTS)
def test_a_flash_that_refuses_refuses_the_change(part: str) -> None:
    flash, provisioned = new_flash(part)
    flash.refuse(on=True)
    assert not flash.change_settings(SettingsChange({Setting.DOSE_E1_MM: 150}).encode())
    assert flash.settings_in_force == flash.load_settings() == provisioned
    flash.refuse(on=False)
    assert flash.change_settings(SettingsChange({Setting.DOSE_E1_MM: 150}).encode())


def test_identity_keys_board_and_valve_cannot_be_named() -> None:
    named = {setting.name.lower() for setting in Setting}
    assert named.isdisjoint(
        {"magic", "version", "length", "dev_eui", "join_eui", "app_key", "public_key", "board", "valve", "max_on_s"}
        | {"wake_phase_s", "commissioning_days", "reserved", "crc32"}
    )
    flash, provisioned = new_flash()
    for number in (0, *range(len(Setting) + 1, 256)):
        assert not flash.change_settings(bytes([4, number, 1, 0, 0, 0]))
    assert flash.load_settings() == provisioned
