"""One call on a GPU: the tests that need one, then every figure that is promised for it. Ends within nine minutes.

Nothing is timed that was not first compared with what it replaces. A part that fails or does not fit the time is named at the
end with its reason, and the others go on; only=step takes the parts whose names begin so. With json=FILE the figures are kept
with the card, its driver, torch and the date. On a CPU (device=cpu size=small) all parts are walked through, without the
compiler's back end and the kernels: that proves that the call works, and measures nothing of a GPU."""

import copy
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import pgolf
from pgolf.average.averager import Exponential
from pgolf.bench import eval as windows
from pgolf.bench import gptq, parts, step
from pgolf.bench.contest import Contest, DisagreementError, Part, Setting, matmul_floor, seconds
from pgolf.errors import UserError
from pgolf.machine.kernels import AutoKernels, loaded
from pgolf.machine.world import World
from pgolf.model.fused import attend_varlen
from pgolf.model.layers import gated_heads, normed_heads, rotary_tables
from pgolf.model.loss import plain_nll
from pgolf.model.pieces import Pieces

LIMIT = 530.0  # seconds for all of it on a GPU; what follows is the report
TESTS = Path(pgolf.__file__).parents[1] / "tests" / "test_gpu.py"


class OutOfTimeError(Exception):
    """The call's time is over."""


def contests(setting: Setting) -> Iterator[Part]:
    """What fits `LIMIT`, the most wanted first. Raises UserError without a GPU, but for the rehearsal."""
    if setting.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device=cuda: this benchmark needs a CUDA device; nothing was measured (device=cpu size=small rehearses)"
        )
    if setting.device == "cpu" and setting.size != "small":
        raise UserError(f"size={setting.size}: on a CPU this benchmark is rehearsed, with size=small")
    end = time.monotonic() + LIMIT if setting.device == "cuda" else math.inf
    chosen = {name: made for name, made in _parts(setting) if name.startswith(setting.only)}
    if not chosen:
        raise UserError(f"only={setting.only}: begins no part's name: {'; '.join(dict(_parts(setting)))}")
    for name, made in chosen.items():
        yield Part(name, partial(_in_time, made, end))


