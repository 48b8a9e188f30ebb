"""The ttt group: what a model may learn from the validation text, chunk by chunk, once the text has been scored.

Every option but one is legal by construction: the ledger of `pgolf.eval` scores a chunk first and gives a learner committed
tokens only. The exception, `PrequantAdamW`, trains on validation text before the artifact is sealed; it is for study only.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pgolf.errors import need
from pgolf.ttt.base import TTT, Legal
from pgolf.ttt.by_document import GlobalSGD, LoraScoreFirst, ParallelLora
from pgolf.ttt.parts import (
    SGD,
    AdamW,
    AdamWEps,
    EntropyTemperature,
    Everything,
    FixedTemperature,
    GradientScale,
    Hedge,
    LastBlocks,
    Mixer,
    Ngram,
    ParameterSelector,
    Queries,
    Temperature,
    TTTOptimizer,
    need_moments,
)

if TYPE_CHECKING:
    from pgolf.data.corpus import ValidationText
    from pgolf.eval import Eval
    from pgolf.eval.learner import Learner
    from pgolf.eval.outline import Outline
    from pgolf.eval.windows import Plan
    from pgolf.machine.world import World
    from pgolf.model import Model
    from pgolf.model.transformer import Transformer
    from pgolf.ttt.prequant import ValidationFinetuning

__all__ = [
    "SGD",
    "TTT",
    "AdamW",
    "AdamWEps",
    "EntropyTemperature",
    "Everything",
    "FixedTemperature",
    "GlobalSGD",
    "GradientScale",
    "Hedge",
    "LastBlocks",
    "Legal",
    "LoraScoreFirst",
    "Mixer",
    "Ngram",
    "NoTTT",
    "ParallelLora",
    "ParameterSelector",
    "PrequantAdamW",
    "Queries",
    "ScoreFirst",
    "TTTOptimizer",
    "Temperature",
]


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

    optimizer: TTTOptimizer
    trained: ParameterSelector
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

        self.optimizer.check_build()
        trained_names(self, model.outline())

    def check_text(self, targets: int) -> None:
        allowed = f"below the {targets:,} tokens to score: the last chunk is never trained on"
        need(self.chunk_tokens < targets, "ttt.chunk_tokens", self.chunk_tokens, allowed)
        if self.mixer is not None:
            self.mixer.check_text(targets)

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
        need(0 < self.lr <= 1, "ttt.lr", self.lr, "above 0 and at most 1 (ttt=none switches training off)")
        need(self.clip > 0, "ttt.clip", self.clip, "above 0")
        need_moments("ttt", self.betas, self.weight_decay)

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
