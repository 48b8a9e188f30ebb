"""The parts of test-time training options: optimisers, choices of parameters, temperatures, mixers."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from pgolf.errors import need

if TYPE_CHECKING:
    import torch

    from pgolf.eval.windows import Plan
    from pgolf.optim.first_order import FirstOrder
    from pgolf.ttt.mixer import HedgeMixer, Mixing
    from pgolf.ttt.ngram import NgramTilt


class GradientScale(Enum):
    """Whether each tensor's gradient is scaled by its signal-to-noise ratio (a power of it), clipped to [0.3, 3]."""

    NONE = 0
    SNR = 1
    SNR_SQUARED = 2


@dataclass(frozen=True, kw_only=True)
class TTTOptimizer(ABC):
    """The optimiser of test-time training; its state lives from the first chunk to the last."""

    lr: float

    def __post_init__(self) -> None:
        need(0 < self.lr <= 1, "ttt.optimizer.lr", self.lr, "above 0 and at most 1 (ttt=none switches training off)")

    @abstractmethod
    def build(self, params: "list[torch.Tensor]") -> "FirstOrder":
        """The optimiser of `params`."""

    def check_build(self) -> None:
        """Refuse one that builds something else, such as an optimiser of torch's, whose rate is not set by `lr`."""
        import torch

        from pgolf.optim.first_order import FirstOrder

        made = self.build([torch.zeros(1)])
        allowed = f"one that builds a FirstOrder of pgolf.optim.first_order, not a {type(made).__name__}"
        need(isinstance(made, FirstOrder), "ttt.optimizer", type(self).__name__, allowed)


@dataclass(frozen=True, kw_only=True)
class AdamW(TTTOptimizer):
    """Adam with decoupled decay (arXiv 1711.05101), epsilon 1e-8."""

    betas: tuple[float, ...]
    weight_decay: float

    def __post_init__(self) -> None:
        super().__post_init__()
        need_moments("ttt.optimizer", self.betas, self.weight_decay)

    def build(self, params: "list[torch.Tensor]") -> "FirstOrder":
        from pgolf.optim import first_order

        return first_order.AdamW(params, self.lr, self.betas, 1e-8, self.weight_decay)


def need_moments(key: str, betas: tuple[float, ...], weight_decay: float) -> None:
    """Raise ConfigError for numbers of AdamW's, under `key`, that cannot be."""
    inside = len(betas) == 2 and all(0 <= b < 1 for b in betas)
    need(inside, f"{key}.betas", list(betas), "two numbers, each at least 0 and below 1")
    need(weight_decay >= 0, f"{key}.weight_decay", weight_decay, "at least 0")


@dataclass(frozen=True, kw_only=True)
class AdamWEps(TTTOptimizer):
    """AdamW with an epsilon to choose, as small as gradients of single documents want it (1e-10 in pull request 1855)."""

    betas: tuple[float, ...]
    weight_decay: float
    eps: float

    def __post_init__(self) -> None:
        super().__post_init__()
        need_moments("ttt.optimizer", self.betas, self.weight_decay)
        need(self.eps > 0, "ttt.optimizer.eps", self.eps, "above 0")

    def build(self, params: "list[torch.Tensor]") -> "FirstOrder":
        from pgolf.optim import first_order

        return first_order.AdamW(params, self.lr, self.betas, self.eps, self.weight_decay)


@dataclass(frozen=True, kw_only=True)
class SGD(TTTOptimizer):
    """Stochastic gradient descent with heavy-ball momentum."""

    momentum: float

    def __post_init__(self) -> None:
        super().__post_init__()
        need(0 <= self.momentum < 1, "ttt.optimizer.momentum", self.momentum, "at least 0 and below 1")

    def build(self, params: "list[torch.Tensor]") -> "FirstOrder":
        from pgolf.optim import first_order

        return first_order.SGD(params, self.lr, self.momentum)


@dataclass(frozen=True, kw_only=True)
class ParameterSelector(ABC):
    """Which parameters learn."""

    @abstractmethod
    def names(self, names: Iterable[str], layers: int) -> list[str]:
        """Those of the parameter `names` of a model of `layers` blocks that learn, in the model's order."""


@dataclass(frozen=True, kw_only=True)
class Everything(ParameterSelector):
    """All parameters."""

    def names(self, names: Iterable[str], layers: int) -> list[str]:
        return list(names)


@dataclass(frozen=True, kw_only=True)
class LastBlocks(ParameterSelector):
    """The last `blocks` blocks, and every parameter whose name holds one of the words `also`."""

    blocks: int
    also: tuple[str, ...]

    def __post_init__(self) -> None:
        need(self.blocks >= 0, "ttt.trained.blocks", self.blocks, "at least 0")
        need(
            self.blocks > 0 or len(self.also) > 0,
            "ttt.trained.also",
            list(self.also),
            "not empty when no block is trained",
        )
        need(all(self.also), "ttt.trained.also", list(self.also), "words of at least one letter")

    def names(self, names: Iterable[str], layers: int) -> list[str]:
        need(self.blocks <= layers, "ttt.trained.blocks", self.blocks, f"at most model.layers ({layers})")
        last = tuple(f"blocks.{i}." for i in range(layers - self.blocks, layers))
        return [n for n in names if n.startswith(last) or any(word in n for word in self.also)]


