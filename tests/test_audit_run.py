"""The audit of a real run folder: what is whole passes, and every doctored file, figure or evaluator is named."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from pgolf.audit.__main__ import main
from pgolf.audit.finding import overall
from pgolf.audit.loaded import LoadedRun, Places, prepared
from pgolf.audit.run import GPU_DRIFT, REST, audit_run, compared, experiments, threads, weighed
from pgolf.config.compose import rehearse
from pgolf.config.identity import config_sha256
from pgolf.errors import UserError
from pgolf.machine import Device
from pgolf.machine.outlet import outlet
from pgolf.show.console import QuietConsole
from tests import programs
from tests.command import TINY, environment, only, run
from tests.options import stated
from tests.processes import PATIENCE

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("audited")
    run(place, "limits.train_steps=3", *TINY)
    return only(place, "runs/*")


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.fixture
def unprobed(monkeypatch):
    """Without the experiments and the scoring again, for tests of everything else."""
    monkeypatch.setattr("pgolf.audit.run.experiments", lambda case: [])
    monkeypatch.setattr("pgolf.audit.run.rescored", lambda case, seconds: [])


def doctored(folder: Path, change) -> None:
    record = json.loads((folder / "record.json").read_text())
    change(record)
    (folder / "record.json").write_text(json.dumps(record))


def configured(folder: Path, change) -> None:
    """Another config, with a record that names it."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    change(config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    doctored(folder, lambda record: record.update(config_sha256=config_sha256(config, None, {})))


def failed(folder: Path, **how) -> dict[str, str]:
    """What failed, by rule."""
    return {f.rule: f"{f.where}: {f.what}" for f in audit_run(folder, **how) if f.verdict == "fail"}


def test_a_whole_run_is_consistent_and_scores_the_same_again(folder, capfd, monkeypatch):
    monkeypatch.setattr("pgolf.show.console.PLAIN_SECONDS", 0.0)
    assert main([str(folder), "full=true"]) == 0
    assert outlet(2).drain(60.0) is None
    told = capfd.readouterr()
    assert re.search(r"^experiments +\d+%  experiment 7 of 7  \d+ s to go$", told.err, re.MULTILINE)
    assert re.search(r"^scoring again  100%  ([\d,]+) of \1 targets  0 s to go$", told.err, re.MULTILINE)
    assert REST not in told.out
    lines = told.out.splitlines()
    stated = json.loads((folder / "record.json").read_text())["evaluate"]["val_bpb"]
    assert lines[0] == "verdict consistent"
    assert any(f"val_bpb={stated:.8f}, recorded {stated:.8f} (difference +0.0e+00" in line for line in lines)
    assert all(rule in " ".join(lines) for rule in ("C1", "C2", "C3", "C4", "mistakes 1-6", "mistake 7", "mistake 19"))


