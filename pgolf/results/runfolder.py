"""One finished run, read back from its folder: its record, and whether the record, the log and the artifact agree.

Everything else is generated from the record, so its fields, types and agreement with the files are checked here.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgolf.errors import UserError
from pgolf.files import lookup, read_json
from pgolf.files.names import ARTIFACT, LOG, RECORD
from pgolf.machine.liveness import state, still
from pgolf.stages.views import digits

STATUSES = ("running", "complete", "failed", "interrupted")


@dataclass(frozen=True)
class Run:
    """A folder and the record in it, whose shape has been checked as far as `status` promises."""

    folder: Path
    record: dict[str, Any]
    lost: bool = False  # it says that it is running, and nobody is there

    @property
    def seed(self) -> int:
        """The seed in the record."""
        return self.record["seed"]

    @property
    def status(self) -> str:
        """running, complete, failed or interrupted, as recorded; lost, if it says running and nobody is there."""
        return "lost" if self.lost else self.record["status"]

    @property
    def why(self) -> str:
        """Why it is not complete."""
        words = {"running": "not finished, or killed without a word", "lost": "its process is gone"}
        return self.record.get("error") or words.get(self.status, "no reason recorded")

    @property
    def complete(self) -> bool:
        """Whether it ended with a score."""
        return self.status == "complete"

    @property
    def when(self) -> tuple[str, str]:
        """Orders the runs of one seed: the later is the greater."""
        return (str(self.record.get("finished") or self.record["started"]), self.folder.name)

    @property
    def code_sha256(self) -> str | None:
        """The hash of the exported script."""
        return lookup(self.record, "code.sha256")


# What must be there: always, and in a record that says it is complete.
ALWAYS = {"pgolf": str, "status": str, "arm": str, "arm_sha256": str, "seed": int, "started": str}
COMPLETE = {
    "config_sha256": str,
    "overrides": list,
    "techniques": list,
    "receipts": list,
    "verdict": str,
    "limits.train_seconds": float,
    "limits.eval_seconds": float,
    "limits.artifact_bytes": int,
    "environment.python": str,
    "environment.packages": dict,
    "code.sha256": str,
    "code.bytes": int,
    "data.name": str,
    "data.manifest_sha256": str,
    "train.steps": int,
    "train.seconds": float,
    "train.phases": dict,
    "artifact.sha256": str,
    "artifact.bytes": int,
    "artifact.groups": dict,
    "evaluate.val_bpb": float,
    "evaluate.val_loss": float,
    "evaluate.tokens": int,
    "evaluate.bytes": int,
    "evaluate.seconds": float,
    "evaluate.phases": dict,
    "evaluate.trace": list,
}
SEALED = {"config_sha256": str, "code.sha256": str, "code.bytes": int, "data.manifest_sha256": str, "environment": dict}
TRACE = {"chunk": int, "phase": str, "sha": str, "bpb": float, "seconds": float}  # in every row of evaluate.trace


def read_run(folder: Path, patient: bool = True) -> Run:
    """The run in `folder`; UserError names what is wrong with its record.

    Where only time can tell whether a run of another host is alive, `patient` waits for that; otherwise it is running.
    """
    return read_runs([folder], patient)[0]


def read_runs(folders: Sequence[Path], patient: bool = True) -> list[Run]:
    """The runs in `folders`, all looked at together."""
    records = {folder: checked_record(folder) for folder in folders}
    gone = {folder for folder, record in records.items() if state(folder, record) == "lost"}
    if patient:
        gone |= still(lambda folder: read_json(folder / RECORD), records)
    return [Run(folder, record, folder in gone) for folder, record in records.items()]


def checked_record(folder: Path) -> dict[str, Any]:
    """The record in `folder`, of the shape that its status promises."""
    record = read_json(folder / RECORD)
    if not isinstance(record, dict):
        raise UserError(f"{folder / RECORD}: must be a JSON object, is {type(record).__name__}")
    _need_fields(folder, record, ALWAYS)
    if record["status"] not in STATUSES:
        raise UserError(f"{folder / RECORD}: status={record['status']!r} is none of {', '.join(STATUSES)}")
    if record["status"] == "complete":
        _need_fields(folder, record, COMPLETE)
        _need_numbers(folder, record)
        _need_rows(folder, record)
        _need_trace(folder, record)
    return record


def require_sealed(run: Run) -> None:
    """Refuse a run whose artifact there never was, or is not here, or is nothing that the record describes."""
    if lookup(run.record, "artifact.sha256") is None:
        what = f"this run sealed no artifact (status {run.status}), so there is nothing to judge"
        raise UserError(f"{run.folder}: {what}")
    if not (run.folder / ARTIFACT).is_file():
        what = f"this run's artifact is not here ({ARTIFACT}), and nothing can be scored without it; put it back"
        raise UserError(f"{run.folder}: {what}")
    _need_fields(run.folder, run.record, SEALED)


def _need_fields(folder: Path, record: dict, fields: dict[str, type]) -> None:
    for key, kind in fields.items():
        value = lookup(record, key)
        if not _is(value, kind):
            what = "is missing" if value is None else f"is {value!r}"
            raise UserError(f"{folder / RECORD}: {key} {what}; it must be of type {kind.__name__}")


def _need_numbers(folder: Path, record: dict) -> None:
    """Tables of name to number hold numbers, or null where a stage was not reached."""
    for key in ("train.phases", "evaluate.phases", "artifact.groups", "train.dev_bpb", "reference"):
        for name, value in (lookup(record, key) or {}).items():
            if not (value is None or _is(value, float)):
                raise UserError(f"{folder / RECORD}: {key}.{name} is {value!r}; it must be a number")


def _need_rows(folder: Path, record: dict) -> None:
    """The lists of techniques and receipts hold objects with their keys."""
    for key, inside in (
        ("techniques", ("group", "option", "summary")),
        ("receipts", ("part", "what", "value", "alive")),
    ):
        for row in record[key]:
            if not isinstance(row, dict) or any(k not in row for k in inside):
                raise UserError(f"{folder / RECORD}: {key} holds {row!r}; each must have {', '.join(inside)}")
    for row in record["receipts"]:
        if not _is(row["value"], float):
            raise UserError(f"{folder / RECORD}: the receipt of {row['part']} has value {row['value']!r}, not a number")


def _need_trace(folder: Path, record: dict) -> None:
    """Every row of evaluate.trace tells what a phase of a chunk did."""
    for number, row in enumerate(record["evaluate"]["trace"]):
        if not isinstance(row, dict) or not all(_is(row.get(key), kind) for key, kind in TRACE.items()):
            fields = ", ".join(f"{key} ({kind.__name__})" for key, kind in TRACE.items())
            raise UserError(f"{folder / RECORD}: evaluate.trace row {number} is {row!r}; it must have {fields}")


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def disagreements(run: Run) -> list[str]:
    """What does not fit together in a complete run: the score with its own counts, the log, the artifact, the code."""
    return [*_score(run.record), *_log(run), *_artifact(run)]


def _score(record: dict) -> list[str]:
    """bpb = nats / ln 2 · tokens / bytes must give the recorded val_bpb again."""
    e = record["evaluate"]
    if not (e["tokens"] > 0 and e["bytes"] > 0 and e["val_bpb"] > 0):
        return [f"val_bpb={e['val_bpb']} over {e['tokens']} tokens and {e['bytes']} bytes is not a score"]
    again = e["val_loss"] / math.log(2) * e["tokens"] / e["bytes"]
    if math.isclose(again, e["val_bpb"], abs_tol=1e-7):
        return []
    return [f"val_bpb is {digits(e['val_bpb'])}, but val_loss, tokens and bytes give {digits(again)}"]


def _log(run: Run) -> list[str]:
    """The log is the one the record was closed with, names the code at both ends, and shows the same score."""
    try:
        data = (run.folder / LOG).read_bytes()
    except OSError as error:
        return [f"{LOG} cannot be read: {error.strerror}"]
    found, sha = [], run.record.get("log_sha256")
    if sha is not None and sha != hashlib.sha256(data).hexdigest():
        found.append(f"{LOG} is not the file whose sha256 the record has")
    text = data.decode("utf-8", errors="replace").strip()
    score = digits(run.record["evaluate"]["val_bpb"])
    if score not in text:
        found.append(f"val_bpb is {score} in the record, which {LOG} does not show")
    ends = (text.split("\n", 1)[0], text.rsplit("\n", 1)[-1])
    if any(run.code_sha256 not in line for line in ends):
        found.append(f"{LOG} does not name the code's sha256 in its first and last line")
    return found


def _artifact(run: Run) -> list[str]:
    """The artifact's bytes and sha256 are measured on disk; an artifact that was cleared away is not a disagreement."""
    path, stated = run.folder / ARTIFACT, run.record["artifact"]
    if not path.exists():
        return []
    data = path.read_bytes()
    if len(data) != stated["bytes"]:
        return [f"{ARTIFACT} has {len(data)} bytes, the record says {stated['bytes']}"]
    if hashlib.sha256(data).hexdigest() != stated["sha256"]:
        return [f"{ARTIFACT} is not the file whose sha256 the record has"]
    return []
