"""A settings page is read back as written, and a damaged one is not read at all."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_models.codes import Board, Crop
from shared_models.settings import SETTINGS_LAYOUT, SETTINGS_SIZE, Setting, Settings, SettingsError

PAGE = Settings(
    dev_eui="70b3d57ed0000001",
    board=Board.STM32L072,
    crop=Crop.MAIZE,
    planting_time_s=1_714_543_200,
    season_days=132,
    season=2024,
    join_eui="0011223344556677",
    app_key=bytes(range(16)),
    public_keys=(bytes(range(32)), bytes(32)),
    utc_offset_min=-360,
)


def test_a_page_is_read_back_as_written() -> None:
    assert Settings.unpack(PAGE.pack()) == PAGE


def test_the_rest_of_the_flash_page_does_not_matter() -> None:
    assert Settings.unpack(PAGE.pack() + b"\xff" * 1900) == PAGE


def test_identities_are_stored_as_printed() -> None:
    page = PAGE.pack()
    assert page[SETTINGS_LAYOUT.offset("dev_eui") :][:8].hex() == PAGE.dev_eui
    assert page[SETTINGS_LAYOUT.offset("join_eui") :][:8].hex() == PAGE.join_eui


def test_every_single_bit_flip_is_noticed() -> None:
    page = PAGE.pack()
    for bit in range(8 * SETTINGS_SIZE):
        damaged = bytearray(page)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SettingsError):
            Settings.unpack(bytes(damaged))


def test_every_truncation_is_noticed() -> None:
    page = PAGE.pack()
    for length in range(SETTINGS_SIZE):
        with pytest.raises(SettingsError):
            Settings.unpack(page[:length])


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SettingsError):
        Settings.unpack(data)


@pytest.mark.parametrize(
    "change",
    [
        {"dev_eui": "xyz"},
        {"dev_eui": "00"},
        {"app_key": b"short"},
        {"public_keys": (b"", b"")},
        {"max_on_s": 0},
        {"season_days": 0},
        {"wake_phase_s": 900},
        {"window_start_h": 10, "window_end_h": 10},
        {"threshold_permille": 1001},
        {"utc_offset_min": 900},
    ],
)
def test_a_page_no_node_would_accept_is_not_written(change: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        dataclasses.replace(PAGE, **change).pack()


def test_a_change_is_taken_as_a_whole_or_not_at_all() -> None:
    changed = PAGE.changed({Setting.DOSE_E1_MM: 150, Setting.CROP: Crop.POTATO})
    assert changed == dataclasses.replace(PAGE, dose_e1_mm=150, crop=Crop.POTATO)
    assert isinstance(changed.crop, Crop)
    for senseless in ({Setting.WINDOW_START_H: 10}, {Setting.WINDOW_END_H: 6}, {Setting.CROP: 9}):
        with pytest.raises(SettingsError):
            PAGE.changed({Setting.DOSE_E1_MM: 150, **senseless})


def test_every_setting_is_a_number_of_the_page() -> None:
    assert [setting.field.name for setting in Setting] == [setting.name.lower() for setting in Setting]
    assert all(setting.field.type != "bytes" for setting in Setting)
