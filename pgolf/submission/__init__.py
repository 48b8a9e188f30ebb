"""The submission folder of an arm: README.md, submission.json, one log per seed, train_gpt.py, requirements.txt.

All of it is generated from the records of the arm's runs. Nothing is written for an arm that is not whole, that fails,
or whose files disagree; the reason goes into summary.json.
"""

import hashlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf.errors import UserError
from pgolf.files import json_bytes, write_folder, write_json
from pgolf.files.leftovers import clear
from pgolf.files.names import CODE, LOG
from pgolf.machine.lock import locked
from pgolf.machine.outlet import say
from pgolf.report import REPORT, Drawing
from pgolf.results.jsonshape import submission_schema, violations
from pgolf.results.readme import readme
from pgolf.results.runfolder import Run, read_run
from pgolf.results.summary import SUMMARY, find_arm, refuse_mixed_code, summarise
from pgolf.submission.describe import describe, requirements

if TYPE_CHECKING:
    from pgolf.logger import Logger


def publish(sweep_dir: Path, patient: bool = True) -> dict[str, Any]:
    """Write summary.json and the folder of every arm that may have one; the summary says what became of each.

    Meant to be called after every job; calling it again changes nothing. `patient`: as for `read_run`.
    """
    summary = summarise(sweep_dir, patient)
    for arm in summary["arms"]:
        try:
            folder = write_submission(sweep_dir, summary, arm["arm_sha256"])
            arm["submission"] = {"written": True, "folder": str(folder.relative_to(sweep_dir))}
        except UserError as error:
            arm["submission"] = {"written": False, "why": str(error)}
    write_json(sweep_dir / SUMMARY, summary)
    refuse_mixed_code(summary)
    return summary


def gather(folder: Path, logger: "Logger") -> None:
    """After a job: summary and submissions, the sweep's report, and, when all jobs have ended, its place in the logger."""
    with locked(folder / ".gather.lock", f"the summary of {folder}", wait=True):
        for place, name in ((folder, SUMMARY), (folder, REPORT), (folder / "submission", "*")):
            clear(place, name)
        drawing = Drawing(folder)
        try:
            publish(folder, patient=False)
        finally:
            if fault := drawing.finish():
                say(fault)
            if ended(summarise(folder, patient=False)):
                logger.aggregate(folder, say)


def ended(summary: dict[str, Any]) -> bool:
    """Whether every planned run has come to an end, good or bad."""
    waiting = ("missing", "running")
    return not any(row["status"] in waiting for arm in summary["arms"] for row in arm["not_complete"])


def write_submission(sweep_dir: Path, summary: dict[str, Any], arm: str) -> Path:
    """Write `submission/<arm>/` for the arm with this label or arm_sha256 and return it; UserError says why not.

    A folder from an earlier time is replaced, or removed when the arm may no longer have one.
    """
    chosen = find_arm(summary, arm)
    folder = sweep_dir / "submission" / folder_name(chosen, summary)
    try:
        files = _files(sweep_dir, chosen)
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    write_folder(folder, files)
    return folder


def folder_name(arm: dict, summary: dict) -> str:
    """The arm's label as one path component; with some of its hash where the label alone would not be enough."""
    label = re.sub(r"[^A-Za-z0-9._=,+-]", "_", arm["arm"]).strip(".")[:120]
    unique = [a["arm"] for a in summary["arms"]].count(arm["arm"]) == 1
    return label if label and label == arm["arm"] and unique else f"{label or 'arm'}-{arm['arm_sha256'][:8]}"


def refusal(arm: dict) -> str | None:
    """Why this arm of a summary may not be submitted, or None."""
    if arm["refused"]:
        return arm["refused"]
    if arm["not_complete"]:
        return "; ".join(f"seed {a['seed']} is {a['status']}: {a['why']}" for a in arm["not_complete"])
    if not arm["seeds"]:
        return "no seed is complete"
    found = [f"seed {row['seed']}: {what}" for row in arm["seeds"] for what in _faults(row)]
    return "; ".join(found) or None


def _faults(row: dict) -> list[str]:
    found = [f"verdict {row['verdict']}"] if row["verdict"].startswith("fail") else []
    if row["trained"]:
        found.append(f"its artifact was trained in {row['trained']}, whose log has the training")
    if row["total_bytes"] > row["limit_bytes"]:
        found.append(f"{row['total_bytes']} bytes are over limits.artifact_bytes={row['limit_bytes']}")
    return found + row["disagreements"]


def _files(sweep_dir: Path, arm: dict) -> dict[str, bytes]:
    """Name and content of every file of the folder; UserError says why there may be none."""
    why = refusal(arm)
    if why:
        raise UserError(why)
    runs = [read_run(sweep_dir / row["run"]) for row in arm["seeds"]]
    submission = describe(arm, runs)
    wrong = violations(submission, submission_schema())
    if wrong:
        raise UserError("submission.json would not keep to its schema: " + "; ".join(wrong))
    logs = {f"train_seed{run.seed}.log": (run.folder / LOG).read_bytes() for run in runs}
    return {
        "README.md": readme(arm, runs, submission).encode(),
        "submission.json": json_bytes(submission),
        **logs,
        CODE: _code(runs),
        "requirements.txt": requirements(runs[0].record["environment"]).encode(),
    }


def _code(runs: Sequence[Run]) -> bytes:
    """The one script all seeds ran: the file in their folders, which must be what the records weighed."""
    for run in runs:
        path, stated = run.folder / CODE, run.record["code"]
        if not path.exists():
            raise UserError(f"{path}: missing; every run keeps the script that its record weighed")
        data = path.read_bytes()
        if (len(data), hashlib.sha256(data).hexdigest()) != (stated["bytes"], stated["sha256"]):
            raise UserError(f"{path}: {len(data)} bytes that are not what the record weighed ({stated['bytes']} bytes)")
    return data
