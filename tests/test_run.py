"""The command line from words to files: one run, two ranks, a sweep, and everything that can be mistyped."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import TINY, command, environment, only, record, run, start
from tests.processes import PATIENCE, children, command_of, descendants, parent_of, until, until_gone, until_line

STEPS = ("limits.train_steps=6", *TINY)


@pytest.fixture(scope="module")
def laptop(tmp_path_factory):
    """One complete run against the clock: (folder of the run, what it printed)."""
    place = tmp_path_factory.mktemp("laptop")
    done = run(place, *TINY, "limits.train_seconds=8")
    return only(place, "runs/*"), done.stdout


def test_a_run_leaves_what_it_promises(laptop):
    folder, printed = laptop
    files = {p.name for p in folder.iterdir()}
    assert {"config.yaml", "record.json", "events.jsonl", "train.log", "artifact.pgolf", "train_gpt.py"} <= files
    kept = record(folder)
    assert (kept["status"], kept["verdict"], kept["train"]["stopped_by"]) == ("complete", "consistent", "clock")
    last = printed.strip().splitlines()[-1]
    bpb = f"{kept['evaluate']['val_bpb']:.8f}"
    assert last == f"val_bpb={bpb} artifact_bytes={kept['artifact']['bytes']} verdict=consistent run={folder}"


def test_a_run_begins_with_its_plan_and_ends_with_where_it_is(laptop):
    folder, printed = laptop
    lines = printed.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("begin pgolf="))
    plan = lines[start - 5 : start]
    assert [line.split()[0] for line in plan] == ["run", "on", "size", "clocks", "files"]
    assert str(folder) in plan[-1]
    assert f"{record(folder)['train']['parameters']:,} parameters" in plan[2]


def test_the_artifact_is_the_one_that_was_weighed_and_judged(laptop):
    folder, _ = laptop
    kept, data = record(folder), (folder / "artifact.pgolf").read_bytes()
    assert kept["artifact"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert kept["artifact"]["bytes"] == len(data) == sum(kept["artifact"]["groups"].values())
    assert kept["code"]["bytes"] == len((folder / "train_gpt.py").read_bytes())


def test_both_clocks_are_kept_and_their_phases_named(laptop):
    kept = record(laptop[0])
    train, judged = kept["train"], kept["evaluate"]
    assert train["seconds"] <= 8
    assert judged["seconds"] <= 60
    assert {"steps", "average", "calibrate", "quantize and pack"} == train["phases"].keys()
    assert {"load", "prove bytes", "score"} == judged["phases"].keys()
    assert sum(train["phases"].values()) == pytest.approx(train["seconds"], abs=0.5)


def test_every_target_and_byte_is_counted(laptop):
    kept = record(laptop[0])
    assert kept["evaluate"]["tokens"] == kept["data"]["val_tokens"] - 1
    assert kept["evaluate"]["bytes"] == kept["evaluate"]["proven_bytes"] == kept["data"]["val_bytes"]
    assert kept["evaluate"]["visits"] == [1, 1]


def test_the_log_is_closed_and_names_its_code_at_both_ends(laptop):
    folder, printed = laptop
    log = (folder / "train.log").read_text()
    lines, kept = log.splitlines(), record(folder)
    assert lines[0].startswith("begin pgolf=")
    assert re.fullmatch(
        rf"end .* code_sha256={kept['code']['sha256']} .* status=complete lines={len(lines)}", lines[-1]
    )
    assert kept["code"]["sha256"] in lines[0]
    assert kept["log_sha256"] == hashlib.sha256(log.encode()).hexdigest()
    assert f"val_bpb={kept['evaluate']['val_bpb']:.8f}" in log
    assert set(lines) <= set(printed.splitlines()), "what is logged is what was shown"


def test_events_are_json_lines(laptop):
    events = [json.loads(line) for line in (laptop[0] / "events.jsonl").read_text().splitlines()]
    assert {"step", "dev", "sealed", "score"} <= {e["event"] for e in events}


def test_parts_that_are_on_left_receipts(laptop):
    receipts = record(laptop[0])["receipts"]
    assert {"average", "quant", "ttt"} <= {r["part"].split(".")[0] for r in receipts}
    assert all(r["alive"] for r in receipts)


@pytest.mark.slow
def test_same_seed_and_steps_give_the_same_bits_quietly_too(tmp_path):
    shas = []
    for place, words in (("a", ()), ("b", ("--quiet",))):
        (tmp_path / place).mkdir()
        done = run(tmp_path / place, *STEPS, *words)
        folder = only(tmp_path / place, "runs/*")
        kept = record(folder)
        shas.append((kept["artifact"]["sha256"], kept["evaluate"]["val_bpb"], kept["code"]["sha256"]))
    assert shas[0] == shas[1]
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"val_bpb={kept['evaluate']['val_bpb']:.8f} ")
    assert line.endswith(f" run={folder}")
    assert done.stderr == ""
    assert len((folder / "train.log").read_text().splitlines()) > 10, "the log says all the same"


def losses(folder) -> list[float]:
    events = (json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines())
    return [e["loss"] if e["event"] == "step" else e["dev_bpb"] for e in events if e["event"] in ("step", "dev")]


@pytest.mark.parametrize("many", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_many_ranks_give_the_curve_of_one(tmp_path, many):
    curves = {}
    for ranks in (1, many):
        place = tmp_path / str(ranks)
        place.mkdir()
        run(place, f"machine.ranks={ranks}", "machine.micro_batch_tokens=256", "ttt=none", *STEPS)
        folder = only(place, "runs/*")
        curves[ranks] = [*losses(folder), record(folder)["evaluate"]["val_bpb"]]
    assert len(curves[1]) >= 3
    assert curves[many] == pytest.approx(curves[1], rel=2e-4)


def test_a_sweep_ends_in_a_submission(tmp_path):
    done = run(tmp_path, "-m", "seed=1,2,3", "hydra.sweep.dir=sweep", "--quiet", *STEPS)
    assert [line.split("=")[0] for line in done.stdout.splitlines()] == ["val_bpb"] * 3
    assert done.stderr == ""
    sweep = tmp_path / "sweep"
    summary = json.loads((sweep / "summary.json").read_text())
    (arm,) = summary["arms"]
    scores = [record(folder)["evaluate"]["val_bpb"] for folder in sorted(sweep.glob("*_seed*"))]
    assert [row["val_bpb"] for row in arm["seeds"]] == pytest.approx(scores, abs=5e-9)
    assert arm["submission"] == {"written": True, "folder": arm["submission"]["folder"]}, arm["submission"]
    folder = sweep / arm["submission"]["folder"]
    names = {p.name for p in folder.iterdir()}
    assert names == {"README.md", "submission.json", "train_gpt.py", "requirements.txt"} | {
        f"train_seed{seed}.log" for seed in (1, 2, 3)
    }
    stated = json.loads((folder / "submission.json").read_text())
    printed = [round(score, 8) for score in scores]  # the mean is of the figures that the table shows
    assert stated["val_bpb"] == pytest.approx(sum(printed) / 3, abs=5.001e-9)
    for score in scores:
        assert f"{score:.8f}" in (folder / "README.md").read_text()


@pytest.mark.slow
def test_a_failed_seed_is_named_and_not_averaged(tmp_path):
    words = ("-m", "seed=1,2", "hydra.sweep.dir=sweep", "limits.artifact_bytes=1000", *STEPS)
    failed = run(tmp_path, *words, code=1)
    assert "over limits.artifact_bytes=1,000" in failed.stderr
    (arm,) = json.loads((tmp_path / "sweep/summary.json").read_text())["arms"]
    assert not arm["submission"]["written"]
    assert len(list((tmp_path / "sweep").glob("*_seed*/record.json"))) == 2, "the second seed was still tried"


@pytest.mark.slow
def test_interrupting_a_sweep_stops_it_and_the_record_says_so(tmp_path):
    words = ("-m", "seed=1,2", "hydra.sweep.dir=sweep", *TINY)
    sweep = start(tmp_path, *words)
    wait_for(tmp_path, "sweep/*_seed*/events.jsonl")
    sweep.send_signal(signal.SIGINT)
    _, said = sweep.communicate(timeout=1200)
    assert sweep.returncode == 130, said
    folders = list(tmp_path.glob("sweep/*_seed*"))
    assert len(folders) == 1
    kept = record(folders[0])
    assert kept["status"] == "interrupted"
    assert "status=interrupted" in (folders[0] / "train.log").read_text().splitlines()[-1]


@pytest.mark.slow
def test_a_clock_too_short_to_train_is_refused_before_it_starts(tmp_path):
    done = run(tmp_path, *TINY, "limits.train_seconds=0.4", "hydra.run.dir=run", code=2)
    assert "pgolf: limits.train_seconds=0.4: too short on this machine, where" in done.stderr
    assert "Nothing was trained" in done.stderr
    kept = record(tmp_path / "run")
    assert (kept["status"], kept["train"]) == ("failed", None)


def wait_for(folder: Path, pattern: str) -> None:
    until(lambda: list(folder.glob(pattern)), f"no {pattern}")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_rank_ends_the_run_and_the_record_says_so(tmp_path):
    running = start(tmp_path, "machine.ranks=2", *TINY)
    wait_for(tmp_path, "runs/*/events.jsonl")
    (server,) = [p for p in children(running.pid) if b"forkserver" in Path(f"/proc/{p}/cmdline").read_bytes()]
    ranks = children(server)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    _, said = running.communicate(timeout=1200)
    assert running.returncode == 1
    assert "died with exit code -9" in said
    assert "Traceback" not in said
    folder = only(tmp_path, "runs/*")
    kept = record(folder)
    assert (kept["status"], kept["evaluate"]) == ("failed", None)
    assert "died with exit code -9" in kept["error"]
    assert "status=failed" in (folder / "train.log").read_text().splitlines()[-1]
    assert not [p for p in ranks if parent_of(p) == server]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_parent_that_is_killed_while_its_ranks_judge_leaves_nothing(tmp_path):
    """kill -9: the ranks that run train_gpt.py, the process that was to draw and the one that ranks are forked from all end."""
    slow = ("eval.stride=1", "eval.batch_windows=1", "ttt=none")
    running = start(tmp_path, *STEPS, *slow, "machine.ranks=2", "hydra.run.dir=run")
    until_line(tmp_path / "run" / "events.jsonl", '"validation"')
    assert sum(b"train_gpt.py" in command_of(p) for p in children(running.pid)) == 2
    family = descendants(running.pid)
    running.kill()
    running.communicate(timeout=1200)
    until_gone(family)
    assert record(tmp_path / "run")["status"] == "running"


FAULTY = """
import os
from pgolf.data import ShuffledWindows

