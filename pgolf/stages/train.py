"""The training stage, on every rank: tokens become weights, and weights the bytes of an artifact, on one clock.

Nothing here has a path to validation text but `ValidationFinetuning`, which exists only under limits=study, and the record
says so. Choices and curves use `dev_bpb`, on a held-out slice of training text.
"""

import copy
import math
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pgolf.data import TrainingText
from pgolf.data.dev import Dev
from pgolf.data.prefetch import Prefetched
from pgolf.errors import UserError
from pgolf.files.events import Events
from pgolf.limits.clock import Clock
from pgolf.limits.stopping import StoppingRule, stopping_rule
from pgolf.machine.world import World
from pgolf.recipe import Recipe
from pgolf.schedule import END, START, Progress
from pgolf.stages.seal import Reserve, seal

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgolf.ttt.prequant import ValidationFinetuning

    RuleOf = Callable[["Trainer", Clock, Reserve], StoppingRule]  # of what the clock must leave for sealing, too

# Steps between two log lines; reading the loss and looking for non-finite values make the host wait for the device.
LOG_INTERVAL = 10


@dataclass(frozen=True)
class Training:
    """What is to be trained: `code_bytes` is the size of the exported script, which shares the cap with the artifact, and
    `finetuning` is None but for study. Everything is left in `folder`."""

    recipe: Recipe
    text: TrainingText
    finetuning: "ValidationFinetuning | None"
    code_bytes: int
    folder: Path

    @property
    def budget(self) -> int:
        """Bytes that the artifact may have."""
        return self.recipe.limits.artifact_bytes - self.code_bytes


def train(
    world: World,
    training: Training,
    events: Events,
    rule_of: "RuleOf" = stopping_rule,
) -> dict:
    """Train, average, quantise and pack; writes artifact.pgolf and returns the record's `train` and `artifact`."""
    recipe = training.recipe
    events.write("stage", stage="train")
    trainer = Trainer(world, recipe, training.text)
    with trainer.loader:
        events.progress("warm up", 0.0, "every kind of step once, and the sealing")
        reserve = trainer.warm_up(training.budget)
        events.write("ready", reserve=reserve.seconds)
        clock = Clock(recipe.limits.train_seconds)
        clock.start()
        rule = rule_of(trainer, clock, reserve)
        with clock.phase("steps"):
            steps = fit(trainer, rule, clock, events, training.folder)
    sealed = seal(trainer, training, clock, rule.reserve, events)
    return {
        "train": {
            "steps": steps,
            "tokens": steps * recipe.data.batch_tokens,
            "seconds": clock.elapsed,
            "phases": clock.phases,
            "parameters": sum(p.numel() for p in trainer.model.parameters()),
            "train_loss": trainer.loss,
            "dev_bpb": sealed.dev_bpb,
            "stopped_by": rule.stopped_by,
            "validation_tokens": training.finetuning.tokens if training.finetuning else 0,
        },
        "artifact": sealed.artifact,
        "receipts": [asdict(r) for r in [*trainer.receipts, *sealed.receipts]],
    }


