"""Forward and backward of one micro-batch of the published models, against one sequence after another; compiled on a GPU.

98,304 tokens with size=full on a GPU, as one of 8 ranks has them; the floor is the model's operations at this device's rate
of large matrix products."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pgolf.bench.contest import Contest, DisagreementError, Setting, matmul_floor
from pgolf.bench.eval import VOCABULARY, architecture

if TYPE_CHECKING:
    from pgolf.model.transformer import Transformer

MODELS = (("pr1129", False), ("pr606", False), ("pr1852", False), ("pr1852", True))  # and whether depth recurs
MICRO_TOKENS = 98_304


def contests(setting: Setting) -> Iterator[Contest]:
    """Forward and backward of one training step, by model, loop off and on."""
    for name, looping in MODELS:
        yield one_step(setting, name, looping)


def one_step(setting: Setting, name: str, looping: bool) -> Contest:
    """Loss and gradients of B sequences of T tokens, `ways` of getting them."""
    on_gpu = setting.device == "cuda"
    model, ids = model_and_batch(setting, name, looping)
    B, T = ids.shape[0], ids.shape[1] - 1
    ways = {
        "sequence by sequence": lambda: accumulated(model, model.nll, ids.split(1)),
        "one micro-batch": lambda: accumulated(model, model.nll, [ids]),
    }
    if on_gpu:
        compiled = torch.compile(model.nll, dynamic=False)
        ways["one micro-batch, compiled"] = lambda: accumulated(model, compiled, [ids])
    flops = model.spec.flops_per_token(T, looping) * B * T
    return Contest(
        f"{name}{', loops on' if looping else ''}: {B} sequences of {T}, width {model.spec.width}",
        ways,
        lambda made: agreement(made, 0.05 if on_gpu else 1e-3),
        matmul_floor(flops, floor_dtype(setting), setting.device),
        figures=lambda way, made: f"loss {made[0].item():.4f}",
    )


def floor_dtype(setting: Setting) -> torch.dtype:
    """The dtype of products: that of a GPU run, or what a CPU is fast in."""
    return torch.bfloat16 if setting.device == "cuda" else torch.float32


def model_and_batch(setting: Setting, name: str, looping: bool) -> tuple["Transformer", Tensor]:
    """The model, narrower unless size=full, and a micro-batch of (B, T + 1) ids."""
    T = setting.pick(64, 256, 2048)
    B = setting.pick(2, 4, MICRO_TOKENS // T if setting.device == "cuda" else 2)
    narrow = setting.pick(dict(width=128, embed_width=128, mlp_hidden=256), dict(width=256, embed_width=256), {})
    model = replace(architecture(name), **narrow).build(0, setting.device)
    model.set_looping(looping)
    ids = torch.randint(VOCABULARY[name], (B, T + 1), generator=torch.Generator().manual_seed(0))
    return model, ids.to(setting.device)


def accumulated(model: torch.nn.Module, nll: Callable, parts: list[Tensor]) -> list[Tensor]:
    """The mean loss over all parts (B, T + 1), and its gradients, summed part by part."""
    model.zero_grad()
    tokens, loss = sum(part[:, 1:].numel() for part in parts), 0.0
    for part in parts:
        share = nll(part[:, :-1], part[:, 1:]).sum() / tokens
        share.backward()
        loss += share.detach()
    return [loss, *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def agreement(made: dict[str, list[Tensor]], allowed: float) -> str:
    """The largest relative distance of losses and gradients. Raises DisagreementError above `allowed`."""
    first, *others = made.values()
    whole = torch.cat([t.flatten().float() for t in first])
    apart = max(((torch.cat([t.flatten().float() for t in o]) - whole).norm() / whole.norm()).item() for o in others)
    if apart > allowed:
        raise DisagreementError(f"loss and gradients are {apart:.2e} apart, relative to their size")
    return f"loss and gradients at most {apart:.1e} apart, relative to their size"
