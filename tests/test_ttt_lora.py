"""Adapters per document: the order of documents, their isolation, agreement with one document at a time, and learning."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf.data.bytes import token_bytes
from pgolf.errors import ConfigError
from pgolf.eval.text import gather_rows
from pgolf.machine.world import World
from pgolf.stages.evaluate import evaluate
from pgolf.ttt import SGD, AdamW, LoraScoreFirst
from pgolf.ttt.documents import DocumentPlan
from pgolf.ttt.lora import clip_by_slot
from tests.goldens.judging import IDS, NONE, SLIDING, TABLE, model
from tests.ranks import run_ranks

ALONE = World.alone()
BASE = dict(
    chunk_tokens=16,
    optimizer=AdamW(lr=0.02, betas=(0.9, 0.999), weight_decay=0.0),
    rank=4,
    alpha=4.0,
    layers=("attn.q", "attn.v", "head"),
    documents=4,
    epochs=1,
    clip=1.0,
    seed=0,
    mixer=None,
)


def lora(**changes) -> LoraScoreFirst:
    return LoraScoreFirst(**BASE | changes)


def documents(*lengths: int) -> np.ndarray:
    """A text of documents: a boundary piece, then the golden text's own tokens."""
    words = IDS[~TABLE.boundary[IDS]]
    opener = IDS[TABLE.boundary[IDS]][0]
    parts, at = [], 0
    for n in lengths:
        parts.append(np.concatenate([[opener], words[at : at + n - 1]]))
        at += n - 1
    return np.concatenate(parts).astype(np.uint16)


def scored(ids, ttt, world=ALONE):
    found = np.full(len(ids) - 1, np.nan, np.float32)

    def on_nll(first, nll):
        found[first : first + len(nll)] = nll

    return evaluate(world, model(), ids, TABLE, SLIDING, ttt, on_nll=on_nll), found


TEXT = documents(70, 33, 5, 120, 17, 48)


@st.composite
def plans(draw) -> DocumentPlan:
    lengths = sorted(draw(st.lists(st.integers(1, 60), min_size=1, max_size=12)), reverse=True)
    order = draw(st.permutations(range(len(lengths))))
    starts = np.cumsum([0, *(lengths[i] for i in order)])[:-1]
    chunk = draw(st.integers(1, 16))
    placed = {i: int(start) for i, start in zip(order, starts, strict=True)}
    starts = np.array([placed[i] for i in range(len(lengths))])
    return DocumentPlan(starts, np.array(lengths), draw(st.integers(chunk, 40)), chunk, draw(st.integers(1, 5)))


@settings(max_examples=150)
@given(plans(), st.integers(1, 4))
def test_each_target_once_in_its_documents_order_with_no_other_document_in_sight(plan, size):
    seen = []
    for chunk in range(plan.chunks):
        shares = [b for rank in range(size) for b in plan.batches(chunk, rank, size, 1)]
        spans = [span for b in shares for span in b.spans()]
        assert sorted(spans) == sorted(plan.spans(chunk))
        seen += [t for first, end in plan.spans(chunk) for t in range(first, end)]
        for b in shares:
            for start, first in zip(b.starts, b.firsts, strict=True):
                document = plan.starts[plan.starts <= first].max()
                assert document <= start <= first
                end = dict(b.spans())[first]
                assert start == max(document, end - plan.context)
    assert sorted(seen) == list(range(plan.targets))
    place = {t: i for i, t in enumerate(seen)}
    starts = set(plan.starts.tolist())
    assert all(t in starts or place[t - 1] < place[t] for t in place)


def test_the_worked_example():
    plan = DocumentPlan(np.array([0, 5, 8]), np.array([5, 3, 2]), 4, 2, 2)
    spans = [[(0, 2)], [(2, 4)], [(4, 5)], [(5, 7), (8, 10)], [(7, 8)]]
    assert [plan.spans(c) for c in range(plan.chunks)] == spans
    assert [plan.ends_group(c) for c in range(5)] == [False, False, True, False, True]


