"""Training learns from what nodes sum, repeats by seed, and keeps no head that does not travel."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from server.training import card, factory, heads, samples, trial
from server.training.network import Schedule, to_image, train_backbone
from server.training.seasons import physics_only, run_many, run_season, settings_for
from server.worlds.field import DAY_S, sample_case
from shared_models.factory import factory_card, factory_image
from shared_models.moments import TARGETS, Sums
from shared_models.network import ModelImage, head_weights, quantise_head
from shared_models.reference import NodeReference
from shared_models.settings import Settings

TINY = factory.Configuration("small", 3, 2, 1, 2, Schedule(3, 2, 128), days=45)


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
    return train_backbone(synthetic.where(~held_out), synthetic.where(held_out), schedule, 3, lambda _: None)


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
    explained_float = factory._explained(held_out, trained.network.predict(held_out.features).astype(float))
    explained_int8 = factory._explained(held_out, image.forward(held_out.features)[1].astype(float))
    for real, rounded in zip(explained_float, explained_int8, strict=True):
        assert real > 0.15
        assert rounded > real - 0.01
    assert trained.dead_units == 0


def test_training_repeats_bit_by_bit(synthetic):
    part = synthetic.where(synthetic.season < 20)
    images = [to_image(train_backbone(part, part, Schedule(2, 1, 256), 5, lambda _: None).network) for _ in range(2)]
    assert images[0].pack() == images[1].pack()
    assert ModelImage.unpack(images[0].pack()).backbone_id == images[0].backbone_id


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


def test_shipped_settings_keep_the_field_and_change_the_farmer():
    case = sample_case(44)
    shipped = case.as_shipped()
    assert (shipped.soil, shipped.climate, shipped.sensors) == (case.soil, case.climate, case.sensors)
    page = settings_for(shipped)
    assert (page.threshold_permille, page.dose_e1_mm) == (200, 200)


def test_groups_of_seasons_never_overlap():
    groups = [set(factory.seeds(group, seed, 9000)) for group in (1, 2, 3, 4) for seed in (0, 1, 9999)]
    assert len(set.union(*groups)) == sum(map(len, groups))
    assert max(map(max, groups)) < 2**31


def test_the_whole_pipeline_makes_a_model_a_card_and_a_text(tmp_path):
    class Stages:
        def __init__(self):
            self.names = []

        def stage(self, name, steps):
            self.names.append(name)

        def advance(self, remark=""):
            pass

    stages = Stages()
    model = factory.make(TINY, 3, 1, stages)
    paths = card.write(model, tmp_path)
    assert ModelImage.unpack(paths[0].read_bytes()).model_id == model.image.model_id
    written = json.loads(paths[1].read_text())
    assert written == model.card
    assert np.array(written["population_gram"]).shape == (3, 9, 9)
    assert written["model_id"] in paths[2].read_text()
    assert stages.names[0] == "training seasons"
    assert "TensorFlow" in stages.names


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
