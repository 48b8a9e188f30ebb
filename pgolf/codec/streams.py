"""The byte codecs themselves. Every decoder is bounded: it is told how many bytes must come out, never makes more, and
turns whatever is wrong with its input into an `ArtifactError`."""

import lzma as xz

import numpy as np

from pgolf.errors import ArtifactError

ZSTD_WINDOW = 2**27  # the largest window that level 22 writes; a frame that asks for more is refused
LZMA_MEMORY = 2**30


def shuffled(raw: bytes, itemsize: int) -> bytes:
    """All first bytes, then all second bytes, and so on: exponents beside exponents. One-byte items stay as they are.

    >>> shuffled(b"a1b2c3", 2)
    b'abc123'
    """
    return raw if itemsize == 1 else np.frombuffer(raw, np.uint8).reshape(-1, itemsize).T.tobytes()


def unshuffled(data: bytes, itemsize: int) -> bytes:
    """The inverse of `shuffled`: bytes of each place back into numbers."""
    return data if itemsize == 1 else np.frombuffer(data, np.uint8).reshape(itemsize, -1).T.tobytes()


def zstd(raw: bytes, level: int) -> bytes:
    """One frame without checksum, content size or dictionary id."""
    import zstandard

    chosen = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=len(raw), write_checksum=False, write_content_size=False, write_dict_id=False
    )
    return zstandard.ZstdCompressor(compression_params=chosen).compress(raw)


def from_zstd(data: bytes, limit: int) -> bytes:
    """At most `limit` bytes of a zstd stream."""
    import zstandard

    try:
        reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).stream_reader(data)
        return reader.read(limit)
    except zstandard.ZstdError as wrong:
        raise ArtifactError(f"data: not a zstd stream ({wrong})") from None


def brotli(raw: bytes, quality: int) -> bytes:
    """One stream with the largest window that decoders must take (16 MiB)."""
    import brotli

    return brotli.compress(raw, quality=quality, lgwin=24)


def from_brotli(data: bytes, limit: int) -> bytes:
    """At most `limit` bytes of a brotli stream."""
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


def from_lzma(data: bytes, limit: int) -> bytes:
    """At most `limit` bytes of an lzma stream."""
    try:
        return xz.LZMADecompressor(xz.FORMAT_ALONE, memlimit=LZMA_MEMORY).decompress(data, max_length=limit)
    except xz.LZMAError as wrong:
        raise ArtifactError(f"data: not an lzma stream ({wrong})") from None
