"""Commands as a program calls them: one object on stdout whatever happens, exit codes, no question, and the docs' tables."""

import json
import os
import re
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import pgolf
from pgolf.config.command import ERROR, CommandError, Result, command
from pgolf.config.compose import rehearse
from pgolf.config.words import short_words
from pgolf.errors import ConfigError, UserError
from tests.pages import PAGES
from tests.processes import PATIENCE, until_line
from tests.programs import refused, said, schemas

ROOT = Path(pgolf.__file__).parent
SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py"))}
HEAD = """
import os, subprocess, sys, time
from pgolf.config.command import Result, command
from pgolf.errors import UserError
from pgolf.machine.outlet import say
@command()
def main(args, told):
"""
NOISE = """
    told("progress"); print("print"); os.write(1, b"descriptor\\n"); say("outlet", 1)
    subprocess.run([sys.executable, "-c", "print('child')"])
    print("warning", file=sys.stderr)
"""
FOUND = "    return Result('pgolf.dashboard/1', {'url': 'x'}, 'text')\n"
END = "sys.exit(main())"
LINES = ["progress", "print", "descriptor", "outlet", "child"]


def ran(body: str, *words: str, **how) -> subprocess.CompletedProcess:
    how = {"capture_output": True, "text": True, "timeout": 120} | how
    return subprocess.run([sys.executable, "-c", HEAD + body + END, *words], **how)


def test_stdout_has_the_object_and_stderr_all_else():
    done = ran(NOISE + FOUND, "--json")
    assert said(done.stdout, "pgolf.dashboard", 0)["url"] == "x"
    assert [line for line in done.stderr.splitlines() if line != "warning"] == LINES
    done = ran(NOISE + FOUND, "--quiet", "--json")
    assert done.stderr.splitlines()[:1] != ["progress"]
    done = ran(NOISE + FOUND)
    assert {*done.stdout.splitlines()} == {*LINES, "text"}
    assert done.stderr == "warning\n"


def raising(wrong: BaseException):
    @command()
    def main(args, say):
        raise wrong

    return main


@pytest.mark.parametrize(
    ("wrong", "code", "message"),
    [
        (UserError("a=5: must be 6"), 2, "a=5: must be 6"),
        (FileNotFoundError(2, "No such file or directory", "x"), 2, "x: No such file or directory"),
        (CommandError("1 is not 2", 1), 1, "1 is not 2"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_ends_a_command_is_an_object_with_the_same_exit_code(wrong, code, message, capsys):
    main = raising(wrong)
    assert main([]) == code
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"pgolf: {message}\n")
    assert main(["--json"]) == code
    told = capsys.readouterr()
    assert (refused(told.out, code), told.err) == (message, "")


def test_a_fault_of_ours_is_a_traceback_and_an_object(capsys):
    main = raising(ZeroDivisionError("ours"))
    assert main(["--json"]) == 1
    told = capsys.readouterr()
    assert refused(told.out, 1) == "ZeroDivisionError: ours"
    assert "Traceback" in told.err
    with pytest.raises(ZeroDivisionError):
        main([])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_command_that_is_stopped_says_so(tmp_path, number, code):
    body = "    print('here', file=open(args[0], 'w'), flush=True); time.sleep(600)\n" + FOUND
    asked = [sys.executable, "-c", HEAD + body + END, str(tmp_path / "began"), "--json"]
    process = subprocess.Popen(asked, stdout=subprocess.PIPE, text=True)
    until_line(tmp_path / "began", "here")
    process.send_signal(number)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert refused(printed, code) == f"interrupted: stopped by {number.name}"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")
@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_result_that_cannot_be_written_is_no_success(words):
    with open("/dev/full", "w") as full:
        done = ran(FOUND, *words, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == "pgolf: writing: No space left on device\n"


@pytest.mark.parametrize("closed", ["0", "1", "2"])
def test_closed_streams_end_nothing(closed):
    code = f"import os; os.close({closed}); os.execv({sys.executable!r}, ['python', '-c', {HEAD + FOUND + END!r}, '--json'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    assert closed == "1" or said(done.stdout, "pgolf.dashboard", 0)


def test_help_is_text_and_names_what_is_shared(capsys):
    @command("usage")
    def main(args, say):
        raise AssertionError

    for words in (["--help"], ["-h", "--json"]):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert out.startswith("usage\n\n--json  ")
        assert "--quiet" in out


def test_every_value_is_json():
    text = Result("pgolf.x/1", {"a": float("nan"), "b": "\udcff\x1bé", "c": [float("inf"), 1]}, "").json()
    assert text.isascii()
    value = json.loads(text)
    assert value == {"schema": "pgolf.x/1", "code": 0, "a": None, "b": "\udcff\x1bé", "c": [None, 1]}


def test_quiet_is_a_word_of_a_run_and_no_part_of_what_is_computed():
    (loud,), (quiet,) = rehearse([], sweep=False), rehearse([short_words("--quiet")], sweep=False)
    assert (loud.config["quiet"], quiet.config["quiet"]) == (False, True)
    assert (loud.arm, loud.arm_sha256, loud.config_sha256) == (quiet.arm, quiet.arm_sha256, quiet.config_sha256)
    with pytest.raises(ConfigError, match="quiet=1: must be true or false"):
        rehearse(["quiet=1"], sweep=False)


# ---- the tables


def test_the_page_has_every_schema_and_no_other():
    stated = {found for source in SOURCES.values() for found in re.findall(r'"(pgolf\.[\w.]+/\d+)"', source)}
    assert stated == {*schemas()}
    assert ERROR in stated


COMMANDS = sorted(
    ({path.stem for path in ROOT.glob("*.py")} - {"__init__", "errors", "pipeline", "recipe", "run"})
    | ({path.parent.name for path in ROOT.glob("*/__main__.py")} - {"logger"})
)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_one_of_the_shared_kind_and_refuses_in_one_object(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    package = (ROOT / name).is_dir()
    main = import_module(f"pgolf.{name}.__main__" if package else f"pgolf.{name}").main
    assert main(["nothing=1", "--no-such-option", "--json"]) == 2
    told = capsys.readouterr()
    assert refused(told.out, 2)
    assert told.err == ""
    assert list(tmp_path.iterdir()) == []


def test_the_one_table_of_exit_codes():
    tables = {page: re.findall(r"^\| (\d+(?: \+ n)?) \|", text, re.MULTILINE) for page, text in PAGES.items()}
    assert tables["docs/stopping.md"] == ["0", "1", "2", "75", "128 + n"]
    assert [page for page, codes in tables.items() if "75" in codes] == ["docs/stopping.md"]


def test_nothing_asks_a_person():
    """No source asks, by itself or through a library; what reads standard input are helpers, which wait for its end."""
    asks = re.compile(r"(?<![\w.])input\(|getpass|\.prompt\(|Confirm\.|wandb\.login|notebook_login|interpreter_login")
    assert [path.name for path, source in SOURCES.items() if asks.search(source)] == []
    reads = re.compile(r"sys\.stdin\.|os\.read\(0")
    reading = {path.relative_to(ROOT).as_posix() for path, source in SOURCES.items() if reads.search(source)}
    assert reading == {"logger/__main__.py", "report/drawing.py"}
