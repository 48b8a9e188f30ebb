"""Documents out of a person's files, one at a time: text (whole, or split at a separator), JSON lines and parquet, plain or
compressed. Memory holds a document and a block, whatever the size of the files.

An `Item` is a document as it lies in its file; `Reading` makes text of it, in whichever process that is.
"""

import glob
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from pgolf.errors import ConfigError, UserError
from pgolf.files.home import expanded

KINDS = (".txt", ".md", ".jsonl", ".parquet")
PACKED = ("", ".gz", ".zst")
BLOCK = 1 << 20
LARGEST = 1 << 28  # bytes of one document
SHOWN = 8  # names in a message


class Item(NamedTuple):
    """A document as it lies in its file: `at` is the byte offset (decompressed), the line's, or the row. `own`: the file was
    named as validation text."""

    origin: str
    at: int
    data: bytes
    is_json: bool
    own: bool


@dataclass(frozen=True)
class Reading:
    """How files become documents, and documents text: `separator` cuts text files, `field` of JSON lines and parquet is the
    text, `errors` is `strict`, or `replace` for what is not text at all."""

    field: str
    errors: str
    separator: str | None

    def text(self, item: Item) -> str:
        """Raises UserError that names the file and the byte for what is no text."""
        text = self._from_json(item) if item.is_json else self._from_bytes(item)
        if self.errors == "replace":
            return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        if "\0" in text and not item.is_json:
            at = item.at + len(text[: text.index("\0")].encode())
            raise UserError(
                f"{item.origin}: a NUL at byte {at}: not UTF-8 text (UTF-16, or binary?). Convert it, or say errors=replace"
            )
        return text

    def _from_bytes(self, item: Item) -> str:
        try:
            return item.data.decode("utf-8", self.errors)
        except UnicodeDecodeError as wrong:
            raise UserError(
                f"{item.origin}: not UTF-8 at byte {item.at + wrong.start} (0x{item.data[wrong.start]:02x}). Convert the file,"
                " or say errors=replace to have such bytes replaced by U+FFFD"
            ) from None

    def _from_json(self, item: Item) -> str:
        place = f"{item.origin}: the line at byte {item.at}"
        try:
            row = json.loads(self._from_bytes(item))
        except json.JSONDecodeError as wrong:
            raise UserError(f"{place} is not JSON, or is cut short: {wrong.msg}, character {wrong.pos} of it") from None
        if not isinstance(row, dict) or self.field not in row:
            has = f"has {', '.join(sorted(row)[:SHOWN])}" if isinstance(row, dict) else "is no object"
            raise UserError(f"{place} has no field {self.field!r} (it {has}); name another with field=...")
        text = row[self.field]
        if not isinstance(text, str):
            raise UserError(f"{place}: its field {self.field!r} is {type(text).__name__}, must be a string")
        if self.errors == "strict":
            try:
                text.encode()
            except UnicodeEncodeError:
                raise UserError(
                    f"{place}: its text holds half of a surrogate pair; errors=replace would replace it"
                ) from None
        return text


class Files:
    """The documents of `training` files after those of `validation` files, each in the order of the paths.

    `read` counts bytes of the files so far, of `total`.
    """

    def __init__(self, training: list[Path], validation: list[Path], reading: Reading):
        self.paths = [(path, True) for path in validation] + [(path, False) for path in training]
        self.separator, self.field, self.dropped = reading.separator, reading.field, {}
        self.total, self.read = sum(path.stat().st_size for path, _ in self.paths), 0
        for path, _ in self.paths:
            if not path.stat().st_size:
                raise UserError(f"{path}: is empty; leave it out, or fill it")

    def items(self) -> Iterator[Item]:
        """Every document, front to back; may be asked for again."""
        self.read = 0
        for path, own in self.paths:
            before = self.read
            with opened(path) as file:
                for at, data, is_json in self._pieces(path, file):
                    yield Item(str(path), at, data, is_json, own)
                    self.read = before + min(file.tell(), path.stat().st_size)
            self.read = before + path.stat().st_size

    def _pieces(self, path: Path, file: IO[bytes]) -> Iterator[tuple[int, bytes, bool]]:
        kind = kind_of(path)
        if kind == ".parquet":
            return ((i, row, False) for i, row in rows(path, file, self.field))
        if kind == ".jsonl":
            return ((at, line, True) for at, line in split(path, blocks(path, file), b"\n") if line.strip())
        separator = self.separator.encode() if self.separator else None
        return ((at, part, False) for at, part in split(path, blocks(path, file), separator))


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file; what goes wrong while it is read is told with its name."""
    try:
        with path.open("rb") as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as wrong:
        raise UserError(f"{path}: cut short, or not gzip: {wrong}") from None
    except OSError as wrong:
        raise UserError(f"{path}: cannot be read: {wrong.strerror or wrong}") from None


def blocks(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """The file's content, decompressed, in blocks."""
    if path.suffix == ".zst":
        yield from unpacked_zst(path, file)
        return
    content = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
    while block := content.read(BLOCK):
        yield block


