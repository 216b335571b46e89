"""Prometheus metrics, read from the store at each scrape: what is on disk is what is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.config import GatewaySettings
from gateway.diagnosis import Standing
from gateway.membership import read as read_membership
from gateway.store import open_read_only


class StoreCollector(Collector):
    """Counters, node health and queue lengths of one gateway."""

    def __init__(self, store_path: Path) -> None:
        self._store_path = store_path

    def collect(self) -> Iterator[Metric]:
        """One scrape, through a connection of its own."""
        with closing(open_read_only(self._store_path)) as db:
            standing = read_membership(db)
            if standing is not None:
                connected = float(standing["standing"] == Standing.CONNECTED)
                yield GaugeMetricFamily("noria_gateway_supernode_connected", "1 while it is.", value=connected)
            apart = CounterMetricFamily(
                "noria_gateway_supernode_problems", "Times the SuperNode was found not connected.", labels=["reason"]
            )
            handled = CounterMetricFamily("noria_gateway_messages", "What was taken and sent.", labels=["what"])
            refused = CounterMetricFamily("noria_gateway_refused", "Input not taken.", labels=["reason"])
            for row in db.execute("SELECT name, value FROM counters"):
                kind, _, reason = row["name"].partition(".")
                if kind == "refused":
                    refused.add_metric([reason], row["value"])
                elif kind == "supernode":
                    apart.add_metric([reason], row["value"])
                else:
                    handled.add_metric([row["name"]], row["value"])
            yield handled
            yield refused
            yield apart
            seen = GaugeMetricFamily(
                "noria_node_last_seen_seconds", "Unix time of the newest uplink.", labels=["dev_eui"]
            )
            battery = GaugeMetricFamily("noria_node_battery_volts", "Battery as last reported.", labels=["dev_eui"])
            for row in db.execute("SELECT dev_eui, last_seen_s, battery_mv FROM devices WHERE listed = 1"):
                if row["last_seen_s"] is not None:
                    seen.add_metric([row["dev_eui"]], row["last_seen_s"])
                if row["battery_mv"] is not None:
                    battery.add_metric([row["dev_eui"]], row["battery_mv"] / 1000)
            yield seen
            yield battery
            (waiting,) = db.execute("SELECT count(*) FROM outbox").fetchone()
            yield GaugeMetricFamily("noria_gateway_outbox_messages", "Committed, not yet published.", value=waiting)
            told, spent = db.execute("SELECT count(*), coalesce(sum(rho), 0) FROM disclosures").fetchone()
            yield GaugeMetricFamily("noria_gateway_disclosures", "Answers under masks or with noise.", value=told)
            yield GaugeMetricFamily("noria_gateway_privacy_spent_zcdp", "What answers with noise cost.", value=spent)


@contextmanager
def serve_metrics(settings: GatewaySettings) -> Iterator[None]:
    """Serve metrics while the context lasts, where a port is configured."""
    if settings.metrics_port is None:
        yield
        return
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StoreCollector(settings.store))
    server, thread = start_http_server(settings.metrics_port, settings.metrics_address, registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
