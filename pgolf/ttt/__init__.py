"""The ttt group: what a model may learn from the validation text, chunk by chunk, once the text has been scored.

Every option but one is legal by construction: the ledger of `pgolf.eval` scores a chunk first and gives a learner committed
tokens only. The exception, `PrequantAdamW`, trains on validation text before the artifact is sealed; it is for study only.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pgolf.errors import need
from pgolf.ttt.parts import (
    SGD,
    AdamW,
    Descent,
    EntropyTemperature,
    Everything,
    FixedTemperature,
    GradientScale,
    Hedge,
    LastBlocks,
    Mixer,
    Queries,
    Temperature,
    Trained,
)

if TYPE_CHECKING:
    from pgolf.data.corpus import ValidationText
    from pgolf.eval import Eval
    from pgolf.eval.learner import Learner
    from pgolf.eval.text import Outline
    from pgolf.eval.windows import Plan
    from pgolf.machine.world import World
    from pgolf.model import Model
    from pgolf.model.transformer import Transformer
    from pgolf.ttt.prequant import ValidationFinetuning

__all__ = [
    "SGD",
    "TTT",
    "AdamW",
    "Descent",
    "EntropyTemperature",
    "Everything",
    "FixedTemperature",
    "GradientScale",
    "Hedge",
    "LastBlocks",
    "Legal",
    "LoraScoreFirst",
    "Mixer",
    "NoTTT",
    "PrequantAdamW",
    "Queries",
    "ScoreFirst",
    "Temperature",
    "Trained",
]


@dataclass(frozen=True, kw_only=True)
class TTT(ABC):
    """What is learned during evaluation: `build` makes the learner that scores and adapts, `chunk_tokens` targets at a time."""

    chunk_tokens: int

    def __post_init__(self) -> None:
        need(self.chunk_tokens >= 1, "ttt.chunk_tokens", self.chunk_tokens, "at least 1")

    def check(self, evaluation: "Eval") -> None:
        """Refuse windows that this option cannot work with."""
        return None

    def check_model(self, model: "Model") -> None:
        """Refuse a model in which nothing is found of what is to learn."""
        return None

    def check_text(self, targets: int) -> None:
        """Refuse a text of `targets` targets that this option cannot work on."""
        return None

    @abstractmethod
    def plan(self, evaluation: "Eval", text: "Outline") -> "Plan":
        """In what order the text is scored."""

    @abstractmethod
    def build(self, model: "Transformer", world: "World", plan: "Plan") -> "Learner":
        """The learner; it owns `model` from here on and may change it."""

    @abstractmethod
    def shortened(self, tokens: int) -> "TTT":
        """The same option with chunks of about `tokens`, so that an audit can watch several of them."""

    @property
    @abstractmethod
    def isolated(self) -> bool:
        """Whether it claims that no document's scores depend on another document."""

    @property
    @abstractmethod
    def legal(self) -> bool:
        """Whether validation text reaches nobody before its score is committed; if not, the option is for study only."""

    @abstractmethod
    def finetuning(self, text: "ValidationText") -> "ValidationFinetuning | None":
        """What the training side is given of the validation text: nothing, unless the option is for study only."""


@dataclass(frozen=True, kw_only=True)
class Legal(TTT, ABC):
    """An option under which validation text reaches nobody before its score is committed."""

    legal = True

    def finetuning(self, text: "ValidationText") -> None:
        return None


@dataclass(frozen=True, kw_only=True)
class NoTTT(Legal):
    """No adaptation. `chunk_tokens` is how often the running score is committed and shown."""

    isolated = False

    def plan(self, evaluation: "Eval", text: "Outline") -> "Plan":
        return evaluation.plan(text.targets, self.chunk_tokens)

    def build(self, model: "Transformer", world: "World", plan: "Plan") -> "Learner":
        from pgolf.eval.learner import Fixed

        return Fixed(model)

    def shortened(self, tokens: int) -> "NoTTT":
        return replace(self, chunk_tokens=min(tokens, self.chunk_tokens))


