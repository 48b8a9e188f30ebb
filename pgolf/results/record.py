"""record.json: one per run; logs, tables, README and submission are generated from it."""

import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import pgolf
from pgolf.config.identity import IDENTITY
from pgolf.errors import UserError
from pgolf.files import write_json
from pgolf.files.names import RECORD
from pgolf.machine.hardware import cores
from pgolf.machine.liveness import Process, beating
from pgolf.machine.programs import gpu_names, printed_by
from pgolf.stages.views import closing_lines, code_line, opening_lines

if TYPE_CHECKING:
    from pgolf.config.compose import Job
    from pgolf.show.observers import Observers

PACKAGES = (
    "torch",
    "numpy",
    "sentencepiece",
    "zstandard",
    "brotli",
    "constriction",
    "hydra-core",
    "omegaconf",
    "wandb",
)


class Record:
    """A dict of plain values that knows its file; every change is saved whole."""

    def __init__(self, path: Path, fields: dict, observers: "Observers"):
        self.path, self.fields, self.observers = path, fields, observers
        self._writing = Lock()

    def __getitem__(self, key: str):
        return self.fields[key]

    def note(self, *notices: str | None) -> None:
        """Keep what went wrong beside the run and cost it nothing."""
        if kept := [notice for notice in notices if notice]:
            self.update(notices=[*self["notices"], *kept])

    def update(self, **fields: object) -> None:
        """Set fields and save the whole record; from any thread."""
        with self._writing:
            self.fields.update(fields)
            write_json(self.path, self.fields)


@contextmanager
def opened(
    folder: Path,
    job: "Job",
    observers: "Observers",
    plan: list[str],
    earlier: dict[str, Any] | None = None,
    **fields: object,
) -> Iterator[Record]:
    """A record and a log that end as 'complete', 'failed' or 'interrupted', whatever happens in between.

    The record is saved before anything is shown; `plan` is shown before the log's head. With fields of an `earlier` attempt both
    go on from there. A run without a finite score, or whose record cannot be written, has failed.
    """
    path = folder / RECORD
    if path.exists() and earlier is None:
        raise UserError(
            f"{path} exists: a run folder holds one run; resume={folder} goes on with it, if it was stopped"
        )
    process = Process.this(folder)
    with observers:
        record = Record(path, _beginning(job) | fields | (earlier or {}) | {"process": process.section(0)}, observers)
        record.update(status="running")
        for line in plan:
            observers.console.line(line)
        for line in opening_lines(record.fields) if earlier is None else [taken_up_line(record.fields)]:
            observers.line(line)
        try:
            with beating(lambda count: record.update(process=process.section(count))):
                yield record
        except KeyboardInterrupt as stop:
            _end(record, "interrupted", str(stop) or "interrupted")
            raise
        except Exception as wrong:
            _end(record, "failed", f"{type(wrong).__name__}: {wrong}")
            raise
        _end(record, "complete", None)


def taken_up_line(record: dict[str, Any]) -> str:
    """How a log tells that a run goes on."""
    last = record["interruptions"][-1]
    return f"taken up at the stage {last['stage']}, {record['ranks']} rank(s): it was {last['status']} ({last['why']})"


def _end(record: Record, status: str, error: str | None) -> None:
    """Close the log with the results and its end marker, then the record with the log's hash, then all who watch."""
    observers = record.observers
    observers.catch_up()
    lines = closing_lines(record.fields) if status == "complete" else []
    count = observers.log.lines + len(lines) + 1
    lines.append(f"{code_line('end', record.fields)} status={status} lines={count}")
    for line in lines:
        observers.log.line(line)
    record.update(status=status, error=error, finished=now(), log_sha256=observers.log.sha256)
    for line in lines:
        observers.console.detail(line)
    record.note(*observers.finish())


def now() -> str:
    """The time in UTC, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _beginning(job: "Job") -> dict:
    return {
        "pgolf": pgolf.__version__,
        "status": "running",
        "error": None,
        "name": job.config["name"],
        "author": job.config.get("author"),
        "trained": str(job.source.folder) if job.source else None,
        "arm": job.arm,
        "arm_sha256": job.arm_sha256,
        "own": job.own,
        "config_sha256": job.config_sha256,
        "identity": IDENTITY,
        "text": job.text,
        "seed": job.recipe.seed.value,
        "overrides": list(job.overrides),
        "started": now(),
        "finished": None,
        "limits": job.config["limits"],
        "ranks": job.recipe.machine.world_size,
        "techniques": techniques(job),
        "environment": environment(),
        "trained_code": None,
        "train": None,
        "artifact": None,
        "evaluate": None,
        "reference": None,
        "receipts": [],
        "notices": [],
        "interruptions": [],
        "argument": None,
        "verdict": None,
        "log_sha256": None,
    }


TECHNIQUES = ("model", "optim", "schedule", "average", "qat", "quant", "codec", "eval", "ttt")


def techniques(job: "Job") -> list[dict]:
    """One row per config group that makes the result: its component and the first sentence of what that does."""
    parts = ((group, type(getattr(job.recipe, group))) for group in TECHNIQUES)
    return [{"group": group, "option": part.__name__, "summary": _first_sentence(part)} for group, part in parts]


def _first_sentence(part: type) -> str:
    text = " ".join((part.__doc__ or "").split())
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0]


def environment() -> dict:
    """What the figures were measured on."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": cores(),
        "gpus": list(gpu_names()),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": (printed_by("git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD") or [None])[0],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
