"""How many bytes of text each token stands for, and the proof that the answer is right.

The score is nats per *byte*, so a table that miscounts bytes miscounts the score. Nothing here is trusted: `prove` decodes
the whole split with the tokenizer itself and compares, document by document."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import sentencepiece

from pgolf.errors import UserError
from pgolf.eval.windows import share

SPACE = "▁"
BLOCK_TOKENS = 1 << 20  # decoded at a time, so that a split of any size streams through a few megabytes


@dataclass(frozen=True)
class ByteTable:
    """Bytes per piece, without (`base`) and because of (`leading_space`) its first `▁`; `boundary` pieces are no text.

    `keeps_first_space` is the tokenizer's habit: False where decoding drops the space that opens a document."""

    base: np.ndarray  # (V,) int16
    leading_space: np.ndarray  # (V,) bool
    boundary: np.ndarray  # (V,) bool
    keeps_first_space: bool = False

    @property
    def vocabulary(self) -> int:
        return len(self.base)


def load_tokenizer(path: str | Path) -> sentencepiece.SentencePieceProcessor:
    if not Path(path).is_file():
        raise UserError(f"tokenizer {path}: no such file; give the SentencePiece .model the tokens were made with")
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def byte_table(tokenizer_path: str | Path) -> ByteTable:
    """The byte table of a SentencePiece model. `▁the` is 3 + a space; `▁▁▁` is 2 + a space; `<0xC3>` is 1; `<s>` is 0."""
    sp = load_tokenizer(tokenizer_path)
    space = sp.piece_to_id(SPACE)
    if sp.id_to_piece(space) != SPACE:
        raise UserError(
            f"tokenizer {tokenizer_path}: {SPACE!r} is not a piece of its own, so a lone space is spelled as three byte "
            f"pieces and counts 3 bytes instead of 1. Train it with user_defined_symbols={SPACE!r}."
        )
    ids = range(sp.get_piece_size())
    pieces = [sp.id_to_piece(i) for i in ids]
    boundary = np.array([sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i) for i in ids])
    text = np.array([not (no_text or sp.is_byte(i)) for i, no_text in zip(ids, boundary, strict=True)])
    base = [1 if sp.is_byte(i) else _inner_bytes(pieces[i]) if text[i] else 0 for i in ids]
    leading = np.array([piece.startswith(SPACE) for piece in pieces]) & text
    return ByteTable(np.array(base, np.int16), leading, boundary, sp.decode([space]) == " ")


def _inner_bytes(piece: str) -> int:
    return len(piece.removeprefix(SPACE).replace(SPACE, " ").encode())


def token_bytes(ids: np.ndarray, table: ByteTable) -> np.ndarray:
    """Bytes of each token given the one before it (int16); what precedes the first is a boundary.

    With ids `<s> ▁the ▁cat` and a tokenizer that drops the first space: 0, 3, 4."""
    check_range(ids, table.vocabulary)
    # A piece costs its base after anything, and a space more after text (or always, if the first space is kept).
    counted = table.base[ids]
    if table.keeps_first_space:
        return counted + table.leading_space[ids]
    after_text = np.empty(len(ids), bool)
    after_text[:1] = False
    np.logical_not(table.boundary[ids[:-1]], out=after_text[1:])
    return counted + (table.leading_space[ids] & after_text)


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


def prove(ids: np.ndarray, tokenizer_path: str | Path, table: ByteTable, rank: int = 0, size: int = 1) -> int:
    """Bytes of this rank's share of the split, counted twice: by the table and by decoding. Refuses, with the first
    difference, unless equal. The shares of all ranks are the whole."""
    sp = load_tokenizer(tokenizer_path)
    if sp.get_piece_size() != table.vocabulary:
        raise UserError(
            f"tokenizer {tokenizer_path} has {sp.get_piece_size()} pieces, the byte table {table.vocabulary}: another tokenizer"
        )
    sums = prefix_sums(token_bytes(ids, table))
    proven = 0
    for start, end, text in decoded(ids, sp, rank, size):
        if sums[end] - sums[start] != len(text):
            raise UserError(_difference(start, ids[start:end], sp, table))
        proven += len(text)
    return proven


def _difference(start: int, ids: np.ndarray, sp: sentencepiece.SentencePieceProcessor, table: ByteTable) -> str:
    """Which token of this document is the first whose table bytes are not its decoded bytes, and why."""
    sums = prefix_sums(token_bytes(ids, table))
    at = _first_difference(ids, sp, sums)
    spelled = len(sp.decode(ids[: at + 1].tolist()).encode())
    return (
        f"byte accounting: the document at token {start} differs first at position {start + at}, piece "
        f"{sp.id_to_piece(int(ids[at]))!r}: the table says {int(sums[at + 1])} bytes so far, decoding gives {spelled}. "
        f"{_reason(int(ids[at]), int(ids[at - 1]) if at else None, sp, table)}"
    )


def _first_difference(ids: np.ndarray, sp: sentencepiece.SentencePieceProcessor, sums: np.ndarray) -> int:
    for at in range(len(ids) - 1):
        # Inside a run of byte pieces a character may be unfinished, and decodes to a replacement character.
        unfinished = sp.is_byte(int(ids[at])) and sp.is_byte(int(ids[at + 1]))
        if not unfinished and len(sp.decode(ids[: at + 1].tolist()).encode()) != sums[at + 1]:
            return at
    return len(ids) - 1


def _reason(piece: int, before: int | None, sp: sentencepiece.SentencePieceProcessor, table: ByteTable) -> str:
    if sp.is_byte(piece):
        if table.base[piece] != 1:
            return f"A byte piece is 1 byte, not {int(table.base[piece])}."
        return "These byte pieces are not valid UTF-8, so they decode to replacement characters of 3 bytes."
    if sp.is_unknown(piece) or sp.is_unused(piece):
        return "An unknown or unused piece stands for text that is lost, so its bytes cannot be counted."
    right = _inner_bytes(sp.id_to_piece(piece))
    if table.leading_space[piece] and table.base[piece] == right + len(SPACE.encode()):
        return f"The leading space is counted twice: {SPACE!r} is in the base bytes as well."
    if table.base[piece] != right:
        return f"The table's base of {int(table.base[piece])} bytes should be {right}."
    after = "the document's start" if before is None else repr(sp.id_to_piece(before))
    return f"The table and the decoder disagree about the space after {after}."