def _in_time(made: Callable[[], Iterable[Contest]], end: float) -> Iterator[Contest]:
    """The contests of a part, ended where the time is over; without an end it is the rehearsal, which compiles nothing. Graphs
    and memory of the part before are dropped: one function has 8 graphs at most, and all models share theirs."""
    if math.isfinite(end):
        torch._dynamo.reset()
        torch.cuda.empty_cache()
    with alarm(end - time.monotonic()) if math.isfinite(end) else torch.compiler.set_stance("force_eager"):
        yield from made()


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raises OutOfTimeError in what runs inside for longer, or at once if nothing is left."""

    def ring(*_: object) -> None:
        raise OutOfTimeError(f"the {LIMIT:.0f} s of this call are over")

    if seconds <= 0:
        ring()
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _parts(setting: Setting) -> Iterator[tuple[str, Callable[[], Iterable[Contest]]]]:
    """By name, those first that say most for their time: a step is compiled twice, a minute each."""
    yield "correctness", lambda: [correctness()]
    yield "loss", lambda: [loss(setting)]
    yield "heads", lambda: heads(setting)
    yield "optimiser", lambda: [optimiser(setting)]
    yield "collectives", lambda: parts.collectives(setting)
    yield "step of pr1855", lambda: [step_of_documents(setting)]
    yield "documents with adapters", lambda: [parts.documents(setting)]
    yield "sealing", lambda: [parts.sealing(setting)]
    for name, strides in windows.ARCHITECTURES.items():
        yield f"windows of {name}", lambda name=name, stride=strides[0]: [windows.windows(setting, name, stride)]
    yield "step of pr606", lambda: [fused_step(setting, "pr606", False)]
    yield "gptq", lambda: gptq.contests(setting)
    yield "score-first chunk", lambda: [parts.chunk(setting)]
    yield "step of pr1852, loops on", lambda: [fused_step(setting, "pr1852", True)]
    yield "step of pr1129", lambda: [fused_step(setting, "pr1129", False)]
    yield "step of pr1852", lambda: [fused_step(setting, "pr1852", False)]


def correctness() -> Contest:
    """`pytest -m gpu`, which holds kernels, graphs, waiting, golden files and judging against the CPU."""

    def tested() -> str:
        if not TESTS.exists():
            raise UserError("the tests are not beside this package: install a checkout with pip install -e '.[test]'")
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-x", "-p", "no:cacheprovider", str(TESTS)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=TESTS.parents[1])
        except subprocess.TimeoutExpired:
            raise DisagreementError("the tests that need a GPU did not end within 200 s") from None
        said = done.stdout.strip().splitlines() or [done.stderr[-200:]]
        return f"{done.returncode} {said[-1]}"

    def check(made: dict[str, str]) -> str:
        (stated,) = made.values()
        if not stated.startswith("0 "):
            raise DisagreementError(f"the tests that need a GPU: {stated}")
        return stated.removeprefix("0 ")

    stated = tested()  # once: repeats would prove nothing
    return Contest("tests that need a GPU", {"pytest -m gpu": lambda: stated}, check)


def with_kernel(setting: Setting, ways: dict[str, Callable], name: str) -> dict[str, Callable]:
    """The same ways and, on a GPU, the kernel of that name."""
    return ways | ({"kernel": getattr(loaded(None), name)} if setting.device == "cuda" else {})


def loss(setting: Setting) -> Contest:
    """Softcap, cross entropy and gradient of a micro-batch's scores: torch, compiled, and the kernel."""
    rows, V = setting.pick(64, 1024, step.MICRO_TOKENS), setting.pick(512, 8192, 8192)
    generator = torch.Generator(setting.device).manual_seed(0)
    scores = torch.randn(rows, V, generator=generator, device=setting.device).mul_(10).bfloat16().requires_grad_()
    targets = torch.randint(V, (rows,), generator=generator, device=setting.device)

    def with_gradient(nll: Callable) -> list[Tensor]:
        value = nll(scores, targets, 30.0)
        return [value.detach(), *torch.autograd.grad(value.mean(), scores)]

    ways = {"torch": plain_nll, "torch, compiled": torch.compile(plain_nll, dynamic=False, fullgraph=True)}
    ways = with_kernel(setting, ways, "capped_nll")
    return Contest(
        f"softcap + cross entropy, {rows:,} x {V:,}",
        {name: lambda nll=nll: with_gradient(nll) for name, nll in ways.items()},
        lambda made: step.agreement(made, 1e-2),
        3 * 2 * rows * V / memory_rate(setting),
    )


def heads(setting: Setting) -> Iterator[Contest]:
    """RMS norm + RoPE + gain of queries, and exclusive self-attention with its gate, forward and backward."""
    T, (H, K, D) = setting.pick(64, 1024, step.MICRO_TOKENS), (8, 4, 64)
    device, rate = torch.device(setting.device), memory_rate(setting)
    generator = torch.Generator(device).manual_seed(0)
    y, v = (torch.randn(1, T, n, D, generator=generator, device=device).bfloat16() for n in (H, K))
    gain, gate = (
        torch.full((H,), 1.5, device=device),
        torch.rand(1, T, H, generator=generator, device=device).bfloat16(),
    )
    rotary = rotary_tables(T, 16, 1e4, device)
    for name, plain, kernel, inputs, floor in (
        ("RMS norm + RoPE + gain", lambda y, g: normed_heads(y, rotary, g), "normed_heads", (y, gain), 5 * H * D),
        ("exclusive self-attention + gate", gated_heads, "exclusive_heads", (y, v, gate), 5 * H * D + 3 * K * D),
    ):
        ways = {"torch": plain, "torch, compiled": torch.compile(plain, dynamic=False, fullgraph=True)}
        ways = with_kernel(setting, ways, kernel)
        if kernel == "normed_heads" and "kernel" in ways:
            ways["kernel"] = lambda y, g, call=ways["kernel"]: call(y, *rotary, g)
        given = [t.requires_grad_() for t in inputs]

        def with_gradient(call: Callable, given: list[Tensor] = given) -> list[Tensor]:
            made = call(*given)
            return [made.detach(), *torch.autograd.grad(made, given, y.detach())]

        yield Contest(
            f"{name}, {T:,} tokens",
            {name: lambda call=call, run=with_gradient: run(call) for name, call in ways.items()},
            lambda made: step.agreement(made, 2e-2),
            2 * T * floor / rate,
        )


