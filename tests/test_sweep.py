"""The sweep contract: folders by identity, a plan written once, the same words take a sweep up, and nothing is lost."""

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from pgolf.config.identity import IDENTITY, sha256_of
from pgolf.errors import UserError
from pgolf.machine.lock import HeldError, locked
from pgolf.results.attempts import LOCK, before, owned, put_aside
from pgolf.results.plan import ADDED, agreed, read_plan
from pgolf.results.summary import aggregate, summarise
from pgolf.submission import publish
from tests.command import TINY, environment, only, record, run, start
from tests.processes import descendants, until_gone, until_line
from tests.sweeps import died, make_plan, make_run

QUICK = (*TINY, "ttt=none", "average=none", "data.dev_checks=0")
STEPS = (*QUICK, "limits.train_steps=2")
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """The folder of a sweep of two seeds, both complete. Tests change copies of it."""
    place = tmp_path_factory.mktemp("swept")
    run(place, "-m", "seed=1,2", "hydra.sweep.dir=sweep", *STEPS)
    return place / "sweep"


@pytest.fixture
def copy(swept, tmp_path) -> Path:
    return Path(shutil.copytree(swept, tmp_path / "sweep"))


def again(copy: Path, *words: str, seeds: str = "1,2", code: int = 0):
    return run(copy.parent, "-m", f"seed={seeds}", "hydra.sweep.dir=sweep", *STEPS, *words, code=code)


def jobs(sweep: Path) -> list[Path]:
    return sorted(sweep.glob("*_seed*"), key=lambda p: int(p.name.rpartition("seed")[2]))


def test_jobs_are_called_by_what_they_compute(swept):
    (arm,) = json.loads((swept / "plan.json").read_text())["arms"]
    assert [p.name for p in jobs(swept)] == [f"{arm['arm_sha256'][:8]}_seed{seed}" for seed in (1, 2)]
    kept = [record(p) for p in jobs(swept)]
    assert {r["arm_sha256"] for r in kept} == {arm["arm_sha256"]}
    assert len({r["config_sha256"] for r in kept}) == 2
    assert summarise(swept)["arms"][0]["n"] == 2


def test_the_same_words_start_nothing_that_is_complete(copy):
    """In a copy at another place: nothing of where it lies is in what it is."""
    seen = {path: path.read_bytes() for path in [*copy.glob("*_seed*/*"), copy / "plan.json"] if path.is_file()}
    done = again(copy, "machine.threads=2", "logger=none")
    assert done.stdout.count("complete already: val_bpb=") == 2
    assert {path: path.read_bytes() for path in seen} == seen
    assert publish(copy)["arms"][0]["submission"]["written"]


def test_a_summary_that_cannot_be_written_is_one_message(copy):
    (copy / "summary.json").unlink()
    (copy / "summary.json").mkdir()
    said = again(copy, code=1).stderr
    assert re.search(r"^pgolf: \S+/summary\.json: cannot be written: Is a directory", said, re.MULTILINE), said
    assert "Traceback" not in said


@pytest.mark.slow
def test_seeds_that_come_later_join_their_arm_and_say_so_everywhere(copy, tmp_path):
    cache = tmp_path / "elsewhere"
    cache.symlink_to(environment()["PGOLF_CACHE"])
    again(copy, f"data.cache={cache}", "machine.ranks=2", "name=other", seeds="1,2,3")
    plan = json.loads((copy / "plan.json").read_text())
    assert plan["arms"][0]["seeds"] == [1, 2]
    assert [(a["results"], a["arms"][0]["seeds"]) for a in plan["amendments"]] == [(2, [3])]
    (arm,) = json.loads((copy / "summary.json").read_text())["arms"]
    assert (arm["n"], arm["argument"]) == (3, f"needs argument ({ADDED})")
    assert [row["verdict"] for row in arm["seeds"]] == ["consistent", "consistent", f"needs argument ({ADDED})"]
    assert f"needs argument ({ADDED})" in (copy / arm["submission"]["folder"] / "README.md").read_text()
    stated = json.loads((copy / arm["submission"]["folder"] / "submission.json").read_text())
    assert stated["pgolf"]["seeds_added"][0]["seeds"] == [3]
    assert not stated["compliance"]["verdict_consistent"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("quant.bits=5",), "none of its arms has quant.bits=5"),
        (("data.val_fraction=0.004",), "none of its arms has data.val_fraction=0.004"),
        (("machine.compile=true",), "the code of"),
        (("hydra.sweep.subdir=mine",), "jobs of a sweep are called by what they compute"),
    ],
)
def test_another_sweep_in_the_same_folder_is_refused_and_changes_nothing(copy, words, said):
    plan = (copy / "plan.json").read_bytes()
    words = [word for word in words if not word.startswith("hydra")] + [w for w in words if w.startswith("hydra")]
    refused = again(copy, *words, code=2)
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (copy / "plan.json").read_bytes() == plan
    assert len(jobs(copy)) == 2


