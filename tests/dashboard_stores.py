"""Stores as a gateway and a server leave them in mid-season, written with their own schemas through SQL."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path

from shared_models.codes import Board, EventCode, Mode, Reason

ROOT = Path(__file__).parents[1]
DAY_S = 86400
PLANTED_S = 1_746_079_200 - 1_746_079_200 % DAY_S + 6 * 3600  # 1 May 2025, 06:00
SEASON_DAY = 75
CLOCK_S = PLANTED_S + SEASON_DAY * DAY_S + 3 * 3600
BACKBONE = 0x1F2E3D4C
FIELDS = {
    "champion": [
        ("North 1", "maize", 4.0),
        ("North 2", "maize", 3.5),
        ("Creek", "soybean", 6.0),
        ("Hill", "potato", 2.0),
    ],
    "tunis": [("Olive gate", "tomato", 1.2), ("Well", "sorghum", 2.5), ("Road", "wheat", 5.0), ("Wadi", "maize", 2.2)],
}


def dev_eui(site: str, index: int) -> str:
    """The devEUI of a site's field."""
    return f"70b3d57ed00{list(FIELDS).index(site)}{index:04x}"


def gateway_store(path: Path, site: str, *, days: int = SEASON_DAY, reports_a_day: int = 1) -> Path:
    """A farm's store: 8 days of commissioning, then ``days`` of a season from a small bucket model."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript((ROOT / "gateway" / "schema.sql").read_text(encoding="utf-8"))
        connection.execute("PRAGMA journal_mode = WAL")
        clock_s = PLANTED_S + days * DAY_S + 3 * 3600
        facts = {"schema": "1", "site": site, "clock_s": str(clock_s), "utc_offset_min": "0"}
        connection.executemany("INSERT INTO meta VALUES (?, ?)", facts.items())
        connection.executemany(
            "INSERT INTO counters VALUES (?, ?)",
            {"uplinks": 8123, "refused.unknown_device": 2, "refused.frame": 5}.items(),
        )
        for index, (name, crop, area_ha) in enumerate(FIELDS[site]):
            _field(connection, site, index, (name, crop, area_ha), days, reports_a_day, clock_s)
    return path


def _field(
    connection: sqlite3.Connection,
    site: str,
    index: int,
    about: tuple[str, str, float],
    days: int,
    reports_a_day: int,
    clock_s: int,
) -> None:
    rng = random.Random(f"{site}-{index}")
    eui, taw, threshold = dev_eui(site, index), 60.0, 0.2
    depletion, total, faults = 0.0, 0.0, 0
    board = Board.STM32L432 if index == 3 else Board.STM32L072
    version = 2 if index < 2 else 1
    battery = 2520 if (site, index) == ("champion", 3) else 3010
    events: list[tuple[object, ...]] = [(PLANTED_S - 2 * DAY_S, EventCode.ANCHORED, 0, 0.0, 0.0)]
    for day in range(-8, days + 1):
        dawn_s = PLANTED_S + day * DAY_S
        mode = Mode.COMMISSIONING if day < 0 else Mode.MODEL if index < 3 else Mode.PHYSICS
        grown = min(max(day, 0) / 60, 1.0)
        taw = 60 + 80 * grown
        reason, dose = (Reason.COMMISSIONING, 0.0) if day < 0 else (Reason.NOT_NEEDED, 0.0)
        if day >= 0 and depletion > threshold * taw:
            reason, dose = Reason.DEPLETED, 20.0
            events.append((dawn_s + 60, EventCode.WATERED, reason, dose, depletion))
        before, total = depletion, total + dose
        for report in range(reports_a_day):
            time_s = dawn_s + report * (DAY_S // reports_a_day)
            if time_s > clock_s:
                continue
            connection.execute(
                "INSERT INTO telemetry VALUES (?,?,?,?,0,?,0,1,?,?,?,1850,2240,?,?,?,-42,?,?,?,?,?)",
                (
                    eui, time_s, time_s + 5, mode, faults, battery, 2400 - int(depletion * 8),
                    2600 - int(depletion * 5), round(depletion * 10), round(taw * 10), round(threshold * 1000),
                    round((total - dose) * 10),
                    reason, version, BACKBONE, board,
                ),
            )  # fmt: skip
        if dawn_s <= clock_s:
            connection.execute(
                "INSERT INTO daily VALUES (?,?,?,?,?,?,?,2200,2500,1850,?,?,?)",
                (
                    eui, dawn_s, reports_a_day, round(max(0, before - dose) * 10), round(before * 10), round(taw * 10),
                    round(threshold * 1000), battery, round(dose * 10), 1 if dose else 0,
                ),
            )  # fmt: skip
        rain = rng.choice([0.0] * 11 + [9.0, 16.0]) if site == "champion" else rng.choice([0.0] * 30 + [6.0])
        et = (1.2 + 4.2 * grown) * rng.uniform(0.7, 1.2) if day >= 0 else 0.3
        depletion = min(taw * 0.9, max(0.0, depletion - dose - rain + et))
    if index == 0:
        events.append((PLANTED_S + 50 * DAY_S, EventCode.MODEL_ACTIVATED, 0, 0.0, 3.0))
        events.append((PLANTED_S + 57 * DAY_S, EventCode.MODEL_CONFIRMED, 0, 0.0, 5.0))
    for time_s, code, cause, dose, depleted in events:
        connection.execute(
            "INSERT INTO events VALUES (?,?,?,?,?,?,?,?,200,?)",
            (
                eui,
                time_s,
                code,
                cause,
                int(time_s) + 5,
                round(dose * 10),
                round(depleted * 10),
                round(taw * 10),
                version,
            ),  # type: ignore[call-overload]
        )
    heard_s = clock_s - (2 + index) * 3600 if not (site == "tunis" and index == 1) else clock_s - 4 * DAY_S
    connection.execute(
        "INSERT INTO devices (dev_eui, name, crop, board, area_ha, first_seen_s, last_seen_s, data_rate,"
        " rssi_dbm, snr_db, frames, frames_missed, f_cnt, battery_mv, mode, faults, model_version,"
        " backbone_id, reported_s)"
        " VALUES (?,?,?,?,?,?,?,3,-104.0,5.5,?,?,?,?,?,?,?,?,?)",
        (
            eui, about[0], about[1], board.name.lower(), about[2], PLANTED_S - 8 * DAY_S, heard_s, 95, 6, 101, battery,
            mode, faults, version, BACKBONE, heard_s,
        ),
    )  # fmt: skip


def evidence(*, passed: bool) -> str:
    """The gate's JSON for two farms and four targets."""
    gains = {"uptake": 0.86, "dry_down_24h": 0.9, "dry_down_48h": 0.93, "dry_down_72h": 1.02 if not passed else 0.95}
    targets = []
    for name, gain in gains.items():
        sites = {
            site: {
                "windows": windows,
                "physics": 100.0 * windows,
                "running": 92.0 * windows,
                "candidate": 92.0 * windows * gain,
            }
            for site, windows in {"champion": 84, "tunis": 141}.items()
        }
        total = {
            key: sum(site[key] for site in sites.values()) for key in ("windows", "physics", "running", "candidate")
        }
        reason = "better than the running release and the physics at sites it has not seen"
        targets.append(
            {
                "target": name,
                "decision": "updated" if passed else "kept",
                "reason": reason if passed else "no better than the running release (1.020 of its squared error)",
                "subspace": "all",
                "strength_windows": 30.0,
                "total": total,
                "sites": sites,
            }
        )
    return json.dumps(
        {
            "verdict": "passed" if passed else "refused",
            "reason": "updated: uptake, dry_down_24h, dry_down_48h, dry_down_72h" if passed else "no target passed",
            "tolerance": 0.02,
            "minimum_gain": 0.001,
            "held_back": {"tunis": "dry-down 24 h: 1.080 of the squared error it has"} if passed else {},
            "set_aside": {},
            "targets": targets,
        },
        sort_keys=True,
    )


