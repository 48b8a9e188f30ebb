"""What every option of test-time training has: an order in which the text is scored, and a learner."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf.errors import need

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

    def check_documents(self, text: "Callable[[], Outline]") -> None:
        """Refuse a text whose documents leave a part of this option nothing to do; `text` is asked for only where it matters."""
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