@pytest.mark.slow
def test_a_plan_that_was_edited_is_refused_and_named(copy):
    plan = json.loads((copy / "plan.json").read_text())
    plan["arms"][0]["seeds"] = [1]
    (copy / "plan.json").write_text(json.dumps(plan))
    assert "plan.json: was changed after it was written" in again(copy, code=2).stderr
    assert summarise(copy)["problems"][0]["run"] == "plan.json"


def test_a_job_that_somebody_is_at_is_left_alone(copy):
    first = jobs(copy)[0]
    (first / "record.json").write_text(json.dumps(record(first) | {"status": "failed", "error": "x"}))
    with owned(first):
        done = again(copy)
    assert re.search(r"left alone: .*_seed1: another process is at it", done.stderr)
    assert record(first)["status"] == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["started", "trained"])
def test_a_dead_job_runs_again_and_what_it_left_is_kept(copy, where):
    """One that died early begins anew; one that had sealed its artifact is judged, with the same number."""
    first = jobs(copy)[0]
    whole = record(first)
    dead = {"status": "running", "evaluate": None, "verdict": None, "finished": None, "log_sha256": None}
    if where == "started":
        dead |= {"train": None, "artifact": None, "receipts": []}
    (first / "record.json").write_text(json.dumps(whole | dead))
    assert [(r["seed"], r["status"]) for r in summarise(copy)["arms"][0]["not_complete"]] == [(1, "lost")]
    again(copy)
    made = record(first)
    assert made["evaluate"]["val_bpb"] == whole["evaluate"]["val_bpb"]
    assert (made["status"], made["verdict"]) == ("complete", "consistent")
    (arm,) = json.loads((copy / "summary.json").read_text())["arms"]
    assert arm["submission"]["written"], arm["submission"]
    if where == "started":
        assert made["train"]["seconds"] != whole["train"]["seconds"]
        (attempt,) = arm["attempts"]
        assert (attempt["seed"], attempt["status"], attempt["run"]) == (1, "lost", f"attempts/{first.name}_1")
        assert record(copy / attempt["run"])["train"] is None
        assert attempt["run"] in (copy / arm["submission"]["folder"] / "README.md").read_text()
    else:
        assert made["train"] == whole["train"]
        assert [(i["stage"], i["status"]) for i in made["interruptions"]] == [("evaluate", "lost")]
        assert "taken up at the stage evaluate" in (first / "train.log").read_text()
        assert not arm["attempts"]


@linux
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)),
    ],
)
def test_a_sweep_that_was_stopped_goes_on_with_the_same_words(tmp_path, number):
    words = ("-m", "seed=1,2", "hydra.sweep.dir=sweep", *QUICK, "limits.train_steps=60")
    sweep = start(tmp_path, *words)
    until_line(tmp_path / "sweep" / "plan.json", "arm_sha256")
    (arm,) = json.loads((tmp_path / "sweep" / "plan.json").read_text())["arms"]
    first = tmp_path / "sweep" / f"{arm['arm_sha256'][:8]}_seed1"
    until_line(first / "events.jsonl", '"step"')
    family = descendants(sweep.pid)
    assert family
    sweep.send_signal(number)
    _, said = sweep.communicate(timeout=1200)
    assert sweep.returncode == (-9 if number == signal.SIGKILL else 75), said
    until_gone(family)
    state = "lost" if number == signal.SIGKILL else "interrupted"
    assert [r["status"] for r in summarise(tmp_path / "sweep")["arms"][0]["not_complete"]] == [state, "missing"]
    if number != signal.SIGKILL:
        assert "take the sweep up again" in said
        return
    run(tmp_path, *words)
    (arm,) = json.loads((tmp_path / "sweep" / "summary.json").read_text())["arms"]
    assert (arm["n"], [a["status"] for a in arm["attempts"]], arm["not_complete"]) == (2, ["lost"], [])
    assert arm["submission"]["written"]


@pytest.mark.slow
def test_no_more_jobs_start_once_so_many_have_failed(tmp_path):
    words = ("-m", "seed=1,2,3", "hydra.sweep.dir=sweep", "limits.artifact_bytes=1000", "stop_after=1", *STEPS)
    failed = run(tmp_path, *words, code=1)
    assert "over limits.artifact_bytes=1,000" in failed.stderr
    sweep = tmp_path / "sweep"
    assert [p.parent.name[-5:] for p in sweep.glob("*_seed*/record.json")] == ["seed1"]
    (arm,) = json.loads((sweep / "summary.json").read_text())["arms"]
    assert [row["status"] for row in arm["not_complete"]] == ["failed", "missing", "missing"]
    again = run(tmp_path, *words, code=1)
    told = [line for line in again.stderr.splitlines() if line.startswith("pgolf: ")]
    assert [line[:17] for line in told] == ["pgolf: artifact 1", "pgolf: not starte", "pgolf: not starte"], (
        "each in words"
    )
    assert len(list(sweep.glob("*_seed1/record.json"))) == 1, "the failed seed was tried again, and failed again"


# The parts, without a run.


def arms(*seeds: int, program: str = "a" * 64, sha: str = "b" * 64) -> list[dict]:
    return [{"arm": "default", "arm_sha256": sha, "program_sha256": program, "seeds": list(seeds)}]


