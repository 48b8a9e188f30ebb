"""Nothing in a training step waits for the device: fake tensors have no values, so reading one raises."""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from pgolf.config.compose import rehearse
from pgolf.machine.world import World
from pgolf.schedule import END, START
from pgolf.stages.train import Trainer
from tests.command import TINY, environment
from tests.test_compiled import DOCUMENTS, LOOP

SWITCHED = ("limits.train_steps=10", "machine.micro_batch_tokens=512")
PARTS = {
    "documents": DOCUMENTS,
    "qat": ("qat=ste", "schedule.qat_below=2"),
    "crownq": ("qat=crownq", "schedule.qat_below=2", LOOP, "schedule.loop_at=0.5"),
    "averages": ("average=blend", "optim=muoneq_r"),
    "clipless": ("average=swa", "optim.clip_norm=null", "optim=muon_baseline"),
}


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    monkeypatch.setenv("PGOLF_CACHE", environment()["PGOLF_CACHE"])


def recipe(*words: str):
    torch.set_num_threads(1)
    return rehearse([*TINY, *words], sweep=False)[0].recipe


@pytest.fixture(scope="module")
def text():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGOLF_CACHE", environment()["PGOLF_CACHE"])
        return recipe().data.prepare(lambda what, done: None).training


def fake_trainer(here, text, mode: FakeTensorMode, monkeypatch) -> Trainer:
    """A trainer of tensors without values; the batch, which the host reads, is drawn before."""
    trainer = Trainer(World.alone(), here, text)
    with trainer.loader:
        micros = trainer._micros(0.0)
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, device: module)  # fake weights cannot be moved in place
    with mode:
        faked = Trainer(World.alone(), here, text)
        faked.loader.close()
    for _, _, pieces in micros:
        if pieces:
            object.__setattr__(pieces, "bounds", mode.from_tensor(pieces.bounds))
    given = [(mode.from_tensor(x), mode.from_tensor(y), pieces) for x, y, pieces in micros]
    monkeypatch.setattr(faked, "_micros", lambda fraction: given)
    return faked


@pytest.mark.parametrize("part", PARTS)
def test_a_step_reads_no_value(part, text, monkeypatch):
    here, mode = recipe(*SWITCHED, *PARTS[part]), FakeTensorMode()
    trainer = fake_trainer(here, text, mode, monkeypatch)
    if part == "documents":  # as in a graph: piece by piece is for the host
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with mode:
        for progress in (START, END, END):
            loss = trainer.step(progress)
        with pytest.raises(DataDependentOutputException):
            loss.item()


def test_what_reads_a_value_is_found(text, monkeypatch):
    mode = FakeTensorMode()
    trainer = fake_trainer(recipe(*SWITCHED), text, mode, monkeypatch)
    inner = trainer.averager.update
    monkeypatch.setattr(trainer.averager, "update", lambda *args: (inner(*args), float(trainer.bad_step)))
    with mode, pytest.raises(DataDependentOutputException):
        trainer.step(START)
