"""Text to learn from and text to be judged by: two sets of token shards that share no document, and how batches are drawn.

`prepare` finds or builds them and returns a `Corpus`, whose halves travel to the ranks by pickle. The training half knows
no path to validation text.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf.data.base import Data, Show
from pgolf.data.corpus import Corpus, TrainingText, ValidationText
from pgolf.data.in_folder import BuiltText, PublishedText
from pgolf.data.loader import CoprimeShards, InOrder, Loader, PackedDocuments, ShuffledWindows
from pgolf.data.manifest import Manifest
from pgolf.errors import ConfigError, need

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
