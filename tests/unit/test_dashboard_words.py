"""Everything a node can say is explained, on the page and on paper."""

from pathlib import Path

import pytest

from dashboards import words
from shared_models.codes import CampaignState, EventCode, Mode, Reason, Refusal, ResetCause, UpdateState
from shared_models.frames import TelemetryFlag

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        (Reason, words.REASONS),
        (EventCode, words.EVENTS),
        (Mode, words.MODES),
        (Refusal, words.REFUSALS),
        (UpdateState, words.UPDATE_STATES),
        (CampaignState, words.CAMPAIGN_STATES),
    ],
)
def test_every_code_has_words(codes, told):
    assert set(told) == set(codes)


def test_the_farmers_guide_explains_every_reason_event_and_mode():
    guide = (ROOT / "docs" / "farmer.md").read_text(encoding="utf-8")
    for explained in [*words.REASONS.values(), *words.EVENTS.values(), *words.MODES.values()]:
        assert f"| **{explained.title}** | {explained.why} |" in guide
    for code, text in words.REFUSALS.items():
        assert code is Refusal.NONE or f"- {text}" in guide


def test_a_watering_is_told_with_its_reason_and_a_refusal_with_its_cause():
    assert words.event(EventCode.WATERED, Reason.OVERRIDE_WATER).why == words.REASONS[Reason.OVERRIDE_WATER].why
    assert "not signed by a trusted key" in words.event(EventCode.UPDATE_REFUSED, Refusal.SIGNATURE).why


def test_numbers_from_a_newer_node_are_told_as_unknown():
    assert "99" in words.reason(99).title
    assert "99" in words.event(99).title
    assert "99" in words.event(EventCode.UPDATE_REFUSED, 99).why
    assert "99" in words.mode(99).title
    assert words.update_state("levitating") == "levitating"
    assert words.board(77) == "board 77"


def test_quantities_in_the_readers_units():
    assert words.depth(25.4, "metric") == "25\N{NO-BREAK SPACE}mm"
    assert words.depth(25.4, "imperial") == "1.0\N{NO-BREAK SPACE}in"
    assert words.volume(10, 2.0, "metric") == "200\N{NO-BREAK SPACE}m³"
    assert words.volume(10, 2.0, "imperial") == "52,834\N{NO-BREAK SPACE}gal"


def test_text_from_a_store_cannot_become_a_picture_or_a_link():
    assert words.plain("![x](http://a.example/b)\n# c") == r"\!\[x\]\(http\://a.example/b\) \# c"


def test_times_are_the_farms_own():
    assert words.moment(1_750_000_000, 0) == "Sun 15 Jun, 15:06"
    assert words.moment(1_750_000_000, 600) == "Mon 16 Jun, 01:06"
    assert words.day_relative(1_750_000_000, 1_750_000_000 + 9 * 3600, 0) == "yesterday"
    assert words.day_relative(1_750_000_000, 1_750_000_000 + 9 * 3600, 600) == "today"
    assert [words.ago(s) for s in (5, 600, 7200, 4 * 86400)] == [
        "just now",
        "10 minutes ago",
        "2 hours ago",
        "4 days ago",
    ]


def test_a_start_is_told_with_its_cause_and_a_fault_with_its_sensors():
    assert words.event(EventCode.BOOTED, ResetCause.WATCHDOG).why == words.RESETS[ResetCause.WATCHDOG]
    assert words.event(EventCode.BOOTED, 99) == words.EVENTS[EventCode.BOOTED]
    fault = words.event(EventCode.SENSOR_FAULT, TelemetryFlag.DEEP_FAULT | TelemetryFlag.AIR_FAULT)
    assert fault.why.endswith("Meant: lower soil probe, air sensor.")
    assert words.event(EventCode.SENSOR_RECOVERED, 0) == words.EVENTS[EventCode.SENSOR_RECOVERED]
