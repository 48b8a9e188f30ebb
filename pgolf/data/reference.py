"""What general-purpose compressors make of the same bytes: a language model that loses to xz has not been trained."""

import lzma

SAMPLE_BYTES = 1 << 24  # xz -9e takes about a second per megabyte


def compressors(text: bytes, limit: int = SAMPLE_BYTES) -> dict[str, float]:
    """Bits per byte of `xz -9e` and `zstd -22` on `text`, or on its first `limit` bytes (16 MiB) where it is longer."""
    import zstandard

    sample = text[:limit]
    parameters = zstandard.ZstdCompressionParameters.from_level(22, source_size=len(sample))
    packed = {
        "xz -9e": lzma.compress(sample, preset=9 | lzma.PRESET_EXTREME),
        "zstd -22": zstandard.ZstdCompressor(compression_params=parameters).compress(sample),
    }
    return {name: 8 * len(data) / len(sample) if sample else 0.0 for name, data in packed.items()}
