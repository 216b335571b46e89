"""The balance and what it rests on: sensors judged, anchor learned, depletion followed."""

from __future__ import annotations

import pytest
from core_cases import PLANTING_S, BucketField, random_model, settings

from shared_models.codes import Mode
from shared_models.fixed import NO_VALUE
from shared_models.network import quantise_head, zero_head
from shared_models.reference import NodeReference, Outcome


def season(
    world: BucketField, node: NodeReference, days: int = 138, model: object = None, broken: tuple[str, ...] = ()
) -> list[tuple[int, Outcome, float]]:
    """Every decision with the day and the field's true depletion, mm."""
    decisions = []
    for day, readings in world.days(days):
        for reading in readings:
            for name in broken:
                setattr(reading, name, NO_VALUE)
            outcome = node.wake(reading, model)  # type: ignore[arg-type]
            if outcome.decided:
                decisions.append((day, outcome, world.depletion_mm))
            world.irrigate(outcome)
    return decisions


def test_the_upper_limit_is_read_on_days_six_to_eight_after_the_soak() -> None:
    world, node = BucketField(1), NodeReference(settings())
    anchored = [(day, outcome) for day, outcome, _ in season(world, node, days=10) if outcome.anchored_now]
    assert [day for day, _ in anchored] == [0]
    limits = [value / 1e4 for value in node.state.upper_limit_e4]
    assert limits == pytest.approx([1.1 * 0.31 + 0.02, 0.9 * 0.31 - 0.03], abs=0.006)


def test_a_node_without_an_anchor_learns_nothing() -> None:
    world, node = BucketField(2, first_day=-3, rain_chance=0.0), NodeReference(settings(threshold_permille=1000))
    season(world, node, model=random_model(1), days=30)
    assert not node.state.anchored
    assert not any(node.state.count)


def test_a_node_without_an_anchor_waits_for_its_own_water_to_drain_and_takes_that() -> None:
    world, node = BucketField(2, first_day=-3, rain_chance=0.0), NodeReference(settings())
    decisions = season(world, node, days=60)
    anchored = next(day for day, outcome, _ in decisions if outcome.anchored_now)
    before = [day for day, outcome, _ in decisions if outcome.open_s and day < anchored]
    assert before
    assert anchored - before[-1] >= 3
    limits = [value / 1e4 for value in node.state.upper_limit_e4]
    assert limits == pytest.approx([1.1 * 0.31 + 0.02, 0.9 * 0.31 - 0.03], abs=0.03)


def test_a_node_that_never_saw_a_soak_anchors_itself_when_rain_has_drained() -> None:
    world, node = BucketField(2, first_day=-3, rain_chance=0.1), NodeReference(settings(threshold_permille=900))
    assert [day for day, outcome, _ in season(world, node, days=90) if outcome.anchored_now]
    assert not node.state.soaks
    limits = [value / 1e4 for value in node.state.upper_limit_e4]
    assert limits == pytest.approx([1.1 * 0.31 + 0.02, 0.9 * 0.31 - 0.03], abs=0.03)


def second_season(deficit_mm: float = 0.0, moved: float = 0.0) -> tuple[list[int], NodeReference]:
    """The anchor after one season, and the node after the next one's commissioning."""
    node = NodeReference(settings())
    season(BucketField(1, noise=0.0), node, days=30)
    first = list(node.state.upper_limit_e4)
    node.settings = settings(season=2025, planting_time_s=PLANTING_S + 365 * 86_400)
    later = BucketField(7, first_day=357, depletion_mm=deficit_mm, noise=0.0, rain_chance=0.0, demand=0.02)
    later.offset = (later.offset[0] + moved, later.offset[1] + moved)
    season(later, node, days=9)
    return first, node


def test_another_years_soak_is_averaged_into_the_anchor() -> None:
    first, node = second_season(moved=0.012)
    assert node.state.soaks == 2
    for old, new in zip(first, node.state.upper_limit_e4, strict=True):
        assert new - old == pytest.approx(60, abs=12)


def test_a_season_that_began_dry_does_not_pass_for_a_soak() -> None:
    first, node = second_season(deficit_mm=30.0)
    assert node.state.anchored
    assert node.state.soaks == 1
    assert node.state.upper_limit_e4 == first


def test_a_probe_that_stands_elsewhere_starts_anew() -> None:
    first, node = second_season(moved=0.08)
    assert node.state.soaks == 1
    assert [new - old for old, new in zip(first, node.state.upper_limit_e4, strict=True)] == pytest.approx(
        [800, 800], abs=25
    )


def test_depletion_follows_the_field() -> None:
    world, node = BucketField(3), NodeReference(settings())
    decisions = season(world, node)
    errors = [abs(outcome.depletion_um / 1000 - truth) for day, outcome, truth in decisions if day > 20]
    assert sum(errors) / len(errors) < 15
    assert world.stress_days == 0
    assert 100 < world.water_mm < 600


def test_rain_at_the_probes_is_inferred() -> None:
    dry, wet = BucketField(4, rain_chance=0.0), BucketField(4, rain_chance=0.35)
    for world in (dry, wet):
        season(world, NodeReference(settings()))
    assert wet.water_mm < 0.6 * dry.water_mm