def memory_rate(setting: Setting) -> float:
    """Bytes per second that a copy moves here, read and written."""
    a = torch.empty(setting.pick(1 << 20, 1 << 28, 1 << 28), dtype=torch.uint8, device=setting.device)
    b = torch.empty_like(a)
    return 2 * a.numel() / min(seconds(lambda: b.copy_(a), setting.device) for _ in range(8))


def fused_step(setting: Setting, name: str, looping: bool) -> Contest:
    """A step of `bench step`, compiled as published scripts do it, and with fused kernels."""
    contest = step.one_step(setting, name, looping)
    plain, ids = step.model_and_batch(setting, name, looping)
    ways = compiled_twice(plain, [ids])
    return Contest(contest.name, ways, contest.check, contest.floor, contest.figures)


def compiled_twice(plain: torch.nn.Module, batch: list[Tensor], *more: Pieces) -> dict[str, Callable]:
    """One micro-batch of a model compiled as it is, and of its copy with fused kernels."""
    fused = copy.deepcopy(plain)
    (receipt,) = AutoKernels(source=None).install(fused)
    whole = {"compiled, as published scripts do it": plain, f"compiled, {receipt.what[:90]}": fused}
    ways = {}
    for way, model in whole.items():
        nll = torch.compile(model.nll, dynamic=False, fullgraph=True)
        ways[way] = lambda model=model, nll=nll: step.accumulated(model, lambda x, y: nll(x, y, *more), batch)
    return ways


def step_of_documents(setting: Setting) -> Contest:
    """A row of documents through the model of pr1855, attention inside pieces of at most 2048 (variable-length attention in
    both ways on a GPU, one mask on a CPU), loops on."""
    model, ids = step.model_and_batch(setting, "pr1855", True)
    tokens, cut = ids[:, 1:].numel(), setting.pick(64, 256, 2048)
    both = torch.cat([ids[:, 1:].flatten(), ids[0, :1]])[None]
    bounds = np.minimum(np.arange(64 * -(-(tokens // cut + 2) // 64), dtype=np.int32) * cut, tokens)
    if setting.device == "cuda":
        for block in model.blocks:
            block.attn.attend = attend_varlen
    ways = compiled_twice(model, [both], Pieces.of(bounds, cut, both.device))
    flops = model.spec.flops_per_token(cut, True) * tokens
    return Contest(
        f"pr1855, loops on: a row of {tokens:,} tokens, pieces of {cut}, width {model.spec.width}",
        ways,
        lambda made: step.agreement(made, 0.05),
        matmul_floor(flops, step.floor_dtype(setting), setting.device),
        figures=lambda way, made: f"loss {made[0].item():.4f}",
    )


def optimiser(setting: Setting) -> Contest:
    """Clip, Muon, AdamW and the average, as training runs them, twice: from equal gradients come equal weights."""
    recipe = parts.recipe(setting, "pr606_int5_softround")
    model = recipe.model.build(0, torch.device(setting.device))
    other = copy.deepcopy(model)
    ways = {}
    for name, one in (("first", model), ("again", other)):
        generator = torch.Generator(setting.device).manual_seed(0)
        for p in one.parameters():
            p.grad = torch.randn(p.shape, generator=generator, device=p.device).mul_(1e-3)
        built, average = recipe.optim.build(one, World.alone(setting.device)), Exponential(one, 0.997)

        def stepped(built=built, average=average, one=one) -> list[Tensor]:
            built.step(1.0, 0.95)
            average.update(0, 1.0)
            return list(one.parameters())

        ways[f"clip + Muon + AdamW + EMA, {name}"] = stepped
    return Contest("optimiser of pr606", ways, lambda made: step.agreement(made, 1e-6))
