"""The main pass of a build: every document encoded, and what comes of it appended to shards, byte counts and index, in order;
then what the manifest states about them. Progress is noted now and then, so that nothing done is lost with a process.
"""

import platform
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np

from pgolf import __version__
from pgolf.data.base import Show
from pgolf.data.bytes import load_tokenizer
from pgolf.data.encode import Encoded, Encoder, Part, Sides, Unit, transform_facts
from pgolf.data.manifest import FORMAT, SIDECAR, SPLITS, TOKENIZER, Index, Manifest, Shard
from pgolf.data.shards import HEADER_BYTES, ROW, hashes, max_token, open_shard, sha256_of
from pgolf.data.sources import Item, Reading
from pgolf.data.streams import Kind, Stream
from pgolf.data.workers import mapped
from pgolf.errors import UserError
from pgolf.files import read_json, write_json

STATE = "state.json"
UNIT_BYTES = 1 << 22  # of documents that a worker takes at a time
UNIT_ITEMS = 4096
NOTED_UNITS = 8  # between two notes of progress
TOKENS = Kind(".bin", "<u2", HEADER_BYTES, 100_000_000)  # as the challenge's shards
ROWS = Kind(".documents", ROW, 0, 1 << 62)


class Source(Protocol):
    """Documents in a fixed order, that can be gone through again; `read` of `total` bytes have been. `dropped` counts what the
    source itself leaves out."""

    total: int
    read: int
    dropped: dict

    def items(self) -> Iterator[Item]:
        """Documents in order, with the split that the source itself says."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What decides a data set's bytes besides its documents. `given` is a tokenizer's file; without, one is learned."""

    name: str
    prefix: str
    reading: Reading
    transform: str
    byte_rule: str
    given: Path | None
    vocab_size: int
    model_type: str
    val_docs: int | None
    val_fraction: float | None
    origin: dict

    def facts(self) -> dict:
        """The parameters, as the manifest states them."""
        given = {"given": sha256_of(self.given)} if self.given else {"given": None, "model_type": self.model_type}
        learned = {"vocab_size": self.vocab_size, "val_docs": self.val_docs, "val_fraction": self.val_fraction}
        return {**learned, **given, "transform": self.transform, "byte_rule": self.byte_rule, **asdict(self.reading)}


def units(source: Source) -> Iterator[Unit]:
    """The documents in portions that depend on nothing but the documents."""
    first, items, size = 0, [], 0
    for item in source.items():
        items.append(item)
        size += len(item.data)
        if size >= UNIT_BYTES or len(items) == UNIT_ITEMS:
            yield Unit(first, tuple(items), source.read)
            first, items, size = first + len(items), [], 0
    if items:
        yield Unit(first, tuple(items), source.read)


def made_with() -> dict:
    """The versions that may decide a byte."""
    return {"pgolf": __version__, "python": platform.python_version(), "sentencepiece": version("sentencepiece")}


class Assembly:
    """The files of a data set as they grow. `done` units are in them, as of the last note."""

    def __init__(self, work: Path, prefix: str):
        self.note = work / STATE
        before = read_json(self.note) if self.note.exists() else {"done": 0, "totals": {}, "counts": {}}
        stems = {"train": TOKENS, "val": TOKENS, SIDECAR: TOKENS, "train rows": ROWS, "val rows": ROWS}
        self.streams = {
            name: Stream(work, f"{prefix}_{name.split()[0]}", kind, before["totals"].get(name, 0))
            for name, kind in stems.items()
        }
        self.done, self.counts = before["done"], Counter(before["counts"])
        judging = self.streams["val rows"]
        kept = np.fromfile(judging.path(0), ROW) if judging.total else np.zeros(0, ROW)
        self.judging = set(hashes(kept))

    def add(self, encoded: Encoded) -> None:
        """Append a unit. A training document that is a validation document too stays in validation."""
        self.counts += encoded.counts
        for split in ("val", "train"):
            if split in encoded.parts:
                part = encoded.parts[split]
                if split == "val":
                    self.judging |= set(hashes(part.rows))
                else:
                    part = self._apart(part)
                self.streams[f"{split} rows"].append(moved(part.rows, self.streams[split].total))
                self.streams[split].append(part.ids)
                self.streams[SIDECAR].append(part.per_token)
        self.done += 1
        if self.done % NOTED_UNITS == 0:
            self.write_note()

    def _apart(self, part: Part) -> Part:
        kept = np.array([sha256 not in self.judging for sha256 in hashes(part.rows)])
        if kept.all():
            return part
        self.counts["in_validation_too"] += int((~kept).sum())
        sizes = np.diff(np.append(part.rows["start"], len(part.ids)))
        rows = part.rows[kept]
        rows["start"] = np.cumsum(sizes[kept]) - sizes[kept]
        return Part(part.ids[np.repeat(kept, sizes)], rows, part.per_token)

    def write_note(self) -> None:
        """Flush the streams and note how far the build has come, so that it can be taken up."""
        for stream in self.streams.values():
            stream.flush()
        totals = {name: stream.total for name, stream in self.streams.items()}
        write_json(self.note, {"done": self.done, "totals": totals, "counts": dict(self.counts)})


