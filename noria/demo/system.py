"""Everything a fleet consists of, started on loopback: broker, gateways with SuperNodes, server, dashboard, nodes."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from nodes.emulator.broker_link import BrokerLink
from nodes.emulator.farm import FarmSetup
from nodes.emulator.network_server import VirtualChirpStack
from nodes.emulator.worker import FarmWorker
from nodes.firmware.build import elf_path
from nodes.scenario import Scenario
from noria.demo.broker import NETWORK_SERVER, SERVER, PrivateBroker, gateway_client, start_broker
from noria.demo.clock import SimulatedClock
from noria.demo.deployment import NORIA, Deployment, operator_secret, write_deployment
from noria.demo.operator import Operator, noria
from noria.demo.processes import Processes
from shared_models.codes import Board
from shared_models.configuration import Broker
from shared_models.settings import NO_KEY

Report = Callable[[str], None]


def report_nothing(text: str) -> None:
    """For runs that nobody watches."""
    del text


@dataclass
class System:
    """A running fleet and the handles to it."""

    scenario: Scenario
    processes: Processes
    broker: PrivateBroker
    deployment: Deployment
    link: BrokerLink
    network: VirtualChirpStack
    clock: SimulatedClock
    workers: dict[str, FarmWorker]
    operator: Operator

    @property
    def gateways(self) -> list[str]:
        """MQTT client names of all gateways."""
        return [gateway_client(farm.site) for farm in self.scenario.farms]

    @property
    def dashboard_url(self) -> str:
        """Where the dashboard listens."""
        return f"http://127.0.0.1:{self.deployment.dashboard_port}"

    async def settle(self, time_s: float, *, everyone: bool = False) -> None:
        """Tell services the time and wait until nobody has anything left to say.

        Args:
            time_s: simulated time, Unix seconds.
            everyone: ask the server even if no gateway has said anything.
        """
        busy = await self.clock.tick(self.gateways, time_s)
        while busy or everyone:
            everyone = False
            busy = await self.clock.tick([SERVER], time_s) and await self.clock.tick(self.gateways, time_s)
        self.link.settled()


def answers(url: str) -> bool:
    """Whether a page answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310  loopback, our own scheme
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _start_services(processes: Processes, deployment: Deployment, scenario: Scenario, *, dashboard: bool) -> None:
    processes.start(SERVER, [*NORIA, "server", "run", "--config", str(deployment.server_config)])
    for farm in scenario.farms:
        command = [*NORIA, "gateway", "run", "--config", str(deployment.gateway_config(farm.site))]
        processes.start(gateway_client(farm.site), command)
    if dashboard:
        processes.start(
            "dashboard", [*NORIA, "dashboard", "run", "--headless", "--config", str(deployment.dashboard_config)]
        )


@contextlib.asynccontextmanager
async def running_system(
    scenario: Scenario, *, dashboard: bool = True, keep: Path | None = None, report: Report = report_nothing
) -> AsyncIterator[System]:
    """Start everything, yield it, and leave neither process nor temporary file behind.

    Args:
        scenario: farms, nodes and radio.
        dashboard: whether to start Streamlit too.
        keep: where to put stores, logs and configuration, to stay; a temporary directory otherwise.
        report: takes a line for people per step.

    Raises:
        ProcessError: a service did not come up.
        OperatorError: the server could not be initialised.
    """
    with contextlib.ExitStack() as stack:
        if keep is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="noria-")))
        else:
            keep.mkdir(parents=True)
            directory = keep.resolve()
        (directory / "logs").mkdir()
        processes = Processes(directory / "logs")
        stack.callback(processes.stop)

        report("broker")
        applications = {farm.site: str(farm.application_id) for farm in scenario.farms}
        broker = start_broker(processes, directory / "broker", applications)
        deployment = write_deployment(directory, scenario, broker)

        report("signing key and factory model")
        from server import signing, update_keys
        from shared_models.factory import factory_image

        key = signing.generate(deployment.key_file, operator_secret(scenario.seed, "operator"))
        secret = operator_secret(scenario.seed, "update keys")
        node_keys = update_keys.generate(deployment.key_file.with_name("update.key"), secret)
        await noria("server", "init", "--config", str(deployment.server_config))

        report("server, gateways" + (", dashboard" if dashboard else ""))
        _start_services(processes, deployment, scenario, dashboard=dashboard)

        report("fields and boards")
        firmware = {board: elf_path(board) for board in Board}
        workers = {}
        for farm in scenario.farms:
            own_keys = {node.dev_eui: node_keys.of(node.dev_eui) for node in farm.nodes}
            setup = FarmSetup(scenario, farm.site, firmware, factory_image().pack(), (key.public, NO_KEY), own_keys)
            workers[farm.site] = stack.enter_context(FarmWorker(setup))
        await asyncio.gather(*(asyncio.to_thread(worker.wait_ready) for worker in workers.values()))

        link = BrokerLink(
            Broker(port=broker.port, username=NETWORK_SERVER, password_file=broker.password_files[NETWORK_SERVER]),
            NETWORK_SERVER,
        )
        network = VirtualChirpStack(link, scenario.farms)
        clock = SimulatedClock(link)
        async with contextlib.AsyncExitStack() as tasks:
            carrying = asyncio.create_task(link.run())

            async def stop_carrying() -> None:
                carrying.cancel()
                await asyncio.gather(carrying, return_exceptions=True)

            tasks.push_async_callback(stop_carrying)
            await link.connected()
            system = System(
                scenario, processes, broker, deployment, link, network, clock, workers, Operator(deployment)
            )
            report("services on simulated time")
            await clock.greet([*system.gateways, SERVER], scenario.start_time_s)
            await system.settle(scenario.start_time_s, everyone=True)
            if dashboard:
                await asyncio.to_thread(
                    processes.wait_until,
                    lambda: answers(f"{system.dashboard_url}/_stcore/health"),
                    "dashboard",
                    "answering",
                )
            yield system
