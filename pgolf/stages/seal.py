"""From trained weights to a sealed artifact: average, calibrate, quantise, pack, all on the training clock.

It is stopped when the file is written. How good the weights were on the way is looked at afterwards: nothing depends on it.
"""

import hashlib
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf.files import write_bytes
from pgolf.files.events import Events
from pgolf.files.frozen import freeze
from pgolf.files.names import ARTIFACT
from pgolf.files.receipts import Receipt
from pgolf.limits.clock import Clock
from pgolf.model.weights import copies, score_with
from pgolf.quant.apply import Quantized
from pgolf.quant.calibration import CalibrationContext
from pgolf.quant.hessian import Hessians, collect_hessians
from pgolf.quant.tensors import load_quantized
from pgolf.stages.artifact import pack, read_index, unpack

if TYPE_CHECKING:
    from pgolf.stages.train import Trainer, Training

SAFETY = 1.2  # the reserve is this many times what the rehearsal took, and
SLACK = 0.4  # seconds more, and all of that as many times as steps have become slower since, beyond
SLOWER = 1.2


@dataclass(frozen=True)
class Reserve:
    """Seconds to keep for sealing: `seconds` in all, of which `finish` come after calibration text has been read. A step took
    `step` when they were measured (infinity: they were not, and stay)."""

    seconds: float
    finish: float
    step: float = math.inf

    @classmethod
    def measured(cls, trainer: "Trainer", budget: int) -> "Reserve":
        """Rehearse on the present weights, unless the limits state a reserve, or steps instead of a clock."""
        limits = trainer.recipe.limits
        if limits.train_steps is not None:
            return cls(0.0, 0.0)
        if limits.reserve_seconds is not None:
            return cls(limits.reserve_seconds, limits.reserve_seconds / 2)
        began = time.monotonic()
        hessians = calibrate(trainer, lambda: False)
        read = time.monotonic() - began
        if looks := trainer.recipe.average.evaluations:  # to choose between averages
            trainer.dev_bpb()
        look = time.monotonic() - began - read
        finish = _packing_seconds(trainer, hessians, budget) if trainer.world.main else 0.0
        agreed = trainer.world.agree
        whole, step = SAFETY * (looks * look + read + finish), trainer.step_seconds or math.inf
        return cls(agreed(SLACK + whole), agreed(SLACK + SAFETY * finish), agreed(step))

    def where_steps_take(self, step: float) -> "Reserve":
        """What it has to be on a machine that has become slower: sealing takes longer, too."""
        times = max(1.0, step / (SLOWER * self.step))
        return Reserve(self.seconds * times, self.finish * times, self.step)


def _packing_seconds(trainer: "Trainer", hessians: Hessians, budget: int) -> float:
    """What `compress` takes, counted as if it packed as often as it may."""
    for p in trainer.model.parameters():  # zeros, which training fills, would take the encoder three times as long
        p.data.normal_()
    began = time.monotonic()
    packed = compress(trainer, hessians, budget)
    return (time.monotonic() - began) * trainer.recipe.quant.encodings / packed.encodings


@dataclass(frozen=True)
class Sealed:
    """What sealing leaves: the record's `artifact` section, dev_bpb along the way, and receipts."""

    artifact: dict
    dev_bpb: dict[str, float]
    receipts: list[Receipt]


