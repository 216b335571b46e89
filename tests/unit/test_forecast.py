"""Measured series are read as they were known, errors are what arithmetic says, and nothing leaks from the future."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from nodes.field.fields import sample_fields
from nodes.field.trial import run_node
from noria.evaluation import probes_sources
from noria.evaluation.forecast import page_with
from noria.evaluation.forecast_chart import forecast_chart
from noria.evaluation.forecast_gate import deployed
from noria.evaluation.forecast_heads import walk_forward
from noria.evaluation.forecast_lives import live, planting_days
from noria.evaluation.forecast_scores import score
from noria.evaluation.forecast_windows import Bool, Dawn, Dawns, Windows, windows_of, with_rows
from noria.evaluation.probes import (
    MEASURED,
    SITES,
    Channel,
    Series,
    Site,
    parse_ameriflux,
    parse_ismn,
    relative_humidity,
    seen_sites,
)
from noria.evaluation.probes_sources import ISMN, ProbesError
from shared_models.codes import Crop
from shared_models.factory import factory_image
from shared_models.fixed import NO_VALUE
from shared_models.moments import Sums
from shared_models.network import ModelImage, zero_head
from shared_models.windows import FORECAST_AFTER

DAY_S = 86_400
START_S = 1_420_092_000  # 2015-01-01 06:00
HEADER = "SCAN SCAN Abrams 37.13300 -97.08300 363.93 0.05 0.05 Hydraprobe\n"
PREFIX = "2013/08/13 10:00 2013/08/13 10:00 FR FR fraye 44.46700 -0.72690 52.42 0.05 0.05"


def channel(values: Sequence[float], step_s: int = 3600, start_s: int = START_S) -> Channel:
    return Channel(start_s + step_s * np.arange(len(values)), np.array(values, float))


# Files


def test_an_ismn_file_keeps_what_its_network_does_not_doubt() -> None:
    rows = [
        "2007/01/01 00:00   0.1540 D02 M",
        "2007/01/01 01:00   0.1560 U M",
        "2007/01/01 02:00   0.1570 G 0",
        "2007/01/01 03:00   0.1580 D02,D04 M",
        "2007/01/01 04:00   1.2000 G M",
        "2007/01/01 05:00   -9999.0 M M",
        "2007/01/01 06:00   0.1600 C03 M",
    ]
    for ends in ("\n", "\r", "\r\n"):
        values, longitude = parse_ismn(HEADER.replace("\n", ends) + ends.join(rows), "x")
        assert values.value.tolist() == [0.156, 0.157]
        assert np.diff(values.time_s).tolist() == [3600]
        assert longitude == -97.083


def test_an_ismn_file_that_repeats_its_header_reads_the_same() -> None:
    text = f"{PREFIX} 0.0345 G M\n{PREFIX.replace('10:00', '11:00')} 0.0787 D05 M\n"
    values, longitude = parse_ismn(text, "x")
    assert values.value.tolist() == [0.0345]
    assert values.time_s.tolist() == [1376388000]
    assert longitude == -0.7269


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not an ISMN series"),
        ("mal formed", "not an ISMN series"),
        (HEADER + "2007/01/01 00:00 0.15", "line 2: too short"),
        (HEADER + "2007/01/01 00:00 wet G M", "line 2"),
        (HEADER + "2007/13/01 00:00 0.15 G M", "line 2"),
        (HEADER.replace("-97.08300", "west") + "2007/01/01 00:00 0.15 G M", "line 1"),
    ],
)
def test_what_is_no_ismn_file_is_refused_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(ProbesError, match=complaint):
        parse_ismn(text, "station.stm")


AMERIFLUX = """# Site: US-Xyz
# Version: 1-5

