"""`python -m pgolf.report RUN_OR_SWEEP ...`: write report.html again, from the files that are there."""

import sys
from collections.abc import Sequence
from pathlib import Path

from pgolf.config.command import Parser, Result, StatusLines, command
from pgolf.errors import UserError
from pgolf.files.names import RECORD
from pgolf.report.write import write
from pgolf.results.summary import SUMMARY


@command()
def main(args: Sequence[str], say: StatusLines) -> Result:
    parser = Parser("report", "Write report.html of runs and sweeps again.")
    parser.add_argument("folder", nargs="+", type=Path, help="a run's folder, or a sweep's")
    pages = [str(write(_checked(folder))) for folder in parser.parse_args(args).folder]
    return Result("pgolf.report/1", {"pages": pages}, "\n".join(pages))


def _checked(folder: Path) -> Path:
    if not any((folder / name).exists() for name in (SUMMARY, RECORD, "config.yaml", "events.jsonl")):
        raise UserError(f"{folder}: holds neither a run ({RECORD}) nor a sweep ({SUMMARY})")
    return folder


if __name__ == "__main__":
    sys.exit(main())
