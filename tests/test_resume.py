"""A training that was stopped goes on: to the bit, from whole checkpoints only, by its own words, and its record says so."""

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf.config.resume import resume_words
from pgolf.errors import UserError
from pgolf.files.checkpoints import checkpoints, made_whole, require_start, whole_checkpoint
from pgolf.machine.world import World
from pgolf.results.arguments import whole_verdict
from pgolf.results.attempts import owned
from pgolf.schedule import Progress
from pgolf.stages.train import Trainer
from pgolf.stages.trainer_state import numbers_of, put_back, read_tensors, tensors_of
from pgolf.stages.writer import Writer
from tests.command import TINY, record, run, start
from tests.processes import descendants, until, until_gone
from tests.sweeps import make_run

WORDS = (
    *TINY,
    "limits.train_steps=120",
    "ttt=none",
    "qat=crownq",
    "qat.weight=0.1",
    "average=ema",
    "data.dev_checks=4",
)
KEPT = (*WORDS, "checkpoint.every_seconds=0.01", "machine.micro_batch_tokens=256")
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nobody stopped."""
    place = tmp_path_factory.mktemp("whole")
    run(place, *WORDS, "machine.micro_batch_tokens=256", "hydra.run.dir=run")
    return place / "run"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A run that was told to stop between two of its steps, with two checkpoints."""
    place = tmp_path_factory.mktemp("stopped")
    running = start(place, *KEPT, "hydra.run.dir=run")
    until(lambda: len(checkpoints(place / "run")) == 2, "no two checkpoints")
    family = descendants(running.pid)
    running.send_signal(signal.SIGUSR1)
    _, said = running.communicate(timeout=1200)
    assert running.returncode == 75, said
    assert f"resume={place / 'run'} goes on with it" in said
    if sys.platform == "linux":
        until_gone(family)
    return place / "run"