def unpacked_zst(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """All frames of a .zst file. Raises UserError where the last one has no end."""
    import zstandard

    frame, begun = zstandard.ZstdDecompressor().decompressobj(), False
    try:
        while block := file.read(BLOCK):
            while block:
                begun = True
                yield frame.decompress(block)
                block = b""
                if frame.eof:
                    block, begun = frame.unused_data, False
                    frame = zstandard.ZstdDecompressor().decompressobj()
    except zstandard.ZstdError as wrong:
        raise UserError(f"{path}: not zstd, or damaged: {wrong}") from None
    if begun:
        raise UserError(f"{path}: cut short: its last zstd frame has no end")


def split(path: Path, content: Iterable[bytes], separator: bytes | None) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of each part between separators; the whole without one. A part may be empty; nothing after the last
    separator is no part."""
    at, rest = 0, bytearray()
    for block in content:
        known = max(len(rest) - len(separator or b"") + 1, 0)  # no separator begins before
        rest += block
        if separator and rest.find(separator, known) >= 0:
            *parts, rest = rest.split(separator)
            for part in parts:
                yield at, bytes(part)
                at += len(part) + len(separator)
        if len(rest) > LARGEST:
            raise UserError(
                f"{path}: a document of more than {LARGEST:,} bytes at byte {at}; document_separator=... cuts a large file"
            )
    if rest:
        yield at, bytes(rest)


def rows(path: Path, file: IO[bytes], field: str) -> Iterator[tuple[int, bytes]]:
    """(row, UTF-8) of a parquet file's column `field`, a batch at a time."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"{path}: parquet needs pyarrow: pip install 'pgolf[parquet]'") from None
    try:
        table, at = parquet.ParquetFile(file), 0
        if field not in table.schema_arrow.names:
            has = ", ".join(table.schema_arrow.names[:SHOWN])
            raise UserError(f"{path}: has no column {field!r} (it has {has}); name another with field=...")
        for batch in table.iter_batches(1024, columns=[field]):
            for value in batch.column(0).cast(pyarrow.large_binary()):
                if not value.is_valid:
                    raise UserError(f"{path}: row {at}: its {field!r} is null, must be a string")
                yield at, value.as_py()
                at += 1
    except pyarrow.ArrowException as wrong:
        raise UserError(f"{path}: not parquet that can be read: {str(wrong).splitlines()[0]}") from None


def kind_of(path: Path) -> str:
    """`.jsonl` of a.jsonl.zst."""
    return path.with_suffix("").suffix if path.suffix in PACKED else path.suffix


def found(patterns: Iterable[str], key: str) -> list[Path]:
    """The files that paths and globs name, sorted within each pattern, none twice. Raises ConfigError for `key`."""
    paths: dict[Path, None] = {}
    for pattern in patterns:
        absolute = expanded(pattern)
        if absolute.is_dir():
            raise ConfigError(key, pattern, f"is a folder; name its files, as '{pattern.rstrip('/')}/**/*.txt'")
        named = [absolute] if absolute.exists() else sorted(map(Path, glob.glob(str(absolute), recursive=True)))
        files = [path for path in named if path.is_file()]
        if not files:
            raise ConfigError(key, pattern, f"no such file, and no file matches (looked for {absolute})")
        paths |= dict.fromkeys(files)
    for path in paths:
        if kind_of(path) not in KINDS:
            allowed = f"{path.name}: must end in {', '.join(KINDS)}, alone or followed by .gz or .zst (parquet: alone)"
            raise ConfigError(key, str(path), allowed)
    return list(paths)


def checked_apart(training: list[Path], validation: list[Path], key: str) -> None:
    """Refuse a file that is named for both sides."""
    if both := sorted(set(training) & set(validation)):
        raise ConfigError(key, str(both[0]), "is among the training files too; name it on one side")
