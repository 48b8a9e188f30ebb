"""Muon's steps, Polar Express, schedules, rounding during training."""

from functools import partial

import numpy as np
import pytest
import torch

from pgolf.optim import pr1344
from pgolf.optim.kinds import Coefficients
from pgolf.optim.muon import orthogonalize, row_normalized, shape_factor
from pgolf.qat.round import soft_round, soft_stairs, straight_through
from pgolf.schedule import Progress, Shape, WarmdownByFraction, WarmdownByIterations
from tests.goldens import Golden, Part, has

MUON = {"muon": (0.04, False), "muoneq_r": (0.095, True)}  # weight decay, rows normalised


def relative(a, b) -> float:
    a, b = (np.asarray(torch.as_tensor(x).double()) for x in (a, b))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def check_muon(golden: Golden) -> None:
    decay, normalize = MUON["muoneq_r" if "muoneq_r" in golden.path.stem else "muon"]
    for i in count(golden, "p{}_0"):
        for dtype in (torch.bfloat16, torch.float32):
            steps = [golden[f"g{i}_{t}"] for t in count(golden, f"g{i}_{{}}")]
            weights = [golden[f"p{i}_{t}"] for t in range(len(steps) + 1)]
            quintic = partial(orthogonalize, coefficients=Coefficients.QUINTIC)
            follow(weights, steps, quintic, decay, normalize, dtype, 2e-3, 6e-2)


def follow(weights, gradients, orthogonal, decay, normalize, dtype, apart: float, moved: float) -> None:
    """Steps from weights[0] by the gradients: every weight within `apart` of its own size, and within `moved` of its way."""
    weight = first = torch.from_numpy(weights[0])
    momentum = torch.zeros_like(weight)
    for gradient, expected in zip(map(torch.from_numpy, gradients), weights[1:], strict=True):
        momentum = 0.95 * momentum + gradient
        u = gradient + 0.95 * momentum
        u = row_normalized(u) if normalize else u
        stack = u if u.dim() == 3 else u[None]
        update = orthogonal(stack, 5, dtype=dtype).float().view_as(weight)
        weight = weight * (1 - 0.02 * decay) - 0.02 * shape_factor(*weight.shape[-2:]) * update
        assert relative(weight, expected) < apart
        assert relative(weight - first, expected - first.numpy()) < moved  # the figures are of bfloat16


def count(golden: dict, pattern: str) -> range:
    """0, 1, 2 … as long as the file has the key."""
    return range(next(i for i in range(10_000) if pattern.format(i) not in golden))


def check_schedule(golden: Golden) -> None:
    shapes = {
        "linear_warmdown_3500": (WarmdownByIterations(iterations=3500, shape=Shape.LINEAR, floor=0.0), 600.0),
        "sqrt_warmdown_4000_floor005": (WarmdownByIterations(iterations=4000, shape=Shape.SQRT, floor=0.05), 600.0),
        "frac_072": (WarmdownByFraction(fraction=0.72, shape=Shape.LINEAR, floor=0.0), 588.0),
    }
    for row in golden["rows"]:
        for name, (warmdown, total) in shapes.items():
            ms = Progress(row["step"], row["elapsed_ms"], total * 1000)
            seconds = Progress(row["step"], row["elapsed_ms"] / 1000, total)
            assert warmdown.multiplier(ms) == pytest.approx(row[name], rel=1e-13, abs=1e-15)
            assert warmdown.multiplier(seconds) == pytest.approx(row[name], rel=1e-9, abs=1e-13)


def check_qat(golden: Golden) -> None:
    """Where the two mean the same: the published code lets a weight below −c pass (to −c − 1), and its gradient goes
    through the step, which is a constant here, by the two largest of a row that define the quantile."""
    weight, inputs = torch.from_numpy(golden["weight"]), torch.from_numpy(golden["x"])
    for key in (k for k in golden if k.startswith(("ste_", "soft_")) and not k.endswith("_grad")):
        kind, c, *alpha = key.split("_")
        step = torch.quantile(weight.abs(), 0.9995, dim=1, keepdim=True) / int(c)
        w = weight.clone().requires_grad_()
        if kind == "ste":
            rounded = straight_through(w, step, int(c))
        else:
            sharpness = torch.tensor(float(alpha[0]))
            through = soft_round(w / step, sharpness) * step
            rounded = torch.where(w < -int(c) * step, through, soft_stairs(w, step, int(c), sharpness))
        out = inputs @ rounded.mT
        grad = torch.autograd.grad(out.square().sum(), w)[0]
        reference = torch.from_numpy(golden[f"{key}_grad"])
        assert torch.allclose(out, torch.from_numpy(golden[key]), rtol=1e-5, atol=1e-4), key
        if kind == "ste":
            assert torch.allclose(grad, reference, rtol=1e-5, atol=1e-3), key
        else:
            largest = torch.zeros_like(weight, dtype=torch.bool).scatter_(1, weight.abs().topk(2, dim=1).indices, True)
            assert (grad - reference).abs()[~largest].max() < 1e-3 * reference.abs().max(), key


def check_polar_express(golden: Golden) -> None:
    """The polynomials, and the iteration after each number of steps: products on their own give the published bits; another
    order of the same products is 4-9 % away, so other processors get some room."""
    np.testing.assert_array_equal(np.array(pr1344.POLYNOMIALS), golden["coefficients"])
    for i in count(golden, "g{}"):
        G = torch.from_numpy(golden[f"g{i}"])
        for key in (key for key in golden if key.startswith(f"polar{i}_")):
            steps = min(int(key.rpartition("_")[2]), len(pr1344.POLYNOMIALS))
            expected = torch.from_numpy(golden[key]).float()
            in_bf16, in_fp32 = (
                pr1344.polar(G[None], steps, dtype)[0].float() for dtype in (torch.bfloat16, torch.float32)
            )
            assert relative(in_bf16, expected) < (1e-2 if steps == 1 else 3e-2), key
            assert relative(in_fp32, expected) < (1e-2 if steps == 1 else 0.12), key


def check_polar_muon(golden: Golden) -> None:
    """Banks of two matrices, rows normalised: steps by the same iteration."""
    steps = golden.under("muon/")
    for i in count(steps, "p{}_0"):
        gradients = [steps[f"g{i}_{t}"] for t in count(steps, f"g{i}_{{}}")]
        weights = [steps[f"p{i}_{t}"] for t in range(len(gradients) + 1)]
        follow(weights, gradients, pr1344.polar, 0.095, True, torch.bfloat16, 2e-2, 6e-2)


PARTS = (
    Part("polar express", has("coefficients", "g0", "polar0_*"), check_polar_express),
    Part("polar muon", has("muon/p0_0", "muon/g0_0"), check_polar_muon),
    Part("muon", has("p0_0", "g0_0"), check_muon),
    Part("schedule", has("frac_072", "elapsed_ms"), check_schedule),
    Part("qat", has("weight", "x", "ste_*", "soft_*"), check_qat),
)
