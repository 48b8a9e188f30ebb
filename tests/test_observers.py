"""What only shows can neither stop nor fail a run; what is the run's own and cannot be written fails it."""

import fcntl
import json
import os
import pty
import resource
import subprocess
import termios
import threading

import pytest

from pgolf.config.compose import rehearse
from pgolf.logger.keys import history
from tests.command import TINY, command, environment, record
from tests.processes import PATIENCE

WORDS = (*TINY, "limits.train_steps=2", "ttt=none", "average=none", "hydra.run.dir=run")
SMALLEST_PIPE = 4096

HUNG = """
class Settings:
    def __init__(self, **words): pass
def init(**words):
    import time
    time.sleep(600)
"""


def full_pipe() -> tuple[int, int]:
    """A pipe that takes nothing more, and that nobody reads: (read end, write end)."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE)
    os.write(writer, b"x" * SMALLEST_PIPE)
    return reader, writer


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.slow
def test_with_every_observer_out_of_order_a_run_ends_as_if_all_were_well(tmp_path):
    """Standard output is full, standard error closed, the encoding narrow, the log on a full disk, the service hung."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "train.log").symlink_to("/dev/full")
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "wandb.py").write_text(HUNG)
    path = os.pathsep.join([str(tmp_path / "fake"), os.environ.get("PYTHONPATH", "")])
    env = environment() | {"PYTHONPATH": path, "PYTHONIOENCODING": "latin-1"}
    (reader, out), err = full_pipe(), closed_pipe()
    done = subprocess.run(
        command(*WORDS, "logger=wandb", "logger.patience_seconds=2"), cwd=tmp_path, stdout=out, stderr=err, env=env
    )
    assert done.returncode == 0
    kept = record(folder)
    assert (kept["status"], kept["verdict"], kept["log_sha256"]) == ("complete", "consistent", None)
    told = " ".join(kept["notices"])
    assert "train.log: cannot be written: No space left on device" in told
    assert "standard output: took nothing for 5 s at the end" in told
    assert "Wandb: was not done 2 s after the end and was stopped" in told
    assert (folder / "report.html").exists()
    assert len(os.read(reader, 1 << 16)) <= SMALLEST_PIPE
    os.close(reader)
    os.close(out)
    os.close(err)


@pytest.mark.slow
def test_a_reader_that_leaves_after_three_lines_ends_nothing(tmp_path):
    running = subprocess.Popen(
        command(*WORDS), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    first = [running.stdout.readline() for _ in range(3)]
    running.stdout.close()
    said = running.stderr.read()
    running.stderr.close()
    assert all(first)
    assert running.wait(timeout=PATIENCE) == 0, said
    assert said == ""
    kept = record(tmp_path / "run")
    assert (kept["status"], kept["verdict"]) == ("complete", "consistent")
    assert kept["notices"] == ["standard output: Broken pipe; the run went on without it"]
    assert kept["log_sha256"]


@pytest.mark.slow
def test_a_terminal_that_is_stopped_stops_nothing(tmp_path):
    """As after Ctrl-S: writing to it blocks."""
    master, terminal = pty.openpty()
    env = {key: value for key, value in environment().items() if key != "CI"} | {"TERM": "xterm"}
    running = subprocess.Popen(command(*WORDS), cwd=tmp_path, stdout=terminal, stderr=subprocess.PIPE, env=env)
    seen = os.read(master, 100)
    termios.tcflow(terminal, termios.TCOOFF)
    said = running.stderr.read()
    running.stderr.close()
    assert running.wait(timeout=PATIENCE) == 0, said
    assert seen
    assert record(tmp_path / "run")["status"] == "complete"
    assert "standard output: took nothing" in record(tmp_path / "run")["notices"][0]
    termios.tcflow(terminal, termios.TCOON)
    os.close(master)
    os.close(terminal)


def test_on_a_terminal_there_is_a_view_and_a_closing_table(tmp_path):
    master, terminal = pty.openpty()
    env = {key: value for key, value in environment().items() if key != "CI"} | {"TERM": "xterm", "COLUMNS": "100"}
    running = subprocess.Popen(command(*WORDS), cwd=tmp_path, stdout=terminal, stderr=subprocess.PIPE, env=env)
    os.close(terminal)
    shown = bytearray()
    reader = threading.Thread(target=drained, args=(master, shown))
    reader.start()
    said = running.stderr.read()
    running.stderr.close()
    assert running.wait(timeout=PATIENCE) == 0, said
    reader.join(timeout=PATIENCE)
    text = shown.decode()
    for word in ("importing torch", "warm up", "evaluate", "sealed ", "laptop, seed 1337", "verdict", "consistent"):
        assert word in text, word
    assert "techniques:" not in text, "the table says it"
    assert text.rstrip().splitlines()[-1].startswith("val_bpb=")
    os.close(master)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    progress = [event for event in events if event["event"] == "progress"]
    assert {"warm up", "train", "seal", "evaluate"} <= {event["label"] for event in progress}
    assert all(history(event) == {} for event in progress), "services hear nothing of it"


def drained(descriptor: int, into: bytearray) -> None:
    while True:
        try:
            data = os.read(descriptor, 1 << 16)
        except OSError:  # the terminal is closed
            return
        if not data:
            return
        into += data


@pytest.mark.slow
@pytest.mark.parametrize(
    ("most", "told"),
    [(15_000, "train_gpt.py: cannot be written"), (90_000, "artifact.pgolf: cannot be written")],
)
def test_a_full_disk_fails_a_run_with_one_message(tmp_path, monkeypatch, most, told):
    """No file may grow past `most` bytes: the first of the run's own that would is named."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    corpus_ready(monkeypatch)
    done = subprocess.run(
        command(*WORDS), cwd=tmp_path, capture_output=True, text=True, env=environment(), preexec_fn=limited
    )
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "artifact.pgolf").exists()
    if (tmp_path / "run" / "record.json").exists():
        kept = record(tmp_path / "run")
        assert (kept["status"], kept["evaluate"]) == ("failed", None)
        assert told in kept["error"]


def corpus_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """The corpus of the tests is built before files are kept short."""
    monkeypatch.setenv("PGOLF_CACHE", environment()["PGOLF_CACHE"])
    (job,) = rehearse(list(TINY), sweep=False)
    job.recipe.data.prepare(lambda what, done: None)
