"""How many bytes of text each token stands for, and the proof that the answer is right.

The score is nats per *byte*, so what miscounts bytes miscounts the score. A `ByteTable` counts by piece, and `prove` compares
it with what the tokenizer decodes; a `Sidecar` holds a count per token of one stream, for text that the tokenizer does not
give back, and `prove` compares it with the bytes that its documents had. Both document by document."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import sentencepiece

from pgolf.errors import UserError
from pgolf.machine.share import share

SPACE = "▁"
BLOCK_TOKENS = 1 << 20  # decoded at a time, so that a split of any size streams through a few megabytes


class MiscountError(UserError):
    """Tokens [start, end), a document, do not have the bytes that were counted for it. `prove_or_explain` says where and why."""

    def __init__(self, start: int, end: int, counted: int, decoded: int):
        super().__init__(
            f"byte accounting: the document at token {start} has {counted} bytes by the table, decoding gives {decoded}"
        )
        self.document = slice(start, end)


class ByteCounts(ABC):
    """Bytes of the text that each token of a stream stands for. `boundary` (V,) bool: the pieces that are no text."""

    boundary: np.ndarray

    @property
    def vocabulary(self) -> int:
        """Number of pieces."""
        return len(self.boundary)

    @abstractmethod
    def of(self, ids: np.ndarray) -> np.ndarray:
        """Bytes of each of `ids`, (N,) int16 or uint16; what precedes the first is a boundary."""

    @abstractmethod
    def at(self, positions: np.ndarray) -> "ByteCounts":
        """The counts for a text of the tokens at `positions` of the stream."""

    @abstractmethod
    def prove(self, ids: np.ndarray, sp: sentencepiece.SentencePieceProcessor, rank: int, size: int) -> int:
        """Bytes of this rank's share of the documents. Raises UserError at the first that was miscounted."""


@dataclass(frozen=True)
class ByteTable(ByteCounts):
    """Bytes per piece, without (`base`) and because of (`leading_space`) its first `▁`; `boundary` pieces are no text.

    `keeps_first_space` is the tokenizer's habit: False where decoding drops the space that opens a document."""

    base: np.ndarray  # (V,) int16
    leading_space: np.ndarray  # (V,) bool
    boundary: np.ndarray  # (V,) bool
    keeps_first_space: bool = False

    def of(self, ids: np.ndarray) -> np.ndarray:
        """With ids `<s> ▁the ▁cat` and a tokenizer that drops the first space: 0, 3, 4."""
        # A piece costs its base after anything, and a space more after text (or always, if the first space is kept).
        counted = self.base[ids]
        if self.keeps_first_space:
            return counted + self.leading_space[ids]
        after_text = np.empty(len(ids), bool)
        after_text[:1] = False
        np.logical_not(self.boundary[ids[:-1]], out=after_text[1:])
        return counted + (self.leading_space[ids] & after_text)

    def at(self, positions: np.ndarray) -> "ByteTable":
        return self

    def prove(self, ids: np.ndarray, sp: sentencepiece.SentencePieceProcessor, rank: int, size: int) -> int:
        """Counted twice: by the table and by decoding."""
        sums, proven = prefix_sums(token_bytes(ids, self)), 0
        for start, end, text in decoded(ids, sp, rank, size):
            if sums[end] - sums[start] != len(text):
                raise MiscountError(start, end, sums[end] - sums[start], len(text))
            proven += len(text)
        return proven


@dataclass(frozen=True)
class Sidecar(ByteCounts):
    """Bytes per token of one stream, as a file beside its shards states them, and what each document's bytes must be
    (`documents`, (D,), where the data set states it)."""

    per_token: np.ndarray  # (N,) uint16
    boundary: np.ndarray  # (V,) bool
    documents: np.ndarray | None

    def of(self, ids: np.ndarray) -> np.ndarray:
        if len(ids) != len(self.per_token):
            raise UserError(
                f"byte counts for {len(self.per_token):,} tokens, but the stream has {len(ids):,}: the sidecar of another stream"
            )
        return self.per_token

    def at(self, positions: np.ndarray) -> "Sidecar":
        return Sidecar(self.per_token[positions], self.boundary, None)

    def prove(self, ids: np.ndarray, sp: sentencepiece.SentencePieceProcessor, rank: int, size: int) -> int:
        """Boundary pieces count 0, and the tokens of a document the bytes that it had."""
        per_token = token_bytes(ids, self)
        if (wrong := np.flatnonzero(self.boundary[ids] & (per_token > 0))).size:
            raise UserError(
                f"byte counts: {int(per_token[wrong[0]])} bytes for the token at position {int(wrong[0])}, which is no text"
                f" ({sp.id_to_piece(int(ids[wrong[0]]))}): the sidecar of another stream"
            )
        spans, sums, proven = documents(ids, sp.bos_id()), prefix_sums(per_token), 0
        if self.documents is not None and len(self.documents) != len(spans):
            raise UserError(f"byte counts: {len(self.documents):,} documents are stated, the stream has {len(spans):,}")
        for i in range(*share(0, len(spans), rank, size)):
            start, end = spans[i]
            counted = int(sums[end] - sums[start])
            if self.documents is not None and counted != self.documents[i]:
                raise UserError(
                    f"byte counts: the tokens of the document at token {start} count {counted:,} bytes, but it had"
                    f" {int(self.documents[i]):,}: the sidecar was changed"
                )
            proven += counted
        return proven


