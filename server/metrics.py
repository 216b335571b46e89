"""Prometheus metrics and health, read from the store at each scrape: what is on disk is what is shown.

``/metrics`` is for Prometheus. ``/healthz`` answers 200, or 503 with what is wrong in words, for whoever watches
over years and acts on nothing but the status code.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from server import store
from server.config import ServerSettings
from server.scheduler import SILENT_S, Plan, plan

DURATION_BUCKETS_S = (5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0)
STATES = ("released", "refused", "failed")
REPLIES = "federation.replies_"
HEARTBEAT_LATE_S = 30
FAILURES_TOO_MANY = 3
SCRAPE_TIMEOUT_S = 10

StartResponse = Callable[[str, list[tuple[str, str]]], object]


class StoreCollector(Collector):
    """Rounds, sites, replies and processes of one server."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings

    def collect(self) -> Iterator[Metric]:
        """One scrape, through a connection of its own."""
        with closing(store.connect(self._settings.database, read_only=True)) as connection:
            yield from _processes(connection)
            yield from _rounds(connection, plan(connection, self._settings.rounds))
            yield from _sites(connection, _now_s(connection, self._settings))
            yield from _counters(connection)


def _processes(connection: sqlite3.Connection) -> Iterator[Metric]:
    for name, what in (("superlink", "The SuperLink answers."), ("broker", "The broker is connected.")):
        up = store.get_meta(connection, name) == "up"
        yield GaugeMetricFamily(f"noria_server_{name}_up", what, value=float(up))


def _rounds(connection: sqlite3.Connection, schedule: Plan) -> Iterator[Metric]:
    ended = CounterMetricFamily("noria_server_rounds", "Rounds that ended.", labels=["outcome"])
    last = GaugeMetricFamily(
        "noria_server_last_round_finished_seconds",
        "Unix time the newest round of each outcome ended.",
        labels=["outcome"],
    )
    found = {
        row["state"]: row
        for row in connection.execute(
            "SELECT state, count(*) AS rounds, max(finished_s) AS finished_s FROM rounds"
            " WHERE finished_s IS NOT NULL GROUP BY state"
        )
    }
    for state in STATES:
        ended.add_metric([state], found[state]["rounds"] if state in found else 0)
        if state in found:
            last.add_metric([state], found[state]["finished_s"])
    yield ended
    yield last
    buckets = ", ".join(f"sum(duration_ms <= {1000 * bound})" for bound in DURATION_BUCKETS_S)
    *counts, total, spent_ms = connection.execute(
        f"SELECT {buckets}, count(*), sum(duration_ms) FROM rounds WHERE duration_ms IS NOT NULL"  # noqa: S608
    ).fetchone()
    bounds = [*(str(bound) for bound in DURATION_BUCKETS_S), "+Inf"]
    yield HistogramMetricFamily(
        "noria_server_round_duration_seconds",
        "From asking to the decision.",
        buckets=list(zip(bounds, [*(count or 0 for count in counts), total], strict=True)),
        sum_value=(spent_ms or 0) / 1000,
    )
    yield GaugeMetricFamily(
        "noria_server_scheduled_failures", "Scheduled rounds that failed in a row.", value=schedule.failures
    )
    if schedule.due_s is not None:
        yield GaugeMetricFamily("noria_server_next_round_seconds", "Unix time it is due.", value=schedule.due_s)


def _sites(connection: sqlite3.Connection, now_s: int) -> Iterator[Metric]:
    heard = GaugeMetricFamily("noria_site_last_heard_seconds", "Unix time of the newest heartbeat.", labels=["site"])
    silent = 0
    for row in connection.execute("SELECT site, last_status_s FROM sites ORDER BY site"):
        heard.add_metric([row["site"]], row["last_status_s"])
        silent += row["last_status_s"] <= now_s - SILENT_S
    yield heard
    yield GaugeMetricFamily("noria_server_sites_silent", "Sites not heard of for two days.", value=silent)


def _counters(connection: sqlite3.Connection) -> Iterator[Metric]:
    replies = CounterMetricFamily("noria_server_replies", "Answers of SuperNodes.", labels=["verdict"])
    others = CounterMetricFamily("noria_server_events", "Refusals, reconnections, ends.", labels=["what"])
    for row in connection.execute("SELECT name, value FROM counters ORDER BY name"):
        name = row["name"]
        if name.startswith(REPLIES):
            replies.add_metric([name.removeprefix(REPLIES)], row["value"])
        else:
            others.add_metric([name], row["value"])
    yield replies
    yield others


def _now_s(connection: sqlite3.Connection, settings: ServerSettings) -> int:
    """The server's clock, as far as the store knows it."""
    return int(store.get_meta(connection, "clock_s") or 0) if settings.clock == "simulated" else int(time.time())


def problems(settings: ServerSettings) -> list[str]:
    """What is wrong with the running server, in words; empty where nothing is."""
    found = []
    with closing(store.connect(settings.database, read_only=True)) as connection:
        if time.time() - int(store.get_meta(connection, "heartbeat_s") or 0) > HEARTBEAT_LATE_S:
            found.append(f"the server has shown no sign of life for {HEARTBEAT_LATE_S} s")
        if store.get_meta(connection, "superlink") != "up":
            found.append("the SuperLink is down")
        if store.get_meta(connection, "broker") != "up":
            found.append("the broker is not connected")
        schedule = plan(connection, settings.rounds)
        if schedule.every_hours is not None and schedule.failures >= FAILURES_TOO_MANY:
            found.append(f"{schedule.failures} scheduled rounds failed in a row")
    return found


class _Handler(WSGIRequestHandler):
    timeout = SCRAPE_TIMEOUT_S

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """A scrape every few seconds is no news."""


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    """One slow client does not keep the others waiting."""

    daemon_threads = True


@contextmanager
def serve_metrics(settings: ServerSettings) -> Iterator[None]:
    """Serve metrics and health while the context lasts, where a port is configured.

    Raises:
        OSError: the port is taken.
    """
    if settings.metrics_port is None:
        yield
        return
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StoreCollector(settings))
    metrics = make_wsgi_app(registry)

    def application(environ: dict[str, object], start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/healthz":
            return _health(settings, start_response)
        if environ["PATH_INFO"] == "/metrics":
            page: list[bytes] = metrics(environ, start_response)
            return page
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"/metrics and /healthz are here\n"]

    address = (settings.metrics_address, settings.metrics_port)
    with make_server(*address, application, _ThreadingServer, _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def _health(settings: ServerSettings, start_response: StartResponse) -> Iterable[bytes]:
    try:
        wrong = problems(settings)
    except (store.StoreError, sqlite3.Error) as error:
        wrong = [f"the store cannot be read: {error}"]
    start_response("503 Service Unavailable" if wrong else "200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"healthy": not wrong, "problems": wrong}).encode()]