DOCTORED = {
    "partial split": ("mistake 7", lambda r: r["evaluate"].update(tokens=r["evaluate"]["tokens"] // 2)),
    "double space": ("mistakes 1-6", lambda r: r["evaluate"].update(bytes=int(r["evaluate"]["bytes"] * 1.17))),
    "a better score": ("mistake 25", lambda r: r["evaluate"].update(val_bpb=1.0)),
    "skipped targets": ("mistake 8", lambda r: r["evaluate"].update(visits=[0, 1])),
    "over the cap": ("mistake 20", lambda r: r["limits"].update(artifact_bytes=1000)),
    "late training": ("mistake 18", lambda r: r["limits"].update(train_seconds=0.001)),
    "late evaluation": ("mistake 19", lambda r: r["limits"].update(eval_seconds=0.001)),
    "work outside the clock": ("mistake 19", lambda r: r["evaluate"]["trace"][0].update(seconds=500.0)),
    "a dead part": ("mistake 33", lambda r: r["receipts"][0].update(alive=False)),
    "validation in training": ("C3", lambda r: r["train"].update(validation_tokens=5)),
    "adapted, then scored": ("C3", lambda r: r["evaluate"]["trace"].insert(0, r["evaluate"]["trace"].pop(1))),
    "other parameters": ("C3", lambda r: r["evaluate"]["trace"][0].update(sha="0" * 16)),
    "judged by another file": ("mistake 21", lambda r: r["evaluate"].update(code_sha256="0" * 64)),
    "another config": ("mistake 28", lambda r: r.update(config_sha256="0" * 64)),
    "another text": ("mistake 7", lambda r: r["data"].update(manifest_sha256="0" * 64)),
}


@pytest.mark.usefixtures("unprobed")
@pytest.mark.parametrize("name", DOCTORED)
def test_a_doctored_record_is_named(folder, name):
    rule, change = DOCTORED[name]
    doctored(folder, change)
    assert rule in failed(folder)


def of_the_code(folder: Path) -> tuple[str, str]:
    """What is found of the code that evaluated."""
    (found,) = (f for f in audit_run(folder) if f.rule == "code")
    return found.verdict, found.what


@pytest.mark.usefixtures("unprobed")
def test_it_is_said_whether_the_experiments_run_the_code_that_judged(folder, monkeypatch):
    weighed = json.loads((folder / "record.json").read_text())["code"]["sha256"]
    for ours, verdict in ((weighed, "note"), ("f" * 64, "needs argument")):
        exported = SimpleNamespace(section=lambda sha256=ours: {"sha256": sha256})
        monkeypatch.setattr("pgolf.audit.run.script", lambda config, corpus, exported=exported: exported)
        found = of_the_code(folder)
        assert found[0] == verdict
        assert ours[:16] in found[1]
    doctored(folder, lambda record: record["evaluate"].pop("code_sha256"))
    assert of_the_code(folder)[0] == "needs argument"


@pytest.mark.usefixtures("unprobed")
@pytest.mark.parametrize(
    ("file", "rule"), [("train_gpt.py", "mistake 28"), ("train.log", "mistake 25"), ("artifact.pgolf", "mistake 21")]
)
def test_a_changed_file_is_named(folder, file, rule):
    (folder / file).write_bytes((folder / file).read_bytes() + b"\n")
    assert rule in failed(folder)


def test_a_cheating_evaluator_named_by_the_config_is_caught(folder, capsys):
    cheat = {"_target_": "tests.cheats.TargetTemperature", "chunk_tokens": 4096}
    configured(folder, lambda config: config.update(ttt=cheat))
    assert main([str(folder)]) == 2, "a stranger's code is not imported unasked"
    assert "ttt._target_='tests.cheats.TargetTemperature' is code that is not pgolf's" in capsys.readouterr().err
    assert main([str(folder), "trust=true"]) == 1
    printed = capsys.readouterr().out
    assert "made-up targets" in printed
    assert printed.splitlines()[0] == "verdict fail (C2, mistake 25)"


def test_adapters_that_are_never_reset_are_caught_on_the_excerpt(folder):
    """Documents side by side are few there, so that there are several groups of them."""
    spec = stated("ttt", "lora_score_first") | {"_target_": "tests.cheats.NeverReset", "chunk_tokens": 128}
    configured(folder, lambda config: config.update(ttt=spec))
    found = experiments(LoadedRun.open(folder, trust=True))
    assert any(f.rule == "mistake 16" and f.verdict == "fail" for f in found), found


def test_a_score_the_artifact_does_not_have_is_found_by_scoring_again(folder, monkeypatch):
    monkeypatch.setattr("pgolf.audit.run.experiments", lambda case: [])
    shift = 0.01

    def better(record):
        judged = record["evaluate"]
        for row in judged["trace"]:
            row["bpb"] -= shift
        judged["val_loss"] *= 1 - shift / judged["val_bpb"]
        judged["val_bpb"] -= shift

    doctored(folder, better)
    assert "from the artifact alone" in failed(folder)["mistake 25"]


def forged(record: dict, bpb: float) -> None:
    """Another score, at which val_loss, tokens and bytes arrive too."""
    record["evaluate"]["val_loss"] *= bpb / record["evaluate"]["val_bpb"]
    record["evaluate"]["val_bpb"] = bpb


@pytest.mark.usefixtures("unprobed")
def test_a_score_at_which_the_trace_does_not_arrive_is_named(folder):
    doctored(folder, lambda record: forged(record, 1.0))
    assert "trace: val_bpb is 1.00000000, but the trace ends at" in failed(folder)["mistake 25"]


@pytest.mark.usefixtures("unprobed")
def test_a_trace_that_leaves_chunks_out_is_named(folder):
    def shorter(record):
        del record["evaluate"]["trace"][-2:]
        forged(record, record["evaluate"]["trace"][-1]["bpb"])

    doctored(folder, shorter)
    assert re.search(r"trace: \d+ chunks were scored, the plan has \d+", failed(folder)["mistake 25"])


def test_what_was_not_scored_again_is_said(folder):
    case = LoadedRun.open(folder)
    trace, chunks = case.run.record["evaluate"]["trace"], case.chunks()
    assert compared(case, {1: trace[0]["bpb"]}, chunks).fix == REST
    assert compared(case, {1: trace[0]["bpb"], chunks: trace[-1]["bpb"]}, chunks).fix == ""
    assert compared(case, {}, chunks).verdict == "needs argument"


@pytest.mark.parametrize(
    ("device", "gpus", "verdict"),
    [
        ("AUTO", [], "fail"),
        ("AUTO", ["H100"], "needs argument"),
        ("CPU", ["H100"], "needs argument"),
        ("CUDA", [], "note"),
    ],
)
def test_a_forged_environment_does_not_widen_what_is_arithmetic(device, gpus, verdict, monkeypatch):
    monkeypatch.setattr("pgolf.audit.run.device", lambda machine: "cpu")
    case = SimpleNamespace(
        machine=SimpleNamespace(device=Device[device]), run=SimpleNamespace(record={"environment": {"gpus": gpus}})
    )
    assert weighed(case, "1 of 2 chunks", 1.0, GPU_DRIFT / 2, "").verdict == verdict
    assert weighed(case, "1 of 2 chunks", 1.0, GPU_DRIFT * 2, "").verdict == "fail"


def test_an_audit_has_the_runs_threads_as_far_as_they_are_here():
    cores = len(os.sched_getaffinity(0))
    assert [threads(SimpleNamespace(threads=n)) for n in (1, None, 10**6)] == [1, cores, cores]


DATA = {"cache": "~/.cache/pgolf", "folder": "~/.cache/pgolf/shards"}


@pytest.mark.parametrize(
    ("places", "data", "found"),
    [
        (Places(), DATA, DATA),
        (Places({}, "/c"), DATA, {"cache": "/c", "folder": "/c/shards"}),
        (Places({}, "/c"), {"cache": "/a", "folder": "/b"}, {"cache": "/c", "folder": "/b"}),
        (Places({"folder": "/f"}, "/c"), DATA, {"cache": "/c", "folder": "/f"}),
        (Places({"cache": "/d"}, None), DATA, DATA | {"cache": "/d"}),
        (Places({}, "/c"), {"cache": "/a"}, {"cache": "/c"}),
        (Places({}, "/c"), None, None),
    ],
)
def test_data_are_where_words_or_the_environment_say(places, data, found):
    assert places.applied(data) == found


@pytest.mark.usefixtures("unprobed")
def test_a_run_from_another_machine(folder, tmp_path, monkeypatch, capsys):
    """Its cache cannot be there; a word or PGOLF_CACHE names ours, and the config keeps its hash."""
    here = yaml.safe_load((folder / "config.yaml").read_text())["data"]["cache"]
    (tmp_path / "file").write_text("")
    configured(folder, lambda config: config["data"].update(cache=str(tmp_path / "file/cache")))
    monkeypatch.setenv("PGOLF_CACHE", "")
    assert main([str(folder)]) == 2
    assert "or where data.folder=DIR, data.cache=DIR or PGOLF_CACHE says" in capsys.readouterr().err
    monkeypatch.setenv("GOMP_SPINCOUNT", "")
    monkeypatch.delenv("GOMP_SPINCOUNT")
    assert main([str(folder), f"data.cache={here}"]) == 0
    assert int(os.environ["GOMP_SPINCOUNT"]) < 10_000
    monkeypatch.setenv("PGOLF_CACHE", here)
    capsys.readouterr()
    assert main([str(folder), "--json", "--quiet"]) == 0
    told = capsys.readouterr()
    value = programs.said(told.out, "pgolf.audit", 0)
    assert (value["path"], value["verdict"], told.err) == (str(folder), "consistent", "")


def test_missing_shards_are_told_with_a_way_that_works(tmp_path, monkeypatch):
    monkeypatch.setenv("PGOLF_CACHE", str(tmp_path))
    (job,) = rehearse(["data=fineweb_sp1024"], sweep=False)
    with pytest.raises(UserError, match=r"no fineweb_train_\*\.bin there.*data\.folder=DIR"):
        prepared(job.config["data"], QuietConsole())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.pop("trace"), "evaluate.trace is missing; it must be of type list"),
        (lambda e: e["trace"][1].pop("sha"), "evaluate.trace row 1 is "),
        (lambda e: e["trace"][0].update(bpb="low"), "evaluate.trace row 0 is "),
        (lambda e: e["trace"].insert(0, 5), "evaluate.trace row 0 is 5; it must have chunk (int), "),
    ],
)
def test_a_record_whose_trace_has_no_shape_is_one_message(folder, change, message, capsys):
    doctored(folder, lambda record: change(record["evaluate"]))
    assert main([str(folder)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("unprobed")
def test_an_empty_trace_shows_nothing(folder):
    doctored(folder, lambda record: record["evaluate"].update(trace=[]))
    assert "mistake 25" in failed(folder)


def test_a_run_without_its_artifact_is_not_taken_for_a_submission(folder, capsys):
    (folder / "artifact.pgolf").unlink()
    assert main([str(folder)]) == 2
    assert "this run's artifact is not here (artifact.pgolf)" in capsys.readouterr().err


def test_an_evaluation_killed_half_way_is_done_again_from_the_artifact_alone(folder, monkeypatch):
    """All that is left is what there is while judging: no score in the record, no end of the log."""
    monkeypatch.setattr("pgolf.audit.run.experiments", lambda case: [])
    stated = json.loads((folder / "record.json").read_text())["evaluate"]["val_bpb"]
    doctored(folder, lambda r: r.update(status="running", evaluate=None, verdict=None, log_sha256=None))
    findings = audit_run(folder, full=True)
    assert overall(findings) == "needs argument (mistake 27)"
    assert not any("full=true" in f.fix for f in findings)
    assert any(f.what.endswith(f"from the artifact alone: val_bpb={stated:.8f}") for f in findings)


@pytest.mark.slow
def test_an_artifact_of_another_vocabulary_is_refused(folder, capsys):
    configured(folder, lambda config: config["data"].update(vocab_size=512))
    doctored(folder, lambda r: r["data"].update(manifest_sha256="another"))
    assert main([str(folder)]) == 1
    assert "a model of 1024 pieces cannot score text of 512 pieces" in capsys.readouterr().out


def test_a_run_that_sealed_nothing_has_nothing_to_judge(folder):
    doctored(folder, lambda r: r.update(status="failed", artifact=None, evaluate=None))
    with pytest.raises(UserError, match=r"sealed no artifact \(status failed\)"):
        audit_run(folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "usage: "), (["a", "b"], "usage: "), (["nowhere"], "'nowhere': not a folder")],
)
def test_misuse_is_one_message_and_exit_code_2(words, message, capsys):
    assert main(words) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.out == ""


def test_a_broken_config_is_one_message(folder, capsys):
    (folder / "config.yaml").write_text("ttt: [unclosed")
    assert main([str(folder)]) == 2
    assert "config.yaml: cannot be read" in capsys.readouterr().err


def test_the_command_line(folder):
    (folder / "record.json").write_text("{}")
    words = [sys.executable, "-m", "pgolf.audit", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pgolf: ")
    assert "Traceback" not in done.stderr
