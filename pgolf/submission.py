"""The submission folder of an arm: README.md, submission.json, one log per seed, train_gpt.py, requirements.txt.

All of it is generated from the records of the arm's runs. Nothing is written for an arm that is not whole, that fails,
or whose files disagree; the reason goes into summary.json.

`python -m pgolf.submission FOLDER --into DIR` copies such a folder to DIR/YYYY-MM-DD_<name>, as the challenge wants it.
"""

import argparse
import hashlib
import re
import shutil
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pgolf
from pgolf.config.command import command
from pgolf.errors import UserError
from pgolf.files import json_bytes, lookup, read_json, write_folder, write_json
from pgolf.files.names import CODE, LOG
from pgolf.machine.lock import locked
from pgolf.machine.outlet import say
from pgolf.report import Drawing
from pgolf.results.arguments import unlimited
from pgolf.results.jsonshape import submission_schema, violations
from pgolf.results.readme import hardware, readme
from pgolf.results.runfolder import Run, read_run
from pgolf.results.summary import SUMMARY, find_arm, refuse_mixed_code, summarise

if TYPE_CHECKING:
    from pgolf.logger import Logger

AUTHOR = ("author", "github_id", "name", "blurb")
UNLIMITED = "unlimited_16mb"
RECORD_LIMITS = {"train_seconds": 600, "eval_seconds": 600, "artifact_bytes": 16_000_000}


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


def describe(arm: dict, runs: Sequence[Run]) -> dict[str, Any]:
    """submission.json of an arm: the challenge's fields, and `pgolf` with the proofs."""
    first, rows = runs[0].record, arm["seeds"]
    person, extra = _author(first)
    return {
        **person,
        "date": max(r.when[0] for r in runs)[:10],
        "track": _track(first),
        **extra,
        "val_bpb": arm["val_bpb"]["mean"],
        "val_bpb_std": arm["val_bpb"]["std"],
        "val_loss": arm["val_loss"]["mean"],
        "val_loss_std": arm["val_loss"]["std"],
        "bytes_total": max(row["total_bytes"] for row in rows),
        "bytes_code": first["code"]["bytes"],
        "seeds": [row["seed"] for row in rows],
        "seed_results": {str(r.seed): _result(row, r) for row, r in zip(rows, runs, strict=True)},
        "hardware": hardware(first),
        "pytorch_version": first["environment"]["packages"].get("torch"),
        "technique_summary": " + ".join(f"{t['group']}={t['option']}" for t in first["techniques"]),
        "compliance": compliance(runs),
        "pgolf": _proofs(arm, runs, [k for k, v in person.items() if v is None]),
    }


def _author(record: dict) -> tuple[dict[str, Any], dict[str, Any]]:
    """Who and what, from the configuration and nowhere else; and the optional references, where they are given."""
    given = record.get("author") or {}
    extra = {k: given[k] for k in ("attribution", "base_pr") if given.get(k) is not None}
    return {k: given.get(k) or None for k in AUTHOR}, extra


def _track(record: dict) -> str | None:
    """The challenge's name for its own limits, the one without a limit of compute included; other limits are no track."""
    limits = record["limits"]
    if all(limits[k] == v for k, v in RECORD_LIMITS.items()):
        return "10min_16mb"
    others = all(limits[k] == v for k, v in RECORD_LIMITS.items() if k != "train_seconds")
    return UNLIMITED if others and unlimited(limits) and not limits.get("study") else None


def _result(row: dict, run: Run) -> dict[str, Any]:
    return {
        "val_bpb": row["val_bpb"],
        "val_loss": row["val_loss"],
        "artifact_bytes": row["artifact_bytes"],
        "bytes_total": row["total_bytes"],
        "steps": row["steps"],
        "train_time_s": row["train_seconds"],
        "eval_time_s": row["eval_seconds"],
        "val_tokens": run.record["evaluate"]["tokens"],
    }


def compliance(runs: Sequence[Run]) -> dict[str, bool]:
    """What the records say of the rules that are numbers, over all seeds."""
    records = [r.record for r in runs]
    return {
        "every_seed_within_artifact_bytes": all(
            r["artifact"]["bytes"] + r["code"]["bytes"] <= r["limits"]["artifact_bytes"] for r in records
        ),
        "training_within_clock": all(r["train"]["seconds"] <= r["limits"]["train_seconds"] for r in records),
        "evaluation_within_clock": all(r["evaluate"]["seconds"] <= r["limits"]["eval_seconds"] for r in records),
        "every_part_acted": all(receipt["alive"] for r in records for receipt in r["receipts"]),
        "verdict_consistent": all(r["verdict"] == "consistent" for r in records),
        "at_least_three_seeds": len(records) >= 3,
    }


def _proofs(arm: dict, runs: Sequence[Run], still_needed: list[str]) -> dict[str, Any]:
    def by_seed(key: str) -> dict[str, Any]:
        return {str(r.seed): lookup(r.record, key) for r in runs}

    return {
        "version": pgolf.__version__,
        "arm": arm["arm"],
        "arm_sha256": arm["arm_sha256"],
        "config_sha256": by_seed("config_sha256"),
        "code_sha256": runs[0].code_sha256,
        "artifact_sha256": by_seed("artifact.sha256"),
        "data_manifest": runs[0].record["data"]["manifest_sha256"],
        "log_sha256": {str(r.seed): hashlib.sha256((r.folder / LOG).read_bytes()).hexdigest() for r in runs},
        "receipts": by_seed("receipts"),
        "verdict": by_seed("verdict"),
        "training_hours": {str(r.seed): round(r.record["train"]["seconds"] / 3600, 3) for r in runs},
        "seeds_added": arm["seeds_added"],
        "interruptions": {str(r.seed): r.record.get("interruptions", []) for r in runs},
        "still_needed": still_needed,
    }


def requirements(environment: dict) -> str:
    """requirements.txt with the versions that ran; a build's local label (+cpu) cannot be installed, so it is a comment."""
    lines = [f"# Python {environment['python']}"]
    for name, version in sorted(environment["packages"].items()):
        public, _, local = str(version).partition("+")
        lines.append(f"{name}=={public}" + (f"  # ran as {version}" if local else ""))
    return "\n".join(lines) + "\n"


@command()
def main(args: Sequence[str]) -> int:
    """Copy a submission to its dated folder."""
    parser = argparse.ArgumentParser(
        prog="python -m pgolf.submission", description="Copy a submission to its dated folder."
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="SWEEP/submission/ARM")
    parser.add_argument("--into", metavar="DIR", type=Path, required=True, help="the folder of records to copy it into")
    options = parser.parse_args(args)
    path, needed = hand_in(options.folder, options.into)
    print(path)
    if needed:
        print(f"still needed in submission.json: {', '.join(needed)}")
    return 0


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
