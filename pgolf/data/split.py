"""Which documents validate and which train, and which of the latter a tokenizer is learned from. All by content, in one pass."""

import hashlib
from collections.abc import Iterator

import numpy as np

from pgolf.data.encode import Sides
from pgolf.data.manifest import BLOCK_ROWS
from pgolf.data.shards import hashes
from pgolf.data.sources import Item, Reading
from pgolf.errors import UserError

BINS = 1 << 16


def below_fraction(scan: np.ndarray, fraction: float) -> bytes:
    """The sha256 below which documents are validation: those with the smallest, until their bytes are nearest to `fraction`.

    Whether a document judges depends on nothing in it but its hash against one threshold, so equal documents are on one
    side. `scan` has a row per document; memory is that of the documents in one of 65,536 bins.
    """
    sizes = np.zeros(BINS, np.int64)
    for rows in _blocks(scan):
        np.add.at(sizes, _bin(rows), rows["bytes"])
    reached = np.cumsum(sizes)
    wanted = fraction * int(reached[-1])
    crossed = int(np.searchsorted(reached, wanted))
    near = np.concatenate([rows[_bin(rows) == crossed] for rows in _blocks(scan)])
    near = near[sorted(range(len(near)), key=hashes(near).__getitem__)]
    cumulative = np.concatenate([[0], np.cumsum(near["bytes"])]) + (reached[crossed] - sizes[crossed])
    taken = int(np.argmin(np.abs(cumulative - wanted)))
    after = min((crossed + 1) << 240, (1 << 256) - 1).to_bytes(32, "big") if taken == len(near) else hashes(near)[taken]
    return _both_sides(scan, after)


def _both_sides(scan: np.ndarray, below: bytes) -> bytes:
    """`below`, moved as little as leaves a document on either side."""
    lowest = min(min(hashes(rows[_first(rows) == _first(rows).min()])) for rows in _blocks(scan))
    highest = max(max(hashes(rows[_first(rows) == _first(rows).max()])) for rows in _blocks(scan))
    if lowest == highest:
        raise UserError(
            "there is only one document (or all are equal), and it cannot be both training and validation text;"
            " document_separator=... cuts a large file into documents"
        )
    if below <= lowest:
        return min(h for rows in _blocks(scan) for h in hashes(rows) if h > lowest)
    return min(below, highest)


def _blocks(scan: np.ndarray) -> Iterator[np.ndarray]:
    return (np.array(scan[i : i + BLOCK_ROWS]) for i in range(0, len(scan), BLOCK_ROWS))


def _first(rows: np.ndarray) -> np.ndarray:
    return rows["sha256"][:, 0]


def _bin(rows: np.ndarray) -> np.ndarray:
    return (_first(rows) >> np.uint64(48)).astype(np.int64)


def training_texts(items: Iterator[Item], reading: Reading, sides: Sides, share: float) -> Iterator[str]:
    """The texts of training documents, or of a `share` of them chosen by hash; none that equals a validation document."""
    judging = set()
    for ordinal, item in enumerate(items):
        text = reading.text(item)
        sha256 = hashlib.sha256(text.encode()).digest()
        if sides.validation(ordinal, item, sha256):
            judging.add(sha256)
        elif text.strip() and sha256 not in judging and int.from_bytes(sha256[-8:], "big") < share * 2**64:
            yield text