def test_a_plan_is_written_once_and_amended(tmp_path):
    agreed(tmp_path, arms(1, 2), 0)
    first = (tmp_path / "plan.json").read_bytes()
    agreed(tmp_path, arms(2), 1)
    assert (tmp_path / "plan.json").read_bytes() == first
    agreed(tmp_path, arms(1, 2, 3), 0)
    plan = agreed(tmp_path, arms(4, 5), 3)
    assert plan.fields["arms"] == json.loads(first)["arms"]
    assert plan.seeds("b" * 64) == [1, 2, 3, 4, 5]
    assert [plan.argument("b" * 64, seed) for seed in (1, 3, 4)] == [None, None, ADDED]
    assert read_plan(tmp_path) == plan


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p["arms"][0]["seeds"].append(9), "was changed after it was written"),
        (lambda p: p.update(created="2020-01-01"), "was changed after it was written"),
        (lambda p: p["amendments"][0].update(results=0), "was changed after it was written"),
        (lambda p: p["amendments"][0]["arms"][0].update(seeds=[8]), "was changed after it was written"),
        (lambda p: p["amendments"].pop(0), "was changed after it was written"),
        (lambda p: p.update(seal="0"), "was changed after it was written"),
        (lambda p: p.update(arms=3), "must hold arms"),
        (lambda p: p.update(amendments=[{"arms": []}]), "must hold arms"),
        (lambda p: p.pop("identity"), "of an older version"),
    ],
)
def test_a_plan_that_was_changed_by_hand_is_seen(tmp_path, change, said):
    agreed(tmp_path, arms(1), 0)
    agreed(tmp_path, arms(1, 2), 1)
    agreed(tmp_path, arms(1, 2, 3), 2)
    plan = json.loads((tmp_path / "plan.json").read_text())
    change(plan)
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match=said):
        agreed(tmp_path, arms(1, 2, 3), 3)


@pytest.mark.parametrize(
    ("other", "said"), [({"program": "c" * 64}, "the code of"), ({"sha": "c" * 64}, "other numbers")]
)
def test_a_plan_of_something_else_is_refused(tmp_path, other, said):
    agreed(tmp_path, arms(1), 0)
    with pytest.raises(UserError, match=said):
        agreed(tmp_path, arms(1, **other), 0)


def test_what_is_left_is_put_aside_whole_and_numbered(tmp_path):
    folder = tmp_path / "abc_seed1"
    for number in (1, 2):
        died(tmp_path, folder.name, 1, "failed", "x") if number == 1 else (folder / "record.json").write_text("{")
        (folder / ".hydra").mkdir(exist_ok=True)
        with owned(folder):
            assert before(folder).stage is None
            assert put_aside(folder) == tmp_path / "attempts" / f"abc_seed1_{number}"
        assert [p.name for p in folder.iterdir()] == [".hydra"]
    assert aggregate(tmp_path)["problems"][0]["run"] == "abc_seed1"


def test_one_owner_at_a_time_and_no_stale_lock(tmp_path):
    with owned(tmp_path), pytest.raises(HeldError, match="another process is at it"):
        owned(tmp_path).__enter__()
    assert (tmp_path / LOCK).exists(), "a file that locks nothing"
    if child := os.fork():
        os.waitpid(child, 0)
    else:  # dies with the lock in its hands
        with locked(tmp_path / LOCK, "x"):
            os.kill(os.getpid(), signal.SIGKILL)
    with owned(tmp_path):
        pass


def test_records_of_older_versions_join_todays_by_what_their_configs_compute(swept, tmp_path):
    """The older one hashed its whole config, the cache included."""
    sweep = tmp_path / "sweep"
    shutil.copytree(swept, sweep)
    (sweep / "plan.json").unlink()
    old = jobs(sweep)[1]
    kept = {
        k: v for k, v in record(old).items() if k not in ("identity", "text", "process", "interruptions", "argument")
    }
    (old / "record.json").write_text(json.dumps(kept | {"arm_sha256": sha256_of({"an": "old hash"}), "pgolf": "0.1.0"}))
    (arm,) = summarise(sweep)["arms"]
    assert (arm["n"], arm["arm_sha256"]) == (2, record(jobs(sweep)[0])["arm_sha256"])
    make_plan(sweep, default=[1])
    with pytest.raises(UserError, match="of an older version"):
        agreed(sweep, arms(1), 0)
    assert record(jobs(sweep)[0])["identity"] == IDENTITY


def test_seeds_on_two_texts_have_no_mean(tmp_path):
    for seed, manifest in ((1, "m"), (2, "n")):
        folder = make_run(tmp_path, f"{seed}", seed)
        made = record(folder)
        (folder / "record.json").write_text(
            json.dumps(made | {"data": made["data"] | {"manifest_sha256": manifest * 64}})
        )
    assert "the text differs between seeds" in summarise(tmp_path)["arms"][0]["refused"]
    assert only(tmp_path, "1") == tmp_path / "1"
