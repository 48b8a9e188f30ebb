"""Sliding windows scored at their last positions only, against the whole window; and what planning and batching cost.

The operations of both ways say what scoring fewer positions can save at most: that of the last block and the head.

The architectures are those of `conf/model`, narrower unless size=full."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pgolf.bench.contest import Contest, DisagreementError, Setting
from pgolf.config.places import beside_or_inside
from pgolf.config.schema import build
from pgolf.eval.windows import SlidingPlan
from pgolf.model import GPT, Model

ARCHITECTURES = {"pr606": (32,), "pr1129": (32, 64), "pr1852": (64,)}
VOCABULARY = {"pr606": 1024, "pr1129": 1024, "pr1852": 8192, "pr1855": 8192}


def contests(setting: Setting) -> Iterator[Contest]:
    """Scoring windows of the published shapes, planning them, and cutting batches."""
    for name, strides in ARCHITECTURES.items():
        for stride in strides:
            yield windows(setting, name, stride)
    targets = setting.pick(1_000_000, 62_021_632, 62_021_632)
    yield planning(targets)
    yield batching(setting, min(targets, 1_000_000))


def architecture(name: str) -> GPT:
    """The option of that name, with the vocabulary it was published for."""
    overrides = [f"model={name}", f"model.vocab_size={VOCABULARY[name]}"]
    with initialize_config_dir(str(beside_or_inside("conf")), version_base="1.3"):
        return build(OmegaConf.to_container(compose("config", overrides=overrides).model, resolve=True), Model, "model")


def windows(setting: Setting, name: str, stride: int) -> Contest:
    """One batch, the published way and ours, equal to the bit."""
    context, rows = setting.pick(128, 1024, 2048), setting.pick(1, 2, 32 if setting.device == "cuda" else 1)
    spec = architecture(name)
    narrow = setting.pick(dict(width=128, embed_width=128, mlp_hidden=256), dict(width=256, embed_width=256), {})
    model = replace(spec, **narrow).build(0, setting.device).requires_grad_(False)
    model.set_looping(True)
    ids = torch.randint(spec.vocab_size, (rows, context + 1), generator=torch.Generator().manual_seed(0))
    x, y = ids[:, :-1].to(setting.device), ids[:, 1:].to(setting.device)

    def check(made: dict[str, Tensor]) -> str:
        whole, ours = made.values()
        exact = torch.equal(whole, ours)
        apart = (whole - ours).abs().max().item()
        if not exact and (setting.device == "cpu" or apart > 0.05):
            raise DisagreementError(f"{name}, stride {stride}: nats differ by up to {apart:.2e}")
        return "nats bit-identical" if exact else f"nats within {apart:.1e} (other kernels on this device)"

    ways = {
        "whole window, then cut": lambda: model.nll(x, y)[:, -stride:],
        "scored positions only": lambda: model.nll(x, y, last=stride),
    }

    def operations(way: str, made: Tensor) -> str:
        with FlopCounterMode(display=False) as counted:
            ways[way]()
        return f"{counted.get_total_flops() / 1e9:.2f} GFLOP in products"

    name = f"{name}: {rows} windows of {context}, stride {stride}, width {model.spec.width}"
    return Contest(name, ways, check, figures=operations)


def planning(targets: int, context: int = 2048, stride: int = 32, chunk: int = 131_072) -> Contest:
    """Which windows belong to which chunk, and which targets each scores."""

    def listed() -> list[tuple[int, int]]:
        starts = range(0, targets - context + stride, stride)
        chunks: dict[int, list[int]] = {}
        for start in starts:
            first = 0 if start == 0 else start + context - stride
            chunks.setdefault(first // chunk, []).append(start)
        return [(mine[0] // stride, mine[-1] // stride + 1) for mine in chunks.values()]

    def closed() -> list[tuple[int, int]]:
        plan = SlidingPlan(targets, context, stride, chunk)
        return [plan.windows_of(c) for c in range(plan.chunks)]

    def check(made: dict[str, list]) -> str:
        one, two = made.values()
        if one != two:
            raise DisagreementError("the plans differ")
        return f"the same {one[-1][1]:,} windows in {len(one)} chunks"

    return Contest(
        f"plan {targets:,} targets, stride {stride}", {"list of windows": listed, "closed form": closed}, check
    )


def batching(setting: Setting, targets: int, count: int = 200) -> Contest:
    """Inputs and targets of batches of 32 windows, on the device."""
    generator = np.random.default_rng(0)
    host = torch.from_numpy(generator.integers(1024, size=targets + 2049).astype(np.uint16))
    tokens, wide = host.to(setting.device), host.long()
    plan = SlidingPlan(targets, 2048, 32, 131_072)
    batches = [b for b in plan.batches(0, 0, 1, 32)][1 : count + 1]

    def one_by_one() -> Tensor:
        for b in batches:
            both = torch.zeros(b.rows, 2049, dtype=torch.int64)
            for i in range(b.rows):
                at = (b.lo + i) * 32
                both[i] = wide[at : at + 2049]
            made = both.to(setting.device)
        return made

    def gathered() -> Tensor:
        for b in batches:
            made = plan.windows(tokens, b)
        return made

    def planned() -> Tensor:
        *_, last = itertools.islice(plan.batches(0, 0, 1, 32), len(batches) + 1)
        return plan.windows(tokens, last)

    def check(made: dict[str, Tensor]) -> str:
        if not all(torch.equal(m, made["window by window"]) for m in made.values()):
            raise DisagreementError("the batches differ")
        return "equal windows; the last way plans them all and gathers the last"

    ways = {"window by window": one_by_one, "one gather": gathered, "plan only": planned}
    return Contest(f"{len(batches)} batches of 32 windows of 2048", ways, check)
