"""The laptop corpus: the running interpreter's standard library as documents, split by content hash, kept in the cache."""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from pgolf.data.assemble import Plan
from pgolf.data.base import Show
from pgolf.data.cached import kept, place
from pgolf.data.documents import Sources, documents, read_sources
from pgolf.data.sources import Item, Reading
from pgolf.errors import UserError

NAME = "stdlib"
LEAST_BYTES = 1_000_000
BUILDERS = ("documents.py", "stdlib.py")


class Library:
    """The library's documents as items, in the order of their hashes."""

    def __init__(self, sources: Sources, show: Show):
        found, dropped = documents(sources, lambda done: show("reading the standard library", done))
        self.found = [Item(f"{d.kind} {d.name}", 0, d.text.encode(), False, False) for d in found]
        self.total, self.read = sum(len(item.data) for item in self.found), 0
        if self.total < LEAST_BYTES:
            raise UserError(
                f"this interpreter's standard library has only {self.total:,} bytes of source and documentation (a stripped"
                f" installation?), at least {LEAST_BYTES:,} are needed; use another Python, or data=text with files of yours"
            )
        self.dropped = asdict(dropped)

    def items(self) -> Iterator[Item]:
        """The documents found, in order."""
        self.read = 0
        for item in self.found:
            yield item
            self.read += len(item.data)


def plan(vocab_size: int, val_fraction: float) -> Plan:
    """How the standard library becomes shards."""
    return Plan(
        name=NAME,
        prefix=NAME,
        reading=Reading(field="text", errors="strict", separator=None),
        transform="none",
        byte_rule="table",
        given=None,
        vocab_size=vocab_size,
        model_type="bpe",
        val_docs=None,
        val_fraction=val_fraction,
        origin={"source": f"the standard library of Python {sys.version}", "licence": "PSF-2.0"},
    )


def prepare(cache: Path, plan: Plan, show: Show) -> Path:
    """The folder of the corpus for this interpreter and plan, built if it is not there or not sound."""
    sources = read_sources()
    folder = place(cache, plan, inputs(sources), BUILDERS)
    return kept(folder, plan, inputs(sources), lambda: Library(sources, show), show, workers=1)


def locate(cache: Path, plan: Plan) -> Path:
    """Where the corpus is, or would be."""
    return place(cache, plan, inputs(read_sources()), BUILDERS)


def inputs(sources: Sources) -> str:
    """A hash of the texts and the interpreter."""
    digest = hashlib.sha256(repr((sys.version, sources.builtin)).encode())
    for path, data in {**sources.modules, "topics": sources.topics}.items():
        digest.update(f"{path}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()
