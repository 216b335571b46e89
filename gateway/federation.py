"""The Flower ClientApp: this farm's sums, if enough nodes stand behind them. Nothing else ever leaves.

The SuperNode that the gateway runs starts it in a process of its own for each message. Where the store is comes
from the gateway's own ``--node-config``, never from the server. The messages, those of a masked total included, are in
docs/formats.md.
"""

from __future__ import annotations

import faulthandler
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from gateway.answers import answer_in_the_clear
from gateway.masked import Place, answer_masked, offer_key, tell_seed
from gateway.store import PATIENCE_S
from gateway.sums import FarmSums

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


@contextmanager
def watched(context: Context) -> Iterator[Place]:
    """Where this farm's files are, for as long as an answer may take."""
    deadline_s = float(context.node_config.get("deadline", DEADLINE_S))
    watchdog = start_watchdog(deadline_s)
    try:
        identity = context.node_config.get("identity")
        store = Path(str(context.node_config["store"]))
        yield Place(store, Path(str(identity)) if identity else None, min(PATIENCE_S, deadline_s / 2))
    finally:
        watchdog.cancel()


def reply_content(farm: FarmSums, noise: int = 0) -> RecordDict:
    """The records of a reply in the clear; ``noise`` is the variance of what was added to each entry."""
    arrays = {"gram": farm.sums.gram, "moment": farm.sums.moment, "energy": farm.sums.energy, "count": farm.sums.count}
    content = RecordDict(
        {
            "sums": ArrayRecord({name: Array(array) for name, array in arrays.items()}),
            "counts": MetricRecord({"contributors": farm.contributors, "windows": farm.windows}),
            "site": ConfigRecord({"site": farm.site, "schema": SCHEMA, "backbone": farm.backbone_id}),
        }
    )
    if noise:
        content["noise"] = ConfigRecord({"variance": noise})
    return content


@app.train()  # type: ignore[untyped-decorator]
def train(message: Message, context: Context) -> Message:
    """Answer a request for sums in the clear.

    Raises:
        NotEnough: fewer nodes or windows than this farm's own minimum; Flower reports the refusal.
        Withheld: this farm's rules of privacy forbid it; likewise.
        StoreError: the store is missing, stays locked, or is damaged; likewise.
    """
    with watched(context) as place:
        farm, noise = answer_in_the_clear(place.store, int(message.content["config"]["backbone"]), place.patience_s)
        return Message(reply_content(farm, noise), reply_to=message)


@app.query("key")  # type: ignore[untyped-decorator]
def key(message: Message, context: Context) -> Message:
    """Offer a key for a masked total."""
    with watched(context) as place:
        return Message(offer_key(place, message.content["config"], context.state), reply_to=message)


@app.train("masked")  # type: ignore[untyped-decorator]
def masked(message: Message, context: Context) -> Message:
    """Answer under masks."""
    with watched(context) as place:
        return Message(answer_masked(place, message.content["config"], context.state), reply_to=message)


@app.query("seed")  # type: ignore[untyped-decorator]
def seed(message: Message, context: Context) -> Message:
    """Tell the seed of a masked answer."""
    with watched(context) as place:
        return Message(tell_seed(place, message.content["config"], context.state), reply_to=message)
