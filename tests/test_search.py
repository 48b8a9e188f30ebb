"""The search: which words it takes apart, and two real trials that it takes up again."""

import os
import signal
import subprocess
import sys

import pytest

from pgolf.errors import UserError
from pgolf.machine.signals import StoppedError
from pgolf.search import Dimension, RunError, divided, ended, main, opened, search, settings
from tests import programs
from tests.command import TINY, environment, record
from tests.processes import command_of, descendants, until_gone, until_line


def test_words_with_sweeps_are_searched_and_the_others_fixed():
    space, fixed = divided(
        [
            "a.lr=tag(log,interval(0.01,0.1))",
            "quant=int5_gptq,int6_gptq",
            "b=range(1,4)",
            "c=interval(0,1)",
            "limits=laptop",
        ]
    )
    assert space == [
        Dimension("a.lr", None, 0.01, 0.1, True),
        Dimension("quant", ("int5_gptq", "int6_gptq")),
        Dimension("b", ("1", "2", "3")),
        Dimension("c", None, 0.0, 1.0),
    ]
    assert fixed == ["limits=laptop"]
    assert [d.first for d in space] == ["a.lr=0.01", "quant=int5_gptq", "b=1", "c=0.0"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["limits=laptop"], "nothing to search"),
        (["a=interval(1,0)"], "an interval goes up"),
        (["a=tag(log,interval(0,1))"], "begins above 0"),
        (["a=glob(*)"], "search over choice"),
        (["a=interval("], "a=interval("),
    ],
)
def test_words_that_cannot_be_searched_are_refused(words, said):
    with pytest.raises(UserError) as wrong:
        divided(words)
    assert said in str(wrong.value)


def test_settings_are_told_from_a_runs_words():
    ours, theirs = settings(["trials=3", "study=lr", "seed=3", "data.x=1"])
    assert (ours, theirs) == ({"trials": "3", "study": "lr"}, ["seed.value=3", "data.x=1"])
    for bad in ("trials=0", "trials=x", "study=a/b"):
        with pytest.raises(UserError):
            settings([bad])


def test_an_arm_that_cannot_run_is_refused_before_anything_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["quant.bits=9,5"]) == 2
    assert "quant.bits=9: must be between 2 and 8" in capsys.readouterr().err
    assert main(["quant.bits=9,5", "--json"]) == 2
    assert "quant.bits=9: must be between 2 and 8" in programs.refused(capsys.readouterr().out, 2)
    assert list(tmp_path.iterdir()) == []


def searched(folder, *words: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "pgolf.search", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(), timeout=1200)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_two_trials_are_run_judged_by_dev_bpb_and_taken_up_again(tmp_path):
    optuna = pytest.importorskip("optuna", reason="the extra `search` is not installed")
    words = ["optim.matrix.lr=tag(log,interval(0.001,0.1))", "limits.train_steps=4", "ttt=none", *TINY]
    assert "trial 0" in searched(tmp_path, "trials=1", *words)
    command = [sys.executable, "-m", "pgolf.search", "trials=2", *words, "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment(), timeout=1200)
    value = programs.said(done.stdout, "pgolf.search", 0)
    assert "trial 0  optim" not in done.stderr
    assert "trial 1  optim" in done.stderr
    place = tmp_path / "searches/search"
    study = optuna.load_study(study_name="pgolf", storage=f"sqlite:///{place}/study.db")
    assert [t.value for t in study.trials] == [
        record(place / f"trial{n}")["train"]["dev_bpb"]["quantized"] for n in (0, 1)
    ]
    assert all(t.intermediate_values for t in study.trials)
    assert [(row["trial"], row["state"], row["dev_bpb"]) for row in value["trials"]] == [
        (t.number, "complete", t.value) for t in study.trials
    ]
    assert value["best"] == min(value["trials"], key=lambda row: row["dev_bpb"])
    assert value["run_again"] == ["python", "-m", "pgolf.run", *value["best"]["words"], *value["fixed"]]
    again = searched(tmp_path, "trials=2", "--quiet", *words).splitlines()
    assert again[-1].startswith("python -m pgolf.run optim.matrix.lr=")
    assert len(again) == 2
    assert "is the search of other words" in searched(tmp_path, "trials=2", *words, "seed=9", code=2)
    assert os.listdir(tmp_path) == ["searches"]


class Stub:
    """A trial's run without a process: what it comes to, or what ends it."""

    def __init__(self, folder, overrides, lock):
        self.folder = folder

    def over(self) -> bool:
        return True

    def dev_bpb(self) -> list[float]:
        return []

    def stop(self) -> None:
        """Nothing runs."""

    def objective(self) -> float:
        end = ENDS.pop(0)
        if isinstance(end, BaseException):
            raise end
        return end


ENDS: list = []


def test_as_many_trials_as_asked_for_come_to_an_end_of_their_own(tmp_path, monkeypatch):
    """A trial whose search was stopped or killed is tried again with its words; one that failed has had its turn."""
    optuna = pytest.importorskip("optuna", reason="the extra `search` is not installed")
    monkeypatch.setattr("pgolf.search.Running", Stub)
    space = [Dimension("a", None, 0.0, 1.0)]
    ENDS[:] = [1.0, StoppedError(signal.SIGTERM), RunError("out of memory"), 2.0]
    study = opened(tmp_path, ["a=interval(0,1)"])
    with pytest.raises(StoppedError):
        search(study, space, [], tmp_path, 4, print)
    killed = study.ask()
    word = space[0].chosen(killed)
    study = opened(tmp_path, ["a=interval(0,1)"])
    assert (len(study.trials), ended(study)) == (4, 1), "one complete, one stopped, then killed, and it waits again"
    ENDS.append(3.0)
    search(study, space, [], tmp_path, 4, print)
    trials = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    assert [trial.value for trial in trials] == [1.0, 2.0, 3.0]
    words = [trial.user_attrs.get("words") for trial in study.trials]
    assert words[1] == words[3] == [word], "those of the trial that was stopped"
    assert ended(study) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_trial_ends_with_its_search(tmp_path, number):
    pytest.importorskip("optuna", reason="the extra `search` is not installed")
    words = ["trials=1", "optim.matrix.lr=interval(0.01,0.05)", "limits.train_steps=100000", "ttt=none", *TINY]
    began = [sys.executable, "-m", "pgolf.search", *words, "limits.train_seconds=9000"]
    as_a_background_job = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *began]
    search = subprocess.Popen(as_a_background_job, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment())
    until_line(tmp_path / "searches/search/trial0/events.jsonl", '"step"')
    family = descendants(search.pid)
    assert any(b"pgolf.run" in command_of(pid) for pid in family)
    refused = subprocess.run(began, cwd=tmp_path, capture_output=True, text=True, env=environment(), timeout=1200)
    assert (refused.returncode, "another process is at it" in refused.stderr) == (2, True), "no second search beside it"
    search.send_signal(number)
    _, said = search.communicate(timeout=1200)
    assert search.returncode == (-9 if number == signal.SIGKILL else 75), said
    until_gone(family)
    assert record(tmp_path / "searches/search/trial0")["status"] == "interrupted", "it closed its record"
