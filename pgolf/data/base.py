"""What every data set has: a corpus in two halves that share no document, and how batches are drawn from it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pgolf.data.corpus import Corpus
from pgolf.data.loader import Loader
from pgolf.data.manifest import MANIFEST, TOKENIZER, Manifest
from pgolf.errors import ConfigError, need
from pgolf.files.home import expanded

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
