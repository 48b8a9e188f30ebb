"""`python -m pgolf.audit PATH [full=true] [data.folder=DIR] [data.cache=DIR]`: check a run folder of pgolf's, or a
submission folder, ours or anybody's.

A run is checked by running its artifact and its evaluator; full=true scores all of the validation text again. Its data are
looked for where its config says, or where PGOLF_CACHE or the words data.folder and data.cache say."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pgolf.audit.finding import Finding, overall
from pgolf.command import command
from pgolf.errors import UserError
from pgolf.machine import spin_briefly
from pgolf.runfolder import ARTIFACT, RECORD

FULL = {"full=true": True, "full=false": False}
PLACES = ("data.cache", "data.folder")
SUBMISSION = "submission.json"


@command(__doc__)
def main(words: Sequence[str]) -> int:
    """0 consistent, 1 findings, 2 misuse with one message."""
    findings = audit(*asked(words))
    for line in table(findings):
        print(line)
    print(f"verdict {overall(findings)}")
    return 0 if overall(findings) == "consistent" else 1


def asked(words: Sequence[str]) -> tuple[Path, bool, dict[str, str]]:
    """The path, whether everything is to be scored again, and where the data are."""
    pairs = (word.partition("=") for word in words)
    places = {key.removeprefix("data."): value for key, _, value in pairs if key in PLACES and value}
    paths = [w for w in words if w not in FULL and w.partition("=")[0] not in PLACES]
    if len(paths) != 1:
        usage = "usage: python -m pgolf.audit PATH [full=true] [data.folder=DIR] [data.cache=DIR]"
        raise UserError(f"{usage}, PATH a run folder or a submission folder")
    path = Path(paths[0])
    if not path.is_dir():
        raise UserError(f"{path}: not a folder; give a run folder (with {RECORD}) or a submission folder")
    return path, any(FULL[w] for w in words if w in FULL), places


def audit(path: Path, full: bool, places: dict[str, str]) -> list[Finding]:
    if not is_run(path):
        from pgolf.audit.folder import audit_folder

        return audit_folder(path)
    spin_briefly()  # before torch is there
    from pgolf.audit.case import Places
    from pgolf.audit.run import audit_run
    from pgolf.audit.show import open_console

    return audit_run(path, full, Places(places, os.environ.get("PGOLF_CACHE")), open_console())


def is_run(path: Path) -> bool:
    """A run leaves a record. Where that lies in a submission without an artifact, the submission is meant."""
    return (path / RECORD).is_file() and ((path / ARTIFACT).is_file() or not (path / SUBMISSION).is_file())


def table(findings: list[Finding]) -> list[str]:
    """A line per finding, the remedy under those that need one."""
    lines, width = [], max([len(f.rule) for f in findings], default=0)
    for f in findings:
        lines.append(f"{f.verdict:<14}  {f.rule:<{width}}  {f.where}: {f.what}")
        if f.fix:
            lines.append(f"{'':<14}  {'':<{width}}  -> {f.fix}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
