"""Training learns from what nodes sum, repeats by seed, and keeps no head that does not travel."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from server.training import card, climates, distillation, factory, heads, methods, network, samples, study, trial
from server.training.methods import Method
from server.training.network import Lessons, Recipe, Schedule, prune, to_image, train_backbone
from server.training.physical import error_abroad, physical_start, with_spare_units
from server.training.seasons import Season, physics_only, run_many, run_season, settings_for
from server.worlds.batch import Outcome
from server.worlds.field import DAY_S, WORLDS, sample_case
from shared_models.container import build_full
from shared_models.factory import factory_card, factory_image
from shared_models.features import FEATURES
from shared_models.moments import TARGETS, UPTAKE, Sums
from shared_models.network import ModelImage, head_weights, quantise_head
from shared_models.reference import NodeReference
from shared_models.settings import SHIPPED_DOSE_E1_MM, SHIPPED_THRESHOLD_PERMILLE, Settings

RESIDUAL_AVERAGE = 23
"""The feature that a node carries over the winter."""
INT8_COST = 0.005
"""Share of squared residual that int8 may lose against floats."""
TINY = factory.Configuration("small", 3, 2, 1, 2, Schedule(3, 2, 128), years=1, days=45)


@pytest.fixture(scope="module")
def synthetic():
    """A residual that is there to be found: bends in a few features, noise on top, two worlds alike."""
    rng = np.random.default_rng(7)
    features = rng.normal(0, 40, (8000, 24)).clip(-128, 127).astype(np.int8)
    x = features / 64
    clean = np.stack(
        [40 * np.tanh(x[:, 0] + x[:, 1]), 15 * np.abs(x[:, 2]), 12 * x[:, 3], 10 * np.tanh(x[:, 4])], axis=1
    )
    targets = (clean + rng.normal(0, 8, clean.shape)).clip(-127, 127).round().astype(np.int8)
    season = (np.arange(8000) // 50).astype(np.int32)
    return samples.Samples(features, targets, rng.random((8000, 4)) < 0.8, season, (season % 2).astype(np.int8))


@pytest.fixture(scope="module")
def trained(synthetic):
    held_out = synthetic.season % 5 == 0
    schedule = Schedule(16, 8, 256)
    return train_backbone(Lessons(synthetic.where(~held_out)), synthetic.where(held_out), schedule, 3, silent)


@pytest.fixture
def lone_teachers(monkeypatch):
    """Teachers of one network per world: a test need not wait for the others."""
    monkeypatch.setattr(distillation, "MEMBERS", 1)


def silent(_):
    pass


class Stages:
    """A progress that remembers what was told."""

    def __init__(self):
        self.names, self.steps, self.advanced = [], [], []

    def stage(self, name, steps):
        self.names.append(name)
        self.steps.append(steps)
        self.advanced.append(0)

    def advance(self, remark=""):
        self.advanced[-1] += 1


def test_every_window_that_training_sees_is_one_the_node_summed(trained, monkeypatch):
    """Features, targets and gates of the recorder give back the node's own cumulative statistics, exactly."""
    image = quantise_head(to_image(trained.network), np.zeros((TARGETS, 9)))
    nodes = []
    original = NodeReference.__init__

    def remember(self, *arguments):
        original(self, *arguments)
        nodes.append(self)

    monkeypatch.setattr(NodeReference, "__init__", remember)
    season = run_season(sample_case(42), image, days=45)
    assert samples.sums(season.samples, image) == Sums(**vars(nodes[-1].snapshot()))
    assert len(season.samples) > 10
    assert (season.samples.mask[:, 0] == season.samples.mask[:, 1]).all()


def test_a_field_keeps_its_soil_and_its_node_over_the_winter():
    first, second = run_many([700], physics_only(), days=45, years=2)
    assert first.outcome == run_many([700], physics_only(), days=45)[0].outcome
    assert second.case == first.case.following()
    assert second.case.soil == first.case.soil
    assert second.outcome.rain_mm != first.outcome.rain_mm
    assert second.samples.features[0, RESIDUAL_AVERAGE] != 0
    page = settings_for(second.case)
    assert page.season == settings_for(first.case).season + 1


def test_a_zero_head_waters_exactly_as_the_physics(trained):
    zero = quantise_head(to_image(trained.network), np.zeros((TARGETS, 9)))
    case = sample_case(43)
    with_model, physics = (run_season(case, image, days=40) for image in (zero, physics_only()))
    assert with_model.outcome == physics.outcome
    assert physics.outcome.irrigation_mm > 0 or physics.outcome.rain_mm > 0