@pytest.fixture
def copy(stopped, tmp_path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def test_a_request_ends_with_a_checkpoint_of_that_moment(stopped):
    kept = record(stopped)
    assert (kept["status"], kept["error"]) == ("interrupted", "stopped by SIGUSR1")
    assert kept["stopped"]["kept"]
    assert checkpoints(stopped)[0].name == f"step{kept['stopped']['step']:08d}"
    assert len(checkpoints(stopped)) == 2
    assert not list((stopped / "checkpoints").glob(".*")), "none is half"


def test_it_goes_on_to_the_bit(whole, copy):
    """In a copy at another place, with the same words from nowhere but its own folder."""
    done = run(copy.parent, f"resume={copy}")
    there, here = record(whole), record(copy)
    assert here["artifact"] == there["artifact"]
    assert here["receipts"] == there["receipts"]
    assert here["evaluate"]["val_bpb"] == there["evaluate"]["val_bpb"]
    same = ("steps", "tokens", "train_loss", "dev_bpb")
    assert [here["train"][key] for key in same] == [there["train"][key] for key in same]
    (one,) = here["interruptions"]
    assert (one["stage"], one["status"], one["why"]) == ("train", "interrupted", "stopped by SIGUSR1")
    assert one["from"] == f"step{one['stopped']['step']:08d}"
    assert here["verdict"] == "consistent", "steps count here, and no clock"
    log = (copy / "train.log").read_text().splitlines()
    assert any(line.startswith("taken up at the stage train") for line in log)
    assert log[-1].endswith(f"status=complete lines={len(log)}")
    assert done.stdout.splitlines()[-1].startswith("val_bpb=")


@pytest.mark.slow
def test_it_goes_on_within_rounding_on_more_ranks(whole, copy):
    run(copy.parent, f"resume={copy}", "machine.ranks=2")
    there, here = record(whole), record(copy)
    assert here["ranks"] == 2
    assert here["interruptions"][0]["ranks"] == 1
    assert here["train"]["dev_bpb"]["raw"] == pytest.approx(there["train"]["dev_bpb"]["raw"], rel=2e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("resume=HERE", "quant.bits=5"), "quant.bits=5: a run goes on with its own words"),
        (("resume=HERE", "seed=3"), "seed.value=3: a run goes on with its own words"),
        (("resume=nowhere",), "resume='nowhere': must be the folder of a run that was stopped"),
        (("-m", "resume=HERE"), "resume= goes on with one run"),
        (("resume=HERE", "machine.micro_batch_tokens=512"), "was begun with another code"),
    ],
)
def test_other_words_are_refused(copy, words, said):
    before = (copy / "record.json").read_bytes()
    refused = run(
        copy.parent, *(word.replace("HERE", str(copy)) for word in words), code=1 if "micro" in words[-1] else 2
    )
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (copy / "record.json").read_bytes() == before


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_one_before_offered_and_one_may_resume_at_a_time(copy, whole):
    last, before = checkpoints(copy)
    damaged = next(last.glob("*.distcp"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    refused = run(copy.parent, f"resume={copy}", code=1)
    assert f"{damaged}: has" in refused.stderr
    assert f"The one before is whole: resume={before}" in refused.stderr
    with owned(copy):
        assert "another process is at it" in run(copy.parent, f"resume={before}", code=2).stderr
    run(copy.parent, f"resume={before}")
    assert record(copy)["artifact"] == record(whole)["artifact"]


@pytest.mark.slow
def test_a_run_that_left_nothing_and_one_that_is_complete_are_not_resumed(whole, tmp_path):
    assert "this run is complete" in run(tmp_path, f"resume={whole}", code=2).stderr
    copy = Path(shutil.copytree(whole, tmp_path / "run"))
    (copy / "artifact.pgolf").unlink()
    (copy / "record.json").write_text(json.dumps(record(copy) | {"status": "failed", "artifact": None}))
    assert "left neither a sealed artifact nor a checkpoint" in run(tmp_path, f"resume={copy}", code=2).stderr


@pytest.mark.slow
@linux
def test_an_evaluation_that_was_killed_is_taken_up_with_the_same_number(whole, tmp_path):
    copy = Path(shutil.copytree(whole, tmp_path / "run"))
    made = record(copy)
    cut = {"status": "running", "evaluate": None, "verdict": None, "finished": None, "log_sha256": None}
    (copy / "record.json").write_text(json.dumps(made | cut))
    run(tmp_path, f"resume={copy}")
    again = record(copy)
    assert again["train"] == made["train"]
    assert again["evaluate"]["val_bpb"] == made["evaluate"]["val_bpb"]
    assert (again["verdict"], again["interruptions"][0]["stage"]) == ("consistent", "evaluate")


def test_where_a_clock_counts_a_resumed_training_needs_an_argument(tmp_path):
    made = record(make_run(tmp_path, "0", 1)) | {"interruptions": [{"stage": "train"}], "argument": None}
    made["train"]["validation_tokens"] = 0
    assert whole_verdict(made) == "needs argument (resumed)"
    assert whole_verdict(made | {"argument": "seeds added after results"}) == (
        "needs argument (resumed; seeds added after results)"
    )
    assert whole_verdict(made | {"interruptions": [{"stage": "evaluate"}]}) == "consistent"
    assert whole_verdict(made | {"limits": made["limits"] | {"train_steps": 5}}) == "consistent"
    assert whole_verdict(made | {"limits": made["limits"] | {"artifact_bytes": 1}}).startswith("fail (size")


def test_words_of_resume():
    assert resume_words(["resume=a=b", "machine.ranks=2"]) == ("a=b", ["machine.ranks=2"])
    assert resume_words(["quant=int6_gptq"]) == (None, ["quant=int6_gptq"])


# The parts, in this process.


def checkpoint_in(run: Path, step: int) -> Path:
    made = run / "checkpoints" / f".step{step:08d}"
    made.mkdir(parents=True)
    (made / "__0_0.distcp").write_bytes(bytes(range(200)))
    (made / ".metadata").write_bytes(b"meta")
    return made_whole(made, {"step": step, "ranks": 1, "code_sha256": "a" * 64, "config_sha256": "b" * 64})


def test_the_last_two_are_kept(tmp_path):
    for step in (5, 9, 12):
        checkpoint_in(tmp_path, step)
    assert [p.name for p in checkpoints(tmp_path)] == ["step00000012", "step00000009"]


@settings(max_examples=60)
@given(
    name=st.sampled_from(["__0_0.distcp", ".metadata", "checkpoint.json"]), at=st.integers(0, 10**6), cut=st.booleans()
)
def test_damage_at_any_byte_is_seen(tmp_path_factory, name, at, cut):
    folder = checkpoint_in(tmp_path_factory.mktemp("damaged"), 3)
    data = (folder / name).read_bytes()
    at %= len(data)
    (folder / name).write_bytes(data[:at] if cut else data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        whole_checkpoint(folder)


@pytest.mark.parametrize(
    ("code", "config", "said"), [("c" * 64, "b" * 64, "of another code"), ("a" * 64, "c" * 64, "of another config")]
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path, code, config, said):
    checkpoint_in(tmp_path, 3)
    assert require_start(tmp_path, "a" * 64, "b" * 64).name == "step00000003"
    with pytest.raises(UserError, match=said):
        require_start(tmp_path, code, config)


@pytest.mark.parametrize(
    "words",
    [
        ("average=swa", "average.below=2", "qat=none"),
        ("average=blend", "qat=soft_round"),
        ("average=best", "qat=ste", "data/loader=coprime"),
        ("average=ema", "qat=crownq", "qat.weight=0.1", "data/loader=documents"),
    ],
)
def test_every_state_goes_through_a_file_to_the_bit(tmp_path, words):
    """Two steps, a checkpoint, two more; a new trainer from the file makes the same two."""
    text, recipe = training(*words)
    progress = [Progress(step, 20.0 + step, 25.0) for step in range(4)]
    first, second = Trainer(World.alone(), recipe, text), Trainer(World.alone(), recipe, text)
    with first.loader, second.loader:
        for now in progress[:2]:
            first.step(now)
        said: list[str] = []
        writer = Writer(tmp_path, first.world, said.append)
        writer.begin(tensors_of(first), {"step": 2, "numbers": numbers_of(first)})
        assert writer.wait(), said
        (kept,) = checkpoints(tmp_path)
        put_back(second, read_tensors(kept), whole_checkpoint(kept)["numbers"])
        for now in progress[2:]:
            one, other = first.step(now), second.step(now)
            assert torch.equal(one, other)
        ours, theirs = tensors_of(first), tensors_of(second)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert numbers_of(first) == numbers_of(second)


def test_a_checkpoint_that_cannot_be_written_costs_nothing(tmp_path):
    said: list[str] = []
    writer = Writer(tmp_path, World.alone(), said.append)
    (tmp_path / "checkpoints").write_text("in the way")
    writer.begin({"a": torch.zeros(3)}, {"step": 2})
    assert not writer.wait()
    assert len(said) == 1
    assert "step00000002 was not written: " in said[0]


def training(*words: str):
    """A text and a recipe of the smallest kind."""
    from pgolf.config.compose import register_experiments, rehearse
    from tests.command import environment

    register_experiments()
    cache = environment()["PGOLF_CACHE"]
    (job,) = rehearse(
        [*TINY, "limits.train_steps=25", f"data.cache={cache}", "schedule.qat_below=2", *words], sweep=False
    )
    return job.recipe.data.prepare(lambda stage, done: None).training, job.recipe
