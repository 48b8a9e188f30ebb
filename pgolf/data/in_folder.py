"""Data sets that lie in a folder: that of `python -m pgolf.data build`, or shards that others published."""

from abc import ABC
from dataclasses import dataclass
from pathlib import Path

from pgolf.data.base import Data, Show
from pgolf.data.corpus import Corpus
from pgolf.data.manifest import MANIFEST, TOKENIZER, Manifest
from pgolf.errors import ConfigError, need
from pgolf.files.frozen import added
from pgolf.files.home import expanded


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