def seal(trainer: "Trainer", training: "Training", clock: Clock, reserve: Reserve, events: Events) -> Sealed:
    """Write the artifact to `training.folder` and return what it is made of, on every rank.

    Rank 0 alone quantises and packs; every rank reads the file. Encoders on all ranks would only share the cores.
    """
    finetuning, path = training.finetuning, training.folder / ARTIFACT
    events.progress("seal", 0.0, f"average, calibrate, quantise, pack  {clock}")
    trainer.model.set_looping(True)
    trainer.qat.set(False)
    weights = list(trainer.model.parameters())
    kept = {"raw": copies(weights)}
    with clock.phase("average"):
        receipts = trainer.averager.finish(trainer.model, trainer.dev_bpb)
    kept["averaged"] = copies(weights)
    if finetuning is not None:
        with clock.phase("train on validation text"):
            receipts = [
                *receipts,
                *finetuning.finetune(trainer.model, trainer.world, lambda text: events.write("notice", text=text)),
            ]
    with clock.phase("calibrate"):
        hessians = calibrate(trainer, _deadline(trainer, clock, reserve))
    with clock.phase("quantize and pack"):
        if trainer.world.main:
            packed = compress(trainer, hessians, training.budget)
            write_bytes(path, packed.data)
        trainer.world.barrier()
    clock.stop()
    if not trainer.world.main:
        packed = Packed.read(path)
    dev = {name: score_with(values, weights, trainer.dev_bpb) for name, values in kept.items()}
    load_quantized(trainer.model, unpack(packed.data)[0])
    dev["quantized"] = trainer.dev_bpb()
    gap, seconds = dev["quantized"] - dev["averaged"], round(clock.elapsed, 3)
    events.write("sealed", dev_bpb=dev, gap=gap, bytes=len(packed.data), seconds=seconds)
    return Sealed(packed.section(), dev, [*trainer.qat.receipts(), *receipts, *packed.quantized.receipts])


def _deadline(trainer: "Trainer", clock: Clock, reserve: Reserve) -> Callable[[], bool]:
    """Says when this rank must stop calibrating, for the rest to fit the clock."""
    if trainer.recipe.limits.train_steps is not None:
        return lambda: False
    return lambda: clock.left < reserve.finish


def calibrate(trainer: "Trainer", late: Callable[[], bool]) -> Hessians:
    """Hessians of the layers' inputs over the solver's sequences, shared out over ranks; of one batch at the least."""
    recipe, calls = trainer.recipe, itertools.count()
    wanted = recipe.quant.calibration
    if wanted is None:
        return Hessians({}, 0, 0)
    context = CalibrationContext(
        trainer.model, trainer.windows, trainer.world, wanted.sequences, recipe.micro_sequences, recipe.seed.loader
    )
    batches = wanted.source.batches(context, late)
    return collect_hessians(trainer.model, batches, trainer.world, lambda: next(calls) > 0 and late())


@dataclass(frozen=True)
class Packed:
    """The artifact's bytes with what was quantised into them."""

    data: bytes
    quantized: Quantized

    @classmethod
    def read(cls, path: Path) -> "Packed":
        """What another rank packed, without its report."""
        data = path.read_bytes()
        return cls(data, Quantized(unpack(data)[0]))

    @property
    def encodings(self) -> int:
        """How often the file was packed until it was as large as it should be."""
        fit = self.quantized.fit
        return 1 if fit is None else fit["encodings"]

    def section(self) -> dict:
        """The record's `artifact` section."""
        streams, _, overhead = read_index(self.data)
        groups, tensors = {"overhead": overhead}, {}
        for stream in streams:
            groups[stream.section] = groups.get(stream.section, 0) + stream.length
            tensors[stream.tensor] = tensors.get(stream.tensor, 0) + stream.length
        weights = sum(t.shape.numel() for t in self.quantized.tensors.values())
        return {
            "sha256": hashlib.sha256(self.data).hexdigest(),
            "bytes": len(self.data),
            "bits_per_weight": 8 * len(self.data) / weights,
            "fit": self.quantized.fit,
            "groups": groups,
            "tensors": tensors,
            "layers": self.quantized.report,
        }


def compress(trainer: "Trainer", hessians: Hessians, budget: int) -> Packed:
    """Quantise and pack the present weights."""
    recipe = trainer.recipe
    model = freeze(recipe.model)

    def packed(result: Quantized) -> bytes:
        return pack(result.tensors, {"model": model}, recipe.codec, result.sections)

    result, data = recipe.quant.compress(trainer.model, hessians, packed, budget)
    return Packed(data, result)
