"""`python -m pgolf.audit PATH [full=true]`: check a run folder of pgolf's, or a submission folder, ours or anybody's.

A run is checked by running its artifact and its evaluator; full=true scores all of the validation text again."""

import sys
from collections.abc import Sequence
from pathlib import Path

from pgolf.audit.finding import Finding, overall
from pgolf.command import command
from pgolf.errors import UserError
from pgolf.runfolder import ARTIFACT, RECORD

WORDS = {"full=true": True, "full=false": False}


@command(__doc__)
def main(words: Sequence[str]) -> int:
    """0 consistent, 1 findings, 2 misuse with one message."""
    findings = audit(*asked(words))
    for line in table(findings):
        print(line)
    print(f"verdict {overall(findings)}")
    return 0 if overall(findings) == "consistent" else 1


def asked(words: Sequence[str]) -> tuple[Path, bool]:
    """The path, and whether everything is to be scored again."""
    paths, options = [w for w in words if w not in WORDS], [WORDS[w] for w in words if w in WORDS]
    if len(paths) != 1:
        raise UserError("usage: python -m pgolf.audit PATH [full=true], PATH a run folder or a submission folder")
    path = Path(paths[0])
    if not path.is_dir():
        raise UserError(f"{path}: not a folder; give a run folder (with {RECORD}) or a submission folder")
    return path, any(options)


def audit(path: Path, full: bool) -> list[Finding]:
    if (path / RECORD).is_file() and (path / ARTIFACT).is_file():
        from pgolf.audit.run import audit_run

        return audit_run(path, full)
    from pgolf.audit.folder import audit_folder

    return audit_folder(path)


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
