"""The model group: one family of transformers, every published system and the laptop's tiny one chosen by config.

The components here are plain numbers, checked for combinations that cannot exist; `build` turns them into torch modules.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgolf.errors import need
from pgolf.files.frozen import TARGET, added
from pgolf.model.activation import Activation
from pgolf.model.attention import AttentionKernel
from pgolf.model.extras import HeadGate, Lanes, Loss, WindowSmear
from pgolf.model.kinds import Skips

if TYPE_CHECKING:
    from pgolf.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class BigramHash:
    """A hashed table of token pairs: `slots` rows of `dim`, projected to the embedding width, times a learned `scale`."""

    slots: int
    dim: int
    scale: float

    def __post_init__(self) -> None:
        need(self.slots >= 2, "model.bigram.slots", self.slots, "at least 2 (the last slot is for position 0)")
        need(self.dim >= 1, "model.bigram.dim", self.dim, "at least 1")


@dataclass(frozen=True, kw_only=True)
class ValueEmbedding:
    """One table of `dim` per token, shared by `layers` (physical indices), added to their attention values."""

    dim: int
    layers: tuple[int, ...]
    std: float
    scale: float

    def __post_init__(self) -> None:
        need(self.dim >= 1, "model.value_embedding.dim", self.dim, "at least 1")
        need(self.std >= 0, "model.value_embedding.std", self.std, "at least 0")
        ascending = len(self.layers) > 0 and list(self.layers) == sorted(set(self.layers))
        allowed = "layer indices in ascending order, at least one (null switches the value embedding off)"
        need(ascending, "model.value_embedding.layers", list(self.layers), allowed)


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Depth recurrence: blocks `first` to `last` run once, then `num_loops` times more, whenever looping is switched on."""

    first: int
    last: int
    num_loops: int

    def __post_init__(self) -> None:
        need(self.first >= 0, "model.loop.first", self.first, "at least 0")
        need(self.last >= self.first, "model.loop.last", self.last, f"at least model.loop.first ({self.first})")
        need(self.num_loops >= 1, "model.loop.num_loops", self.num_loops, "at least 1 (null switches the loop off)")


@dataclass(frozen=True, kw_only=True)
class Model(ABC):
    """What the rest of pgolf needs of a model: its vocabulary, the module itself, and what it costs."""

    vocab_size: int

    @property
    @abstractmethod
    def recurrent(self) -> bool:
        """Whether depth recurrence changes anything when the schedule switches it on; if so, the schedule must."""

    @abstractmethod
    def build(self, seed: int, device: str = "cpu") -> "Transformer":
        """The initialised module; equal seeds give equal bits."""

    @abstractmethod
    def outline(self) -> "Transformer":
        """The module with weights that hold nothing: for names, shapes and sections. Its memory is reserved, not touched."""

    @abstractmethod
    def check_bos(self, bos: int) -> None:
        """Raise ConfigError where the model takes another token than `bos` for the beginning of a document."""

    @abstractmethod
    def parameters_count(self) -> int:
        """Number of stored values, shared ones counted once."""

    @abstractmethod
    def flops_per_token(self, sequence_length: int, looping: bool) -> int:
        """Forward and backward operations per trained token."""


