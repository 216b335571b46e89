"""The dashboard as its readers meet it: a real Streamlit process and a real browser."""

import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import dashboard_stores as stores

from dashboards.screenshot import picture, visiting
from shared_models.codes import EventCode, Reason

PASSWORD = "the well is deep"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition, what, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return value


def healthy(url):
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dashboard")


@pytest.fixture(scope="module")
def dashboard(folder):
    """A running dashboard; the third farm's gateway has never been started."""
    secret = folder / "operator.secret"
    secret.write_text(PASSWORD + "\n", encoding="utf-8")
    secret.chmod(0o600)
    config = stores.configuration(folder, extra=f'operator_password_file = "{secret}"')
    with config.open("a", encoding="utf-8") as file:
        file.write(f'[[farms]]\nsite = "plana"\nstore = "{folder / "plana.db"}"\n')
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "dashboards.cli",
        "run",
        "--config",
        str(config),
        "--port",
        str(port),
        "--headless",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: process.poll() is not None or healthy(url), "a healthy dashboard", 60)
        yield url
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        assert printed.startswith(f"Dashboard: {url}\n")
    finally:
        process.kill()


@pytest.fixture(scope="module")
def visitor(dashboard):
    with visiting(dashboard) as browser:
        yield browser


def rows(store, query):
    with closing(sqlite3.connect(store)) as connection:
        return connection.execute(query).fetchall()


def test_farmers_see_every_field_in_words_and_follow_the_season_as_it_runs(visitor, folder):
    with visitor.page() as page:
        visitor.open(page, "")
        page.get_by_text("Last heard 4 days ago: look at the node").last.wait_for()
        cards = page.locator("section.n-card")
        assert cards.count() == 8
        for name in ("Creek", "Olive gate"):
            card = page.locator("section.n-card", has_text=name)
            assert "Next watering" in card.inner_text()
            assert "less than by calendar" in card.inner_text()
        assert page.get_by_text("plana.db does not exist").is_visible()
        images = page.locator("section.n-card .n-row img")
        assert all(images.nth(index).get_attribute("alt") for index in range(images.count()))
        assert page.get_by_role("button", name="Sign in").count() == 0

        eui, now_s = stores.dev_eui("tunis", 0), stores.CLOCK_S
        with closing(sqlite3.connect(folder / "tunis.db")) as gateway, gateway:
            gateway.execute(
                "INSERT INTO events VALUES (?,?,?,?,?,120,200,1400,200,2)",
                (eui, now_s - 60, EventCode.WATERED, Reason.OVERRIDE_WATER, now_s),
            )
        page.get_by_text("The field was watered because you asked for it.").wait_for()
    assert not visitor.outside


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_shows_the_cards_without_scrolling_sideways(visitor, dark):
    with visitor.page(390, dark=dark) as page:
        visitor.open(page, "")
        page.locator("section.n-card").first.wait_for()
        width, content = page.evaluate("[innerWidth, document.querySelector('[data-testid=stMain]').scrollWidth]")
        assert content <= width
    assert not visitor.outside


def test_a_farmers_stop_reaches_the_gateways_store(visitor, folder):
    eui = stores.dev_eui("champion", 1)
    with visitor.page() as page:
        visitor.open(page, f"field?farm=champion&field={eui}")
        page.get_by_text("What the node did, and why").wait_for()
        page.locator("[data-testid=stVegaLiteChart]").nth(2).wait_for()
        page.get_by_role("button", name="Stop for 24 hours").click()
        query = "SELECT actor, action, arguments FROM commands"
        asked = until(lambda: rows(folder / "champion.db", query), "the farmer's wish in the store")
        # It is 9 o'clock; the node reports at 6 and hears of it then.
        assert [(actor, action, json.loads(text)) for actor, action, text in asked] == [
            ("farmer", "override.stop", {"dev_eui": eui, "until_s": stores.CLOCK_S + 21 * 3600 + 86_400})
        ]
        page.get_by_text("Stopped by you until Thu 17 Jul, 06:00").first.wait_for()
    assert not visitor.outside


