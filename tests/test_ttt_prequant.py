"""Training on the test before it is sealed: only under limits=study, said in log and record, and never submitted."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pgolf.audit.run import audit_run
from pgolf.errors import ConfigError
from pgolf.machine.world import World
from pgolf.ttt import NoTTT, PrequantAdamW
from pgolf.ttt.prequant import ValidationFinetuning, rate, void_fraction
from tests.command import TINY, only, run
from tests.goldens.judging import IDS, model
from tests.ranks import run_ranks

BASE = dict(
    chunk_tokens=256,
    epochs=3,
    lr=1e-3,
    final_lr=1e-4,
    betas=(0.9, 0.999),
    weight_decay=0.0,
    batch_sequences=4,
    micro_sequences=2,
    sequence_length=64,
    clip=1.0,
)


def crammed(world, **changes):
    net, said = model(), []
    finetuning = ValidationFinetuning(
        PrequantAdamW(**BASE | changes), SimpleNamespace(tokens=600, read=lambda: IDS[:600])
    )
    receipts = finetuning.finetune(net, world, said.append)
    return net.blocks[0].mlp.up.weight.detach().numpy(), [r.value for r in receipts], said


def test_it_memorises_and_says_so():
    weight, values, said = crammed(World.alone())
    assert "STUDY ONLY" in said[0]
    assert "600 validation tokens" in said[0]
    nats = [float(line.split()[-5]) for line in said[1:]]
    assert nats == sorted(nats, reverse=True)
    assert nats[-1] < nats[0] - 0.05
    assert values[0] > 0
    np.testing.assert_array_equal(weight, crammed(World.alone())[0])


def test_ranks_learn_the_same():
    weight, values, _ = crammed(World.alone())
    for each in run_ranks(crammed, 2):
        np.testing.assert_allclose(each[0], weight, atol=1e-4)
        assert each[1] == pytest.approx(values, rel=1e-3)


def test_the_rate_goes_down_by_epochs():
    spec = PrequantAdamW(**BASE)
    assert [rate(spec, e) for e in range(3)] == pytest.approx([1e-3, 5.5e-4, 1e-4])


def test_the_void_fraction_of_a_gaussian_says_nothing():
    g = torch.Generator().manual_seed(0)
    assert void_fraction([torch.randn(300, 300, generator=g)]) == pytest.approx(0.575, abs=0.005)
    lumpy = torch.zeros(40, 40)
    lumpy[0] = 4.0
    assert void_fraction([lumpy, torch.randn(9), torch.ones(3, 3)]) == 39 / 40


def test_only_the_study_option_hands_the_text_to_training():
    assert NoTTT(chunk_tokens=1).finetuning("text") is None
    assert PrequantAdamW(**BASE).finetuning("text").text == "text"
    with pytest.raises(ConfigError, match=r"ttt.final_lr=0.5: must be between 0 and ttt.lr \(0.001\)"):
        PrequantAdamW(**BASE | dict(final_lr=0.5))


WORDS = [w for w in TINY if not w.startswith("ttt.")]
STUDY = ("ttt=prequant_adamw", "ttt.epochs=2", "ttt.sequence_length=128", "ttt.chunk_tokens=4096")


@pytest.fixture(scope="module")
def studied(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("studied")
    words = [*STUDY, "limits.train_steps=3", "ttt.batch_sequences=32", *WORDS]
    assert "needs limits=study; try ttt=sgd_score_first" in run(place, *words, code=2).stderr
    run(place, "-m", "seed=1", "limits=study", *words)
    return only(place, "sweeps/*")


@pytest.mark.slow
def test_a_study_is_recorded_as_one_and_refused_by_the_submission_writer(studied):
    folder = only(studied, "*_seed*")
    record = json.loads((folder / "record.json").read_text())
    assert record["verdict"] == "fail (C3)"
    assert record["train"]["validation_tokens"] == record["data"]["val_tokens"]
    assert "train on validation text" in record["train"]["phases"]
    assert "ttt.void_fraction" in {r["part"] for r in record["receipts"]}
    assert "STUDY ONLY" in (folder / "train.log").read_text()
    (arm,) = json.loads((studied / "summary.json").read_text())["arms"]
    assert not arm["submission"]["written"]
    assert "fail (C3)" in arm["submission"]["why"]


@pytest.mark.slow
def test_the_audit_names_it(studied, monkeypatch):
    monkeypatch.setattr("pgolf.audit.run.rescored", lambda case, seconds: [])
    found = audit_run(only(studied, "*_seed*"))
    assert [f.rule for f in found if f.verdict == "fail"] == ["C3"]