whole = ShuffledWindows.build

def build(self, *args):
    if os.environ.get("RANK") == "1":
        raise OSError("the disk is on fire")
    return whole(self, *args)

ShuffledWindows.build = build
"""


@pytest.mark.slow
def test_the_traceback_of_the_rank_that_failed_is_all_that_is_said(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(FAULTY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = run(tmp_path, "machine.ranks=2", *STEPS, code=1)
    assert done.stderr.startswith("pgolf: rank 1 failed.\n")
    assert "OSError: the disk is on fire" in done.stderr
    assert done.stderr.count("Traceback") == 1
    assert len(done.stderr.splitlines()) < 30, "it fits a screen"
    assert str(only(tmp_path, "runs/*")) in done.stderr.splitlines()[-1]
    assert "step 1 " not in done.stdout


@pytest.mark.slow
def test_a_wheel_runs_from_another_directory(tmp_path):
    root = Path(__file__).resolve().parent.parent
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(root),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("pgolf-*.whl")
    site, place = tmp_path / "site", tmp_path / "elsewhere"
    place.mkdir()
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    words = command(*STEPS, "ttt=none", "eval=chunked")
    words = [w for w in words if not w.startswith("eval.stride")]
    env = environment() | {"PYTHONPATH": str(site)}
    done = subprocess.run(words, cwd=place, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "verdict=consistent" in done.stdout.splitlines()[-1]
    where = subprocess.run(
        [sys.executable, "-c", "import pgolf; print(pgolf.__file__)"],
        cwd=place,
        env=env,
        capture_output=True,
        text=True,
    )
    assert where.stdout.startswith(str(site))
    assert {"conf", "experiments"} <= {p.name for p in (site / "pgolf").iterdir()}


REFUSED = {
    "quant.bitz=5": "quant.bitz: there is no such key. Did you mean 'quant.bits'?",
    "bogus=1": "bogus: there is no such key. There are: machine, data",
    "quant=int9": "quant=int9: there is no such option.",
    "quant.bits=9": "quant.bits=9: must be between 2 and 8",
    "quant.bits=five": "quant.bits='five': Value 'five' of type 'str' could not be converted to Integer",
    "model.heads=3": "model.heads=3: must be a divisor of model.width (128)",
    "data.batch_tokens=1000": "data.batch_tokens=1000: must be a multiple of",
    "machine.ranks=3": "data.batch_tokens=2048: must be a multiple of machine.ranks x data.sequence_length = 3 x 256",
    "limits.train_seconds=0": "limits.train_seconds=0.0: must be more than 0",
    "seed=three": "seed.value='???': must be given",
    "seed=-1": "seed.value=-1: must be from 0 to",
    "experiment=nope": "experiment=nope: there is no such option.",
    "dry=yes": "dry='yes': must be true or false",
    "name=a/b": "name='a/b': must be letters",
    "eval.stride=4096": "eval.stride=4096: must be between 1 and eval.context",
    "+quant.x=1": "quant.x=1: is not a field of Symmetric",
    "codec._target_=os.path": "codec._target_='os.path': os is the name of a standard module",
    "machine=gpu8": "machine.ranks=8: needs a GPU for every rank",
    "trained=3": "3/record.json: cannot be read",
    "quant=5": "a group takes the name of an option",
}


@pytest.mark.parametrize("word", REFUSED)
def test_what_is_mistyped_is_refused_with_one_message(tmp_path, word):
    done = run(tmp_path, word, code=2)
    assert REFUSED[word] in done.stderr
    assert done.stderr.startswith("pgolf: ")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_looked_for_in_the_options_that_were_chosen(tmp_path):
    done = run(tmp_path, "ttt=none", "ttt.epoch=1", code=2)
    assert done.stderr == "pgolf: ttt.epoch: there is no such key. There are: ttt.chunk_tokens.\n"


def test_a_sweep_with_one_bad_arm_does_not_start(tmp_path):
    done = run(tmp_path, "-m", "seed=1,2", "quant.bits=5,9", code=2)
    assert done.stderr.startswith("pgolf: quant.bits=9: must be between 2 and 8")
    assert list(tmp_path.iterdir()) == []


def test_dry_prints_the_plan_and_starts_nothing(tmp_path):
    done = run(tmp_path, "-m", "seed=three", "quant=int5_gptq,int6_gptq", "dry=true")
    assert done.stdout.count("seed 1337, 42, 7") == 2
    for word in (
        "parameters; about",
        "of code; cap 16,000,000",
        "GFLOP a step",
        "training tokens needed",
        "evaluation clock",
    ):
        assert word in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("word", ["seed=42", "seed.value=42"])
def test_both_spellings_of_a_seed(tmp_path, word):
    assert "seed 42" in run(tmp_path, word, "dry=true").stdout


def test_help_and_errors_do_not_import_torch(tmp_path):
    for words in (["--help"], ["quant.bits=9"]):
        lines = [
            "import sys, runpy; sys.argv = ['pgolf.run', *sys.argv[1:]]",
            "try: runpy.run_module('pgolf.run', run_name='__main__')",
            "finally: print('torch' in sys.modules, file=sys.stderr)",
        ]
        ran = [sys.executable, "-c", "\n".join(lines), *words]
        done = subprocess.run(ran, cwd=tmp_path, capture_output=True, text=True, env=environment())
        assert done.stderr.strip().endswith("False"), done.stderr
