"""A masked round, the server's strategy against real ClientApps: exact, and silent about each part."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from gateway_cases import BACKBONE
from hypothesis import given, settings
from hypothesis import strategies as st
from privacy_cases import Farm, Farms, Fleet, as_in_a_task, disclosures, make_farm

from gateway.config import NoiseSection, Privacy
from gateway.disclosures import Withheld
from gateway.masked import admit
from server.strategy import Conditions
from shared_models.masking import Cohort, Member, from_words, new_key

__all__ = ["as_in_a_task"]

KEY, MASKED, SEED = "query.key", "train.masked", "query.seed"


@pytest.fixture(scope="module")
def farms(tmp_path_factory):
    return Farms(tmp_path_factory.mktemp("farms"))


def verdicts(collected):
    return {entry.node_id: (entry.verdict, entry.reason) for entry in collected.verdicts}


@settings(max_examples=8)
@given(
    st.integers(3, 6),
    st.sets(st.sampled_from("abcdef"), max_size=3),
    st.sets(st.sampled_from("abcdef"), max_size=2),
    st.sets(st.sampled_from("abcdef"), max_size=1),
)
def test_the_total_is_that_of_the_sites_that_stayed_whoever_is_lost_before_the_seeds(farms, count, early, late, later):
    fleet = farms.fleet(count, {(KEY, 0): early, (MASKED, 0): late, (MASKED, 1): later})
    collected = fleet.round(cohort_size=6 if count == 6 and not early else 3)
    for total in collected.sites:
        (sites,) = (sites for name, sites in collected.cohorts if name == total.site)
        assert total.sums == fleet.total(sites)
        assert total.contributors == 4 * len(sites)
        assert total.members == len(sites) >= 3
    here = count - len({site for site in early if site in "abcdef"[:count]})
    if here < 3:
        assert not collected.sites
    if not (late | later) & set("abcdef"[:count]):
        assert sum(total.members for total in collected.sites) == (here if here >= 3 else 0)
    assert {entry.node_id for entry in collected.verdicts} == set(fleet.farms)


def test_a_cohort_is_tried_again_with_fresh_keys_among_the_rest(farms):
    fleet = farms.fleet(4, {(MASKED, 0): {"b"}})
    collected = fleet.round()
    assert [(total.site, total.members) for total in collected.sites] == [("cohort 1", 3)]
    assert collected.sites[0].sums == fleet.total("acd")
    assert (collected.retried, collected.given_up) == (1, 0)
    assert verdicts(collected) == {
        1: ("accepted", ""),
        2: ("silent", "no answer in time"),
        3: ("accepted", ""),
        4: ("accepted", ""),
    }
    offers = [
        (question.content["config"]["attempt"], reply.content["member"]["public-key"])
        for kind, question, reply in fleet.seen
        if kind == KEY
    ]
    assert len({attempt for attempt, _ in offers}) == 2
    assert len({key for _, key in offers}) == len(offers) == 7


@pytest.mark.parametrize("lost", [{(MASKED, 0): {"b"}}, {(SEED, 0): {"b"}}])
def test_a_cohort_of_three_that_loses_one_is_given_up(farms, lost):
    fleet = farms.fleet(3, lost)
    collected = fleet.round()
    assert not collected.sites
    assert collected.given_up == 1
    assert verdicts(collected)[2][0] == "silent"
    assert verdicts(collected)[1][0] == "rejected"


def test_no_answer_is_what_it_hides(farms):
    fleet = farms.fleet(3)
    fleet.round()
    words = [reply.content["masked"]["words"].numpy().view("uint64") for kind, _, reply in fleet.seen if kind == MASKED]
    for farm, answer in zip(fleet.farms.values(), words, strict=True):
        assert not (from_words(answer)[0].gram == farm.exact.gram).any()


def test_an_attempt_said_to_have_failed_is_never_opened(farms):
    fleet = farms.fleet(4)
    # The server does have b's answer, and claims that b failed.
    kept = []

    def hide(site, reply):
        if reply.metadata.message_type == MASKED and site == "b" and not kept:
            kept.append(reply)
            return fleet.farms[2].answer(Message(RecordDict(), dst_node_id=2, message_type=SEED))
        return reply

    fleet.spoil = hide
    collected = fleet.round()
    assert kept
    assert [total.members for total in collected.sites] == [3]
    first = next(question for kind, question, _ in fleet.seen if kind == MASKED)
    again = ConfigRecord({"backbone": BACKBONE, "attempt": first.content["config"]["attempt"]})
    for farm in fleet.farms.values():
        if farm.site != "b":
            question = Message(RecordDict({"config": again}), dst_node_id=farm.node, message_type=SEED)
            assert "no part in the attempt" in farm.answer(question).error.reason


def test_a_second_total_that_would_tell_the_sums_of_one_site_is_refused_by_its_peers(farms):
    fleet = farms.fleet(5)
    collected = fleet.round(nodes=[1, 2, 3, 4])
    assert [total.members for total in collected.sites] == [4]
    # A server that forgets its cohorts, on purpose or not.
    for nodes, reason in (([1, 2, 3], "d left"), ([1, 2, 3, 4, 5], "e joined"), ([1, 2, 3, 5], "d left")):
        refused = fleet.round(nodes=nodes)
        assert not refused.sites
        assert reason in verdicts(refused)[1][1]
    again = fleet.round(nodes=[1, 2, 3, 4])
    assert again.sites[0].sums == collected.sites[0].sums
    assert json.loads(disclosures(fleet.farms[1].store)[0][0]) == ["a", "b", "c", "d"]


def test_farms_that_accept_changes_go_on_without_one(farms):
    fleet = farms.fleet(4, privacy=Privacy(accept_changes=True))
    known = dict(fleet.round().cohorts)
    fleet.lost = {(KEY, 1): {"d"}}
    assert fleet.round(known).sites[0].sums == fleet.total("abc")


def test_a_farm_of_too_few_nodes_offers_no_key_and_does_not_say_how_many(tmp_path):
    farm = Farm(1, "a", make_farm(tmp_path / "a.db", "a", 1, contributors=2))
    verdict, reason = verdicts(Fleet([farm]).round())[1]
    assert verdict == "rejected"
    assert "too few nodes or windows stand behind this farm's sums" in reason
    assert "2" not in reason.split("NotEnough")[1]


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        (Conditions(5, 10), "12 contributing nodes behind 3 sites and 288 windows"),
        (Conditions(3, 1_000), "288 windows behind 3 sites"),
    ],
)
def test_a_total_of_too_few_nodes_or_windows_is_not_used(farms, conditions, reason):
    collected = farms.fleet(3).round(conditions=conditions)
    assert not collected.sites
    assert reason in verdicts(collected)[1][1]


def test_a_farm_that_demands_masks_never_answers_in_the_clear(tmp_path):
    farm = Farm(1, "a", make_farm(tmp_path / "a.db", "a", 1, Privacy(masking_required=True)))
    question = ConfigRecord({"backbone": BACKBONE, "round": 1})
    reply = farm.answer(Message(RecordDict({"config": question}), dst_node_id=1, message_type="train"))
    assert "answers under masks only" in reply.error.reason


def test_a_farm_that_demands_masks_adds_up_only_with_enough_that_do_too(tmp_path):
    """The others' parts, told in the clear, taken from the total would leave its own."""
    privacy = dict.fromkeys("abc", Privacy(masking_required=True)) | {"d": Privacy()}
    fleet = Fleet(
        Farm(node, site, make_farm(tmp_path / f"{site}.db", site, node, privacy[site]))
        for node, site in enumerate("abcd", start=1)
    )

    def all_alike(site, reply):
        if reply.metadata.message_type == KEY and not reply.has_error():
            reply.content["member"]["rules"] = 1
        return reply

    together = fleet.round()
    assert dict(together.cohorts) == {"cohort 1": frozenset("abc")}
    assert "1 sites with the same rules wait" in verdicts(together)[4][1]
    # A server that puts unlike sites together, by lying about one's rules, gets noise.
    fleet.spoil = all_alike
    lied = fleet.round(nodes=[1, 2, 4])
    assert not lied.sites


