"""What is in a run's folder before a run begins there, and what is to be done with it: one owner at a time, nothing lost.

A complete run is not made again, a living one is left alone. One that stopped goes on from its sealed artifact or its last
checkpoint, or else is put aside, under `attempts/` beside its folder, and made again.
"""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf.errors import UserError
from pgolf.files import lookup, read_json
from pgolf.files.checkpoints import checkpoints
from pgolf.files.leftovers import clear, remove
from pgolf.files.names import ARTIFACT, CHECKPOINTS, LOGS, RECORD
from pgolf.machine.liveness import state, still
from pgolf.machine.lock import HeldError, locked
from pgolf.results.runfolder import Run, checked_record
from pgolf.results.summary import ATTEMPTS

if TYPE_CHECKING:
    from pgolf.config.compose import Job

LOCK = ".lock"
HYDRA = ".hydra"


@dataclass(frozen=True)
class Before:
    """What an earlier attempt in a run's folder left: its record, and what a new one can go on from."""

    run: Run
    chosen: Path | None = None  # a checkpoint that a person named

    @property
    def sealed(self) -> bool:
        """Whether it sealed an artifact, which is here."""
        record = self.run.record
        there = lookup(record, "train.steps") and lookup(record, "artifact.sha256") and not record.get("trained")
        return bool(there) and (self.run.folder / ARTIFACT).is_file()

    @property
    def stage(self) -> str | None:
        """The stage at which it can go on; None if at none, or if its record cannot be read."""
        if "receipts" not in self.run.record:
            return None
        if self.sealed:
            return "evaluate"
        return "train" if checkpoints(self.run.folder) else None

    def interruption(self, now: str, start: Path | None) -> dict[str, Any]:
        """What the record will say of it; `start` is the checkpoint from which the training goes on."""
        record = self.run.record
        ended = {"status": self.run.status, "why": self.run.why, "ranks": record.get("ranks")}
        return {
            "stage": self.stage,
            **ended,
            "stopped": record.get("stopped"),
            "platform": lookup(record, "environment.platform"),
            "taken_up": now,
            "from": start and start.name,
        }


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """The run in `folder` is this process's, without what an owner that was killed left half-written. HeldError if another
    has it."""
    with locked(folder / LOCK, f"the run in {folder}"):
        for place in (folder, folder / LOGS):
            clear(place)
        for left in (folder / CHECKPOINTS).glob(".step*"):
            remove(left)
        yield


def free(folder: Path) -> bool:
    """Whether nobody owns the run in `folder` now."""
    try:
        with owned(folder):
            return True
    except HeldError:
        return False


def before(folder: Path) -> Before | None:
    """What an attempt left in `folder`, which this process owns; None if there was none. HeldError if it is still at work.

    A record that cannot be read is left by nobody who lives: there is nothing in it to go on from.
    """
    if not (folder / RECORD).exists():
        return None
    try:
        record = checked_record(folder)
    except UserError as wrong:
        return Before(Run(folder, {"status": "failed", "error": str(wrong)}))
    if record["status"] != "running":
        return Before(Run(folder, record))
    if state(folder, record) == "running" and not still(lambda at: read_json(at / RECORD), [folder]):
        who = lookup(record, "process") or {}
        if who:
            raise HeldError(f"{folder}: process {who.get('pid')} on {who.get('host')} is at it")
    return Before(Run(folder, record, lost=True))


def put_aside(folder: Path) -> Path:
    """Move all of `folder` but Hydra's own files to `attempts/` beside it, whole, and return where it is now."""
    shelf = folder.parent / ATTEMPTS
    shelf.mkdir(exist_ok=True)
    number = 1 + max((int(p.name.rpartition("_")[2]) for p in shelf.glob(f"{folder.name}_[0-9]*")), default=0)
    kept = shelf / f"{folder.name}_{number}"
    folder.rename(kept)
    folder.mkdir()
    if (kept / HYDRA).is_dir():
        shutil.copytree(kept / HYDRA, folder / HYDRA)
    return kept


@contextmanager
def taken_up(folder: Path, job: "Job") -> Iterator[Before | None]:
    """`folder`, owned while the context lasts and ready for `job`: with what it can go on from, or nothing in it.

    UserError if what is complete there is another run than `job`, HeldError if somebody is at it.
    """
    with ExitStack() as owners:
        owners.enter_context(owned(folder))
        found = before(folder)
        if found and found.run.complete:
            require_same(found.run, job)
        elif found and not found.stage:
            put_aside(folder)
            owners.enter_context(owned(folder))
            found = None
        yield found


def require_same(run: Run, job: "Job") -> None:
    """UserError unless `run` is what `job` would be."""
    for key, ours in (
        ("arm_sha256", job.arm_sha256),
        ("config_sha256", job.config_sha256),
        ("seed", job.recipe.seed.value),
    ):
        if run.record.get(key) != ours:
            raise UserError(f"{run.folder} holds another run: its {key} is {run.record.get(key)}, this one's {ours}")
