"""Averages: against plain loops, snapshots, receipts, and the choice by score."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pgolf.average import EMA, SWA, Average, Best, Blend, NoAverage
from pgolf.average.averager import relative_distance
from pgolf.errors import ConfigError

EMA_9 = EMA(decay=0.9)
SWA_2 = SWA(every=2, below=0.5)
PARTS = {
    "none": NoAverage(),
    "ema": EMA_9,
    "swa": SWA_2,
    "blend": Blend(ema=EMA_9, swa=SWA_2, weight=0.5),
    "best": Best(first=EMA_9, second=SWA_2),
}


def model(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleList([nn.Linear(4, 3), nn.Embedding(5, 4, dtype=dtype)])


def flat(net: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in net.parameters()])


def never() -> float:
    raise AssertionError("only a choice may ask for a score")


@torch.no_grad()
def walk(net: nn.Module, average, first: int, last: int) -> list[torch.Tensor]:
    """Move the weights and update; the multiplier falls from 1 to 0 over 10 steps. Returns the weights of each step."""
    path = []
    for step in range(first, last):
        rng = torch.Generator().manual_seed(step)
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=rng))
        average.update(step, 1 - step / 10)
        path.append(flat(net))
    return path


def expected(start: torch.Tensor, path: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    ema = start
    for w in path:
        ema = 0.9 * ema + 0.1 * w
    swa = torch.stack([w for step, w in enumerate(path) if (step + 1) % 2 == 0 and 1 - step / 10 < 0.5]).mean(0)
    return {"none": path[-1], "ema": ema, "swa": swa, "blend": (ema + swa) / 2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["none", "ema", "swa", "blend"])
def test_agrees_with_plain_loops(name, dtype):
    net = model(dtype)
    start, average = flat(net), PARTS[name].build(net)
    path = walk(net, average, 0, 10)
    receipts = average.finish(net, never)
    want = expected(start, path)[name]
    assert (flat(net) - want).abs().max() < (1e-6 if dtype == torch.float32 else 0.02)
    assert all(r.part == "average" and r.alive and r.value > 0 for r in receipts)
    assert len(receipts) == {"none": 0, "ema": 1, "swa": 2, "blend": 4}[name]


@pytest.mark.parametrize("name", PARTS)
def test_looks_are_those_that_the_end_takes(name):
    net, scores = model(), []
    average = PARTS[name].build(net)
    walk(net, average, 0, 10)
    average.finish(net, lambda: scores.append(0.0) or 0.0)
    assert len(scores) == PARTS[name].evaluations


@pytest.mark.parametrize("winner", ["ema", "swa"])
def test_best_takes_the_lowest_score(winner):
    net = model()
    start, average = flat(net), PARTS["best"].build(net)
    want = expected(start, walk(net, average, 0, 10))[winner]
    receipts = average.finish(net, lambda: float((flat(net) - want).norm()))
    assert (flat(net) - want).abs().max() < 1e-6
    assert receipts[-1].what == f"chosen: {winner.upper()}"
    assert receipts[-1].value < 1e-5
    assert all(r.alive for r in receipts)


def test_best_prefers_the_first_of_equals_and_does_with_one():
    net = model()
    average = PARTS["best"].build(net)
    walk(net, average, 0, 10)
    assert average.finish(net, lambda: 1.0)[-1].what == "chosen: EMA"
    net = model()
    average = PARTS["best"].build(net)
    walk(net, average, 0, 3)
    receipts = average.finish(net, lambda: 1.0)
    assert [r.alive for r in receipts] == [True, False, True, True]


def test_average_that_collected_nothing_says_so():
    net = model()
    average = SWA_2.build(net)
    raw = walk(net, average, 0, 3)[-1]
    (receipt,) = average.finish(net, never)
    assert not receipt.alive
    assert torch.equal(flat(net), raw)
    still = model()
    (receipt,) = EMA_9.build(still).finish(still, never)
    assert (receipt.value, receipt.alive) == (0.0, False)


def test_blend_without_swa_is_the_ema():
    net = model()
    start, average = flat(net), PARTS["blend"].build(net)
    path = walk(net, average, 0, 3)
    receipts = average.finish(net, never)
    ema = start
    for w in path:
        ema = 0.9 * ema + 0.1 * w
    assert (flat(net) - ema).abs().max() < 1e-6
    assert [r.alive for r in receipts] == [True, False]


@pytest.mark.parametrize("name", PARTS)
def test_snapshot_restores_to_the_bit(name):
    net = model()
    average = PARTS[name].build(net)
    walk(net, average, 0, 6)
    state, weights = copy.deepcopy(average.state_dict()), {k: v.clone() for k, v in net.state_dict().items()}
    ends = []
    for _ in range(2):
        walk(net, average, 6, 10)
        average.finish(net, lambda: float(flat(net).sum()))
        ends.append(flat(net))
        net.load_state_dict(weights)
        average.load_state_dict(state)
    assert torch.equal(*ends)


@settings(max_examples=30)
@given(st.sampled_from(list(PARTS.values())), st.integers(1, 12))
def test_equal_weights_average_to_themselves(part: Average, steps: int):
    net = model()
    start, average = flat(net), part.build(net)
    for step in range(steps):
        average.update(step, 0.1)
    average.finish(net, lambda: 0.0)
    assert torch.allclose(flat(net), start, atol=1e-7)


def test_average_quietens_noise():
    """Around a fixed point, averages are nearer to it than the last noisy weights."""
    for part in (EMA(decay=0.95), SWA(every=1, below=2.0)):
        net = model()
        centre, average = flat(net), part.build(net)
        rng = torch.Generator().manual_seed(1)
        clean = [p.detach().clone() for p in net.parameters()]
        for step in range(200):
            for p, c in zip(net.parameters(), clean, strict=True):
                p.data = c + 0.1 * torch.randn(c.shape, generator=rng)
            average.update(step, 1.0)
        noisy = (flat(net) - centre).norm()
        average.finish(net, never)
        assert (flat(net) - centre).norm() < 0.35 * noisy


def test_relative_distance():
    assert relative_distance([torch.tensor([3.0, 4.0])], [torch.tensor([3.0, 0.0])]) == pytest.approx(4 / 3)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: EMA(decay=1.0), "average.decay"),
        (lambda: SWA(every=0, below=0.2), "average.every"),
        (lambda: SWA(every=1, below=0.0), "average.below"),
        (lambda: Blend(ema=EMA_9, swa=SWA_2, weight=1.0), "average.weight"),
    ],
)
def test_bad_values_name_their_key(make, key):
    with pytest.raises(ConfigError) as wrong:
        make()
    assert wrong.value.key == key
