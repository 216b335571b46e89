"""The Flower ClientApp: this farm's sums, if enough nodes stand behind them. Nothing else ever leaves.

The SuperNode that the gateway runs starts it in a process of its own for each message. Where the store is comes
from the gateway's own ``--node-config``, never from the server. Messages::

    question  "config": ConfigRecord {backbone, round}
    reply     "sums": ArrayRecord {gram, moment, energy, count}, all int64
              "counts": MetricRecord {contributors, windows}
              "site": ConfigRecord {site, schema, backbone}
"""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Callable
from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from gateway.store import PATIENCE_S
from gateway.sums import FarmSums, load_sums

SCHEMA = 1
DEADLINE_S = 60.0
DEADLINE_EXIT_CODE = 75
"""EX_TEMPFAIL."""

app = ClientApp()


def start_watchdog(deadline_s: float, give_up: Callable[[int], object] = os._exit) -> threading.Timer:
    """End this process after ``deadline_s``: a ClientApp that hangs would block its SuperNode for good."""

    def expire() -> None:
        faulthandler.dump_traceback()
        give_up(DEADLINE_EXIT_CODE)

    watchdog = threading.Timer(deadline_s, expire)
    watchdog.daemon = True
    watchdog.start()
    return watchdog


def reply_content(farm: FarmSums) -> RecordDict:
    """The reply's records."""
    arrays = {"gram": farm.sums.gram, "moment": farm.sums.moment, "energy": farm.sums.energy, "count": farm.sums.count}
    return RecordDict(
        {
            "sums": ArrayRecord({name: Array(array) for name, array in arrays.items()}),
            "counts": MetricRecord({"contributors": farm.contributors, "windows": farm.windows}),
            "site": ConfigRecord({"site": farm.site, "schema": SCHEMA, "backbone": farm.backbone_id}),
        }
    )


@app.train()  # type: ignore[untyped-decorator]
def train(message: Message, context: Context) -> Message:
    """Answer a request for sums.

    Raises:
        NotEnough: fewer nodes or windows than this farm's own minimum; Flower reports the refusal.
        StoreError: the store is missing, stays locked, or is damaged; likewise.
    """
    deadline_s = float(context.node_config.get("deadline", DEADLINE_S))
    watchdog = start_watchdog(deadline_s)
    try:
        backbone = int(message.content["config"]["backbone"])
        store = Path(str(context.node_config["store"]))
        farm = load_sums(store, backbone, patience_s=min(PATIENCE_S, deadline_s / 2)).released()
        return Message(reply_content(farm), reply_to=message)
    finally:
        watchdog.cancel()
