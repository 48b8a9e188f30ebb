"""Activations: their formulas in float64, what they cost, and that a model with each trains, repeats and is composed by name."""

import doctest
import math

import pytest
import torch
from torch.autograd import gradcheck

from pgolf.config.compose import rehearse
from pgolf.files.frozen import family, freeze, thaw
from pgolf.model import activation
from pgolf.model.activation import Activation, Gelu, LeakyReluSquared, SwiGLU
from pgolf.model.kinds import Role
from tests.options import CONF
from tests.test_model import lively, spec, tokens

SLOW = {
    LeakyReluSquared(slope=0.0): lambda x: max(x, 0.0) ** 2,
    LeakyReluSquared(slope=0.5): lambda x: (x if x > 0 else 0.5 * x) ** 2,
    Gelu(): lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    SwiGLU(): lambda up, gate: up * gate / (1 + math.exp(-gate)),
}


def inputs(chosen: Activation) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(9, generator=generator, dtype=torch.float64) for _ in chosen.inputs]


@pytest.mark.parametrize("chosen", SLOW, ids=str)
def test_it_is_its_formula_and_has_its_gradient(chosen):
    args = inputs(chosen)
    slow = [SLOW[chosen](*row) for row in zip(*(a.tolist() for a in args), strict=True)]
    torch.testing.assert_close(chosen.build()(*args), torch.tensor(slow, dtype=torch.float64))
    assert gradcheck(chosen.build(), [a.requires_grad_() for a in args])


def test_examples():
    assert doctest.testmod(activation).failed == 0


def test_every_activation_is_tested_here():
    assert {type(chosen) for chosen in SLOW} == {*family(Activation)} - {Activation}


@pytest.mark.parametrize("chosen", SLOW, ids=str)
def test_a_model_has_its_matrices_counts_them_and_repeats(chosen):
    one, again = lively(spec(activation=chosen)), lively(spec(activation=chosen))
    matrices = {n: p for n, p in one.blocks[0].mlp.named_parameters()}
    assert list(matrices) == [f"{name}.weight" for name in (*chosen.inputs, "down")]
    assert sum(p.numel() for p in matrices.values()) == chosen.multiplications(64, 192)
    assert {one.roles()[f"blocks.0.mlp.{name}"] for name in matrices} == {Role.MATRIX}
    assert {one.sections()[f"blocks.0.mlp.{name}"] for name in matrices} == {"mlp"}
    assert torch.equal(one(tokens(2, 16)), again(tokens(2, 16)))
    less = one.spec.flops_per_token(0, False) - spec().flops_per_token(0, False)
    assert less == 6 * 5 * 64 * 192 * (len(chosen.inputs) - 1)


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "model" / "activation").glob("*.yaml")))
def test_every_option_composes_with_a_model_and_is_read_back_from_an_artifact(name):
    (job,) = rehearse(["model=pr606", f"model/activation={name}"], sweep=False)
    assert thaw(freeze(job.recipe.model), type(job.recipe.model)) == job.recipe.model


def test_a_slope_is_a_key():
    (job,) = rehearse(["model.activation.slope=0.25"], sweep=False)
    assert job.recipe.model.activation == LeakyReluSquared(slope=0.25)
