"""A whole training step of the default recipe against published scripts' way; forward and backward of published models.

On a CPU, forward, backward, clip, optimiser and moving average of the default recipe (of an 11-layer model of width 256 as well
with size=full) run beside `pgolf.bench.published`, plain eager torch, from the same weights on the same batches of the
default's text, which is built where it is not in the cache; no figure is believed unless weights and averages are the same
after the first step, and after 20. Both also run handed to torch.compile, but with size=small: how long that took, and how many
steps make up for it. Then follows where pgolf's step spends its time, by torch's profiler, and what a step would take with
nothing but its products, attention and Newton–Schulz: what no rewriting of the rest can beat.

Forward and backward of one micro-batch of the published models are held against one sequence after another; compiled on a GPU:
98,304 tokens with size=full there, as one of 8 ranks has them. Floors are a model's operations at this device's rate of large
matrix products."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pgolf.bench.contest import Contest, DisagreementError, Setting, matmul_floor
from pgolf.bench.eval import VOCABULARY, architecture
from pgolf.bench.muon import least_flops
from pgolf.bench.published import Training
from pgolf.bench.shares import Shares, mark_loss, marked
from pgolf.config.compose import register_experiments, rehearse
from pgolf.machine.needs import compiler_missing
from pgolf.machine.world import World
from pgolf.model.kinds import Role
from pgolf.recipe import Recipe
from pgolf.schedule import Progress
from pgolf.stages.train import Trainer

if TYPE_CHECKING:
    from pgolf.model.transformer import Transformer

MODELS = (("pr1129", False), ("pr606", False), ("pr1852", False), ("pr1852", True))  # and whether depth recurs
MICRO_TOKENS = 98_304
NARROW = ("model.width=32", "model.embed_width=32", "model.mlp_hidden=48", "model.rope_dims=8", "model.bigram.slots=64")
SMALL = (
    *NARROW,
    *("data.batch_tokens=256", "data.sequence_length=64", "data.dev_tokens=4096", "data.val_fraction=0.0025"),
)
DEEP = (
    *("model.layers=11", "model.width=256", "model.embed_width=256", "model.heads=4", "model.kv_heads=2"),
    *("model.mlp_hidden=768", "model.xsa_layers=4", "model.value_embedding.layers=[9,10]"),
)
SCRIPT, OURS, COMPILED = "as published scripts do it", "pgolf", ", compiled"
# How far weights may be apart, relative to their size: of all ways after the first step, of eager and of compiled ones after so
# many. What a compiler rounds otherwise grows a hundredfold in 20 steps of 11 layers.
ALLOWED_FIRST, STEPS, ALLOWED = 1e-5, 20, 1e-4
RUN = 1000.0  # steps of the run whose beginning is timed


def contests(setting: Setting) -> Iterator[Contest | Shares]:
    """On a CPU whole training steps; then forward and backward of one, by model, loop off and on."""
    if setting.device == "cpu":
        for words in setting.pick((SMALL,), ((),), ((), DEEP)):
            yield from whole_step(*words, compiled=setting.size != "small")
    for name, looping in MODELS:
        yield one_step(setting, name, looping)


@dataclass
class Stepping:
    """A call is the next step of the run that `training` begins; `spent` are the seconds of those so far."""

    training: Trainer | Training
    spent: list[float] = field(default_factory=list)

    def __call__(self) -> Tensor:
        n, began = len(self.spent), time.perf_counter()
        loss = self.training.step(Progress(n, n, RUN))
        self.spent.append(time.perf_counter() - began)
        return loss

    def state(self) -> dict[str, Tensor]:
        """All weights, and all their moving averages, flat, in the order of the parameters' names."""
        named, training = dict(self.training.model.named_parameters()), self.training
        if isinstance(training, Trainer):
            average = dict(zip(named, training.averager.state_dict()["average"], strict=True))
        else:
            average = training.average
        return {
            what: torch.cat([tensors[name].detach().flatten() for name in sorted(named)])
            for what, tensors in (("weights", named), ("averages", average))
        }


def whole_step(*words: str, compiled: bool = False) -> Iterator[Contest | Shares]:
    """A step of the default recipe with `words`, two ways of taking it, and where pgolf's spends its time."""
    register_experiments()
    (job,) = rehearse([*words, "machine.device=CPU", "machine.ranks=1"], sweep=False)
    recipe, world = job.recipe, World.alone("cpu")
    text = recipe.data.prepare(lambda what, done: None).training
    trainer = Trainer(world, marked(recipe), text)
    mark_loss(trainer)

    def script(recipe: Recipe) -> Training:
        batches = recipe.data.loader.build(trainer.windows, recipe.batch_sequences, recipe.seed.loader)
        return Training(recipe, trainer.model.state_dict(), batches)

    ways = {SCRIPT: Stepping(script(recipe)), OURS: Stepping(trainer)}
    missing = compiler_missing(False) if compiled else ""
    if compiled and not missing:
        fast = replace(recipe, machine=replace(recipe.machine, compile=True))
        ways |= {SCRIPT + COMPILED: Stepping(script(fast)), OURS + COMPILED: Stepping(Trainer(world, fast, text))}
    lacking = f"; not compiled: torch.compile lacks {missing}" if missing else ""

    def check(made: dict[str, Tensor]) -> str:
        found = [same_state(ALLOWED_FIRST, list(ways.values()), "after the first step")]
        for _ in range(STEPS - 1):
            for step in ways.values():
                step()
        for kind in ("", COMPILED):
            if same := [way for name, way in ways.items() if name.endswith(COMPILED) == bool(kind)]:
                found.append(same_state(ALLOWED, same, f"after {STEPS} steps{kind}"))
        return "; ".join(found) + lacking

    def told(way: str, made: Tensor) -> str:
        loss = f"loss {made.item():.4f} at the first step"
        return f"{loss}, {built(ways[way], ways[way.removesuffix(COMPILED)])}" if way.endswith(COMPILED) else loss

    spec = recipe.model
    about = f"{recipe.data.batch_tokens:,} tokens, {spec.layers} layers, width {spec.width}"
    flops = spec.flops_per_token(recipe.data.sequence_length, False) * recipe.data.batch_tokens
    matrices = [p for name, p in trainer.model.named_parameters() if trainer.model.roles()[name] is Role.MATRIX]
    flops += sum(least_flops(*p.shape) for p in matrices)
    with ExitStack() as open_:
        for way in ways.values():
            if isinstance(way.training, Trainer):
                open_.enter_context(way.training.loader)
        yield Contest(f"a whole step: {about}", ways, check, matmul_floor(flops, torch.float32, "cpu"), told)
        yield Shares(f"where pgolf's step goes: {about}", ways[OURS])


def built(way: Stepping, eager: Stepping) -> str:
    """What compiling took, and after how many steps it has been made up for."""
    took, saved = way.spent[0], median(eager.spent[1:]) - median(way.spent[1:])
    after = f"made up for after {took / saved:,.0f} steps" if saved > 0 else "never made up for"
    return f"compiled in {took:.1f} s, {after}"


def same_state(allowed: float, ways: list[Stepping], where: str) -> str:
    """Compares weights and their moving averages. Raises DisagreementError where any are too far from the first."""
    (first, *others), found = [way.state() for way in ways], []
    for what, whole in first.items():
        apart = max(((whole - other[what]).norm() / whole.norm()).item() for other in others)
        if not apart <= allowed:
            raise DisagreementError(f"{what} are {apart:.2e} apart {where}, relative to their size")
        found.append(f"{what} {apart:.1e}")
    return f"{' and '.join(found)} apart {where}"


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