TIMESTAMP_START,TIMESTAMP_END,SWC_1_1_1,TA
201501010530,201501010600,31.5,-9999
201501010600,201501010630,-9999,-9999
201501010630,201501010700,30.5,4.5
"""


def test_an_ameriflux_value_is_known_when_its_half_hour_is_over() -> None:
    columns = parse_ameriflux(AMERIFLUX.splitlines(), ("SWC_1_1_1", "TA"), "x")
    assert columns["SWC_1_1_1"].value.tolist() == [31.5, 30.5]
    assert columns["SWC_1_1_1"].time_s.tolist() == [START_S, START_S + 3600]
    assert columns["TA"].value.tolist() == [4.5]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no column SWC_1_1_1"),
        (AMERIFLUX.replace("SWC_1_1_1", "SWC"), "no column SWC_1_1_1"),
        (AMERIFLUX.replace("30.5", "wet"), "record 4"),
        (AMERIFLUX.replace("201501010700", "2015"), "record 4"),
        (AMERIFLUX + "201501010700,201501010730\n", "record 5"),
    ],
)
def test_what_is_no_ameriflux_file_is_refused_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(ProbesError, match=complaint):
        parse_ameriflux(text.splitlines(), ("SWC_1_1_1",), "site.csv")


def test_humidity_from_the_deficit_agrees_with_fao_56_table_2_3() -> None:
    warm, deficit = channel([20.0, 30.0]), channel([11.69, 42.43], start_s=START_S)
    assert relative_humidity(warm, deficit).value == pytest.approx([50.0, 0.0], abs=0.1)


def test_a_node_is_given_the_last_value_known_and_none_that_is_old() -> None:
    measured = channel([0.30, 0.29, 0.28])
    times = START_S + np.array([-1, 0, 3599, 3600, 7200, 18_000, 18_001])
    assert measured.held(times).tolist() == pytest.approx([np.nan, 0.30, 0.30, 0.29, 0.28, 0.28, np.nan], nan_ok=True)
    readings = Series(0, measured, measured, light_w_m2=channel([0.4])).readings(times[:3])
    assert dict(zip(MEASURED, readings[1].tolist(), strict=True)) == {
        "vwc_shallow_e4": 3000,
        "vwc_deep_e4": 3000,
        "soil_temp_c100": NO_VALUE,
        "air_temp_c100": NO_VALUE,
        "rh_e2": NO_VALUE,
        "light_w_m2": 0,
    }
    assert set(readings[0].tolist()) == {NO_VALUE}


def test_half_of_the_sites_are_seen_whatever_their_order() -> None:
    names = {site.name for site in seen_sites()}
    assert len(names) == len(SITES) // 2
    assert {site.name for site in seen_sites(SITES[::-1])} == names


def test_without_a_network_the_command_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(probes_sources, "DESTINATION", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    ISMN.archive.write_bytes(b"another archive than the one we trust")
    with pytest.raises(ProbesError, match=r"cannot download ismn 1\.5\.4.*needs the network once"):
        probes_sources.ensure(ISMN)


# Windows


def dawn(day: int, mean_e4: int, **changes: object) -> Dawn:
    usual = Dawn(
        day=day,
        season=2015,
        phi=(*[10] * 8, 1),
        rate_e4=20,
        mean_e4=mean_e4,
        node_e4=(-21, -42, -63),
        calm=(1, 1, 1),
        known=True,
        dried=True,
        model=(True, True, True),
    )
    return usual._replace(**changes)


def test_windows_join_dawns_of_one_season_that_are_whole_days_apart() -> None:
    windows = windows_of(
        [
            dawn(1, 3000, calm=(0, 0, 0)),
            dawn(2, 2970, calm=(1, 0, 0)),
            dawn(3, 2950, calm=(1, 1, 0), known=False),
            dawn(5, 2900),
            dawn(6, NO_VALUE, calm=(0, 0, 0), dried=False),
            dawn(7, 2900, season=2016),
        ]
    )
    assert list(zip(windows.start.tolist(), windows.days.tolist(), strict=True)) == [(1, 1), (1, 2), (2, 1)]
    assert windows.observed_e4.tolist() == [-30, -50, -20]
    assert windows.trend_e4.tolist() == [0, 0, -30]
    assert windows.average_e4().tolist() == [-20, -40, -20]
    assert windows.node_e4.tolist() == [-21, -42, -21]
    assert windows.label.tolist() == [-10, -5, 0]
    assert windows.gated.tolist() == [True, True, True]
    assert windows.learned.tolist() == [True, True, True]


def test_a_window_with_a_disturbed_day_is_not_the_nodes_own() -> None:
    windows = windows_of([dawn(1, 3000), dawn(2, 3100, calm=(0, 1, 1), dried=False), dawn(3, 3080, calm=(1, 0, 1))])
    rows = dict(zip(zip(windows.start.tolist(), windows.days.tolist(), strict=True), windows.gated, strict=True))
    assert rows == {(1, 1): False, (1, 2): False, (2, 1): True}
    assert windows.dried.tolist() == [False, False, True]


def test_what_is_watched_is_what_the_node_sums_and_says() -> None:
    image, dawns = factory_image(), Dawns(factory_image())
    snapshot = run_node(sample_fields(1, ["tunis"], 1, 1)[0], image, on_dawn=dawns.watch).snapshot
    windows = windows_of(dawns.seen)
    sums = windows.sums()
    assert snapshot.count[0] > 20
    assert np.array_equal(sums.count, snapshot.count)
    assert np.array_equal(sums.gram, snapshot.gram)
    assert np.array_equal(sums.moment[1:], snapshot.moment[1:])
    assert np.array_equal(sums.energy[1:], snapshot.energy[1:])
    assert np.array_equal(windows.forecast_e4(image)[windows.model], windows.node_e4[windows.model])
    assert np.array_equal(windows.forecast_e4(zero_head(image)), windows.average_e4())


# Scores


def drying(days: int, rate_e4: int = 20) -> Windows:
    """A node whose soil loses 30 units a day where its average says ``rate_e4``."""
    return windows_of([dawn(day, 9000 - 30 * day, rate_e4=rate_e4) for day in range(days)])


def test_a_forecast_with_half_the_averages_error_has_the_ratio_one_half() -> None:
    windows = drying(60)
    windows = windows.where(windows.days == 1)
    found = score(windows, np.full(len(windows), -25), windows.start // 7)
    assert found is not None
    assert (found.rmse, found.mae, found.average_rmse, found.average_mae) == (0.05, 0.05, 0.1, 0.1)
    assert (found.ratio, found.ratio_mae, found.low, found.high) == (0.5, 0.5, 0.5, 0.5)


def test_the_interval_holds_the_ratio_and_is_as_wide_as_blocks_differ() -> None:
    windows = drying(101)
    windows = windows.where(windows.days == 1)
    forecast = np.where(windows.start < 50, -30, -10)
    weeks = score(windows, forecast, windows.start // 7)
    days = score(windows, forecast, windows.start)
    assert weeks is not None
    assert days is not None
    assert weeks.ratio == pytest.approx(np.sqrt((0 * 50 + 400 * 50) / (100 * 100)))
    assert weeks.low < days.low < weeks.ratio < days.high < weeks.high


def test_nothing_to_score_is_no_score() -> None:
    exact = drying(20, rate_e4=30)
    assert score(exact, exact.average_e4(), exact.start) is None
    nothing = exact.where(exact.days == 4)
    assert score(nothing, nothing.average_e4(), nothing.start) is None


# The gate


def constant_head(steps: int) -> ModelImage:
    """Forecasts the same residual of every window."""
    row = np.zeros(9)
    row[-1] = steps
    return with_rows(factory_image(), [row] * 3)


def sent(windows: Windows, steps: int, season: Sums) -> Bool:
    """Where a node with such a head sends its forecasts."""
    image = constant_head(steps)
    return deployed(windows, windows.forecast_e4(image), image, season)


def test_a_head_without_a_season_behind_it_is_sent_after_as_many_windows_as_the_node_asks_for() -> None:
    windows = drying(60)
    right = sent(windows, -10, Sums.zero())
    for days in (1, 2, 3):
        first = FORECAST_AFTER - 1 + days
        assert windows.start[right & (windows.days == days)].tolist() == list(range(first, 60 - days))
    assert not sent(windows, 0, Sums.zero()).any()
    assert not sent(windows.where(~windows.learned), -10, Sums.zero()).any()


def test_a_head_that_the_season_speaks_for_is_sent_at_once_and_withdrawn_where_the_next_one_does_not() -> None:
    season = drying(60).sums()
    assert sent(drying(60), -10, season).all()
    assert not sent(drying(60), 10, season).any()
    wetter = sent(drying(60, rate_e4=40), -10, season)
    assert wetter[0]
    assert not wetter[-1]


# Nothing from the future


def altered(windows: Windows, after: int) -> Windows:
    """The same until a day; later windows tell another story."""
    late = windows.start + windows.days > after
    return replace(
        windows,
        observed_e4=np.where(late, -2000, windows.observed_e4),
        label=np.where(late, 127, windows.label),
        learned=windows.learned | late,
    )


def test_heads_learn_from_no_window_that_had_not_ended() -> None:
    image = factory_image()
    random = np.random.default_rng(4)
    lives = [
        windows_of(
            [
                dawn(day, 5000 - 25 * day + int(random.integers(-20, 20)), phi=(*random.integers(0, 99, 8).tolist(), 1))
                for day in range(200)
            ]
        )
        for _ in range(3)
    ]
    before, sent_before = walk_forward(lives[0], lives[1:], image)
    after, sent_after = walk_forward(altered(lives[0], 120), [altered(life, 120) for life in lives[1:]], image)
    early = lives[0].start < 120
    for name, forecast in before.items():
        assert np.array_equal(forecast[early], after[name][early]), name
        assert not np.array_equal(forecast[~early], after[name][~early]), name
    assert np.array_equal(sent_before[early], sent_after[early])


def weather_and_soil(days: int) -> Series:
    """Soil that dries and is soaked every three weeks, in daylight."""
    hours = np.arange(24 * days)
    moisture = 0.32 - 0.004 * (hours / 24 % 21)
    light = np.maximum(np.sin((hours % 24) * np.pi / 12), 0) * 700
    air = 20 + 8 * np.sin((hours % 24 - 4) * np.pi / 12)
    return Series(
        0,
        channel(moisture),
        channel(moisture + 0.02),
        air_temp_c=channel(air),
        rh_percent=channel(60 + 0 * air),
        light_w_m2=channel(light),
    )


PLACE = Site("made-up", "made-up", ISMN, "made-up", Crop.MAIZE, 4, 200, lambda: weather_and_soil(400))


def changed_after(series: Series, time_s: int) -> Series:
    late = series.shallow.time_s > time_s
    return replace(series, shallow=Channel(series.shallow.time_s, np.where(late, 0.45, series.shallow.value)))


def test_a_node_on_a_measured_series_forecasts_without_knowing_what_comes() -> None:
    series = PLACE.load()
    change_s = START_S + 200 * DAY_S
    other = changed_after(series, change_s)
    assert planting_days(series, 4) == planting_days(other, 4)
    lived, changed = (live(PLACE, each, factory_image()).windows for each in (series, other))
    change_day = change_s // DAY_S
    assert lived.gated.sum() > 60
    for windows in (lived, changed):
        assert (windows.start + windows.days > change_day).any()
    early, same = (windows.where(windows.start + windows.days <= change_day) for windows in (lived, changed))
    assert np.array_equal(early.node_e4, same.node_e4)
    assert np.array_equal(early.observed_e4, same.observed_e4)
    assert not np.array_equal(lived.observed_e4, changed.observed_e4)


def test_planting_follows_the_last_soaking_before_the_usual_month() -> None:
    series = PLACE.load()
    (planting,) = planting_days(series, 4)
    soaked = START_S // DAY_S + 84
    assert (planting.toordinal() - 719163) - soaked == 8
    dry = replace(series, shallow=channel([0.3] * 9600), deep=channel([0.3] * 9600))
    assert [day.isoformat() for day in planting_days(dry, 4)] == ["2015-04-01"]


# The page


def test_a_page_without_marks_is_not_written() -> None:
    report = {"measured": {"sites": {}, "sources": []}}
    with pytest.raises(ValueError, match="no marks of the table measured"):
        page_with("no marks", report)


def test_a_ratio_lies_on_its_axis_and_beyond_it_at_the_end() -> None:
    def told(ratio: float, deployed: float = 1.0) -> dict[str, dict[str, float]]:
        return {"24": {"low": ratio, "ratio": ratio, "high": ratio, "deployed": deployed}}

    scores = {"shipped": told(1.0), "fleet": told(0.4), "fleet and own": told(9.0), "deployed": told(1.0, 0.0)}
    report = {"measured": {"sites": {"A & B": {"windows": {"dry-down": scores}}}}}
    chart = forecast_chart(report)
    assert "A &amp; B" in chart
    assert [part.split('"')[0] for part in chart.split('<circle cx="')[5:]] == ["510.0", "190.0", "830.0", "510.0"]
    assert chart.count('fill="#fff" stroke="#c8553d"') == 1
