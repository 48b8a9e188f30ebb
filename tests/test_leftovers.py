"""What a writer that was killed leaves beside its file, and that the next owner of the place removes it and nothing else."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pgolf.data import build
from pgolf.export import code
from pgolf.files import write_bytes
from pgolf.files.leftovers import clear
from pgolf.logger import NoLogger
from pgolf.results.attempts import owned
from pgolf.results.sweep import to_run
from pgolf.submission import gather
from tests.processes import until
from tests.sweeps import make_plan, make_run

# Stops in the middle of a write: the bytes are on disk, and the name is not yet theirs.
WRITES = """
import os, sys, time
from pathlib import Path
from pgolf import files
files.os.replace = lambda *names: time.sleep(600)
place = Path(sys.argv[1])
files.write_folder(place, {"a": b"1"}) if sys.argv[2] == "folder" else files.write_bytes(place, b"1")
"""


def killed_at(place: Path, kind: str = "file") -> None:
    """A process writes to `place` and is killed before it is done."""
    place.parent.mkdir(parents=True, exist_ok=True)
    before = set(place.parent.iterdir())
    writer = subprocess.Popen([sys.executable, "-c", WRITES, str(place), kind])
    until(lambda: set(place.parent.iterdir()) - before, "it writes nothing")
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert list(place.parent.glob(".*.tmp"))


def half_written(folder: Path) -> list[Path]:
    return [*folder.rglob(".*.tmp"), *folder.rglob(".step*")]


def test_only_what_was_cut_short_goes(tmp_path):
    for name in (".mine.tmp", ".a.json.tmp", "b.tmp", ".lock"):
        (tmp_path / name).write_text("kept")
    killed_at(tmp_path / "record.json")
    killed_at(tmp_path / "default", "folder")
    clear(tmp_path, "default")
    assert [path.name.split(".")[1] for path in tmp_path.glob(".*.*.*.tmp")] == ["record"]
    clear(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.json.tmp", ".lock", ".mine.tmp", "b.tmp"]
    clear(tmp_path / "nowhere")


def left_by_hand(place: Path) -> None:
    """As a killed writer leaves it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.with_name(f".{place.name}.{'0' * 32}.tmp").write_bytes(b"half")


def test_the_next_owner_of_a_run_finds_none(tmp_path):
    for name in ("record.json", "artifact.pgolf", "report.html", "ranks/result.json"):
        left_by_hand(tmp_path / name)
    (tmp_path / "checkpoints/.step00000007").mkdir(parents=True)
    (tmp_path / "checkpoints/step00000005").mkdir()
    with owned(tmp_path):
        assert half_written(tmp_path) == []
    assert (tmp_path / "checkpoints/step00000005").exists()


def test_the_next_summary_of_a_sweep_finds_none(tmp_path):
    make_run(tmp_path, "0", 1)
    make_plan(tmp_path, default=[1])
    for name in ("summary.json", "report.html", "submission/default"):
        left_by_hand(tmp_path / name)
    gather(tmp_path, NoLogger())
    assert half_written(tmp_path) == []
    for name in ("plan.json", ".failed.json"):
        left_by_hand(tmp_path / name)
    (tmp_path / "plan.json").unlink()
    to_run(tmp_path, [], lambda job: "")
    assert half_written(tmp_path) == []


@pytest.mark.slow
def test_a_build_and_a_cache_keep_none(tmp_path):
    left_by_hand(tmp_path / "tokenizer.model")
    build._continue(tmp_path, {"inputs": "x"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json"]
    cache = tmp_path / "cache"
    code.build({}, cache=cache)
    (kept,) = cache.iterdir()
    kept.unlink()
    left_by_hand(kept)
    code.build({}, cache=cache)
    (writing,) = half_written(cache)  # perhaps by another, who owns the cache as well
    os.utime(writing, (0, 0))
    kept.unlink()
    code.build({}, cache=cache)
    assert [*cache.iterdir()] == [kept]


@pytest.mark.skipif(os.getuid() == 0, reason="root may remove anything")
def test_what_cannot_be_removed_stays(tmp_path):
    write_bytes(tmp_path / "a", b"1")
    left_by_hand(tmp_path / "a")
    tmp_path.chmod(0o500)
    clear(tmp_path)
    tmp_path.chmod(0o700)
    assert half_written(tmp_path)