def test_rows_end_with_their_last_known_token():
    rows = gather_rows(torch.tensor([5, 6, 7, 8], dtype=torch.uint16), np.array([1]), np.array([2]), 3)
    assert rows.tolist() == [[6, 7, 7, 7]]


def test_a_document_scores_the_same_alone_and_among_others():
    _, together = scored(TEXT, lora())
    edges = [*np.flatnonzero(TABLE.boundary[TEXT]), len(TEXT) - 1]
    for start, end in pairwise(edges):
        _, alone = scored(TEXT[start : end + 1], lora(documents=1))  # with the token that closes it
        np.testing.assert_allclose(together[start:end], alone, atol=2e-4)


def test_the_first_chunk_of_each_document_is_the_plain_models():
    _, taught = scored(TEXT, lora())
    _, plain = scored(TEXT, lora(optimizer=SGD(lr=1e-12, momentum=0.0)))
    for start in np.flatnonzero(TABLE.boundary[TEXT]):
        np.testing.assert_array_equal(taught[start : start + 4], plain[start : start + 4])
    assert (taught != plain).any()


def test_it_learns_a_document_that_repeats_itself():
    once = documents(40)
    ids = np.concatenate([once, once[1:], once[1:], once[1:]])
    taught, untaught = scored(ids, lora(epochs=4)), scored(ids, lora(optimizer=SGD(lr=1e-12, momentum=0.0)))
    assert taught[0].val_loss < untaught[0].val_loss - 0.05
    assert taught[0].receipts[0].alive


def test_every_byte_is_counted_though_documents_are_out_of_order():
    score, _ = scored(TEXT, lora())
    assert score.bytes == token_bytes(TEXT, TABLE)[1:].sum()
    assert score.tokens == len(TEXT) - 1
    assert score.val_loss != scored(TEXT, NONE)[0].val_loss


def test_equal_runs_are_equal_to_the_bit():
    (one, a), (two, b) = scored(TEXT, lora()), scored(TEXT, lora())
    np.testing.assert_array_equal(a, b)
    assert [r.sha for r in one.trace] == [r.sha for r in two.trace]


def on_a_rank(world):
    score, found = scored(TEXT, lora(), world)
    return score.val_loss, score.receipts[0].value, found


def test_ranks_share_the_documents_and_change_nothing():
    loss, moved, alone = on_a_rank(ALONE)
    ranks = run_ranks(on_a_rank, 2)
    for each in ranks:
        assert each[0] == pytest.approx(loss, abs=1e-5)
        assert each[1] == pytest.approx(moved, rel=1e-3)
    together = np.stack([found for *_, found in ranks])
    assert (np.isfinite(together).sum(0) == 1).all()
    np.testing.assert_allclose(np.nanmax(together, 0), alone, atol=1e-3)


def one_document_at_a_time(world):
    return scored(TEXT, lora(documents=1), world)[0].val_loss


@pytest.mark.slow
def test_a_rank_may_be_left_without_a_document():
    for loss in run_ranks(one_document_at_a_time, 2):
        assert loss == pytest.approx(one_document_at_a_time(ALONE), abs=1e-5)


def test_a_slots_gradient_is_clipped_by_its_own_norm():
    grads = [torch.tensor([[3.0], [0.3]]), torch.tensor([[[4.0]], [[0.4]]])]
    clip_by_slot(grads, 1.0)
    torch.testing.assert_close(grads[0], torch.tensor([[0.6], [0.3]]))
    torch.testing.assert_close(grads[1], torch.tensor([[[0.8]], [[0.4]]]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(rank=0), "ttt.rank=0: must be at least 1"),
        (dict(documents=0), "ttt.documents=0"),
        (dict(alpha=0.0), "ttt.alpha=0.0: must be above 0"),
        (dict(chunk_tokens=65), r"ttt.chunk_tokens=65: must be at most eval.context \(64\)"),
        (
            dict(layers=("nothing",)),
            r"ttt.layers=\['nothing'\]: 'nothing' ends no layer's name: .*attn.k, .*mlp.up, .*head",
        ),
    ],
)
def test_impossible_adapters_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        scored(TEXT, lora(**changes))
