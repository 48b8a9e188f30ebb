"""What is hit: a run, one of two ranks, a sweep, a build of a corpus, a search, and runs whose clocks are short.

A subject knows its words, at which stage it is by the files it leaves, by which words it is taken up, and what must be there in
the end: the same as in a life that nobody disturbed.
"""

import hashlib
import json
import random
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pgolf.errors import UserError
from pgolf.files import lookup, read_json
from pgolf.files.checkpoints import checkpoints
from pgolf.files.events import EventReader
from pgolf.files.names import RECORD
from pgolf.results.runfolder import disagreements, read_run
from tests.command import TINY
from tests.test_data_text import documents

QUICK = (*TINY, "ttt=none", "limits.train_steps=16", "checkpoint.every_seconds=0.3")
SHOWN = ("report.html", "report.log")  # what a busy machine may be too slow to draw
NOTHING_LEFT = ("there is nothing to go on with", "must be the folder of a run")


class Subject(ABC):
    """A command with its files in `world`. `ranks`: whether it has two."""

    name: str
    ranks = False

    def __init__(self, luck: random.Random):
        self.luck = luck  # for what differs from life to life

    @abstractmethod
    def command(self, world: Path) -> list[str]:
        """What is typed next: the same words again, or those that take it up."""

    @abstractmethod
    def stage(self, world: Path) -> str:
        """At which of its stages it is, as far as files tell."""

    @abstractmethod
    def done(self, world: Path) -> bool:
        """Whether its work is done, though it may still be at closing."""

    @abstractmethod
    def result(self, world: Path) -> Any:
        """What has to be the same in every life: plain values. Raises UserError or OSError where something is wrong."""

    def begins_anew(self, world: Path, code: int, said: str) -> bool:
        """Whether this refusal means that there is nothing to take up; what there is has then been removed."""
        return False


class Run(Subject):
    """Train, seal, judge."""

    name, words = "run", QUICK

    def command(self, world: Path) -> list[str]:
        go_on = (world / "run" / RECORD).exists()
        words = ["resume=run"] if go_on else [*self.words, f"hydra.run.dir={world / 'run'}"]
        return pgolf("run", *words)

    def stage(self, world: Path) -> str:
        return stage_of_run(world / "run")

    def done(self, world: Path) -> bool:
        return self.stage(world) == "end"

    def result(self, world: Path) -> dict[str, Any]:
        return sealed_and_scored(world / "run")

    def begins_anew(self, world: Path, code: int, said: str) -> bool:
        if code == 2 and any(words in said for words in NOTHING_LEFT):
            shutil.rmtree(world / "run")
            return True
        return False


class TwoRanks(Run):
    """The same on two ranks."""

    name, words, ranks = "ranks", (*QUICK, "machine.ranks=2"), True


class Clocks(Run):
    """A run, one of whose clocks strikes at a moment that nobody chose: it ends well, or says that the clock is too short."""

    name = "clock"

    def __init__(self, luck: random.Random):
        super().__init__(luck)
        self.struck = luck.choice(("train", "evaluate"))
        key, most = {"train": ("limits.train_seconds", 20.0), "evaluate": ("limits.eval_seconds", 3.0)}[self.struck]
        self.words = (
            *QUICK,
            "limits.train_steps=null",
            "limits.train_seconds=8",
            f"{key}={luck.uniform(0.2, most):.2f}",
        )

    def result(self, world: Path) -> str:
        """Nothing that is the same in every life, but whole."""
        if (world / "run" / RECORD).exists():
            record = read_json(world / "run" / RECORD)
            if record["status"] == "complete":
                sealed_and_scored(world / "run")
            elif not record["error"]:
                raise UserError(f"status {record['status']} without a word")
        return "whole"


class Sweep(Subject):
    """Two seeds."""

    name = "sweep"

    def command(self, world: Path) -> list[str]:
        return pgolf("run", "-m", *QUICK, "seed.value=1,2", f"hydra.sweep.dir={world / 'sweep'}")

    def stage(self, world: Path) -> str:
        jobs = sorted((world / "sweep").glob("*_seed*"))
        stages = [stage_of_run(job) for job in jobs]
        return next((stage for stage in stages if stage != "end"), "between" if len(jobs) < 2 else "end")

    def done(self, world: Path) -> bool:
        return self.stage(world) == "end" and (world / "sweep" / "summary.json").exists()

    def result(self, world: Path) -> dict[str, Any]:
        (arm,) = read_json(world / "sweep" / "summary.json")["arms"]
        if not arm["submission"]["written"]:
            raise UserError(f"no submission: {arm['submission']['why']}")
        jobs = {path.name: sealed_and_scored(path) for path in sorted((world / "sweep").glob("*_seed*"))}
        around = sorted(
            path.name for path in (world / "sweep").iterdir() if path.name not in {*jobs, *SHOWN, "attempts"}
        )
        scores = [(row["seed"], row["val_bpb"]) for row in arm["seeds"]]
        return {"jobs": jobs, "scores": scores, "mean": arm["val_bpb"], "files": around}


