"""FAO-56 in integers stays within rounding of FAO-56 in real numbers."""

from __future__ import annotations

import itertools
import math

import pytest

from shared_models import agronomy
from shared_models.codes import Crop


@pytest.mark.parametrize("air_c", [-5, 8, 20, 33])
@pytest.mark.parametrize("light_w_m2", [40, 150, 250, 380])
def test_reference_et_is_the_radiation_form_of_hargreaves(air_c: int, light_w_m2: int) -> None:
    megajoules = light_w_m2 * 0.0864
    expected_mm = max(0.0135 * (air_c + 17.8) * megajoules * 0.408, 0.1)
    assert agronomy.reference_et_um(air_c * 100, light_w_m2 * 16) / 1000 == pytest.approx(expected_mm, rel=0.003)


def test_reference_et_of_a_worked_example_is_plausible() -> None:
    # FAO-56 example 18 (Brussels, 6 July): Rs 22.07 MJ/m2/d, mean 16.9 °C, ET0 3.9 mm/d by Penman and Monteith.
    light_q4 = round(22.07 / 0.0864 * 16)
    assert agronomy.reference_et_um(1690, light_q4) / 1000 == pytest.approx(3.9, abs=0.5)


@pytest.mark.parametrize("crop", list(Crop))
def test_the_crop_coefficient_follows_the_four_stages(crop: Crop) -> None:
    row, days = agronomy.CROPS[crop], 120
    kc = [agronomy.crop_coefficient_e3(crop, day, days) for day in range(days + 1)]
    assert kc[0] == row.kc_initial_e3
    assert kc[int(days * 0.6)] == row.kc_middle_e3
    assert kc[days] == row.kc_end_e3
    assert agronomy.crop_coefficient_e3(crop, -5, days) == row.kc_initial_e3
    assert agronomy.crop_coefficient_e3(crop, days + 50, days) == row.kc_end_e3
    assert all(abs(b - a) < 60 for a, b in itertools.pairwise(kc))


def test_roots_grow_for_sixty_days_to_the_lesser_of_crop_and_field() -> None:
    assert agronomy.root_depth_mm(Crop.MAIZE, 0, 100) == 300
    assert agronomy.root_depth_mm(Crop.MAIZE, 30, 100) == 650
    assert agronomy.root_depth_mm(Crop.MAIZE, 90, 100) == 1000
    assert agronomy.root_depth_mm(Crop.POTATO, 90, 100) == 600
    assert agronomy.root_depth_mm(Crop.MAIZE, 90, 20) == 200


def test_stress_begins_at_half_of_taw_and_ends_transpiration_at_the_wilting_point() -> None:
    taw = 100_000
    assert agronomy.crop_et_um(5000, 1000, 50_000, taw) == 5000
    assert agronomy.crop_et_um(5000, 1000, 75_000, taw) == pytest.approx(2500, rel=0.01)
    assert agronomy.crop_et_um(5000, 1000, taw, taw) == 0


def test_vapour_deficit_matches_equation_11() -> None:
    for air_c in range(-15, 50, 3):
        for humidity in (0, 35, 90, 100):
            expected = 610.8 * math.exp(17.27 * air_c / (air_c + 237.3)) * (1 - humidity / 100)
            got = agronomy.vapour_deficit_pa(air_c * 100, humidity * 100)
            assert got == pytest.approx(expected, rel=0.01, abs=8)
