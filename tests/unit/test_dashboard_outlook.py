"""What farmers are told follows from reports: enough water, next watering, water saved."""

import dataclasses
from base64 import b64decode

from hypothesis import given
from hypothesis import strategies as st

from dashboards import outlook, pictures
from dashboards.config import Calendar
from dashboards.farm_store import DAY_S, Day, Device, FieldEvent, FieldSummary, Report
from dashboards.outlook import Wetness
from shared_models.codes import EventCode, Mode, Reason

DAWN_S = 1_750_053_600 - 1_750_053_600 % DAY_S + 6 * 3600
DEVICE = Device("70b3d57ed0000001", "North", "maize", "stm32l072", 2.0, DAWN_S, 3000, 0, 0, 1, 3, -100.0, 10, 1)
REPORT = Report(DAWN_S, Mode.MODEL, False, 0, False, 3000, 10.0, 100.0, 0.2, -0.004, 40.0, Reason.NOT_NEEDED, 1)


def days(*rows):
    """Days up to DAWN_S from (depletion, doses)."""
    first_s = DAWN_S - (len(rows) - 1) * DAY_S
    return [Day(first_s + i * DAY_S, mm, mm, 100.0, 0.2, 20.0 * doses, doses) for i, (mm, doses) in enumerate(rows)]


SUMMARY = FieldSummary(DEVICE, REPORT, days((2, 0), (6, 0), (10, 0)), None, DAWN_S - 23 * DAY_S, None, 40.0, None)


def field(**changes):
    report = changes.pop("report", {})
    return dataclasses.replace(SUMMARY, report=dataclasses.replace(REPORT, **report), **changes)


def watered(hours, depletion=22.0, dose=20.0, reason=Reason.DEPLETED):
    return FieldEvent(DAWN_S + hours * 3600, EventCode.WATERED, reason, dose, depletion, 100.0, 0.2, 1)


def test_wetness_is_measured_against_the_threshold():
    assert outlook.wetness(field(report={"depletion_mm": 10.0})) is Wetness.GOOD
    assert outlook.wetness(field(report={"depletion_mm": 17.0})) is Wetness.SOON
    assert outlook.wetness(field(report={"depletion_mm": 23.0})) is Wetness.DRY
    assert outlook.wetness(field(report={"mode": Mode.COMMISSIONING})) is Wetness.WAITING
    assert outlook.wetness(field(report={"reason": Reason.SEASON_OVER})) is Wetness.OVER
    assert outlook.wetness(field(report={"taw_mm": 0.0})) is Wetness.UNKNOWN
    assert outlook.wetness(dataclasses.replace(SUMMARY, report=None)) is Wetness.UNKNOWN


def test_a_dose_told_after_the_report_is_already_in_the_soil_and_only_once():
    before = field(report={"depletion_mm": 22.0}, last_watering=watered(0))
    assert outlook.wetness(before) is Wetness.GOOD
    assert outlook.depletion_share_now(before, before.report) == 0.02
    after = field(report={"depletion_mm": 2.0}, last_watering=watered(0))
    assert outlook.depletion_share_now(after, after.report) == 0.02


def test_next_watering_follows_the_fields_own_drying():
    assert outlook.next_watering(SUMMARY, DAWN_S, 0) == "In about 3 days, unless it rains"
    assert outlook.next_watering(field(report={"depletion_mm": 18.0}), DAWN_S, 0) == "Tomorrow morning, unless it rains"
    assert outlook.next_watering(field(report={"reason": Reason.SEASON_ENDING}), DAWN_S, 0) == "No more this season"
    assert outlook.next_watering(field(report={"mode": Mode.COMMISSIONING}), DAWN_S, 0) == "After planting"
    stopped = field(stopped_until_s=DAWN_S + DAY_S)
    assert outlook.next_watering(stopped, DAWN_S, 0).startswith("Stopped by you until")
    assert "In about" in outlook.next_watering(stopped, DAWN_S + 2 * DAY_S, 0)


