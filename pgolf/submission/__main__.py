"""`python -m pgolf.submission FOLDER --into DIR`: copy a submission folder to DIR/YYYY-MM-DD_<name>, as the challenge wants."""

import re
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from pgolf.config.command import Parser, Result, StatusLines, command
from pgolf.errors import UserError
from pgolf.files import read_json, write_folder
from pgolf.submission.describe import AUTHOR


@command()
def main(args: Sequence[str], say: StatusLines) -> Result:
    """Copy a submission to its dated folder."""
    parser = Parser("submission", "Copy a submission to its dated folder.")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="SWEEP/submission/ARM")
    parser.add_argument("--into", metavar="DIR", type=Path, required=True, help="the folder of records to copy it into")
    options = parser.parse_args(args)
    path, needed = hand_in(options.folder, options.into)
    still = [f"still needed in submission.json: {', '.join(needed)}"] if needed else []
    value = {"folder": str(path), "still_needed": needed}
    return Result("pgolf.submission/1", value, "\n".join([str(path), *still]))


def hand_in(folder: Path, into: Path) -> tuple[Path, list[str]]:
    """Copy `folder` to `into`/YYYY-MM-DD_<name>, whole or not at all; returns that, and who or what is not named yet.

    UserError if its audit fails, if it has no name or date to be called by, or if the place is taken."""
    from pgolf.audit.folder import audit_folder

    submission = read_json(folder / "submission.json")
    if not isinstance(submission, dict):
        raise UserError(f"{folder / 'submission.json'}: must be a JSON object")
    path = into / dated(submission)
    failing = [f"{finding.where} {finding.what}" for finding in audit_folder(folder) if finding.verdict == "fail"]
    if failing:
        raise UserError(f"{folder}: its audit fails: {'; '.join(failing)}")
    if path.exists() or path.is_symlink():
        raise UserError(f"{path}: is there already; nothing was copied")
    write_folder(path, contents(folder))
    return path, [key for key in AUTHOR if not submission.get(key)]


def dated(submission: dict) -> str:
    """The folder's name in the challenge's records. {"date": "2026-05-01", "name": "Small model"}: 2026-05-01_Small_model"""
    day, name = (submission.get(key) for key in ("date", "name"))
    if not isinstance(name, str) or not name.strip():
        raise UserError("submission.json: it has no name; write one there, and author.name=... before the next run")
    if re.search(r"[/\\]", name):
        raise UserError(f"submission.json: name {name!r} has a path separator")
    safe = re.sub(r"[^A-Za-z0-9._=,+-]+", "_", name).strip("._")[:120]
    if not safe:
        raise UserError(f"submission.json: name {name!r} has no letter or digit that a folder can be called by")
    try:
        return f"{date.fromisoformat(day)}_{safe}"
    except (TypeError, ValueError):
        raise UserError(f"submission.json: date {day!r} is not a day as YYYY-MM-DD") from None


def contents(folder: Path) -> dict[str, bytes]:
    """Name and content of every file; UserError for what could not be copied as it is."""
    try:
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
