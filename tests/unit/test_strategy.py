"""Replies from SuperNodes are untrusted: each way to be wrong is refused, and the others still count."""

from __future__ import annotations

import io
import random
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, MetricRecord, RecordDict
from flwr.app.message.message import make_message
from flwr.supercore.task_identity import TaskIdentity
from server_cases import shared_truth, sums_of

from gateway.federation import reply_content
from gateway.sums import FarmSums
from server.strategy import Collected, Conditions, ReplyError, SumStatistics, exchange, read_reply, total_of
from shared_models.credibility import check_sums
from shared_models.moments import TARGET_LIMITS, Snapshot, Sums

SUMS = sums_of(1, shared_truth())
CONDITIONS = Conditions(minimum_contributors=3, minimum_windows=10)
ARRAYS = {"gram": SUMS.gram, "moment": SUMS.moment, "energy": SUMS.energy, "count": SUMS.count}
WINDOWS = int(SUMS.count.sum())


def content(**changes: object) -> RecordDict:
    arrays = {**ARRAYS, **changes.pop("arrays", {})}
    counts = {"contributors": 4, "windows": WINDOWS, **changes.pop("counts", {})}
    site = {"site": "champion", "schema": 1, **changes.pop("site", {})}
    assert not changes
    made = {name: value if isinstance(value, Array) else Array(value) for name, value in arrays.items()}
    return RecordDict({"sums": ArrayRecord(made), "counts": MetricRecord(counts), "site": ConfigRecord(site)})


@pytest.fixture(autouse=True)
def _as_a_server_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower creates messages only inside a run's process."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def reply(body: RecordDict | Error, node: int = 1) -> Message:
    """A message as the SuperLink hands it over."""
    metadata = Metadata(
        run_id=1,
        message_id="answer",
        src_node_id=node,
        dst_node_id=1,
        reply_to_message_id=f"question-{node}",
        group_id="",
        created_at=1.0,
        ttl=100.0,
        message_type="train",
    )
    if isinstance(body, Error):
        return make_message(metadata, error=body)
    return make_message(metadata, content=body)


def changed(name: str, index: tuple[int, ...], value: int) -> dict[str, np.ndarray]:
    array = ARRAYS[name].copy()
    array[index] = value
    return {name: array}


def test_what_the_gateway_sends_is_accepted() -> None:
    farm = FarmSums("tunis", 5, SUMS, 4, WINDOWS, 3, 10)
    accepted = read_reply(reply(reply_content(farm)), CONDITIONS, backbone=5)
    assert (accepted.site, accepted.contributors, accepted.windows) == ("tunis", 4, WINDOWS)
    assert accepted.sums == SUMS
    with pytest.raises(ReplyError, match="sums for backbone 5, 6 was asked for"):
        read_reply(reply(reply_content(farm)), CONDITIONS, backbone=6)


@pytest.mark.parametrize("seed", range(5))
def test_sums_of_snapshots_rounded_for_the_air_are_consistent(seed: int) -> None:
    nodes = [sums_of(seed * 10 + number, shared_truth(), windows=120) for number in range(4)]
    snapshots = [Snapshot(node.gram, node.moment, node.energy, node.count) for node in nodes]
    check_sums(total_of(Snapshot.decode(snapshot.encode()) for snapshot in snapshots))


def forged_header() -> Array:
    """A header that promises terabytes behind a declaration that is in order."""
    buffer = io.BytesIO()
    np.save(buffer, SUMS.energy)
    data = buffer.getvalue().replace(b"(4,)", b"(4000000000000,)"[:4])
    return Array("int64", (4,), "numpy.ndarray", data[:40] + b"9" + data[41:])


