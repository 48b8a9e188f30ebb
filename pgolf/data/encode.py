"""What becomes of a document: its text is transformed, encoded and counted, and, in validation, proven. This is what the
workers of a build do, a unit of documents at a time; nothing here depends on how many they are.

Three rules say what a token's bytes are. `table`: those of its piece, for tokenizers that give the text back exactly.
`decoded`: the same, where what the tokenizer's normaliser loses is not counted (as the published streams do). `sidecar`: those
of the span of original text that the token covers, in a file beside the validation shards.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from pgolf.data import caseops
from pgolf.data.bytes import byte_table, load_tokenizer, prefix_sums, token_bytes
from pgolf.data.shards import ROW
from pgolf.data.sources import Item, Reading
from pgolf.data.tokenizer import first_difference
from pgolf.errors import UserError

BYTE_RULES = ("table", "decoded", "sidecar")
TRANSFORMS: dict[str, Callable[[str], str]] = {"none": str, "caseops": caseops.encode}
MARKERS = {"none": "", "caseops": caseops.MARKERS}
MOST_BYTES = (1 << 16) - 1  # of one token: a sidecar has 16 bits for it


def transform_facts(name: str) -> dict:
    """A transform's name and the hash of the module that holds it."""
    source = None if name == "none" else Path(__file__).with_name(f"{name}.py").read_bytes()
    return {"name": name, "sha256": source and hashlib.sha256(source).hexdigest()}


@dataclass(frozen=True)
class Sides:
    """Which documents are validation: the `first` so many, those of files `own` to it, or those with a hash below `below`."""

    first: int | None
    own: bool
    below: bytes | None

    def validation(self, ordinal: int, item: Item, sha256: bytes) -> bool:
        """Whether a document belongs to the validation split."""
        if self.below is not None:
            return sha256 < self.below
        return item.own if self.own else ordinal < self.first


@dataclass(frozen=True)
class Unit:
    """Documents that are worked on together: `first` is the ordinal of the first of them, and `read` how many bytes of all files
    had been read after the last."""

    first: int
    items: tuple[Item, ...]
    read: int


@dataclass
class Part:
    """What a unit adds to one split: token ids, a row per document (starts count from the part's own), bytes per token."""

    ids: np.ndarray
    rows: np.ndarray
    per_token: np.ndarray


@dataclass
class Encoded:
    """A unit's parts by split, and what was left out or lost, counted."""

    parts: dict[str, Part] = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)


@dataclass(frozen=True)
class Scanner:
    """The first look at a unit: a row per document that is not empty (start 0)."""

    reading: Reading

    def __call__(self, unit: Unit) -> np.ndarray:
        found = []
        for item in unit.items:
            text = self.reading.text(item)
            if text.strip():
                data = text.encode()
                found.append((0, len(data), np.frombuffer(hashlib.sha256(data).digest(), ">u8")))
        return np.array(found, ROW)


