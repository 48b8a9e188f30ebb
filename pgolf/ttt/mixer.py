"""A mixture of three experts, each a full distribution: the network, counts of tokens, and counts of pairs of tokens.

The counts and the mixing weights change between chunks only, from committed text. A convex mixture of distributions is a
distribution, so nothing has to be normalised afterwards and nothing can depend on the token that came."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pgolf.files.receipts import Receipt
from pgolf.machine.share import share

if TYPE_CHECKING:
    from pgolf.eval.learner import Learner
    from pgolf.eval.text import CommittedText
    from pgolf.ttt.parts import Hedge
    from pgolf.ttt.score_first import ScoreFirstLearner

EXPERTS = ("neural", "unigram", "bigram")


class Mixing(ABC):
    """What a mixer knows while a text is scored; it changes in `learn` only, equally on all ranks."""

    def compile(self) -> None:
        """Make ready for `mixed` to be part of a graph."""
        return None

    @abstractmethod
    def mixed(self, log_p_BSV: Tensor, x_BT: Tensor, passed_B: np.ndarray | int = 0) -> Tensor:
        """The learner's distributions of the last S positions and others as one, ln p (B, S, V); `x_BT` is what was read. The
        first `passed_B` of a row's S positions are not scored: their targets are committed."""

    @abstractmethod
    def learn(self, learner: "Learner", text: "CommittedText", chunk: int) -> None:
        """From `chunk`, which is committed; `learner` has not learnt from it yet."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """All that `mixed` depends on besides what it is given, or a digest of it."""

    @abstractmethod
    def receipt(self) -> Receipt:
        """Proof that it acted."""


class HedgeMixer(Mixing):
    """The experts' counts and log weights on one device; equal on all ranks, since all see the same committed text."""

    def __init__(self, spec: "Hedge", vocabulary: int, device: torch.device):
        self.spec, V = spec, vocabulary
        self.pairs_VV = torch.zeros(V, V, device=device)
        other = (1 - spec.neural_weight) / 2
        self.log_w = torch.tensor([spec.neural_weight, other, other], device=device).log()
        self.start = self.log_w.clone()

    def mixed(self, log_p_BSV: Tensor, x_BT: Tensor, passed_B: np.ndarray | int = 0) -> Tensor:
        """ln Σ_i w_i p_i for every token, (B, S, V)."""
        unigram_V, bigram_BSV = self._counted(x_BT[:, -log_p_BSV.shape[1] :])
        w = self.log_w
        return torch.logaddexp(torch.logaddexp(w[0] + log_p_BSV, w[1] + unigram_V), w[2] + bigram_BSV)

    @torch.no_grad()
    def learn(self, learner: "ScoreFirstLearner", text: "CommittedText", chunk: int) -> None:
        """The experts are compared on the chunk as they scored it, before any of them learns from it."""
        world, T, micro = learner.world, learner.spec.sequence_length, learner.spec.micro_sequences
        x_NT, y_NT = text.sequences(chunk * learner.plan.chunk, learner.plan.chunk // T, T)
        losses = torch.zeros(3, dtype=torch.float64, device=world.device)
        mine, end = share(0, len(x_NT), world.rank, world.size)
        for at in range(mine, end, micro):
            x_BT, y_BT = (t[at : min(at + micro, end)] for t in (x_NT, y_NT))
            neural_BT = learner.network(x_BT, T).gather(-1, y_BT[..., None]).squeeze(-1)
            losses += self.losses(neural_BT.flatten(), x_BT.flatten(), y_BT.flatten())
        world.sum_(losses)
        self.reweigh(losses, x_NT.flatten(), y_NT.flatten())

    def _counted(self, before_BS: Tensor) -> tuple[Tensor, Tensor]:
        unigram_V = unigram(self.pairs_VV.sum(0), self.spec.unigram_prior)
        return unigram_V.log(), bigram(self.pairs_VV[before_BS], unigram_V, self.spec.bigram_prior).log()

    def losses(self, neural_N: Tensor, before_N: Tensor, target_N: Tensor) -> Tensor:
        """Σ nats of each expert on targets whose network scores (ln p) are `neural_N`, (3,) float64."""
        unigram_V, bigram_NV = self._counted(before_N)
        experts = [neural_N, unigram_V[target_N], bigram_NV.gather(-1, target_N[:, None]).squeeze(-1)]
        return -torch.stack([t.double().sum() for t in experts])

    def reweigh(self, losses: Tensor, before_N: Tensor, target_N: Tensor) -> None:
        """One chunk: weights by the experts' mean nats on it (Hedge, Freund & Schapire 1997), then its pairs are counted."""
        self.log_w.copy_(hedge(self.log_w, (losses / len(target_N)).float(), self.spec.rate))
        one = torch.ones((), device=self.pairs_VV.device)
        self.pairs_VV.index_put_((before_N, target_N), one, accumulate=True)

    def state(self) -> dict[str, Tensor]:
        """All that its mixture depends on."""
        return {"mixer.pairs": self.pairs_VV, "mixer.log_w": self.log_w}

    def receipt(self) -> Receipt:
        """How far the log weights moved."""
        weights = ", ".join(f"{name} {w:.4f}" for name, w in zip(EXPERTS, self.log_w.exp().tolist(), strict=True))
        moved = (self.log_w - self.start).abs().max().item()
        return Receipt("ttt.mixer", f"log weights moved (largest); now {weights}", moved, moved > 0)


def unigram(counts_V: Tensor, prior: float) -> Tensor:
    """p(v) = (n_v + prior) / (n + prior · V). Counts 3, 1 with prior 1 give 4/6, 2/6."""
    return (counts_V + prior) / (counts_V.sum() + prior * len(counts_V))


def bigram(counts_NV: Tensor, unigram_V: Tensor, prior: float) -> Tensor:
    """p(v | u) = (n_uv + prior · p(v)) / (n_u + prior): counts where there are some, the unigram where there are none."""
    return (counts_NV + prior * unigram_V) / (counts_NV.sum(-1, keepdim=True) + prior)


def hedge(log_w: Tensor, losses: Tensor, rate: float) -> Tensor:
    """w_i ← w_i exp(−rate · loss_i) / Σ. Weights ½, ½, losses 0, ln 2, rate 1 give 2/3, 1/3; in logarithms."""
    return (log_w - rate * losses).log_softmax(-1)
