"""The training stage, on every rank: tokens become weights, and weights the bytes of an artifact, on one clock.

Nothing here has a path to validation text: an `Exam`, which has, exists only under limits=study, and the record says so.
Choices and curves use `dev_bpb`, on a held-out slice of training text.
"""

import copy
import math
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pgolf.data import TrainingText
from pgolf.data.dev import Dev
from pgolf.data.prefetch import Prefetched
from pgolf.errors import UserError
from pgolf.journal import Journal, open_journal
from pgolf.limits.clock import Clock
from pgolf.limits.pace import Pace, pace_of
from pgolf.machine.world import World
from pgolf.model.pieces import Pieces
from pgolf.recipe import Recipe
from pgolf.schedule import END, START, Progress, Schedule
from pgolf.seal import Reserve, seal
from pgolf.views import receipt_text

if TYPE_CHECKING:
    from pgolf.ttt.prequant import Exam

# Steps between two looks at the loss and whether all is finite, which make the host wait for the device.
LOOK_EVERY = 10
LINE_EVERY = 50  # and between two lines of what is kept as an event at every look


def train(
    world: World, recipe: Recipe, text: TrainingText, exam: "Exam | None", code: int, folder: Path, terminal: bool
) -> dict:
    """Train, average, quantise and pack; writes `folder`/artifact.pgolf and returns the record's `train` and `artifact`.

    `code` is the size of the exported script, which shares the cap with the artifact.
    """
    budget = recipe.limits.artifact_bytes - code
    journal = open_journal(world, folder, recipe.logger, terminal)
    journal.event("stage", stage="train")
    trainer = Trainer(world, recipe, text)
    with trainer.loader:
        reserve = trainer.warm_up(budget)
        journal.line(f"warm-up done and undone; {reserve.seconds:.1f} s kept for quantising and packing")
        clock = Clock(recipe.limits.train_seconds)
        clock.start()
        pace = pace_of(recipe.limits, clock, reserve.seconds, world)
        with clock.phase("steps"):
            steps, loss = fit(trainer, pace, clock, journal, folder)
    with journal.screen.bar("seal") as bar:
        bar.update(0.0, f"average, calibrate, quantise, pack  {used(clock)}")
        sealed = seal(trainer, exam, budget, clock, reserve, journal, folder / "artifact.pgolf")
    receipts = [asdict(r) for r in sealed.receipts]
    for receipt in receipts:
        journal.screen.line(f"receipt {receipt_text(receipt)}")
    return {
        "train": {
            "steps": steps,
            "tokens": steps * recipe.data.batch_tokens,
            "seconds": clock.elapsed,
            "phases": clock.phases,
            "parameters": sum(p.numel() for p in trainer.model.parameters()),
            "train_loss": loss,
            "dev_bpb": sealed.dev_bpb,
            "stopped_by": pace.stopped_by,
            "validation_tokens": exam.tokens if exam else 0,
        },
        "artifact": sealed.artifact,
        "receipts": receipts,
    }


class Trainer:
    """The moving parts of training on one rank, built from the recipe."""

    def __init__(self, world: World, recipe: Recipe, text: TrainingText):
        self.world, self.recipe = world, recipe
        self.model = recipe.model.build(recipe.seed.model, world.device)
        self.qat = recipe.qat.build(self.model, recipe.quant)
        self.optimizer = recipe.optim.build(self.model, world)
        self.averager = recipe.average.build(self.model)
        self.windows = text.windows()
        batches = recipe.data.loader.build(self.windows, recipe.batch_sequences, recipe.seed.loader)
        self.loader = Prefetched(batches, rows_of(recipe, world), pin=world.device.type == "cuda")
        self.dev = Dev(text)
        self.nll = torch.compile(self.model.nll, dynamic=False) if recipe.machine.compile else self.model.nll
        self.queued: deque[torch.cuda.Event] = deque()
        self.bad_step = torch.full((), -1, device=world.device)

    def step(self, progress: Progress) -> torch.Tensor:
        """One optimiser step on the global batch. Returns this rank's share of its mean loss, nats per token, scalar."""
        schedule = self.recipe.schedule
        multiplier = schedule.lr(progress)
        self.model.set_looping(schedule.looping(progress))
        micros = self._micros(progress.fraction)
        self.qat.update(schedule.qat(progress), progress.fraction, lambda: self.nll(*micros[0]))
        loss = self._accumulate(micros)
        norm = self.optimizer.step(multiplier, schedule.momentum(progress.step), self.qat.regularise)
        self._note_finite(norm, progress.step)
        self.optimizer.zero_grad()
        self.averager.update(progress.step, multiplier)
        self._wait()
        return loss

    def _micros(self, fraction: float) -> list[tuple]:
        """Inputs and targets (B, T) of this rank's micro-batches, and the pieces inside which attention stays at this `fraction`
        of the clock (None: it does not keep to documents). Tokens travel as uint16 and are widened on the device."""
        rows, size = self.loader.next(), self.recipe.micro_sequences
        ids = rows.to(self.world.device, non_blocking=True).long()
        pieces = [self._pieces(part, fraction) for part in rows[:, :-1].split(size)]
        return [(part[:, :-1], part[:, 1:], inside) for part, inside in zip(ids.split(size), pieces, strict=True)]

    def _pieces(self, rows: torch.Tensor, fraction: float) -> Pieces | None:
        found = self.recipe.data.loader.bounds(self.windows, rows.numpy(), fraction)
        return found and Pieces(torch.from_numpy(found[0]).to(self.world.device, non_blocking=True), found[1])

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
                f"the gradient stopped being finite at step {step}: the largest, of {name}, has norm {size}. The weights from"
                f" before that step are in {kept}. Lower learning rates (optim.*.lr) or a clip (optim.clip_norm) may help."
            )

    def warm_up(self, budget: int) -> Reserve:
        """Run and undo `schedule.warmup_steps` steps of each kind that there will be, so that the clock meets no first
        time; measure the sealing of `budget` bytes."""
        before = copy.deepcopy(self._state())
        for progress in stages(self.recipe.schedule):
            for _ in range(self.recipe.schedule.warmup_steps):
                self.step(progress)
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
        self.bad_step.fill_(-1)

    def dev_bpb(self) -> float:
        """Bits per byte of the held-out slice of training text with the present weights; the same on every rank."""
        return self.dev.bpb(self.model, self.world, self.recipe.micro_sequences)


