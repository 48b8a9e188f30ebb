"""One call on a GPU: the tests that need one, then every figure that is promised for it. Ends within nine minutes.

Nothing is timed that was not first compared with what it replaces. With json=FILE the figures are kept with the card, its driver,
torch and the date; without a CUDA device it says so and measures nothing."""

import copy
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pgolf.bench import eval as windows
from pgolf.bench import gptq, step
from pgolf.bench.contest import Contest, DisagreementError, Setting
from pgolf.errors import UserError
from pgolf.machine.kernels import AutoKernels
from pgolf.machine.world import World
from pgolf.model.loss import plain_nll

LIMIT = 540.0  # seconds for all of it


def contests(setting: Setting) -> Iterator[Contest]:
    """What fits `LIMIT`, the most wanted first; what did not fit is named at the end."""
    if setting.device != "cuda" or not torch.cuda.is_available():
        raise UserError("device=cuda: this benchmark needs a CUDA device; nothing was measured")
    began, left = time.monotonic(), []
    for name, made in _parts(setting):
        if time.monotonic() - began < LIMIT:
            yield from made()
        else:
            left.append(name)
    if left:
        print(f"not measured, for lack of time: {', '.join(left)}", file=sys.stderr)


def _parts(setting: Setting) -> Iterator[tuple[str, Any]]:
    yield "correctness", lambda: [correctness()]
    yield "loss", lambda: [loss(setting)]
    for name, looping in step.MODELS:
        yield f"step of {name}", lambda name=name, looping=looping: [fused_step(setting, name, looping)]
    yield "optimiser", lambda: [optimiser(setting)]
    for name, strides in windows.ARCHITECTURES.items():
        yield f"windows of {name}", lambda name=name, stride=strides[0]: [windows.windows(setting, name, stride)]
    yield "head in fp32", lambda: [head_precision(setting)]
    yield "gptq", lambda: gptq.contests(setting)


def correctness() -> Contest:
    """`pytest -m gpu`, which holds kernels, graphs, waiting and judging against the CPU."""

    def tested() -> str:
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-x"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        return (
            f"{done.returncode} {done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-200:]}"
        )

    def check(made: dict[str, str]) -> str:
        (stated,) = made.values()
        if not stated.startswith("0 "):
            raise DisagreementError(f"the tests that need a GPU: {stated}")
        return stated.removeprefix("0 ")

    stated = tested()  # once: repeats would prove nothing
    return Contest("tests that need a GPU", {"pytest -m gpu": lambda: stated}, check)


def loss(setting: Setting) -> Contest:
    """Softcap, cross entropy and gradient of a micro-batch's scores: torch, compiled, and the kernel."""
    rows, V = setting.pick(1024, 8192, 98_304), 8192
    generator = torch.Generator("cuda").manual_seed(0)
    scores = torch.randn(rows, V, generator=generator, device="cuda").mul_(10).bfloat16().requires_grad_()
    targets = torch.randint(V, (rows,), generator=generator, device="cuda")
    from pgolf.machine.kernels import loaded

    def with_gradient(nll) -> list[Tensor]:
        value = nll(scores, targets, 30.0)
        return [value.detach(), *torch.autograd.grad(value.mean(), scores)]

    compiled = torch.compile(plain_nll, dynamic=False, fullgraph=True)
    ways = {"torch": plain_nll, "torch, compiled": compiled, "kernel": loaded(None).capped_nll}
    return Contest(
        f"softcap + cross entropy, {rows:,} x {V:,}",
        {name: lambda nll=nll: with_gradient(nll) for name, nll in ways.items()},
        lambda made: step.agreement(made, 1e-2),
        3 * 2 * rows * V / memory_rate(),
    )


def memory_rate() -> float:
    """Bytes per second that a copy moves here, read and written."""
    a = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    b, best = torch.empty_like(a), float("inf")
    for _ in range(8):
        torch.cuda.synchronize()
        began = time.perf_counter()
        b.copy_(a)
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * a.numel() / best


def fused_step(setting: Setting, name: str, looping: bool) -> Contest:
    """The contest of `bench step` with one way more: compiled, with fused kernels."""
    contest = step.one_step(setting, name, looping)
    whole = contest.ways["one micro-batch, compiled"]
    model, ids = step.model_and_batch(setting, name, looping)
    (receipt,) = AutoKernels(source=None).install(model)
    compiled = torch.compile(model.nll, dynamic=False, fullgraph=True)
    contest.ways.clear()
    contest.ways["compiled, as published scripts do it"] = whole
    contest.ways[f"compiled, {receipt.what[:60]}"] = lambda: step.accumulated(model, compiled, [ids])
    return contest


def optimiser(setting: Setting) -> Contest:
    """Clip, Muon, AdamW and the average, as training runs them, twice: from equal gradients come equal weights."""
    from pgolf.average.averager import Exponential
    from pgolf.config.compose import register_experiments, rehearse

    register_experiments()
    recipe = rehearse(["experiment=pr606_int5_softround", "machine.ranks=1"], sweep=False)[0].recipe
    model = recipe.model.build(0, "cuda")
    other = copy.deepcopy(model)
    ways = {}
    for name, one in (("first", model), ("again", other)):
        generator = torch.Generator("cuda").manual_seed(0)
        for p in one.parameters():
            p.grad = torch.randn(p.shape, generator=generator, device="cuda").mul_(1e-3)
        built, average = recipe.optim.build(one, World.alone("cuda")), Exponential(one, 0.997)

        def stepped(built=built, average=average, one=one) -> list[Tensor]:
            built.step(1.0, 0.95)
            average.update(0, 1.0)
            return list(one.parameters())

        ways[f"clip + Muon + AdamW + EMA, {name}"] = stepped
    return Contest("optimiser of pr606", ways, lambda made: step.agreement(made, 1e-6))


def head_precision(setting: Setting) -> Contest:
    """Nats of one micro-batch with scores in bf16 and in fp32 before the softcap: public logs put -.0013 bpb on it."""
    model, ids = step.model_and_batch(setting, "pr1852", True)
    fp32 = copy.deepcopy(model)
    fp32.head.register_forward_pre_hook(lambda _, inputs: tuple(t.float() for t in inputs))
    ids = ids[:2]

    @torch.no_grad()
    def nats(one) -> list[Tensor]:
        return [one.nll(ids[:, :-1], ids[:, 1:]).mean()]

    return Contest(
        "head product in bf16 and fp32",
        {"bf16": lambda: nats(model), "fp32": lambda: nats(fp32)},
        lambda made: step.agreement(made, 1e-2),
        figures=lambda way, made: f"{made[0].item():.6f} nats",
    )
