"""`python -m pgolf.report RUN_OR_SWEEP ...`: write report.html again, from the files that are there."""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from pgolf.config.command import command
from pgolf.errors import UserError
from pgolf.files.names import RECORD
from pgolf.report.write import write
from pgolf.results.summary import SUMMARY


@command()
def main(args: Sequence[str]) -> int:
    parser = ArgumentParser("python -m pgolf.report", description="Write report.html of runs and sweeps again.")
    parser.add_argument("folder", nargs="+", type=Path, help="a run's folder, or a sweep's")
    for folder in parser.parse_args(args).folder:
        print(write(_checked(folder)))
    return 0


def _checked(folder: Path) -> Path:
    if not any((folder / name).exists() for name in (SUMMARY, RECORD, "config.yaml", "events.jsonl")):
        raise UserError(f"{folder}: holds neither a run ({RECORD}) nor a sweep ({SUMMARY})")
    return folder


if __name__ == "__main__":
    sys.exit(main())
