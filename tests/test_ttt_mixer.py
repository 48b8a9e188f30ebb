"""The hedge mixer: its formulas against loops, its normalisation, what it learns, and that ranks agree."""

import numpy as np
import pytest
import torch

from pgolf.errors import ConfigError
from pgolf.machine.world import World
from pgolf.stages.evaluate import evaluate
from pgolf.ttt import Hedge
from pgolf.ttt.mixer import HedgeMixer, bigram, hedge, unigram
from tests.goldens.judging import IDS, SLIDING, TABLE, model, sgd
from tests.ranks import run_ranks

ALONE = World.alone()
BASE = dict(neural_weight=0.8, rate=0.5, unigram_prior=1.0, bigram_prior=4.0)
SPEC = Hedge(**BASE)


def taught(tokens: torch.Tensor, V: int = 7) -> HedgeMixer:
    mixer = HedgeMixer(SPEC, V, ALONE.device)
    mixer.reweigh(torch.tensor([2.0, 3.0, 1.0], dtype=torch.float64) * (len(tokens) - 1), tokens[:-1], tokens[1:])
    return mixer


def test_the_mixture_agrees_with_a_loop():
    g = torch.Generator().manual_seed(0)
    V, tokens = 7, torch.randint(7, (50,), generator=g)
    mixer, neural = taught(tokens), torch.randn(2, 3, V, generator=g).log_softmax(-1)
    before = torch.randint(V, (2, 3), generator=g)
    pairs = np.zeros((V, V))
    for u, v in zip(tokens[:-1].tolist(), tokens[1:].tolist(), strict=True):
        pairs[u, v] += 1
    w = np.array([0.8, 0.1, 0.1]) * np.exp(-0.5 * np.array([2.0, 3.0, 1.0]))
    w /= w.sum()
    mixed = mixer.mixed(neural, before)
    for b in range(2):
        for s in range(3):
            u = before[b, s].item()
            for v in range(V):
                one = (pairs[:, v].sum() + 1) / (pairs.sum() + V)
                two = (pairs[u, v] + 4 * one) / (pairs[u].sum() + 4)
                p = w @ [neural[b, s, v].exp().item(), one, two]
                assert mixed[b, s, v].exp().item() == pytest.approx(p, rel=1e-4)


def test_it_stays_a_distribution_before_and_after_learning():
    neural = torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    before = torch.zeros(4, 5, dtype=torch.long)
    for mixer in (HedgeMixer(SPEC, 7, ALONE.device), taught(torch.arange(40) % 7)):
        torch.testing.assert_close(mixer.mixed(neural, before).exp().sum(-1), torch.ones(4, 5))


def test_the_worked_examples():
    torch.testing.assert_close(unigram(torch.tensor([3.0, 1.0]), 1.0), torch.tensor([4 / 6, 2 / 6]))
    half = torch.tensor([0.5, 0.5])
    torch.testing.assert_close(bigram(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), half, 2.0)[1], half)
    log_w = hedge(half.log(), torch.tensor([0.0, 2.0]).clamp(max=float(np.log(2))), 1.0)
    torch.testing.assert_close(log_w.exp(), torch.tensor([2 / 3, 1 / 3]))


def test_weight_goes_to_the_expert_that_was_right():
    text = torch.tensor([0, 1, 2, 3] * 50)
    mixer = taught(text, V=4)
    neural = torch.full((len(text) - 1,), -np.log(4.0))
    losses = mixer.losses(neural, text[:-1], text[1:])
    assert losses.argmin() == 2
    start = mixer.log_w.clone()
    mixer.reweigh(losses, text[:-1], text[1:])
    assert mixer.log_w[2] > start[2]
    assert mixer.receipt().alive
    assert "bigram" in mixer.receipt().what


def evaluated(world):
    score = evaluate(world, model(), IDS[:900], TABLE, SLIDING, sgd(epochs=1, mixer=SPEC))
    return score.val_loss, [r.value for r in score.receipts], score.trace[-1].sha


def test_in_an_evaluation_it_acts_and_ranks_agree():
    loss, receipts, _ = evaluated(ALONE)
    assert loss != evaluate(ALONE, model(), IDS[:900], TABLE, SLIDING, sgd(epochs=1)).val_loss
    ranks = run_ranks(evaluated, 2)
    assert ranks[0][2] == ranks[1][2]
    for each in ranks:
        assert each[0] == pytest.approx(loss, abs=1e-5)
        assert each[1] == pytest.approx(receipts, rel=1e-3)


@pytest.mark.parametrize("key", BASE)
def test_impossible_mixers_are_refused(key):
    with pytest.raises(ConfigError, match=rf"ttt\.mixer\.{key}=0"):
        Hedge(**BASE | {key: 0.0})
