"""Noise for sums: exact samples, bounded sensitivity, and an account that cannot be overdrawn."""

from __future__ import annotations

import math
import random
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from contextlib import closing
from fractions import Fraction

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, Message, RecordDict
from gateway_cases import BACKBONE
from hypothesis import given, settings
from hypothesis import strategies as st
from privacy_cases import Farm, as_in_a_task, disclosures, make_farm
from server_cases import shared_truth, sums_of

from gateway.accountant import delta_of, epsilon_of, rho_of
from gateway.answers import answer_in_the_clear
from gateway.config import NoiseSection, Privacy
from gateway.disclosures import Withheld
from gateway.discrete_gaussian import sample
from gateway.metrics import StoreCollector
from gateway.noise import ENTRIES, UNIT, WEIGHTS, Noise, clipped, entries, from_entries, per_answer, weighted_square
from gateway.sums import NotEnough
from server.projection import project
from server.strategy import Conditions, ReplyError, SiteSums, denoised, read_reply, total_of
from shared_models.credibility import check_sums
from shared_models.moments import Sums

__all__ = ["as_in_a_task"]

SUMS = sums_of(1, shared_truth())


@pytest.mark.parametrize("variance", [Fraction(1, 2), Fraction(7, 3), Fraction(50)])
def test_samples_follow_the_discrete_gaussian(variance):
    draws = 4_000
    source = random.Random(11)
    counts = Counter(sample(variance, source.randrange) for _ in range(draws))
    reach = 40
    mass = {x: math.exp(-(x**2) / (2 * float(variance))) for x in range(-reach, reach + 1)}
    total = sum(mass.values())
    expected = {x: draws * p / total for x, p in mass.items()}
    cells = [x for x in expected if expected[x] >= 5]
    chi_square = sum((counts[x] - expected[x]) ** 2 / expected[x] for x in cells)
    rest = draws - sum(expected[x] for x in cells)
    chi_square += (draws - sum(counts[x] for x in cells) - rest) ** 2 / max(rest, 1)
    freedom = len(cells)
    # Wilson and Hilferty's approximation of the 99.99 % quantile.
    limit = freedom * (1 - 2 / (9 * freedom) + 3.72 * math.sqrt(2 / (9 * freedom))) ** 3
    assert chi_square < limit


def test_a_large_variance_is_met():
    variance = Fraction(10**14, 3)
    source = random.Random(5)
    draws = [sample(variance, source.randrange) for _ in range(2_000)]
    ratio = sum(x * x for x in draws) / len(draws) / float(variance)
    assert abs(ratio - 1) < 5 * math.sqrt(2 / len(draws))
    assert abs(sum(draws)) < 5 * math.sqrt(len(draws) * float(variance))
    with pytest.raises(ValueError, match="above zero"):
        sample(Fraction(0))


@settings(max_examples=30)
@given(st.floats(1e-6, 5.0), st.sampled_from([1e-9, 1e-6, 1e-3]))
def test_the_conversion_is_between_the_gaussians_own_privacy_and_the_textbook_bound(rho, delta):
    epsilon = epsilon_of(rho, delta)
    assert epsilon <= rho + 2 * math.sqrt(rho * math.log(1 / delta)) + 1e-9
    # A Gaussian of this ρ has exactly this δ (Balle and Wang 2018), which no valid conversion may undercut.
    mu = math.sqrt(2 * rho)

    def normal(x):
        return math.erfc(-x / math.sqrt(2)) / 2

    exact = normal(mu / 2 - epsilon / mu) - math.exp(epsilon) * normal(-mu / 2 - epsilon / mu)
    assert exact <= delta * (1 + 1e-6)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0, 100.0])
def test_a_budget_is_all_that_its_epsilon_allows_and_no_more(epsilon):
    rho = rho_of(epsilon, 1e-6)
    assert delta_of(rho, epsilon) <= 1e-6 < delta_of(rho * 1.001, epsilon)
    assert epsilon_of(rho, 1e-6) == pytest.approx(epsilon)
    assert 20 * per_answer(epsilon, 1e-6, 20) == pytest.approx(rho)