@pytest.mark.parametrize(
    ("broken", "mode"),
    [
        (("vwc_shallow_e4",), Mode.PHYSICS),
        (("vwc_deep_e4",), Mode.PHYSICS),
        (("vwc_shallow_e4", "vwc_deep_e4"), Mode.BALANCE_ONLY),
        (("air_temp_c100", "light_w_m2", "rh_e2", "soil_temp_c100"), Mode.PHYSICS),
    ],
)
def test_with_broken_sensors_the_node_still_waters_sensibly(broken: tuple[str, ...], mode: Mode) -> None:
    world, node = BucketField(5, rain_chance=0.05), NodeReference(settings())
    decisions = season(world, node, broken=broken)
    assert node.state.mode == mode
    assert 40 < world.water_mm < 800
    largest = max(outcome.dose_e1_mm for _, outcome, _ in decisions)
    assert largest == (120 if mode == Mode.BALANCE_ONLY else 200)


def test_without_probes_light_and_air_it_never_waters() -> None:
    world, node = BucketField(6), NodeReference(settings())
    names = ("vwc_shallow_e4", "vwc_deep_e4", "air_temp_c100", "light_w_m2")
    season(world, node, days=100, broken=names)
    assert world.water_mm == 0


def test_a_fault_is_reported_once_and_its_end_once() -> None:
    world, node = BucketField(7), NodeReference(settings())
    news = []
    for day, readings in world.days(14):
        for reading in readings:
            if 2 <= day < 4:
                reading.vwc_deep_e4 = 7300
            outcome = node.wake(reading)
            news += [(day, "new", outcome.new_faults)] * bool(outcome.new_faults)
            news += [(day, "gone", outcome.recovered)] * bool(outcome.recovered)
    assert news == [(2, "new", 4), (4, "gone", 4)]


def test_a_probe_that_never_moves_is_not_believed() -> None:
    world, node = BucketField(8), NodeReference(settings())
    for _, readings in world.days(12):
        for reading in readings:
            reading.vwc_shallow_e4 = 3000
            outcome = node.wake(reading)
    assert outcome.faults == 2


def test_one_wild_reading_does_not_move_the_dawn() -> None:
    calm, wild = NodeReference(settings()), NodeReference(settings())
    for day, readings in BucketField(9).days(12):
        for index, reading in enumerate(readings):
            calm.wake(reading)
            if day == 10 and index == 95:
                reading.vwc_deep_e4 = -300
            wild.wake(reading)
    assert abs(calm.state.dawn_e4[4] - wild.state.dawn_e4[4]) <= 15


def test_a_zero_head_waters_exactly_as_the_physics() -> None:
    fields = [BucketField(10), BucketField(10)]
    plain, learned = NodeReference(settings()), NodeReference(settings())
    without = season(fields[0], plain)
    with_head = season(fields[1], learned, model=zero_head(random_model(1)))
    assert [(o.open_s, o.reason, o.depletion_um) for _, o, _ in without] == [
        (o.open_s, o.reason, o.depletion_um) for _, o, _ in with_head
    ]


def test_a_head_worse_than_the_baseline_loses_its_trust_and_the_record_says_why() -> None:
    wrong = [[0.0] * 8 + [bias] for bias in (110.0, -100.0, 0.0, 0.0)]
    world, node = BucketField(11), NodeReference(settings())
    decisions = season(world, node, model=quantise_head(random_model(2), wrong))
    modes = [outcome.mode for day, outcome, _ in decisions if day >= 0]
    assert modes[0] == Mode.MODEL
    assert modes[-1] == Mode.PHYSICS
    record = node.probation
    assert record.windows > 12
    assert record.model_energy > record.baseline_energy


def test_sums_begin_anew_with_another_backbone_but_not_with_another_head() -> None:
    image = random_model(3)
    world, node = BucketField(12), NodeReference(settings())
    for day, readings in world.days(100):
        model = image if day < 40 else quantise_head(image, [[0.01] * 9] * 4) if day < 70 else random_model(4)
        for reading in readings:
            world.irrigate(node.wake(reading, model))
        if day in (39, 69, 70):
            counts = node.state.count[0], node.probation.windows
            if day == 39:
                before = counts
            elif day == 69:
                assert counts[0] > before[0]
                assert counts[1] < counts[0]
            else:
                assert counts[0] <= 1


def test_lessons_carry_what_the_sums_hold() -> None:
    image = random_model(5)
    world, node = BucketField(13), NodeReference(settings())
    energy = [0] * 4
    for _, readings in world.days(100):
        for reading in readings:
            outcome = node.wake(reading, image)
            world.irrigate(outcome)
            for lesson in node.lessons if outcome.dawn else ():
                energy[0] += lesson.uptake**2 if lesson.length == 1 else 0
                energy[lesson.length] += lesson.drying**2
    snapshot = node.snapshot()
    assert energy == snapshot.energy.tolist()
    assert snapshot.count[0] >= snapshot.count[1] >= snapshot.count[2] > 0
