"""What the ledger asks of a learner: score chunks, adapt to committed text, and show all state that can change."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pgolf.files.receipts import Receipt

if TYPE_CHECKING:
    from pgolf.eval.ledger import ChunkScorer
    from pgolf.eval.text import CommittedText
    from pgolf.model.transformer import Transformer


Shape = tuple[int, int, int]  # of a batch: rows, length, and how many last positions count


class Learner(ABC):
    """`score` may not change anything that `state` shows; `adapt` may, and reads nothing but committed text."""

    model: "Transformer"
    whole = True  # whether scoring is one graph, without a look at the host

    def score(self, scorer: "ChunkScorer") -> None:
        """Score every batch of the chunk, each once."""
        with torch.no_grad():
            for batch, x_BT, y_BT in scorer.batches():
                scorer.record_nll(batch, self.nll(x_BT, y_BT, batch.last))

    def nll(self, x_BT: Tensor, y_BT: Tensor, last: int) -> Tensor:
        """Nats of the last positions' targets, (B, last) float32: looked up in distributions made without them."""
        log_p_BSV = self.log_p(x_BT, last)
        return -log_p_BSV.gather(-1, y_BT[:, -last:, None]).squeeze(-1)

    def loss(self, x_BT: Tensor, y_BT: Tensor, last: int) -> Tensor:
        """Nats of the last positions under the model that learns, (B, last), with gradients."""
        return self.model.nll(x_BT, y_BT, last=last)

    def compile(self, rows: int, one_shape: bool) -> None:
        """Compile scoring and learning, each as one graph where it is `whole`. Parameters are inputs of the graphs, so
        learning in place needs no new ones; where batches have `one_shape`, shorter ones are filled up to `rows` windows, else a
        graph is for any shape."""
        loss, nll = (torch.compile(f, dynamic=False, fullgraph=self.whole) for f in (self.loss, self.nll))
        self.loss, self.nll = (loss, filled(nll, rows)) if one_shape else (any_shape(loss), any_shape(nll))

    @abstractmethod
    def log_p(self, x_BT: Tensor, last: int) -> Tensor:
        """ln of the whole distribution at each of the last positions, (B, last, V) float32. It changes nothing."""

    @abstractmethod
    def adapt(self, text: "CommittedText", chunk: int) -> float:
        """Learn from `chunk`; how far (L2) the parameters moved."""

    @abstractmethod
    def shapes(self) -> Iterable[Shape]:
        """Of the batches that `adapt` will train on."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All that scores depend on besides the text."""

    @abstractmethod
    def receipts(self) -> tuple[Receipt, ...]:
        """Proof that what is switched on acted."""


def filled(nll: Callable[..., Tensor], rows: int) -> Callable[..., Tensor]:
    """`nll` for batches of one window or of `rows`: others are filled with their last window, whose scores are dropped. All are
    copied: strides, too, make graphs."""

    def scored(x_BT: Tensor, y_BT: Tensor, last: int) -> Tensor:
        n = x_BT.shape[0]
        missing = 0 if n == 1 else rows - n
        x_BT, y_BT = (torch.cat([t, t[-1:].expand(missing, -1)]) for t in (x_BT, y_BT))
        return nll(x_BT, y_BT, last)[:n]

    return scored


def any_shape(nll: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`nll`, compiled for any number of rows and any length from the first batch on. One row is a graph of its own, and so is
    a window of little more than the scored positions, of which the last block leaves nothing out."""

    def scored(*given: Tensor | int) -> Tensor:
        for t in given[:-1]:
            torch._dynamo.maybe_mark_dynamic(t, [0, 1])
        return nll(*given)

    return scored


class Fixed(Learner):
    """The model as it came: a fixed submission."""

    def __init__(self, model: "Transformer"):
        self.model = model

    def log_p(self, x_BT: Tensor, last: int) -> Tensor:
        return self.model.logits(x_BT, last=last).log_softmax(-1)

    def adapt(self, text: "CommittedText", chunk: int) -> float:
        return 0.0

    def shapes(self) -> tuple[Shape, ...]:
        return ()

    def state(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def receipts(self) -> tuple[Receipt, ...]:
        return ()
