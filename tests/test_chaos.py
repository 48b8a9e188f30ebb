"""The tool that hits commands: what it sees, what it counts, and a few hits."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from pgolf.errors import UserError
from pgolf.machine.lock import locked
from tests.chaos.__main__ import Counts, asked, main
from tests.chaos.attempt import MARK, Output
from tests.chaos.hits import KINDS
from tests.chaos.left import half, left_over
from tests.chaos.life import FaultError, Hit, Life, Whole, different
from tests.chaos.subjects import SUBJECTS, Subject

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("kills=0", "kills=0: must be a whole number from 1"),
        ("kills=many", "kills=many: must be a whole number from 1"),
        ("seed=-1", "seed=-1: must be a whole number from 0"),
        ("subjects=rnu", "subjects=rnu: must be among run, ranks, sweep, corpus, search, clock. Did you mean 'run'?"),
        ("place=/nowhere/at/all", "place=/nowhere/at/all: must be a folder"),
        (
            "kill=3",
            "'kill=3': must be KEY=VALUE with one of kills, seed, subjects, counts, place. Did you mean 'kills'?",
        ),
        ("200", "'200': must be KEY=VALUE with one of kills, seed, subjects, counts, place."),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(word, said, capsys):
    assert main([word]) == 2
    assert capsys.readouterr().err == f"tests.chaos: {said}\n"


def test_counts_add_up_over_calls_and_other_files_are_refused(tmp_path, capsys):
    want = asked([f"counts={tmp_path / 'c.json'}"])
    for _ in range(2):
        counts = Counts(want.counts)
        counts.hit(Hit("run", "train", "KILL", -9, 1.0), 5)
        counts.life("run")
    counts.fault("run", 7, "something is left", "")
    kept = json.loads(want.counts.read_text())
    assert (kept["hits"], kept["lives"], counts.here) == ({"run train KILL": 2}, {"run": 2}, 1)
    assert "again: python -m tests.chaos kills=1 subjects=run seed=7" in capsys.readouterr().out
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(UserError, match="holds no counts of hits"):
        Counts(want.counts)


@linux
def test_what_is_left_is_seen(tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "whole.json").write_text("{}")
    assert [*left_over(tmp_path, "nobody", False)] == []
    (tmp_path / "tmp" / "socket").touch()
    (tmp_path / "half.json").write_text("{")
    (tmp_path / ".a.json.0.tmp").touch()
    (tmp_path / "checkpoints" / ".step7").mkdir(parents=True)
    with locked(tmp_path / ".lock", "this"):
        found = [*left_over(tmp_path, "nobody", False)]
    assert sorted(found) == [".lock is locked", "half.json is half-written", "temporary tmp/socket"]
    assert half(tmp_path) == [".a.json.0.tmp", "checkpoints/.step7"]


@linux
def test_a_process_that_is_left_is_seen_by_its_mark(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.chaos.left.ORPHAN_SECONDS", 0.0)
    (tmp_path / "tmp").mkdir()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=os.environ | {MARK: "x-1"})
    (alive,) = left_over(tmp_path, "x-1", False)
    assert alive.startswith(f"process {child.pid} lives")
    child.communicate()


def test_a_pipe_that_is_full_takes_nothing_until_it_is_read_again():
    out = Output()
    os.write(out.writing, b"first ")
    ours = os.dup(out.writing)
    out.fill()
    wrote = threading.Thread(target=lambda: (os.write(ours, b"last"), os.close(ours)))
    wrote.start()
    wrote.join(0.2)
    assert wrote.is_alive()
    out.wake()
    wrote.join()
    out.over()
    assert out.text.startswith(b"first ")


def test_where_two_results_differ_first():
    one = {"a": 1, "files": {"x": "1"}, "names": ["p", "q"]}
    assert different(one, one | {"files": {"x": "2"}}) == "files.x: 1 before, 2 now"
    assert different(one, one | {"names": ["p", "r"]}) == "names: more ['r'], less ['q']"


SLOW_COUNT = """
import sys, time
from pathlib import Path
place = Path(sys.argv[1])
at = int(place.read_text()) if place.exists() else 0
while at < 30:
    at += 1
    time.sleep(0.02)
    (place.parent / "new").write_text(str(at))
    (place.parent / "new").rename(place)
"""


class Count(Subject):
    """Counts to 30, from where it was."""

    name = "count"

    def command(self, world: Path) -> list[str]:
        return [sys.executable, "-c", SLOW_COUNT, str(world / "at")]

    def stage(self, world: Path) -> str:
        return "count" if (world / "at").exists() else "start"

    def done(self, world: Path) -> bool:
        return (world / "at").exists() and (world / "at").read_text() == "30"

    def result(self, world: Path) -> str:
        return (world / "at").read_text()


@linux
def test_a_life_is_hit_and_taken_up_and_the_same_seed_is_the_same_life(tmp_path, monkeypatch):
    monkeypatch.setitem(SUBJECTS, "count", Count)
    monkeypatch.setattr("tests.chaos.life.KINDS", {name: KINDS[name] for name in ("KILL", "closed")})
    whole = Whole("30", {"start": 0.05, "count": 0.3})
    seen: list[tuple[str, str]] = []
    for _ in range(2):
        for seed in range(2):
            Life("count", seed, whole, tmp_path, False, lambda hit: seen.append((hit.kind, hit.subject))).live()
    assert seen
    assert list(tmp_path.iterdir()) == [tmp_path / "stderr.txt"]
    with pytest.raises(FaultError, match=r"another result: : 31 before, 30 now"):
        Life("count", 1, Whole("31", whole.stages), tmp_path, False, seen.append).live()


def test_a_command_that_fails_by_itself_is_a_fault(tmp_path, monkeypatch):
    class Failing(Count):
        def command(self, world: Path) -> list[str]:
            return [sys.executable, "-c", "raise SystemExit('no')"]

    monkeypatch.setitem(SUBJECTS, "count", Failing)
    monkeypatch.setattr("tests.chaos.life.MOST_HITS", 1)
    monkeypatch.setattr(Life, "_reach", lambda *given: False)
    with pytest.raises(FaultError, match="exit 1: no"):
        Life("count", 0, Whole("30", {"start": 0.0}), tmp_path, False, print).live()


@pytest.mark.slow
@linux
def test_a_few_hits_on_every_subject(tmp_path):
    with tempfile.TemporaryDirectory() as place:  # whose name is short: that of a socket has 107 bytes at most
        words = ["kills=12", "seed=1", f"counts={tmp_path / 'c.json'}", f"place={place}"]
        done = subprocess.run([sys.executable, "-m", "tests.chaos", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert os.listdir(place) == []
    assert sum(json.loads((tmp_path / "c.json").read_text())["hits"].values()) >= 12
