"""The model card in words and tables, written from the same figures as its JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.training.factory import FactoryModel
from shared_models.factory import CARD_FILE, MODEL_FILE
from shared_models.settings import SHIPPED_DOSE_E1_MM, SHIPPED_THRESHOLD_PERMILLE

TEXT_FILE = "MODEL_CARD.md"


def write(model: FactoryModel, directory: Path) -> list[Path]:
    """Write model, card and text into ``directory``; the paths written."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / name for name in (MODEL_FILE, CARD_FILE, TEXT_FILE)]
    paths[0].write_bytes(model.image.pack())
    paths[1].write_text(json.dumps(model.card, indent=1) + "\n", encoding="utf-8")
    paths[2].write_text(text(model.card), encoding="utf-8")
    return paths


def text(card: dict[str, Any]) -> str:
    """The card for people."""
    trained = card["trained"]
    schedule = trained["schedule"]
    dead = trained["dead_units"]
    groups = [*trained["worlds"], *trained["climates"]]
    return "\n".join(
        [
            f"# Model card: {card['name']}, version {card['version']}",
            "",
            f"Model `{card['model_id']}`, backbone `{card['backbone_id']}`. Made by `noria server train"
            f"{_options(trained)}`; the figures below are copied from `{CARD_FILE}`.",
            "",
            "## What it is",
            "",
            "An int8 network 24→16→8→4 of 700 bytes. It sees 24 scale-free features of a field at dawn and corrects",
            "the node's own physics: the rate at which the crop takes up water (*uptake*, at most a factor 0.61 to",
            "1.64) and the node's forecast of how fast its soil dries (*dry-down*, 24, 48, 72 h). A head of zeros is",
            "exactly the physics, and the node drops the head by itself when its record is worse than the physics.",
            "",
            "## What it learned from",
            "",
            "Field-seasons in two simulators that share no code with each other's physics nor with AquaCrop, which",
            "judges elsewhere: `dual-kc` (FAO-56 dual crop coefficient over a cascade) and `darcy` (Campbell's",
            "curves, Feddes's uptake, growth on heat). Weather is generated, over climates from desert to rainforest;",
            "soils, crops, roots, management and sensor errors are drawn for each season. The node's own reference",
            "implementation ran in closed loop; targets are the residuals its statistics summed.",
            "",
            _table(
                ["", "fields", "used for"],
                [
                    ["training", trained["training_fields"], "weights"],
                    ["validation", trained["validation_fields"], "epoch, restart, scale of each head"],
                    ["trial", trained["trial_fields"], "closed loop: how much of the uptake head is kept"],
                    ["confirmation", trained["trial_fields"], "closed loop again, where the trial found something"],
                    ["test", trained["test_fields"], "the figures below, nothing else"],
                ],
            ),
            "",
            f"Each field for {trained['years']} seasons, the node keeping what it learned of the field.",
            "",
            f"Windows in training: {trained['training_windows'][0]:,} of 24 h, {trained['training_windows'][1]:,} of"
            f" 48 h, {trained['training_windows'][2]:,} of 72 h. TensorFlow, {schedule['float_epochs']} float and"
            f" {schedule['quantised_epochs']} quantisation-aware epochs, {schedule['restarts']} restart(s), by the"
            f" method *{trained['method']}* of the compression study in `docs/model.md`. Units of the second layer that"
            f" hardly ever fire: {dead}.",
            "",
            "The backbone starts as eight hand-made quantities (`server/training/physical.py`). What training makes of",
            "them in one simulator is kept only if forecasts by heads solved on it are better in the other, both ways;",
            "squared error there over the physics', mean over 24, 48 and 72 h:",
            "",
            _table(
                ["", "hand-made", "trained"],
                [
                    [crossing, f"{errors['hand-made']:.3f}", f"{errors['trained']:.3f}"]
                    for crossing, errors in trained["error_abroad"].items()
                ],
            ),
            "",
            f"Shipped: the {trained['backbone']} one.",
            "",
            "## How much of each head is kept",
            "",
            "A head learned in one simulator is scored on held-out seasons of the other, both ways; the worse of the",
            "two best factors scales it, and a gain that resampling the fields does not confirm sets it to zero. The",
            "uptake head, the only one that moves water, must also pay in closed loop. Its benefit is the water saved",
            "at equal yield (1 % of yield counted as 25 mm). It is kept when the benefit over all seasons is beyond",
            "chance (95 %, all tries counted) and no simulator and no climate group (UNEP aridity) has a negative one",
            "or loses more than 0.1 % of yield; of the factors that pass, the one with the largest benefit, if it",
            "passes again on other fields. Else it is dropped.",
            "",
            _table(["head", "factor kept"], list(zip(card["targets"], card["head_scale"], strict=True))),
            "",
            *_trials(card),
            "## Test seasons: squared error over the physics' squared error",
            "",
            "Below 1 is better than the physics. These are same-family figures (the simulators it was trained in);",
            "AquaCrop and real probes are the result that counts and are reported by the evaluations, not here.",
            "",
            _table(
                ["head", "windows", "all", *groups, "fields no worse"],
                [
                    [
                        name,
                        card["test"]["windows"][index],
                        f"{_number(card['test']['all']['squared_error_over_physics'][index], 3)}"
                        f" {_interval(card['test']['interval'][index], 3)}",
                        *[_number(card["test"][group]["squared_error_over_physics"][index], 3) for group in groups],
                        _number(card["test"]["fields_better_than_physics"][index], 2),
                    ]
                    for index, name in enumerate(card["targets"])
                ],
            ),
            "",
            "Quantisation, the trained network before any scaling, share of squared residual explained:",
            "",
            _table(
                ["head", "float", "int8", "cost"],
                [
                    [name, *[_number(figure, 4) for figure in figures]]
                    for name, *figures in zip(
                        card["targets"],
                        card["quantisation"]["float_r2"],
                        card["quantisation"]["int8_r2"],
                        card["quantisation"]["cost_r2"],
                        strict=True,
                    )
                ],
            ),
            "",
            "## Test seasons in closed loop: physics against physics with this model",
            "",
            _comparisons(card["closed_loop"]),
            "",
            "Relative yield is `1 - Ky (1 - Ta/Tp)` (FAO-33); benefit is water saved at equal yield. Means over",
            "seasons; 95 % intervals by resampling fields.",
            f"Shipped settings: threshold {SHIPPED_THRESHOLD_PERMILLE / 1000:.2f} of TAW, doses of"
            f" {SHIPPED_DOSE_E1_MM / 10:.0f} mm.",
            "",
            _verdict(card["closed_loop"]["all"]),
            "",
            "## Limits",
            "",
            "- No real field is in it. Probes drift and err here as in our sensor model, and no further.",
            "- Crops: the eight on the node; soils from loamy sand to clay loam; no frost, no salinity.",
            "- The uptake residual is what two probes can see of a whole root zone. Where roots drink below the deep",
            "  probe the residual is biased, which is one reason to keep little of that head.",
            "- Unit tests train a smaller configuration; only the configuration named above made the shipped file.",
            "",
            "## Reproduce",
            "",
            f"`noria server train{_options(trained)} --output DIR`: the same seed gives the same bytes on the same"
            " TensorFlow build.",
            "",
        ]
    )


