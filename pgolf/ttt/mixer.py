"""A mixture of three experts, each a full distribution: the network, counts of tokens, and counts of pairs of tokens.

The counts and the mixing weights change between chunks only, from committed text. A convex mixture of distributions is a
distribution, so nothing has to be normalised afterwards and nothing can depend on the token that came."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pgolf.files.receipts import Receipt

if TYPE_CHECKING:
    from pgolf.ttt.parts import Hedge

EXPERTS = ("neural", "unigram", "bigram")


class HedgeMixer:
    """The experts' counts and log weights on one device; equal on all ranks, since all see the same committed text."""

    def __init__(self, spec: "Hedge", vocabulary: int, device: torch.device):
        self.spec, V = spec, vocabulary
        self.pairs_VV = torch.zeros(V, V, device=device)
        other = (1 - spec.neural_weight) / 2
        self.log_w = torch.tensor([spec.neural_weight, other, other], device=device).log()
        self.start = self.log_w.clone()

    def mixed(self, neural_BSV: Tensor, before_BS: Tensor) -> Tensor:
        """ln Σ_i w_i p_i for every token, (B, S, V); `before_BS` is the token before each target."""
        unigram_V, bigram_BSV = self._counted(before_BS)
        w = self.log_w
        return torch.logaddexp(torch.logaddexp(w[0] + neural_BSV, w[1] + unigram_V), w[2] + bigram_BSV)

    def _counted(self, before_BS: Tensor) -> tuple[Tensor, Tensor]:
        unigram_V = unigram(self.pairs_VV.sum(0), self.spec.unigram_prior)
        return unigram_V.log(), bigram(self.pairs_VV[before_BS], unigram_V, self.spec.bigram_prior).log()

    def losses(self, neural_N: Tensor, before_N: Tensor, target_N: Tensor) -> Tensor:
        """Σ nats of each expert on targets whose network scores (ln p) are `neural_N`, (3,) float64."""
        unigram_V, bigram_NV = self._counted(before_N)
        experts = [neural_N, unigram_V[target_N], bigram_NV.gather(-1, target_N[:, None]).squeeze(-1)]
        return -torch.stack([t.double().sum() for t in experts])

    def learn(self, losses: Tensor, before_N: Tensor, target_N: Tensor) -> None:
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
