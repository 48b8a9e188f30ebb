"""The optimiser: one process against a slow reference, 2 and 4 gloo ranks against one process, snapshots, bad gradients."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from pgolf.errors import ConfigError
from pgolf.machine.world import World
from pgolf.model.kinds import Role
from pgolf.optim import Adam, Coefficients, Muon, MuonAdamW
from pgolf.optim.muon import orthogonalize, shape_factor
from tests.ranks import run_ranks

SHAPES = {"q": (12, 12), "k": (6, 12), "v": (6, 12), "o": (12, 12), "up": (36, 12), "down": (12, 36)}


class Toy(nn.Module):
    """Matrices of four shapes (5 of one), two tables, vectors and a scalar; numbers from `seed`."""

    def __init__(self, seed: int = 0):
        super().__init__()
        shapes = {f"{n}{layer}": s for layer in range(2) for n, s in SHAPES.items()} | {"extra": (12, 12)}
        shapes |= {"embedding": (20, 12), "pairs": (9, 4), "gain": (12,), "scale": ()}
        rng = torch.Generator().manual_seed(seed)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape, generator=rng) * 0.1))

    def roles(self) -> dict[str, Role]:
        tables = ("embedding", "pairs")
        return {
            n: Role.EMBEDDING if n in tables else Role.MATRIX if p.ndim == 2 else Role.SCALAR
            for n, p in self.named_parameters()
        }


@pytest.fixture(autouse=True)
def one_thread():
    """These tensors are too small for threads to do anything but wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(**changes) -> MuonAdamW:
    matrix = {"lr": 0.02, "weight_decay": 0.04, "ns_steps": 5, "coefficients": Coefficients.QUINTIC}
    given = {
        "matrix": Muon(**matrix, row_normalize=False),
        "embedding": Adam(lr=0.03, weight_decay=0.05),
        "scalar": Adam(lr=0.01, weight_decay=0.02),
        "betas": (0.9, 0.95),
        "eps": 1e-8,
        "clip_norm": 0.3,
    }
    return MuonAdamW(**given | changes)


def gradients(model: nn.Module, step: int, rank: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1000 * rank + step)
    return {n: torch.randn(p.shape, generator=rng) * 0.1 for n, p in model.named_parameters()}