def server_store(path: Path, *, more_nodes: int = 0) -> Path:
    """A server's store: eight nodes, two releases, three rounds, a campaign on its way."""
    now_s = CLOCK_S
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript((ROOT / "server" / "schema.sql").read_text(encoding="utf-8"))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executemany(
            "INSERT INTO meta VALUES (?, ?)",
            {"clock_s": str(now_s), "heartbeat_s": "1", "started_s": "1", "superlink": "up"}.items(),
        )
        connection.executemany("INSERT INTO counters VALUES (?, ?)", {"refused.status": 1, "rejected.reply": 1}.items())
        for site, fields in FIELDS.items():
            counted = json.dumps({"refused.frame": 5, "refused.unknown_device": 2, "uplinks": 8123})
            connection.execute("INSERT INTO sites VALUES (?, ?, ?)", (site, now_s - 600, counted))
            for index, _ in enumerate(fields):
                connection.execute(
                    "INSERT INTO nodes VALUES (?,?,?,?,?,?,?,?,3)",
                    (
                        dev_eui(site, index), site, 2 if index == 3 else 1, 2 if index < 2 else 1, BACKBONE,
                        2520 if (site, index) == ("champion", 3) else 3010, now_s - 3600 * (2 + index),
                        int(not (site == "tunis" and index == 1)),
                    ),
                )  # fmt: skip
        connection.executemany(
            "INSERT INTO nodes VALUES (?, 'champion', 1, 1, ?, 3000, ?, 1, NULL)",
            ((f"70b3d57ee{index:07x}", BACKBONE, now_s - index % 90_000) for index in range(more_nodes)),
        )
        release = "INSERT INTO releases VALUES (?,?,?,?,?,?,?,?,?,1,?,?)"
        connection.execute(
            release,
            (
                1,
                PLANTED_S - 30 * DAY_S,
                "factory",
                None,
                None,
                77,
                BACKBONE,
                "a1" * 32,
                b"image-1",
                '{"trained_in": 2}',
                "{}",
            ),
        )
        for row in (
            (1, PLANTED_S + 30 * DAY_S, "refused", 2, 2, 0, "no target passed", evidence(passed=False), None),
            (2, PLANTED_S + 40 * DAY_S, "failed", 2, 1, 1, "1 site accepted, 2 needed", "{}", None),
            (3, PLANTED_S + 48 * DAY_S, "released", 2, 2, 0, "", evidence(passed=True), 2),
        ):
            number, started_s, state, asked, accepted, rejected, reason, proof, version = row
            connection.execute(
                "INSERT INTO rounds VALUES (?,?,?,?,?,1,?,?,?,0,8,225,9300,?,?,?)",
                (number, started_s, started_s + 10, state, BACKBONE, asked, accepted, rejected, version, reason, proof),
            )
        connection.execute(
            release,
            (
                2,
                PLANTED_S + 48 * DAY_S,
                "federation",
                1,
                3,
                78,
                BACKBONE,
                "b2" * 32,
                b"image-2",
                "{}",
                evidence(passed=True),
            ),
        )
        connection.execute("INSERT INTO artefacts VALUES (2, 'head', ?, '', ?, 112, x'00')", (BACKBONE, "c3" * 32))
        connection.execute("INSERT INTO artefacts VALUES (2, 'full', 0, '', ?, 633, x'01')", ("d4" * 32,))
        connection.execute(
            "INSERT INTO replies VALUES (2, '991', 'tunis', 'rejected', 'gram holds a value that is not finite')"
        )
        connection.execute("INSERT INTO replies VALUES (2, '990', 'champion', 'accepted', '')")
        connection.execute(
            "INSERT INTO campaigns VALUES"
            " (1,?,'operator anna',?,'operator ben',2,?,'[]',NULL,'running',4,1,3,?,NULL,'')",
            (
                PLANTED_S + 49 * DAY_S,
                PLANTED_S + 49 * DAY_S,
                '{"release": 2, "hours": {"start": 22, "end": 5}}',
                PLANTED_S + 49 * DAY_S,
            ),
        )
        states = [
            ("champion", 0, 0, "confirmed"), ("champion", 1, 1, "confirmed"), ("tunis", 0, 1, "confirmed"),
            ("tunis", 1, 1, "sending"), ("champion", 2, 2, "pending"), ("champion", 3, 2, "pending"),
            ("tunis", 2, 2, "pending"), ("tunis", 3, 2, "pending"),
        ]  # fmt: skip
        for site, index, group, state in states:
            detail = "fragment 3 of 9" if state == "sending" else ""
            connection.execute(
                "INSERT INTO campaign_nodes (campaign, dev_eui, site, group_index, base_version, backbone_id,"
                " was_healthy, state, detail, downlinks, opened_s, updated_s) VALUES (1,?,?,?,1,?,1,?,?,?,?,?)",
                (
                    dev_eui(site, index),
                    site,
                    group,
                    BACKBONE,
                    state,
                    detail,
                    3 if group < 2 else 0,
                    now_s - DAY_S if group < 2 else None,
                    now_s - 7200 if group < 2 else None,
                ),
            )
        for position, (who, action, subject, outcome) in enumerate(
            [
                ("server", "release.created", "release 2", "done"),
                ("operator anna", "campaign.create", "campaign 1", "done"),
                ("operator anna", "campaign.approve", "campaign 1", "done"),
                ("operator anna", "campaign.start", "campaign 1", "done"),
                ("server", "campaign.group_opened", "campaign 1", "done"),
                ("operator ben", "campaign.resume", "campaign 1", "refused"),
            ]
        ):
            connection.execute(
                "INSERT INTO audit (time_s, actor, action, subject, outcome, detail, hash) VALUES (?,?,?,?,?,'',?)",
                (PLANTED_S + 49 * DAY_S + position * 60, who, action, subject, outcome, f"{position}e" * 32),
            )
    return path


def configuration(folder: Path, *, extra: str = "") -> Path:
    """A dashboard over both farms and the server, with simulated time."""
    stores = {site: gateway_store(folder / f"{site}.db", site) for site in FIELDS}
    server = server_store(folder / "server.db")
    farms = "\n".join(f'[[farms]]\nsite = "{site}"\nstore = "{path}"\n' for site, path in stores.items())
    file = folder / "dashboard.toml"
    file.write_text(
        f'clock = "simulated"\nserver_store = "{server}"\nrefresh_s = 2.0\n{extra}\n{farms}', encoding="utf-8"
    )
    return file