def test_a_farm_counts_only_members_whose_rules_hide_it_too(farms):
    pairs = {site: new_key()[1] for site in "abcd"}
    rules = {"a": 1, "b": 1, "c": 0, "d": 3}
    cohort = Cohort.of(BACKBONE, bytes(16), [Member(site, key, 0, rules[site]) for site, key in pairs.items()])
    for privacy, counted in (
        (Privacy(), "abc"),
        (Privacy(accept_changes=True), "abcd"),
        (Privacy(masking_required=True, accept_changes=True), "abd"),
    ):
        assert admit(privacy, "a", cohort, {}) == frozenset(counted)
    with pytest.raises(Withheld, match="2 members of the cohort count here, 3 are needed"):
        admit(Privacy(masking_required=True), "a", cohort, {})


def test_a_farm_that_demands_larger_cohorts_answers_in_no_smaller_one(farms):
    fleet = farms.fleet(4, privacy=Privacy(minimum_cohort=5))
    collected = fleet.round()
    assert not collected.sites
    assert "4 members of the cohort count here, 5 are needed" in verdicts(collected)[1][1]


def test_a_key_makes_one_answer(farms):
    fleet = farms.fleet(3)
    fleet.round()
    question = next(question for kind, question, _ in fleet.seen if kind == MASKED)
    assert "no part in the attempt" in fleet.farms[1].answer(question).error.reason
    fleet = farms.fleet(3, {(SEED, 0): set("abc")})
    fleet.round()
    question = next(question for kind, question, _ in fleet.seen if kind == MASKED)
    assert "has made its answer" in fleet.farms[1].answer(question).error.reason