def test_settings_of_every_case_are_a_valid_page():
    for seed in range(60):
        case = sample_case(seed)
        page = settings_for(case)
        assert Settings.unpack(page.pack()) == page
        assert (page.planting_time_s - 6 * 3600) % DAY_S == 0


def test_the_result_does_not_depend_on_the_number_of_processes():
    alone, shared = (run_many(range(50, 52), physics_only(), n, days=15) for n in (1, 2))
    assert [season.outcome for season in alone] == [season.outcome for season in shared]
    assert all((a.samples.targets == b.samples.targets).all() for a, b in zip(alone, shared, strict=True))


def test_training_finds_a_residual_and_int8_keeps_it(synthetic, trained):
    held_out = synthetic.where(synthetic.season % 5 == 0)
    image = to_image(trained.network)
    explained_float = factory.explained(held_out, trained.network.predict(held_out.features))
    explained_int8 = factory.explained(held_out, image.forward(held_out.features)[1])
    for real, rounded in zip(explained_float, explained_int8, strict=True):
        assert real > 0.15
        assert rounded > real - INT8_COST
    assert trained.dead_units == 0


def test_training_repeats_bit_by_bit(synthetic):
    part = synthetic.where(synthetic.season < 20)
    trained = [train_backbone(Lessons(part), part, Schedule(2, 1, 256), 5, silent) for _ in range(2)]
    images = [to_image(attempt.network) for attempt in trained]
    assert images[0].pack() == images[1].pack()
    assert ModelImage.unpack(images[0].pack()).backbone_id == images[0].backbone_id


def test_what_the_factory_adopted_costs_next_to_nothing_either(synthetic):
    held_out = synthetic.season % 5 == 0
    learn, exam = synthetic.where(~held_out), synthetic.where(held_out)
    trained = methods.ADOPTED.train(learn, exam, Schedule(16, 16, 256), 3, silent)
    real = factory.explained(exam, trained.network.predict(exam.features))
    int8 = factory.explained(exam, to_image(trained.network).forward(exam.features)[1])
    assert max(a - b for a, b in zip(real, int8, strict=True)) <= INT8_COST


def test_the_hand_made_units_say_what_they_are_named_for():
    """A day's falls of 60 and 20, a dry rate of 25, ETc of 5.1 mm, and a shallow probe above its limit: in integers."""
    steps = {"shallow fall in 1 d": 30, "deep fall in 1 d": 10, "deep fall in 3 d": 20, "dry rate": 25 - 128}
    steps |= {"ETc average": 32, "shallow deficit": -53}
    dry = np.array([steps.get(feature.name, 0) for feature in FEATURES], np.int8)
    rising = dry.copy()
    rising[[5, 6]] = -4, -7
    image = to_image(physical_start())
    units = image.moments_input(image.forward(np.stack([dry, rising]))[0])[:, :8]
    assert units.tolist() == [[25, 0, 15, 60, 0, 148, 160, 20], [25, 25, 0, 0, 14, 148, 160, 20]]


def test_spare_units_change_nothing_until_they_are_trained(synthetic):
    start = physical_start()
    spared = with_spare_units(start, 1)
    assert not start.kernels[0].any(axis=0).all()
    assert spared.kernels[0].any(axis=0).all()
    head = np.random.default_rng(1).normal(0, 1, (TARGETS, 9))
    said = [net.with_head(head).predict(synthetic.features) for net in (start, spared)]
    assert (said[0] == said[1]).all()


def test_training_is_kept_only_where_it_serves_every_world_it_did_not_see():
    better, worse = {"hand-made": 0.8, "trained": 0.7}, {"hand-made": 0.7, "trained": 0.8}
    assert factory.travels({"a": better, "b": better})
    assert not factory.travels({"a": better, "b": worse})
    assert not factory.travels({"a": better})


def test_a_backbone_that_sees_the_residual_errs_less_abroad(synthetic, trained):
    """Features outside the hand-made units carry this residual; a network trained on the one world finds them."""
    learn, judge = synthetic.where(synthetic.season % 5 != 0), synthetic.where(synthetic.season % 5 == 0)
    assert error_abroad(trained.network, learn, judge) < error_abroad(physical_start(), learn, judge) - 0.1


