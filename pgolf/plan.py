"""What a run would do, said before it does anything: size, work, text and clocks, all from the recipe."""

import time
from typing import TYPE_CHECKING

from pgolf.code import script
from pgolf.recipe import Recipe

if TYPE_CHECKING:
    from pgolf.compose import Job

UTILISATION = 0.3  # of a large matrix product's rate, which a training step reaches: 0.27-0.4 in public logs and here
HEAVY_TAILS = "trained weights are not Gaussian: the published int5 and int6 systems packed 15-19 % smaller"
H100_FLOPS = 989e12  # dense bf16, from the data sheet; the parent of the ranks may not ask the GPU itself


def plans(jobs: list["Job"]) -> str:
    """The plan of every arm, with its seeds."""
    arms: dict[str, list[Job]] = {}
    for job in jobs:
        arms.setdefault(job.arm_sha256, []).append(job)
    return "\n\n".join(plan(same[0], [job.recipe.seed.value for job in same]) for same in arms.values())


def plan(job: "Job", seeds: list[int]) -> str:
    """The plan as text, a line per question."""
    recipe = job.recipe
    rows = {
        "run": f"{job.config['name']}  arm {job.arm}  seed {', '.join(map(str, seeds))}",
        "parts": ", ".join(f"{group}={type(part).__name__}" for group, part in vars(recipe).items()),
        "machine": _machine(recipe),
        "size": _size(job),
        "work": _work(recipe),
        "text": _text(recipe),
        "training clock": _training_clock(recipe),
        "evaluation clock": _evaluation_clock(recipe),
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {what}" for name, what in rows.items())


def _machine(recipe: Recipe) -> str:
    where = "GPU" if recipe.machine.on_gpu else f"CPU, {recipe.machine.threads_per_rank} thread(s) each"
    return (
        f"{recipe.machine.world_size} rank(s) on {where}; {recipe.data.batch_tokens:,} tokens a step ="
        f" {recipe.machine.world_size} x {recipe.accumulation} x {recipe.micro_batch_tokens:,}"
    )


def _size(job: "Job") -> str:
    recipe = job.recipe
    model = recipe.model.build(0, "meta")
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    artifact, cap = recipe.quant.estimate_bytes(shapes, model.sections()), recipe.limits.artifact_bytes
    code = script(job.config).size
    fits = (
        f"{cap - artifact - code:,} to spare"
        if artifact + code <= cap
        else f"{artifact + code - cap:,} OVER; {HEAVY_TAILS}"
    )
    return (
        f"{recipe.model.parameters_count():,} parameters; about {artifact:,} bytes of artifact (entropy of Gaussian weights)"
        f" + {code:,} of code; cap {cap:,}: {fits}"
    )


def _work(recipe: Recipe) -> str:
    return f"{flops_per_step(recipe) / 1e9:,.1f} GFLOP a step; {_steps_text(recipe)}"


def flops_per_step(recipe: Recipe) -> int:
    """Forward and backward over the global batch, loops on."""
    return recipe.model.flops_per_token(recipe.data.sequence_length, True) * recipe.data.batch_tokens


def _steps_text(recipe: Recipe) -> str:
    if recipe.limits.train_steps is not None:
        return f"{recipe.limits.train_steps:,} steps"
    return f"about {expected_steps(recipe):,} steps in {recipe.limits.train_seconds:g} s (from a guessed rate)"


def expected_steps(recipe: Recipe) -> int:
    """Steps that fit the training clock, if a step reaches `UTILISATION` of this machine's matrix products."""
    if recipe.limits.train_steps is not None:
        return recipe.limits.train_steps
    machine = recipe.machine
    rate = machine.world_size * (H100_FLOPS if machine.on_gpu else machine.threads_per_rank * matmul_flops())
    return max(1, int(recipe.limits.train_seconds * rate * UTILISATION / flops_per_step(recipe)))


def matmul_flops() -> float:
    """Operations per second of a float32 matrix product on one core, measured for a moment."""
    import torch

    threads, n, spent = torch.get_num_threads(), 512, []
    a = torch.ones(n, n)
    torch.set_num_threads(1)
    for _ in range(8):
        began = time.perf_counter()
        torch.mm(a, a)
        spent.append(time.perf_counter() - began)
    torch.set_num_threads(threads)
    return 2 * n**3 / min(spent)


def _text(recipe: Recipe) -> str:
    needed = expected_steps(recipe) * recipe.data.batch_tokens
    present = recipe.data.tokens_present()
    if present is None:
        return f"{needed:,} training tokens needed; none are there yet"
    usable = present - recipe.data.dev_tokens
    verdict = "enough" if usable >= needed else f"the text will be read {needed / usable:.1f} times"
    return f"{needed:,} training tokens needed, {usable:,} present besides the held-out slice: {verdict}"


def _training_clock(recipe: Recipe) -> str:
    limits = recipe.limits
    phases = "steps, average, calibrate, quantize and pack, dev"
    reserve = "measured in rehearsal" if limits.reserve_seconds is None else f"{limits.reserve_seconds:g} s"
    if limits.train_steps is not None:
        return (
            f"{limits.train_steps:,} steps whatever they take, then {phases}; judged against {limits.train_seconds:g} s"
        )
    return f"{limits.train_seconds:g} s: {phases}; reserve {reserve}"


def _evaluation_clock(recipe: Recipe) -> str:
    how = f"{type(recipe.eval).__name__}, {type(recipe.ttt).__name__}"
    return f"{recipe.limits.eval_seconds:g} s: load, prove bytes, score ({how})"