def test_rain_and_waterings_do_not_count_as_drying():
    assert outlook.drying_rate_mm_per_day(days((10, 0), (14, 0), (2, 0), (6, 0))) == 4
    assert outlook.drying_rate_mm_per_day(days((20, 1), (4, 0))) is None
    assert outlook.drying_rate_mm_per_day([]) is None


def test_a_gap_in_the_days_is_not_a_rate():
    two = days((2, 0), (6, 0), (30, 0))
    assert outlook.drying_rate_mm_per_day([two[0], two[2]]) is None


def test_the_calendar_is_counted_in_full_intervals_and_stops_with_the_season():
    calendar = Calendar(dose_mm=25, every_days=5)
    assert outlook.saving(SUMMARY, calendar, DAWN_S) == outlook.Saving(40.0, 100.0)
    over = dataclasses.replace(SUMMARY, season_end_s=DAWN_S - 13 * DAY_S)
    assert outlook.saving(over, calendar, DAWN_S).calendar_mm == 50.0
    assert outlook.saving(dataclasses.replace(SUMMARY, season_start_s=None), calendar, DAWN_S).share is None


def test_what_needs_a_person_is_said_and_nothing_else():
    assert outlook.attention(SUMMARY, DAWN_S + 3600, 54 * 3600) is None
    assert "4 days ago" in outlook.attention(SUMMARY, DAWN_S + 4 * DAY_S, 54 * 3600)
    assert "valve" in outlook.attention(field(report={"reason": Reason.VALVE_FAULT}), DAWN_S, 54 * 3600)
    tired = dataclasses.replace(SUMMARY, device=dataclasses.replace(DEVICE, battery_mv=2400))
    assert "battery" in outlook.attention(tired, DAWN_S, 54 * 3600)
    broken = dataclasses.replace(SUMMARY, device=dataclasses.replace(DEVICE, faults=1))
    assert "sensor" in outlook.attention(broken, DAWN_S, 54 * 3600)


def test_only_rises_no_dose_explains_look_like_rain():
    reports = [
        dataclasses.replace(REPORT, time_s=DAWN_S + i * DAY_S, depletion_mm=mm)
        for i, mm in enumerate((22.0, 4.0, 8.0, 1.0))
    ]
    rises = outlook.rain_like_rises(reports, [(DAWN_S + 60, 20.0)])
    assert rises == [outlook.Rise(DAWN_S + 3 * DAY_S, 7.0)]


@given(share=st.floats(-1, 5), threshold=st.floats(0, 1), state=st.sampled_from(Wetness))
def test_a_gauge_can_be_drawn_of_anything(share, threshold, state):
    picture = pictures.dial(share, threshold, state, pictures.LIGHT)
    assert picture.startswith("<img alt=")
    assert b"nan" not in b64decode(picture.split("base64,")[1].split('"')[0])


def test_pictures_say_in_words_what_they_show_and_names_cannot_break_them():
    assert "2 waterings" in pictures.strip(days((2, 0), (22, 1), (6, 0), (22, 1)), 0.02, pictures.DARK)
    assert pictures.strip(days((2, 0)), 0.02, pictures.DARK) == ""
    assert "<script" not in pictures.group_bar("<script>", 3, 2, 1, "<b>")
    assert "2 of 3 confirmed, 1 not" in pictures.group_bar("Canary", 3, 2, 1, "")
    assert "33% less" in pictures.water_bars(outlook.Saving(100.0, 150.0), "metric")
    assert "50% more" in pictures.water_bars(outlook.Saving(150.0, 100.0), "metric")


def test_a_wish_is_heard_at_the_nodes_next_report():
    daily = [dataclasses.replace(REPORT, time_s=DAWN_S + day * DAY_S) for day in range(3)]
    assert outlook.next_call_s(daily, DAWN_S + 2 * DAY_S + 3600) == DAWN_S + 3 * DAY_S
    late_s = DAWN_S + 9 * DAY_S
    assert outlook.next_call_s(daily, late_s) == late_s
    assert outlook.next_call_s(daily[:1], late_s) == late_s
