"""Sealing: what is weighed is what is loaded, the budget reaches the fit, the rehearsal counts every encoding allowed."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pgolf.data import TrainingText
from pgolf.data.windows import Windows
from pgolf.limits import Limits
from pgolf.machine.world import World
from pgolf.quant import Quant
from pgolf.quant.tensors import QTensor, dequantize
from pgolf.stages import seal
from pgolf.stages.artifact import unpack
from tests.options import option
from tests.test_quant import tiny

torch.set_num_threads(1)
LIMITS = {"train_seconds": 60.0, "eval_seconds": 60.0, "artifact_bytes": 10**6, "train_steps": None}


def text() -> Windows:
    """4,000 tokens below 64, the model's vocabulary."""
    told = TrainingText("t", ("",), (4000,), 64, 32, 100, "")
    return Windows(told, [np.random.default_rng(0).integers(0, 64, 4000, dtype=np.uint16)])


def trainer(quant: Quant, **limits) -> SimpleNamespace:
    """What sealing needs of a Trainer, around the tests' tiny model."""
    model = tiny()
    recipe = SimpleNamespace(
        quant=quant,
        average=option("average/best"),
        codec=option("codec/range"),
        model=model.spec,
        limits=Limits(**(LIMITS | {"reserve_seconds": None, "study": False} | limits)),
        micro_sequences=2,
        seed=SimpleNamespace(loader=1),
    )
    parts = dict(world=World.alone(), windows=text(), dev_bpb=lambda: 2.0, step_seconds=0.0)
    return SimpleNamespace(model=model, recipe=recipe, **parts)


@pytest.fixture(scope="module")
def packed():
    made = trainer(option("quant/int8_gptq_to_cap", keep_below=512))
    return made, seal.compress(made, seal.calibrate(made, lambda: False), 400_000)


def test_the_section_adds_up_and_says_what_was_reached(packed):
    _, file = packed
    section = file.section()
    assert section["bytes"] == len(file.data) == sum(section["groups"].values())
    assert sum(section["tensors"].values()) == section["bytes"] - section["groups"]["overhead"]
    assert section["fit"]["target"] == 400_000
    assert 398_000 <= section["fit"]["reached"] == len(file.data) <= 400_000
    assert 1 <= file.encodings <= 4


def test_other_ranks_read_the_same_from_the_file(packed, tmp_path):
    _, file = packed
    path = tmp_path / "artifact.pgolf"
    path.write_bytes(file.data)
    read = seal.Packed.read(path)
    section, mine = read.section(), file.section()
    assert {key: section[key] for key in ("sha256", "bytes", "bits_per_weight", "groups")} == {
        key: mine[key] for key in ("sha256", "bytes", "bits_per_weight", "groups")
    }
    for name, stored in unpack(file.data)[0].items():
        assert torch.equal(dequantize(stored), dequantize(file.quantized.tensors[name]))


def test_corrections_are_counted_with_their_tensor():
    made = trainer(option("quant/int5_gptq_low_rank", bits=4, keep_below=512))
    file = seal.compress(made, seal.calibrate(made, lambda: False), 10**6)
    corrected = [n for n, t in file.quantized.tensors.items() if isinstance(t, QTensor) and t.extras]
    assert corrected
    assert file.section()["tensors"].keys() == file.quantized.tensors.keys()
    assert file.section()["fit"] is None


def test_the_rehearsal_counts_every_encoding_that_is_allowed(monkeypatch):
    made = trainer(option("quant/int8_gptq_to_cap", keep_below=512))
    now = iter([0.0, 10.0])
    monkeypatch.setattr(seal.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(seal, "compress", lambda *_: SimpleNamespace(data=b"", encodings=2))
    assert seal._packing_seconds(made, None, 10**5) == 10 * 4 / 2


def test_a_reserve_is_measured_stated_or_not_needed():
    quant = option("quant/int6_gptq", keep_below=512)
    measured = seal.Reserve.measured(trainer(quant), 10**6)
    assert 0 < measured.finish < measured.seconds
    assert measured.step == math.inf, "no step was taken before"
    stepped = trainer(quant)
    stepped.step_seconds = 0.5
    assert seal.Reserve.measured(stepped, 10**6).step == 0.5
    assert seal.Reserve.measured(trainer(quant, reserve_seconds=8.0), 10**6) == seal.Reserve(8.0, 4.0)
    assert seal.Reserve.measured(trainer(quant, train_steps=5), 10**6) == seal.Reserve(0.0, 0.0)


def test_calibration_reads_at_least_one_batch_and_stops_when_late():
    made = trainer(option("quant/int6_gptq", keep_below=512))
    late = seal.calibrate(made, lambda: True)
    assert (late.sequences, late.positions) == (2, 64)
    assert seal.calibrate(made, lambda: False).sequences == 64
    assert len(seal.calibrate(trainer(option("quant/int6_round")), lambda: False)) == 0
