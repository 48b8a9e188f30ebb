"""The audit of a real run folder: what is whole passes, and every doctored file, figure or evaluator is named."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from pgolf.audit.__main__ import main
from pgolf.audit.finding import overall
from pgolf.audit.run import Case, audit_run, experiments
from pgolf.compose import sha256_of
from pgolf.errors import UserError
from tests.command import TINY, environment, only, run

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("audited")
    run(place, "limits.train_steps=3", "limits.train_seconds=600", "limits.eval_seconds=600", *TINY)
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
    doctored(folder, lambda record: record.update(config_sha256=sha256_of(config)))


def failed(folder: Path, **how) -> dict[str, str]:
    """What failed, by rule."""
    return {f.rule: f"{f.where}: {f.what}" for f in audit_run(folder, **how) if f.verdict == "fail"}


def test_a_whole_run_is_consistent_and_scores_the_same_again(folder, capsys):
    assert main([str(folder), "full=true"]) == 0
    lines = capsys.readouterr().out.splitlines()
    stated = json.loads((folder / "record.json").read_text())["evaluate"]["val_bpb"]
    assert lines[-1] == "verdict consistent"
    assert any(f"val_bpb={stated:.8f}, recorded {stated:.8f} (difference +0.0e+00" in line for line in lines)
    assert all(rule in " ".join(lines) for rule in ("C1", "C2", "C3", "C4", "mistakes 1-6", "mistake 7", "mistake 19"))


DOCTORED = {
    "partial split": ("mistake 7", lambda r: r["evaluate"].update(tokens=r["evaluate"]["tokens"] // 2)),
    "double space": ("mistakes 1-6", lambda r: r["evaluate"].update(bytes=int(r["evaluate"]["bytes"] * 1.17))),
    "a better score": ("mistake 25", lambda r: r["evaluate"].update(val_bpb=1.0)),
    "skipped targets": ("mistake 8", lambda r: r["evaluate"].update(visits_ok=False)),
    "over the cap": ("mistake 20", lambda r: r["limits"].update(artifact_bytes=1000)),
    "late training": ("mistake 18", lambda r: r["limits"].update(train_seconds=0.001)),
    "late evaluation": ("mistake 19", lambda r: r["limits"].update(eval_seconds=0.001)),
    "work outside the clock": ("mistake 19", lambda r: r["evaluate"]["trace"][0].update(seconds=500.0)),
    "a dead part": ("mistake 33", lambda r: r["receipts"][0].update(alive=False)),
    "validation in training": ("C3", lambda r: r["train"].update(validation_tokens=5)),
    "adapted, then scored": ("C3", lambda r: r["evaluate"]["trace"].insert(0, r["evaluate"]["trace"].pop(1))),
    "other parameters": ("C3", lambda r: r["evaluate"]["trace"][0].update(sha="0" * 16)),
    "another config": ("mistake 28", lambda r: r.update(config_sha256="0" * 64)),
    "another text": ("mistake 7", lambda r: r["data"].update(manifest_sha256="0" * 64)),
}


@pytest.mark.usefixtures("unprobed")
@pytest.mark.parametrize("name", DOCTORED)
def test_a_doctored_record_is_named(folder, name):
    rule, change = DOCTORED[name]
    doctored(folder, change)
    assert rule in failed(folder)


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
    assert main([str(folder)]) == 1
    printed = capsys.readouterr().out
    assert "made-up targets" in printed
    assert printed.splitlines()[-1].startswith("verdict fail (C2")


def test_adapters_that_are_never_reset_are_caught_on_the_excerpt(folder):
    """Documents side by side are few there, so that there are several groups of them."""
    configured(folder, lambda config: config["ttt"].update(_target_="tests.cheats.NeverReset"))
    found = experiments(Case.open(folder))
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


def test_an_evaluation_killed_half_way_is_done_again_from_the_artifact_alone(folder, monkeypatch):
    """All that is left is what there is while judging: no score in the record, no end of the log."""
    monkeypatch.setattr("pgolf.audit.run.experiments", lambda case: [])
    stated = json.loads((folder / "record.json").read_text())["evaluate"]["val_bpb"]
    doctored(folder, lambda r: r.update(status="running", evaluate=None, verdict=None, log_sha256=None))
    findings = audit_run(folder, full=True)
    assert overall(findings) == "needs argument (mistake 27)"
    assert any(f.what.endswith(f"from the artifact alone: val_bpb={stated:.8f}") for f in findings)


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
    [([], "usage: "), (["a", "b"], "usage: "), (["nowhere"], "nowhere: not a folder")],
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
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pgolf: ")
    assert "Traceback" not in done.stderr
