"""Releases: signed, content-addressed, immutable; made only of what passed the gate."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from server_cases import KEY, new_store, random_image, shared_truth, sums_of

from server import federation, improvement, releases, signing, store
from server.config import ServerSettings
from server.releases import ReleaseError
from server.signing import KeyFileError, SigningKey
from server.strategy import Collected, SiteSums, Verdict
from shared_models.codes import Board, Refusal
from shared_models.container import ContainerError, Receiver, open_container
from shared_models.network import ModelImage, quantise_head


def round_of(connection: sqlite3.Connection, *truths: float) -> int:
    """A collected round: one site per factor on the shared truth."""
    base = releases.find(connection, "latest")
    number = connection.execute(
        "INSERT INTO rounds (started_s, state, backbone_id, base_version) VALUES (1, 'asking', ?, ?)",
        (base.backbone_id, base.version),
    ).lastrowid
    sites = tuple(
        SiteSums(f"site-{index}", 4, 600, sums_of(index, factor * shared_truth()))
        for index, factor in enumerate(truths)
    )
    verdicts = tuple(Verdict(index, entry.site, "accepted") for index, entry in enumerate(sites))
    federation.keep(connection, number, Collected(sites, verdicts))
    return number


def decide(connection: sqlite3.Connection, folder: Path, number: int) -> dict:
    settings = ServerSettings(state_dir=folder, key_file=folder / "key")
    return improvement.decide(connection, settings, KEY, releases.find(connection, "latest"), number, now_s=2_000)


def test_the_factory_model_is_release_1_and_registering_it_again_changes_nothing(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    again = releases.register_factory(connection, KEY, random_image(), {}, now_s=9)
    assert (again.version, again.created_s, again.origin) == (1, 1_000, "factory")
    with pytest.raises(ReleaseError, match="another model"):
        releases.register_factory(connection, KEY, random_image(2), {}, now_s=9)


def test_both_containers_restore_the_released_model_bit_for_bit(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    outcome = decide(connection, tmp_path, round_of(connection, 1, 1, 1))
    assert outcome["version"] == 2
    release = releases.find(connection, 2)
    assert release.model_id == release.image.model_id == outcome["model_id"]
    rows = connection.execute("SELECT kind, base, container FROM artefacts WHERE version = 2 ORDER BY kind").fetchall()
    assert [(row["kind"], row["base"]) for row in rows] == [("full", 0), ("head", release.backbone_id)]
    for row in rows:
        for board in Board:
            image = open_container(row["container"], Receiver(board, [KEY.public], 1, random_image()))
            assert isinstance(image, ModelImage)
            assert image.pack() == release.image.pack()
        stranger = Receiver(Board.STM32L072, [SigningKey.from_seed(bytes(32)).public], 1, random_image())
        with pytest.raises(ContainerError) as refusal:
            open_container(row["container"], stranger)
        assert refusal.value.refusal is Refusal.SIGNATURE


def test_a_release_keeps_its_reasons(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    number = round_of(connection, 1, 1)
    decide(connection, tmp_path, number)
    release = releases.find(connection, 2)
    assert (release.origin, release.base_version, release.round) == ("federation", 1, number)
    assert release.provenance["sites"] == {
        "site-0": {"contributors": 4, "windows": 600},
        "site-1": {"contributors": 4, "windows": 600},
    }
    for target in release.evidence["targets"][1:]:
        assert set(target["sites"]) == {"site-0", "site-1"}
        assert target["total"]["candidate"] < target["total"]["running"]
    row = connection.execute("SELECT * FROM rounds WHERE id = ?", (number,)).fetchone()
    assert row["version"] == 2


def test_sites_that_disagree_release_nothing_and_say_why(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    outcome = decide(connection, tmp_path, round_of(connection, 1, -1))
    assert outcome["verdict"] == "refused"
    assert outcome["reason"] == "no target passed"
    assert connection.execute("SELECT count(*) FROM releases").fetchone()[0] == 1


def test_one_site_decides_nothing(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    outcome = decide(connection, tmp_path, round_of(connection, 1))
    assert outcome["reason"] == "1 sites answered usably, 2 are needed"


def test_the_same_sums_do_not_make_a_second_release(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    decide(connection, tmp_path, round_of(connection, 1, 1, 1))
    versions = []
    for _ in range(6):
        outcome = decide(connection, tmp_path, round_of(connection, 1, 1, 1))
        versions.append(outcome.get("version"))
    assert versions[-1] is None, "the prior moves along with each release, until nothing is gained any more"


def test_a_held_back_site_is_compared_with_what_it_runs(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    round_of(connection, 1)
    heads = [0.5, 1.0, 1.5]
    held_back = [{}, {"a": "hurt"}, {"a": "hurt", "b": "hurt"}]
    for factor, sites in zip(heads, held_back, strict=True):
        base = releases.find(connection, "latest")
        image = quantise_head(base.image, factor * shared_truth())
        releases.register_improvement(connection, KEY, image, base, 1, 5, provenance={}, evidence={"held_back": sites})
    stayed = releases.stayed(connection, releases.find(connection, "latest"))
    assert {site: image.model_id for site, image in stayed.items()} == {
        "a": releases.find(connection, 2).model_id,
        "b": releases.find(connection, 3).model_id,
    }
    assert releases.stayed(connection, releases.find(connection, 2)) == {}


def test_an_earlier_round_with_half_the_windows_judges_what_came_since(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    numbers = []
    for windows in (100, 300, 500, 600):
        base = releases.find(connection, 1)
        number = connection.execute(
            "INSERT INTO rounds (started_s, state, backbone_id, base_version) VALUES (1, 'asking', ?, 1)",
            (base.backbone_id,),
        ).lastrowid
        sums = sums_of(1, shared_truth(), windows)
        entry = SiteSums("a", 4, int(sums.count.sum()), sums)
        federation.keep(connection, number, Collected((entry,), (Verdict(1, "a", "accepted"),)))
        numbers.append(number)
    found = federation.earlier_sums(connection, numbers[-1], federation.site_sums(connection, numbers[-1]))
    assert found == {"a": sums_of(1, shared_truth(), 300)}
    assert federation.earlier_sums(connection, numbers[0], federation.site_sums(connection, numbers[0])) == {}


def test_releases_and_artefacts_cannot_be_changed_or_deleted(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    for statement in (
        "UPDATE releases SET image = x'00'",
        "UPDATE releases SET evidence = '{}'",
        "DELETE FROM releases",
        "UPDATE artefacts SET container = x'00'",
        "DELETE FROM artefacts",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="immutable"):
            connection.execute(statement)


def test_a_round_takes_replies_only_once(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    number = round_of(connection, 1, 1)
    with pytest.raises(store.StoreError, match="not waiting"):
        federation.keep(connection, number, Collected((), ()))
    assert len(federation.site_sums(connection, number)) == 2
    assert federation.site_sums(connection, number)[1].sums == sums_of(1, shared_truth())


def test_another_backbone_is_not_an_improvement(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    other = quantise_head(random_image(5), shared_truth())
    with pytest.raises(ReleaseError, match="backbone"):
        releases.register_improvement(
            connection, KEY, other, releases.find(connection, 1), 1, 5, provenance={}, evidence={}
        )


def test_a_factory_model_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="cannot read"):
        releases.load_factory_model(tmp_path / "model-1.bin")
    (tmp_path / "model-1.bin").write_bytes(random_image().pack()[:-1])
    with pytest.raises(ReleaseError, match="not a model image"):
        releases.load_factory_model(tmp_path / "model-1.bin")
    (tmp_path / "model-1.bin").write_bytes(random_image().pack())
    image, card = releases.load_factory_model(tmp_path / "model-1.bin")
    assert isinstance(image, ModelImage)
    assert card == {}


def test_keys_are_private_are_never_replaced_and_sign_as_nodes_verify(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "operator"
    made = signing.generate(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.load(path) == made
    assert signing.public_key_path(path).read_text() == made.public.hex() + "\n"
    assert made.secret.hex() not in repr(made)
    with pytest.raises(KeyFileError, match="not replaced"):
        signing.generate(path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="readable by others"):
        SigningKey.load(path)
    with pytest.raises(KeyFileError, match="keygen"):
        SigningKey.load(tmp_path / "none")
    assert signing.generate(tmp_path / "again", bytes(range(32))) == SigningKey.from_seed(bytes(range(32)))
