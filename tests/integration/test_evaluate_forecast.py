"""``noria evaluate forecast --quick`` from the console: real core, AquaCrop, and measured series from packages."""

import json
import subprocess
import sys

from noria.evaluation.forecast import PAGE, page_with
from noria.evaluation.forecast_chart import forecast_chart


def evaluate(*options: str) -> dict:
    command = [sys.executable, "-m", "noria", "evaluate", "forecast", "--quick", "--json", *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_quick_evaluation_tells_of_both_parts_and_does_not_depend_on_the_processes():
    report = evaluate()
    assert set(report["world"]["climates"]) == {"champion", "tunis"}
    assert set(report["measured"]["sites"]) == {"US-Tw3", "COSMOS ARM-1"}
    world = report["world"]
    assert set(world["together"]) == {"light derived from ET0", "over all"}
    places = [*world["together"].values(), *world["climates"].values(), report["measured"]["sites"]["US-Tw3"]]
    for place in places:
        for name, horizons in place["windows"]["dry-down"].items():
            for hours in ("24", "48", "72"):
                score = horizons[hours]
                assert score["windows"] > 10
                assert score["low"] <= score["ratio"] <= score["high"], name
                assert score["rmse"] > 0
    # Who measures neither light nor air has no windows of its own, but probes that dry all the same.
    blind = report["measured"]["sites"]["COSMOS ARM-1"]["windows"]
    assert blind["dry-down"]["node"]["24"] is None
    assert blind["no rise"]["node"]["24"]["windows"] > 10
    assert blind["no rise"]["deployed"]["24"]["deployed"] == 0
    page = page_with(PAGE.read_text(encoding="utf-8"), report)
    for told in ("| champion | 24 |", "| US-Tw3 | 24 |", "| COSMOS ARM-1 | 24 |", "BSD-3-Clause", "0–0.19 m for both"):
        assert told in page
    assert page_with(page, report) == page
    dots, legend = 4 * len(places), 4
    assert forecast_chart(report).count("<circle") == dots + legend
    assert evaluate("--part", "world", "--processes", "1")["world"] == world


def test_what_does_not_exist_is_refused():
    command = [sys.executable, "-m", "noria", "evaluate", "forecast", "--part", "world", "--climates", "atlantis"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "atlantis unknown" in result.stderr