class Corpus(Subject):
    """A data set from documents, by two workers."""

    name = "corpus"

    def command(self, world: Path) -> list[str]:
        if not (world / "docs.jsonl").exists():
            self.write_documents(world)
        words = ("vocab_size=512", "val_docs=500", "workers=2")
        return pgolf("data", "build", "mine", "docs=docs.jsonl", f"out={world / 'mine'}", *words)

    def write_documents(self, world: Path) -> None:
        texts = documents(400) * 25
        lines = (json.dumps({"text": f"{number} {text}"}) + "\n" for number, text in enumerate(texts))
        (world / "docs.jsonl").write_text("".join(lines), encoding="utf-8")

    def stage(self, world: Path) -> str:
        work = world / ".mine.building"
        if (world / "mine").exists():
            return "end"
        marks = {"manifest.json": "hash", "progress.json": "encode", "tokenizer.model": "encode", "scan": "learn"}
        marks |= {"plan.json": "read"}
        return next((stage for name, stage in marks.items() if (work / name).exists()), "start")

    def done(self, world: Path) -> bool:
        return (world / "mine").exists()

    def result(self, world: Path) -> dict[str, Any]:
        files = {path.name: sha256(path) for path in sorted((world / "mine").iterdir())}
        return {"files": files, "around": sorted(path.name for path in world.iterdir() if path.name != "tmp")}


class Search(Subject):
    """Two trials."""

    name, trials = "search", 2

    def command(self, world: Path) -> list[str]:
        space = "optim.matrix.lr=tag(log,interval(0.001,0.1))"
        return pgolf("search", f"trials={self.trials}", space, *QUICK, "limits.train_steps=8")

    def stage(self, world: Path) -> str:
        trials = sorted(self.place(world).glob("trial*"), key=lambda path: int(path.name.removeprefix("trial")))
        stage = stage_of_run(trials[-1]) if trials else "start"
        return "between" if stage == "end" else stage

    def place(self, world: Path) -> Path:
        return world / "searches" / "search"

    def done(self, world: Path) -> bool:
        return (self.place(world) / "study.db").exists() and len(list(complete(self.place(world)))) == self.trials

    def result(self, world: Path) -> dict[str, Any]:
        """As many complete trials as asked for, each with the value of its record."""
        found = list(complete(self.place(world)))
        for number, value in found:
            record = read_json(self.place(world) / f"trial{number}" / RECORD)
            if lookup(record, "train.dev_bpb.quantized") != value:
                raise UserError(f"trial {number} is {value}, its record says otherwise")
        return {"complete": len(found)}


SUBJECTS: dict[str, type[Subject]] = {one.name: one for one in (Run, TwoRanks, Sweep, Corpus, Search, Clocks)}


def pgolf(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", f"pgolf.{module}", *words]


def stage_of_run(folder: Path) -> str:
    """start, the label of the work that its last event names, close, or end."""
    try:
        record = read_json(folder / RECORD)
    except UserError:
        return "start"
    if record["status"] == "complete":
        return "end"
    if record["evaluate"]:
        return "close"
    if record["status"] != "running":
        return "start"
    labels = [event["label"] for event in EventReader(folder).new() if event["event"] == "progress"]
    if record["artifact"]:
        return "evaluate" if labels[-1:] == ["evaluate"] else "load"
    return labels[-1].replace(" ", "-") if labels else "prepare"


def sealed_and_scored(folder: Path) -> dict[str, Any]:
    """Artifact, score and files of a complete run, whose record, log and artifact agree."""
    run = read_run(folder)
    if not run.complete or (wrong := disagreements(run)):
        raise UserError(f"{folder.name}: {run.status}, {run.why}" if not run.complete else "; ".join(wrong))
    if len(checkpoints(folder)) > 2:
        raise UserError(f"{folder.name}: more than two checkpoints")
    record = run.record
    files = sorted({str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {*SHOWN})
    kept = [name for name in files if not name.startswith(("checkpoints/step", "ranks/"))]
    return {
        "artifact": record["artifact"]["sha256"],
        "val_bpb": record["evaluate"]["val_bpb"],
        "steps": record["train"]["steps"],
        "tokens": record["evaluate"]["tokens"],
        "files": kept,
    }


def complete(folder: Path) -> Iterator[tuple[int, float]]:
    """Number and value of the complete trials of a study."""
    import sqlite3

    database = sqlite3.connect(f"file:{folder / 'study.db'}?mode=ro", uri=True)
    try:
        yield from database.execute(
            "SELECT number, value FROM trials JOIN trial_values USING (trial_id) WHERE state = 'COMPLETE' ORDER BY number"
        ).fetchall()
    except sqlite3.Error:
        return
    finally:
        database.close()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
