"""What all commands of pgolf share: how they show their help, a person's mistake, and that they were stopped."""

import functools
import sys
from collections.abc import Callable, Sequence

from pgolf.errors import UserError
from pgolf.machine.signals import StoppedError

Main = Callable[[Sequence[str]], int]


def command(help: str | None = None) -> Callable[[Main], Callable[[Sequence[str] | None], int]]:
    """Make `main(words)` a command: a UserError, or a file that cannot be read or written, is one line on stderr and exit
    code 2, an interrupt 130. `help` is what -h and --help print; without it `main` knows those words itself."""

    def decorated(main: Main) -> Callable[[Sequence[str] | None], int]:
        @functools.wraps(main)
        def shown(args: Sequence[str] | None = None) -> int:
            args = sys.argv[1:] if args is None else args
            if help and args and args[0] in ("-h", "--help"):
                print(help.strip())
                return 0
            try:
                return main(args)
            except UserError as wrong:
                return _refuse(str(wrong), 2)
            except OSError as wrong:
                return _refuse(f"{wrong.filename or 'writing'}: {wrong.strerror or wrong}", 2)
            except KeyboardInterrupt as stop:
                code = stop.code if isinstance(stop, StoppedError) else 130
                return _refuse(f"interrupted{f': {stop}' if str(stop) else ''}", code)

        return shown

    return decorated


def _refuse(message: str, code: int) -> int:
    print(f"pgolf: {message}", file=sys.stderr)
    return code


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
