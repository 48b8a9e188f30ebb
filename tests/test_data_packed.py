"""Rows of documents end to end: no token twice, none lost, the same for any ranks; pieces; attention inside them."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf.data import InOrder, PackedDocuments
from pgolf.data.packed import ENTRIES, Rewarm, row_bounds
from pgolf.data.prefetch import Prefetched
from pgolf.errors import ConfigError
from pgolf.model.pieces import Pieces, attend
from pgolf.schedule import Progress
from tests.test_data_loaders import windows_over
from tests.test_model import PLAIN, lively, spec, tokens

LOADER = PackedDocuments(cuts=(1024, 2048, 3072), until=(0.1, 0.7), rewarm_steps=32, row_sequences=1, shuffled=False)


def test_learning_rates_rise_again_after_each_change_of_the_cut():
    rewarm = Rewarm(LOADER.cut, 4)
    fractions = [0.0, 0.05, 0.1, 0.11, 0.2, 0.3, 0.4, 0.5, 0.71, 0.72]
    got = [rewarm(Progress(step, fraction, 1.0)) for step, fraction in enumerate(fractions)]
    assert got == [1, 1, 1, 0.25, 0.5, 0.75, 1, 1, 0.25, 0.5]
    assert all(Rewarm(LOADER.cut, 0)(Progress(9, fraction, 1.0)) == 1 for fraction in fractions)
    assert InOrder().rewarm()(Progress(0, 0.5, 1.0)) == 1
    with pytest.raises(ConfigError, match=r"data\.loader\.rewarm_steps=-1"):
        replace(LOADER, rewarm_steps=-1)


@st.composite
def texts(draw):
    length, counts = draw(st.integers(1, 9)), draw(st.lists(st.integers(1, 40), min_size=1, max_size=6))
    counts[-1] += 1
    return windows_over([*counts, 1], length, 1), draw(st.integers(1, 7)), sum(counts)


@settings(deadline=None, max_examples=100)
@given(made=texts())
def test_rows_are_the_text_again_and_again(made):
    """So every token is an input once per epoch, and a target once."""
    windows, batch, total = made
    rows = LOADER.build(windows, batch, 0)
    steps = -(-3 * total // (batch * windows.sequence_length))
    gathered = np.concatenate([rows.gather(rows.next()) for _ in range(steps)])
    stream = np.tile(np.arange(total), 3 + 2 * batch * windows.sequence_length // total + 2)
    taken = gathered[:, :-1].size
    assert np.array_equal(gathered[:, :-1].ravel(), stream[:taken])
    assert np.array_equal(gathered[:, 1:].ravel(), stream[1 : taken + 1])
    assert rows.epoch == taken // total


@settings(deadline=None, max_examples=100)
@given(made=texts(), together=st.integers(1, 3))
def test_shuffled_whole_rows_come_once_a_round_each_time_in_another_order(made, together):
    windows, batch, total = made
    loader = replace(LOADER, shuffled=True, row_sequences=together)
    rows, length = loader.build(windows, batch * together, 5), windows.sequence_length
    each = max(1, total // (together * length))
    taken = np.concatenate([rows.next() for _ in range(-(-3 * each // batch))])[: 3 * each * together]
    starts = taken.reshape(3, each, together)
    assert np.array_equal(starts, (starts[..., :1] + np.arange(together) * length) % total)  # a row is consecutive
    for number, found in enumerate(starts[..., 0]):
        assert sorted(found) == sorted((number * each + np.arange(each)) * together * length % total)
    again = loader.build(windows, batch * together, 5)
    assert np.array_equal(again.next(), loader.build(windows, batch * together, 5).next())
    if each > 20:
        assert not np.array_equal(np.argsort(starts[0, :, 0]), np.argsort(starts[1, :, 0]))
        assert not np.array_equal(taken, np.arange(len(taken)) * length % total)


@settings(deadline=None, max_examples=40)
@given(made=texts(), shuffled=st.booleans(), ranks=st.sampled_from([1, 2, 3]), steps=st.integers(0, 9))
def test_state_is_exact_and_ranks_change_nothing(made, shuffled, ranks, steps):
    windows, each, _ = made
    loader = replace(LOADER, shuffled=shuffled)
    alone, second = (loader.build(windows, each * ranks, 0) for _ in range(2))
    parts = [loader.build(windows, each * ranks, 0) for _ in range(ranks)]
    for _ in range(steps):
        whole = alone.gather(alone.next())
        shares = [p.gather(p.next()[r * each : (r + 1) * each]) for r, p in enumerate(parts)]
        assert np.array_equal(whole, np.concatenate(shares))
    second.load_state_dict(alone.state_dict())
    assert np.array_equal(alone.next(), second.next())
    assert alone.state_dict() == second.state_dict()


def test_the_held_out_slice_is_never_met():
    rows = LOADER.build(windows_over([50, 30], 8, 20), 5, 0)
    assert max(rows.gather(rows.next()).max() for _ in range(20)) == 59


def test_prefetched_rows():
    windows = windows_over([900, 800], 8, 100)
    plain = LOADER.build(windows, 6, 0)
    with Prefetched(LOADER.build(windows, 6, 0), np.array([1, 4])) as ahead:
        for _ in range(4):
            assert np.array_equal(ahead.next().numpy(), plain.gather(plain.next()[[1, 4]]))
        kept = ahead.state_dict()
        after = ahead.next().numpy().copy()
        ahead.load_state_dict(kept)
        assert np.array_equal(ahead.next().numpy(), after)


@settings(deadline=None, max_examples=100)
@given(
    rows=st.integers(1, 3).flatmap(
        lambda b: st.lists(st.lists(st.integers(1, 4), min_size=12, max_size=12), min_size=b, max_size=b)
    ),
    cut=st.integers(1, 13),
)
def test_a_piece_holds_one_document_of_one_row(rows, cut):
    rows = np.array(rows)
    bounds = row_bounds(rows, 1, cut)
    assert len(bounds) % ENTRIES == 0
    assert (bounds[0], bounds[-1]) == (0, rows.size)
    flat, starts = rows.ravel(), set(bounds.tolist())
    assert {i for i in range(rows.size) if flat[i] == 1 or i % 12 == 0} <= starts
    for start, end in pairwise(bounds):
        assert end - start <= cut
        assert not (flat[start + 1 : end] == 1).any()
        assert start == end or start // 12 == (end - 1) // 12
    documents = np.diff(np.unique([*(i for i in range(rows.size) if flat[i] == 1 or i % 12 == 0), rows.size]))
    assert len(np.unique(bounds)) - 1 == sum(-(-n // cut) for n in documents)  # and no more than are needed


def test_attention_inside_pieces_is_attention_under_a_mask():
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 12, 4, 8), torch.randn(2, 12, 2, 8), torch.randn(2, 12, 2, 8)
    bounds = torch.tensor([0, 5, 12, 13, 20, 24, 24, 24], dtype=torch.int32)
    piece = torch.bucketize(torch.arange(24), bounds, right=True)
    seen = (piece[:, None] == piece) & torch.ones(24, 24, dtype=torch.bool).tril()
    wide_k, wide_v = (t.repeat_interleave(2, 2).flatten(0, 1).transpose(0, 1) for t in (k, v))
    scores = q.flatten(0, 1).transpose(0, 1) @ wide_k.transpose(1, 2) / 8**0.5
    expected = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ wide_v
    got = attend(q, k, v, Pieces(bounds, 8))
    torch.testing.assert_close(got, expected.transpose(0, 1).view(2, 12, 4, 8))


def test_a_document_scores_in_a_row_as_it_does_alone():
    """In a model that mixes positions by attention alone; positions run on along the row, and rotation only sees differences."""
    model = lively(spec(**PLAIN | dict(rope_dims=8, rope_train_len=4)))
    ids = tokens(2, 25).clamp(min=2)
    ids[:, [0, 9, 14]] = 1
    inputs, targets = ids[:, :-1], ids[:, 1:]
    bounds = row_bounds(inputs.numpy(), 1, 6)
    together = model.nll(inputs, targets, Pieces(torch.from_numpy(bounds), 6)).flatten()
    for a, b in pairwise(np.unique(bounds).tolist()):
        part = slice(a, b)
        lone = Pieces(torch.tensor([0, b - a], dtype=torch.int32), 6)
        alone = model.nll(inputs.flatten()[None, part], targets.flatten()[None, part], lone)
        torch.testing.assert_close(together[part], alone[0], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("cuts", "until", "key"),
    [
        ((), (), "cuts"),
        ((0,), (), "cuts"),
        ((8, 9), (), "until"),
        ((8, 9), (1.5,), "until"),
        ((8, 9, 7), (0.7, 0.1), "until"),
    ],
)
def test_cuts_are_checked(cuts, until, key):
    with pytest.raises(ConfigError, match=f"data.loader.{key}"):
        PackedDocuments(cuts=cuts, until=until, rewarm_steps=0, row_sequences=1, shuffled=False)
