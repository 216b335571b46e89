"""One small season end to end on real processes, twice: undisturbed, and with processes killed in mid-season.

Both seasons are attacked in the same way (forged and outdated releases, garbage on the broker), since an attack that is
refused must change nothing; the disturbances differ, since a restart must change nothing either.
"""

import asyncio
import base64
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import aiomqtt
import pytest

from nodes.scenario import load_scenario
from noria.demo.broker import SERVER, gateway_client
from noria.demo.season import Season
from noria.demo.summary import Summary, summarise
from noria.demo.system import System, answers, running_system
from server.signing import SigningKey
from shared_models.container import build_full, sign
from shared_models.factory import factory_image
from shared_models.messages import Artefact, Assignment, assignment_topic

SCENARIO = Path(__file__).resolve().parents[2] / "noria" / "scenarios" / "small.toml"
GARBAGE_DAY = 10
ATTACK_DAY = 11
WISH_DAY = 18
DISTURBANCE_DAYS = range(13, 17)


@dataclass
class Outcome:
    summary: Summary
    refused: dict[str, int]
    refusals_told: list[tuple[str, str]]
    farmers_wish: str
    left_behind: list[Path]


async def publish_as(system: System, client: str, messages: list[tuple[str, bytes, bool]]) -> None:
    """What somebody could do who has stolen a client's password."""
    async with aiomqtt.Client(
        "127.0.0.1",
        system.broker.port,
        username=client,
        password=system.broker.password_files[client].read_text().strip(),
        identifier=f"thief-of-{client}",
    ) as thief:
        for topic, payload, retain in messages:
            await thief.publish(topic, payload, qos=1, retain=retain)


async def spread_garbage(system: System) -> None:
    """Malformed JSON, an unknown device, a frame of the wrong length: through the network server's own connection."""
    farm = system.scenario.farms[0]
    known = farm.nodes[0].dev_eui
    base = {"deduplicationId": "d7c1a6a0-0000-4000-8000-000000000001", "time": "2001-05-30T10:00:00+00:00", "fCnt": 9}
    wrong_length = {**base, "fPort": 10, "data": base64.b64encode(b"\1\2\3").decode()}

    def topic(dev_eui: str) -> str:
        return f"application/{farm.application_id}/device/{dev_eui}/event/up"

    await system.link.publish(topic(known), b'{"deduplicationId": ')
    await system.link.publish(topic(known), bytes(range(256)))
    await system.link.publish(
        topic("ffffffffffffffff"), json.dumps({**wrong_length, "deviceInfo": {"devEui": "f" * 16}}).encode()
    )
    await system.link.publish(topic(known), json.dumps({**wrong_length, "deviceInfo": {"devEui": known}}).encode())


def ask_to_stop(store: Path, dev_eui: str, now_s: int) -> None:
    """What the farmer's button does: a row in the gateway's store."""
    arguments = json.dumps({"dev_eui": dev_eui, "until_s": now_s + 3 * 86_400})
    with closing(sqlite3.connect(store, timeout=10)) as connection, connection:
        connection.execute(
            "INSERT INTO commands (created_s, actor, action, arguments) VALUES (?, 'farmer', 'override.stop', ?)",
            (now_s, arguments),
        )


def state_of_the_wish(store: Path) -> str:
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
        return str(connection.execute("SELECT state FROM commands").fetchone()[0])


async def attack(system: System) -> None:
    """A stolen broker password: a release signed by nobody we trust, and an old one said to be new."""
    ours = SigningKey.load(system.deployment.key_file)
    theirs = SigningKey.from_seed(bytes(range(32)))
    image = factory_image()
    forged = sign(build_full(image, 9), theirs.secret)
    outdated = sign(build_full(image, 1), ours.secret)
    messages = []
    for campaign, (farm, container) in enumerate(zip(system.scenario.farms, (forged, outdated), strict=True), 900):
        assignment = Assignment(
            campaign=campaign,
            sequence=1,
            action="run",
            version=9,
            model_id=image.model_id,
            artefacts=[Artefact(kind="full", base=0, container=base64.b64encode(container).decode())],
            devices=[farm.nodes[0].dev_eui],
        )
        messages.append((assignment_topic(farm.site, campaign), assignment.model_dump_json().encode(), True))
    messages.append((assignment_topic(system.scenario.farms[0].site, 999), b'{"campaign": "everything"}', False))
    await publish_as(system, SERVER, messages)
    await system.settle(system.scenario.start_time_s + ATTACK_DAY * 86_400, everyone=True)


