"""Which of AWQ-lite, LQER and finer steps is worth its bytes: laptop models of three seeds, error and dev_bpb at equal size.

Each way is compared with the same storage at finer steps that come to as many bytes. Errors are tr(E H Eᵀ) / tr(W H Wᵀ),
mean of the quantised tensors; figures are means over the seeds ± their standard deviation (n − 1).
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from pgolf.bench.contest import Setting
from pgolf.config.compose import register_experiments, rehearse
from pgolf.files.frozen import freeze
from pgolf.machine.world import World
from pgolf.quant import Cap, LowRank, LqerPr1797
from pgolf.quant.apply import Quantized
from pgolf.quant.hessian import Hessians
from pgolf.quant.sections import Protect, Sections
from pgolf.quant.tensors import load_quantized
from pgolf.schedule import Progress
from pgolf.stages.artifact import pack
from pgolf.stages.seal import calibrate
from pgolf.stages.train import Trainer

if TYPE_CHECKING:
    from pgolf.recipe import Recipe

SEEDS = (1337, 42, 7)
WORDS = (
    "experiment=pr1855_record",
    "scale=laptop",
    "data.batch_tokens=1024",
    "data.dev_tokens=8192",
    "machine.threads=1",
)
WAYS = {
    "AWQ-lite": dict(protect=Protect(group=64, bits=8)),
    "LQER as published": dict(low_rank=LqerPr1797(rank=4, tensors=3, group=64)),
    "LQER weighted by H": dict(low_rank=LowRank(rank=4, tensors=3, left_bits=4, right_bits=2)),
}


@dataclass(frozen=True)
class Stored:
    """What one way of storing comes to."""

    bytes: int
    error: float
    dev_bpb: float


@dataclass(frozen=True)
class Subject:
    """A trained model, the inputs of its layers, and how it is asked for dev_bpb."""

    trainer: Trainer
    hessians: Hessians
    weights: dict[str, torch.Tensor]

    @classmethod
    def trained(cls, recipe: "Recipe") -> "Subject":
        """The averaged weights after `limits.train_steps` steps."""
        text = recipe.data.prepare(lambda stage, done: None).training
        trainer, steps = Trainer(World.alone(), recipe, text), recipe.limits.train_steps
        with trainer.loader:
            for step in range(steps):
                trainer.step(Progress(step, float(step), float(steps)))
        trainer.model.set_looping(True)
        trainer.averager.finish(trainer.model, trainer.dev_bpb)
        weights = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
        return cls(trainer, calibrate(trainer, lambda: False), weights)

    def packed(self, out: Quantized) -> bytes:
        """The file of the quantised model."""
        recipe = self.trainer.recipe
        return pack(out.tensors, {"model": freeze(recipe.model)}, recipe.codec, out.sections)

    def stored(self, quant: Sections, budget: int = 0) -> Stored:
        """By `quant`, which fills `budget` where it has a fit."""
        out, data = quant.compress(self.trainer.model, self.hessians, self.packed, budget)
        load_quantized(self.trainer.model, out.tensors)
        bpb = self.trainer.dev_bpb()
        load_quantized(self.trainer.model, self.weights)
        return Stored(len(data), statistics.mean(row.error for row in out.layers), bpb)


@dataclass(frozen=True)
class Study:
    """A contest of sizes and errors instead of times: every seed's model stored every way, once."""

    steps: int
    seeds: Sequence[int]

    def run(self, setting: Setting) -> list[dict[str, Any]]:
        """A row per way."""
        register_experiments()
        found: dict[str, list[tuple[Stored, Stored, Stored]]] = {way: [] for way in WAYS}
        spent = dict.fromkeys(WAYS, 0.0)
        for seed in self.seeds:
            (job,) = rehearse([*WORDS, f"limits.train_steps={self.steps}", f"seed.value={seed}"], sweep=False)
            subject = Subject.trained(job.recipe)
            plain = replace(job.recipe.quant, low_rank=None, fit=None)
            base = subject.stored(plain)
            for way, changes in WAYS.items():
                began = time.perf_counter()
                made = subject.stored(replace(plain, **changes))
                spent[way] += time.perf_counter() - began
                finer = replace(plain, fit=Cap(within=64, encodings=8))
                found[way].append((base, made, subject.stored(finer, made.bytes)))
        name = f"{len(self.seeds)} laptop models, {self.steps} steps of 1,024 tokens, k 13 / 11.5 / 14"
        return [self._row(name, way, rows, spent[way]) for way, rows in found.items()]

    def _row(self, name: str, way: str, rows: list[tuple[Stored, Stored, Stored]], seconds: float) -> dict[str, Any]:
        more = [made.bytes - base.bytes for base, made, _ in rows]
        ratios, finer = ([100 * (s[i].error / s[0].error - 1) for s in rows] for i in (1, 2))
        gains, others = ([1e4 * (s[i].dev_bpb - s[0].dev_bpb) for s in rows] for i in (1, 2))
        stated = (
            f"{spread(more, ',.0f')} bytes: error {spread(ratios, '+.2f')} %, finer steps {spread(finer, '+.2f')} %;"
            f" dev_bpb {spread(gains, '+.1f')}e-4, finer steps {spread(others, '+.1f')}e-4"
        )
        base = statistics.mean(s[0].bytes for s in rows)
        checked = f"without any of them {base:,.0f} bytes; finer steps fill the same bytes to 64"
        times = dict(min_s=seconds / len(rows), median_s=seconds / len(rows), times_faster=1.0, floor_s=None)
        return {"contest": name, "way": way, **times, "figures": stated, "check": checked}


def spread(values: list[float], form: str) -> str:
    """Mean ± standard deviation (n − 1)."""
    return f"{statistics.mean(values):{form}} ± {statistics.stdev(values):{form.replace('+', '')}}"


def contests(setting: Setting) -> Iterator[Study]:
    """Each way to spend bytes on a trained model, against finer steps of as many bytes."""
    yield Study(setting.pick(2, 60, 1000), SEEDS[: setting.pick(2, 3, 3)])
