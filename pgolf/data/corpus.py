"""What a prepared corpus is to the rest of pgolf: paths, counts and hashes, small enough to travel to any process.

The manifest is the file they come from. `TrainingText` and `ValidationText` are made from its two halves and share
nothing but the tokenizer, so a process that is given one cannot find the other.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf.errors import ConfigError, UserError
from pgolf.files import read_json, write_json

if TYPE_CHECKING:
    import numpy as np

    from pgolf.data.windows import Windows

FORMAT = 1
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Shard:
    """One file of a split. `bytes` and `documents` are of the decoded text (None where nobody counted)."""

    split: str
    sha256: str
    tokens: int
    max_token: int
    bytes: int | None
    documents: int | None
    size: int
    mtime_ns: int | None


@dataclass(frozen=True)
class Manifest:
    """Everything a corpus states about itself; `documents` are the sha256 of the texts per split, where known."""

    format: int
    name: str
    tokenizer: dict
    files: dict[str, Shard]
    documents: dict[str, list[str]] | None
    parameters: dict
    dropped: dict
    python: str | None

    @classmethod
    def open(cls, path: Path) -> "Manifest":
        """Read and check: the format, both splits, tokens inside the vocabulary, no document in both splits."""
        stated = read_json(path)
        try:
            files = {name: Shard(**shard) for name, shard in stated.pop("files").items()}
            manifest = cls(files=files, **stated)
        except (KeyError, TypeError, AttributeError) as wrong:
            raise UserError(
                f"manifest {path}: not a pgolf data manifest ({wrong}); delete it to have it made anew"
            ) from None
        manifest.check(str(path))
        return manifest

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))

    def check(self, where: str) -> None:
        if self.format != FORMAT:
            raise UserError(
                f"manifest {where}: format {self.format!r}, this pgolf reads {FORMAT}; delete it to have it made anew"
            )
        for split in SPLITS:
            if not self.of(split):
                raise UserError(f"manifest {where}: no file of the {split} split")
        self.check_tokens()
        both = set.intersection(*(set(self.documents[s]) for s in SPLITS)) if self.documents else set()
        if both:
            raise UserError(
                f"manifest {where}: {len(both)} documents are in training and validation, first {min(both)}"
            )

    def check_tokens(self) -> None:
        vocabulary = self.tokenizer["vocab_size"]
        for name, shard in self.files.items():
            if shard.max_token >= vocabulary:
                raise UserError(
                    f"shard {name}: token {shard.max_token} is outside the vocabulary of {vocabulary} pieces;"
                    " it was made with another tokenizer"
                )

    def of(self, split: str) -> dict[str, Shard]:
        return {name: shard for name, shard in self.files.items() if shard.split == split}

    def tokens(self, split: str) -> int:
        return sum(shard.tokens for shard in self.of(split).values())

    def bytes(self, split: str) -> int | None:
        """Bytes of the decoded text of a split, or None where they were not counted."""
        counted = [shard.bytes for shard in self.of(split).values()]
        return None if None in counted else sum(counted)

    def text_sha256(self) -> str:
        """Identity of the tokens: hash of the names and hashes of shards and tokenizer, wherever the files lie."""
        named = [f"{name} {shard.sha256}" for name, shard in sorted(self.files.items())]
        return hashlib.sha256("\n".join([self.tokenizer["sha256"], *named]).encode()).hexdigest()


@dataclass(frozen=True)
class TrainingText:
    """The training split, `counts` tokens per file, in windows of `sequence_length`; the last `dev_tokens` are held out."""

    name: str
    paths: tuple[str, ...]
    counts: tuple[int, ...]
    vocab_size: int
    sequence_length: int
    dev_tokens: int
    tokenizer: str

    def windows(self) -> "Windows":
        """The shards, memory-mapped and with their headers checked."""
        from pgolf.data.windows import Windows

        return Windows.open(self)

    def dev(self) -> "np.ndarray":
        """The held-out slice, (dev_tokens,) uint16."""
        return self.windows().dev()

    @property
    def tokens(self) -> int:
        """Tokens of the whole split, the held-out slice included."""
        return sum(self.counts)

    @property
    def usable(self) -> tuple[int, ...]:
        """Tokens of each file that come before the held-out slice."""
        left, usable = self.tokens - self.dev_tokens, []
        for count in self.counts:
            usable.append(max(0, min(count, left)))
            left -= count
        return tuple(usable)

    def check_enough(self, batch_tokens: int) -> None:
        """A held-out slice and at least one batch beside it, or a UserError."""
        total, length = self.tokens, self.sequence_length
        if self.dev_tokens >= total:
            raise ConfigError(
                "data.dev_tokens", self.dev_tokens, f"must be less than the {total:,} training tokens of {self.name}"
            )
        windows = sum(max(0, n - 1) // length for n in self.usable)
        if windows * length < batch_tokens:
            raise ConfigError(
                "data.batch_tokens",
                batch_tokens,
                f"the training text {self.name} has {windows:,} windows of {length} tokens = {windows * length:,} besides the"
                f" {self.dev_tokens:,} held out, fewer than one batch; use a smaller batch or more shards",
            )


@dataclass(frozen=True)
class ValidationText:
    """The validation split, to be read whole and in order. `bytes` is the length of its decoded text."""

    name: str
    paths: tuple[str, ...]
    counts: tuple[int, ...]
    sha256: tuple[str, ...]
    bytes: int
    vocab_size: int
    tokenizer: str
    tokenizer_sha256: str

    @property
    def tokens(self) -> int:
        return sum(self.counts)

    def read(self) -> "np.ndarray":
        """All tokens as one (N,) uint16 array. Raises UserError unless every file is the one the manifest describes."""
        from pgolf.data.shards import read_whole, verify_file

        verify_file(Path(self.tokenizer), self.tokenizer_sha256)
        return read_whole(self.paths, self.counts, self.sha256)

    def reference(self) -> dict[str, float]:
        """Bits per byte that general-purpose compressors need for the same text."""
        from pgolf.eval.bytes import text_of
        from pgolf.eval.reference import compressors

        return compressors(text_of(self.read(), self.tokenizer))


@dataclass(frozen=True)
class Corpus:
    """Both splits and the manifest they come from. Give a process the half that it may see."""

    training: TrainingText
    validation: ValidationText
    manifest: Manifest

    @classmethod
    def of(cls, manifest: Manifest, folder: Path, tokenizer: Path, sequence_length: int, dev_tokens: int) -> "Corpus":
        def of(split: str) -> tuple[tuple, tuple]:
            shards = manifest.of(split)
            return tuple(str(folder / name) for name in shards), tuple(shard.tokens for shard in shards.values())

        name, model, vocabulary = manifest.name, str(tokenizer), manifest.tokenizer["vocab_size"]
        training = TrainingText(name, *of("train"), vocabulary, sequence_length, dev_tokens, model)
        hashes = tuple(shard.sha256 for shard in manifest.of("val").values())
        digest = manifest.tokenizer["sha256"]
        validation = ValidationText(name, *of("val"), hashes, manifest.bytes("val"), vocabulary, model, digest)
        return cls(training, validation, manifest)

    def section(self) -> dict:
        """The record's `data` section."""
        manifest = self.manifest
        documents = {s: len(manifest.documents[s]) for s in SPLITS} if manifest.documents else None
        return {
            "name": manifest.name,
            "manifest_sha256": manifest.text_sha256(),
            "tokenizer": manifest.tokenizer,
            "files": {name: shard.sha256 for name, shard in manifest.files.items()},
            "train_tokens": manifest.tokens("train"),
            "train_bytes": manifest.bytes("train"),
            "dev_tokens": self.training.dev_tokens,
            "val_tokens": manifest.tokens("val"),
            "val_bytes": manifest.bytes("val"),
            "documents": documents,
            "dropped": manifest.dropped,
        }