@dataclass(frozen=True, kw_only=True)
class ScoreFirst(Legal):
    """Score a chunk, then train on it for `epochs`, in steps of `batch_sequences` sequences (all ranks together) of
    `sequence_length`, `micro_sequences` at a time. The rate falls by a cosine over chunks, and within one to
    `within_chunk_floor` of itself (null: constant). Scores come from a Polyak average of decay `polyak` (null: none)."""

    optimizer: Descent
    trained: Trained
    epochs: int
    batch_sequences: int
    micro_sequences: int
    sequence_length: int
    clip: float
    within_chunk_floor: float | None
    gradient_scale: GradientScale
    byte_weighted: bool
    polyak: float | None
    temperature: Temperature | None
    mixer: Mixer | None
    isolated = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "batch_sequences", "micro_sequences", "sequence_length"):
            need(getattr(self, name) >= 1, f"ttt.{name}", getattr(self, name), "at least 1")
        whole = f"a multiple of ttt.sequence_length ({self.sequence_length})"
        need(self.chunk_tokens % self.sequence_length == 0, "ttt.chunk_tokens", self.chunk_tokens, whole)
        need(self.clip > 0, "ttt.clip", self.clip, "above 0")
        floor, polyak = self.within_chunk_floor, self.polyak
        need(floor is None or 0 <= floor <= 1, "ttt.within_chunk_floor", floor, "null or between 0 and 1")
        need(polyak is None or 0 < polyak < 1, "ttt.polyak", polyak, "null or above 0 and below 1")

    def check_model(self, model: "Model") -> None:
        from pgolf.ttt.score_first import trained_names

        trained_names(self, model.outline())

    def check_text(self, targets: int) -> None:
        allowed = f"below the {targets:,} tokens to score: the last chunk is never trained on"
        need(self.chunk_tokens < targets, "ttt.chunk_tokens", self.chunk_tokens, allowed)

    def plan(self, evaluation: "Eval", text: "Outline") -> "Plan":
        self.check_text(text.targets)
        return evaluation.plan(text.targets, self.chunk_tokens)

    def build(self, model: "Transformer", world: "World", plan: "Plan") -> "Learner":
        from pgolf.ttt.score_first import ScoreFirstLearner

        return ScoreFirstLearner(self, model, world, plan)

    def shortened(self, tokens: int) -> "ScoreFirst":
        length = min(self.sequence_length, tokens)
        return replace(self, sequence_length=length, chunk_tokens=min(tokens // length * length, self.chunk_tokens))


@dataclass(frozen=True, kw_only=True)
class LoraScoreFirst(Legal):
    """Low-rank adapters (arXiv 2106.09685) of a document's own, trained on it `chunk_tokens` at a time once those are scored.

    `documents` of about equal length are worked on side by side, by all ranks together, each with fresh adapters of `rank`
    on every linear layer whose name ends with one of `layers`; their output is scaled by `alpha` / `rank`."""

    optimizer: Descent
    rank: int
    alpha: float
    layers: tuple[str, ...]
    documents: int
    epochs: int
    clip: float
    seed: int
    isolated = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rank", "documents", "epochs"):
            need(getattr(self, name) >= 1, f"ttt.{name}", getattr(self, name), "at least 1")
        named = bool(self.layers) and all(self.layers)
        need(named, "ttt.layers", list(self.layers), "at least one ending of a layer's name, none of them empty")
        need(self.alpha > 0, "ttt.alpha", self.alpha, "above 0")
        need(self.clip > 0, "ttt.clip", self.clip, "above 0")

    def check(self, evaluation: "Eval") -> None:
        need(
            self.chunk_tokens <= evaluation.context,
            "ttt.chunk_tokens",
            self.chunk_tokens,
            f"at most eval.context ({evaluation.context}): a chunk of a document is scored by one window",
        )

    def check_model(self, model: "Model") -> None:
        from pgolf.ttt.lora import adapted

        adapted(self, model.outline())

    def plan(self, evaluation: "Eval", text: "Outline") -> "Plan":
        from pgolf.ttt.documents import document_plan

        self.check(evaluation)
        return document_plan(text, evaluation.context, self.chunk_tokens, self.documents)

    def build(self, model: "Transformer", world: "World", plan: "Plan") -> "Learner":
        from pgolf.ttt.lora import LoraLearner

        return LoraLearner(self, model, world, plan)

    def shortened(self, tokens: int) -> "LoraScoreFirst":
        chunk = max(1, min(tokens // 4, self.chunk_tokens))
        return replace(self, chunk_tokens=chunk, documents=min(2, self.documents))


@dataclass(frozen=True, kw_only=True)
class PrequantAdamW(TTT):
    """AdamW on all validation tokens for `epochs` before quantising (PR 1852). Breaks C3: runs only under limits=study.

    The rate goes from `lr` to `final_lr` by a cosine over epochs; the evaluation afterwards adapts nothing."""

    epochs: int
    lr: float
    final_lr: float
    betas: tuple[float, ...]
    weight_decay: float
    batch_sequences: int
    micro_sequences: int
    sequence_length: int
    clip: float
    isolated = False
    legal = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "batch_sequences", "micro_sequences", "sequence_length"):
            need(getattr(self, name) >= 1, f"ttt.{name}", getattr(self, name), "at least 1")
        need(0 <= self.final_lr <= self.lr, "ttt.final_lr", self.final_lr, f"between 0 and ttt.lr ({self.lr})")
        need(self.clip > 0, "ttt.clip", self.clip, "above 0")
        self.descent()

    def descent(self) -> AdamW:
        """Its optimiser."""
        return AdamW(lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)

    def check_text(self, targets: int) -> None:
        allowed = f"at most the {targets:,} tokens of the validation text"
        need(self.sequence_length <= targets, "ttt.sequence_length", self.sequence_length, allowed)

    def plan(self, evaluation: "Eval", text: "Outline") -> "Plan":
        return evaluation.plan(text.targets, self.chunk_tokens)

    def build(self, model: "Transformer", world: "World", plan: "Plan") -> "Learner":
        from pgolf.eval.learner import Fixed

        return Fixed(model)

    def shortened(self, tokens: int) -> "PrequantAdamW":
        return replace(self, chunk_tokens=min(tokens, self.chunk_tokens))

    def finetuning(self, text: "ValidationText") -> "ValidationFinetuning":
        from pgolf.ttt.prequant import ValidationFinetuning

        return ValidationFinetuning(self, text)