def test_what_a_backbone_makes_of_uptake_does_not_count(synthetic, trained):
    """Its label is the probes' own error; all of it foretold, a backbone forecasts no better."""
    plain = synthetic.where(synthetic.season % 5 == 0)
    told = dataclasses.replace(plain, targets=plain.targets.copy())
    told.targets[:, UPTAKE] = told.features[:, 0]
    assert error_abroad(trained.network, told, told) == error_abroad(trained.network, plain, plain)


@pytest.mark.parametrize("bits", [4, 6])
def test_fewer_bits_lie_on_a_coarser_grid_and_travel_shorter(synthetic, trained, bits):
    part, schedule = synthetic.where(synthetic.season < 60), Schedule(4, 4, 256)
    coarse = train_backbone(Lessons(part), part, schedule, 3, silent, Recipe(weight_bits=bits))
    image = to_image(coarse.network)
    largest = max(np.abs(layer.weights).max() for layer in (image.first, image.second))
    assert largest == 2 ** (bits - 1) - 1
    assert len(build_full(image, 1).payload) < len(build_full(to_image(trained.network), 1).payload) - 50 * (8 - bits)
    assert ModelImage.unpack(image.pack()).forward(part.features)[1].any()


def test_a_pruned_network_leaves_rows_of_zeros_and_keeps_what_it_knew(synthetic, trained):
    held_out = synthetic.where(synthetic.season % 5 == 0)
    small = prune(trained.network, synthetic.features, 12)
    image = to_image(small)
    assert (~image.first.weights.any(axis=1)).sum() == 4
    assert not image.second.weights[:, ~image.first.weights.any(axis=1)].any()
    assert ModelImage.unpack(image.pack()).model_id == image.model_id
    before, after = (factory.explained(held_out, net.predict(held_out.features)) for net in (trained.network, small))
    assert np.mean(after) > np.mean(before) - 0.15
    method = Method("pruned", Recipe(hidden=12))
    part = synthetic.where(synthetic.season < 60)
    calls = []
    retrained = method.train(part, part, Schedule(4, 2, 256), 3, calls.append)
    assert len(calls) == method.epochs(Schedule(4, 2, 256), 2)
    assert retrained.network.kernels[0].shape == (24, 12)


def test_a_clipped_label_does_not_punish_saying_more(synthetic):
    spread = np.full(TARGETS, 50, np.float32)
    trainee = network._Trainee(np.random.default_rng(1), spread, network.PLAIN, None)

    def loss(said, label):
        return float(trainee.losses(np.full((1, 4), said / 50, np.float32), np.full((1, 4), label, np.float32))[0, 0])

    assert loss(150, 127) == loss(127, 127) == loss(-150, -127) == 0
    assert loss(100, 127) > 0
    assert loss(150, 100) > loss(120, 100) > 0
    assert loss(127, 255) == loss(200, 255)
    assert loss(100, 255) > loss(127, 255)


def test_a_teacher_speaks_for_all_worlds_and_the_small_net_listens(synthetic, lone_teachers):
    part, schedule = synthetic.where(synthetic.season < 40), Schedule(18, 4, 64)
    teacher = distillation.teach(part, part, schedule, 1, silent)
    assert len(teacher.members) == 2
    assert teacher.members[0].kernels[0].shape == (24, distillation.TEACHER.hidden)
    hints = teacher.predict(part.features)
    assert np.abs(hints).max() <= 127
    misled = Lessons(dataclasses.replace(part, targets=-part.targets), hints)
    pupil = train_backbone(misled, part, schedule, 1, silent, Recipe(hint_share=1.0))
    assert np.corrcoef(pupil.network.predict(part.features)[:, 0], hints[:, 0])[0, 1] > 0.8


def test_groups_served_worst_gain_weight(synthetic):
    groups = synthetic.world.astype(np.int64)
    scales = network._GroupScales(Lessons(synthetic, groups=groups), 0.5)
    losses = np.where(groups[:, None] == 1, 0.4, 0.2) * np.ones((1, TARGETS))
    weights = scales.after(losses)
    assert weights.mean() == pytest.approx(1)
    assert weights[groups == 1].min() > weights[groups == 0].max()