def moved(rows: np.ndarray, by: int) -> np.ndarray:
    """Rows whose documents start `by` tokens later."""
    rows = rows.copy()
    rows["start"] += by
    return rows


def assembled(work: Path, plan: Plan, source: Source, sides: Sides, show: Show, workers: int) -> Assembly:
    """All documents in the files of `work`, going on from what is there."""
    assembly = Assembly(work, plan.prefix)
    given = (work / TOKENIZER, plan.reading, plan.transform, plan.byte_rule, sides)
    left = (unit for i, unit in enumerate(units(source)) if i >= assembly.done)
    for unit, encoded in mapped(Encoder, given, left, workers):
        assembly.add(encoded)
        show("encoding", unit.read / source.total)
    assembly.write_note()
    return assembly


def stated(work: Path, plan: Plan, inputs: str, dropped: dict, assembly: Assembly) -> Manifest:
    """The manifest of finished files. Raises UserError where a split is empty or has fewer documents than were asked for."""
    require_both(plan, *(assembly.streams[f"{split} rows"].total for split in SPLITS))
    model = work / TOKENIZER
    bos = load_tokenizer(model).bos_id()
    rows = {split: assembly.streams[f"{split} rows"] for split in SPLITS}
    return Manifest(
        format=FORMAT,
        name=plan.name,
        tokenizer={"file": TOKENIZER, "sha256": sha256_of(model), "vocab_size": plan.vocab_size, "bos": bos},
        transform=transform_facts(plan.transform),
        byte_rule=plan.byte_rule,
        files=shards(assembly.streams),
        documents={split: Index(r.path(0).name, sha256_of(r.path(0)), r.total) for split, r in rows.items()},
        parameters={"inputs": inputs, **plan.facts()},
        dropped=dropped | assembly.counts,
        made_with=made_with(),
        origin=plan.origin,
    )


def shards(streams: dict[str, Stream]) -> dict[str, Shard]:
    """Every finished file of tokens and of byte counts."""
    files = {}
    for split in (*SPLITS, SIDECAR):
        whole = (0, 0)
        if split in SPLITS:
            rows = np.memmap(streams[f"{split} rows"].path(0), ROW, "r")
            whole = int(rows["bytes"].sum()), len(rows)
        for i, path in enumerate(streams[split].finish()):
            tokens = open_shard(path)
            counted, size = (0, 0) if i else whole, path.stat().st_size
            files[path.name] = Shard(split, sha256_of(path), len(tokens), max_token(tokens), *counted, size, None)
    return files


def require_both(plan: Plan, train: int, val: int) -> None:
    """Refuse splits without documents, and fewer validation documents than were asked for."""
    require_enough(plan, val + train)
    if plan.val_docs is not None and val < plan.val_docs:
        raise UserError(
            f"val_docs={plan.val_docs}: {plan.val_docs - val:,} of the first {plan.val_docs:,} documents are empty; leave them"
            " out of the file, so that validation has as many as it says"
        )
    for split, count in (("validation", val), ("training", train)):
        if not count:
            raise UserError(
                f"there is no document for {split} ({val:,} validation, {train:,} training): give more documents, or other"
                " val_docs, val_files or val_fraction"
            )


def require_enough(plan: Plan, documents: int) -> None:
    """Refuse to take all there is, or less than was asked for, as validation."""
    if plan.val_docs is not None and documents <= plan.val_docs:
        raise UserError(
            f"val_docs={plan.val_docs}: there are only {documents:,} documents in all, and training needs some too; ask for fewer"
        )
