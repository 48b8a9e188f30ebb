"""The codec group: how a tensor's bytes are compressed. An encoder has settings; a decoder has none, so that a file is read
by the name of the method alone (`decode`)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from pgolf.errors import ArtifactError, need
from pgolf.files.frozen import family

SHUFFLE = "+shuffle"  # ends the name of a method whose input was byte-shuffled


@dataclass(frozen=True, kw_only=True)
class Codec(ABC):
    """Encodes bytes made of elements of `itemsize` bytes. Every subclass decodes the streams of its `method`; this class those
    that are stored as they are."""

    method: ClassVar[str] = "stored"

    @staticmethod
    def decoded(data: bytes, limit: int) -> bytes:
        """At most `limit` bytes that `data` encodes. Raises ArtifactError for a stream that is none of this method's."""
        return data[:limit]

    @property
    @abstractmethod
    def name(self) -> str:
        """The method as the file names it."""

    @property
    @abstractmethod
    def over_entropy(self) -> float:
        """Expected size over the order-0 entropy of quantised Gaussian weights, for predictions."""

    @abstractmethod
    def encode(self, raw: bytes, itemsize: int, columns: int = 0) -> bytes:
        """`columns` is the length of a row in items, for codecs that know of rows."""

    @abstractmethod
    def candidates(self, length: int) -> "tuple[Codec, ...]":
        """What to try on a stream of `length` bytes; the smallest result is kept."""

    def decode(self, data: bytes, raw_length: int, itemsize: int) -> bytes:
        """The bytes that `encode` was given. Raises ArtifactError."""
        return decode(self.name, data, raw_length, itemsize)


def decode(name: str, data: bytes, raw_length: int, itemsize: int) -> bytes:
    """The `raw_length` bytes that `data` encodes by the method `name`, one of those that are known here.

    Raises ArtifactError for other names, other lengths and damaged streams.
    """
    methods = {codec.method: codec.decoded for codec in family(Codec)}
    method = name.removesuffix(SHUFFLE)
    if method not in methods:
        raise ArtifactError(f"codec: {name!r} is not one of {', '.join(methods)}, each with or without {SHUFFLE}")
    if raw_length % itemsize:
        raise ArtifactError(f"raw length: {raw_length} bytes are not a whole number of {itemsize}-byte items")
    raw = methods[method](data, raw_length + 1)
    if len(raw) != raw_length:
        many = "more" if len(raw) > raw_length else len(raw)
        raise ArtifactError(f"raw length: the index says {raw_length} bytes, the {method} stream holds {many}")
    if method == name:
        return raw
    from pgolf.codec.streams import unshuffled

    return unshuffled(raw, itemsize)


@dataclass(frozen=True, kw_only=True)
class Zstd(Codec):
    """Zstandard at `level`; bytes of wide elements grouped by significance where `shuffle`."""

    level: int
    shuffle: bool

    method: ClassVar[str] = "zstd"

    @staticmethod
    def decoded(data: bytes, limit: int) -> bytes:
        from pgolf.codec.streams import from_zstd

        return from_zstd(data, limit)

    def __post_init__(self) -> None:
        need(1 <= self.level <= 22, "codec.level", self.level, "between 1 and 22")

    @property
    def name(self) -> str:
        return self.method + SHUFFLE * self.shuffle

    @property
    def over_entropy(self) -> float:
        return 1.015

    def candidates(self, length: int) -> tuple[Codec, ...]:
        return (self,)

    def encode(self, raw: bytes, itemsize: int, columns: int = 0) -> bytes:
        from pgolf.codec import streams

        return streams.zstd(streams.shuffled(raw, itemsize) if self.shuffle else raw, self.level)


@dataclass(frozen=True, kw_only=True)
class Brotli(Codec):
    """Brotli at `quality`; bytes of wide elements grouped by significance where `shuffle`."""

    quality: int
    shuffle: bool

    method: ClassVar[str] = "brotli"

    @staticmethod
    def decoded(data: bytes, limit: int) -> bytes:
        from pgolf.codec.streams import from_brotli

        return from_brotli(data, limit)

    def __post_init__(self) -> None:
        need(0 <= self.quality <= 11, "codec.quality", self.quality, "between 0 and 11")

    @property
    def name(self) -> str:
        return self.method + SHUFFLE * self.shuffle

    @property
    def over_entropy(self) -> float:
        return 1.011

    def candidates(self, length: int) -> tuple[Codec, ...]:
        return (self,)

    def encode(self, raw: bytes, itemsize: int, columns: int = 0) -> bytes:
        from pgolf.codec import streams

        return streams.brotli(streams.shuffled(raw, itemsize) if self.shuffle else raw, self.quality)


@dataclass(frozen=True, kw_only=True)
class Lzma(Codec):
    """LZMA at `preset`; bytes of wide elements grouped by significance where `shuffle`."""

    preset: int
    extreme: bool
    shuffle: bool

    method: ClassVar[str] = "lzma"

    @staticmethod
    def decoded(data: bytes, limit: int) -> bytes:
        from pgolf.codec.streams import from_lzma

        return from_lzma(data, limit)

    def __post_init__(self) -> None:
        need(0 <= self.preset <= 9, "codec.preset", self.preset, "between 0 and 9")

    @property
    def name(self) -> str:
        return self.method + SHUFFLE * self.shuffle

    @property
    def over_entropy(self) -> float:
        return 1.04

    def candidates(self, length: int) -> tuple[Codec, ...]:
        return (self,)

    def encode(self, raw: bytes, itemsize: int, columns: int = 0) -> bytes:
        from pgolf.codec import streams

        return streams.lzma(streams.shuffled(raw, itemsize) if self.shuffle else raw, self.preset, self.extreme)


@dataclass(frozen=True, kw_only=True)
class Range(Codec):
    """A range coder that knows the histogram of each byte plane, which travels in the file."""

    method: ClassVar[str] = "range"

    @staticmethod
    def decoded(data: bytes, limit: int) -> bytes:
        from pgolf.codec.ranged import decode

        return decode(data, limit)

    @property
    def name(self) -> str:
        return self.method + SHUFFLE

    @property
    def over_entropy(self) -> float:
        return 1.001

    def candidates(self, length: int) -> tuple[Codec, ...]:
        return (self,)

    def encode(self, raw: bytes, itemsize: int, columns: int = 0) -> bytes:
        from pgolf.codec import ranged, streams

        return ranged.encode(streams.shuffled(raw, itemsize), itemsize)


@dataclass(frozen=True, kw_only=True)
class RangeRows(Codec):
    """A range coder with a histogram for every group of rows or columns that are alike, and rows as changes where smaller.

    Up to `small_below` bytes, where tables weigh, `small` is tried as well.
    """

    small: Codec
    small_below: int

    method: ClassVar[str] = "rows"

    @staticmethod
    def decoded(data: bytes, limit: int) -> bytes:
        from pgolf.codec.rows import decode

        return decode(data, limit)

    def __post_init__(self) -> None:
        need(self.small_below >= 0, "codec.small_below", self.small_below, "at least 0 bytes")

    @property
    def name(self) -> str:
        return self.method + SHUFFLE

    @property
    def over_entropy(self) -> float:
        return 1.001

    def candidates(self, length: int) -> tuple[Codec, ...]:
        return (self, self.small) if length <= self.small_below else (self,)

    def encode(self, raw: bytes, itemsize: int, columns: int = 0) -> bytes:
        from pgolf.codec import rows, streams

        return rows.encode(streams.shuffled(raw, itemsize), itemsize, columns)
