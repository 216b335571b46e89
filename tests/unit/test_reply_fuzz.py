"""Whatever a SuperNode answers, ``read_reply`` returns sound sums or refuses in a line, in bounded work."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_strategy import ARRAYS, CONDITIONS, WINDOWS, changed, content, reply

from server.strategy import SCHEMA, ReplyError, SiteSums, SumStatistics, check_sums, read_reply

LONGEST_REASON = 300


@pytest.fixture(autouse=True)
def _as_a_server_app(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def read(message: Message) -> SiteSums | None:
    """The sums, or None where the reply was refused as it must be."""
    try:
        accepted = read_reply(message, CONDITIONS, backbone=5)
    except ReplyError as refusal:
        reason = str(refusal)
        assert reason
        assert len(reason) < LONGEST_REASON
        assert reason.isprintable(), "a reason goes into logs and onto terminals"
        return None
    check_sums(accepted.sums)
    assert accepted.windows <= int(accepted.sums.count.sum())
    return accepted


TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["", "../champion", "a\nb", "\x1b[2J", "a" * 100_000, "ä" * 33, "\u202egnp", "champion\n", "NaN"]),
)
SCALARS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([2**53, 2**62, 2**63 - 1, -1, 0]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.booleans(),
    TEXTS,
    st.binary(max_size=40),
    st.lists(st.integers(0, 9), max_size=3),
)
METRICS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=True, allow_infinity=True),
    st.lists(st.integers(), max_size=3),
)
SHAPES = st.lists(st.one_of(st.integers(-(2**31), 2**31 - 1), st.integers(0, 10)), max_size=6).map(tuple)


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    """An array that may lie about everything it declares."""
    if draw(st.booleans()):
        kind = draw(st.sampled_from(["<i8", ">i8", "<i4", "<u8", "<f8", "<f4", "|b1", "<c16", "<U3"]))
        shape = draw(st.sampled_from([(3, 9, 9), (4, 9), (4,), (3,), (), (0,), (9, 3, 9), (1, 4)]))
        fill = draw(st.sampled_from([0, 1, -1, np.nan, np.inf]))
        with np.errstate(invalid="ignore"):
            return Array(np.full(shape, fill).astype(kind))
    name = draw(st.sampled_from(sorted(ARRAYS)))
    true = Array(ARRAYS[name])
    data = draw(
        st.one_of(st.just(true.data), st.binary(max_size=300), st.just(true.data[:-8]), st.just(true.data * 50))
    )
    return Array(
        draw(st.one_of(st.just("int64"), TEXTS)),
        draw(st.one_of(st.just(true.shape), SHAPES)),
        draw(st.one_of(st.just("numpy.ndarray"), TEXTS)),
        data,
    )


NAMES = st.one_of(st.sampled_from(sorted(ARRAYS)), TEXTS)
RECORDS = st.one_of(
    st.dictionaries(NAMES, arrays(), max_size=5).map(ArrayRecord),
    st.dictionaries(st.one_of(st.sampled_from(["contributors", "windows"]), TEXTS), METRICS, max_size=4).map(
        lambda values: MetricRecord({key: value for key, value in values.items() if value != []})
    ),
    st.dictionaries(st.one_of(st.sampled_from(["site", "schema"]), TEXTS), SCALARS, max_size=4).map(
        lambda values: ConfigRecord({key: value for key, value in values.items() if value != []})
    ),
)
BODIES = st.one_of(
    st.dictionaries(st.one_of(st.sampled_from(["sums", "counts", "site"]), TEXTS), RECORDS, max_size=4).map(RecordDict),
    st.builds(Error, st.integers(0, 2**31 - 1), st.one_of(st.none(), TEXTS)),
)
FUZZ = settings(max_examples=150, suppress_health_check=[HealthCheck.data_too_large])


@FUZZ
@given(body=BODIES)
def test_a_body_of_anything_is_refused_in_a_line(body: RecordDict | Error) -> None:
    assert read(reply(body)) is None


@FUZZ
@given(field=st.sampled_from(["site", "schema", "backbone"]), value=st.one_of(SCALARS, st.just(5)))
def test_any_identity_is_taken_exactly_when_it_is_a_site_of_this_schema(field: str, value: object) -> None:
    accepted = read(reply(content(site={field: value})))
    if field == "schema":
        assert (accepted is not None) == (type(value) is int and value == SCHEMA)
    elif field == "backbone":
        assert (accepted is not None) == (value == 5)
    elif accepted is not None:
        assert accepted.site == value
        assert len(accepted.site) <= 32
        assert accepted.site.isascii()


@FUZZ
@given(field=st.sampled_from(["contributors", "windows"]), value=METRICS.filter(lambda value: value != []))
def test_any_count_is_taken_exactly_when_it_is_a_possible_one(field: str, value: object) -> None:
    least = {"contributors": CONDITIONS.minimum_contributors, "windows": CONDITIONS.minimum_windows}[field]
    most = WINDOWS if field == "windows" else 2**53 - 1
    possible = type(value) is int and least <= value <= most
    assert (read(reply(content(counts={field: value}))) is not None) == possible


@FUZZ
@given(name=st.sampled_from(sorted(ARRAYS)), array=arrays())
def test_any_array_in_place_of_a_true_one_is_refused_or_sound(name: str, array: Array) -> None:
    read(reply(content(arrays={name: array})))


@FUZZ
@given(
    name=st.sampled_from(sorted(ARRAYS)),
    position=st.integers(0, 242),
    value=st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, -1, 2**31, 2**62, -(2**63), 2**63 - 1])),
)
def test_any_number_in_place_of_a_true_one_is_refused_or_sound(name: str, position: int, value: int) -> None:
    index = np.unravel_index(position % ARRAYS[name].size, ARRAYS[name].shape)
    read(reply(content(arrays=changed(name, tuple(int(i) for i in index), value))))


def test_a_reply_of_a_hundred_megabytes_costs_no_copy_of_it() -> None:
    huge = Array("int64", (4,), "numpy.ndarray", bytes(100_000_000))
    many = RecordDict(
        {
            "sums": ArrayRecord({f"array {number} {'x' * 1000}": Array(np.zeros(1)) for number in range(300)}),
            "counts": MetricRecord({"contributors": 4, "windows": WINDOWS}),
            "site": ConfigRecord({"site": "champion", "schema": SCHEMA}),
        }
    )
    messages = [reply(content(arrays={"energy": huge})), reply(many)]
    tracemalloc.start()
    try:
        assert [read(message) for message in messages] == [None, None]
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_round_of_liars_ends_with_a_verdict_for_each_and_the_honest_site_kept() -> None:
    kept = []
    made = SumStatistics(5, CONDITIONS, 1, 0.1, keep=lambda _, collected: kept.append(collected))
    made._asked = tuple(range(1, 8))
    liars = [
        content(counts={"windows": float("nan")}),
        content(site={"schema": SCHEMA + 1}),
        content(site={"backbone": 6}),
        RecordDict(),
        Error(code=0, reason="\x1b]0;owned\x07" + "y" * 10_000),
    ]
    answers = [reply(body, node) for node, body in enumerate(liars, start=1)]
    late_and_repeated = [reply(content(), 6), reply(content(site={"site": "tunis"}), 6), reply(content(), 99)]
    made.aggregate_train(1, [*answers, *late_and_repeated])
    assert [entry.site for entry in kept[0].sites] == ["champion"]
    verdicts = {entry.node_id: entry.verdict for entry in kept[0].verdicts}
    assert verdicts == {
        1: "rejected",
        2: "rejected",
        3: "rejected",
        4: "rejected",
        5: "rejected",
        6: "accepted",
        7: "silent",
    }
    assert all(entry.reason.isprintable() and len(entry.reason) < LONGEST_REASON for entry in kept[0].verdicts)
