"""Builds a data set: documents → transform → tokenizer → shards, byte counts, index of documents, manifest. The one path for
every source, whatever its size and however many workers there are.

All that is written lies in a folder beside the goal until it is whole; then one rename puts it in place. A build that was
killed goes on from its last note of progress and gives the same bytes. Only one process builds a set at a time.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pgolf.data import tokenizer
from pgolf.data.assemble import STATE, Plan, Source, assembled, made_with, require_enough, stated, units
from pgolf.data.base import Show
from pgolf.data.encode import MARKERS, TRANSFORMS, Scanner, Sides
from pgolf.data.manifest import MANIFEST, TOKENIZER
from pgolf.data.shards import ROW
from pgolf.data.sources import Reading
from pgolf.data.split import below_fraction, training_texts
from pgolf.data.workers import mapped
from pgolf.errors import UserError
from pgolf.files import read_json, write_bytes, write_json
from pgolf.files.leftovers import clear

SCAN, PLAN = "scan", "plan.json"
LEARNED_BYTES = 100_000_000  # of training text that a tokenizer is learned from, at most


def build(goal: Path, plan: Plan, inputs: str, source: Callable[[], Source], show: Show, workers: int) -> Path:
    """The folder `goal` with the data set, built unless it is there. `inputs` is a hash of the documents: with the plan, it
    decides whether what a killed build has left is this build's. Raises UserError where nothing can be built."""
    work = goal.with_name(f".{goal.name}.building")
    try:
        with locked(work, show):
            if not goal.exists():
                _continue(work, {"inputs": inputs, **plan.facts(), **made_with()})
                _steps(work, plan, inputs, source(), show, workers)
                os.rename(work, goal)
                (goal / "lock").unlink()  # and not before: who finds none in `work` would begin there
            else:
                shutil.rmtree(work)
                (goal / "lock").unlink(missing_ok=True)  # of a build that was killed between the two lines above
    except OSError as error:
        raise UserError(
            f"{goal} cannot be built: {error.strerror or error}. Make room or name another folder (data.cache=..., out=... or"
            " PGOLF_CACHE); the same command then goes on from where it stopped"
        ) from error
    return goal


@contextmanager
def locked(work: Path, show: Show) -> Iterator[None]:
    """`work` is there, and this process the only one in it; waits for another. A killed process holds no lock."""
    lock = work / "lock"
    while True:
        work.mkdir(parents=True, exist_ok=True)
        try:
            file = lock.open("a")
        except FileNotFoundError:  # the folder was renamed between these two lines
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                show(f"waiting for another build of {work.name.removeprefix('.').removesuffix('.building')}", 0.0)
                fcntl.flock(file, fcntl.LOCK_EX)
            if lock.exists() and lock.stat().st_ino == os.fstat(file.fileno()).st_ino:
                yield
                return


def _continue(work: Path, facts: dict) -> None:
    """Note what is built, or refuse a folder in which something else was begun."""
    clear(work)
    note, facts = work / PLAN, json.loads(json.dumps(facts))
    if note.exists() and read_json(note) != facts:
        raise UserError(
            f"{work}: an unfinished build of other documents or parameters; delete it, or build under another name"
        )
    write_json(note, facts)


def _steps(work: Path, plan: Plan, inputs: str, source: Source, show: Show, workers: int) -> None:
    """From documents to a whole folder; every step that was finished before is skipped."""
    scan = None
    if plan.val_fraction is not None or not plan.given:
        scan = _scanned(work, plan.reading, source, show, workers)
        require_enough(plan, len(scan))
    below = None if plan.val_fraction is None else below_fraction(scan, plan.val_fraction)
    sides = Sides(first=plan.val_docs, own=plan.val_docs is None and below is None, below=below)
    model = work / TOKENIZER
    if not model.exists():
        show("taking the tokenizer" if plan.given else "learning the tokenizer", 0.0)
        write_bytes(model, plan.given.read_bytes() if plan.given else _learned(plan, source, scan, sides))
    tokenizer.check_tokenizer(model, plan.vocab_size)
    assembly = assembled(work, plan, source, sides, show, workers)
    show("hashing", 0.0)
    manifest = stated(work, plan, inputs, source.dropped, assembly)
    manifest.check(plan.name)
    manifest.write(work / MANIFEST)
    manifest.verify(work)
    for left in (SCAN, STATE, PLAN):
        (work / left).unlink(missing_ok=True)
    show("done", 1.0)


def _scanned(work: Path, reading: Reading, source: Source, show: Show, workers: int) -> np.ndarray:
    """A row per document, in order, memory-mapped: read through once, and kept."""
    path, part = work / SCAN, work / f"{SCAN}.part"
    if not path.exists():
        with part.open("wb") as file:
            for unit, rows in mapped(Scanner, (reading,), units(source), workers):
                file.write(rows.tobytes())
                show("reading", unit.read / source.total)
        part.rename(path)
    if not path.stat().st_size:
        raise UserError("there is no document in these files")
    return np.memmap(path, ROW, "r")


def _learned(plan: Plan, source: Source, scan: np.ndarray, sides: Sides) -> bytes:
    """A tokenizer learned from training documents, or a sample of them where all have more than LEARNED_BYTES."""
    share = min(1.0, LEARNED_BYTES / int(scan["bytes"].sum()))
    texts = map(TRANSFORMS[plan.transform], training_texts(source.items(), plan.reading, sides, share))
    return tokenizer.train(texts, plan.vocab_size, plan.model_type, MARKERS[plan.transform])
