"""Runs, sweeps and artifacts of version 0.1.0 are still read: by every command, with the numbers that they had."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from pgolf.audit.__main__ import audit
from pgolf.audit.finding import overall
from pgolf.compare import main as compare
from pgolf.compare import scores
from pgolf.config.schema import completed
from pgolf.errors import ArtifactError
from pgolf.export.code import unpack as unpack_code
from pgolf.files.frozen import added, freeze, older, thaw
from pgolf.model import Model
from pgolf.model.activation import LeakyReluSquared
from pgolf.quant.tensors import load_quantized
from pgolf.report.write import write
from pgolf.results.runfolder import disagreements, read_run
from pgolf.results.summary import summarise
from pgolf.stages.artifact import unpack
from tests.command import environment, record
from tests.processes import PATIENCE

OLD = Path(__file__).parent / "data" / "version_0_1_0"
SYSTEMS = ("baseline_sp1024", "pr606_int5_softround", "pr639_full_gptq", "pr1129_crownq", "pr1852_prequant_ttt")


@pytest.fixture
def old(tmp_path, monkeypatch) -> Path:
    """A copy, in the working folder, from which its relative places are named."""
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


@pytest.mark.parametrize("name", SYSTEMS)
def test_artifacts_hold_the_same_models(name):
    """Every published system's, by every codec: nats of a fixed input as version 0.1.0 computed them."""
    tensors, meta = unpack((OLD / "artifacts" / f"{name}.pgolf").read_bytes())
    assert meta["model"]["_target_"] == "pgolf.model.GPT", "a dotted word, as it was written then"
    spec = thaw(older(meta["model"], Model), Model)
    model = spec.build(0)
    load_quantized(model, tensors)
    model.set_looping(True)
    ids = torch.arange(24).view(1, 24) * 7 % 512
    with torch.no_grad():
        nll = model.nll(ids[:, :-1], ids[:, 1:])
    with np.load(OLD / "artifacts" / "nll.npz") as golden:
        np.testing.assert_allclose(nll.numpy(), golden[name], atol=1e-4)
    assert thaw(freeze(spec), Model) == spec
    assert freeze(spec)["_target_"] == "GPT", "a word of the registry, as it is written now"


def test_runs_and_sweeps_are_read(old, capsys):
    assert disagreements(read_run(old / "run")) == []
    summary = summarise(old / "sweep")
    (arm,) = summary["arms"]
    assert [row["seed"] for row in arm["seeds"]] == [1, 2]
    assert scores(old / "sweep").sample.mean == pytest.approx(arm["val_bpb"]["mean"])
    assert compare([str(old / "run"), str(old / "sweep")]) == 0
    assert compare([str(old / "sweep" / "submission" / "arm"), str(old / "run")]) == 0
    assert "bpb" in capsys.readouterr().out
    assert write(old / "run").stat().st_size > 10_000
    assert write(old / "sweep").stat().st_size > 1_000
    assert "program" in unpack_code((old / "run" / "train_gpt.py").read_bytes()).modules


def test_an_audit_scores_an_old_run_again_and_says_that_its_code_is_another(old):
    found = audit(old / "run", {"folder": "corpus", "cache": "cache"}, quiet=True)
    assert [f for f in found if f.verdict == "fail"] == []
    (code,) = [f for f in found if f.rule == "code"]
    assert (code.verdict, code.what[:11]) == ("needs argument", "other code:")
    (again,) = [f for f in found if f.rule == "score"]
    assert again.what.startswith("holds: ")
    assert overall(found) == "needs argument (code)"


