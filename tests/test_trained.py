"""`trained=RUN`: an artifact is judged again without being trained again, and only under the words it was trained with."""

import json
import shutil

import pytest

from pgolf.config.source import SourceRun, flattened
from pgolf.errors import UserError
from tests.command import TINY, record, run

STEPS = (*TINY, "limits.train_steps=6")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier")
    run(folder, *STEPS, "hydra.run.dir=whole")
    return folder / "whole"


def test_the_same_words_give_the_same_number_though_the_evaluation_was_killed(tmp_path, source):
    before, killed = record(source), tmp_path / "killed"
    shutil.copytree(source, killed)
    cut = before | {"status": "interrupted", "evaluate": None, "verdict": None, "error": "killed"}
    cut["receipts"] = [r for r in before["receipts"] if r["part"] != "ttt"]
    (killed / "record.json").write_text(json.dumps(cut))
    run(tmp_path, *STEPS, "hydra.run.dir=again", "trained=killed")
    after = record(tmp_path / "again")
    assert (after["status"], after["verdict"], after["trained"]) == ("complete", "consistent", "killed")
    assert after["evaluate"]["val_bpb"] == before["evaluate"]["val_bpb"]
    assert (after["artifact"], after["train"]) == (before["artifact"], before["train"])
    assert (after["trained_code"], before["trained_code"]) == (before["code"], None)
    assert after["evaluate"]["code_sha256"] == after["code"]["sha256"]
    assert [r["part"] for r in after["receipts"]] == [r["part"] for r in before["receipts"]]


@pytest.mark.slow
def test_a_sweep_judges_one_artifact_in_several_ways_and_submits_none(tmp_path, source):
    other = tmp_path / "earlier" / "another"
    shutil.copytree(source, other)
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("train_steps: 6", "train_steps: 5"))
    shutil.copytree(source, tmp_path / "earlier" / "seed1337")
    words = ("seed=1337", "ttt=none", "eval.stride=64,128", "trained=earlier", "hydra.sweep.dir=sweep")
    run(tmp_path, "-m", *STEPS, *words)
    assert len(json.loads((tmp_path / "sweep" / "plan.json").read_text())["arms"]) == 2
    summary = json.loads((tmp_path / "sweep" / "summary.json").read_text())
    assert [arm["n"] for arm in summary["arms"]] == [1, 1]
    assert len({arm["val_bpb"]["mean"] for arm in summary["arms"]}) == 2
    assert all("its artifact was trained in earlier/seed1337" in arm["submission"]["why"] for arm in summary["arms"])
    artifacts = {record(folder)["artifact"]["sha256"] for folder in (tmp_path / "sweep").glob("*_seed1337")}
    assert artifacts == {record(source)["artifact"]["sha256"]}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("limits.train_steps=7", "trained=HERE"), "limits.train_steps=7: HERE was trained with 6"),
        (("limits.train_steps=7", "trained=SWEEP"), "limits.train_steps=7: HERE was trained with 6"),
        (("quant=int5_gptq", "trained=HERE"), "quant.bits=5: HERE was trained with 6"),
        (("trained=nowhere",), "nowhere/record.json: cannot be read"),
        (("trained=3",), "3/record.json: cannot be read"),
    ],
)
def test_other_words_are_refused_before_anything_starts(tmp_path, source, wrong, said):
    words = [word.replace("HERE", str(source)).replace("SWEEP", str(source.parent)) for word in wrong]
    refused = run(tmp_path, *STEPS, *words, code=2)
    assert refused.stderr.startswith("pgolf: " + said.replace("HERE", str(source)))
    assert not list(tmp_path.iterdir())


def test_a_run_whose_config_is_gone_is_one_message(tmp_path):
    (tmp_path / "record.json").write_text(json.dumps({"train": {"steps": 2}, "artifact": {"sha256": "0"}}))
    (tmp_path / "artifact.pgolf").write_bytes(b"")
    with pytest.raises(UserError, match=r"config\.yaml: cannot be read"):
        SourceRun.read(tmp_path)


def test_words_are_values_by_dotted_key():
    assert flattened({"a": {"b": 1, "c": {"d": 2}}, "e": 3}, ["a.b", "e"]) == {"a.c.d": 2}
