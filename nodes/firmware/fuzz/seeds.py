"""What the fuzz targets start from, made by ``shared_models``: a provisioned node, and inputs a real one would meet."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import monocypher
import numpy as np

from nodes.flash_map import MODELS, REGION_SIZE, SETTINGS
from shared_models.codes import Board, Crop, FPort
from shared_models.container import (
    HEADER_SIZE,
    KeyChange,
    authenticate,
    build_delta,
    build_full,
    build_head,
    build_keys,
    build_personal,
    sign,
)
from shared_models.factory import factory_image
from shared_models.fragmentation import (
    Fragmenter,
    package_version_request,
    session_delete_request,
    session_status_request,
)
from shared_models.frames import Override, OverrideAction, SettingsChange
from shared_models.network import ModelImage, head_weights, quantise_head
from shared_models.settings import Setting, Settings

START_S = 1_777_593_600
"""2026-05-01 00:00 UTC."""
_SIGNATURE_SIZE = 64
_SECRET = bytes([7]) * 32
_FRAME_LIMIT = 222
_UPDATE_KEY = bytes(range(16))


@cache
def _key_pair() -> tuple[bytes, bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        public: bytes = monocypher.compute_signing_public_key(_SECRET)
    return _SECRET + public, public


def _settings(**changes: object) -> Settings:
    values: dict[str, object] = {
        "dev_eui": "a1b2c3d4e5f60718",
        "board": Board.STM32L072,
        "crop": Crop.MAIZE,
        "planting_time_s": START_S - 20 * 86400 + 6 * 3600,
        "season_days": 120,
        "season": 2026,
        "wake_phase_s": 137,
        "telemetry_period_h": 1,
        "statistics_period_h": 1,
        "public_keys": (_key_pair()[1], bytes(32)),
        "update_key": _UPDATE_KEY,
    }
    return Settings(**(values | changes))  # type: ignore[arg-type]


def _improved() -> ModelImage:
    image = factory_image()
    weights = head_weights(image)
    return quantise_head(image, weights + np.random.default_rng(1).normal(0, 0.02, weights.shape))


def _array(name: str, data: bytes) -> str:
    return f"static const uint8_t {name}[{len(data)}] = {{{', '.join(map(str, data))}}};\n"


def provisioned_header() -> str:
    """A C header with the flash of a node as it leaves the factory, and the key that signs for it."""
    region = bytearray(b"\xff" * REGION_SIZE)
    page, image = _settings().pack(), factory_image().pack()
    region[SETTINGS.offset : SETTINGS.offset + len(page)] = page
    region[MODELS[0].offset : MODELS[0].offset + len(image)] = image
    secret, public = _key_pair()
    arrays = {
        "noria_fuzz_region": bytes(region),
        "noria_fuzz_secret": secret,
        "noria_fuzz_public_keys": public + bytes(32),
        "noria_fuzz_update_key": _UPDATE_KEY,
    }
    text = "".join(f"__attribute__((unused, aligned(8))) {_array(name, data)}" for name, data in arrays.items())
    return f"#ifndef NORIA_PROVISIONED_H\n#define NORIA_PROVISIONED_H\n#include <stdint.h>\n{text}#endif\n"


def _stretches(parts: list[bytes]) -> bytes:
    """What ``noria_fuzz_take`` takes apart."""
    return b"".join(bytes([len(part)]) + part for part in parts)


def _containers() -> list[bytes]:
    secret, _ = _key_pair()
    image = _improved()
    return [
        sign(build_full(image, 2), secret),
        sign(build_head(image, 2), secret),
        sign(build_head(image, 3, [Board.STM32L432]), secret),
        sign(build_delta(image, factory_image(), 2), secret),
        sign(build_keys(KeyChange(0, bytes(range(32))), 2), secret),
        authenticate(build_personal(image, factory_image(), 2), _UPDATE_KEY, _settings().dev_eui),
        sign(build_full(factory_image(), 4), bytes([8]) * 32 + secret[32:]),
    ]


def _settings_downlinks() -> list[bytes]:
    orders = [
        Override(OverrideAction.STOP, START_S + 86400),
        Override(OverrideAction.WATER, 150),
        Override(OverrideAction.RESUME, 0),
    ]
    return [
        *(_stretches([order.encode()]) for order in orders),
        _stretches([order.encode() for order in orders]),
        _stretches([b"\x02\xff\xff\xff\xff", b"", bytes(222)]),
        _stretches([SettingsChange({Setting.DOSE_E1_MM: 150}).encode()]),
        _stretches(
            [SettingsChange({Setting.WINDOW_START_H: 5, Setting.WINDOW_END_H: 9, Setting.SEASON: 2027}).encode()]
        ),
    ]


def _fragmentation_downlinks() -> list[bytes]:
    inputs = [
        _stretches([package_version_request(), session_status_request(), session_delete_request()]),
        _stretches([package_version_request() + session_status_request() + session_delete_request()]),
        _stretches([bytes([2, 0x30, 40, 0, 219, 0, 0, 9, 0, 0, 0]), session_status_request()]),
    ]
    for container in _containers():
        sender = Fragmenter(container, 222, 2)
        whole = [sender.setup(), *(sender.fragment(step) for step in range(sender.count))]
        coded = [sender.setup(), *(sender.fragment(step) for step in range(1, sender.count + 2))]
        inputs += [_stretches(whole), _stretches(coded), _stretches([sender.setup(), session_delete_request()])]
    small = Fragmenter(bytes(range(60)), 23, 5)
    inputs.append(_stretches([small.setup() + b"".join(small.fragment(step) for step in (0, 4, 2, 1, 5, 6))]))
    return inputs


def _at_lines() -> list[bytes]:
    order = Override(OverrideAction.WATER, 100).encode().hex().upper()
    joined, rate = b"\r\nAT+NJS=1\r\n\r\nOK\r\n", b"\r\nAT+DR=3\r\n\r\nOK\r\n"
    sent = b"\r\nOK\r\n"
    received = f"\r\n+EVT:TX_DONE\r\n\r\n+EVT:RX_1:-71:8:UNICAST:{int(FPort.SETTINGS)}:{order}\r\n".encode()

    def session(*answers: bytes) -> bytes:
        return _stretches([part for answer in answers for part in (answer, b"")])

    return [
        session(joined, rate, sent + b"\r\n+EVT:TX_DONE\r\n", sent + received),
        _stretches([joined, b"", rate, b"", sent, received, sent, b"\r\n+EVT:RX_2:-120:-20:UNICAST:201:00\r\n"]),
        session(b"\r\nAT+NJS=0\r\n\r\nOK\r\n", b"\r\nOK\r\n\r\n+EVT:JOINED\r\n", rate, sent + received),
        session(b"\r\nAT+NJS=0\r\n\r\nOK\r\n", b"\r\nOK\r\n\r\n+EVT:JOIN_FAILED_TX_TIMEOUT\r\n"),
        session(joined, rate, b"\r\nAT_BUSY_ERROR\r\n", joined, rate, b"\r\nAT_PARAM_ERROR\r\n"),
        session(joined, rate, b"\r\nAT_NO_NETWORK_JOINED\r\n", b"\r\nAT_ERROR\r\n"),
        session(joined, b"\r\nAT+DR=7\r\n\r\nOK\r\n", sent + b"\r\n+EVT:RX_1:-71:8:UNICAST:10:ABC\r\n"),
        session(b"\xff\x00\x80garbage\r\n", b"x" * 250, b"\r\n\r\n\r\n", joined),
        session(joined, rate, sent + b"\r\n+EVT:TX_DONE\r\n\r\n+EVT:RX_1:1:1:UNICAST:999:00\r\n"),
        session(joined, rate, b"\r\nAT+LTIME=12h30m05s on 05/01/2026\r\n\r\nOK\r\n", b"\r\n+EVT:TIMEREQ_OK\r\n"),
    ]


def _settings_pages() -> list[bytes]:
    pages = [
        _settings().pack(),
        _settings(board=Board.STM32L432, crop=Crop.POTATO, utc_offset_min=-840, wake_phase_s=899).pack(),
        _settings(awc_prior_permille=150, min_interval_h=0, window_start_h=0, window_end_h=24, season_days=1).pack(),
        _settings(planting_time_s=START_S + 86400, commissioning_days=60, max_on_s=1).pack(),
    ]
    return [bytes([checked]) + page for page in pages for checked in (0, 1)]


def _data_regions() -> list[bytes]:
    def patch(offset: int, data: bytes) -> bytes:
        return offset.to_bytes(2, "little") + bytes([len(data)]) + data

    areas = (0x0000, 0x0800, 0x1000, 0x1800, 0x2000, 0x2800, 0x3000, 0x3800, 0x4000, 0x5000)
    torn = [patch(area + 16, b"\xff" * 8) for area in areas]
    noise = [patch(area, bytes((index * 7919 >> 3) % 251 for index in range(200))) for area in areas]
    return [b"", *torn, *noise, b"".join(torn), patch(MODELS[0].offset + 100, b"\x55")]


def corpora() -> dict[str, list[bytes]]:
    """Inputs by the target's name."""
    containers = _containers()
    return {
        "settings_downlinks": _settings_downlinks(),
        "fragmentation_downlinks": _fragmentation_downlinks(),
        "at_lines": _at_lines(),
        "container_downlinks": [_stretches([data, b"\0", data]) for data in containers if len(data) <= _FRAME_LIMIT],
        "container": [*containers, containers[0][:80], b""],
        "signed_container": [container[:-_SIGNATURE_SIZE] for container in containers],
        "decoder": [container[HEADER_SIZE:-_SIGNATURE_SIZE] for container in containers],
        "engine": [factory_image().pack(), _improved().pack()],
        "settings_page": _settings_pages(),
        "data_region": _data_regions(),
    }


def write_corpora(folder: Path) -> dict[str, Path]:
    """Write every corpus, one file an input; the folders by the target's name."""
    folders = {}
    for name, inputs in corpora().items():
        folders[name] = folder / name
        folders[name].mkdir(parents=True, exist_ok=True)
        for index, data in enumerate(inputs):
            (folders[name] / f"{index:03d}").write_bytes(data)
    return folders