async def kill_and_restart(system: System, name: str, after_s: float) -> None:
    await asyncio.sleep(after_s)  # Not a wait for something: a moment like any other to lose a process.
    system.processes.kill(name)
    system.processes.restart(name)


async def live(directory: Path, *, disturbed: bool) -> Outcome:
    scenario = load_scenario(SCENARIO)
    disturbances: list[asyncio.Task[None]] = []

    async with running_system(scenario, keep=directory) as system:
        wish_store = system.deployment.gateway_store(scenario.farms[0].site)

        async def every_day(day: int) -> None:
            if day == GARBAGE_DAY:
                await spread_garbage(system)
            if day == ATTACK_DAY:
                await attack(system)
            if day == WISH_DAY:
                ask_to_stop(wish_store, scenario.farms[0].nodes[1].dev_eui, scenario.start_time_s + day * 86_400)
            if disturbed and day in DISTURBANCE_DAYS:
                victim = "mosquitto" if day % 2 else gateway_client(scenario.farms[day % 4 // 2].site)
                after_s = 0.05 * (day - DISTURBANCE_DAYS.start + 1)
                disturbances.append(asyncio.create_task(kill_and_restart(system, victim, after_s)))

        season = Season(system, every_day=every_day)
        reports = await season.run()
        await asyncio.gather(*disturbances)
        page = await asyncio.to_thread(answers, system.dashboard_url)
        summary = summarise(season, reports, 0.0, dashboard_pages=int(page))
        refused: dict[str, int] = {}
        for gateway in summary.gateways:
            for name, value in gateway.counters.items():
                refused[name] = refused.get(name, 0) + value
        wish = state_of_the_wish(wish_store)
        pids = [child.process.pid for child in system.processes.children.values()]

    told = [
        (row["dev_eui"], name)
        for row in summary.fields
        for name, times in row["events"].items()
        for _ in range(times)
        if name == "update_refused"
    ]
    left_behind = [Path(f"/proc/{pid}") for pid in pids if Path(f"/proc/{pid}").exists()]
    return Outcome(summary, refused, told, wish, left_behind)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return asyncio.run(live(tmp_path_factory.mktemp("undisturbed") / "run", disturbed=False))


@pytest.fixture(scope="module")
def disturbed(tmp_path_factory):
    return asyncio.run(live(tmp_path_factory.mktemp("disturbed") / "run", disturbed=True))


@pytest.mark.timeout(600)
def test_every_stage_of_a_season_really_happens(undisturbed):
    assert [stage for stage in undisturbed.summary.stages if not stage.ok] == []


def test_garbage_and_strangers_are_refused_and_counted(undisturbed):
    reasons = {name: value for name, value in undisturbed.refused.items() if name.startswith("refused")}
    assert sum(reasons.values()) >= 5, reasons
    assert undisturbed.summary.complete


def test_forged_and_outdated_releases_reach_nodes_and_are_refused_there(undisturbed):
    attacked = {farm.nodes[0].dev_eui for farm in load_scenario(SCENARIO).farms}
    assert {dev_eui for dev_eui, _ in undisturbed.refusals_told} == attacked
    assert all(row["model_version"] == 2 for row in undisturbed.summary.fields)


def test_a_farmers_stop_reaches_the_node_and_is_confirmed_by_it(undisturbed):
    assert undisturbed.farmers_wish == "done"


@pytest.mark.timeout(600)
def test_killing_gateways_and_broker_changes_neither_sums_nor_air(undisturbed, disturbed):
    calm, rough = undisturbed.summary, disturbed.summary
    assert [gateway.sums_digest for gateway in rough.gateways] == [gateway.sums_digest for gateway in calm.gateways]
    assert [gateway.uplinks for gateway in rough.gateways] == [gateway.uplinks for gateway in calm.gateways]
    assert rough.radio["sha256"] == calm.radio["sha256"]
    assert rough.complete


def test_nothing_is_left_running(undisturbed, disturbed):
    assert undisturbed.left_behind == []
    assert disturbed.left_behind == []