@dataclass(frozen=True, kw_only=True)
class Queries(ParameterSelector):
    """The query projections of every block and nothing else, so that keys and values stay as they were trained."""

    def names(self, names: Iterable[str], layers: int) -> list[str]:
        return [n for n in names if n.endswith(".attn.q.weight")]


@dataclass(frozen=True, kw_only=True)
class Temperature(ABC):
    """What logits are divided by before they are scored; it may look at the logits and at nothing else."""

    @abstractmethod
    def of(self, logits_BSV: "torch.Tensor") -> "torch.Tensor | float":
        """The temperature, one number or (B, S, 1)."""


def _need_temperature(value: float) -> None:
    acts = 0.1 <= value <= 10 and value != 1
    need(
        acts, "ttt.temperature.value", value, "between 0.1 and 10, and not 1, which does nothing (ttt/temperature=null)"
    )


@dataclass(frozen=True, kw_only=True)
class FixedTemperature(Temperature):
    """The same temperature everywhere."""

    value: float

    def __post_init__(self) -> None:
        _need_temperature(self.value)

    def of(self, logits_BSV: "torch.Tensor") -> float:
        return self.value


@dataclass(frozen=True, kw_only=True)
class EntropyTemperature(Temperature):
    """`value` where the model is certain, 1 where it knows nothing, in proportion to the entropy of its own prediction."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        need(
            0.1 <= self.low <= self.high <= 10,
            "ttt.temperature.low",
            self.low,
            "at least 0.1 and at most ttt.temperature.high",
        )
        _need_temperature(self.value)

    def of(self, logits_BSV: "torch.Tensor") -> "torch.Tensor":
        from pgolf.ttt.temperature import entropy_temperature

        return entropy_temperature(logits_BSV, self.value).clamp(self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Mixer(ABC):
    """Other predictors, learnt from committed text, that are mixed with the network's."""

    def check_text(self, targets: int) -> None:
        """Refuse a text of `targets` targets on which this could not act."""
        return None

    @abstractmethod
    def build(self, vocabulary: int, plan: "Plan", device: "torch.device") -> "Mixing":
        """The predictors and their weights as they are before any text, for tokens 0 … `vocabulary` − 1."""


@dataclass(frozen=True, kw_only=True)
class Hedge(Mixer):
    """The network mixed with unigram and bigram counts of committed text. The network begins with `neural_weight`, the two
    counts share the rest; after each chunk a weight falls by exp(-`rate` x mean nats). Priors are in tokens."""

    neural_weight: float
    rate: float
    unigram_prior: float
    bigram_prior: float

    def __post_init__(self) -> None:
        need(0 < self.neural_weight < 1, "ttt.mixer.neural_weight", self.neural_weight, "above 0 and below 1")
        need(self.rate > 0, "ttt.mixer.rate", self.rate, "above 0")
        need(self.unigram_prior > 0, "ttt.mixer.unigram_prior", self.unigram_prior, "above 0")
        need(self.bigram_prior > 0, "ttt.mixer.bigram_prior", self.bigram_prior, "above 0")

    def build(self, vocabulary: int, plan: "Plan", device: "torch.device") -> "HedgeMixer":
        from pgolf.ttt.mixer import HedgeMixer

        return HedgeMixer(self, vocabulary, device)


@dataclass(frozen=True, kw_only=True)
class Ngram(Mixer):
    """Token n-gram tilt (pull request 2135): where one token came at least `threshold` of the times after the same `order` − 1
    tokens, in committed text or earlier in the same row, its odds are multiplied by exp(`beta`). Its tables have `slots` places
    (fewer for a short text), and leave new contexts out when three quarters of them are taken."""

    order: int
    threshold: float
    beta: float
    slots: int

    def __post_init__(self) -> None:
        need(self.order >= 2, "ttt.mixer.order", self.order, "at least 2 (one token of context and the next)")
        need(0 < self.threshold <= 1, "ttt.mixer.threshold", self.threshold, "above 0 and at most 1")
        need(self.beta > 0, "ttt.mixer.beta", self.beta, "above 0 (ttt/mixer=null switches the tilt off)")
        power = self.slots >= 2 and self.slots & (self.slots - 1) == 0
        need(power, "ttt.mixer.slots", self.slots, "a power of two, at least 2")

    def check_text(self, targets: int) -> None:
        allowed = f"at most the {targets:,} tokens to score: no context of the text would be whole"
        need(self.order <= targets, "ttt.mixer.order", self.order, allowed)

    @property
    def table_bytes(self) -> int:
        """Most that the tables of one rank take of its host's memory: 32 bytes a slot."""
        return 32 * self.slots

    def build(self, vocabulary: int, plan: "Plan", device: "torch.device") -> "NgramTilt":
        from pgolf.ttt.ngram import NgramTilt

        return NgramTilt(self, plan, device)
