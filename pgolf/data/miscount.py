"""Why a byte table miscounts a document: the first token of it that is wrong, and what is wrong with it.

Texts are proven when they are prepared, and said to be wrong then; a judge, who proves them once more, names the document."""

from pathlib import Path

import numpy as np
from sentencepiece import SentencePieceProcessor

from pgolf.data.bytes import (
    SPACE,
    ByteCounts,
    ByteTable,
    MiscountError,
    inner_bytes,
    load_tokenizer,
    prefix_sums,
    prove,
    token_bytes,
)
from pgolf.errors import UserError


def prove_or_explain(ids: np.ndarray, tokenizer_path: str | Path, counts: ByteCounts) -> int:
    """Bytes of the whole split, proven. Raises UserError with the first token that is miscounted, and why."""
    try:
        return prove(ids, tokenizer_path, counts)
    except MiscountError as wrong:
        assert isinstance(counts, ByteTable)
        document, sp = wrong.document, load_tokenizer(tokenizer_path)
        raise UserError(_difference(document.start, ids[document], sp, counts)) from None


def _difference(start: int, ids: np.ndarray, sp: SentencePieceProcessor, table: ByteTable) -> str:
    """Which token of this document is the first whose table bytes are not its decoded bytes, and why."""
    sums = prefix_sums(token_bytes(ids, table))
    at = _first_difference(ids, sp, sums)
    spelled = len(sp.decode(ids[: at + 1].tolist()).encode())
    return (
        f"byte accounting: the document at token {start} differs first at position {start + at}, piece "
        f"{sp.id_to_piece(int(ids[at]))!r}: the table says {int(sums[at + 1])} bytes so far, decoding gives {spelled}. "
        f"{_reason(int(ids[at]), int(ids[at - 1]) if at else None, sp, table)}"
    )


def _first_difference(ids: np.ndarray, sp: SentencePieceProcessor, sums: np.ndarray) -> int:
    for at in range(len(ids) - 1):
        # Inside a run of byte pieces a character may be unfinished, and decodes to a replacement character.
        unfinished = sp.is_byte(int(ids[at])) and sp.is_byte(int(ids[at + 1]))
        if not unfinished and len(sp.decode(ids[: at + 1].tolist()).encode()) != sums[at + 1]:
            return at
    return len(ids) - 1


def _reason(piece: int, before: int | None, sp: SentencePieceProcessor, table: ByteTable) -> str:
    if sp.is_byte(piece):
        if table.base[piece] != 1:
            return f"A byte piece is 1 byte, not {int(table.base[piece])}."
        return "These byte pieces are not valid UTF-8 and decode to replacement characters."
    if sp.is_unknown(piece) or sp.is_unused(piece):
        return "An unknown or unused piece stands for text that is lost."
    right = inner_bytes(sp.id_to_piece(piece))
    if table.leading_space[piece] and table.base[piece] == right + len(SPACE.encode()):
        return f"The leading space is counted twice: {SPACE!r} is in the base bytes as well."
    if table.base[piece] != right:
        return f"The table's base of {int(table.base[piece])} bytes should be {right}."
    after = "the document's start" if before is None else repr(sp.id_to_piece(before))
    return f"The table and the decoder disagree about the space after {after}."
