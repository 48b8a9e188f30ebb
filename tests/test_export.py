"""The exported file, really started by torchrun where nothing of the package can be imported: the same artifact and score."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pgolf.code import unpack
from pgolf.export import main
from tests.command import TINY, environment, record, run

# What a bare environment lacks. Optional imports of torch that end in ImportError are what they would be there.
BLOCKED = """
import sys
class Absent:
    names = set("pgolf hydra omegaconf rich wandb scipy huggingface_hub constriction brotli python_minifier".split())
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""
STEPS = ("limits.train_steps=2", "hydra.run.dir=run")


@pytest.fixture(scope="module")
def one_run(tmp_path_factory) -> Path:
    return packaged(tmp_path_factory, 1)


def packaged(tmp_path_factory, ranks: int) -> Path:
    folder = tmp_path_factory.mktemp(f"ranks{ranks}")
    run(folder, *TINY, *STEPS, f"machine.ranks={ranks}")
    return folder / "run"


def alone(script: Path, folder: Path, ranks: int, **settings: str) -> subprocess.CompletedProcess:
    """`script` copied into an empty folder and started there as its README says."""
    (folder / "bare").mkdir()
    (folder / "bare" / "sitecustomize.py").write_text(BLOCKED)
    (folder / "empty").mkdir()
    (folder / "empty" / "train_gpt.py").write_bytes(script.read_bytes())
    started = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    env = {k: v for k, v in environment().items() if not k.startswith("PYTHON")}
    env |= {"PYTHONPATH": str(folder / "bare"), "PYTHONDONTWRITEBYTECODE": "1"} | settings
    return subprocess.run(
        [*started, "train_gpt.py"], cwd=folder / "empty", capture_output=True, text=True, env=env, timeout=300
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_it_gives_the_artifact_and_the_score_of_the_package(one_run, tmp_path_factory, tmp_path, ranks):
    folder = one_run if ranks == 1 else packaged(tmp_path_factory, ranks)
    done = alone(folder / "train_gpt.py", tmp_path, ranks)
    assert done.returncode == 0, done.stderr
    made = tmp_path / "empty" / "seed1337"
    assert (made / "artifact.pgolf").read_bytes() == (folder / "artifact.pgolf").read_bytes()
    ours, log = record(folder), (made / "train.log").read_text()
    lines = log.splitlines()
    code = f"code_sha256={ours['code']['sha256']} code_bytes={ours['code']['bytes']}"
    assert (lines[0].split(" ", 1)[0], lines[-1].split(" ", 1)[0]) == ("begin", "end")
    assert lines[0].endswith(code)
    assert lines[-1].endswith(code)
    assert f"val_loss={ours['evaluate']['val_loss']:.8f} val_bpb={ours['evaluate']['val_bpb']:.8f}" in lines
    assert f"artifact_sha256={ours['artifact']['sha256']}" in lines
    assert f"seed 1337  {ranks} rank(s)" in lines[1]
    assert "torch=" in lines[1]
    assert [line for line in done.stdout.splitlines() if line in lines] == lines, "every line once, by rank 0"


def test_the_environment_says_where_the_text_is_and_which_seed(one_run, tmp_path):
    texts = unpack((one_run / "train_gpt.py").read_bytes()).recipe["texts"]
    elsewhere = tmp_path / "data"
    elsewhere.mkdir()
    source = Path(texts["folder"]).expanduser()
    for name in (*texts["TrainingText"]["paths"], *texts["ValidationText"]["paths"]):
        (elsewhere / name).symlink_to(source / name)
    (tmp_path / "other.model").write_bytes((source / texts["TrainingText"]["tokenizer"]).read_bytes())
    settings = {"SEED": "42", "DATA_PATH": str(elsewhere), "TOKENIZER_PATH": str(tmp_path / "other.model")}
    done = alone(one_run / "train_gpt.py", tmp_path, 1, **settings)
    assert done.returncode == 0, done.stderr
    assert "seed 42  1 rank(s)" in done.stdout
    made = tmp_path / "empty" / "seed42" / "artifact.pgolf"
    assert made.read_bytes() != (one_run / "artifact.pgolf").read_bytes()


def test_it_refuses_another_validation_text(one_run, tmp_path):
    texts = unpack((one_run / "train_gpt.py").read_bytes()).recipe["texts"]
    for name in (*texts["TrainingText"]["paths"], texts["TrainingText"]["tokenizer"]):
        (tmp_path / name).symlink_to(Path(texts["folder"]).expanduser() / name)
    (name,) = texts["ValidationText"]["paths"]
    data = bytearray((Path(texts["folder"]).expanduser() / name).read_bytes())
    data[2000] ^= 1
    (tmp_path / name).write_bytes(data)
    done = alone(one_run / "train_gpt.py", tmp_path, 1, DATA_PATH=str(tmp_path))
    assert done.returncode != 0
    assert "UserError" in done.stderr
    assert "val_bpb=" not in done.stdout


def test_the_report_and_the_source(one_run, tmp_path, capsys):
    assert main([str(one_run), "--unpack", str(tmp_path / "source")]) == 0
    out = capsys.readouterr().out
    assert record(one_run)["code"]["sha256"] in out
    assert "built again from this package it is the same" in out
    assert "pgolf.train " in out
    assert "pgolf.compose" not in out
    source = (tmp_path / "source" / "pgolf" / "standalone.py").read_text()
    assert "def recipe_of(frozen):" in source
    assert "ranks, seed =" in source, "local names as they were written"
    assert json.loads((tmp_path / "source" / "recipe.json").read_text())["limits"]["train_steps"] == 2
    assert (tmp_path / "source" / "pgolf" / "data" / "__init__.py").exists()


def test_a_file_of_another_version_is_shown_as_it_is(one_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pgolf.export.build", lambda recipe: b"something else")
    assert main([str(one_run / "train_gpt.py"), "--unpack", str(tmp_path / "source")]) == 0
    assert "another file: the sources differ" in capsys.readouterr().out
    assert "def recipe_of(" in (tmp_path / "source" / "pgolf" / "standalone.py").read_text()


@pytest.mark.parametrize("content", [None, b"print(1)", b"\xff\xfe"])
def test_mistakes_are_one_message_and_exit_code_2(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "train_gpt.py").write_bytes(content)
    assert main([str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_full_folder_is_not_written_into(one_run, tmp_path, capsys):
    (tmp_path / "mine").write_text("")
    assert main([str(one_run), "--unpack", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["mine"]


def test_no_argument_is_exit_code_2():
    with pytest.raises(SystemExit, match="2"):
        main([])