class Encoder:
    """Built once per process; turns units into `Encoded`."""

    def __init__(self, tokenizer: Path, reading: Reading, transform: str, byte_rule: str, sides: Sides):
        self.sp = load_tokenizer(tokenizer)
        self.reading, self.transform, self.rule, self.sides = reading, TRANSFORMS[transform], byte_rule, sides
        self.table = byte_table(tokenizer)

    def __call__(self, unit: Unit) -> Encoded:
        """Tokens of each document, each beginning with BOS. Raises UserError for a document of validation text whose bytes
        cannot be counted as the rule says."""
        done = Encoded()
        split: dict[str, list[tuple[Item, str, bytes]]] = {"train": [], "val": []}
        for ordinal, item in enumerate(unit.items, unit.first):
            text = self.reading.text(item)
            if not text.strip():
                done.counts["empty"] += 1
                continue
            sha256 = hashlib.sha256(text.encode()).digest()
            split["val" if self.sides.validation(ordinal, item, sha256) else "train"].append((item, text, sha256))
        for name, documents in split.items():
            if documents:
                done.parts[name] = self._part(name, documents, done.counts)
        return done

    def _part(self, split: str, documents: list[tuple[Item, str, bytes]], counts: Counter) -> Part:
        spelled = [self.transform(text) for _, text, _ in documents]
        tokens = self.sp.encode(spelled, add_bos=True, num_threads=1)
        rows, sizes = np.zeros(len(documents), ROW), np.array([len(ids) for ids in tokens])
        ids = np.fromiter(chain.from_iterable(tokens), np.uint16, int(sizes.sum()))
        rows["start"] = np.cumsum(sizes) - sizes
        rows["sha256"] = np.frombuffer(b"".join(sha256 for *_, sha256 in documents), ">u8").reshape(-1, 4)
        size = np.array([len(text.encode()) for _, text, _ in documents])
        if self.rule == "sidecar":
            rows["bytes"], per_token = size, np.zeros(0, np.uint16)
            if split == "val":
                per_token = np.concatenate(
                    [self._covered(*each) for each in zip(documents, spelled, tokens, strict=True)]
                )
                rows["bytes"] = np.add.reduceat(per_token, rows["start"], dtype=np.int64)
            return Part(ids, rows, per_token)
        sums = prefix_sums(token_bytes(ids, self.table))
        rows["bytes"] = sums[np.append(rows["start"], len(ids))[1:]] - sums[rows["start"]]
        if split == "val":
            self._prove(documents, spelled, tokens, rows["bytes"])
        counts[f"{split}_documents_changed_by_tokenizer"] += int((rows["bytes"] != size).sum())
        counts[f"{split}_bytes_lost_by_tokenizer"] += int(np.maximum(size - rows["bytes"], 0).sum())
        return Part(ids, rows, np.zeros(0, np.uint16))

    def _prove(self, documents: list, spelled: list[str], tokens: list[list[int]], counted: np.ndarray) -> None:
        """Table bytes are those of what the tokenizer decodes, and, by the rule `table`, that is the text itself."""
        for (item, *_), text, back, size in zip(documents, spelled, self.sp.decode(tokens), counted, strict=True):
            if self.rule == "table" and text != back:
                raise UserError(
                    f"{item.origin}, the document at {item.at}: the tokenizer does not give this text back:"
                    f" {first_difference(text, back)}. Learn a tokenizer here (vocab_size=...), or say byte_rule=sidecar to"
                    " count the bytes of the original, or byte_rule=decoded to leave out what is lost, as the published sets do"
                )
            if len(back.encode()) != size:
                raise UserError(
                    f"{item.origin}, the document at {item.at}: {size:,} bytes by the tokenizer's table, {len(back.encode()):,}"
                    " by decoding: this tokenizer's bytes cannot be counted by piece; byte_rule=sidecar counts them by text"
                )

    def _covered(self, document: tuple[Item, str, bytes], spelled: str, tokens: list[int]) -> np.ndarray:
        """(T,) uint16: the bytes of the original that each token covers; 0 for BOS and for operators of the transform.

        A character spelled by byte pieces counts with the last of them. What the tokenizer strips at the ends is not counted,
        and must be text of which alone it makes no token.
        """
        item, text, _ = document
        data, given = spelled.encode(), self.sp.encode(spelled, return_type="offset_mapping", return_bytes=True)
        ends = np.array(given["offsets"], np.int64).reshape(-1, 2)
        sums = prefix_sums(caseops.weights(data) if self.transform is caseops.encode else np.ones(len(data), np.int32))
        first, last = (int(ends[0, 0]), int(ends[-1, 1])) if len(ends) else (len(data), len(data))
        head, tail = data[:first].decode(), data[last:].decode()
        tiled = (ends[1:, 0] == ends[:-1, 1]).all() and given["ids"] == tokens[1:]
        stripped = len(head.encode()) + len(tail.encode())
        if not tiled or sums[-1] != len(text.encode()) or any(self.sp.encode([head, tail])):
            raise UserError(
                f"{item.origin}, the document at {item.at}: its tokens do not cover its text from end to end, so that bytes"
                f" cannot be counted: {stripped} bytes lie outside"
            )
        if self.table.boundary[tokens[1:]].any():
            raise UserError(
                f"{item.origin}, the document at {item.at}: the tokenizer has no piece for a part of it, and no byte pieces"
                " either; learn one here (vocab_size=...), or train it with byte_fallback"
            )
        counted = sums[ends[:, 1]] - sums[ends[:, 0]]
        if len(counted) and counted.max() > MOST_BYTES:
            raise UserError(f"{item.origin}, the document at {item.at}: one token covers {counted.max():,} bytes")
        return np.concatenate([[0], counted]).astype(np.uint16)
