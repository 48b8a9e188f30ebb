"""How the default recipe's steps, bits per byte and seconds grow, with the clock, ranks, the model's sizes and the stride.

Every clock is a whole run from the command line, one for each of `seeds=1337,42`, in a folder that is thrown away. Sizes are
those of a training step without its optimiser, strides those of judging a stretch of text. `picture=FILE.png` draws the rows.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from pgolf.bench.contest import Contest, DisagreementError, Setting, row
from pgolf.bench.step import NARROW, accumulated
from pgolf.config.compose import register_experiments, rehearse
from pgolf.errors import UserError
from pgolf.eval.windows import SlidingPlan
from pgolf.model import GPT

CLOCK, STEP, JUDGE = "the default run by limits.train_seconds", "a training step by", "judging by eval.stride"
# What makes the runs of size=small short: a test's, whose figures say nothing.
SMALL = (
    *NARROW,
    *("data.batch_tokens=1024", "data.sequence_length=128", "data.dev_tokens=4096", "data.val_fraction=0.0025"),
    *("eval.context=128", "eval.stride=64", "quant.solver.calibration_sequences=8", "ttt=none"),
)


def contests(setting: Setting) -> "Iterator[Contest | Runs]":
    """Runs under growing clocks, steps of growing models, judging with growing strides."""
    for ranks in setting.pick((1,), (1, 2), (1, 2)):
        yield Runs(setting.pick((6,), (15, 30, 60), (15, 30, 60, 120, 240)), ranks, setting.pick(SMALL, (), ()))
    register_experiments()
    (job,) = rehearse([], sweep=False)
    model, length = job.recipe.model, setting.pick(32, 256, 256)
    tokens = setting.pick(64, 2048, 2048)
    for dimension, models in sizes(model, setting).items():
        yield steps(dimension, models, tokens, length)
    contexts = setting.pick((16, 32), (64, 128, 256, 512), (64, 128, 256, 512, 1024))
    yield by_context(model, tokens, contexts)
    yield strides(
        model, setting.pick(256, 8192, 32768), length, setting.pick((16, 32), (32, 64, 128), (16, 32, 64, 128))
    )


@dataclass(frozen=True)
class Runs:
    """The default run under each clock of `seconds`, on so many ranks, with `words`: a row for each."""

    seconds: Sequence[float]
    ranks: int
    words: Sequence[str]

    def run(self, setting: Setting) -> list[dict[str, Any]]:
        """Every clock for every seed. Raises UserError with what a run said that failed."""
        rows = []
        for seconds in self.seconds:
            records = [self.record(seconds, seed) for seed in setting.seeds]
            numbers = {
                "seconds": mean(r["train"]["seconds"] for r in records),
                "steps": mean(r["train"]["steps"] for r in records),
                "val_bpb": mean(r["evaluate"]["val_bpb"] for r in records),
                "eval_seconds": mean(r["evaluate"]["seconds"] for r in records),
            }
            taken = [r["train"]["seconds"] for r in records]
            rows.append(
                row(
                    f"{CLOCK}, {self.ranks} rank(s), {len(records)} seed(s)",
                    f"{seconds}",
                    taken,
                    (rows[0]["min_s"] if rows else min(taken)) / min(taken),
                    f"{numbers['steps']:.0f} steps, val_bpb {numbers['val_bpb']:.4f}, judged in"
                    f" {numbers['eval_seconds']:.1f} s",
                    "trained, sealed and judged inside the clocks",
                )
                | {"numbers": numbers}
            )
        return rows

    def record(self, seconds: float, seed: int) -> dict[str, Any]:
        """What a run leaves in its folder."""
        with tempfile.TemporaryDirectory() as folder:
            words = (f"seed={seed}", f"machine.ranks={self.ranks}", f"limits.train_seconds={seconds}", *self.words)
            command = [sys.executable, "-m", "pgolf.run", "--quiet", *words, f"hydra.run.dir={folder}/run"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise UserError(f"{' '.join(words)}: exit {done.returncode}: {done.stderr.strip().splitlines()[-1]}")
            record = json.loads((Path(folder) / "run/record.json").read_text())
        if record["verdict"] != "consistent":
            raise DisagreementError(f"{' '.join(words)}: {record['verdict']}")
        return record


def sizes(model: GPT, setting: Setting) -> dict[str, dict[int, GPT]]:
    """Growing models by what grows: the width with the MLP four times as wide, layers, the vocabulary."""
    heads = {width: max(1, width // 64) for width in setting.pick((32, 64), (64, 128, 256), (64, 128, 256, 512))}
    return {
        "model.width": {
            width: replace(model, width=width, embed_width=width, mlp_hidden=4 * width, heads=n, kv_heads=n)
            for width, n in heads.items()
        },
        "model.layers": {n: replace(model, layers=n) for n in setting.pick((2, 3), (2, 4, 8), (2, 4, 8, 16))},
        "model.vocab_size": {
            n: replace(model, vocab_size=n) for n in setting.pick((64, 128), (512, 1024, 4096), (512, 1024, 4096, 8192))
        },
    }


def steps(dimension: str, models: Mapping[int, GPT], tokens: int, length: int) -> Contest:
    """Forward and backward of `tokens` in sequences of `length`, one way for each model."""
    return grown(f"{STEP} {dimension}", {n: (model, length) for n, model in models.items()}, tokens)


def by_context(model: GPT, tokens: int, lengths: Sequence[int]) -> Contest:
    """The same of one model, the tokens in sequences of each of `lengths`."""
    return grown(f"{STEP} data.sequence_length", {length: (model, length) for length in lengths}, tokens)


def grown(name: str, cases: Mapping[int, tuple[GPT, int]], tokens: int) -> Contest:
    """A contest of what is not the same: nothing is compared but that every loss is finite."""
    ways, flops = {}, {}
    for n, (spec, length) in cases.items():
        model, B = spec.build(0, torch.device("cpu")), max(1, tokens // length)
        ids = torch.randint(spec.vocab_size, (B, length + 1), generator=torch.Generator().manual_seed(0))
        ways[f"{n}"] = lambda model=model, ids=ids: accumulated(model, model.nll, [ids])[:1]
        flops[f"{n}"] = spec.flops_per_token(length, False) * B * length
    return Contest(name, ways, finite, figures=lambda way, made: f"{flops[way] / 1e9:.2f} GFLOP")


def strides(model: GPT, targets: int, context: int, lengths: Sequence[int]) -> Contest:
    """Scoring `targets` with windows of `context` tokens that advance by each of `lengths`."""
    network = model.build(0, torch.device("cpu")).requires_grad_(False)
    tokens = torch.randint(model.vocab_size, (targets + 1,), generator=torch.Generator().manual_seed(0))

    def judged(stride: int) -> list[torch.Tensor]:
        plan, total = SlidingPlan(targets, context, stride, targets), torch.zeros(())
        for batch in plan.batches(0, 0, 1, 32):
            both = plan.windows(tokens, batch)
            total += network.nll(both[:, :-1], both[:, 1:], last=batch.last).sum()
        return [total]

    return Contest(f"{JUDGE}, {targets:,} targets", {f"{n}": lambda n=n: judged(n) for n in lengths}, finite)


def finite(made: Mapping[str, Sequence[torch.Tensor]]) -> str:
    """Raises DisagreementError."""
    for way, (loss, *_) in made.items():
        if not loss.isfinite():
            raise DisagreementError(f"{way}: the loss is {loss.item()}")
    return "every loss is finite"


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Bits per byte and steps against seconds for each number of ranks; milliseconds against each size and stride."""
    from matplotlib.figure import Figure

    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for told in rows:
        contest, at = told["contest"], float(told["way"])
        if numbers := told.get("numbers"):
            line = contest.removeprefix(f"{CLOCK}, ")
            for key in ("val_bpb", "steps"):
                panels.setdefault(f"{key} by seconds", {}).setdefault(line, []).append((at, numbers[key]))
        else:
            milliseconds = 1000 * told["median_s"]
            panels.setdefault(f"ms, {contest}", {}).setdefault("", []).append((at, milliseconds))
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    axes = figure.subplots(2, -(-len(panels) // 2), squeeze=False).flatten()
    for ax, (title, lines) in zip(axes, panels.items(), strict=False):
        for label, points in lines.items():
            ax.plot(*zip(*points, strict=True), "o-", label=label or None)
        ax.set(title=title, xscale="log")
        ax.title.set_size(9)
        xs = sorted({x for points in lines.values() for x, _ in points})
        ax.set_xticks(xs, [f"{x:g}" for x in xs])
        ax.minorticks_off()
        ax.set_ylim(bottom=None if "val_bpb" in title else 0)
        if any(lines):
            ax.legend(fontsize=8)
    for ax in axes[len(panels) :]:
        ax.remove()
    figure.savefig(path, dpi=100)
