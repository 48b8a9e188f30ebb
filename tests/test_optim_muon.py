"""Muon's mathematics: orthogonality, the Gram form, batching, and its invariants."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf.optim import Coefficients, MuonPr1344, pr1344
from pgolf.optim.muon import orthogonalize, polynomials, row_normalized, shape_factor

BOTH = list(Coefficients)


def slow(G: np.ndarray, steps: int, coefficients: Coefficients) -> np.ndarray:
    """U p(…p(S)) Vᵀ from the singular value decomposition, in float64."""
    U, s, Vt = np.linalg.svd(G.astype(np.float64), full_matrices=False)
    s = s / (np.sqrt((s**2).sum()) * (1.01 if coefficients is Coefficients.POLAR_EXPRESS else 1.0) + 1e-7)
    for a, b, c in polynomials(coefficients, steps):
        s = a * s + b * s**3 + c * s**5
    return (U * s) @ Vt


def relative(a, b) -> float:
    a, b = (np.asarray(torch.as_tensor(x).double()) for x in (a, b))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("coefficients", BOTH)
@pytest.mark.parametrize("shape", [(24, 24), (24, 40), (16, 64), (64, 16), (1, 8), (8, 1)], ids=str)
@pytest.mark.parametrize("steps", [1, 5])
def test_agrees_with_singular_values(shape, coefficients, steps):
    G = random(3, *shape)
    got = orthogonalize(G, steps, coefficients, torch.float32)
    want = np.stack([slow(g.numpy(), steps, coefficients) for g in G])
    assert relative(got, want) < 1e-3
    assert relative(orthogonalize(G, steps, coefficients, torch.bfloat16), want) < 0.15


def test_does_its_job():
    """Polar Express brings singular values of a condition number of 300 near 1 in 6 steps."""
    U, _ = torch.linalg.qr(random(32, 32))
    V, _ = torch.linalg.qr(random(48, 32, seed=1))
    G = U @ torch.diag(torch.logspace(0, -2.5, 32)) @ V.T
    singular = torch.linalg.svdvals(orthogonalize(G[None], 6, Coefficients.POLAR_EXPRESS, torch.float32)[0])
    assert 0.9 < singular.min() <= singular.max() < 1.1
    quintic = torch.linalg.svdvals(orthogonalize(random(1, 32, 48), 5, Coefficients.QUINTIC, torch.float32)[0])
    assert 0.6 < quintic.min() <= quintic.max() < 1.3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("coefficients", BOTH)
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_low_rank_long_matrices_do_not_grow(dtype, coefficients, rank):
    """Rounding makes the Gram matrix of a singular X indefinite; the restarts must keep that from growing."""
    G = random(2, 32, max(rank, 1)) @ random(2, max(rank, 1), 160, seed=1) * (rank > 0)
    for steps in (5, 10):
        singular = torch.linalg.svdvals(orthogonalize(G, steps, coefficients, dtype).float())
        assert singular.max() < 1.35
        if dtype == torch.float32:  # in bfloat16 the rounding of X itself has directions, which grow like any
            assert (singular > 0.5).sum() == 2 * rank


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(BOTH), st.floats(1e-3, 1e3))
def test_invariants(rows, cols, coefficients, scale):
    """Transposing commutes with the iteration; the gradient's size does not matter."""
    G = random(2, rows, cols, seed=rows * 41 + cols)
    X = orthogonalize(G, 5, coefficients, torch.float32)
    assert relative(orthogonalize(G.mT, 5, coefficients, torch.float32).mT, X) < 1e-4
    assert relative(orthogonalize(G * scale, 5, coefficients, torch.float32), X) < 1e-2


def test_stack_is_its_matrices_and_bits_repeat():
    G = random(5, 16, 48)
    whole = orthogonalize(G, 5, Coefficients.QUINTIC, torch.float32)
    for g, x in zip(G, whole, strict=True):
        assert relative(orthogonalize(g[None], 5, Coefficients.QUINTIC, torch.float32)[0], x) < 1e-5
    assert torch.equal(whole, orthogonalize(G, 5, Coefficients.QUINTIC, torch.float32))


def test_the_polynomials_of_pr1344_end_near_one_and_elsewhere_than_the_papers():
    G = random(1, 32, 48)
    made = [pr1344.polar(G, 5, torch.float32), orthogonalize(G, 5, Coefficients.POLAR_EXPRESS, torch.float32)]
    singular = torch.linalg.svdvals(made[0][0])
    assert 0.86 <= singular.min() <= singular.max() <= 1.14
    assert relative(made[1], made[0]) > 0.02
    s = torch.linalg.svdvals(G[0]) / G.norm()
    for a, b, c in pr1344.POLYNOMIALS:
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(s.sort().values, singular.sort().values, rtol=1e-3, atol=1e-3)


def test_an_optimiser_takes_the_polynomials_by_name():
    step = MuonPr1344(lr=0.02, weight_decay=0.0, ns_steps=3, row_normalize=True)
    G = random(2, 16, 24)
    assert torch.equal(step.orthogonal(G, torch.float32), pr1344.polar(G, 3, torch.float32))
    assert torch.equal(step.orthogonal(G, torch.float32), step.orthogonal(G, torch.float32))


def test_polar_express_bounds_and_small_parts():
    """The composed polynomial maps [0.003, 1] close to 1 after the eight published steps; later steps repeat the last."""
    s = torch.linspace(0.003, 1, 2000, dtype=torch.float64)
    for a, b, c in polynomials(Coefficients.POLAR_EXPRESS, 8):
        s = a * s + b * s**3 + c * s**5
    assert (s - 1).abs().max() < 0.02
    assert polynomials(Coefficients.POLAR_EXPRESS, 10)[7:] == [(1.875, -1.25, 0.375)] * 3
    assert shape_factor(1024, 256) == 2
    assert shape_factor(256, 1024) == 1
    assert row_normalized(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0, 0],
    ]