@pytest.fixture(scope="module")
def identities(tmp_path_factory):
    """SuperNode keys of three sites, and the file by which they know one another."""
    folder = tmp_path_factory.mktemp("identities")
    lines = ["# farms of the valley", ""]
    for site in "abc":
        key = generate_private_key(SECP384R1())
        path = folder / site
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        lines.append(f"{key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()} {site}")
    (folder / "peers").write_text("\n".join(lines), encoding="utf-8")
    return folder


def known_fleet(tmp_path, identities):
    privacy = Privacy(masking_required=True, peers_file=identities / "peers")
    return Fleet(
        Farm(node, site, make_farm(tmp_path / f"{site}.db", site, node, privacy), identities / site)
        for node, site in enumerate("abc", start=1)
    )


def test_farms_that_know_one_another_add_up(tmp_path, identities):
    fleet = known_fleet(tmp_path, identities)
    assert fleet.round().sites[0].sums == fleet.total("abc")


def test_keys_that_the_server_made_up_get_no_answer_from_farms_that_know_their_peers(tmp_path, identities):
    fleet = known_fleet(tmp_path, identities)

    def in_the_middle(site, reply):
        if reply.metadata.message_type == KEY and site != "a":
            reply.content["member"]["public-key"] = new_key()[1]
        return reply

    fleet.spoil = in_the_middle
    collected = fleet.round()
    assert not collected.sites
    assert "1 members of the cohort count here, 3 are needed" in verdicts(collected)[1][1]


def test_farms_with_noise_share_it_and_pay_when_they_open(tmp_path):
    noise = NoiseSection(epsilon=50, answers=2, honest_members=3)
    privacy = Privacy(noise=noise)
    fleet = Fleet(
        Farm(node, site, make_farm(tmp_path / f"{site}.db", site, node, privacy))
        for node, site in enumerate("abc", start=1)
    )
    accepting = Conditions(3, 10, accept_noise=True)
    refused = fleet.round()
    assert "accept_noise" in verdicts(refused)[1][1]
    for _ in range(2):
        (total,) = fleet.round(conditions=accepting).sites
        assert total.noise > 0
        assert total.sums != fleet.total("abc")
    spent = fleet.round(conditions=accepting)
    assert "the privacy budget is spent: 2 answers" in verdicts(spent)[1][1]
    rows = disclosures(fleet.farms[1].store)
    assert [json.loads(cohort) for cohort, _ in rows] == [["a", "b", "c"]] * 2
    assert rows[0][1] == rows[1][1] > 0


