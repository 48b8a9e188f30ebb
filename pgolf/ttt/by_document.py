"""Options that learn from one document at a time, through low-rank adapters (arXiv 2106.09685) of its own."""

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pgolf.errors import need
from pgolf.files.frozen import added
from pgolf.ttt.base import Legal
from pgolf.ttt.parts import Hedge, Mixer, TTTOptimizer

if TYPE_CHECKING:
    from pgolf.eval import Eval
    from pgolf.eval.learner import Learner
    from pgolf.eval.outline import Outline
    from pgolf.eval.windows import Plan
    from pgolf.machine.world import World
    from pgolf.model import Model
    from pgolf.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class ByDocument(Legal, ABC):
    """`documents` of about equal length are worked on side by side, by all ranks together, `chunk_tokens` of each at a time. Each
    has adapters of `rank`, whose output is scaled by `alpha` / `rank`; `seed` is that of their first weights."""

    optimizer: TTTOptimizer
    rank: int
    alpha: float
    documents: int
    seed: int
    mixer: Mixer | None = added(None)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rank", "documents"):
            need(getattr(self, name) >= 1, f"ttt.{name}", getattr(self, name), "at least 1")
        need(self.alpha > 0, "ttt.alpha", self.alpha, "above 0")
        whole = "null or ngram: hedge weighs its experts on whole sequences of the stream (ttt=adamw_score_first)"
        need(not isinstance(self.mixer, Hedge), "ttt.mixer", type(self.mixer).__name__, whole)

    @property
    def isolated(self) -> bool:
        return self.mixer is None

    def check(self, evaluation: "Eval") -> None:
        need(
            self.chunk_tokens <= evaluation.context,
            "ttt.chunk_tokens",
            self.chunk_tokens,
            f"at most eval.context ({evaluation.context}): a chunk of a document is scored by one window",
        )

    def check_model(self, model: "Model") -> None:
        self.optimizer.check_build()

    def check_text(self, targets: int) -> None:
        if self.mixer is not None:
            self.mixer.check_text(targets)

    def check_documents(self, text: "Callable[[], Outline]") -> None:
        longest = int(text().targets_in.max())
        allowed = f"below the {longest:,} tokens of the longest document: nothing would be learnt from"
        need(self.chunk_tokens < longest, "ttt.chunk_tokens", self.chunk_tokens, allowed)
        if self.mixer is not None:
            self.mixer.check_text(longest)


