"""What a prepared corpus is to the rest of pgolf: paths, counts and hashes, small enough to travel to any process.

`TrainingText` and `ValidationText` are made from the two halves of a manifest and share nothing but the tokenizer, so a process
that is given one cannot find the other.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf.data.manifest import SIDECAR, SPLITS, Manifest
from pgolf.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from pgolf.data.bytes import ByteCounts
    from pgolf.data.windows import Windows


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
    """The validation split, to be read whole and in order. `bytes` is the length of its text, as the tokenizer decodes it."""

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
        """Tokens of all shards together."""
        return sum(self.counts)

    def byte_counts(self) -> "ByteCounts":
        """How many bytes each token stands for."""
        from pgolf.data.bytes import byte_table

        return byte_table(self.tokenizer)

    def read(self) -> "np.ndarray":
        """All tokens as one (N,) uint16 array. Raises UserError unless every file is the one the manifest describes."""
        from pgolf.data.shards import read_whole, verify_file

        verify_file(Path(self.tokenizer), self.tokenizer_sha256)
        return read_whole(self.paths, self.counts, self.sha256)

    def reference(self) -> dict[str, float]:
        """Bits per byte that general-purpose compressors need for the same text."""
        from pgolf.data.bytes import text_of
        from pgolf.data.reference import compressors

        return compressors(text_of(self.read(), self.tokenizer))


@dataclass(frozen=True)
class CountedText(ValidationText):
    """Validation text whose tokens' bytes are counted by the files `sidecar` beside its shards, since its tokenizer does not give
    the text back; `index`, if there is one, states the bytes of each document."""

    sidecar: tuple[str, ...]
    sidecar_sha256: tuple[str, ...]
    index: str | None
    index_sha256: str | None

    def byte_counts(self) -> "ByteCounts":
        """How many bytes each token stands for. Raises UserError unless every file is the one the manifest describes."""
        import numpy as np

        from pgolf.data.bytes import Sidecar, boundaries, load_tokenizer
        from pgolf.data.shards import ROW, read_whole, verify_file

        folder, documents = Path(self.paths[0]).parent, None
        per_token = read_whole([str(folder / name) for name in self.sidecar], self.counts, self.sidecar_sha256)
        if self.index:
            verify_file(folder / self.index, self.index_sha256)
            documents = np.fromfile(folder / self.index, ROW)["bytes"]
        return Sidecar(per_token, boundaries(load_tokenizer(self.tokenizer)), documents)


@dataclass(frozen=True)
class Corpus:
    """Both splits and the manifest they come from. Give a process the half that it may see."""

    training: TrainingText
    validation: ValidationText
    manifest: Manifest

    @classmethod
    def of(cls, manifest: Manifest, folder: Path, tokenizer: Path, sequence_length: int, dev_tokens: int) -> "Corpus":
        """Both halves of the data set that `manifest` describes."""

        def of(split: str) -> tuple[tuple, tuple]:
            shards = manifest.of(split)
            return tuple(str(folder / name) for name in shards), tuple(shard.tokens for shard in shards.values())

        name, model, vocabulary = manifest.name, str(tokenizer), manifest.tokenizer["vocab_size"]
        training = TrainingText(name, *of("train"), vocabulary, sequence_length, dev_tokens, model)
        hashes = tuple(shard.sha256 for shard in manifest.of("val").values())
        digest, size = manifest.tokenizer["sha256"], manifest.bytes("val")
        known = (name, *of("val"), hashes, size, vocabulary, model, digest)
        sidecar = manifest.of(SIDECAR)
        if not sidecar:
            return cls(training, ValidationText(*known), manifest)
        index = manifest.documents["val"] if manifest.documents else None
        stated = (index.file, index.sha256) if index else (None, None)
        counted = CountedText(*known, tuple(sidecar), tuple(shard.sha256 for shard in sidecar.values()), *stated)
        return cls(training, counted, manifest)

    def section(self) -> dict:
        """The record's `data` section."""
        manifest = self.manifest
        documents = {split: manifest.documents_of(split) for split in SPLITS}
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
            "documents": None if None in documents.values() else documents,
            "transform": manifest.transform,
            "byte_rule": manifest.byte_rule,
            "dropped": manifest.dropped,
        }