@pytest.mark.slow
def test_an_old_artifact_is_judged_again_by_this_versions_file(old):
    """`trained=` with the words that the run was given, and the default of then: the same score, and both codes in the record."""
    words = read_run(old / "run").record["overrides"]
    then = ("ttt=lora_score_first", "ttt.chunk_tokens=128")
    started = [sys.executable, "-m", "pgolf.run", *words, *then, "trained=run", "hydra.run.dir=again"]
    done = subprocess.run(started, cwd=old, capture_output=True, text=True, env=environment(), timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    before, now = record(old / "run"), record(old / "again")
    assert now["evaluate"]["val_bpb"] == pytest.approx(before["evaluate"]["val_bpb"], abs=1e-4)
    assert now["trained_code"] == before["code"]
    assert now["code"] != before["code"]
    assert now["evaluate"]["code_sha256"] == now["code"]["sha256"]
    assert now["artifact"] == before["artifact"]
    assert now["verdict"] == "consistent"


# ---- fields that come and go


def described(**changed) -> dict:
    """How an old artifact describes its model, with changes."""
    return unpack((OLD / "artifacts" / "baseline_sp1024.pgolf").read_bytes())[1]["model"] | changed


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"_target_": "pgolf.model.Mamba"}, "meta: 'Mamba' is no Model that is known here (GPT, Model)"),
        ({"_target_": "Zstd"}, "meta: 'Zstd' is no Model"),
        ({"_target_": None}, "meta: 'None' is no Model"),
        ({"wings": 2}, "meta: GPT has no wings; a later version wrote this"),
        ({"width": "wide"}, "meta: GPT: "),
        ({"heads": 5}, "meta: GPT: model.heads=5"),
        ({"skips": "SIDEWAYS"}, "meta: GPT: "),
        ({"loop": {"_target_": "Loop"}}, "meta: Loop lacks first"),
    ],
)
def test_what_an_artifact_says_of_its_model_is_checked(change, told):
    with pytest.raises(ArtifactError) as wrong:
        thaw(older(described(**change), Model), Model)
    assert str(wrong.value).startswith(told)


def test_a_missing_field_is_named_unless_it_came_later_and_has_a_meaning():
    with pytest.raises(ArtifactError, match="meta: GPT lacks width"):
        thaw(older({k: v for k, v in described().items() if k != "width"}, Model), Model)

    @dataclass(frozen=True, kw_only=True)
    class Base:
        size: int

    @dataclass(frozen=True, kw_only=True)
    class Grown(Base):
        wings: int | None = added(None)
        legs: int = added(4)

    assert thaw(older({"_target_": "Grown", "size": 1}, Base), Base) == Grown(size=1, wings=None, legs=4)
    assert thaw(older({"_target_": "Grown", "size": 1, "wings": 2, "legs": 3}, Base), Base) == Grown(
        size=1, wings=2, legs=3
    )
    with pytest.raises(TypeError):
        Grown(size=1)  # a config still has to state them


def test_an_activation_of_a_file_that_had_only_its_slope():
    """Files of version 0.1.0 state `leaky_slope`; both at once, and neither, are refused."""
    old = described()
    assert thaw(older(old, Model), Model).activation == LeakyReluSquared(slope=old["leaky_slope"])
    assert completed({"model": old})["model"]["activation"]["slope"] == old["leaky_slope"]
    with pytest.raises(ArtifactError, match="meta: GPT lacks activation"):
        thaw({k: v for k, v in old.items() if k != "leaky_slope"}, Model)
    with pytest.raises(ArtifactError, match="meta: GPT has no leaky_slope"):
        thaw(freeze(thaw(old, Model)) | {"leaky_slope": 0.5}, Model)


def test_under_o_the_same_is_refused(tmp_path):
    """`python -O` drops assertions: what a file holds is checked by more than those."""
    source = (
        "import sys\nfrom pgolf.files.frozen import thaw\nfrom pgolf.model import Model\nfrom pgolf.errors import ArtifactError\n"
        "try: thaw({'_target_': 'os.system'}, Model)\nexcept ArtifactError as wrong: print(wrong)"
    )
    done = subprocess.run([sys.executable, "-O", "-c", source], capture_output=True, text=True, env=os.environ.copy())
    assert done.stdout.startswith("meta: 'system' is no Model"), done.stderr