@dataclass(frozen=True, kw_only=True)
class LoraScoreFirst(ByDocument):
    """Fresh adapters for each document, on every linear layer whose name ends with one of `layers`, one set for all visits of a
    looped block; `epochs` steps on each chunk of it once that is scored."""

    layers: tuple[str, ...]
    epochs: int
    clip: float

    def __post_init__(self) -> None:
        super().__post_init__()
        need(self.epochs >= 1, "ttt.epochs", self.epochs, "at least 1")
        named = bool(self.layers) and all(self.layers)
        need(named, "ttt.layers", list(self.layers), "at least one ending of a layer's name, none of them empty")
        need(self.clip > 0, "ttt.clip", self.clip, "above 0")

    def check_model(self, model: "Model") -> None:
        from pgolf.ttt.lora import adapted

        super().check_model(model)
        adapted(self, model.outline())

    def plan(self, evaluation: "Eval", text: "Outline") -> "Plan":
        from pgolf.ttt.documents import document_plan

        self.check(evaluation)
        self.check_text(text.targets)
        return document_plan(text, evaluation.context, self.chunk_tokens, self.documents)

    def build(self, model: "Transformer", world: "World", plan: "Plan") -> "Learner":
        from pgolf.ttt.lora import LoraLearner

        return LoraLearner(self, model, world, plan)

    def shortened(self, tokens: int) -> "LoraScoreFirst":
        chunk = max(1, min(tokens // 4, self.chunk_tokens))
        return replace(self, chunk_tokens=chunk, documents=min(2, self.documents))


PLACES = ("q", "k", "v", "o", "mlp", "head")


@dataclass(frozen=True, kw_only=True)
class GlobalSGD:
    """Phases of SGD on the whole model: each begins at the first end of a group by which so many documents of `after` are scored,
    and reads that many of them, the shortest first, `chunk_tokens` a step; the rate falls by a cosine from `lr` to 0.

    Worth .0002 bits per byte for 88 s at the size of a record (pull request 2140)."""

    after: tuple[int, ...]
    lr: float
    momentum: float
    clip: float
    chunk_tokens: int

    def __post_init__(self) -> None:
        rising = bool(self.after) and list(self.after) == sorted({*self.after}) and self.after[0] >= 1
        allowed = "rising numbers of documents, at least one (ttt.phases=null switches the phases off)"
        need(rising, "ttt.phases.after", list(self.after), allowed)
        need(0 < self.lr <= 1, "ttt.phases.lr", self.lr, "above 0 and at most 1")
        need(0 <= self.momentum < 1, "ttt.phases.momentum", self.momentum, "at least 0 and below 1")
        need(self.clip > 0, "ttt.phases.clip", self.clip, "above 0")
        need(self.chunk_tokens >= 1, "ttt.phases.chunk_tokens", self.chunk_tokens, "at least 1")


@dataclass(frozen=True, kw_only=True)
class ParallelLora(ByDocument):
    """Adapters in the record stack's form (pull request 1855): beside `places` of every visit of a block, one AdamW step on each
    chunk from the forward that scored it.

    Groups whose longest document has at most `short_tokens[i]` tokens, its closing one included, are worked on in chunks of
    `short_chunks[i]`, the first such row. With `warm`, an adapter's A goes on to the next document of its slot; then, and with
    `phases` or a mixer, documents are not isolated."""

    places: tuple[str, ...]
    short_tokens: tuple[int, ...]
    short_chunks: tuple[int, ...]
    warm: bool
    phases: GlobalSGD | None

    def __post_init__(self) -> None:
        super().__post_init__()
        named = bool(self.places) and set(self.places) <= {*PLACES} and len({*self.places}) == len(self.places)
        need(named, "ttt.places", list(self.places), f"at least one of {', '.join(PLACES)}, each once")
        rising = list(self.short_tokens) == sorted({*self.short_tokens})
        need(rising, "ttt.short_tokens", list(self.short_tokens), "rising numbers, or empty")
        each = len(self.short_chunks) == len(self.short_tokens) and all(c >= 1 for c in self.short_chunks)
        allowed = f"one of at least 1 for each of ttt.short_tokens ({len(self.short_tokens)})"
        need(each, "ttt.short_chunks", list(self.short_chunks), allowed)

    @property
    def isolated(self) -> bool:
        return self.mixer is None and self.phases is None and not self.warm

    def check(self, evaluation: "Eval") -> None:
        super().check(evaluation)
        fits = max(self.short_chunks, default=0) <= evaluation.context
        need(fits, "ttt.short_chunks", list(self.short_chunks), f"at most eval.context ({evaluation.context})")
        if self.phases is not None:
            allowed = f"at least eval.context ({evaluation.context}), the length of its sequences"
            need(
                self.phases.chunk_tokens >= evaluation.context,
                "ttt.phases.chunk_tokens",
                self.phases.chunk_tokens,
                allowed,
            )

    def check_documents(self, text: "Callable[[], Outline]") -> None:
        super().check_documents(text)
        count = len(text().targets_in)
        whole = count // self.documents
        allowed = f"false: of {count:,} documents, {whole} whole group of ttt.documents={self.documents}, after which none comes"
        need(whole > 1 or not self.warm, "ttt.warm", self.warm, allowed)
        if self.phases is not None:
            before = max(0, count - self.documents)
            allowed = (
                f"numbers up to {before:,}, of {count:,} documents those before the last ttt.documents={self.documents}"
            )
            need(self.phases.after[-1] <= before, "ttt.phases.after", list(self.phases.after), allowed)

    def plan(self, evaluation: "Eval", text: "Outline") -> "Plan":
        from pgolf.ttt.documents import document_plan

        self.check(evaluation)
        self.check_text(text.targets)
        short = tuple(zip(self.short_tokens, self.short_chunks, strict=True))
        return document_plan(text, evaluation.context, self.chunk_tokens, self.documents, short)

    def build(self, model: "Transformer", world: "World", plan: "Plan") -> "Learner":
        from pgolf.ttt.parallel import ParallelLoraLearner

        return ParallelLoraLearner(self, model, world, plan)

    def shortened(self, tokens: int) -> "ParallelLora":
        """Also with the first phase after the first group."""
        chunk = max(1, min(tokens // 4, self.chunk_tokens))
        phases = self.phases and replace(self.phases, after=(1,), chunk_tokens=tokens)
        short = dict(
            short_tokens=self.short_tokens[:1], short_chunks=(max(1, chunk // 2),) * len(self.short_tokens[:1])
        )
        return replace(self, chunk_tokens=chunk, documents=min(2, self.documents), phases=phases, **short)
