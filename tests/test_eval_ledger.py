"""The referee: exact sums, causality, rank independence, and every cheat stopped by name."""

import math

import numpy as np
import pytest
import torch

from pgolf.data.bytes import ByteTable, token_bytes
from pgolf.errors import UserError
from pgolf.eval import Chunked, Sliding
from pgolf.eval.learner import Fixed
from pgolf.eval.ledger import Ledger, fingerprint, mixed
from pgolf.eval.text import LedgerError, Text
from pgolf.machine.world import World
from pgolf.stages.evaluate import evaluate
from pgolf.ttt import NoTTT
from tests.goldens.judging import IDS, NONE, SLIDING, TABLE, model

ALONE = World.alone()


def nll_by_target(ids, evaluation=SLIDING, ttt=NONE, world=ALONE):
    found = np.full(len(ids) - 1, np.nan, np.float32)

    def on_nll(first, nll):
        found[first : first + len(nll)] = nll

    return evaluate(world, model(), ids, TABLE, evaluation, ttt, on_nll=on_nll), found


def slow(ids, context, stride) -> np.ndarray:
    """Each window through the plain forward, one at a time, without padding."""
    net, out, start = model(), [], 0
    while start == 0 or start + context - stride < len(ids) - 1:
        window = torch.from_numpy(ids[start : start + context + 1].astype(np.int64))[None]
        with torch.no_grad():
            log_p = net(window[:, :-1])[0].log_softmax(-1)
        nll = -log_p[torch.arange(log_p.shape[0]), window[0, 1:]]
        out.append(nll[0 if start == 0 else context - stride :])
        start += stride
    return torch.cat(out).numpy()


def test_every_target_and_byte_is_counted():
    score, _ = nll_by_target(IDS)
    assert (score.tokens, score.visits) == (len(IDS) - 1, (1, 1))
    assert score.bytes == token_bytes(IDS, TABLE)[1:].sum()


@pytest.mark.parametrize(("context", "stride", "batch"), [(64, 16, 5), (48, 48, 7), (33, 10, 1), (64, 64, 64)])
def test_every_score_is_that_of_a_plain_forward(context, stride, batch):
    ids = IDS[:700]
    _, found = nll_by_target(ids, Sliding(context=context, stride=stride, batch_windows=batch), NoTTT(chunk_tokens=100))
    np.testing.assert_allclose(found, slow(ids, context, stride), atol=2e-5)


@pytest.mark.parametrize("length", [2, 10, 64, 65, 66])
def test_a_text_shorter_than_a_window_is_scored_whole(length):
    score, found = nll_by_target(IDS[:length])
    assert score.tokens == length - 1
    np.testing.assert_allclose(found, slow(IDS[:length], 64, 16), atol=2e-5)


def test_chunk_length_and_batches_do_not_change_the_score():
    wide, _ = nll_by_target(IDS, Sliding(context=64, stride=16, batch_windows=100), NoTTT(chunk_tokens=10_000))
    narrow, _ = nll_by_target(IDS, Sliding(context=64, stride=16, batch_windows=3), NoTTT(chunk_tokens=37))
    assert narrow.val_loss == pytest.approx(wide.val_loss, abs=1e-7)
    assert narrow.bytes == wide.bytes


def test_equal_runs_are_equal_to_the_bit():
    (one, a), (two, b) = nll_by_target(IDS), nll_by_target(IDS)
    assert one.val_loss == two.val_loss
    np.testing.assert_array_equal(a, b)
    assert [row.sha for row in one.trace] == [row.sha for row in two.trace]


def test_chunked_is_cheaper_and_no_better():
    chunked, _ = nll_by_target(IDS, Chunked(context=64, batch_windows=32))
    assert chunked.tokens == len(IDS) - 1
    assert chunked.val_loss != nll_by_target(IDS)[0].val_loss


def test_a_later_token_changes_no_earlier_score():
    flipped = IDS.copy()
    flipped[1500] = (flipped[1500] + 7) % 96
    before, after = nll_by_target(IDS)[1], nll_by_target(flipped)[1]
    np.testing.assert_array_equal(before[:1499], after[:1499])
    assert before[1499] != after[1499]  # the flipped token's own score
    assert (before[1500:] != after[1500:]).any()


def test_the_trace_tells_each_phase_and_a_fixed_model_never_changes():
    score, _ = nll_by_target(IDS)
    chunks = math.ceil((len(IDS) - 1) / 256)
    assert [(r.chunk, r.phase) for r in score.trace] == [
        (c, phase) for c in range(chunks) for phase in ("score", "adapt")
    ][:-1]
    assert len({row.sha for row in score.trace}) == 1
    assert score.trace[-1].bpb == score.val_bpb
    assert score.receipts == ()


def test_progress_tells_how_far_and_how_long():
    heard = []
    evaluate(ALONE, model(), IDS, TABLE, Sliding(context=64, stride=16, batch_windows=4), NONE, heard.append)
    assert [p.done for p in heard] == sorted(p.done for p in heard)
    assert heard[-1].done == heard[-1].total == len(IDS) - 1
    assert math.isnan(heard[0].bpb)
    assert heard[-1].bpb > 0
    assert heard[-1].expected == pytest.approx(heard[-1].seconds)
    assert len(heard) > heard[-1].chunks  # batches as well as chunks


