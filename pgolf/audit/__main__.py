"""`python -m pgolf.audit PATH [full=true] [trust=true] [data.folder=DIR] [data.cache=DIR] [--long]`: check a
run folder of pgolf's, or a submission folder, ours or anybody's.

A run is checked by running its artifact and its evaluator; full=true scores all of the validation text again. Its data are
looked for where its config says, or where PGOLF_CACHE or the words data.folder and data.cache say. A config that names code
outside of pgolf is refused, unless trust=true: auditing such a run imports and runs that code.
A submission folder is read, and nothing in it is run. --long shows every finding.

`python -m pgolf.audit --all DIR [--page FILE]`: every submission folder below DIR, as a table, and as a page where asked.
`python -m pgolf.audit --explain RULE`: a rule, its precedent, and what settles a finding on it."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pgolf.audit.finding import Finding, overall
from pgolf.config.command import Result, StatusLines, command
from pgolf.errors import UserError
from pgolf.files.names import ARTIFACT, RECORD
from pgolf.machine import tune_runtime

SWITCHES = {f"{name}={str(on).lower()}": (name, on) for name in ("full", "trust") for on in (True, False)}
PLACES = ("data.cache", "data.folder")
SUBMISSION = "submission.json"
LONG = "--long"
USAGE = (
    "usage: python -m pgolf.audit PATH [full=true] [trust=true] [data.folder=DIR] [data.cache=DIR] [--long], PATH a run folder or"
    " a submission folder; or --all DIR [--page FILE]; or --explain RULE"
)


@command(__doc__)
def main(args: Sequence[str], say: StatusLines) -> Result:
    """0 consistent, 1 findings, 2 misuse with one message."""
    if args and args[0] in ("--explain", "--all"):
        return _other(*args)
    from pgolf.audit.report import long, plain_values, short

    path, switches, places = parse([w for w in args if w != LONG])
    findings = audit(path, places, say.quiet, **switches)
    lines = long(findings) if LONG in args or is_run(path) else short(findings)
    code = 0 if overall(findings) == "consistent" else 1
    return Result("pgolf.audit/1", plain_values(os.fspath(path), findings), "\n".join(lines), code)


def _other(option: str, *args: str) -> Result:
    if option == "--explain":
        from pgolf.audit.rules import explain

        text = explain(" ".join(args))
        return Result("pgolf.audit.explain/1", {"rule": text.partition("\n")[0], "text": text}, text)
    if len(args) not in (1, 3) or args[1:2] not in ((), ("--page",)):
        raise UserError(USAGE)
    from pgolf.audit.board import board

    return board(_folder(args[0]), Path(args[2]) if len(args) == 3 else None)


def parse(args: Sequence[str]) -> tuple[Path, dict[str, bool], dict[str, str]]:
    """The path, what is switched (full: score everything again; trust: run code outside of pgolf), and where the data are."""
    pairs = (word.partition("=") for word in args)
    places = {key.removeprefix("data."): value for key, _, value in pairs if key in PLACES and value}
    paths = [w for w in args if w not in SWITCHES and w.partition("=")[0] not in PLACES]
    if len(paths) != 1:
        raise UserError(USAGE)
    return _folder(paths[0]), dict(SWITCHES[w] for w in args if w in SWITCHES), places


def _folder(word: str) -> Path:
    path = Path(word)
    if not path.is_dir():
        raise UserError(f"{word!r}: not a folder; give a run folder (with {RECORD}) or a submission folder")
    return path


def audit(path: Path, places: dict[str, str], quiet: bool, full: bool = False, trust: bool = False) -> list[Finding]:
    if not is_run(path):
        from pgolf.audit.folder import audit_folder

        return audit_folder(path)
    tune_runtime()  # before torch is there
    from pgolf.audit.loaded import Places
    from pgolf.audit.run import audit_run
    from pgolf.audit.show import open_console

    return audit_run(path, full, Places(places, os.environ.get("PGOLF_CACHE")), open_console(quiet), trust)


def is_run(path: Path) -> bool:
    """A run leaves a record. Where that lies in a submission without an artifact, the submission is meant."""
    return (path / RECORD).is_file() and ((path / ARTIFACT).is_file() or not (path / SUBMISSION).is_file())


if __name__ == "__main__":
    sys.exit(main())