def load_tokenizer(path: str | Path) -> sentencepiece.SentencePieceProcessor:
    """The SentencePiece model at `path`. Raises UserError where there is none."""
    if not Path(path).is_file():
        raise UserError(f"tokenizer {path}: no such file; give the SentencePiece .model the tokens were made with")
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def byte_table(tokenizer_path: str | Path) -> ByteTable:
    """The byte table of a SentencePiece model. `▁the` is 3 + a space; `▁▁▁` is 2 + a space; `<0xC3>` is 1; `<s>` is 0."""
    sp = load_tokenizer(tokenizer_path)
    space = sp.piece_to_id(SPACE)
    if sp.id_to_piece(space) != SPACE:
        raise UserError(
            f"tokenizer {tokenizer_path}: {SPACE!r} is not a piece of its own, so a lone space counts 3 bytes instead of 1."
            f" Train it with user_defined_symbols={SPACE!r}."
        )
    ids = range(sp.get_piece_size())
    pieces = [sp.id_to_piece(i) for i in ids]
    boundary = boundaries(sp)
    text = np.array([not (no_text or sp.is_byte(i)) for i, no_text in zip(ids, boundary, strict=True)])
    base = [1 if sp.is_byte(i) else inner_bytes(pieces[i]) if text[i] else 0 for i in ids]
    leading = np.array([piece.startswith(SPACE) for piece in pieces]) & text
    return ByteTable(np.array(base, np.int16), leading, boundary, sp.decode([space]) == " ")


def inner_bytes(piece: str) -> int:
    """Of a text piece, without the space that it may begin with."""
    return len(piece.removeprefix(SPACE).replace(SPACE, " ").encode())


def boundaries(sp: sentencepiece.SentencePieceProcessor) -> np.ndarray:
    """(V,) bool: which pieces are no text."""
    return np.array([sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i) for i in range(sp.get_piece_size())])


def token_bytes(ids: np.ndarray, counts: ByteCounts) -> np.ndarray:
    """Bytes of each token, (N,). Raises UserError for a token outside the vocabulary."""
    check_range(ids, counts.vocabulary)
    return counts.of(ids)


def prefix_sums(per_token: np.ndarray) -> np.ndarray:
    """(n + 1,) int64, so that the bytes of tokens [a, b) are `sums[b] - sums[a]`."""
    sums = np.zeros(len(per_token) + 1, np.int64)
    np.cumsum(per_token, out=sums[1:])
    return sums


def check_range(ids: np.ndarray, vocabulary: int) -> None:
    """Refuse a token outside the vocabulary. Never clamped: a clamp scores a text that nobody wrote."""
    if len(ids) and int(ids.max()) >= vocabulary:
        at = int(np.argmax(ids >= vocabulary))
        raise UserError(
            f"token {int(ids[at])} at position {at} is outside the vocabulary of {vocabulary} pieces: "
            "these tokens were made with another tokenizer"
        )


def documents(ids: np.ndarray, bos: int) -> list[tuple[int, int]]:
    """[start, end) of each document; a document starts at `bos`, and the split's head counts as one if it lacks it."""
    starts = np.flatnonzero(ids == bos).tolist()
    if len(ids) and (not starts or starts[0] != 0):
        starts.insert(0, 0)
    return list(pairwise([*starts, len(ids)]))


def decoded(
    ids: np.ndarray, sp: sentencepiece.SentencePieceProcessor, rank: int = 0, size: int = 1
) -> Iterator[tuple[int, int, bytes]]:
    """(start, end, UTF-8 text) of each document of this rank's share, as the tokenizer itself decodes it, a block at a time."""
    every = documents(ids, sp.bos_id())
    mine = every[slice(*share(0, len(every), rank, size))]
    block: list[tuple[int, int]] = []
    for start, end in mine:
        block.append((start, end))
        if end - block[0][0] >= BLOCK_TOKENS or end == mine[-1][1]:
            texts = sp.decode([ids[a:b].tolist() for a, b in block])
            yield from ((a, b, text.encode()) for (a, b), text in zip(block, texts, strict=True))
            block = []


def text_of(ids: np.ndarray, tokenizer_path: str | Path) -> bytes:
    """The whole split as decoded bytes, for the compressors it is compared with."""
    return b"".join(text for _, _, text in decoded(ids, load_tokenizer(tokenizer_path)))


def prove(ids: np.ndarray, tokenizer_path: str | Path, counts: ByteCounts, rank: int = 0, size: int = 1) -> int:
    """Bytes of this rank's share of the split, proven. Raises MiscountError at the first document that is miscounted. The shares
    of all ranks are the whole."""
    sp = load_tokenizer(tokenizer_path)
    if sp.get_piece_size() != counts.vocabulary:
        raise UserError(
            f"tokenizer {tokenizer_path} has {sp.get_piece_size()} pieces, the byte table {counts.vocabulary}: another tokenizer"
        )
    return counts.prove(ids, sp, rank, size)
