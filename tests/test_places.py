"""Where the package lies, and in what state: read-only, without assertions, in an archive."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pgolf
from tests.command import TINY, environment, record

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


@pytest.mark.skipif(os.getuid() != 0, reason="takes another user's rights")
def test_a_user_without_write_access_to_the_package_runs_it_without_assertions(tmp_path):
    """Another user, read-only files, `python -O`: the same run."""
    site = installed(tmp_path / "site")
    for path in [site, *site.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    place, cache = tmp_path / "place", tmp_path / "cache"
    for folder in (place, cache):
        folder.mkdir()
        folder.chmod(0o777)
    for above in tmp_path.parents:
        if above.stat().st_uid == 0 and "pytest" in above.name:
            above.chmod(above.stat().st_mode | 0o055)
    tmp_path.chmod(0o755)
    reachable = subprocess.run([sys.executable, "-c", "import torch"], user=65534, capture_output=True, cwd="/")
    if reachable.returncode:
        pytest.skip("the interpreter's own files are not readable for others")
    env = environment() | {"PYTHONPATH": str(site), "PGOLF_CACHE": str(cache), "HOME": str(place)}
    done = subprocess.run(
        [sys.executable, "-O", "-m", "pgolf.run", *WORDS],
        cwd=place,
        capture_output=True,
        text=True,
        env=env,
        user=65534,
        group=65534,
        extra_groups=[],
    )
    assert done.returncode == 0, done.stderr
    kept = record(place / "run")
    assert (kept["status"], kept["verdict"], kept["notices"]) == ("complete", "consistent", [])
    assert kept["evaluate"]["code_sha256"] == kept["code"]["sha256"]
