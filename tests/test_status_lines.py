"""What a command says while it works: whoever reads it may go away or fall asleep, and the work is done all the same."""

import subprocess
import sys

import pytest

from tests.processes import until

WORKS = """
import sys
from pathlib import Path
from pgolf.config.command import Result, command

@command()
def main(words, say):
    for number in range(int(words[1])):
        say("x" * 100)
    Path(words[0]).write_text("done")
    return Result("pgolf.test/1", {}, "the result")

sys.exit(main())
"""


def started(place, *words: str, lines: int = 20_000) -> subprocess.Popen:
    command = [sys.executable, "-c", WORKS, str(place), str(lines), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_lines_come_in_order_before_the_result(tmp_path):
    out, err = started(tmp_path / "done", lines=50).communicate()
    lines = out.splitlines()
    assert (lines, err) == (["x" * 100] * 50 + ["the result"], "")


def test_a_reader_that_is_gone_ends_the_command_after_its_work(tmp_path):
    """With the code of a result that could not be shown."""
    with started(tmp_path / "done") as command:
        command.stdout.close()
        said = command.stderr.read()
    assert (command.returncode, said) == (2, "pgolf: writing: Broken pipe\n")
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize("words", [(), ("--json",)], ids=["text", "json"])
def test_a_reader_that_sleeps_holds_up_the_result_alone(tmp_path, words):
    command = started(tmp_path / "done", *words)
    until((tmp_path / "done").exists, "the work is held up")
    out, _ = command.communicate()
    assert command.returncode == 0
    assert "the result" in out or '"pgolf.test/1"' in out