def test_what_an_answer_costs_is_its_sensitivity_over_its_noise():
    noise = Noise(clip_windows=100, rho=0.05)
    sensitivity = 100**2 * UNIT**2 * ENTRIES * (1 + 1 / 64)
    assert sensitivity / (2 * noise.variance) == pytest.approx(0.05)
    assert sensitivity / (2 * noise.variance) <= 0.05
    assert Noise(100, 0.05, honest_members=3).share * 3 >= noise.variance
    with pytest.raises(ValueError, match="too coarse"):
        _ = Noise(clip_windows=1, rho=1e9).share


def sums_up_to(seed, size):
    rng = np.random.default_rng(seed)
    return from_entries([int(value) for value in rng.integers(-size, size + 1, ENTRIES)])


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from([0, 1, 100, 10**6, 2**40]), st.integers(1, 500))
def test_a_node_moves_the_answer_by_no_more_than_its_clip(seed, size, windows):
    node = sums_up_to(seed, size)
    clip_squared = Noise(windows, 1.0).clip_squared
    after = clipped(node, clip_squared)
    assert weighted_square(after) <= clip_squared
    assert all(abs(new) <= abs(old) and new * old >= 0 for new, old in zip(after, entries(node), strict=True))
    if weighted_square(entries(node)) <= clip_squared:
        assert after == entries(node)
    elif windows > 100:
        assert weighted_square(after) > 0.98 * clip_squared


def test_a_clipped_node_is_one_of_fewer_windows_of_the_same_kind():
    after = from_entries(clipped(SUMS, weighted_square(entries(SUMS)) // 4))
    check_sums(after)
    assert after.count[0] / SUMS.count[0] == pytest.approx(after.energy[0] / SUMS.energy[0], rel=0.05)


def test_every_number_gets_its_own_noise_and_a_stays_symmetric():
    noise = Noise(clip_windows=200, rho=0.5)
    source = random.Random(3)
    samples = []
    for _ in range(30):
        sums, contributors = noise.apply([SUMS, SUMS], 2, source.randrange)
        assert np.array_equal(sums.gram, sums.gram.transpose(0, 2, 1))
        assert np.array_equal(sums.gram[:, -1, -1], sums.count)
        assert isinstance(contributors, int)
        base = [2 * number for number in clipped(SUMS, noise.clip_squared)]
        samples.append([w * (a - b) for a, b, w in zip(entries(sums), base, WEIGHTS, strict=True)])
    spread = np.array(samples, float) / math.sqrt(noise.variance)
    assert np.std(spread) == pytest.approx(1, abs=0.05)
    correlation = np.corrcoef(spread.T) - np.eye(ENTRIES)
    assert np.abs(correlation).max() < 0.9


def test_sums_that_can_be_are_their_own_projection():
    projected = project(SUMS)
    assert np.array_equal(projected.count, SUMS.count)
    assert np.allclose(projected.gram, SUMS.gram, rtol=1e-9, atol=1)
    assert np.allclose(projected.moment, SUMS.moment, rtol=1e-9, atol=1)
    check_sums(project(Sums.zero()))


@pytest.mark.parametrize("seed", range(4))
def test_projected_noise_can_be_solved(seed):
    noise = Noise(clip_windows=200, rho=0.01)
    noisy, _ = noise.apply([SUMS], 1, random.Random(seed).randrange)
    projected = project(noisy)
    for matrix in projected.gram:
        values = np.linalg.eigvalsh(matrix.astype(float))
        assert values[0] >= -1e-9 * values[-1] - 10
    assert np.all(projected.energy >= 0)
    assert projected.count[0] >= projected.count.max() >= 0
    assert np.array_equal(projected.gram[:, -1, -1], projected.count)
    for target in range(4):
        assert projected.sse(target, np.random.default_rng(seed).normal(0, 0.1, 9)) >= -1e-6 * projected.energy[target]


def test_groups_are_added_before_anything_is_cut_off():
    noise = Noise(clip_windows=400, rho=0.5)
    parts = []
    for number in range(40):
        sums, contributors = noise.apply([SUMS] * 3, 3, random.Random(number).randrange)
        parts.append(SiteSums(f"s{number}", contributors, 0, sums, noise=noise.share))
    group = denoised("noisy group 1", parts)
    assert (group.members, group.noise) == (40, 40 * noise.share)
    assert group.contributors == pytest.approx(120, abs=5 * 8 * math.sqrt(40))
    exact = 120 * np.trace(from_entries(clipped(SUMS, noise.clip_squared)).gram[0])
    one_by_one = total_of(project(part.sums) for part in parts)
    assert abs(np.trace(group.sums.gram[0]) - exact) < 0.5 * abs(np.trace(one_by_one.gram[0]) - exact)


RULES = NoiseSection(epsilon=100, answers=3)


@pytest.fixture
def noisy_farm(tmp_path):
    return make_farm(tmp_path / "a.db", "a", 1, Privacy(noise=RULES))


def test_a_spent_budget_refuses_and_what_was_spent_is_on_disk(noisy_farm):
    budget = rho_of(100, 1e-6)
    answers = [answer_in_the_clear(noisy_farm, BACKBONE)[0].sums for _ in range(3)]
    assert answers[0] != answers[1]
    assert sum(rho for _, rho in disclosures(noisy_farm)) == pytest.approx(budget)
    with pytest.raises(Withheld, match=r"the privacy budget is spent: 3 answers cost 49\.5 of 49\.5 zCDP"):
        answer_in_the_clear(noisy_farm, BACKBONE)


def test_what_was_spent_is_among_the_metrics(noisy_farm):
    answer_in_the_clear(noisy_farm, BACKBONE)
    samples = {
        metric.name: metric.samples[0].value for metric in StoreCollector(noisy_farm).collect() if metric.samples
    }
    assert samples["noria_gateway_disclosures"] == 1
    assert samples["noria_gateway_privacy_spent_zcdp"] == pytest.approx(rho_of(100, 1e-6) / 3)


KILLED = """
import os, sys
from pathlib import Path
from gateway import disclosures

with disclosures.disclosing(Path(sys.argv[1])) as db:
    disclosures.record(db, 1, 5, rho=1.0)
    if sys.argv[2] == "before":
        os._exit(9)
os._exit(9)
"""


@pytest.mark.parametrize(("when", "rows"), [("before", 0), ("after", 1)])
def test_a_kill_leaves_a_whole_disclosure_or_none(noisy_farm, when, rows):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(noisy_farm), when], check=False)
    assert killed.returncode == 9
    assert len(disclosures(noisy_farm)) == rows