def test_climates_are_grouped_by_aridity():
    some = [sample_case(seed).climate for seed in range(200)]
    assert {climates.climate_group(climate) for climate in some} == set(climates.CLIMATES)
    wetter = [dataclasses.replace(climate, wet_after_dry=2 * climate.wet_after_dry) for climate in some]
    assert all(climates.aridity_index(b) >= climates.aridity_index(a) for a, b in zip(some, wetter, strict=True))


def test_windows_are_grouped_by_world_and_climate():
    part = run_season(sample_case(42), physics_only(), days=45).samples
    case = sample_case(42)
    names = {methods.group_names()[group] for group in methods.groups_of(part)}
    assert names == {f"{case.world}, {climates.climate_group(case.climate)}"}


def test_a_head_that_holds_in_both_worlds_is_kept_and_one_that_turns_round_is_dropped(synthetic, trained):
    image = to_image(trained.network)
    turned = dataclasses.replace(synthetic, targets=synthetic.targets.copy())
    turned.targets[turned.world == 1, 1] *= -1
    totals = {world: samples.sums(turned.where(turned.world == world), image) for world in (0, 1)}
    metric = heads.population_gram(samples.total(list(totals.values())))
    scales = heads.transfer_scales(totals, totals, metric)
    assert scales[0] > 0.9
    assert scales[1] == 0
    assert (scales[2:] > 0.9).all()


def test_a_gain_that_one_lucky_season_makes_is_doubted(synthetic, trained):
    image = to_image(trained.network)
    parts = samples.per_season(synthetic, image)
    metric = heads.population_gram(samples.total(parts))
    weights = heads.solve(samples.total(parts), metric)
    assert not heads.doubtful(parts, weights, 1).any()
    assert heads.doubtful(parts, -weights, 1).all()
    assert heads.doubtful([], weights, 1).all()


def test_only_the_same_cases_are_compared():
    seasons = run_many(range(60, 62), physics_only(), days=3)
    assert trial.compare(seasons, seasons, 1).benefit_mm == 0
    with pytest.raises(ValueError, match="same cases"):
        trial.compare(seasons, seasons[::-1], 1)


def test_a_head_that_hurts_one_group_does_not_pay():
    seasons = run_many(range(60, 62), physics_only(), days=3)
    same = trial.by_group(seasons, seasons, 1)
    assert set(same) - {"all"} == {group for season in seasons for group in trial.groups_of(season)}
    assert not trial.pays(same)
    saving = dataclasses.replace(same["all"], benefit_mm=3.0, benefit_interval_mm=(1.0, 5.0), assured_benefit_mm=0.5)
    verdict = dict.fromkeys(("all", *WORLDS, "arid"), saving)
    assert trial.pays(verdict)
    assert not trial.pays(verdict | {"all": dataclasses.replace(saving, assured_benefit_mm=-0.1)})
    assert trial.hurt_groups(verdict | {"arid": dataclasses.replace(saving, benefit_mm=-0.1)}) == ["arid"]
    assert not trial.pays(verdict | {"arid": dataclasses.replace(saving, yield_change=-0.002)})


def test_water_is_compared_at_equal_yield():
    season = run_many([60], physics_only(), days=3)[0]
    better = dataclasses.replace(
        season,
        outcome=dataclasses.replace(
            season.outcome,
            irrigation_mm=season.outcome.irrigation_mm + 10,
            relative_yield=season.outcome.relative_yield + 0.01,
        ),
    )
    assert trial.compare([season], [better], 1).benefit_mm == pytest.approx(15)


class Loops:
    """Closed loops of which only what a head saves is imposed, by group of fields."""

    def __init__(self, trial_mm, confirmation_mm):
        self.saved_mm = {factory.TRIAL: trial_mm, factory.CONFIRMATION: confirmation_mm}
        self.lived = []

    def physics(self, group):
        dry = Outcome(400.0, 0.0, 0.98, 0.0, 30.0, 500.0)
        cases = [sample_case(seed) for seed in factory.seeds(group, 1, 40)]
        return [Season(case, samples.empty(), dry, 0.0, 0.0) for case in cases]

    def __call__(self, group, image, name):
        self.lived.append(name)
        share = round(4 * head_weights(image)[UPTAKE, 0]) / 4  # quantised
        return [
            dataclasses.replace(
                season,
                outcome=dataclasses.replace(season.outcome, irrigation_mm=400.0 - self.saved_mm[group].get(share, 0.0)),
            )
            for season in self.physics(group)
        ]


