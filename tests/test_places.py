"""Where the package lies, and in what state: read-only, without assertions, in an archive."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pgolf
from pgolf.config.compose import register_experiments, rehearse
from pgolf.config.words import short_words
from pgolf.errors import UserError
from pgolf.files.home import expanded
from pgolf.logger.key import has_key
from tests.command import TINY, environment, record
from tests.processes import PATIENCE

ROOT = Path(pgolf.__file__).parent.parent
WORDS = (*TINY, "limits.train_steps=2", "ttt=none", "hydra.run.dir=run")


def installed(folder: Path) -> Path:
    """The package as a wheel lays it out."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pgolf", folder / "pgolf", ignore=ignored)
    for name in ("conf", "experiments"):
        shutil.copytree(ROOT / name, folder / "pgolf" / name, ignore=ignored)
    return folder


def test_a_package_in_an_archive_is_refused_with_one_message(tmp_path):
    site = installed(tmp_path / "site")
    with zipfile.ZipFile(tmp_path / "pgolf.zip", "w") as archive:
        for path in (site / "pgolf").rglob("*"):
            archive.write(path, path.relative_to(site))
    env = environment() | {"PYTHONPATH": str(tmp_path / "pgolf.zip")}
    done = subprocess.run(
        [sys.executable, "-m", "pgolf.run", "dry=true"], cwd=tmp_path, capture_output=True, text=True, env=env
    )
    assert done.returncode == 2
    assert done.stderr.startswith("pgolf: ")
    assert "lies in an archive" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def homeless(monkeypatch):
    """As in a container that runs under the number of a user whom it does not know."""

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "PGOLF_CACHE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("words", [[], ["data=text", "data.files=a.txt"], ["data=fineweb_sp1024", "machine.ranks=1"]])
def test_without_a_home_the_cache_says_which_variable_to_set(homeless, tmp_path, monkeypatch, words):
    register_experiments()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("text")
    words = [short_words(word) for word in words]
    with pytest.raises(UserError, match=r"~/\.cache/pgolf.*: ~ is no folder here; set HOME, or PGOLF_CACHE=DIR"):
        rehearse(words, sweep=False)[0].recipe.data.prepare(lambda what, done: None)
    monkeypatch.setenv("PGOLF_CACHE", str(tmp_path / "cache"))
    (job,) = rehearse(words, sweep=False)
    assert job.recipe.data.cache_folder == tmp_path / "cache"


@pytest.mark.parametrize("path", ["~", "~/x", "~nobody_at_all/x"])
def test_a_path_without_its_home_is_one_message_and_others_need_none(homeless, path):
    with pytest.raises(UserError, match="set HOME"):
        expanded(path)
    assert expanded("/a/~b") == Path("/a/~b")
    assert expanded("a~") == Path("a~").absolute()


def test_without_a_home_there_is_no_key_and_nobody_dies_of_it(homeless):
    assert not has_key()


READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


@pytest.mark.slow
def test_a_package_that_nobody_may_write_to_runs_without_assertions(tmp_path):
    """Mounted read-only, and by `python -O`: the same run."""
    site = installed(tmp_path / "site")
    alone = ["unshare", "-m", "sh", "-c", READ_ONLY, str(site)]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace can be made here")
    assert subprocess.run([*alone, "touch", str(site / "new")], capture_output=True).returncode != 0, "it is read-only"
    env = environment() | {"PYTHONPATH": str(site)}
    started = [*alone, sys.executable, "-O", "-m", "pgolf.run", *WORDS]
    done = subprocess.run(started, cwd=tmp_path, capture_output=True, text=True, env=env, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    kept = record(tmp_path / "run")
    assert (kept["status"], kept["verdict"], kept["notices"]) == ("complete", "consistent", [])
    assert kept["evaluate"]["code_sha256"] == kept["code"]["sha256"]
