"""A range coder with static models: the histogram of every byte plane is written before its code words, so decoding needs
nothing else. It reaches order-0 entropy to a few parts in 10⁵ and costs a hundredth of the dictionary coders' time. Of the
two engines of the library the one of asymmetric numeral systems (rANS) is taken: as small, and three times as fast."""

import struct
from collections.abc import Callable

import numpy as np

from pgolf.errors import ArtifactError

PLANE = struct.Struct("<QBBI")  # symbols, lowest symbol, highest symbol, code words
SIGN = 0x80  # bytes are signed integers as a rule: around zero they are neighbours only with the sign bit turned
SIZES = np.array(
    [0, *((16 + b % 16) << (b // 16) for b in range(255))]
)  # what a byte of a histogram stands for: integers, exact anywhere


def encode(planes: bytes, itemsize: int) -> bytes:
    """`planes` is byte-shuffled: one plane per byte of an item, each with a model of its own.

    >>> decode(encode(b"abracadabra", 1), 99)
    b'abracadabra'
    """
    rows = np.frombuffer(planes, np.uint8).reshape(itemsize, -1) ^ SIGN
    return b"".join(plane(row) for row in rows) if rows.size else b""


def plane(symbols: np.ndarray) -> bytes:
    """Unsigned symbols with their histogram before them."""
    from constriction import stream

    low, high = int(symbols.min()), int(symbols.max())
    table = _table(np.bincount(symbols, minlength=256)[low : high + 1])
    words = np.zeros(0, np.uint32)
    if low < high:
        coder = stream.stack.AnsCoder()
        coder.encode_reverse(symbols.astype(np.int32) - low, _model(table))
        words = coder.get_compressed()
    head = PLANE.pack(len(symbols), low, high, len(words))
    return head + table.tobytes() + words.astype("<u4").tobytes()


def _table(counts: np.ndarray) -> np.ndarray:
    """A byte per symbol: its count to 1 part in 32, which costs 10⁻⁴ bits per symbol; 0 for what does not occur."""
    order = np.searchsorted(SIZES, counts / counts.max() * SIZES[-1])
    return np.where(counts > 0, np.clip(order, 1, len(SIZES) - 1), 0).astype(np.uint8)


def _model(table: np.ndarray):
    from constriction import stream

    frequencies = SIZES[table].astype(np.float64)
    return stream.model.Categorical(frequencies / frequencies.sum(), perfect=False)


def decode(data: bytes, limit: int) -> bytes:
    """All planes one after the other, at most `limit` bytes."""
    return joined(data, limit, read_plane)


def joined(data: bytes, limit: int, read: Callable[[bytes, int, int], tuple[bytes, int]]) -> bytes:
    """All of `data`, as `read(data, place, limit)` yields one part and the place after it."""
    parts, place, made = [], 0, 0
    while place < len(data):
        part, place = read(data, place, limit - made)
        parts.append(part)
        made += len(part)
    return b"".join(parts)


def read_plane(data: bytes, place: int, limit: int) -> tuple[bytes, int]:
    """The plane at `place`, of at most `limit` symbols with the sign bit turned back, and the place after it."""
    from constriction import stream

    if len(data) - place < PLANE.size:
        raise ArtifactError("data: a range-coded plane is cut off in its head")
    n, low, high, words = PLANE.unpack_from(data, place)
    table = place + PLANE.size
    code = table + high - low + 1
    end = code + 4 * words
    if high < low or end > len(data) or n > limit:
        raise ArtifactError(f"data: a range-coded plane of {n} symbols {low}–{high} and {words} words does not fit")
    if low == high:
        return bytes([low ^ SIGN]) * n, end
    counts = np.frombuffer(data[table:code], np.uint8)
    if np.count_nonzero(counts) < 2:
        raise ArtifactError("data: a range-coded plane has an empty histogram")
    try:
        coder = stream.stack.AnsCoder(np.frombuffer(data[code:end], "<u4").astype(np.uint32))
    except ValueError as wrong:
        raise ArtifactError(f"data: not range-coded ({wrong})") from None
    symbols = coder.decode(_model(counts), n)
    if not coder.is_empty():
        raise ArtifactError(f"data: a range-coded plane holds more than its {n} symbols")
    unsigned = symbols.astype(np.uint8)
    unsigned += low
    unsigned ^= SIGN
    return unsigned.tobytes(), end
