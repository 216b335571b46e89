"""Statistics: exact sums, a compact snapshot whose decoded integers are what everyone adds."""

from __future__ import annotations

import random

import numpy as np
import pytest

from shared_models.moments import BATCH, SNAPSHOT_BYTES, TARGET_CLASS, MomentsError, Snapshot, Sums, add_up


def gathered(seed: int, windows: int, spread: int = 256) -> tuple[Snapshot, np.ndarray, np.ndarray]:
    """A snapshot, its φ (windows, 9) and y (windows, 4); every window ends all three classes."""
    rng = np.random.default_rng(seed)
    phi = np.concatenate([rng.integers(0, spread, (windows, 8)), np.ones((windows, 1), np.int64)], axis=1)
    y = np.clip(np.rint(phi @ rng.normal(0, 0.1, (9, 4)) + rng.normal(0, 20, (windows, 4))), -127, 127).astype(int)
    gram = (phi.T @ phi)[np.triu_indices(9)]
    return (
        Snapshot.from_integers(gram.tolist() * 3, (y.T @ phi).ravel().tolist(), (y**2).sum(0).tolist(), [windows] * 3),
        phi,
        y,
    )


def test_the_error_of_any_head_follows_exactly_from_the_sums() -> None:
    snapshot, phi, y = gathered(1, 80)
    weights = np.random.default_rng(2).normal(0, 0.2, 9)
    for target in range(4):
        expected = float(((y[:, target] - phi @ weights) ** 2).sum())
        assert snapshot.sse(target, weights) == pytest.approx(expected, rel=1e-9)
        assert snapshot.sse(target, np.zeros(9)) == snapshot.energy[target]
        assert snapshot.windows(target) == 80


@pytest.mark.parametrize("windows", [0, 1, 5, 120, 366])
@pytest.mark.parametrize("spread", [1, 2, 256])
def test_a_decoded_snapshot_is_near_the_exact_one_and_decodes_to_itself(windows: int, spread: int) -> None:
    snapshot, _, _ = gathered(windows, windows, spread)
    data = snapshot.encode()
    decoded = Snapshot.decode(data)
    assert len(data) == SNAPSHOT_BYTES
    assert decoded.encode() == data
    assert Snapshot.decode(decoded.encode()) == decoded
    assert decoded.count.tolist() == snapshot.count.tolist()
    scale = np.sqrt(np.maximum(np.einsum("kii->ki", snapshot.gram), 1).astype(float))
    assert np.abs((decoded.gram - snapshot.gram) / (scale[:, :, None] * scale[:, None, :])).max(initial=0) <= 2**-11
    energy = np.sqrt(np.maximum(snapshot.energy, 1).astype(float))
    bound = energy[:, None] * scale[list(TARGET_CLASS)]
    assert np.abs((decoded.moment - snapshot.moment) / bound).max(initial=0) <= 2**-10
    assert np.abs(decoded.energy - snapshot.energy).max() <= np.maximum(snapshot.energy, 1).max() * 2**-11 + 1


def test_rounding_leaves_the_smallest_eigenvalue_within_its_stated_bound() -> None:
    rng = np.random.default_rng(3)
    base = rng.integers(0, 128, (200, 1))
    phi = np.concatenate([np.repeat(base, 8, axis=1) + rng.integers(0, 2, (200, 8)), np.ones((200, 1), int)], axis=1)
    gram = (phi.T @ phi)[np.triu_indices(9)].tolist()
    decoded = Snapshot.decode(Snapshot.from_integers(gram * 3, [0] * 36, [0] * 4, [200] * 3).encode()).gram[0]
    scale = np.sqrt(np.diag(decoded).astype(float))
    assert np.linalg.eigvalsh(decoded / np.outer(scale, scale)).min() >= -9 * 2**-11


def test_sums_are_exact_in_any_order() -> None:
    parts = [Snapshot.decode(gathered(seed, 50 + seed)[0].encode()) for seed in range(6)]
    forward, backward = Sums.zero(), Sums.zero()
    for part in parts:
        forward = forward.add(part)
    for part in reversed(parts):
        backward = backward.add(part)
    assert forward == backward
    rest = forward.subtract(parts[0])
    assert rest.add(parts[0]) == forward
    assert rest != forward
    assert all(array.dtype == np.int64 for array in (forward.gram, forward.moment, forward.energy, forward.count))


@pytest.mark.parametrize("data", [b"", bytes(SNAPSHOT_BYTES - 1), bytes(SNAPSHOT_BYTES), b"\x02" * SNAPSHOT_BYTES])
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    with pytest.raises(MomentsError):
        Snapshot.decode(data)


def test_random_bytes_are_refused_or_harmless() -> None:
    rng = random.Random(4)
    for _ in range(300):
        with pytest.raises(MomentsError):
            Snapshot.decode(b"\x01" + rng.randbytes(SNAPSHOT_BYTES - 1))


def test_impossible_residuals_are_refused() -> None:
    snapshot, _, _ = gathered(5, 40)
    forged = Snapshot(snapshot.gram, snapshot.moment, snapshot.energy * 1000, snapshot.count)
    with pytest.raises(MomentsError, match="residuals"):
        Snapshot.decode(forged.encode())
    forged = Snapshot(snapshot.gram, snapshot.moment, snapshot.energy // 1000, snapshot.count)
    with pytest.raises(MomentsError, match="cross moments"):
        Snapshot.decode(forged.encode())


def test_adding_up_many_at_once_gives_the_bits_of_one_by_one() -> None:
    rng = random.Random(5)
    data = [
        gathered(seed, rng.choice([0, 1, 7, 90, 366]), rng.choice([1, 2, 30, 256]))[0].encode() for seed in range(40)
    ]
    payloads = [data[rng.randrange(40)] for _ in range(2 * BATCH + 17)]
    one_by_one = Sums.zero()
    for payload in payloads:
        one_by_one = one_by_one.add(Snapshot.decode(payload))
    assert add_up(iter(payloads)) == one_by_one
    assert add_up([]) == Sums.zero()


def test_adding_up_refuses_exactly_what_decoding_refuses() -> None:
    rng = random.Random(6)
    good = [gathered(seed, 60)[0].encode() for seed in range(8)]
    refused = 0
    for _ in range(400):
        spoiled = bytearray(rng.choice(good))
        for _ in range(rng.choice([1, 1, 2, 5])):
            spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
        try:
            expected = Snapshot.decode(bytes(spoiled))
        except MomentsError:
            refused += 1
            with pytest.raises(MomentsError):
                add_up([good[0], bytes(spoiled), good[1]])
        else:
            assert add_up([bytes(spoiled)]) == expected
    assert 100 < refused < 400
    with pytest.raises(MomentsError):
        add_up([good[0], good[1][:-1]])