def rows_of(recipe: Recipe, world: World) -> np.ndarray:
    """The rows of a global batch that fall to a rank: ranks take turns, a micro-batch each."""
    rows = np.arange(recipe.batch_sequences).reshape(recipe.accumulation, world.size, recipe.micro_sequences)
    return rows[:, world.rank].reshape(-1)


def stages(schedule: Schedule) -> list[Progress]:
    """A step of each kind: as at the start and, where recurrence or QAT come on later, as at the end."""
    kinds = {(schedule.looping(progress), schedule.qat(progress)): progress for progress in (END, START)}
    return list(reversed(kinds.values()))


def fit(trainer: Trainer, pace: Pace, clock: Clock, journal: Journal, folder: Path) -> tuple[int, float]:
    """Steps until the pace says so. Returns their number and the last loss that was looked at, nats per token."""
    watch, step = Watch(trainer, clock, journal, folder), 0
    with journal.screen.bar("train", trainer.recipe) as bar:
        while (progress := pace.progress(step)).elapsed < progress.total:
            watch.after(progress, trainer.step(progress))
            step += 1
            rate = step * trainer.recipe.data.batch_tokens / clock.elapsed
            text = f"step {step}  loss {watch.loss:.3f}  lr x{trainer.recipe.schedule.lr(progress):.3f}  {rate:,.0f} tokens/s"
            bar.update(progress.elapsed / progress.total, f"{text}  {used(clock)}", rate)
    trainer.require_finite(folder)
    return step, watch.loss


def used(clock: Clock) -> str:
    return f"{clock.elapsed:.0f} s used, {clock.left:.0f} s left"


class Watch:
    """What is looked at now and then: whether all is finite, the loss, dev_bpb, and whether the text has come to its end."""

    def __init__(self, trainer: Trainer, clock: Clock, journal: Journal, folder: Path):
        self.trainer, self.clock, self.journal, self.folder = trainer, clock, journal, folder
        self.checks = DevChecks(trainer.recipe.data.dev_checks)
        self.loss, self.epoch = math.nan, 0

    def after(self, progress: Progress, share: torch.Tensor) -> None:
        """`share` is this rank's part of the loss of the step that `progress` came before."""
        step = progress.step + 1
        looked, checked = step == 1 or step % LOOK_EVERY == 0, self.checks.due(progress)
        if looked or checked:
            self.trainer.require_finite(self.folder)
        if looked:
            self.loss = global_loss(self.trainer.world, share)
            report(self.trainer, self.journal, progress, self.loss, self.clock)
        if checked:
            show_dev(self.trainer, self.journal, step, self.clock)
        if self.trainer.loader.epoch > self.epoch:
            self.epoch = self.trainer.loader.epoch
            self.journal.line(f"step {step}  the training text has come to its end; pass {self.epoch + 1} begins")


def global_loss(world: World, share: torch.Tensor) -> float:
    """The sum over ranks of their shares. Waits for the device."""
    total = share.clone()
    world.sum_(total)
    return total.item()


def report(trainer: Trainer, journal: Journal, progress: Progress, loss: float, clock: Clock) -> None:
    """Keep the global mean loss of a step, and now and then say it."""
    step = progress.step + 1
    rate = step * trainer.recipe.data.batch_tokens / clock.elapsed
    schedule, seconds = trainer.recipe.schedule, round(clock.elapsed, 3)
    lr, momentum, speed = schedule.lr(progress), schedule.momentum(progress.step), round(rate)
    journal.event("step", step=step, loss=loss, lr=lr, momentum=momentum, seconds=seconds, tokens_per_second=speed)
    if step == 1 or step % LINE_EVERY == 0:
        journal.line(f"step {step}  loss {loss:.4f}  lr x{lr:.3f}  {rate:,.0f} tokens/s  {clock.elapsed:.1f} s")


class DevChecks:
    """When to look at dev_bpb: `count` times, equally spaced over training, the first after one share of it."""

    def __init__(self, count: int):
        self.count, self.made = count, 0

    def due(self, progress: Progress) -> bool:
        due = int(progress.elapsed / progress.total * (self.count + 1)) > self.made
        self.made += due
        return due and self.made <= self.count


def show_dev(trainer: Trainer, journal: Journal, step: int, clock: Clock) -> None:
    began = time.monotonic()
    bpb = trainer.dev_bpb()
    journal.event("dev", step=step, dev_bpb=bpb, seconds=round(clock.elapsed, 3))
    journal.line(f"step {step}  dev_bpb {bpb:.4f}  ({time.monotonic() - began:.2f} s)")
