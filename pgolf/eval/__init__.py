"""The eval group: how the validation text is cut into windows to be scored. Every target is scored once, whatever the cut."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pgolf.errors import need

if TYPE_CHECKING:
    from pgolf.eval.windows import SlidingPlan


@dataclass(frozen=True, kw_only=True)
class Eval(ABC):
    """Windows of `context` tokens, `batch_windows` of them at a time on each rank.

    A window that runs past the text is padded on the right, where causality hides it."""

    context: int
    batch_windows: int

    def __post_init__(self) -> None:
        need(self.context >= 2, "eval.context", self.context, "at least 2")
        need(self.batch_windows >= 1, "eval.batch_windows", self.batch_windows, "at least 1")

    def check_text(self, targets: int) -> None:
        """Refuse a validation text shorter than one window."""
        allowed = f"at most the {targets:,} tokens to score: the validation text is shorter than one window"
        need(self.context <= targets, "eval.context", self.context, allowed)

    @abstractmethod
    def plan(self, targets: int, chunk: int) -> "SlidingPlan":
        """The windows for `targets` targets, in chunks of `chunk`."""

    @abstractmethod
    def shortened(self, context: int) -> "Eval":
        """The same cut with windows of at most `context` tokens, for an audit."""


@dataclass(frozen=True, kw_only=True)
class Sliding(Eval):
    """A window every `stride` tokens, scoring its last `stride`: each token is seen with at least context - stride before it."""

    stride: int

    def __post_init__(self) -> None:
        super().__post_init__()
        need(
            1 <= self.stride <= self.context, "eval.stride", self.stride, f"between 1 and eval.context ({self.context})"
        )

    def plan(self, targets: int, chunk: int) -> "SlidingPlan":
        from pgolf.eval.windows import SlidingPlan

        return SlidingPlan(targets, self.context, self.stride, chunk)

    def shortened(self, context: int) -> "Sliding":
        context = min(context, self.context)
        return replace(self, context=context, stride=max(1, self.stride * context // self.context))


@dataclass(frozen=True, kw_only=True)
class Chunked(Eval):
    """Windows side by side: the cheapest evaluation, and the harshest, since a window's first tokens have no context."""

    def plan(self, targets: int, chunk: int) -> "SlidingPlan":
        from pgolf.eval.windows import SlidingPlan

        return SlidingPlan(targets, self.context, self.context, chunk)

    def shortened(self, context: int) -> "Chunked":
        return replace(self, context=min(context, self.context))
