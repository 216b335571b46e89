"""Releases: signed, content-addressed, immutable; made only of what passed the gate."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError
from server_cases import KEY, new_store, random_image, release, shared_truth, sums_of

from server import campaigns, federation, improvement, releases, signing, store, withdrawals
from server.config import FederationSection, ServerSettings
from server.differences import compare
from server.releases import Recipient, ReleaseError, Upcoming
from server.secret_files import KeyFileError
from server.signing import SigningKey
from server.strategy import Collected, SiteSums, Verdict
from server.verification import verify
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


KNOWN_FARMS = FederationSection(minimum_sites=2)


def decide(
    connection: sqlite3.Connection, folder: Path, number: int, federation: FederationSection = KNOWN_FARMS
) -> dict:
    settings = ServerSettings(state_dir=folder, key_file=folder / "key", federation=federation)
    base = releases.find(connection, "latest")
    return asyncio.run(improvement.decide(connection, settings, KEY, base, number, 2_000, asyncio.Lock()))


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
        entry.site: {"contributors": 4, "windows": 600, "sums_hash": federation.sums_hash(entry.sums)}
        for entry in federation.site_sums(connection, number)
    }
    assert set(release.provenance["code"]) == {"version", "hash"}
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
    assert outcome["reason"].startswith("sites that answered usably: 1, 2 are needed")


def test_a_few_farms_release_nothing_unless_the_operator_says_that_they_are_known(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    number = round_of(connection, *[1] * 29)
    outcome = decide(connection, tmp_path, number, FederationSection())
    assert (
        "sites that answered usably: 29, 30 are needed (fewer among known farms: [federation] minimum_sites)"
        in outcome["message"]
    )
    assert connection.execute("SELECT count(*) FROM releases").fetchone()[0] == 1
    assert decide(connection, tmp_path, number)["verdict"] == "passed"


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
        release(connection, image, base, evidence={"held_back": sites})
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
        release(connection, other, releases.find(connection, 1))


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


# Containers by what nodes run


def run_by(connection: sqlite3.Connection, versions: dict[int, int]) -> None:
    """Nodes of one site: how many run which version."""
    connection.execute("INSERT INTO sites VALUES ('champion', 1, '{}')")
    counted = (version for version, nodes in versions.items() for _ in range(nodes))
    connection.executemany(
        "INSERT INTO nodes VALUES (?, 'champion', 1, ?, ?, 3000, 1, 1, NULL)",
        [(f"{number:016x}", version, random_image().backbone_id) for number, version in enumerate(counted)],
    )


def improved(connection: sqlite3.Connection, factor: float) -> releases.Release:
    base = releases.find(connection, "latest")
    connection.execute(
        "INSERT OR IGNORE INTO rounds (id, started_s, state, backbone_id, base_version) VALUES (1, 1, 'released', 1, 1)"
    )
    image = quantise_head(base.image, factor * shared_truth())
    return release(connection, image, base)


def with_tweak(image: ModelImage, unit: int) -> ModelImage:
    """Another backbone, a single weight away."""
    weights = image.first.weights.copy()
    weights[unit, 0] += 1 if weights[unit, 0] < 127 else -1
    return replace(image, first=replace(image.first, weights=weights))


def refreshed(connection: sqlite3.Connection, unit: int) -> releases.Release:
    """A release whose backbone is new, as far as the registry is concerned."""
    base = releases.find(connection, "latest")
    image = with_tweak(base.image, unit)
    stand_in = replace(base, backbone_id=image.backbone_id, image=image)
    return release(connection, image, stand_in)


def test_a_difference_is_stored_against_every_version_that_nodes_run(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    improved(connection, 0.5)
    refreshed(connection, 1)
    run_by(connection, {1: 3, 3: 1, 9: 2})
    newest = refreshed(connection, 2)
    names = releases.sizes(connection, newest.version)
    assert set(names) == {
        "full",
        f"head for backbone {newest.backbone_id:08x}",
        "delta from release 1",
        "delta from release 3",
    }, "9 is no release of ours, and nobody runs 2"
    assert names["delta from release 3"] < names["full"]
    assert [entry.problems for entry in verify(connection, [KEY.public])] == [()] * 4
    container = connection.execute("SELECT container FROM artefacts WHERE kind = 'delta' AND base = 3").fetchone()[0]
    node = Receiver(Board.STM32L072, [KEY.public], 3, releases.find(connection, 3).image)
    assert open_container(container, node).pack() == newest.image.pack()


def test_a_difference_that_saves_nothing_or_cannot_be_made_is_left_out(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    run_by(connection, {1: 3})
    assert "delta from release 1" not in releases.sizes(connection, improved(connection, 1.0).version), "a head is less"
    other_grid = replace(random_image().second, shift=random_image().second.shift - 1)
    stranger = replace(random_image(), second=other_grid)
    signed = releases.sign(KEY, stranger, Upcoming(9, {1: releases.find(connection, 1).image}))
    assert [artefact.kind for artefact in signed.artefacts] == ["full", "head"]


def test_an_assignment_gets_the_containers_its_nodes_can_use(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    improved(connection, 0.5)
    run_by(connection, {1: 3, 2: 1})
    newest = refreshed(connection, 1)
    same = newest.backbone_id
    someone = "00" * 7 + "03"
    connection.execute("INSERT INTO artefacts VALUES (?, 'personal', 2, ?, 'aa', 1, x'00')", (newest.version, someone))
    cases = [
        ([], ["full"]),
        ([Recipient("00" * 8, 1, 77)], ["delta 1", "full"]),
        ([Recipient("00" * 8, 7, same)], ["full", "head"]),
        ([Recipient("00" * 8, 2, same)], ["delta 2", "full", "head"]),
        ([Recipient("00" * 8, 2, 77), Recipient("00" * 8, 1, 77)], ["delta 1", "delta 2", "full"]),
        ([Recipient(someone, 2, same)], ["delta 2", "full", "head", "personal 2"]),
        ([Recipient(someone, 1, same)], ["delta 1", "full", "head"]),
    ]
    for recipients, names in cases:
        found = releases.artefacts(connection, newest.version, recipients)
        based = ("delta", "personal")
        assert sorted(f"{a.kind} {a.base}" if a.kind in based else a.kind for a in found) == names
        sizes = [len(artefact.container) for artefact in found]
        assert sizes == sorted(sizes), "smallest first"


# Withdrawn


def withdraw(connection: sqlite3.Connection, version: int, reason: str = "it forgets clay") -> dict:
    return withdrawals.withdraw(connection, "ann", {"release": version, "reason": reason}, 9)


def test_a_withdrawn_release_is_kept_and_passed_over(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    improved(connection, 0.5)
    improved(connection, 1.0)
    run_by(connection, {3: 2, 1: 1})
    result = withdraw(connection, 3)
    assert result["message"].startswith("release 3 is withdrawn; 2 nodes run it and keep it until")
    assert releases.find(connection, "latest").version == 2
    assert releases.find(connection, 3).version == 3
    entry = connection.execute("SELECT * FROM audit ORDER BY id DESC LIMIT 1").fetchone()
    assert (entry["actor"], entry["action"], entry["subject"], entry["detail"]) == (
        "ann",
        "release.withdrawn",
        "release 3",
        "it forgets clay",
    )
    for version in (3, 1, 7):
        with pytest.raises(ReleaseError, match=r"withdrawn already|factory model|no release 7"):
            withdraw(connection, version)
    assert withdraw(connection, 2)["learned_from_it"] == [3]
    assert releases.find(connection, "latest").version == 1


def test_a_withdrawal_is_for_good(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    improved(connection, 1.0)
    withdraw(connection, 2)
    for statement in ("DELETE FROM withdrawals", "UPDATE withdrawals SET reason = 'none'"):
        with pytest.raises(sqlite3.IntegrityError, match="for good"):
            connection.execute(statement)
    with pytest.raises(ValidationError):
        withdraw(connection, 2, "  ")


def test_a_release_under_way_is_not_withdrawn(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    improved(connection, 1.0)
    run_by(connection, {1: 2})
    campaign = campaigns.create(connection, "ann", campaigns.Plan(release=2), 9)
    for action in (campaigns.Action.APPROVE, campaigns.Action.START):
        campaigns.act(connection, "ann", campaign, action, 9)
    with pytest.raises(ReleaseError, match=r"campaign 1 \(running\) still carries release 2"):
        withdraw(connection, 2)
    campaigns.act(connection, "ann", campaign, campaigns.Action.ABORT, 9)
    withdraw(connection, 2)
    with pytest.raises(campaigns.CampaignError, match="release 2 is withdrawn: it forgets clay"):
        campaigns.create(connection, "ann", campaigns.Plan(release=2), 9)


def test_the_next_round_goes_on_from_what_is_not_withdrawn(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    first = decide(connection, tmp_path, round_of(connection, 1, 1, 1))
    withdraw(connection, first["version"])
    again = decide(connection, tmp_path, round_of(connection, 1, 1, 1))
    assert again["reason"] == "this very model is release 2 already", "what was withdrawn does not come back by itself"
    other = decide(connection, tmp_path, round_of(connection, 1.5, 1.5, 1.5))
    assert releases.find(connection, other["version"]).base_version == 1


def test_a_round_whose_base_is_withdrawn_meanwhile_releases_nothing(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    improved(connection, 0.5)
    base = releases.find(connection, 2)
    number = round_of(connection, 1, 1, 1)
    withdraw(connection, 2)
    settings = ServerSettings(state_dir=tmp_path, key_file=tmp_path / "key", federation=KNOWN_FARMS)
    outcome = asyncio.run(improvement.decide(connection, settings, KEY, base, number, 9, asyncio.Lock()))
    assert outcome["verdict"] == "refused"
    assert "release 2, from which it would go on, was withdrawn meanwhile: it forgets clay" in outcome["reason"]


# Differences


def test_a_difference_counts_what_changed_and_how_far_the_forecasts_part(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    newer = improved(connection, 1.0)
    factory = releases.find(connection, 1)
    found = compare(connection, factory, newer)
    first, second, head = found.layers
    assert (first.any, second.any, head.any, found.same_backbone) == (False, False, True, True)
    changed = newer.image.head.weights.astype(int) - factory.image.head.weights
    assert (head.weights, head.largest_weight_change) == ((changed != 0).sum(), abs(changed).max())
    outputs = {change.target: change for change in found.outputs}
    assert all(0 < change.mean <= change.largest <= 255 for change in outputs.values())
    assert found.in_words().startswith("the head alone changed; furthest apart in ")
    assert found.artefacts_bytes == releases.sizes(connection, 2)
    assert compare(connection, newer, newer).in_words() == "the same model"


def test_a_difference_sees_another_backbone(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    one = releases.find(connection, 1)
    found = compare(connection, one, replace(one, image=random_image(2), backbone_id=random_image(2).backbone_id))
    assert not found.same_backbone
    assert [change.layer for change in found.layers if change.any] == ["layer 24→16", "layer 16→8"]


# Verified


def tampered(connection: sqlite3.Connection, statement: str, *arguments: object) -> list[str]:
    """What verifying finds after a change to the store by somebody who knows how to get around its triggers."""
    for trigger in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {trigger['name']}")
    connection.execute(statement, arguments)
    return [problem for entry in verify(connection, [KEY.public]) for problem in entry.problems]


def test_an_untouched_registry_is_whole(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    decide(connection, tmp_path, round_of(connection, 1, 1, 1))
    assert [(entry.version, entry.containers, entry.problems) for entry in verify(connection, [KEY.public])] == [
        (1, 2, ()),
        (2, 2, ()),
    ]
    assert len(verify(connection, [KEY.public], 2)) == 1
    with pytest.raises(ReleaseError, match="no release 3"):
        verify(connection, [KEY.public], 3)
    stranger = SigningKey.from_seed(bytes(32)).public
    problems = [problem for entry in verify(connection, [stranger]) for problem in entry.problems]
    assert len(problems) == 2 * 2 * len(Board)
    assert all("not by a trusted key" in problem for problem in problems)


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE releases SET image = x'00' WHERE version = 2", "its model is not the one its hash names"),
        ("UPDATE releases SET model_id = 1 WHERE version = 2", "its identities are not its model's"),
        ("UPDATE releases SET provenance = '{' WHERE version = 2", "it cannot be read"),
        ("UPDATE releases SET content_hash = 'aa' WHERE version = 1", "release 1 is not the one it was made from"),
        ("UPDATE site_sums SET contributors = 9, energy = zeroblob(32) WHERE site = 'site-1'", "the sums of site-1"),
        ("DELETE FROM site_sums WHERE site = 'site-2'", "the sums of site-2"),
        ("DELETE FROM artefacts WHERE version = 2 AND kind = 'full'", "no container with the full model"),
        ("UPDATE artefacts SET size_bytes = 1 WHERE version = 2 AND kind = 'full'", "bytes, not 1"),
        ("UPDATE artefacts SET content_hash = 'aa' WHERE version = 2 AND kind = 'head'", "not the one its hash names"),
        (
            "UPDATE artefacts SET container = (SELECT container FROM artefacts WHERE version = 1 AND kind = 'full')"
            " WHERE version = 2 AND kind = 'full'",
            "refuses it: version",
        ),
    ],
)
def test_whatever_was_touched_in_the_registry_is_found(tmp_path: Path, statement: str, finding: str) -> None:
    connection = new_store(tmp_path)
    decide(connection, tmp_path, round_of(connection, 1, 1, 1))
    problems = tampered(connection, statement)
    assert any(finding in problem for problem in problems), problems


def test_every_byte_of_a_container_counts(tmp_path: Path) -> None:
    connection = new_store(tmp_path)
    container = bytearray(connection.execute("SELECT container FROM artefacts WHERE kind = 'head'").fetchone()[0])
    for position in range(0, len(container), 7):
        container[position] ^= 1
        problems = tampered(connection, "UPDATE artefacts SET container = ? WHERE kind = 'head'", bytes(container))
        assert len(problems) == 1 + len(Board)
        container[position] ^= 1
