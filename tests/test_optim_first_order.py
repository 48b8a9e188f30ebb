"""AdamW and SGD: torch's own classes as the slow reference, figures by hand, and steps that must not be taken."""

import pytest
import torch

from pgolf.optim.first_order import SGD, AdamW, FirstOrder

SHAPES = [(5, 3), (7,), ()]


def weights() -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=rng)) for shape in SHAPES]


def give(params: list[torch.Tensor], step: int) -> None:
    rng = torch.Generator().manual_seed(step + 1)
    for p in params:
        p.grad = torch.randn(p.shape, generator=rng) * 10.0 ** (step % 3 - 1)


def same(
    optimizer: FirstOrder, reference: torch.optim.Optimizer, theirs: list[torch.Tensor], steps: int, rtol: float
) -> None:
    """The weights of both are the same after steps at falling rates."""
    for step in range(steps):
        optimizer.lr = reference.param_groups[0]["lr"] = 0.1 / (step + 1)
        give(optimizer.weights, step)
        give(theirs, step)
        optimizer.step()
        reference.step()
    for a, b in zip(optimizer.weights, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol / 10)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.99)])
@pytest.mark.parametrize(("eps", "decay"), [(1e-8, 0.0), (1e-10, 0.5)])
def test_adamw_is_torchs(betas, eps, decay):
    theirs = weights()
    reference = torch.optim.AdamW(theirs, 0.1, betas=betas, eps=eps, weight_decay=decay, fused=False, foreach=False)
    same(AdamW(weights(), 0.1, betas, eps, decay), reference, theirs, steps=8, rtol=1e-5)


def test_adamws_first_steps_by_hand():
    """The first step has the size of the rate whatever the gradient's, after the decay; the second, by the formulas."""
    w = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = AdamW([w], 0.1, (0.9, 0.99), 1e-12, 0.5)
    w.grad = torch.tensor([3.0, -0.5], dtype=torch.float64)
    optimizer.step()
    torch.testing.assert_close(w.detach(), torch.tensor([0.95 - 0.1, -1.9 + 0.1], dtype=torch.float64))
    w.grad = torch.tensor([1.0, 0.0], dtype=torch.float64)
    optimizer.step()
    m, v = 0.9 * 0.3 + 0.1 * 1.0, 0.99 * 0.09 + 0.01 * 1.0
    moved = 0.1 * (m / (1 - 0.9**2)) / (v / (1 - 0.99**2)) ** 0.5
    assert w[0].item() == pytest.approx(0.85 * 0.95 - moved, rel=1e-12)


@pytest.mark.parametrize("finite", [True, False])
def test_adamw_does_all_of_a_step_or_nothing(finite):
    given, plain = weights(), weights()
    guarded, other = AdamW(given, 0.1, (0.9, 0.99), 1e-8, 0.1), AdamW(plain, 0.1, (0.9, 0.99), 1e-8, 0.1)
    for step in range(3):
        give(given, step)
        guarded.step(torch.tensor(finite))
        if finite:
            give(plain, step)
            other.step()
    for a, b in zip([*given, *guarded.m, *guarded.v, guarded.t], [*plain, *other.m, *other.v, other.t], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_torchs(momentum):
    theirs = weights()
    reference = torch.optim.SGD(theirs, 0.1, momentum=momentum)
    same(SGD(weights(), 0.1, momentum), reference, theirs, steps=5, rtol=1e-6)


def test_sgd_by_hand():
    w = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = SGD([w], 0.5, 0.5)
    for expected in (1.0 - 0.5 * 2.0, 0.0 - 0.5 * (1.0 + 2.0)):
        w.grad = torch.tensor([2.0])
        optimizer.step()
        assert w.item() == expected


@pytest.mark.parametrize("gone", ["one", "all"])
def test_a_weight_without_its_gradient_is_refused(gone):
    params = weights()
    optimizer = AdamW(params, 0.1, (0.9, 0.99), 1e-8, 0.0)
    give(params, 0)
    for p in params[:1] if gone == "one" else params:
        p.grad = None
    with pytest.raises(TypeError):
        optimizer.step()
    assert not any(m.any() for m in optimizer.m)