def give(model: nn.Module, grads: dict[str, torch.Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.grad = grads[name].clone()


def weights(model: nn.Module) -> dict[str, np.ndarray]:
    return {n: p.detach().numpy().copy() for n, p in model.named_parameters()}


def apart(a: dict, b: dict) -> float:
    return max(float(np.abs(a[n] - b[n]).max()) for n in a)


def run_steps(world: World, steps: int, shares: int) -> tuple[dict, list[float]]:
    """Train on the gradients of `shares` imaginary ranks, this world's ranks taking equal parts of them."""
    model = Toy()
    optimizer, norms = config().build(model, world), []
    own = range(world.rank, shares, world.size)
    for step in range(steps):
        parts = [gradients(model, step, rank) for rank in own]
        give(model, {n: sum(p[n] for p in parts) for n in parts[0]})
        norms.append(float(optimizer.step(1 - step / steps, 0.9 + 0.01 * step)))
        model.zero_grad()
    return weights(model), norms


def slow_reference(steps: int, c: MuonAdamW) -> dict[str, np.ndarray]:
    """One matrix at a time, torch's plain AdamW for the rest."""
    model = Toy()
    named, roles = dict(model.named_parameters()), model.roles()
    momenta = {n: torch.zeros_like(p) for n, p in named.items() if roles[n] is Role.MATRIX}
    groups = [(c.embedding, Role.EMBEDDING), (c.scalar, Role.SCALAR)]
    adam = torch.optim.AdamW(
        [{"params": [p for n, p in named.items() if roles[n] is r], "weight_decay": g.weight_decay} for g, r in groups],
        betas=c.betas,
        eps=c.eps,
        foreach=False,
        fused=False,
    )
    for step in range(steps):
        give(model, gradients(model, step))
        multiplier, mu = 1 - step / steps, 0.9 + 0.01 * step
        nn.utils.clip_grad_norm_(model.parameters(), c.clip_norm or math.inf)
        for group, (g, _) in zip(adam.param_groups, groups, strict=True):
            group["lr"] = g.lr * multiplier
        adam.step()
        for name, b in momenta.items():
            p, lr = named[name], c.matrix.lr * multiplier
            b.mul_(mu).add_(p.grad)
            x = orthogonalize((p.grad + mu * b)[None], c.matrix.ns_steps, c.matrix.coefficients, torch.float32)[0]
            p.data = p.data * (1 - lr * c.matrix.weight_decay) - lr * shape_factor(*p.shape) * x
    return weights(model)


@pytest.mark.parametrize("clip", [0.3, None])
def test_agrees_with_slow_reference(clip):
    model, c = Toy(), config(clip_norm=clip)
    optimizer = c.build(model, World.alone())
    for step in range(6):
        give(model, gradients(model, step))
        norm = optimizer.step(1 - step / 6, 0.9 + 0.01 * step)
        want = math.sqrt(sum(float(g.square().sum()) for g in gradients(model, step).values()))
        assert float(norm) == pytest.approx(want, rel=1e-5)
    assert apart(weights(model), slow_reference(6, c)) < 1e-5


def on_ranks(world: World) -> tuple:
    """Five good steps; then one in which a single rank's gradient is not a number."""
    trained, norms = run_steps(world, 5, shares=4)
    model = Toy()
    optimizer = config().build(model, world)
    bad = gradients(model, 0, world.rank)
    if world.rank == 1:
        bad["k1"][0, 0] = math.nan
    give(model, bad)
    norm = float(optimizer.step(1.0, 0.9))
    owned = sum(stack.momentum.shape[0] for stack in optimizer.stacks)
    return trained, norms, owned, norm, optimizer.worst_gradient()[0], apart(weights(Toy()), weights(model))


@pytest.mark.parametrize(("size", "share"), [(2, 3 + 2 + 1 + 1), (4, 2 + 1 + 1 + 1)])
def test_ranks_equal_one_process_and_each_other(size, share):
    """The shares are of 5 (12, 12), 4 (6, 12), 2 (36, 12) and 2 (12, 36)."""
    alone, norms = run_steps(World.alone(), 5, shares=4)
    results = run_ranks(on_ranks, size)
    for got, got_norms, owned, bad_norm, bad_name, moved in results:
        assert apart(got, alone) < 2e-6
        assert apart(got, results[0][0]) == 0.0
        assert got_norms == pytest.approx(norms, rel=1e-5)
        assert owned == share
        assert math.isnan(bad_norm)
        assert (bad_name, moved) == ("k1", 0.0)


def test_deterministic_to_the_bit():
    assert apart(run_steps(World.alone(), 4, 1)[0], run_steps(World.alone(), 4, 1)[0]) == 0.0


@pytest.mark.parametrize("before", [0, 3])
def test_snapshot_restores_to_the_bit(before):
    model = Toy()
    optimizer = config().build(model, World.alone())

    def run(first: int, last: int) -> None:
        for step in range(first, last):
            give(model, gradients(model, step))
            optimizer.step(1.0, 0.95)

    run(0, before)
    state, start = copy.deepcopy(optimizer.state_dict()), {n: p.clone() for n, p in model.state_dict().items()}
    for _ in range(2):
        run(before, before + 3)
        ended = weights(model)
        model.load_state_dict(start)
        optimizer.load_state_dict(state)
    run(before, before + 3)
    assert apart(weights(model), ended) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["up1", "embedding", "scale"])
def test_a_gradient_that_is_not_finite_is_named_and_changes_nothing(bad, name):
    model = Toy()
    optimizer = config().build(model, World.alone())
    give(model, gradients(model, 0))
    optimizer.step(1.0, 0.95)
    kept, state = weights(model), copy.deepcopy(optimizer.state_dict())
    broken = gradients(model, 1)
    broken[name].view(-1)[0] = bad
    give(model, broken)
    assert not math.isfinite(optimizer.step(1.0, 0.95))
    found, value = optimizer.worst_gradient()
    assert found == name
    assert not math.isfinite(value)
    assert apart(kept, weights(model)) == 0.0
    after = optimizer.state_dict()
    assert all(torch.equal(a, b) for a, b in zip(state["state"], after["state"], strict=True))
    give(model, gradients(model, 2))
    assert math.isfinite(optimizer.step(1.0, 0.95))
    assert optimizer.worst_gradient()[0] == name
    assert apart(kept, weights(model)) == 0.0, "nor does a later step"


def test_worst_gradient_is_the_largest():
    model = Toy()
    optimizer = config().build(model, World.alone())
    grads = gradients(model, 0)
    grads["pairs"] *= 100
    give(model, grads)
    optimizer.step(1.0, 0.95)
    name, value = optimizer.worst_gradient()
    assert name == "pairs"
    assert value == pytest.approx(float(grads["pairs"].norm()), rel=1e-5)


def test_does_its_job():
    """Fits a two-layer linear map, and a parameter outside the loss does no harm."""
    model = Toy()
    optimizer = config(clip_norm=None).build(model, World.alone())
    rng = torch.Generator().manual_seed(5)
    x, target = torch.randn(64, 12, generator=rng), torch.randn(12, 12, generator=rng) / 4
    losses = []
    for step in range(150):
        loss = ((x @ model.up0.T @ model.down0.T * model.gain - x @ target).square()).mean()
        loss.backward()
        optimizer.step(1 - step / 150, 0.9)
        model.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]
    assert all(p.grad is None for p in model.parameters())


def test_low_precision_weights():
    """Tables in bfloat16 beside float32 matrices, as the published systems keep them."""
    model = Toy()
    model.embedding.data = model.embedding.data.bfloat16()
    optimizer = config().build(model, World.alone())
    model.embedding.grad = torch.ones_like(model.embedding)
    optimizer.step(1.0, 0.95)
    assert model.embedding.dtype == torch.bfloat16
    assert model.embedding.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"embedding": Adam(lr=-1.0, weight_decay=0.0)}, "optim.embedding.lr"),
        ({"scalar": Adam(lr=1.0, weight_decay=1.5)}, "optim.scalar.weight_decay"),
        ({"betas": (0.9,)}, "optim.betas"),
        ({"betas": (0.9, 1.0)}, "optim.betas"),
        ({"eps": 0.0}, "optim.eps"),
        ({"clip_norm": 0.0}, "optim.clip_norm"),
    ],
)
def test_bad_values_name_their_key(changes, key):
    with pytest.raises(ConfigError) as wrong:
        config(**changes)
    assert wrong.value.key == key
