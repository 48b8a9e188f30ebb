"""Options that learn from one document at a time, through low-rank adapters (arXiv 2106.09685) of its own."""

from abc import ABC
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pgolf.errors import need
from pgolf.files.frozen import added
from pgolf.ttt.base import Legal
from pgolf.ttt.parts import SGD, Descent, Hedge, Mixer

if TYPE_CHECKING:
    from pgolf.eval import Eval
    from pgolf.eval.learner import Learner
    from pgolf.eval.text import Outline
    from pgolf.eval.windows import Plan
    from pgolf.machine.world import World
    from pgolf.model import Model
    from pgolf.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class ByDocument(Legal, ABC):
    """`documents` of about equal length are worked on side by side, by all ranks together, `chunk_tokens` of each at a time. Each
    has adapters of `rank`, whose output is scaled by `alpha` / `rank`; `seed` is that of their first weights."""

    optimizer: Descent
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

    def check_text(self, targets: int) -> None:
        if self.mixer is not None:
            self.mixer.check_text(targets)


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