def test_answers_at_once_cannot_spend_one_budget_twice(noisy_farm):
    outcomes = []

    def answer():
        try:
            outcomes.append(answer_in_the_clear(noisy_farm, BACKBONE)[1])
        except Withheld:
            outcomes.append(0)

    threads = [threading.Thread(target=answer) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(outcome > 0 for outcome in outcomes) == 3
    assert len(disclosures(noisy_farm)) == 3


def test_an_answer_that_cannot_be_written_down_does_not_leave(noisy_farm):
    farm = Farm(1, "a", noisy_farm)
    with closing(sqlite3.connect(noisy_farm)) as db:
        db.execute("DROP TABLE disclosures")
    question = ConfigRecord({"backbone": BACKBONE, "round": 1})
    reply = farm.answer(Message(RecordDict({"config": question}), dst_node_id=1, message_type="train"))
    assert "could not be written down" in reply.error.reason


def test_noise_hides_no_farm_of_too_few_nodes(tmp_path):
    store = make_farm(tmp_path / "a.db", "a", 1, Privacy(noise=RULES), contributors=2)
    with pytest.raises(NotEnough):
        answer_in_the_clear(store, BACKBONE)
    assert disclosures(store) == []


def test_a_server_takes_noise_only_where_its_operator_says_so(noisy_farm):
    question = Message(
        RecordDict({"config": ConfigRecord({"backbone": BACKBONE, "round": 1})}), dst_node_id=1, message_type="train"
    )
    reply = Farm(1, "a", noisy_farm).answer(question)
    with pytest.raises(ReplyError, match="not accepted here"):
        read_reply(reply, Conditions(3, 10), BACKBONE)
    taken = read_reply(reply, Conditions(3, 10, accept_noise=True), BACKBONE)
    assert taken.noise > 0
    for variance in (0, -1, 1.0, "1"):
        reply.content["noise"]["variance"] = variance
        with pytest.raises(ReplyError, match="is none"):
            read_reply(reply, Conditions(3, 10, accept_noise=True), BACKBONE)
    reply.content["noise"] = ConfigRecord({"variance": 1})
    gram = np.array(reply.content["sums"]["gram"].numpy())
    gram[0, 0, 0] = 2**60
    reply.content["sums"]["gram"] = Array(gram)
    with pytest.raises(ReplyError, match="too large"):
        read_reply(reply, Conditions(3, 10, accept_noise=True), BACKBONE)
