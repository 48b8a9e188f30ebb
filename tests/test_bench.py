"""The benchmarks run, agree with what they are compared with, and say so in a table and in JSON; misuse is one message."""

import json
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import pytest
import torch

from pgolf.bench import gpu, scaling, shares, startup, step
from pgolf.bench.__main__ import main, names
from pgolf.bench.contest import Contest, DisagreementError, Part, Setting
from pgolf.errors import UserError
from pgolf.recipe import Recipe
from tests import programs
from tests.command import environment

torch.set_num_threads(1)
QUICK = ("codec", "gptq", "loader", "muon", "step")


def test_without_a_name_they_are_listed(capsys):
    assert main([]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == names()
    assert {*QUICK, "startup"} <= set(names())
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in listed)


@pytest.mark.parametrize("name", [*QUICK, pytest.param("build", marks=pytest.mark.slow)])
def test_each_runs_small_and_writes_json(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PGOLF_CACHE", environment()["PGOLF_CACHE"])
    path = tmp_path / "figures.json"
    assert main([name, "size=small", f"json={path}"]) == 0
    shown, kept = capsys.readouterr().out, json.loads(path.read_text())
    assert (kept["bench"], kept["size"], kept["repeats"]) == (name, "small", 5)
    assert kept["machine"]["threads"] == 1
    for row in kept["rows"]:
        assert 0 < row["min_s"] <= row["median_s"]
        assert row["check"]
        assert row["way"] in shown
    firsts = [row for row in kept["rows"] if row["times_faster"] == 1]
    assert {row["contest"] for row in firsts} == {row["contest"] for row in kept["rows"]}


@pytest.fixture
def whole(monkeypatch):
    """A whole step as small as goes, two ways, and where it goes: their contest and the shares."""
    monkeypatch.setenv("PGOLF_CACHE", environment()["PGOLF_CACHE"])
    with closing(step.whole_step(*step.SMALL)) as made:
        yield made


def test_a_whole_step_is_that_of_a_published_script_and_its_parts_are_told(whole):
    rows = next(whole).run(Setting("small"))
    assert [row["way"] for row in rows] == ["as published scripts do it", "pgolf"]
    assert "apart after 20 steps" in rows[0]["check"]
    assert rows[0]["figures"] == rows[1]["figures"]  # the loss of the first step
    rows = {row["way"]: row for row in next(whole).run(Setting("small"))}
    total, alone = rows.pop("the whole step"), rows.pop("the first three alone")
    assert list(rows) == list(shares.KINDS)
    assert sum(1 / row["times_faster"] for row in rows.values()) == pytest.approx(1)
    assert total["times_faster"] == 1
    assert sum(1 / rows[kind]["times_faster"] for kind in shares.FLOOR) == pytest.approx(1 / alone["times_faster"])
    assert all(row["figures"].endswith("%") for row in rows.values())


def without_clip(recipe: Recipe) -> Recipe:
    return replace(recipe, optim=replace(recipe.optim, clip_norm=None))


def without_decay(recipe: Recipe) -> Recipe:
    return replace(recipe, optim=replace(recipe.optim, scalar=replace(recipe.optim.scalar, weight_decay=0.0)))


def another_average(recipe: Recipe) -> Recipe:
    return replace(recipe, average=replace(recipe.average, decay=0.951))


def another_model(recipe: Recipe) -> Recipe:
    return replace(recipe, model=replace(recipe.model, rope_base=9000.0))


@pytest.mark.parametrize("perturbed", [without_clip, without_decay, another_average, another_model])
def test_a_script_that_does_something_else_is_caught(whole, monkeypatch, perturbed):
    honest = step.Training
    monkeypatch.setattr(step, "Training", lambda recipe, *rest: honest(perturbed(recipe), *rest))
    with pytest.raises(DisagreementError, match=r"are \S+ apart after (the first step|20 steps), relative"):
        next(whole).run(Setting("small"))


@pytest.mark.parametrize(
    "word", ["model.smear=false", "model.value_residual=true", "optim.matrix.ns_steps=4", "model/activation=swiglu"]
)
def test_a_recipe_that_the_script_does_not_follow_is_refused(monkeypatch, word):
    monkeypatch.setenv("PGOLF_CACHE", environment()["PGOLF_CACHE"])
    with pytest.raises(UserError, match="does not have"):
        next(step.whole_step(*step.SMALL, word))


def test_work_that_no_mark_meets_is_told(whole, monkeypatch):
    monkeypatch.setattr(step, "mark_loss", lambda trainer: None)
    next(whole)
    with pytest.raises(DisagreementError, match="the profiler saw no loss"):
        next(whole).run(Setting("small"))


def test_how_the_default_run_grows(tmp_path, capsys, monkeypatch):
    """The steps and strides are timed; what whole runs would leave stands in for them."""

    def record(self, seconds: float, seed: int) -> dict:
        train, judged = {"seconds": seconds - 0.5, "steps": 10 * seed}, {"val_bpb": 2.0 + seed / 10, "seconds": 3.0}
        return {"train": train, "evaluate": judged, "verdict": "consistent"}

    monkeypatch.setattr(scaling.Runs, "record", record)
    kept, picture = tmp_path / "a.json", tmp_path / "a.png"
    assert main(["scaling", "size=small", "seeds=1,3", f"json={kept}", f"picture={picture}"]) == 0
    rows = json.loads(kept.read_text())["rows"]
    numbers = [row["numbers"] for row in rows if "numbers" in row]
    assert numbers == [{"seconds": 5.5, "steps": 20, "val_bpb": pytest.approx(2.2), "eval_seconds": 3.0}]
    grown = {row["contest"] for row in rows if "numbers" not in row}
    assert len(grown) == 5
    assert all(row["min_s"] > 0 for row in rows)
    assert "20 steps, val_bpb 2.2000" in capsys.readouterr().out
    assert picture.read_bytes()[1:4] == b"PNG"


@pytest.mark.slow
def test_the_first_step_of_a_run_is_waited_for():
    *parts, whole = startup.FirstStep(scaling.SMALL).run(Setting("small", repeats=1))
    assert 0 < parts[0]["min_s"] < parts[1]["min_s"] < whole["min_s"]
    with pytest.raises(DisagreementError, match="exit 2, said"):
        startup.FirstStep(("quant.bits=five",)).turn()


@pytest.mark.slow
def test_runs_of_growing_clocks_are_whole_runs():
    (row,) = scaling.Runs((30,), 1, scaling.SMALL).run(Setting("small", seeds=(7,)))
    assert row["numbers"]["steps"] > 10
    assert row["numbers"]["seconds"] < 30


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["codek"], "Did you mean 'codec'?"),
        (["codec", "gptq"], "one benchmark at a time"),
        (["codec", "size=huge"], "size=huge: must be one of small, medium, full"),
        (["codec", "repeats=3"], "at least 5"),
        (["codec", "repeats=x"], "must be a number"),
        (["codec", "device=tpu"], "cpu or cuda"),
        (["codec", "sise=small"], "Did you mean 'size'?"),
        (["codec", "artifact=/nowhere"], "cannot be read"),
        (["gpu", "device=cpu", "size=small", "only=stop"], "begins no part's name: correctness; loss"),
        (["gpu", "device=cpu", "size=full"], "on a CPU this benchmark is rehearsed, with size=small"),
        (["codec", "seeds=1,2"], "seeds=: is an option of the benchmark scaling alone"),
        (["codec", "picture=a.png"], "picture=: is an option of the benchmark scaling alone"),
        (["scaling", "seeds=1,1"], "must be different numbers"),
        (["scaling", "seeds=one"], "must be different numbers"),
        (["scaling", "picture=a.pdf"], "end in .png"),
        (["scaling", "picture=/no/such/folder/a.png"], "of a folder that is there"),
        pytest.param(
            ["gpu"],
            "needs a CUDA device; nothing was measured",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_misuse_is_one_message(words, said, capsys):
    assert main(words) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err
    assert len(told.err.splitlines()) == 1


def test_ways_that_disagree_give_no_figures(capsys, monkeypatch):
    def check(made: dict) -> str:
        if len(set(made.values())) > 1:
            raise DisagreementError("1 is not 2")
        return "equal"

    contest = Contest("a", {"one": lambda: 1, "two": lambda: 2}, check)
    with pytest.raises(DisagreementError):
        contest.run(Setting())
    monkeypatch.setattr("pgolf.bench.gptq.contests", lambda setting: iter([contest]))
    assert main(["gptq"]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "pgolf: 1 is not 2\n")
    assert main(["gptq", "--json"]) == 1
    assert programs.refused(capsys.readouterr().out, 1) == "1 is not 2"


def test_one_object_is_printed_and_kept(capsys, monkeypatch, tmp_path):
    contest = Contest("a", {"one": lambda: print("noise") or 1, "two": lambda: 1}, lambda made: "equal")
    monkeypatch.setattr("pgolf.bench.gptq.contests", lambda setting: iter([contest]))
    path = tmp_path / "figures.json"
    assert main(["gptq", f"json={path}", "--json"]) == 0
    told = capsys.readouterr()
    value = programs.said(told.out, "pgolf.bench", 0)
    assert [row["way"] for row in value["rows"]] == ["one", "two"]
    assert json.loads(path.read_text()) == value
    assert "noise" in told.err
    assert main(["gptq", f"json={tmp_path}/no/such.json", "--json"]) == 2
    assert "cannot be written" in programs.refused(capsys.readouterr().out, 2)
    assert main(["--json"]) == 0
    assert {*programs.said(capsys.readouterr().out, "pgolf.bench.list", 0)["benchmarks"]} == {*names()}
    assert main(["codek", "--json"]) == 2
    assert "Did you mean 'codec'?" in programs.refused(capsys.readouterr().out, 2)


@pytest.mark.slow
def test_what_a_gpu_is_wanted_for_is_rehearsed_on_a_cpu(tmp_path, monkeypatch, capsys):
    """Every part, with the code that a GPU runs, but for the compiler's back end and the kernels."""
    monkeypatch.setenv("PGOLF_CACHE", environment()["PGOLF_CACHE"])
    path = tmp_path / "gpu.json"
    code = main(["gpu", "device=cpu", "size=small", f"json={path}"])
    kept = json.loads(path.read_text())
    assert (code, kept["missed"]) == (0, {})
    contests = {row["contest"] for row in kept["rows"]}
    assert len(contests) >= 17
    for word in (
        "tests that need a GPU",
        "pr1855, loops on",
        "score-first chunk",
        "with adapters",
        "end of training",
        "one rank",
    ):
        assert any(word in contest for contest in contests), word


def test_the_parts_of_the_rehearsal_that_are_quick():
    """Loss, heads, collectives: the others are walked through by the slow test."""
    made = {part.name: part for part in gpu.contests(Setting("small", 5, "cpu"))}
    assert {"correctness", "step of pr1855", "documents with adapters", "sealing", "score-first chunk"} < made.keys()
    for name in ("loss", "heads", "collectives"):
        assert made[name].run(Setting("small", 5, "cpu")), made[name].missed
        assert made[name].missed == {}


def test_a_part_that_fails_or_is_late_is_told_and_the_others_are_kept(capsys, monkeypatch, tmp_path):
    def failing():
        raise DisagreementError("1 is not 2")

    def late():
        with gpu.alarm(0.05):
            yield Contest("waits", {"one": lambda: time.sleep(30)}, lambda made: "")

    good = Contest("a", {"one": lambda: 1}, lambda made: "equal")
    parts = [Part("wrong", failing), Part("good", lambda: [good]), Part("late", late)]
    monkeypatch.setattr("pgolf.bench.gptq.contests", lambda setting: iter(parts))
    path = tmp_path / "figures.json"
    assert main(["gptq", f"json={path}"]) == 1
    kept = json.loads(path.read_text())
    assert [row["contest"] for row in kept["rows"]] == ["a"]
    assert kept["missed"]["wrong"] == "DisagreementError: 1 is not 2"
    assert kept["missed"]["late"].startswith("OutOfTimeError")
    assert "MISSED wrong: DisagreementError: 1 is not 2" in capsys.readouterr().out


def test_no_part_begins_once_the_time_is_over():
    with pytest.raises(gpu.OutOfTimeError), gpu.alarm(0.0):
        pytest.fail("begun")


def test_ways_take_turns():
    order = []
    ways = {way: (lambda way=way: order.append(way)) for way in "ab"}
    rows = Contest("turns", ways, lambda made: "", floor=0.5).run(Setting(repeats=5))
    assert order == ["a", "b"] * 6
    assert [row["floor_s"] for row in rows] == [0.5, 0.5]


def test_from_the_command_line():
    done = subprocess.run([sys.executable, "-m", "pgolf.bench", "nothing"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "There are: build, codec" in done.stderr
