"""`data=text`: a person's own files, built into the cache when they are first asked for."""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf.data.assemble import Plan
from pgolf.data.base import Show
from pgolf.data.cached import kept, place
from pgolf.data.shards import sha256_of
from pgolf.data.sources import Files, Reading, checked_apart, found, kind_of
from pgolf.data.words import unescaped
from pgolf.errors import ConfigError, UserError
from pgolf.files import read_json, write_json
from pgolf.files.home import expanded
from pgolf.files.leftovers import HOUR, clear
from pgolf.machine.hardware import cores

if TYPE_CHECKING:
    from pgolf.data import TextFiles

MEMORY = "files.json"  # sha256 of files by path, size and time of change
ALONE_BYTES = 1 << 25  # so little is not worth starting workers for


def plan(data: "TextFiles") -> Plan:
    """What decides the data set besides its files. Raises ConfigError for a tokenizer that is not there."""
    given = expanded(data.tokenizer) if data.tokenizer else None
    if given and not given.is_file():
        raise ConfigError(
            "data.tokenizer", data.tokenizer, "no such file; give a SentencePiece .model, or null to learn one"
        )
    separator = unescaped(data.document_separator) if data.document_separator else None
    return Plan(
        name=data.name,
        prefix=data.name,
        reading=Reading(field=data.field, errors=data.errors, separator=separator),
        transform=data.transform,
        byte_rule=data.counting,
        given=given,
        vocab_size=data.vocab_size,
        model_type=data.model_type,
        val_docs=None,
        val_fraction=None if data.val_files else data.val_fraction,
        origin={"source": None, "licence": None},
    )


def files(data: "TextFiles") -> tuple[list[Path], list[Path]]:
    """Training and validation files. Raises ConfigError where a pattern finds none."""
    training, validation = found(data.files, "data.files"), found(data.val_files or (), "data.val_files")
    checked_apart(training, validation, "data.val_files")
    return training, validation


def prepare(data: "TextFiles", show: Show) -> Path:
    """The folder of the data set, built if it is not there or not sound."""
    made, sides = plan(data), files(data)
    inputs = inputs_of(sides, data.cache_folder)

    def source() -> Files:
        return Files(*sides, made.reading)

    workers = cores() if source().total > ALONE_BYTES else 1
    return kept(place(data.cache_folder, made, inputs), made, inputs, source, show, workers)


def locate(data: "TextFiles") -> Path:
    """Where the data set is, or would be. Raises UserError for files that are not there."""
    return place(data.cache_folder, plan(data), inputs_of(files(data), data.cache_folder))


def content_sha256(data: "TextFiles") -> str:
    """A hash of the files and of the tokenizer that is given. Raises UserError for files that are not there."""
    given = plan(data).given
    tokenizer = sha256_of(given) if given else None
    return hashlib.sha256(f"{inputs_of(files(data), data.cache_folder)} {tokenizer}".encode()).hexdigest()


def inputs_of(sides: tuple[list[Path], list[Path]], cache: Path) -> str:
    """A hash of the files' contents, kinds and sides, in order: wherever they lie and however they are called."""
    memory, before = cache / MEMORY, {}
    with suppress(UserError):  # none yet: it only saves time
        before = read_json(memory)
    known = dict(before)
    lines = [f"{side} {kind_of(path)} {_sha256(path, known)}" for side in (0, 1) for path in sides[side]]
    if known != before:
        cache.mkdir(parents=True, exist_ok=True)
        clear(cache, MEMORY, HOUR)
        write_json(memory, known)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _sha256(path: Path, known: dict) -> str:
    stat = path.stat()
    size, time, digest = known.get(str(path), (None, None, None))
    if (size, time) != (stat.st_size, stat.st_mtime_ns):
        digest = sha256_of(path)
        known[str(path)] = [stat.st_size, stat.st_mtime_ns, digest]
    return digest
