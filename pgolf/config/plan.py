"""The plan of a run, printed before it starts: size, work, text and clocks, all computed from the recipe."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf.recipe import Recipe

if TYPE_CHECKING:
    from pgolf.config.compose import Job

UTILISATION = 0.3  # of a large matrix product's rate, which a training step reaches: 0.27-0.4 in public logs and here
HEAVY_TAILS = "trained weights are not Gaussian: the published int5 and int6 systems packed 15-19 % smaller"
H100_FLOPS = 989e12  # dense bf16, from the data sheet; the parent of the ranks may not ask the GPU itself


def plans(jobs: list["Job"], code_bytes: Callable[["Job"], int]) -> str:
    """The plan of every arm, with its seeds; `code_bytes` is the size of the script that a job would export."""
    arms: dict[str, list[Job]] = {}
    for job in jobs:
        arms.setdefault(job.arm_sha256, []).append(job)
    return "\n\n".join(
        plan(same[0], [job.recipe.seed.value for job in same], code_bytes(same[0])) for same in arms.values()
    )


def plan(job: "Job", seeds: list[int], code: int) -> str:
    """The plan as text, a line per question; `code` is in bytes."""
    recipe = job.recipe
    rows = {
        "run": f"{job.config['name']}  arm {job.arm}  seed {', '.join(map(str, seeds))}",
        "parts": ", ".join(f"{group}={type(part).__name__}" for group, part in vars(recipe).items()),
        "machine": _machine(recipe),
        "size": _size(job, code),
        "work": _work(recipe),
        "text": _text(recipe),
        "training clock": _training_clock(recipe),
        "evaluation clock": _evaluation_clock(recipe),
        **(_on_gpu(recipe) if recipe.machine.on_gpu else {}),
    }
    return "\n".join(_aligned(rows | _yours(job)))


def _yours(job: "Job") -> dict[str, str]:
    """What of a run is the user's: files of options, and modules with the beginning of their sha256."""
    modules = [f"{name} ({sha256[:8]})" for name, sha256 in job.own.items()]
    found = {"your options": ", ".join(job.files), "your modules": ", ".join(modules)}
    return {name: what for name, what in found.items() if what}


def _on_gpu(recipe: Recipe) -> dict[str, str]:
    from pgolf.config.memory import memory_text, traffic_text

    least = 1000 * flops_per_step(recipe) / (recipe.machine.world_size * H100_FLOPS)
    floor = (
        f"{least:,.1f} ms a step, if every product ran at the {H100_FLOPS / 1e12:.0f} TFLOP/s of an H100's data sheet"
    )
    return {"memory": memory_text(recipe), "traffic": traffic_text(recipe), "floor": floor}


def start_lines(job: "Job", code: int, folder: Path) -> list[str]:
    """What is about to run, where, how large it will be and on what clocks, with `code` bytes of exported script."""
    limits, size = job.recipe.limits, Size.predicted(job, code)
    rows = {
        "run": f"{job.config['name']}, {_shortened(job.arm)}, seed {job.recipe.seed.value}",
        "on": _where(job.recipe),
        "size": f"{size.parameters:,} parameters; {size.brief()}",
        "clocks": f"{_training(job)}, evaluation {limits.eval_seconds:g} s",
        "files": str(folder),
    }
    return _aligned(rows | _yours(job))


def _training(job: "Job") -> str:
    limits = job.recipe.limits
    if job.source:
        return f"no training (the artifact of {job.source.folder})"
    return f"training {f'{limits.train_steps:,} steps' if limits.train_steps is not None else f'{limits.train_seconds:g} s'}"


def _shortened(arm: str, most: int = 60) -> str:
    return arm if len(arm) <= most else f"{arm[: most - 1]}…"


def _aligned(rows: dict[str, str]) -> list[str]:
    width = max(map(len, rows))
    return [f"{name:<{width}}  {what}" for name, what in rows.items()]


