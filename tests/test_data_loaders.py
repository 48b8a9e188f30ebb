"""Loaders: every window once per epoch, none lost, none in the held-out slice, for any shards, batches, ranks and seeds."""

from collections import Counter
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf.data import CoprimeShards, InOrder, Loader, ShuffledWindows, TrainingText
from pgolf.data.loaders import Batches, coprime_stride, weighted_draw
from pgolf.data.prefetch import Prefetched
from pgolf.data.shards import shard_bytes
from pgolf.data.windows import Windows
from pgolf.errors import ConfigError

MIX = CoprimeShards(shards_first=2, shards_last=5, power_first=0.9, power_last=0.5, ramp_batches=4)
LOADERS = [InOrder(), ShuffledWindows(), MIX]


def windows_over(counts: list[int], length: int, dev: int) -> Windows:
    """Windows over shards whose token i is i mod 65536, without files."""
    text = TrainingText("t", ("",) * len(counts), tuple(counts), 65536, length, dev, "")
    return Windows(text, np.split(np.arange(sum(counts)).astype(np.uint16), np.cumsum(counts)[:-1]))


@st.composite
def corpora(draw) -> tuple[Windows, int]:
    length = draw(st.integers(1, 9))
    counts = draw(st.lists(st.integers(1, 60), min_size=1, max_size=7))
    counts[draw(st.integers(0, len(counts) - 1))] += 2 * length + 2
    counts.append(draw(st.integers(1, 30)))
    return windows_over(counts, length, counts[-1]), draw(st.integers(1, 13))


