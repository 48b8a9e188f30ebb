"""The exported file, started by torchrun in a virtual environment without the package: the same artifact and score."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from pgolf.export.__main__ import main
from pgolf.export.code import unpack
from pgolf.export.program import Program
from tests.bare import bare_environment, can_import
from tests.command import TINY, environment, record, run

NEEDED = ("torch", "numpy", "sentencepiece", "zstandard")
ABSENT = ("pgolf", "hydra", "omegaconf", "wandb", "rich", "scipy", "huggingface_hub", "constriction", "brotli", "yaml")
STEPS = ("limits.train_steps=2", "hydra.run.dir=run")
SEED = 7  # not the one that an exported file takes by itself


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    return bare_environment(tmp_path_factory.mktemp("bare"), NEEDED)


@pytest.fixture(scope="module")
def one_run(tmp_path_factory) -> Path:
    return packaged(tmp_path_factory.mktemp("one"), f"seed={SEED}")


def packaged(folder: Path, *words: str) -> Path:
    run(folder, *TINY, *STEPS, *words)
    return folder / "run"


def alone(python: Path, script: Path, folder: Path, ranks: int = 1, **settings: str) -> subprocess.CompletedProcess:
    """`script` copied into an empty folder and started there as its README says."""
    folder.mkdir()
    (folder / "train_gpt.py").write_bytes(script.read_bytes())
    started = [python, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    env = {k: v for k, v in environment().items() if not k.startswith(("PYTHON", "PGOLF"))}
    env |= {"PYTHONDONTWRITEBYTECODE": "1"} | settings
    return subprocess.run([*started, "train_gpt.py"], cwd=folder, capture_output=True, text=True, env=env, timeout=300)


def moved(script: Path, folder: Path) -> dict[str, str]:
    """The texts of `script` in another place, the tokenizer under another name: what the environment then says."""
    texts = unpack(script.read_bytes()).recipe["texts"]
    source = Path(texts["folder"]).expanduser()
    folder.mkdir()
    for path in source.glob("*.bin"):
        (folder / path.name).symlink_to(path)
    (folder / "other.model").write_bytes((source / texts["training"]["tokenizer"]).read_bytes())
    return {"DATA_PATH": str(folder), "TOKENIZER_PATH": str(folder / "other.model")}


def same_lines(folder: Path, made: Path, seed: int, ranks: int, shown: str) -> None:
    """The log says what the record of the package's run does, and was shown line by line, once."""
    ours, lines = record(folder), (made / "train.log").read_text().splitlines()
    code = f"code_sha256={ours['code']['sha256']} code_bytes={ours['code']['bytes']}"
    assert (lines[0].split(" ", 1)[0], lines[-1].split(" ", 1)[0]) == ("begin", "end")
    assert lines[0].endswith(code)
    assert lines[-1].endswith(code)
    assert f"val_loss={ours['evaluate']['val_loss']:.8f} val_bpb={ours['evaluate']['val_bpb']:.8f}" in lines
    assert f"artifact_sha256={ours['artifact']['sha256']}" in lines
    assert f"seed {seed}  {ranks} rank(s)" in lines[1]
    assert "torch=" in lines[1]
    assert [line for line in shown.splitlines() if line in lines] == lines, "every line once, by rank 0"


def test_the_bare_environment_is_bare(python):
    assert can_import(python, [*NEEDED, *ABSENT]) == set(NEEDED)


def test_it_gives_the_artifact_and_the_score_of_the_package_wherever_the_text_is(one_run, python, tmp_path):
    settings = moved(one_run / "train_gpt.py", tmp_path / "data")
    done = alone(python, one_run / "train_gpt.py", tmp_path / "empty", SEED=str(SEED), **settings)
    assert done.returncode == 0, done.stderr
    made = tmp_path / "empty" / f"seed{SEED}"
    assert (made / "artifact.pgolf").read_bytes() == (one_run / "artifact.pgolf").read_bytes()
    same_lines(one_run, made, SEED, 1, done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_so_it_does_with_more_ranks_where_the_text_was(python, tmp_path, ranks):
    folder = packaged(tmp_path, f"machine.ranks={ranks}")
    done = alone(python, folder / "train_gpt.py", tmp_path / "empty", ranks)
    assert done.returncode == 0, done.stderr
    made = tmp_path / "empty" / "seed1337"
    assert (made / "artifact.pgolf").read_bytes() == (folder / "artifact.pgolf").read_bytes()
    same_lines(folder, made, 1337, ranks, done.stdout)


@pytest.mark.slow
def test_the_unpacked_source_runs_and_makes_the_same_artifact(one_run, python, tmp_path):
    assert main([str(one_run), "--unpack", str(tmp_path / "source")]) == 0
    started = [python, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1", "train_gpt.py"]
    env = environment() | {"SEED": str(SEED)}
    subprocess.run(started, cwd=tmp_path / "source", check=True, env=env, timeout=300)
    made = tmp_path / "source" / f"seed{SEED}" / "artifact.pgolf"
    assert made.read_bytes() == (one_run / "artifact.pgolf").read_bytes()


@pytest.mark.slow
def test_it_refuses_another_validation_text(one_run, python, tmp_path):
    settings = moved(one_run / "train_gpt.py", tmp_path / "data")
    path = next((tmp_path / "data").glob("*val*.bin"))
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.unlink()
    path.write_bytes(data)
    done = alone(python, one_run / "train_gpt.py", tmp_path / "empty", **settings)
    assert done.returncode != 0
    assert "sealed " in done.stdout
    assert "val_bpb=" not in done.stdout


def test_the_report_and_the_source(one_run, tmp_path, capsys):
    assert main([str(one_run), "--unpack", str(tmp_path / "source")]) == 0
    out = capsys.readouterr().out
    assert record(one_run)["code"]["sha256"] in out
    assert "built again from this package it is the same" in out
    assert "pgolf.train " in out
    assert "pgolf.compose" not in out
    source = (tmp_path / "source" / "train_gpt.py").read_text()
    compile(source, "train_gpt.py", "exec")
    assert "\n# pgolf.export.standalone\n" in source
    assert "def recipe_of(frozen):" in source
    assert "ranks, seed =" in source, "local names as they were written"
    assert json.loads((tmp_path / "source" / "recipe.json").read_text())["limits"]["train_steps"] == 2


def test_a_file_of_another_version_is_shown_as_it_is(one_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pgolf.export.__main__.program", lambda recipe: Program("print(1)", (), ()))
    assert main([str(one_run / "train_gpt.py"), "--unpack", str(tmp_path / "source")]) == 0
    assert "another file: the sources differ" in capsys.readouterr().out
    source = (tmp_path / "source" / "train_gpt.py").read_text()
    compile(source, "train_gpt.py", "exec")
    assert "def recipe_of(" not in source


@pytest.mark.parametrize("content", [None, b"print(1)", b"\xff\xfe"])
def test_mistakes_are_one_message_and_exit_code_2(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "train_gpt.py").write_bytes(content)
    assert main([str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("pgolf: ")
    assert err.count("\n") == 1


def test_a_full_folder_is_not_written_into(tmp_path, capsys):
    (tmp_path / "mine").write_text("")
    assert main(["nowhere", "--unpack", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["mine"]


def test_no_argument_is_exit_code_2():
    with pytest.raises(SystemExit, match="2"):
        main([])