class Trainer:
    """The moving parts of training on one rank, built from the recipe."""

    def __init__(self, world: World, recipe: Recipe, text: TrainingText):
        self.world, self.recipe = world, recipe
        self.model = recipe.model.build(recipe.seed.model, world.device)
        self.receipts = recipe.machine.kernels.install(self.model)
        self.qat = recipe.qat.build(self.model, recipe.quant)
        self.optimizer = recipe.optim.build(self.model, world)
        self.averager = recipe.average.build(self.model)
        self.windows = text.windows()
        batches = recipe.data.loader.build(self.windows, recipe.batch_sequences, recipe.seed.loader)
        self.loader = Prefetched(batches, rows_of(recipe, world), pin=world.device.type == "cuda")
        self.rewarm, self.multiplier = recipe.data.loader.rewarm(), 0.0
        self.dev = Dev(text)
        nll = self.model.nll
        self.nll = torch.compile(nll, dynamic=False, fullgraph=True) if recipe.machine.compile else nll
        self.queued: deque[torch.cuda.Event] = deque()
        self.bad_step = torch.full((), -1, device=world.device)
        self.step_seconds = 0.0
        self.loss, self.checks = math.nan, DevChecks(recipe.data.dev_checks)

    def step(self, progress: Progress) -> torch.Tensor:
        """One optimiser step on the global batch. Returns this rank's share of its mean loss, nats per token, scalar."""
        schedule = self.recipe.schedule
        self.multiplier = multiplier = schedule.lr(progress) * self.rewarm(progress)
        self.model.set_looping(schedule.looping(progress))
        micros = self._micros(progress.fraction)
        self.qat.update(schedule.qat(progress), progress.fraction, lambda: self.nll(*micros[0]))
        loss = self._accumulate(micros)
        norm = self.optimizer.step(multiplier, schedule.momentum(progress.step), self.qat.regularise)
        self._note_finite(norm, progress.step)
        self.model.zero_grad()
        self.averager.update(progress.step, multiplier)
        self._wait()
        return loss

    def _micros(self, fraction: float) -> list[tuple]:
        """Inputs and targets (B, T) of this rank's micro-batches, and the pieces inside which attention stays at this `fraction`
        of the clock (None: it does not keep to documents). Tokens travel as uint16 and are widened on the device."""
        rows, size = self.loader.next(), self.recipe.micro_sequences
        ids = rows.to(self.world.device, non_blocking=True).long()
        micro, windows = self.recipe.data.loader.micro_batch, self.windows
        return [micro(windows, *both, fraction) for both in zip(rows.split(size), ids.split(size), strict=True)]

    def _accumulate(self, micros: list[tuple]) -> torch.Tensor:
        """Gradients of this rank's part of the global batch, whose sum over ranks is the gradient of its mean loss."""
        loss = torch.zeros((), device=self.world.device)
        for micro in micros:
            part = self.nll(*micro).sum() / self.recipe.data.batch_tokens
            part.backward()
            loss += part.detach()
        return loss

    def _note_finite(self, norm: torch.Tensor, step: int) -> None:
        """Remember the first step whose gradient was not finite; the optimiser has moved nothing since."""
        first = (self.bad_step < 0) & ~norm.isfinite()
        self.bad_step = torch.where(first, step, self.bad_step)

    def _wait(self) -> None:
        """Let the host be two steps ahead of a GPU and no more, so that the clock tells what has been done."""
        if self.world.device.type == "cuda":
            self.queued.append(torch.cuda.Event())
            self.queued[-1].record()
            if len(self.queued) > 2:
                self.queued.popleft().synchronize()

    def require_finite(self, folder: Path) -> None:
        """Stop, with the last good weights in `folder`, if a gradient was not finite. Waits for the device."""
        step = int(self.bad_step)
        if step >= 0:
            name, size = self.optimizer.worst_gradient()
            kept = folder / "last_good.pt"
            if self.world.main:
                torch.save(self.model.state_dict(), kept)
            raise UserError(
                f"the gradient stopped being finite at step {step}: the largest, of {name}, has norm {size}. {kept} has the"
                " weights from before. Lower optim.*.lr or optim.clip_norm may help."
            )

    def warm_up(self, budget: int) -> Reserve:
        """Run and undo `schedule.warmup_steps` steps of each kind that there will be, so that the clock meets no first
        time; measure the last of them, and the sealing of `budget` bytes."""
        before = copy.deepcopy(self._state())
        for progress in stages(self.recipe):
            for _ in range(self.recipe.schedule.warmup_steps):
                began = time.monotonic()
                self.step(progress).item()  # waits for the device
                self.step_seconds = time.monotonic() - began
        reserve = Reserve.measured(self, budget)
        self._restore(before)
        return reserve

    def _state(self) -> dict:
        parts = {"model": self.model, "optimizer": self.optimizer, "averager": self.averager, "loader": self.loader}
        return {name: part.state_dict() for name, part in parts.items()}

    def _restore(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.averager.load_state_dict(state["averager"])
        self.loader.load_state_dict(state["loader"])
        self.qat.reset()
        self.rewarm = self.recipe.data.loader.rewarm()
        self.bad_step.fill_(-1)

    def dev_bpb(self) -> float:
        """Bits per byte of the held-out slice of training text with the present weights; the same on every rank."""
        return self.dev.bpb(self.model, self.world, self.recipe.micro_sequences)


def rows_of(recipe: Recipe, world: World) -> np.ndarray:
    """The rows of a global batch that fall to a rank: ranks take turns, a micro-batch each."""
    rows = np.arange(recipe.batch_sequences).reshape(recipe.accumulation, world.size, recipe.micro_sequences)
    return rows[:, world.rank].reshape(-1)


def stages(recipe: Recipe) -> list[Progress]:
    """A step of each kind, by the clock: with and without recurrence, if the model has any, for each longest piece of a document,
    which are graphs of their own; and, where QAT comes on later, with it."""
    schedule, cut, recurrent = recipe.schedule, recipe.data.loader.cut, recipe.model.recurrent
    middle = [Progress(1, i / 1000, 1.0) for i in range(1000)]
    kinds = {(recurrent and schedule.looping(now), cut(now.fraction)): now for now in (*reversed(middle), END, START)}
    found = {*kinds.values(), END} if schedule.qat(END) != schedule.qat(START) else kinds.values()
    return sorted(found, key=lambda now: now.fraction)


def fit(trainer: Trainer, rule: StoppingRule, clock: Clock, events: Events, folder: Path) -> int:
    """Steps until the stopping rule says so. Returns their number; `trainer.loss` is the last that was logged, nats per token.

    Now and then it sees whether all is finite, the loss, dev_bpb, and whether the text has come to its end.
    """
    recipe, step, epoch = trainer.recipe, rule.first, trainer.loader.epoch
    while (progress := rule.progress(step)).elapsed < progress.total:
        share = trainer.step(progress)
        step += 1
        lr, rate = trainer.multiplier, step * recipe.data.batch_tokens / clock.elapsed
        logged, checked = step == 1 or step % LOG_INTERVAL == 0, trainer.checks.due(progress)
        if logged or checked:
            trainer.require_finite(folder)
        if logged:
            trainer.world.sum_(share)  # and waits for the device
            trainer.loss = share.item()
            momentum, seconds = recipe.schedule.momentum(progress.step), round(clock.elapsed, 3)
            numbers = {"lr": lr, "momentum": momentum, "seconds": seconds, "tokens_per_second": round(rate)}
            events.write("step", step=step, loss=trainer.loss, **numbers)
        if checked:
            began = time.monotonic()
            bpb = trainer.dev_bpb()
            took = round(time.monotonic() - began, 3)
            events.write("dev", step=step, dev_bpb=bpb, seconds=round(clock.elapsed, 3), took=took)
        if trainer.loader.epoch > epoch:
            epoch = trainer.loader.epoch
            events.write("epoch", step=step, epoch=epoch + 1)
        text = f"step {step}  loss {trainer.loss:.3f}  lr x{lr:.3f}  {rate:,.0f} tokens/s  {clock}"
        events.progress("train", progress.elapsed / progress.total, text, rate)
    trainer.require_finite(folder)
    return step


class DevChecks:
    """When to look at dev_bpb: `count` times, equally spaced over training, the first after one share of it."""

    def __init__(self, count: int):
        self.count, self.made = count, 0

    def due(self, progress: Progress) -> bool:
        """Whether a check is due at this point of the training."""
        due = int(progress.elapsed / progress.total * (self.count + 1)) > self.made
        self.made += due
        return due and self.made <= self.count