def epoch_of(loader: Loader, windows: Windows, batch: int, seed: int) -> tuple[Batches, np.ndarray, int]:
    """The first epoch's positions, in order, as a run of batches hands them out, and what that epoch drops."""
    batches = loader.build(windows, batch, seed)
    total, dropped = batches.order.tiling.total, batches.order.tiling.dropped
    stream = np.concatenate([batches.next() for _ in range(-(-total // batch))])
    return batches, stream[:total], dropped


@pytest.mark.parametrize("loader", LOADERS, ids=lambda x: type(x).__name__)
@settings(max_examples=60)
@given(made=corpora(), seed=st.integers(0, 2**32))
def test_an_epoch_tiles_the_text_before_the_dev_slice(loader, made, seed):
    windows, batch = made
    _, positions, dropped = epoch_of(loader, windows, batch, seed)
    length, end = windows.sequence_length, int(windows.usable.sum())
    targets = Counter((positions[:, None] + 1 + np.arange(length)).ravel().tolist())
    assert max(targets.values()) == 1  # none twice
    assert max(targets) < end  # none held out
    shard_of = np.searchsorted(windows.base, np.arange(end), side="right")
    assert all(shard_of[p] == shard_of[p + length] for p in positions)  # none across shards
    for s, usable in enumerate(windows.usable.tolist()):  # none lost: a head and a tail shorter than a window
        mine = np.sort(positions[(positions >= windows.base[s]) & (positions < windows.base[s + 1])]) - windows.base[s]
        head, tail = (mine[0], usable - mine[-1] - length - 1) if len(mine) else (0, usable - 1)
        assert head < length
        assert tail < length
        assert (np.diff(mine) == length).all()
    read = np.union1d(positions, np.array(sorted(targets)))
    assert dropped == end - len(read)


@pytest.mark.parametrize("loader", LOADERS, ids=lambda x: type(x).__name__)
@settings(max_examples=30)
@given(made=corpora(), seed=st.integers(0, 2**32), steps=st.integers(0, 30))
def test_state_is_exact(loader, made, seed, steps):
    windows, batch = made
    first, second = (loader.build(windows, batch, seed) for _ in range(2))
    for _ in range(steps):
        first.next()
    second.load_state_dict(first.state_dict())
    for _ in range(5):
        assert np.array_equal(first.next(), second.next())
    assert first.state_dict() == second.state_dict()


@pytest.mark.parametrize("loader", LOADERS, ids=lambda x: type(x).__name__)
@settings(max_examples=20)
@given(made=corpora(), seed=st.integers(0, 2**32), ranks=st.sampled_from([1, 2, 4, 8]), each=st.integers(1, 4))
def test_the_global_batch_is_the_same_for_any_number_of_ranks(loader, made, seed, ranks, each):
    windows, _ = made
    alone = loader.build(windows, ranks * each, seed)
    parts = [loader.build(windows, ranks * each, seed) for _ in range(ranks)]
    for _ in range(4):
        whole = alone.gather(alone.next())
        shares = [p.gather(p.next()[r * each : (r + 1) * each]) for r, p in enumerate(parts)]
        assert np.array_equal(whole, np.concatenate(shares))


def test_gather_agrees_with_slicing():
    windows = windows_over([100, 50, 70], 8, 20)
    stream = np.arange(220)
    positions = np.array([0, 91, 100, 141, 150, 3])
    assert np.array_equal(windows.gather(positions), stream[positions[:, None] + np.arange(9)])
    assert windows.gather(positions).dtype == np.uint16


def test_in_order_is_front_to_back():
    batches = InOrder().build(windows_over([40, 30], 8, 10), 3, 0)
    assert [batches.next().tolist() for _ in range(3)] == [[0, 8, 16], [24, 40, 48], [0, 8, 16]]
    assert batches.epoch == 1


def test_seeds_and_epochs_differ_and_repeat():
    windows = windows_over([900, 800], 8, 100)
    for loader in (ShuffledWindows(), MIX):
        _, one, _ = epoch_of(loader, windows, 10, 1)
        _, again, _ = epoch_of(loader, windows, 10, 1)
        _, two, _ = epoch_of(loader, windows, 10, 2)
        assert np.array_equal(one, again)
        assert not np.array_equal(one[:100], two[:100])


def test_shuffled_draws_shards_in_proportion_to_what_is_left():
    windows = windows_over([30_001, 10_001, 1], 10, 1)
    _, positions, _ = epoch_of(ShuffledWindows(), windows, 100, 3)
    half = positions[: len(positions) // 2]
    assert (half < 30_001).mean() == pytest.approx(0.75, abs=0.03)


def test_coprime_batches_mix_more_shards_as_they_go():
    mix = CoprimeShards(shards_first=2, shards_last=8, power_first=0.9, power_last=0.5, ramp_batches=10)
    windows = windows_over([2000] * 10, 8, 100)
    batches = mix.build(windows, 16, 0)
    mixed = [len(set(np.searchsorted(windows.base, batches.next(), side="right").tolist())) for _ in range(20)]
    assert mixed[0] == 2
    assert mixed[-1] == 8
    assert mixed == sorted(mixed)


def test_weighted_draw_is_in_proportion_and_skips_what_is_empty():
    weight, rng = np.array([1.0, 0.0, 2.0, 5.0]), np.random.default_rng(0)
    drawn = [weighted_draw(weight, 2, rng).tolist() for _ in range(4000)]
    first = Counter(pair[0] for pair in drawn)
    assert [first[i] / 4000 for i in range(4)] == pytest.approx([1 / 8, 0, 2 / 8, 5 / 8], abs=0.03)
    after_3 = Counter(pair[1] for pair in drawn if pair[0] == 3)
    assert after_3[2] / after_3.total() == pytest.approx(2 / 3, abs=0.03)
    assert sorted(weighted_draw(weight, 9, rng).tolist()) == [0, 2, 3]


@given(count=st.integers(1, 5000), seed=st.integers(0, 100))
def test_coprime_stride_visits_every_place(count, seed):
    stride = coprime_stride(count, np.random.default_rng(seed))
    assert len(set((np.arange(count) * stride % count).tolist())) == count


def test_sample_draws_different_windows_before_the_dev_slice():
    windows = windows_over([400, 300], 8, 100)
    drawn = windows.sample(40, np.random.default_rng(0))
    assert len(set(drawn.tolist())) == 40
    assert drawn.max() + 8 < 600
    assert len(windows.sample(10_000, np.random.default_rng(0))) == windows.tiling().total


def test_windows_open_files(tmp_path: Path):
    counts = (90, 60)
    for i, count in enumerate(counts):
        (tmp_path / f"{i}.bin").write_bytes(shard_bytes(np.full(count, i, np.uint16)))
    text = TrainingText("t", (str(tmp_path / "0.bin"), str(tmp_path / "1.bin")), counts, 512, 8, 20, "")
    assert text.windows().gather(np.array([81, 90])).tolist() == [[0] * 9, [1] * 9]
    assert text.dev().tolist() == [1] * 20


@pytest.mark.parametrize("field", ["shards_first", "shards_last", "power_first", "power_last", "ramp_batches"])
def test_mix_is_checked(field):
    values = {f.name: getattr(MIX, f.name) for f in fields(MIX)}
    with pytest.raises(ConfigError, match=f"data.loader.{field}"):
        CoprimeShards(**{**values, field: 0})


def test_prefetched_gives_the_rows_and_an_exact_state():
    windows, rows = windows_over([900, 800], 8, 100), np.array([2, 3])
    plain = ShuffledWindows().build(windows, 6, 5)
    with Prefetched(ShuffledWindows().build(windows, 6, 5), rows) as ahead:
        assert ahead.state_dict() == plain.state_dict()
        for _ in range(3):
            expected = plain.gather(plain.next()[rows])
            got = ahead.next()
            assert got.dtype == torch.uint16
            assert np.array_equal(got.numpy(), expected)
        kept = ahead.state_dict()
        assert kept == plain.state_dict()
        after = [ahead.next().numpy().copy() for _ in range(4)]
        ahead.load_state_dict(kept)
        assert all(np.array_equal(ahead.next().numpy(), a) for a in after)


def test_prefetched_passes_errors_on():
    def broken():
        raise OSError("disk gone")

    batches = SimpleNamespace(next=broken, state_dict=dict)
    with Prefetched(batches, np.array([0])) as ahead:
        for _ in range(2):
            with pytest.raises(OSError, match="disk gone"):
                ahead.next()