@pytest.mark.parametrize(
    ("trial_mm", "confirmation_mm", "kept", "lives"),
    [
        ({1.0: 4, 0.5: 9, 0.25: 2}, {0.5: 3}, 0.5, 5),  # the best of the trial, confirmed
        ({1.0: 4, 0.5: 9, 0.25: 2}, {1.0: 5, 0.5: -1}, 0.0, 5),  # luck: no second choice among the others
        ({1.0: -4, 0.5: -1, 0.25: 0}, {}, 0.0, 3),  # nothing to confirm
    ],
)
def test_an_uptake_head_must_pay_again_on_fields_that_did_not_choose_it(
    trained, trial_mm, confirmation_mm, kept, lives
):
    backbone, weights = to_image(trained.network), np.zeros((TARGETS, 9))
    weights[UPTAKE, 0] = 1.0
    loops = Loops(trial_mm, confirmation_mm)
    share, told = factory.try_uptake(
        backbone, weights, trial.UPTAKE_SCALES, loops.physics(factory.TRIAL), loops, seed=1
    )
    assert share == kept
    assert len(loops.lived) == lives
    assert [each["uptake_scale"] for each in told["uptake_trials"]] == list(trial.UPTAKE_SCALES)
    assert (told["uptake_confirmation"] is None) == (lives == 3)


def test_shipped_settings_keep_the_field_and_change_the_farmer():
    case = sample_case(44)
    shipped = case.as_shipped()
    assert (shipped.soil, shipped.climate, shipped.sensors) == (case.soil, case.climate, case.sensors)
    page = settings_for(shipped)
    assert (page.threshold_permille, page.dose_e1_mm) == (SHIPPED_THRESHOLD_PERMILLE, SHIPPED_DOSE_E1_MM)


def test_groups_of_seasons_never_overlap():
    groups = [set(factory.seeds(group, seed, 9000)) for group in (1, 2, 3, 4) for seed in (0, 1, 9999)]
    assert len(set.union(*groups)) == sum(map(len, groups))
    assert max(map(max, groups)) < 2**31


def test_the_whole_pipeline_makes_a_model_a_card_and_a_text_twice_the_same(tmp_path):
    stages = Stages()
    model = factory.make(TINY, 3, 1, stages)
    paths = card.write(model, tmp_path)
    assert ModelImage.unpack(paths[0].read_bytes()).model_id == model.image.model_id
    written = json.loads(paths[1].read_text())
    assert written == model.card
    assert np.array(written["population_gram"]).shape == (3, 9, 9)
    assert written["model_id"] in paths[2].read_text()
    assert stages.names[0] == "seasons, physics"
    at = stages.names.index("TensorFlow")
    assert stages.advanced[at] == stages.steps[at] > 0
    again = factory.make(TINY, 3, 1, Stages())
    assert again.image.pack() == model.image.pack()
    assert again.card == model.card


def test_the_study_examines_at_home_and_abroad(lone_teachers):
    size = dataclasses.replace(study.SMALL, training_fields=6, days=45, schedule=Schedule(2, 1, 256))
    stages = Stages()
    result = study.run(size, 1, 1, stages, (methods.PLAIN_METHOD, methods.HAND_MADE))
    teacher, plain, _ = result["lines"]
    assert [line["method"] for line in result["lines"]] == [study.TEACHER, "plain, 8-bit weights", "hand-made units"]
    for line in result["lines"]:
        assert len(line["same_world"]) == len(line["cross_world"]) == TARGETS
        assert line["worst_group"] in methods.group_names()
    assert plain["payload_bytes"] > 400
    assert plain["closed_loop"]["all"]["seasons"] == size.closed_loop_fields
    assert "payload_bytes" not in teacher
    assert stages.advanced == stages.steps


def test_the_packaged_factory_model_is_whole_and_fits_its_card():
    image, described = factory_image(), factory_card()
    assert described["model_id"] == f"{image.model_id:08x}"
    assert described["backbone_id"] == f"{image.backbone_id:08x}"
    assert described["version"] == 1
    gram = np.array(described["population_gram"])
    assert gram.shape == (3, 9, 9)
    assert np.allclose(gram, gram.transpose(0, 2, 1))
    assert np.allclose(gram[:, 8, 8], 1)
    assert (np.linalg.eigvalsh(gram) > -1e-6).all()
    if described["head_scale"][0] == 0:
        assert not head_weights(image)[0].any()