def test_operators_sign_in_and_their_buttons_become_commands_of_the_server(visitor, folder):
    with visitor.page() as page:
        visitor.open(page, "campaigns")
        for password, answer in (("guess", "That is not the password."), (PASSWORD, "2 of 3 confirmed")):
            page.get_by_label("Your name").fill("Anna")
            page.get_by_label("Password", exact=True).fill(password)
            assert page.get_by_text("of 3 confirmed").count() == 0
            page.get_by_test_id("stForm").get_by_role("button", name="Sign in").click()
            page.get_by_text(answer).wait_for()
        page.get_by_role("button", name="Pause").click()
        query = "SELECT actor, action, arguments, state FROM commands"
        asked = until(lambda: rows(folder / "server.db", query), "the operator's command in the store")
        assert asked == [("operator Anna", "campaign.pause", '{"campaign": 1}', "pending")]
    assert not visitor.outside


def answered(store, action, result):
    """Wait for a command as the server would and answer it; what was asked for."""
    pending = "SELECT id, arguments FROM commands WHERE state = 'pending' AND action = '{}'"
    ((number, arguments),) = until(lambda: rows(store, pending.format(action)), f"{action} in the store")
    with closing(sqlite3.connect(store)) as server, server:
        server.execute("UPDATE commands SET state = 'done', result = ? WHERE id = ?", (json.dumps(result), number))
    return json.loads(arguments)


def signed_in(visitor, page, path):
    """Open an operators' page and sign in."""
    visitor.open(page, path)
    page.get_by_label("Your name").fill("Ben")
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_test_id("stForm").get_by_role("button", name="Sign in").click()


def test_operators_preview_a_campaign_and_withdraw_a_release(visitor, folder):
    cost = {"downlinks": 4, "downlink_airtime_s": 9.9, "uplink_airtime_s": 7.1, "charge_uah": 186.0}
    node = {"dev_eui": "00" * 8, "site": "tunis", "group": 0, "running": 1, "artefact": "full", "size_bytes": 633}
    plan = {"version": 2, "nodes": 1, "groups": [{"nodes": 1, **cost}], "held_back": ["champion"], "total": cost}
    plan |= {"data_rates_unknown": 0, "devices": [node | {"cost": cost}]}
    with visitor.page() as page:
        signed_in(visitor, page, "campaigns")
        page.get_by_role("textbox", name="Groups").fill("1, 10%, 100%")
        page.get_by_role("button", name="Preview").click()
        asked = answered(folder / "server.db", "campaign.plan", {"message": "nothing has been done", "plan": plan})
        assert (asked["release"], asked["groups"]) == (2, ["1", "10%", "100%"])
        page.get_by_text("as if no frame were lost").wait_for()
        page.get_by_text("Held back: champion; their nodes keep what they run.").wait_for()

        signed_in(visitor, page, "releases")
        page.locator("summary").filter(has_text="Withdraw").click()
        page.get_by_label("Why").fill("it forgets clay")
        page.get_by_role("button", name="Withdraw release 2").click()
        asked = answered(folder / "server.db", "release.withdraw", {"message": "release 2 is withdrawn"})
        assert asked == {"release": 2, "reason": "it forgets clay"}
        page.get_by_text("release 2 is withdrawn").wait_for()
    assert not visitor.outside


def test_operator_pages_stay_shut_without_the_password(visitor):
    with visitor.page() as page:
        for path in ("fleet", "releases", "campaigns", "audit"):
            visitor.open(page, path)
            page.get_by_text("For operators only").wait_for()
            assert page.locator("h2, [data-testid=stDataFrame], [data-testid=stMetric]").count() == 0


def test_pictures_for_the_documentation_can_be_taken(visitor, tmp_path):
    taken = picture(visitor, tmp_path, operator=False, dark=False, widths=[390])
    assert [path.name for path in taken] == ["overview-390.png", "field-390.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in taken)
