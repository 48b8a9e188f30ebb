"""Options of the user's: what is taken of a folder, that it adds and never replaces, and that what was checked is what runs."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pgolf.config.compose import register_experiments, rehearse
from pgolf.config.folders import look_in, own_options
from pgolf.config.places import beside_or_inside
from pgolf.errors import UserError
from tests.command import environment, run
from tests.processes import PATIENCE

MINE = "# A quant of mine.\ndefaults:\n  - int5_gptq\n  - _self_\nembedding_bits: 7\n"
OVERLAY = "# First.\ndefaults:\n  - override /quant: mine\n  - _self_\nname: first\n"
FOREIGN = {
    "conf/config.yaml": "defaults:\n  - model: tiny\n",
    "conf/model/tiny.yaml": "_target_: nets.Tiny\nwidth: 3\n",  # the name of an option of pgolf's
    "conf/model/resnet.yaml": "_target_: torch.nn.Linear\nin_features: 3\n",
    "conf/model/absent.yaml": "_target_: not_installed.Net\n",
    "conf/data/mnist.yaml": "batch: 3\n",
    "conf/quant/broken.yaml": "a: [1,\n b: :\n",
    "conf/quant/list.yaml": "- 1\n",
    "conf/experiment/theirs.yaml": "# @package _global_\ntrainer:\n  epochs: 3\n",
    "experiments/theirs/overlay.yaml": "trainer: 3\n",
    "nets.py": "class Tiny:\n    pass\n",
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    register_experiments()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    look_in([])


def lay(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def composed(*words: str, **where: str):
    (job,) = rehearse(list(words), sweep=False, **where)
    return job


UNSPOILT, BOM, CRLF = (
    str.encode,
    lambda text: b"\xef\xbb\xbf" + text.encode(),
    lambda text: text.replace("\n", "\r\n").encode(),
)


@pytest.mark.parametrize("spoilt", [UNSPOILT, BOM, CRLF])
def test_options_of_the_working_folder_compose_whatever_editor_wrote_them(tmp_path, spoilt):
    small = "# @package _global_\n# Small.\nquant:\n  keep_below: 17\n"
    files = {
        "conf/quant/mine.yaml": MINE,
        "experiments/first/overlay.yaml": OVERLAY,
        "conf/scale/quant/laptop_mine.yaml": small,
    }
    lay(tmp_path, {name: spoilt(text) for name, text in files.items()})
    job = composed("experiment=first", "scale=laptop")
    assert (job.config["quant"]["bits"], job.config["quant"]["embedding_bits"]) == (5, 7)
    assert (job.config["quant"]["keep_below"], job.config["name"]) == (17, "first")
    assert sorted(job.files) == sorted(files)
    with pytest.raises(UserError, match=r"^quant\.bitz: there is no such key\. Did you mean 'quant\.bits'\?$"):
        composed("experiment=first", "quant.bitz=5")


@pytest.mark.parametrize("words", [["hydra.searchpath=[theirs]"], ["hydra.searchpath=[file://{here}/theirs]"], []])
def test_named_folders_are_taken_by_the_check_too(tmp_path, words):
    lay(tmp_path, {"theirs/quant/mine.yaml": MINE, "theirs/quant/plain.yaml": "bits: 5\n"})
    words = [word.format(here=tmp_path) for word in words]
    where = {} if words else {"config_dir": "theirs"}
    assert composed(*words, "quant=mine", **where).config["quant"]["embedding_bits"] == 7
    told = "names no class" if words else "theirs/quant/plain.yaml is there, but it has neither a _target_ nor"
    with pytest.raises(UserError, match=told):
        composed(*words, "quant=plain", **where)


def test_a_whole_config_of_the_users_by_name_and_the_folders_that_it_names(tmp_path):
    whole = "defaults:\n  - config\n  - _self_\nname: whole\nhydra:\n  searchpath: [more]\n"
    lay(tmp_path, {"conf/whole.yaml": "\ufeff" + whole, "more/quant/mine.yaml": "\ufeff" + MINE})
    job = composed("quant=mine", config_name="whole")
    assert (job.config["name"], job.config["quant"]["embedding_bits"]) == ("whole", 7)
    assert set(job.files) == {"conf/whole.yaml", "more/quant/mine.yaml"}


def test_the_conf_of_another_project_is_none_of_ours(tmp_path):
    lay(tmp_path, FOREIGN)
    assert own_options() == []
    before = composed()
    assert before.files == ()
    for word, told in {
        "model=resnet": "is there, but",
        "model=absent": "its module not_installed is not here",
        "data=mnist": "neither a _target_ nor a package header",
        "quant=broken": "it is no YAML: line 2",
        "quant=list": "it is no mapping",
        "experiment=theirs": "its key 'trainer' is none of pgolf's",
    }.items():
        with pytest.raises(UserError) as wrong:
            composed(word)
        assert told in str(wrong.value), word
        assert "\n" not in str(wrong.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("conf/quant/int6_gptq.yaml", MINE),
        ("conf/scale/ttt/laptop_pr606.yaml", "# @package _global_\nttt:\n  epochs: 2\n"),
        ("conf/model/tiny.yaml", "_target_: pgolf.model.GPT\n"),
        ("conf/experiment/quant_ablation.yaml", "# @package _global_\nname: x\n"),
        ("experiments/pr606_int5_softround/overlay.yaml", OVERLAY),
    ],
)
def test_a_name_of_pgolfs_is_refused_once(tmp_path, name, text):
    lay(tmp_path, {name: text})
    with pytest.raises(UserError) as wrong:
        composed()
    assert f"{name}: " in str(wrong.value)
    assert "an option of pgolf's; give the file another name" in str(wrong.value)


def test_two_files_of_one_name_are_refused_and_a_copy_of_pgolfs_is_not_one(tmp_path):
    shutil.copytree(beside_or_inside("conf"), tmp_path / "conf")
    shutil.copytree(beside_or_inside("experiments"), tmp_path / "experiments")
    assert composed("experiment=pr606_int5_softround", "scale=laptop").files == ()
    lay(tmp_path, {"experiments/first/overlay.yaml": "name: first\n"})
    assert composed("experiment=first").files == ("experiments/first/overlay.yaml",)
    lay(tmp_path, {"conf/experiment/first.yaml": "# @package _global_\nname: other\n"})
    with pytest.raises(UserError, match=r"experiment=first is .*overlay\.yaml too"):
        composed()


@pytest.mark.parametrize(
    ("words", "where", "told"),
    [
        ([], {"config_dir": "nowhere"}, "nowhere: there is no such folder of options"),
        (["hydra.searchpath=[nowhere]"], {}, "nowhere: there is no such folder of options"),
        (["hydra.searchpath=nowhere"], {}, "must be a list of folders"),
        ([], {"config_name": "nowhere"}, "Cannot find primary config 'nowhere'"),
    ],
)
def test_folders_and_configs_that_are_not_there(words, where, told):
    with pytest.raises(UserError) as wrong:
        composed(*words, **where)
    assert told in str(wrong.value)


def test_sweeps_globs_and_help_know_them(tmp_path):
    lay(
        tmp_path,
        {
            "conf/quant/mine.yaml": MINE,
            "conf/quant/mine2.yaml": MINE + "prune: 0.5\n",
            "experiments/first/overlay.yaml": OVERLAY,
        },
    )
    assert [job.arm for job in rehearse(["quant=glob(mine*)"], sweep=True)] == ["quant=mine", "quant=mine2"]
    assert [job.arm for job in rehearse(["experiment=glob(fir*)"], sweep=True)] == ["experiment=first"]
    page = run(tmp_path, "--help", "quant", "experiment").stdout
    assert "  mine                      A quant of mine." in page
    assert "\n  first " in page
    plan = run(tmp_path, "-m", "experiment=first", "seed=[1,2]", "dry=true").stdout
    assert "your options      experiments/first/overlay.yaml, conf/quant/mine.yaml" in plan
    assert "\n  bits: 5\n" in run(tmp_path, "quant=mine", "--cfg", "job").stdout


BETWEEN = """
import os, pathlib, shutil, sys
import pgolf.run as entry, pgolf.pipeline
pgolf.pipeline.run = lambda job, *rest: os.write(1, b"ran with %d " % job.config["quant"]["embedding_bits"]) * 1.0
def change(recipes):
    {}
entry._require = change
entry.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "change"),
    [
        (("quant=mine",), "shutil.rmtree('conf')"),
        (("quant=mine",), "pathlib.Path('conf/quant/mine.yaml').write_text('bits: [')"),
        (("experiment=first",), "shutil.rmtree('conf'); shutil.rmtree('experiments')"),
        (("--config-dir", "theirs", "quant=other"), "pathlib.Path('theirs/quant/other.yaml').unlink()"),
    ],
)
def test_files_that_change_or_vanish_after_the_check_change_nothing(tmp_path, words, change):
    files = {"conf/quant/mine.yaml": MINE, "experiments/first/overlay.yaml": OVERLAY, "theirs/quant/other.yaml": MINE}
    lay(tmp_path, files)
    started = [sys.executable, "-c", BETWEEN.format(change), *words]
    done = subprocess.run(started, cwd=tmp_path, capture_output=True, text=True, env=environment(), timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "ran with 7" in done.stdout
