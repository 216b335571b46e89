"""The snapshot as C sends it is the reference's, for whatever sums a node can have gathered."""

import numpy as np
import pytest
from core_cases import settings

from nodes.hostcore import HostNode
from shared_models.moments import CLASSES, MAX_WINDOWS, SNAPSHOT_BYTES, TARGET_CLASS, TARGET_LIMITS, TARGETS, Snapshot
from shared_models.state import State

UPPER = np.triu_indices(9)


def gathered(rng, windows, spread, correlation):
    """Sums of windows that end fewer and fewer long classes."""
    latent = rng.random((windows, 1)) * correlation + rng.random((windows, 8)) * (1 - correlation)
    phi = np.concatenate([np.rint(latent * spread * rng.random(8)), np.ones((windows, 1))], axis=1).astype(np.int64)
    limits = np.array(TARGET_LIMITS)
    y = np.clip(np.rint(rng.normal(0, rng.choice([0.3, 10, 200], 4), (windows, 4))), -limits, limits).astype(np.int64)
    ends = sorted((windows, *rng.integers(0, windows + 1, 2)), reverse=True)
    gram = [(phi[:end].T @ phi[:end])[UPPER] for end in ends]
    moment = [y[: ends[TARGET_CLASS[t]], t] @ phi[: ends[TARGET_CLASS[t]]] for t in range(TARGETS)]
    energy = [(y[: ends[TARGET_CLASS[t]], t] ** 2).sum() for t in range(TARGETS)]
    return np.concatenate(gram).tolist(), np.concatenate(moment).tolist(), [int(e) for e in energy], ends


@pytest.mark.parametrize("windows", [0, 1, 2, 7, 60, 366, MAX_WINDOWS])
def test_c_encodes_any_sums_as_the_reference_does(windows):
    rng = np.random.default_rng(windows)
    node = HostNode(settings())
    for trial in range(40):
        gram, moment, energy, count = gathered(rng, windows, rng.choice([1, 20, 255]), rng.choice([0, 0.9, 1]))
        state = State.unpack(node.state_bytes)
        state.gram, state.moment, state.energy, state.count = gram, moment, energy, [int(n) for n in count]
        node.state_bytes = state.pack()
        sent = node.encode_snapshot()
        assert sent == Snapshot.from_integers(gram, moment, energy, state.count).encode(), trial
        assert len(sent) == SNAPSHOT_BYTES
        assert Snapshot.decode(sent).count.tolist() == state.count
    assert len(count) == CLASSES
