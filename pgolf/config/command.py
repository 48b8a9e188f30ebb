"""What all commands of pgolf share: help, progress, a result that people read or programs parse, a person's mistake, and that
they were stopped. With --json, stdout holds one object and nothing else, whatever happens."""

import argparse
import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pgolf.errors import UserError
from pgolf.files import finite, write_bytes
from pgolf.machine.outlet import Outlet, outlet, standard_output
from pgolf.machine.signals import StoppedError, one_desk

ERROR = "pgolf.error/1"
JSON, QUIET, HELP = "--json", "--quiet", ("-h", "--help")
SHARED = """\
--json     one JSON object on stdout, for a failure too, and all else on stderr: docs/programs.md
--quiet    no progress, only the result"""


@dataclass(frozen=True)
class Result:
    """What a command has found: `value` for programs, by a `schema` with its version, and `text` for people.

    `code` is the exit code; `file` is to hold the object as well.
    """

    schema: str
    value: dict[str, Any]
    text: str
    code: int = 0
    file: Path | None = None

    def json(self) -> str:
        """The object, in ASCII; null where a number is not finite."""
        stated = {"schema": self.schema, "code": self.code, **finite(self.value)}
        return json.dumps(stated, indent=2, allow_nan=False)


@dataclass(frozen=True)
class StatusLines:
    """What a command says while it works: lines on stdout (with --json on stderr), or, with --quiet, none.

    A reader that is gone or does not read neither ends nor holds up the work."""

    quiet: bool

    def __call__(self, text: str) -> None:
        if not self.quiet:
            stream = standard_output()
            if isinstance(stream, Outlet):
                stream.show(f"{text}\n")
            else:
                print(text, file=stream, flush=True)


class CommandError(Exception):
    """Ends a command with one line and this exit code, where the mistake is not the person's."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class Parser(argparse.ArgumentParser):
    """The arguments of a command: a mistake is a UserError, and the help names what all commands share."""

    def __init__(self, command: str, description: str):
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(f"python -m pgolf.{command}", None, description, SHARED, formatter_class=raw)

    def error(self, message: str) -> NoReturn:
        """Raise a UserError with the message and the usage."""
        raise UserError(f"{message} ({' '.join(self.format_usage().split())} …)")


Main = Callable[[Sequence[str], StatusLines], Result]


def command(help: str | None = None) -> Callable[[Main], Callable[[Sequence[str] | None], int]]:
    """Make `main(words, say)` a command, which returns its exit code. --json and --quiet may stand anywhere among its words.

    A UserError, or a file that cannot be read or written, is one line on stderr and exit code 2, an interrupt 130. `help` is
    what -h and --help print; without it `main` knows those words itself.
    """

    def decorated(main: Main) -> Callable[[Sequence[str] | None], int]:
        @functools.wraps(main)
        def shown(args: Sequence[str] | None = None) -> int:
            args = sys.argv[1:] if args is None else args
            words, quiet = [word for word in args if word not in (JSON, QUIET)], QUIET in args
            if help and words and words[0] in HELP:
                print(f"{help.strip()}\n\n{SHARED}")
                return 0
            as_json = JSON in args and not {*HELP} & {*words}
            with _for_a_program() if as_json else nullcontext():
                result = _ended(lambda: _kept(main(words, StatusLines(quiet))), as_json)
                if isinstance(stream := standard_output(), Outlet):
                    stream.drain()
            said = _ended(lambda: _said(result, as_json), as_json)
            if said is not result:
                _refuse(said)
            return said.code

        return shown

    return decorated


def _ended(work: Callable[[], Result], as_json: bool) -> Result:
    """What `work` returns, or what ended it. A fault of pgolf's own is a traceback, and with --json an object beside it."""
    try:
        return work()
    except UserError as wrong:
        return _failure(str(wrong), 2)
    except CommandError as wrong:
        return _failure(str(wrong), wrong.code)
    except OSError as wrong:
        return _failure(f"{wrong.filename or 'writing'}: {wrong.strerror or wrong}", 2)
    except KeyboardInterrupt as stop:
        code = stop.code if isinstance(stop, StoppedError) else 130
        return _failure(f"interrupted{f': {stop}' if str(stop) else ''}", code)
    except Exception as wrong:
        if not as_json:
            raise
        traceback.print_exc()
        return _failure(f"{type(wrong).__name__}: {wrong}", 1)


def _failure(message: str, code: int) -> Result:
    return Result(ERROR, {"error": message}, message, code)


def _kept(result: Result) -> Result:
    """The same, once it is in its file, if it has one."""
    if result.file:
        write_bytes(result.file, f"{result.json()}\n".encode())
    return result


def _said(result: Result, as_json: bool) -> Result:
    """The same, once it is on stdout, or on stderr if it is a failure that a person reads."""
    if result.schema == ERROR and not as_json:
        _refuse(result)
    elif as_json or result.text:
        print(result.json() if as_json else result.text, flush=True)
    return result


def _refuse(failure: Result) -> None:
    print(f"pgolf: {failure.text}", file=sys.stderr)


@contextmanager
def _for_a_program() -> Iterator[None]:
    """Signals that stop are exceptions, and what anything prints, a library or another process too, goes to standard error."""
    if sys.stdout is None:  # closed before the program began: the descriptor may be anybody's by now
        with one_desk():
            yield
        return
    kept = os.dup(1)
    os.dup2(2 if sys.stderr else os.open(os.devnull, os.O_WRONLY), 1)
    try:
        with one_desk(), redirect_stdout(sys.stderr):
            yield
    finally:
        outlet().drain()
        os.dup2(kept, 1)
        os.close(kept)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
