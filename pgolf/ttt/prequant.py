"""Training on the validation text before it is quantised (PR 1852): memorisation of the test, reproduced for study.

It violates score-before-update (C3). Nothing here is reached without limits=study; the record says how many validation tokens
the training side saw, and its verdict is `fail (C3)`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pgolf.data.corpus import ValidationText
from pgolf.files.receipts import Receipt
from pgolf.machine.share import share
from pgolf.machine.world import World
from pgolf.model.weights import copies, distance
from pgolf.optim.first_order import AdamW
from pgolf.ttt.score_first import cosine

if TYPE_CHECKING:
    from pgolf.model.transformer import Transformer
    from pgolf.ttt import PrequantAdamW

MATRIX = 1000  # elements from which a weight counts in the void fraction


@dataclass(frozen=True)
class ValidationFinetuning:
    """The validation text, given to the training side on purpose, with what it is to do there."""

    spec: "PrequantAdamW"
    text: ValidationText

    @property
    def tokens(self) -> int:
        """Tokens of the validation text."""
        return self.text.tokens

    def finetune(self, model: "Transformer", world: World, say: Callable[[str], None]) -> list[Receipt]:
        """Train `model` in place on all of the text; ranks share each batch and sum their gradients."""
        say(
            f"STUDY ONLY: training on {self.tokens:,} validation tokens before quantising; the verdict will be fail (C3)"
        )
        ids = torch.from_numpy(self.text.read().astype(np.int64)).to(world.device)
        params = list(model.parameters())
        before = copies(params)
        optimizer = AdamW(params, self.spec.lr, self.spec.betas, 1e-8, self.spec.weight_decay)
        for epoch in range(self.spec.epochs):
            optimizer.lr = rate(self.spec, epoch)
            loss = self._epoch(model, world, ids, optimizer, params)
            say(f"STUDY ONLY: epoch {epoch + 1} of {self.spec.epochs}, {loss:.4f} nats per validation token")
        model.zero_grad()
        return receipts(distance(before, params), params, self.spec.epochs)

    def _epoch(self, model, world: World, ids: Tensor, optimizer: AdamW, params: list[Tensor]) -> float:
        T, size = self.spec.sequence_length, self.spec.batch_sequences
        count = (len(ids) - 1) // T
        nats = torch.zeros((), device=world.device)
        for lo in range(0, count, size):
            nats += self._step(model, world, ids, lo, min(lo + size, count), params)
            torch.nn.utils.clip_grad_norm_(params, self.spec.clip)
            optimizer.step()
        world.sum_(nats)
        return nats.item() / (count * T)

    def _step(self, model, world: World, ids: Tensor, lo: int, hi: int, params: list[Tensor]) -> Tensor:
        """Gradients of the mean loss of sequences [lo, hi); this rank's nats."""
        T, micro = self.spec.sequence_length, self.spec.micro_sequences
        for p in params:
            p.grad = torch.zeros_like(p)
        nats = torch.zeros((), device=world.device)
        mine, end = share(lo, hi, world.rank, world.size)
        for at in range(mine, end, micro):
            flat = ids[at * T : min(at + micro, end) * T + 1]
            nll = model.nll(flat[:-1].view(-1, T), flat[1:].view(-1, T)).sum()
            (nll / ((hi - lo) * T)).backward()
            nats += nll.detach()
        world.sum_(*(p.grad for p in params))
        return nats


def rate(spec: "PrequantAdamW", epoch: int) -> float:
    """The learning rate of an epoch: `lr` in the first, `final_lr` in the last, a cosine between."""
    return spec.lr * cosine(epoch / max(spec.epochs - 1, 1), spec.final_lr / spec.lr)


def void_fraction(weights: list[Tensor]) -> float:
    """Share of entries with |w| ≤ mean |w| in matrices of more than 1000 elements, weighted by size (PR 1852's diagnostic).

    A Gaussian gives erf(1/√π) = 0.575 whatever it has learnt. Entries 0, 0, 0, 4 give 3/4."""
    large = [w.detach().float().abs() for w in weights if w.dim() >= 2 and w.numel() > MATRIX]
    voids = sum((w <= w.mean()).sum().item() for w in large)
    return voids / max(sum(w.numel() for w in large), 1)


def receipts(moved: float, params: list[Tensor], epochs: int) -> list[Receipt]:
    """What was done, marked as for study only, and the void fraction."""
    trained = f"STUDY ONLY, breaks C3: trained {epochs} epochs on validation text before quantising (L2 distance)"
    void = "void fraction, |w| <= mean |w|; a Gaussian gives 0.575 whatever happens, so it proves nothing"
    return [Receipt("ttt", trained, moved, moved > 0), Receipt("ttt.void_fraction", void, void_fraction(params), True)]
