"""What a run would get done here: the text prepared, some seconds of real steps, and from them steps and bits per byte.

The steps are taken by the ranks of the words, started as a run starts them.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf.config.compose import Job, rehearse
from pgolf.config.identity import computed
from pgolf.doctor.finding import Finding
from pgolf.errors import RankError, UserError
from pgolf.machine.hardware import seen_by_torch

if TYPE_CHECKING:
    from pgolf.data import Corpus, TrainingText
    from pgolf.files.events import Events
    from pgolf.machine.world import World
    from pgolf.recipe import Recipe
    from pgolf.stages.train import Trainer

SECONDS = 5.0  # of steps that are measured, after a rehearsal as a run makes it
# val_bpb of the default on its own text, by steps of 2,048 tokens: AT * (steps / STEPS) ** POWER, by least squares of the
# logarithms through the runs that LOG.md lists; they are off by 1.6 % at most.
AT, STEPS, POWER, RUNS = 1.4517, 340, -0.135, 23
FEWEST = 10  # steps, without which a clock is refused
MEASURED, TOLD = (85, 1722), (60, 2500)  # steps: of those runs, and for which the curve is told at all


@dataclass(frozen=True)
class Probe:
    """Seconds of a step, of a look at held-out text, and of what the clock keeps for sealing."""

    step: float
    dev: float
    reserve: float

    def steps(self, recipe: "Recipe") -> int:
        """Steps that the training clock holds, or that the limits state. Looks at held-out text and sealing take their part.

        >>> from types import SimpleNamespace as S
        >>> Probe(0.5, 1.0, 8.0).steps(S(limits=S(train_steps=None, train_seconds=60), data=S(dev_checks=2)))
        100
        """
        limits = recipe.limits
        if limits.train_steps is not None:
            return limits.train_steps
        left = limits.train_seconds - self.reserve - recipe.data.dev_checks * self.dev
        return max(0, int(left / self.step))


def text(recipe: "Recipe") -> tuple["Corpus | None", Finding]:
    """The corpus of the words, built if that needs no network, verified file by file. What is wrong says what to do."""
    data = recipe.data
    try:
        corpus = data.prepare(lambda stage, done: None)
        recipe.require_text(corpus)
    except UserError as wrong:
        return None, Finding("corpus", f"{data.name}: {wrong}", False)
    train, judge = corpus.training, corpus.validation
    return corpus, Finding(
        "corpus", f"{data.name}: {train.tokens:,} training and {judge.tokens:,} validation tokens, verified and proven"
    )


def speed(job: Job, corpus: "Corpus") -> list[Finding]:
    """Optimiser steps for a few seconds, and what the clock of the words would hold."""
    recipe, machine = job.recipe, job.recipe.machine
    if machine.nodes > 1:
        return [Finding("speed", "not measured on several nodes; machine.nodes=1 measures this one")]
    if machine.on_gpu and seen_by_torch() < machine.ranks:
        return [Finding("speed", "not measured: GPUs that the words ask for are not here")]
    try:
        found = probed(recipe, corpus)
    except (UserError, RankError) as wrong:
        return [Finding("speed", f"no step can be taken: {str(wrong).strip().splitlines()[-1]}", False)]
    steps, seconds = found.steps(recipe), recipe.limits.train_seconds
    kept, rate = (
        f"{found.reserve:.0f} s",
        f"{recipe.data.batch_tokens / found.step:,.0f} tokens/s on {machine.world_size} rank(s)",
    )
    if recipe.limits.train_steps is not None:
        takes, ok = steps * found.step, steps * found.step <= seconds
        told = f"{rate}: {steps:,} steps take about {takes:,.0f} s of limits.train_seconds={seconds:g}"
        do = "" if ok else "fewer limits.train_steps, or a longer clock"
    else:
        ok = steps >= FEWEST
        told = f"{rate}: about {steps:,} steps in limits.train_seconds={seconds:g}, of which {kept} are for sealing"
        do = "" if ok else f"a longer limits.train_seconds, or a smaller model: a run needs {FEWEST} steps"
    return [Finding("speed", told, ok, do), score(job, steps)]


def score(job: Job, steps: int) -> Finding:
    """val_bpb by the curve of the default, which is the only recipe that has one."""
    if not is_default(job):
        return Finding("val_bpb", "not predicted: only the default has a measured curve")
    if not TOLD[0] <= steps <= TOLD[1]:
        return Finding(
            "val_bpb", f"not predicted: the default's curve was measured from {MEASURED[0]} to {MEASURED[1]} steps"
        )
    outside = "" if MEASURED[0] <= steps <= MEASURED[1] else ", extrapolated"
    return Finding(
        "val_bpb", f"about {predicted_bpb(steps):.3f} by the default's curve (n = {RUNS}, in LOG.md{outside})"
    )


def predicted_bpb(steps: int) -> float:
    """Bits per byte of the default after so many steps. round(predicted_bpb(340), 3) == 1.452"""
    return AT * (steps / STEPS) ** POWER


def is_default(job: Job) -> bool:
    """Whether these words train and judge what the default does, whatever the clocks."""
    (default,) = rehearse([], sweep=False)
    ours, theirs = (
        {k: v for k, v in computed(one.config).items() if k not in ("limits", "machine")} for one in (job, default)
    )
    return ours == theirs


def probed(recipe: "Recipe", corpus: "Corpus") -> Probe:
    """Measured by the ranks of the recipe's machine. Raises UserError and RankError as a training does."""
    from pgolf.machine.launch import launch

    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        told = launch(measured, recipe, corpus.training, machine=recipe.machine, folder=Path(folder))
    return Probe(**told["result"])


def measured(world: "World", recipe: "Recipe", text: "TrainingText", events: "Events") -> dict[str, float]:
    """A stage, on every rank: rehearse as a run does, look at the held-out text once, then time steps."""
    from pgolf.stages.train import Trainer

    trainer = Trainer(world, recipe, text)
    with trainer.loader:
        reserve = trainer.warm_up(recipe.limits.artifact_bytes)
        began = time.perf_counter()
        if recipe.data.dev_checks:
            trainer.dev_bpb()
        dev = time.perf_counter() - began
        return asdict(Probe(step_seconds(trainer, SECONDS), dev, reserve.seconds))


def step_seconds(trainer: "Trainer", budget: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Mean seconds of a step over `budget` seconds, one at the least; a first one, with its first times, does not count.

    The schedule goes from its beginning to its end meanwhile, so that what it switches on late has its share."""
    from pgolf.schedule import Progress

    def stepped(step: int, elapsed: float) -> float:
        trainer.step(Progress(step, min(elapsed, budget), budget)).item()  # waits for the device
        return clock()

    began, steps, elapsed = stepped(0, 0.0), 0, 0.0
    while elapsed < budget:
        now, steps = stepped(steps, elapsed), steps + 1
        elapsed = trainer.world.agree(now - began)  # so that all ranks take as many
    return elapsed / steps