BAD = {
    "NaN": content(arrays={"gram": SUMS.gram.astype(float) * np.nan}),
    "another type": content(arrays={"energy": SUMS.energy.astype(np.int32)}),
    "a wrong shape": content(arrays={"moment": SUMS.moment[:, :-1].copy()}),
    "Fortran order": content(arrays={"moment": np.asfortranarray(SUMS.moment)}),
    "a forged header": content(arrays={"energy": forged_header()}),
    "a short array": content(arrays={"energy": Array("int64", (4,), "numpy.ndarray", b"\x93NUMPY")}),
    "no bytes": content(arrays={"energy": Array("int64", (4,), "numpy.ndarray", b"")}),
    "a pickle": content(arrays={"energy": Array("int64", (4,), "pickle", b"cos\nsystem\n(S'true'\ntR.")}),
    "an array too many": content(arrays={"extra": SUMS.energy}),
    "an asymmetric gram": content(arrays=changed("gram", (0, 0, 1), 5)),
    "a negative count": content(arrays=changed("count", (2,), -5)),
    "a count that is not the constant's": content(arrays=changed("count", (0,), 299)),
    "a negative energy": content(arrays=changed("energy", (0,), -1)),
    "huge energy": content(arrays=changed("energy", (0,), 2**62)),
    "huge activations": content(arrays=changed("gram", (0, 0, 0), 2**62)),
    "moments beyond Cauchy and Schwarz": content(arrays=changed("moment", (0, 0), 2**40)),
    "the least int64": content(arrays=changed("moment", (1, 1), -(2**63))),
    "too few nodes": content(counts={"contributors": 2}),
    "too few windows": content(counts={"windows": 9}),
    "more windows than its sums": content(counts={"windows": WINDOWS + 1}),
    "a float for a count": content(counts={"contributors": 4.0}),
    "a site that is a path": content(site={"site": "../champion"}),
    "a site that is a number": content(site={"site": 7}),
    "another schema": content(site={"schema": 2}),
    "nothing": RecordDict(),
    "records of the wrong kind": RecordDict(
        {"sums": ConfigRecord(), "counts": MetricRecord(), "site": ConfigRecord({"site": "a", "schema": 1})}
    ),
    "an error": Error(code=7, reason="NotEnough: 1 contributing nodes"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_reply_is_refused_with_a_reason(what: str) -> None:
    with pytest.raises(ReplyError) as refusal:
        read_reply(reply(BAD[what]), CONDITIONS)
    assert str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_arrays_of_noise_are_refused_and_never_raise_anything_else() -> None:
    rng = random.Random(1)
    good = content()
    for _ in range(300):
        name = rng.choice(sorted(ARRAYS))
        data = bytearray(good["sums"][name].data)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        spoiled = Array("int64", ARRAYS[name].shape, "numpy.ndarray", bytes(data[: rng.choice([len(data), 100, 130])]))
        try:
            read_reply(reply(content(arrays={name: spoiled})), CONDITIONS)
        except ReplyError:
            continue


def strategy(asked: tuple[int, ...], sites: dict[int, str] | None = None) -> tuple[SumStatistics, list[Collected]]:
    kept: list[Collected] = []
    made = SumStatistics(
        backbone=5,
        conditions=CONDITIONS,
        expected_sites=1,
        wait_s=0.1,
        keep=lambda _, got: kept.append(got),
        sites=sites,
    )
    grid = SimpleNamespace(get_node_ids=lambda: list(asked))
    questions = list(made.configure_train(3, ArrayRecord(), ConfigRecord(), grid))
    assert [message.metadata.dst_node_id for message in questions] == sorted(asked)
    assert dict(questions[0].content["config"]) == {"backbone": 5, "round": 3}
    return made, kept


def test_where_keys_are_registered_nobody_speaks_for_another_site() -> None:
    made, kept = strategy((1, 2, 3), sites={1: "champion", 2: "hyderabad"})
    made.aggregate_train(
        3,
        [reply(content(site={"site": site}), node) for node, site in ((1, "champion"), (2, "champion"), (3, "tunis"))],
    )
    (collected,) = kept
    assert [entry.site for entry in collected.sites] == ["champion"], "the impostor costs the true site nothing"
    assert [(entry.node_id, entry.reason) for entry in collected.verdicts] == [
        (1, ""),
        (2, "its key is not site champion's"),
        (3, "its key is not site tunis's"),
    ]


def test_good_replies_are_added_whatever_the_bad_ones_do() -> None:
    made, kept = strategy((4, 2, 3, 1))
    replies = [
        reply(content(site={"site": "tunis"}), 2),
        reply(BAD["NaN"], 3),
        reply(content(), 1),
        reply(content(site={"site": "nobody-asked"}), 99),
    ]
    arrays, metrics = made.aggregate_train(3, replies)
    assert arrays is not None
    assert np.array_equal(arrays["gram"].numpy(), 2 * SUMS.gram)
    assert metrics == {"accepted": 2, "windows": 2 * WINDOWS}
    assert [entry.site for entry in kept[0].sites] == ["champion", "tunis"]
    assert [(entry.node_id, entry.verdict) for entry in kept[0].verdicts] == [
        (1, "accepted"),
        (2, "accepted"),
        (3, "rejected"),
        (4, "silent"),
    ]


def test_two_nodes_that_claim_one_site_are_both_refused() -> None:
    made, kept = strategy((1, 2, 3))
    made.aggregate_train(3, [reply(content(), 1), reply(content(), 2), reply(content(site={"site": "tunis"}), 3)])
    assert [entry.site for entry in kept[0].sites] == ["tunis"]
    assert kept[0].tally("rejected") == 2


def test_a_node_that_answers_twice_counts_once() -> None:
    made, kept = strategy((1,))
    made.aggregate_train(3, [reply(content(), 1), reply(content(site={"site": "tunis"}), 1)])
    assert [entry.site for entry in kept[0].sites] == ["champion"]


def test_no_usable_reply_is_an_outcome_not_an_error() -> None:
    made, kept = strategy((1,))
    arrays, metrics = made.aggregate_train(3, [])
    assert arrays is None
    assert metrics == {"accepted": 0}
    assert kept[0].tally("silent") == 1


def test_the_order_of_replies_changes_nothing() -> None:
    replies = [reply(content(site={"site": site}), node) for node, site in enumerate(("a", "b", "c"), start=1)]
    outcomes = []
    for order in (replies, replies[::-1]):
        made, kept = strategy((1, 2, 3))
        made.aggregate_train(3, order)
        outcomes.append(kept[0])
    assert outcomes[0] == outcomes[1]


def test_a_dead_supernode_costs_a_patient_server_some_multiple_of_what_the_others_took() -> None:
    questions = [reply(content(), node) for node in (1, 2, 3)]

    class TwoOfThree:
        """A grid on which the third SuperNode never answers."""

        def push_messages(self, messages: list[Message]) -> list[str]:
            return [f"question-{number}" for number in range(1, len(messages) + 1)]

        def pull_messages(self, ids: list[str]) -> list[Message]:
            return [question for question in questions[:2] if question.metadata.reply_to_message_id in ids]

    # Without patience this would take the hour.
    replies = exchange(TwoOfThree(), questions, timeout_s=3_600, poll_s=0.01, patience=2)
    assert [answer.metadata.src_node_id for answer in replies] == [1, 2]


def test_empty_sums_are_consistent() -> None:
    check_sums(Sums.zero())


def test_what_a_node_may_sum_at_most_is_accepted() -> None:
    sums = Sums.zero()
    count = 40
    sums.gram[:, -1, -1] = count
    sums.count[:] = count
    sums.moment[:, -1] = [count * limit for limit in TARGET_LIMITS]
    sums.energy[:] = [count * limit**2 for limit in TARGET_LIMITS]
    check_sums(sums)


class LateGrid:
    """A Grid on which each answer arrives at its own time, some of them twice."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, arrivals: dict[int, list[float]]) -> None:
        self.now, self.pulls = 0.0, 0
        self._arrivals = {f"question-{node}": (node, times) for node, times in arrivals.items()}
        monkeypatch.setattr("server.strategy.time", SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep))

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def push_messages(self, messages: list[Message]) -> list[str]:
        return [f"question-{message.metadata.dst_node_id}" for message in messages]

    def pull_messages(self, message_ids: list[str]) -> list[Message]:
        self.pulls += 1
        due = []
        for message_id in message_ids:
            node, times = self._arrivals[message_id]
            due += [reply(content(site={"site": f"s{node}"}), node) for time_s in times if time_s <= self.now]
        return due


def test_a_late_answer_is_not_waited_for_and_a_repeated_one_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, kept = strategy((1, 2, 3, 4))
    grid = LateGrid(monkeypatch, {1: [0.0], 2: [5.0, 5.0, 5.0], 3: [11.0], 4: []})
    questions = [SimpleNamespace(metadata=SimpleNamespace(dst_node_id=node)) for node in (1, 2, 3, 4)]
    made.aggregate_train(3, exchange(grid, questions, timeout_s=10.0, poll_s=0.5))
    assert [entry.site for entry in kept[0].sites] == ["s1", "s2"]
    assert [(entry.node_id, entry.verdict) for entry in kept[0].verdicts if entry.verdict != "accepted"] == [
        (3, "silent"),
        (4, "silent"),
    ]
    assert grid.now == pytest.approx(10.0)
    assert grid.pulls <= 21