def _machine(recipe: Recipe) -> str:
    return (
        f"{_where(recipe)}; {recipe.data.batch_tokens:,} tokens a step ="
        f" {recipe.machine.world_size} x {recipe.accumulation} x {recipe.micro_batch_tokens:,}"
    )


def _where(recipe: Recipe) -> str:
    where = "GPU" if recipe.machine.on_gpu else f"CPU, {recipe.machine.threads} thread(s) each"
    nodes = f" of {recipe.machine.nodes} nodes" if recipe.machine.nodes > 1 else ""
    return f"{recipe.machine.world_size} rank(s) on {where}{nodes}"


@dataclass(frozen=True)
class Size:
    """What will be weighed, in bytes. `fitted` says that the artifact will be made as small as the cap asks, and `foreseen`
    how."""

    parameters: int
    artifact: int
    code: int
    cap: int
    fitted: bool
    foreseen: str

    @classmethod
    def predicted(cls, job: "Job", code: int) -> "Size":
        """From the entropy of Gaussian weights, and from quant.fit where that is too much."""
        recipe = job.recipe
        model = recipe.model.outline()
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        cap, fit = recipe.limits.artifact_bytes, vars(recipe.quant).get("fit")  # not every Quant has one
        if fit is None:
            guess = most = recipe.quant.estimate_bytes(shapes, model.sections())
        else:
            guess, most = fit.most_bytes(recipe.quant, shapes, model.sections()), cap - code - fit.within
        foreseen = fit.foreseen(recipe.quant, shapes, model.sections(), cap - code) if most < guess else ""
        return cls(sum(map(math.prod, shapes.values())), min(guess, most), code, cap, most < guess, foreseen)

    @property
    def spare(self) -> int:
        """Bytes below the cap; negative where over it."""
        return self.cap - self.artifact - self.code

    def brief(self) -> str:
        """In a few words, for the start of a run."""
        over = f", {-self.spare:,} OVER" if self.spare < 0 else ""
        return f"about {self.artifact + self.code:,} bytes with code, of {self.cap:,}{over}"

    def in_full(self) -> str:
        """With its parts and where the estimate comes from, for the plan."""
        basis = f"by quant.fit: {self.foreseen}" if self.fitted else "entropy of Gaussian weights"
        fits = f"{self.spare:,} to spare" if self.spare >= 0 else f"{-self.spare:,} OVER; {HEAVY_TAILS}"
        return f"about {self.artifact:,} bytes of artifact ({basis}) + {self.code:,} of code; cap {self.cap:,}: {fits}"


def _size(job: "Job", code: int) -> str:
    size = Size.predicted(job, code)
    return f"{size.parameters:,} parameters; {size.in_full()}"


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
    rate = machine.world_size * (H100_FLOPS if machine.on_gpu else machine.threads * matmul_flops())
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
    phases = "steps, average, calibrate, quantize and pack"
    reserve = "measured in rehearsal" if limits.reserve_seconds is None else f"{limits.reserve_seconds:g} s"
    if limits.train_steps is not None:
        return (
            f"{limits.train_steps:,} steps whatever they take, then {phases}; judged against {limits.train_seconds:g} s"
        )
    return f"{limits.train_seconds:g} s: {phases}; reserve {reserve}"


def _evaluation_clock(recipe: Recipe) -> str:
    how = f"{type(recipe.eval).__name__}, {type(recipe.ttt).__name__}"
    return f"{recipe.limits.eval_seconds:g} s: load, prove bytes, score ({how}{_mixer_memory(recipe)})"


def _mixer_memory(recipe: Recipe) -> str:
    """What tables of n-grams take on the host, where there are any."""
    bounds = vars(vars(recipe.ttt).get("mixer") or recipe.ttt).get("slots")
    return f"; n-gram tables of at most {recipe.ttt.mixer.table_bytes:,} bytes a rank" if bounds else ""