class AdaptsFirst(Fixed):
    def score(self, scorer):
        with torch.no_grad():
            self.model.embedding.weight.add_(1e-3)
        super().score(scorer)


class ScoresTwice(Fixed):
    def score(self, scorer):
        super().score(scorer)
        super().score(scorer)


class SkipsAWindow(Fixed):
    def score(self, scorer):
        with torch.no_grad():
            for batch, x, y in list(scorer.batches())[:-1]:
                scorer.record_nll(batch, self.nll(x, y, batch.last))


class ReadsAhead(Fixed):
    def adapt(self, text, chunk):
        text.sequences((chunk + 1) * 256, 1, 64)
        return 0.0


class CountsBytesAhead(Fixed):
    def adapt(self, text, chunk):
        text.bytes(0, (chunk + 1) * 256 + 1)
        return 0.0


class GradesAnotherChunk(Fixed):
    first = None

    def score(self, scorer):
        self.first = self.first or scorer
        for batch, x, y in self.first.batches():
            scorer.record_nll(batch, self.nll(x, y, batch.last))


class GradesTooFew(Fixed):
    def nll(self, x, y, last):
        return super().nll(x, y, last)[:, :-1]


class GradesNonsense(Fixed):
    def nll(self, x, y, last):
        return super().nll(x, y, last) * math.nan


CHEATS = [
    (AdaptsFirst, r"chunk 0: parameters changed while it was being scored"),
    (ScoresTwice, r"chunk 0: target 0 is scored a second time"),
    (SkipsAWindow, r"chunk 0: target \d+ was scored 0 times, not once"),
    (ReadsAhead, r"targets \[256, 320\) asked for, but target 256 is not committed"),
    (CountsBytesAhead, r"targets \[0, 257\) asked for, but target 256 is not committed"),
    (GradesAnotherChunk, r"chunk 1: target 0 is scored a second time"),
    (GradesTooFew, r"chunk 0: \(1, 63\) scores given for \(1, 64\) positions"),
    (GradesNonsense, r"chunk 0: the sum of its scores is nan"),
]


@pytest.mark.parametrize(("cheat", "message"), CHEATS)
def test_a_cheat_is_stopped_by_name(cheat, message):
    ledger = Ledger(ALONE, Text(IDS, TABLE, 64, ALONE.device), SLIDING.plan(len(IDS) - 1, 256), 4)
    with pytest.raises(LedgerError, match=message):
        ledger.run(cheat(model()))


def test_bad_tokens_and_texts_are_refused():
    wrong = IDS.copy()
    wrong[77] = 96
    with pytest.raises(UserError, match="token 96 at position 77 is outside the vocabulary of 96"):
        evaluate(ALONE, model(), wrong, TABLE, SLIDING, NONE)
    with pytest.raises(UserError, match="needs at least 2"):
        evaluate(ALONE, model(), IDS[:1], TABLE, SLIDING, NONE)
    other = ByteTable(TABLE.base[:90], TABLE.leading_space[:90], TABLE.boundary[:90])
    with pytest.raises(UserError, match="a model of 96 tokens cannot score a text of 90 pieces"):
        evaluate(ALONE, model(), IDS, other, SLIDING, NONE)


def test_a_fingerprint_sees_every_change():
    state = {"a": torch.arange(6.0), "b": torch.ones(3, dtype=torch.bfloat16)}
    original = fingerprint(state, ALONE)
    assert original == fingerprint({k: v.clone() for k, v in state.items()}, ALONE)
    assert len(original) == 16
    changed = [
        state | {"a": torch.nextafter(state["a"], torch.tensor(9.0))},
        state | {"a": state["a"].flip(0)},
        state | {"b": state["b"] * 2},
        {"a": state["a"], "c": state["b"]},
    ]
    assert len({original, *(fingerprint(c, ALONE) for c in changed)}) == 5


def test_two_changes_of_bits_do_not_cancel():
    one = torch.zeros(2)
    other = torch.tensor([3, -1], dtype=torch.int32).view(torch.float32)  # 3 · 1 − 1 · 3 = 0
    assert fingerprint({"a": one}, ALONE) != fingerprint({"a": other}, ALONE)


def test_where_tensors_stay_on_their_device_every_change_is_seen_too():
    rng = np.random.default_rng(0)
    bits = torch.from_numpy(rng.integers(-(2**31), 2**31, 1000))
    sums = {mixed(bits).item(), mixed(bits.flip(0)).item(), mixed(bits[:-1]).item()}
    for at in range(0, 1000, 20):
        other = bits.clone()
        other[at] += 1
        sums.add(mixed(other).item())
    assert len(sums) == 3 + 50
    assert mixed(torch.tensor([0, 0])) != mixed(torch.tensor([3, -1]))  # 3 · 1 − 1 · 3 = 0


def test_a_state_may_hold_empty_tensors():
    assert fingerprint({"a": torch.zeros(0)}, ALONE) != fingerprint({"b": torch.zeros(0)}, ALONE)
