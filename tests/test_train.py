"""The training stage: a warm-up that leaves no trace, switches that the receipts show, and what is not finite."""

import dataclasses
import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch._dynamo.testing

from pgolf.config.compose import rehearse
from pgolf.errors import ConfigError, RefusedError, UserError
from pgolf.files.events import Events, line_of
from pgolf.limits.clock import Clock
from pgolf.limits.stopping import ByClock, BySteps
from pgolf.machine.world import World
from pgolf.schedule import Progress
from pgolf.stages.checkpoint import require_time
from pgolf.stages.seal import Reserve
from pgolf.stages.train import Trainer, Training, fit, rows_of, train
from tests.command import TINY, environment
from tests.ranks import run_ranks

LOOP = "model.loop={_target_: pgolf.model.Loop, first: 0, last: 1, num_loops: 1}"
SWITCHED = (LOOP, "schedule.loop_at=0.3", "schedule.qat_below=0.5")


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    monkeypatch.setenv("PGOLF_CACHE", environment()["PGOLF_CACHE"])


@pytest.fixture(scope="module")
def text():
    """The training half of the tests' corpus."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGOLF_CACHE", environment()["PGOLF_CACHE"])
        return recipe().data.prepare(lambda what, done: None).training


def recipe(*words: str):
    torch.set_num_threads(1)
    return rehearse([*TINY, "limits.train_steps=10", *words], sweep=False)[0].recipe


def after_steps(trainer: Trainer, count: int) -> list[torch.Tensor]:
    """The weights after that many steps of ten, and the averaged ones."""
    with trainer.loader:
        for step in range(count):
            trainer.step(Progress(step, float(step), float(count)))
    raw = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.averager.finish(trainer.model, lambda: 0.0)
    return raw + list(trainer.model.parameters())


@pytest.mark.parametrize("qat", ["none", "soft_round", "crownq"])
def test_warming_up_leaves_no_trace(text, qat):
    switched = recipe(f"qat={qat}", "schedule.warmup_steps=2", *SWITCHED)
    cold, warm = (Trainer(World.alone(), switched, text) for _ in range(2))
    warm.warm_up(1 << 20)
    assert warm.qat.receipts() == cold.qat.receipts()
    for a, b in zip(after_steps(cold, 10), after_steps(warm, 10), strict=True):
        assert torch.equal(a, b)
    assert warm.qat.receipts() == cold.qat.receipts()
    assert all(receipt.alive for receipt in warm.qat.receipts())


def test_the_clock_meets_no_graph_that_the_warm_up_did_not(text, monkeypatch):
    """Recurrence is a second graph, QAT is none: after the warm-up nothing is traced again."""
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **how: compile_(f, backend=counter, **how))
    trainer = Trainer(World.alone(), recipe("qat=soft_round", "machine.compile=true", *SWITCHED), text)
    trainer.warm_up(1 << 20)
    warmed = counter.frame_count
    assert warmed >= 2
    after_steps(trainer, 10)
    assert counter.frame_count == warmed
    assert all(receipt.alive for receipt in trainer.qat.receipts())
    torch._dynamo.reset()


def on_ranks(world: World, shared, text) -> list[np.ndarray]:
    torch.set_num_threads(1)
    return [weights.detach().numpy() for weights in after_steps(Trainer(world, shared, text), 6)]


def test_two_ranks_do_with_crown_q_what_one_does(text):
    """On average: a weight at the edge between two symbols may fall to either side."""
    words = ("qat=crownq", "qat.weight=300", "machine.micro_batch_tokens=256", *SWITCHED)
    ones = on_ranks(World.alone(), recipe(*words), text)
    without = on_ranks(World.alone(), recipe(*words, "qat.weight=1e-9"), text)
    assert max(map(apart, ones, without)) > 1e-3
    for twos in run_ranks(on_ranks, 2, recipe("machine.ranks=2", *words), text):
        assert max(map(apart, ones, twos)) < 1e-5


def apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean())


@pytest.mark.parametrize("size", [1, 2, 4])
def test_ranks_share_a_batch_and_miss_no_row(size):
    shared = recipe("machine.micro_batch_tokens=128", f"machine.ranks={size}")
    rows = [rows_of(shared, World(rank, size, torch.device("cpu"))) for rank in range(size)]
    assert sorted(np.concatenate(rows)) == list(range(shared.batch_sequences))


def test_a_clock_that_was_stopped_stands():
    clock = Clock(60)
    clock.start()
    with clock.phase("steps"):
        time.sleep(0.01)
    clock.stop()
    stood = clock.elapsed
    with clock.phase("after"):
        time.sleep(0.01)
    assert (clock.elapsed, clock.left, clock.phases["after"]) == (stood, 60 - stood, 0.0)
    assert 0.01 <= clock.phases["steps"] <= stood


def test_a_text_that_comes_to_its_end_is_read_again_with_a_notice(text, tmp_path):
    short = dataclasses.replace(text, dev_tokens=text.tokens - 4096)  # 31 windows beside the held-out slice, 8 a step
    told: list[dict] = []
    trainer, clock = Trainer(World.alone(), recipe("data.dev_checks=0"), short), Clock(60)
    clock.start()
    with trainer.loader:
        steps = fit(trainer, BySteps(10, Reserve(0.0, 0.0)), clock, Events(None, told.append), tmp_path)
    assert [(e["step"], e["epoch"]) for e in told if e["event"] == "epoch"] == [(4, 2), (8, 3)]
    assert all("come to its end" in line_of(e) for e in told if e["event"] == "epoch")
    assert [e["step"] for e in told if e["event"] == "step"] == [1, 10]
    assert (steps, trainer.loss) == (10, [e["loss"] for e in told if e["event"] == "step"][-1])
    assert {e["label"] for e in told if e["event"] == "progress"} == {"train"}


def test_what_is_not_finite_stops_the_run_and_keeps_the_last_good_weights(text, tmp_path):
    wild = recipe("optim.matrix.lr=1e30", "optim.clip_norm=null")
    with pytest.raises(UserError, match=r"^the gradient stopped being finite at step 1: the largest, of \S+, has norm"):
        train(World.alone(), Training(wild, text, None, 0, tmp_path), Events(None))
    kept = torch.load(tmp_path / "last_good.pt", weights_only=True)
    assert kept.keys() == wild.model.outline().state_dict().keys()
    assert all(weight.isfinite().all() for weight in kept.values())
    assert not Path(tmp_path, "artifact.pgolf").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("qat=ste", "schedule.qat_below=null"),
            r"qat='STE': is never switched on by the schedule: set schedule.qat_below",
        ),
        (("qat=ste", "schedule.qat_below=0.01", "schedule.warmdown.floor=0.1"), "qat='STE': is never switched on"),
        (
            (LOOP, "schedule.loop_at=null"),
            r"model.loop='on': is never switched on by the schedule: set schedule.loop_at",
        ),
    ],
)
def test_a_part_that_the_schedule_never_switches_on_is_refused(words, told):
    with pytest.raises(ConfigError, match=told):
        recipe(*words)


def test_a_schedule_may_switch_what_is_not_there():
    assert recipe("qat=none", "schedule.qat_below=0.5", "schedule.loop_at=0.3")


@pytest.mark.parametrize(
    ("seconds", "reserve", "step"), [(1, 0.5, 0.2), (3, 3.3, 0.01), (8, 6.8, 0.22), (600, 599.9, 0.1)]
)
def test_a_clock_without_room_for_ten_steps_is_refused_with_one_that_has(seconds, reserve, step):
    limits = SimpleNamespace(train_steps=None, train_seconds=seconds)
    with pytest.raises(RefusedError, match=f"limits.train_seconds={seconds}: too short") as refused:
        require_time(limits, reserve, step)
    limits.train_seconds = int(re.search(r"limits.train_seconds=(\d+) would do", str(refused.value))[1])
    assert reserve + 10 * step <= limits.train_seconds <= 1.2 * (reserve + 10 * step) + 1
    require_time(limits, reserve, step)
    require_time(SimpleNamespace(train_steps=1, train_seconds=seconds), reserve, step)


def steps_until_the_end(*spent: float, budget: float = 20.0) -> tuple[int, float]:
    """How many steps are taken, and when they end, by a clock of which each takes its time, the last time for all others; the
    reserve of 4 s was measured where a step took .1 s."""
    clock = SimpleNamespace(elapsed=0.0, budget=budget)
    rule, step = ByClock(clock, Reserve(4.0, 2.0, 0.1), World.alone()), 0
    while (progress := rule.progress(step)).elapsed < progress.total:
        assert progress.total == 16.0
        clock.elapsed += spent[min(step, len(spent) - 1)]
        step += 1
    assert progress == Progress(step, 16.0, 16.0)
    return step, clock.elapsed


def test_steps_end_where_the_reserve_begins():
    for each in (0.05, 0.1, 0.12):
        steps, ended = steps_until_the_end(each)
        assert 16.0 - each < ended + each / 2 <= 16.0 + each / 2
        assert ended == pytest.approx(steps * each)


def test_where_steps_have_become_slower_more_is_kept():
    """Twice as slow, 1.67 times as much; a single long step, as one with a look at held-out text, changes nothing."""
    _, slow = steps_until_the_end(0.2)
    assert slow == pytest.approx(20 - 4 * 2 / 1.2, abs=0.21)
    _, late = steps_until_the_end(*[0.1] * 100, 0.2)
    assert late == pytest.approx(slow, abs=0.21)
    _, once = steps_until_the_end(*[0.1] * 140, 0.6, 0.1)
    assert once == pytest.approx(16.0, abs=0.11)


def test_the_reserve_that_calibration_heeds_is_the_one_that_was_kept():
    clock = SimpleNamespace(elapsed=0.0, budget=20.0)
    rule = ByClock(clock, Reserve(4.0, 2.0, 0.1), World.alone())
    assert rule.reserve == Reserve(4.0, 2.0, 0.1)
    for step in range(20):
        rule.progress(step)
        clock.elapsed += 0.36
    assert rule.reserve == Reserve(pytest.approx(12.0), pytest.approx(6.0), 0.1)
    assert Reserve(4.0, 2.0).where_steps_take(100.0) == Reserve(4.0, 2.0), "one that the limits state stays"