def _options(trained: dict[str, Any]) -> str:
    size = {"full": "", "medium": " --medium", "small": " --small"}.get(trained["configuration"], "")
    return f"{size} --seed {trained['seed']}"


def _trials(card: dict[str, Any]) -> list[str]:
    groups = [*card["trained"]["worlds"], *card["trained"]["climates"]]
    if not card["uptake_trials"]:
        return ["The uptake head did not reach the closed-loop trial: nothing of it travelled.", ""]
    tries, confirmation = card["uptake_trials"], card["uptake_confirmation"]
    named = [("trial", each) for each in tries] + ([("confirmation", confirmation)] if confirmation else [])
    rows = [
        [
            name,
            trial["uptake_scale"],
            _number(trial["all"]["water_change_mm"], 1),
            _number(trial["all"]["yield_change"], 4),
            f"{_number(trial['all']['benefit_mm'], 1)} {_interval(trial['all']['benefit_interval_mm'], 1)}",
            *[_number(trial[group]["benefit_mm"] if group in trial else None, 1) for group in groups],
            "yes" if trial["pays"] else "no",
        ]
        for name, trial in named
    ]
    header = ["", "factor", "water, mm", "yield", "benefit, mm", *[f"{group}, mm" for group in groups], "pays"]
    seasons = tries[0]["all"]["seasons"]
    return [f"Closed loop over {seasons} seasons each, change against the physics:", "", _table(header, rows), ""]


def _comparisons(closed_loop: dict[str, Any]) -> str:
    rows = [
        [
            world,
            figures["seasons"],
            _number(figures["water_physics_mm"], 0),
            f"{_number(figures['water_change_mm'], 1)} {_interval(figures['water_change_interval_mm'], 1)}",
            _number(figures["yield_physics"], 3),
            f"{_number(figures['yield_change'], 4)} {_interval(figures['yield_change_interval'], 4)}",
            f"{_number(figures['benefit_mm'], 1)} {_interval(figures['benefit_interval_mm'], 1)}",
            _number(figures["worst_yield_change"], 3),
            f"{_number(figures['stress_days_physics'], 1)} → {_number(figures['stress_days_model'], 1)}",
        ]
        for world, figures in closed_loop.items()
    ]
    header = [
        "fields",
        "seasons",
        "water, mm",
        "change, mm",
        "relative yield",
        "change",
        "benefit, mm",
        "worst season",
        "stress days",
    ]
    return _table(header, rows)


def _verdict(figures: dict[str, Any]) -> str:
    """What the closed loop allows to say, and no more."""
    sentences = []
    for name, change, interval in (
        ("water", figures["water_change_mm"], figures["water_change_interval_mm"]),
        ("yield", figures["yield_change"], figures["yield_change_interval"]),
        ("water saved at equal yield", figures["benefit_mm"], figures["benefit_interval_mm"]),
    ):
        if interval[0] <= 0 <= interval[1]:
            sentences.append(f"The change in {name} cannot be told from zero.")
        else:
            sentences.append(f"The {name} is {'more' if change > 0 else 'less'}, beyond chance in these simulators.")
    return " ".join(sentences)


def _interval(pair: Sequence[float] | None, digits: int) -> str:
    return "" if pair is None else f"[{pair[0]:.{digits}f}, {pair[1]:.{digits}f}]"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