def test_farms_share_noise_only_with_members_that_add_as_much(farms, tmp_path):
    fleet = farms.fleet(2)
    privacy = Privacy(noise=NoiseSection(epsilon=50, honest_members=2))
    careful = Farm(9, "z", make_farm(tmp_path / "z.db", "z", 9, privacy))
    collected = Fleet([*fleet.farms.values(), careful]).round(conditions=Conditions(3, 10, accept_noise=True))
    assert not collected.sites
    assert "1 members add this farm's share of noise, 2 are needed" in verdicts(collected)[9][1]


def spoilt(name, value, kind=KEY, record="member"):
    def spoil(site, reply):
        if site == "b" and reply.metadata.message_type == kind and not reply.has_error():
            reply.content[record][name] = value
        return reply

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        spoilt("schema", 2),
        spoilt("site", "../b"),
        spoilt("site", "a"),
        spoilt("public-key", b"short"),
        spoilt("public-key", "text"),
        spoilt("noise", -1),
        spoilt("noise", 1.0),
        spoilt("noise", 5),
        spoilt("signature", bytes(1_000)),
        spoilt("rules", 4),
        spoilt("rules", True),
        spoilt("rules", 1),
    ],
)
def test_a_bad_offer_costs_only_its_site(farms, spoil):
    fleet = farms.fleet(5)
    fleet.spoil = spoil
    collected = fleet.round()
    assert [total.members for total in collected.sites] in ([4], [3])
    assert verdicts(collected)[2][0] == "rejected"
    assert verdicts(collected)[5][0] == "accepted"


def test_a_site_is_taken_only_from_the_key_it_was_registered_with(farms):
    fleet = farms.fleet(5)
    names = {1: "a", 2: "elsewhere", 3: "c", 4: "d", 5: "e"}
    collected = fleet.round(registered=names)
    assert [total.members for total in collected.sites] == [4]
    assert verdicts(collected)[2] == ("rejected", "its key is not site b's")


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (MASKED, RecordDict()),
        (MASKED, RecordDict({"masked": ConfigRecord()})),
        (MASKED, RecordDict({"masked": ArrayRecord()})),
        (SEED, RecordDict()),
        (SEED, RecordDict({"seed": ConfigRecord({"seed": b""})})),
        (SEED, RecordDict({"seed": ConfigRecord({"seed": bytes(32)})})),
    ],
)
def test_a_bad_answer_costs_its_cohort_at_most(farms, kind, content):
    fleet = farms.fleet(6)

    def spoil(site, reply):
        if site == "b" and reply.metadata.message_type == kind:
            reply.content.clear()
            reply.content.update(content)
        return reply

    fleet.spoil = spoil
    collected = fleet.round()
    assert len(collected.sites) == 1
    assert "b" not in dict(collected.cohorts)[collected.sites[0].site]
    assert collected.sites[0].sums == fleet.total(dict(collected.cohorts)[collected.sites[0].site])
    assert verdicts(collected)[2][0] == "rejected"


LISTS = st.one_of(
    st.none(), st.lists(st.text(max_size=40)), st.lists(st.binary(max_size=40)), st.lists(st.integers(0, 2**63 - 1))
)


@settings(max_examples=25)
@given(LISTS, LISTS, LISTS, LISTS, LISTS, st.binary(max_size=20))
def test_whatever_a_server_sends_gets_an_error_and_never_an_answer(
    farms, sites, public_keys, noises, rules, signatures, junk
):
    farm = farms.fleet(1).farms[1] if not hasattr(farms, "one") else farms.one
    farms.one = farm
    fields = {
        "sites": sites,
        "public-keys": public_keys,
        "noises": noises,
        "rules": rules,
        "signatures": signatures,
        "attempt": junk,
    }
    question = ConfigRecord(
        {"backbone": BACKBONE, **{name: value for name, value in fields.items() if value is not None}}
    )
    for kind in (KEY, MASKED, SEED):
        reply = farm.answer(Message(RecordDict({"config": question}), dst_node_id=1, message_type=kind))
        assert reply.has_error() or (kind == KEY and set(reply.content) == {"member"})
