"""Every node has a key of its own, all from one secret that stays with the operator."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from nodes.provisioning import ProvisioningError, read_update_keys
from server import update_keys
from server.secret_files import KeyFileError
from server.update_keys import UpdateKeys

DEVICES = [f"70b3d57ed000000{index}" for index in range(4)]


def test_a_key_per_node_and_per_secret_the_same_every_time() -> None:
    keys, others = UpdateKeys(bytes(range(32))), UpdateKeys(bytes(range(1, 33)))
    made = [keys.of(device) for device in DEVICES]
    assert len({*made, *(others.of(device) for device in DEVICES)}) == 2 * len(DEVICES)
    assert made == [UpdateKeys(bytes(range(32))).of(device) for device in DEVICES]
    assert {len(key) for key in made} == {16}
    assert made[0].hex() == "854bfc7f13fc7585e8b1ff6278dfc7ba"


def test_the_secret_and_its_name_are_on_disk_before_anyone_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes are given keys from it at once; a power cut must not leave them with keys from nothing."""
    path, synced = tmp_path / "update.key", []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        kept = os.fstat(descriptor)
        synced.append((stat.S_ISDIR(kept.st_mode), 0 if stat.S_ISDIR(kept.st_mode) else kept.st_size))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    update_keys.generate(path)
    assert synced == [(False, 65), (True, 0)]


def test_the_secret_is_its_owners_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "update.key"
    keys = update_keys.generate(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert UpdateKeys.load(path) == keys
    assert keys.secret.hex() not in repr(keys)
    with pytest.raises(KeyFileError, match="not replaced"):
        update_keys.generate(path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError):
        UpdateKeys.load(path)


@pytest.mark.parametrize("text", ["", "zz", "00" * 31])
def test_what_is_no_secret_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "update.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(KeyFileError):
        UpdateKeys.load(path)


def test_the_table_is_what_provisioning_reads(tmp_path: Path) -> None:
    keys, table, path = UpdateKeys(bytes(range(32))), io.StringIO(), tmp_path / "keys.csv"
    update_keys.write_table(keys, DEVICES, table)
    path.write_text(table.getvalue())
    assert read_update_keys(path) == {device: keys.of(device) for device in DEVICES}


@pytest.mark.parametrize(
    "text",
    [
        "dev_eui\n70b3d57ed0000001\n",
        "dev_eui,update_key\n70b3d57ed0000001,00\n",
        "dev_eui,update_key\n70b3d57ed0000001,zz\n",
        f"dev_eui,update_key\n70b3d57ed0000001,{'00' * 16}\n",
        "dev_eui,update_key\n70b3d57ed0000001\n",
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.csv"
    path.write_text(text)
    with pytest.raises(ProvisioningError, match="update-keys"):
        read_update_keys(path)
    with pytest.raises(ProvisioningError, match="update-keys"):
        read_update_keys(tmp_path / "none.csv")