@dataclass(frozen=True, kw_only=True)
class GPT(Model):
    """A decoder-only transformer with U-Net skips, after the public parameter-golf scripts."""

    layers: int
    width: int
    embed_width: int
    heads: int
    kv_heads: int
    mlp_hidden: int
    activation: Activation = added(
        lambda old: {TARGET: "pgolf.model.activation.LeakyReluSquared", "slope": old.pop("leaky_slope")}
    )
    attention: AttentionKernel = added({TARGET: "pgolf.model.attention.Causal"})
    head_gate: HeadGate | None = added(None)
    window_smear: WindowSmear | None = added(None)
    lanes: Lanes | None = added(None)
    loss: Loss = added({TARGET: "pgolf.model.extras.PlainLoss"})
    rope_dims: int
    rope_base: float
    rope_train_len: int
    qk_gain: float
    xsa_layers: int
    value_residual: bool
    value_embedding: ValueEmbedding | None
    bigram: BigramHash | None
    smear: bool
    ln_scale: bool
    skips: Skips
    resid_mix: bool
    parallel_from: int | None
    loop: Loop | None
    tied: bool
    embed_std: float
    softcap: float | None

    def __post_init__(self) -> None:
        for name in ("vocab_size", "layers", "width", "embed_width", "heads", "kv_heads", "mlp_hidden"):
            need(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "at least 1")
        for key, value, ok, allowed in self._ranges():
            need(ok, f"model.{key}", value, allowed)
        if self.head_gate is not None:
            self.head_gate.check(self.width)
        if self.window_smear is not None:
            self.window_smear.check(self.embed_width, self.vocab_size)
        if self.lanes is not None:
            self._check_lanes(self.lanes.first)

    def _ranges(self) -> Iterator[tuple[str, object, bool, str]]:
        """Rows of (key, value, is it possible, what is); each row may rely on those before it."""
        width, heads, layers, loop = self.width, self.heads, self.layers, self.loop
        yield "heads", heads, width % heads == 0, f"a divisor of model.width ({width})"
        yield "kv_heads", self.kv_heads, heads % self.kv_heads == 0, f"a divisor of model.heads ({heads})"
        rope = self.rope_dims == 0 or (self.rope_dims % 2 == 0 and 4 <= self.rope_dims <= self.head_dim)
        allowed = f"0 (off) or even and between 4 and model.width / model.heads ({self.head_dim})"
        yield "rope_dims", self.rope_dims, rope, allowed
        yield "rope_base", self.rope_base, self.rope_base > 1, "above 1"
        yield "rope_train_len", self.rope_train_len, self.rope_train_len >= 1, "at least 1"
        yield "xsa_layers", self.xsa_layers, 0 <= self.xsa_layers <= layers, f"between 0 and model.layers ({layers})"
        start = self.parallel_from
        yield "parallel_from", start, start is None or 0 <= start < layers, f"null or between 0 and {layers - 1}"
        yield "embed_std", self.embed_std, self.embed_std >= 0, "at least 0"
        yield "softcap", self.softcap, self.softcap is None or self.softcap > 0, "null or above 0"
        if loop is not None:
            yield "loop.last", loop.last, loop.last < layers, f"below model.layers ({layers})"
        if self.value_embedding is not None:
            inside = all(0 <= i < layers for i in self.value_embedding.layers)
            allowed = f"indices between 0 and {layers - 1} (model.layers is {layers})"
            yield "value_embedding.layers", list(self.value_embedding.layers), inside, allowed

    def _check_lanes(self, first: int) -> None:
        """Lanes need blocks of their own, after those that recur, in the half that takes up skips."""
        need(0 <= first < self.layers, "model.lanes.first", first, f"between 0 and {self.layers - 1}, the last block")
        alone = self.loop is None or first > self.loop.last
        need(alone, "model.lanes.first", first, f"above model.loop.last: lanes cannot recur with {self.loop}")
        middle = max(len(order) // 2 - order.index(first) for order in map(self.order, (False, True)))
        need(middle <= 0, "model.lanes.first", first, "in the second half of the blocks, which takes up skips")
        need(self.parallel_from is None, "model.parallel_from", self.parallel_from, "null where there are lanes")

    @property
    def recurrent(self) -> bool:
        return self.loop is not None

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    @property
    def kv_width(self) -> int:
        """Width of keys and of values."""
        return self.kv_heads * self.head_dim

    def order(self, looping: bool) -> tuple[int, ...]:
        """Blocks in the order they run. `Loop(first=1, last=2, num_loops=1)` of 4 layers: 0 1 2 1 2 3 when looping."""
        blocks = tuple(range(self.layers))
        if self.loop is None or not looping:
            return blocks
        first, end = self.loop.first, self.loop.last + 1
        return blocks[:first] + blocks[first:end] * (self.loop.num_loops + 1) + blocks[end:]

    @property
    def skip_slots(self) -> int:
        """Number of encoder-decoder pairs of the longest order; a shorter order uses the first of them."""
        return 0 if self.skips is Skips.NONE else len(self.order(looping=True)) // 2

    def build(self, seed: int, device: str = "cpu") -> "Transformer":
        from pgolf.model.initial import init_model

        return init_model(self, seed, device)

    def outline(self) -> "Transformer":
        import torch

        from pgolf.model.transformer import Transformer

        return Transformer(self, torch.float32)

    def check_bos(self, bos: int) -> None:
        if self.window_smear is not None:
            smear = self.window_smear.bos
            allowed = f"{bos}, the token that begins a document of this text, or null"
            need(smear in (None, bos), "model.window_smear.bos", smear, allowed)

    def parameters_count(self) -> int:
        return sum(p.numel() for p in self.outline().parameters())

    def flops_per_token(self, sequence_length: int, looping: bool) -> int:
        """6 N + 12 · width · sequence_length per visited block (PaLM, arXiv 2204.02311, appendix B).

        N counts a block's matrices once per visit, the head and the projections once, table lookups never. The causal
        half of attention that is masked away is counted, as is usual, so utilisation compares with published figures.
        """
        block = 2 * self.width * (self.width + self.kv_width) + self.activation.multiplications(
            self.width, self.mlp_hidden
        )
        visits = len(self.order(looping))
        N = visits * block + self.vocab_size * self.embed_width
        if self.embed_width != self.width:
            N += 2 * self.embed_width * self.width
        if self.bigram is not None and self.bigram.dim != self.embed_width:
            N += self.bigram.dim * self.embed_width
        if self.value_embedding is not None and self.value_embedding.dim != self.kv_width:
            N += self.value_embedding.dim * self.kv_width
        return 6 * N + 12 * self.width * self.attention.keys_read(sequence_length) * visits
