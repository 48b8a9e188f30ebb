"""The byte codecs themselves. Every decoder is bounded: it is told how many bytes must come out, never makes more, and
turns whatever is wrong with its input into an `ArtifactError`."""

import lzma as xz
from collections.abc import Callable

import numpy as np

from pgolf.errors import UserError

ZSTD_WINDOW = 2**27  # the largest window that level 22 writes; a frame that asks for more is refused
LZMA_MEMORY = 2**30


class ArtifactError(UserError):
    """A file that cannot be trusted or read. The message begins with the field that is wrong."""


def shuffled(raw: bytes, itemsize: int) -> bytes:
    """All first bytes, then all second bytes, and so on: exponents beside exponents. One-byte items stay as they are.

    >>> shuffled(b"a1b2c3", 2)
    b'abc123'
    """
    return raw if itemsize == 1 else np.frombuffer(raw, np.uint8).reshape(-1, itemsize).T.tobytes()


def unshuffled(data: bytes, itemsize: int) -> bytes:
    return data if itemsize == 1 else np.frombuffer(data, np.uint8).reshape(itemsize, -1).T.tobytes()


def zstd(raw: bytes, level: int) -> bytes:
    import zstandard

    chosen = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=len(raw), write_checksum=False, write_content_size=False, write_dict_id=False
    )
    return zstandard.ZstdCompressor(compression_params=chosen).compress(raw)


def _from_zstd(data: bytes, limit: int) -> bytes:
    import zstandard

    try:
        reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).stream_reader(data)
        return reader.read(limit)
    except zstandard.ZstdError as wrong:
        raise ArtifactError(f"data: not a zstd stream ({wrong})") from None


def brotli(raw: bytes, quality: int) -> bytes:
    import brotli

    return brotli.compress(raw, quality=quality, lgwin=24)


def _from_brotli(data: bytes, limit: int) -> bytes:
    import brotli

    engine, parts, made = brotli.Decompressor(), [], 0
    try:
        while made < limit and not engine.is_finished():
            part = engine.process(b"" if parts else data, output_buffer_limit=limit - made)
            if not part:
                break
            parts.append(part)
            made += len(part)
    except brotli.error as wrong:
        raise ArtifactError(f"data: not a brotli stream ({wrong})") from None
    return b"".join(parts)


def lzma(raw: bytes, preset: int, extreme: bool) -> bytes:
    """Literals without context and without alignment (lc = pb = 0): neighbouring symbols know nothing of each other."""
    chosen = {"id": xz.FILTER_LZMA1, "preset": preset | (xz.PRESET_EXTREME if extreme else 0), "lc": 0, "pb": 0}
    return xz.compress(raw, format=xz.FORMAT_ALONE, filters=[chosen])


def _from_lzma(data: bytes, limit: int) -> bytes:
    try:
        return xz.LZMADecompressor(xz.FORMAT_ALONE, memlimit=LZMA_MEMORY).decompress(data, max_length=limit)
    except xz.LZMAError as wrong:
        raise ArtifactError(f"data: not an lzma stream ({wrong})") from None


def _from_range(data: bytes, limit: int) -> bytes:
    from pgolf.codec.ranged import decode

    return decode(data, limit)


def _from_rows(data: bytes, limit: int) -> bytes:
    from pgolf.codec.rows import decode

    return decode(data, limit)


METHODS: dict[str, Callable[[bytes, int], bytes]] = {
    "stored": lambda data, limit: data[:limit],
    "zstd": _from_zstd,
    "brotli": _from_brotli,
    "lzma": _from_lzma,
    "range": _from_range,
    "rows": _from_rows,
}


def decode(name: str, data: bytes, raw_length: int, itemsize: int) -> bytes:
    """The `raw_length` bytes that `data` encodes by the method `name`, a word of a closed list."""
    method, plus, filter_ = name.partition("+")
    if method not in METHODS or (plus and filter_ != "shuffle"):
        raise ArtifactError(f"codec: {name!r} is not one of {', '.join(METHODS)}, each with or without +shuffle")
    if raw_length % itemsize:
        raise ArtifactError(f"raw length: {raw_length} bytes are not a whole number of {itemsize}-byte items")
    raw = METHODS[method](data, raw_length + 1)
    if len(raw) != raw_length:
        many = "more" if len(raw) > raw_length else len(raw)
        raise ArtifactError(f"raw length: the index says {raw_length} bytes, the {method} stream holds {many}")
    return unshuffled(raw, itemsize) if plus else raw
