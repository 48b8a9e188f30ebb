"""Text to learn from and text to be judged by: two sets of token shards that share no document, and how batches are drawn.

`prepare` finds or builds them and returns a `Corpus`, whose halves travel to the ranks by pickle. The training half knows
no path to validation text.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pgolf.data.corpus import Corpus, TrainingText, ValidationText
from pgolf.data.loader import CoprimeShards, InOrder, Loader, PackedDocuments, ShuffledWindows
from pgolf.data.manifest import MANIFEST, TOKENIZER, Manifest
from pgolf.errors import ConfigError, need
from pgolf.files.frozen import added
from pgolf.files.home import expanded

if TYPE_CHECKING:
    from pgolf.data.assemble import Plan

__all__ = [
    "BuiltText",
    "CoprimeShards",
    "Corpus",
    "Data",
    "InOrder",
    "Loader",
    "Manifest",
    "PackedDocuments",
    "PublishedText",
    "ShuffledWindows",
    "StdlibText",
    "TextFiles",
    "TrainingText",
    "ValidationText",
]

TEXT_WORDS = {
    "errors": ("strict", "replace"),
    "transform": ("none", "caseops"),
    "model_type": ("bpe", "unigram"),
    "byte_rule": (None, "table", "decoded", "sidecar"),
}
Show = Callable[[str, float], None]  # what is being done, and how much of it is (0 to 1)


@dataclass(frozen=True, kw_only=True)
class Data(ABC):
    """A corpus and how it is dealt out: `batch_tokens` a step over all ranks, in sequences of `sequence_length`.

    The last `dev_tokens` of the training text are never trained on: `dev_bpb` is measured there, `dev_checks` times on
    the way. `cache` is where what is built, or found out about files, is kept.
    """

    name: str
    vocab_size: int
    batch_tokens: int
    sequence_length: int
    dev_tokens: int
    dev_checks: int
    loader: Loader
    cache: str

    def __post_init__(self) -> None:
        need(259 <= self.vocab_size <= 65536, "data.vocab_size", self.vocab_size, "between 259 and 65536")
        need(
            1 <= self.sequence_length <= 1 << 20, "data.sequence_length", self.sequence_length, "between 1 and 1048576"
        )
        if self.batch_tokens < 1 or self.batch_tokens % self.sequence_length:
            allowed = f"must be a multiple of data.sequence_length={self.sequence_length}"
            raise ConfigError("data.batch_tokens", self.batch_tokens, allowed)
        allowed = f"more than data.sequence_length={self.sequence_length}, so that it holds a window"
        need(self.dev_tokens > self.sequence_length, "data.dev_tokens", self.dev_tokens, allowed)
        need(0 <= self.dev_checks <= 10000, "data.dev_checks", self.dev_checks, "between 0 and 10000")

    @abstractmethod
    def prepare(self, show: Show) -> Corpus:
        """Build or find, and verify. Raises UserError with one message when the files cannot be used."""

    @abstractmethod
    def locate(self) -> Corpus | None:
        """The corpus as far as it is there now, for a plan: nothing is built, and the files are taken at their word."""

    def content_sha256(self) -> str | None:
        """Which text this is, where files decide it, by what is in them; None where the fields do, or no file is here."""
        return None

    def require(self) -> Corpus | None:
        """The corpus as `locate` finds it; None where `prepare` would build it. Raises UserError where it cannot be had."""
        return self.locate()

    def tokens_present(self) -> int | None:
        """Training tokens on disk now, the held-out slice included; None when there are none."""
        corpus = self.locate()
        return corpus.training.tokens if corpus else None

    @property
    def cache_folder(self) -> Path:
        """Where what is built is kept."""
        return expanded(self.cache)

    def _corpus(self, manifest: Manifest, folder: Path, tokenizer: str) -> Corpus:
        return Corpus.of(manifest, folder, folder / tokenizer, self.sequence_length, self.dev_tokens)

    def _built(self, folder: Path) -> Corpus:
        """The corpus of a folder that pgolf built."""
        return self._corpus(Manifest.open(folder / MANIFEST), folder, TOKENIZER)


@dataclass(frozen=True, kw_only=True)
class StdlibText(Data):
    """The running interpreter's own standard library: real text on any machine. `val_fraction` of its bytes judge."""

    val_fraction: float

    def __post_init__(self) -> None:
        super().__post_init__()
        need(0.001 <= self.val_fraction <= 0.5, "data.val_fraction", self.val_fraction, "between 0.001 and 0.5")
        need(
            512 <= self.vocab_size <= 16384, "data.vocab_size", self.vocab_size, "between 512 and 16384 for this corpus"
        )

    def prepare(self, show: Show) -> Corpus:
        from pgolf.data import stdlib

        return self._built(stdlib.prepare(self.cache_folder, self._plan(), show))

    def locate(self) -> Corpus | None:
        from pgolf.data import cached, stdlib

        folder = stdlib.locate(self.cache_folder, self._plan())
        return self._built(folder) if folder.exists() and cached.flaw(folder) is None else None

    def _plan(self) -> "Plan":
        from pgolf.data import stdlib

        return stdlib.plan(self.vocab_size, self.val_fraction)


@dataclass(frozen=True, kw_only=True)
class TextFiles(Data):
    """Documents of your own: `files`, of which `val_fraction` of the bytes judge, chosen by hash, or else all of `val_files`.

    `document_separator` cuts text files; `field` of JSON lines and parquet is the text; `errors` is strict, or replace for what
    is no text. `tokenizer` is a SentencePiece model; without one, `vocab_size` pieces of `model_type` are learned from the
    training documents, after `transform`. `byte_rule` says how bytes are counted: table, decoded or sidecar; null is sidecar
    where a transform changes the text, else table.
    """

    files: tuple[str, ...]
    val_files: tuple[str, ...] | None
    val_fraction: float
    document_separator: str | None
    field: str
    errors: str
    transform: str
    tokenizer: str | None
    model_type: str
    byte_rule: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        need(len(self.files) > 0, "data.files", list(self.files), "your files, as data.files=corpus/*.txt")
        need(0.0001 <= self.val_fraction <= 0.5, "data.val_fraction", self.val_fraction, "between 0.0001 and 0.5")
        for key, words in TEXT_WORDS.items():
            value = getattr(self, key)
            need(value in words, f"data.{key}", value, f"one of {', '.join(str(word or 'null') for word in words)}")
        if self.transform != "none" and self.counting != "sidecar":
            allowed = f"must be sidecar with data.transform={self.transform}: a table counts the transformed text"
            raise ConfigError("data.byte_rule", self.byte_rule, allowed)

    @property
    def counting(self) -> str:
        """The rule by which bytes are counted."""
        return self.byte_rule or ("table" if self.transform == "none" else "sidecar")

    def prepare(self, show: Show) -> Corpus:
        from pgolf.data import text

        return self._built(text.prepare(self, show))

    def content_sha256(self) -> str | None:
        from pgolf.data import text

        return text.content_sha256(self)

    def locate(self) -> Corpus | None:
        from pgolf.data import cached, text

        folder = text.locate(self)
        return self._built(folder) if folder.exists() and cached.flaw(folder) is None else None


@dataclass(frozen=True, kw_only=True)
class InFolder(Data, ABC):
    """A data set that lies in a `folder`, which pgolf built or others published."""

    folder: str

    @property
    def local(self) -> Path:
        """The folder of the shards."""
        return expanded(self.folder)

    @property
    def built_here(self) -> bool:
        """Whether the folder is one that pgolf built."""
        return (self.local / MANIFEST).exists()

    def content_sha256(self) -> str | None:
        return self.locate().manifest.text_sha256() if self.built_here else None


@dataclass(frozen=True, kw_only=True)
class PublishedText(InFolder):
    """Shards that others published: `folder` holds fineweb_train_*.bin and fineweb_val_*.bin, `tokenizer` lies in it.

    `python -m pgolf.data <option>` fetches them from the `dataset` of a `repository` under its folder `root`, with
    `train_shards` and `val_shards` files. Text that went through a `transform` has its bytes counted by files `sidecar`_*.bin.
    The whole validation split scores one of `scored_tokens`, of as many `scored_bytes` (0: not known; null: neither is checked).
    At most `most_shared` training documents may be validation documents too. A folder that pgolf built is taken as it is.
    """

    tokenizer: str
    repository: str
    root: str
    dataset: str
    remote_tokenizer: str
    sidecar: str | None = added(None)
    remote_sidecar: str | None = added(None)
    transform: str = added("none")
    train_shards: int
    val_shards: int
    scored_tokens: tuple[int, ...] | None
    scored_bytes: tuple[int, ...] | None = added(None)
    most_shared: int = added(500)

    def __post_init__(self) -> None:
        super().__post_init__()
        need(self.train_shards >= 1, "data.train_shards", self.train_shards, "at least 1")
        need(self.val_shards >= 1, "data.val_shards", self.val_shards, "at least 1")
        need(self.most_shared >= 0, "data.most_shared", self.most_shared, "at least 0")
        counted = self.transform == "none" or self.sidecar is not None
        allowed = f"the name of the files that count bytes: data.transform={self.transform} gives no text back to count"
        need(counted, "data.sidecar", self.sidecar, allowed)
        as_many = len(self.scored_bytes or ()) == len(self.scored_tokens or ())
        need(
            as_many or not self.scored_tokens,
            "data.scored_bytes",
            self.scored_bytes,
            "one for each of data.scored_tokens",
        )

    def corpus_of(self, manifest: Manifest) -> Corpus:
        """The corpus that a manifest of that folder describes."""
        return self._corpus(manifest, self.local, self.tokenizer)

    def prepare(self, show: Show) -> Corpus:
        from pgolf.data import published

        if self.built_here:
            published.opened(self.local, self.vocab_size, show)
            return self._built(self.local)
        return self.corpus_of(published.prepare(self, show))

    def locate(self) -> Corpus | None:
        from pgolf.data import published

        if self.built_here:
            return self._built(self.local)
        manifest = published.by_headers(self)
        return self.corpus_of(manifest) if manifest else None

    def require(self) -> Corpus:
        from pgolf.data import published

        if not self.built_here:
            published.require(self)
        return self.locate()


@dataclass(frozen=True, kw_only=True)
class BuiltText(InFolder):
    """A `folder` that `python -m pgolf.data build` made, used as its manifest states it."""

    def prepare(self, show: Show) -> Corpus:
        from pgolf.data import published

        published.opened(self.local, self.vocab_size, show)
        return self._built(self.local)

    def locate(self) -> Corpus | None:
        return self._built(self.local) if self.built_here else None

    def require(self) -> Corpus:
        from pgolf.data.tokenizer import check_tokenizer

        if not self.built_here:
            allowed = "must be a folder that `python -m pgolf.data build` made"
            raise ConfigError("data.folder", self.folder, allowed)
        check_tokenizer(self.local / TOKENIZER, self.vocab_size)
        return self.locate()
